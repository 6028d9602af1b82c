"""Null iterations in which foci fall anywhere: what one of them is, and a batch of them.

Every focus gets, independently and with replacement, a place of a pool; analyses keep their number
of foci and their footprint. An iteration depends on its own number only, so that batches, threads,
machines and the order in which they run do not matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.errors import SettingsError
from nimare_dask.kernels import overlay, tally
from nimare_dask.nulls.jobs import Batch, below, own_fields, pack_mask, raw_numbers, unpack_mask
from nimare_dask.provenance import plain
from nimare_dask.statistic import Statistic


@dataclass(frozen=True, kw_only=True)
class Enhancement:
    """Threshold-free cluster enhancement (TFCE) of a map of z scores.

    Attributes
    ----------
    E, H
        Powers of extent and height: every voxel gets the sum of ``extent ** E * height ** H *
        step`` over all heights below its own z.
    step
        Distance of the heights, in units of z.

    References
    ----------
    Smith SM, Nichols TE (2009), doi:10.1016/j.neuroimage.2008.03.061.
    """

    E: float = 0.5
    H: float = 2.0
    step: float = 0.1

    def __post_init__(self) -> None:
        values: list[Any] = [self.E, self.H, self.step]
        if not all(isinstance(value, Real) and 0 < float(value) < np.inf for value in values):
            raise SettingsError(f"tfce is {self}; expected E, H and step above 0.")


@dataclass(frozen=True, kw_only=True)
class Relocation:
    """All that iterations need, small enough to be sent to every worker once.

    Attributes
    ----------
    statistic
        What is computed of the foci.
    n_foci
        Foci of each analysis, (analysis,).
    pool
        Voxel indices that foci fall on, int32 (place, axis); one that is there twice is drawn twice
        as often.
    mask
        Voxels where the statistic is computed.
    random_state, step
        Seed, and what the iterations are for.
    stat_thresh
        Clusters are made of voxels strictly above it; None leaves clusters out.
    heights
        For TFCE, the statistic at each multiple of the step of z, float64 (height,); inf where no
        statistic reaches it.
    enhancement
        TFCE settings, or None.
    observed
        Sums of the observed map, int64 (voxel,), to count iterations that reach them; or None.
    """

    statistic: Statistic
    n_foci: NDArray[np.int32]
    pool: NDArray[np.int32]
    mask: NDArray[np.bool_]
    random_state: int
    step: int = 0
    stat_thresh: float | None = None
    heights: NDArray[np.float64] | None = None
    enhancement: Enhancement | None = None
    observed: NDArray[np.int64] | None = None

    @property
    def labels(self) -> dict[str, list[str]]:
        """What there is a maximum of, by dimension."""
        return {"inference": self.inference}

    @property
    def lengths(self) -> dict[str, int]:
        """Length of each array that adds up over iterations."""
        lengths = {"null_histogram": len(self.statistic.bins)}
        return lengths if self.observed is None else lengths | {"null_reaching": len(self.observed)}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        tfce = None if self.enhancement is None else plain(vars(self.enhancement))
        return {"stat_thresh": self.stat_thresh, "tfce": tfce}

    @property
    def inference(self) -> list[str]:
        """What there is a maximum of."""
        names = ["voxel"]
        if self.stat_thresh is not None:
            names += ["size", "mass"]
        return names + ["tfce"] * (self.enhancement is not None)

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Analysis of each focus, (focus,)."""
        return np.repeat(np.arange(len(self.n_foci), dtype=np.int32), self.n_foci)

    @cached_property
    def place(self) -> overlay.Place:
        """The mask as runs."""
        return overlay.place_of(self.mask)

    @cached_property
    def neighbours(self) -> tally.Neighbours:
        """The mask as a volume to find clusters in."""
        return tally.neighbours_of(self.mask)

    @cached_property
    def highest_below(self) -> int:
        """The largest sum that is not above the cluster-forming threshold."""
        assert self.stat_thresh is not None
        return self.statistic.last_sum(self.stat_thresh)

    @cached_property
    def height_steps(self) -> tally.Steps:
        """Heights of TFCE as ranges of sums; the first range is below all heights."""
        assert self.heights is not None
        return self.statistic.ranges(self.heights[np.isfinite(self.heights)])

    def draw(self, iteration: int) -> NDArray[np.int32]:
        """Where foci fall in an iteration, (focus, axis)."""
        return np.take(self.pool, self.draw_places(iteration), axis=0)

    def draw_places(self, iteration: int) -> NDArray[np.intp]:
        """The place of the pool that each focus falls on in an iteration, (focus,)."""
        raw = raw_numbers(self, iteration, len(self.owner))
        return below(raw, np.uint64(len(self.pool))).astype(np.intp)

    def __getstate__(self) -> dict[str, Any]:
        return own_fields(self)

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        statistic = self.statistic
        sums = np.empty(int(self.place.first_voxel[-1]), statistic.sum_type)
        label = np.zeros(self.neighbours.size, np.int32)
        maxima = np.empty((stop - start, len(self.inference)))
        histogram = np.zeros(len(statistic.bins), np.int64)
        reaching = None if self.observed is None else np.zeros(len(sums), np.int32)
        for row, iteration in enumerate(range(start, stop)):
            statistic.sums(self.draw(iteration), self.owner, self.place, sums)
            tally.tally(sums, statistic.steps, histogram)
            maxima[row] = self.measure(sums, label)
            if reaching is not None:
                tally.count_reaching(sums, self.observed, reaching)
        together: dict[str, NDArray[np.integer]] = {"null_histogram": histogram}
        if reaching is not None:
            together["null_reaching"] = reaching
        return Batch(maxima=maxima, sums=together)

    def task_bytes(self) -> int:
        """About the memory that a running batch needs, in bytes."""
        n_foci, item = len(self.owner), self.statistic.sum_type.itemsize
        reach = self.statistic.footprints.reach.max(axis=0)
        _, j, k = self.mask.shape
        # Planes of sums, foci by plane and where they are; draws; sums and labels; histogram.
        planes = 2 * (j + 4 * int(reach[1])) * (k + 4 * int(reach[2]) + 32) * item
        lists = n_foci * (4 * (2 * int(reach[0]) + 1) + 8 + 12)
        maps = int(self.place.first_voxel[-1]) * (item + 12) + 4 * self.neighbours.size
        steps = self.statistic.steps
        tables = 8 * len(steps.edges) * 2 + 4 * len(steps.start)
        return int(planes + lists + 40 * n_foci + maps + tables)

    def measure(self, sums: NDArray[np.signedinteger], label: NDArray[np.int32]) -> list[float]:
        """Maxima of one map of sums, as :attr:`inference` names them; `label` is work space."""
        found = [float(self.statistic.values(sums.max()[None])[0])]
        if self.stat_thresh is not None:
            above = np.flatnonzero(sums > self.highest_below)
            excess = self.statistic.values(sums[above]).astype(np.float64) - self.stat_thresh
            found += map(float, tally.largest_clusters(above, excess, self.neighbours, label))
        if self.enhancement is not None:
            level = tally.bins_of(sums, self.height_steps)
            found.append(
                float(
                    tally.largest_enhanced(
                        level, self.height_weights, self.extent_powers, self.neighbours, label
                    )
                )
            )
        return found

    @cached_property
    def height_weights(self) -> NDArray[np.float64]:
        """``height ** H * step`` of each height, the first of which is 0, (height + 1,)."""
        assert self.enhancement is not None and self.heights is not None
        heights = self.enhancement.step * np.arange(len(self.heights) + 1)
        return np.asarray(heights**self.enhancement.H * self.enhancement.step, np.float64)

    @cached_property
    def extent_powers(self) -> NDArray[np.float64]:
        """``extent ** E`` of each number of voxels, (extent,)."""
        assert self.enhancement is not None
        extents = np.arange(self.place.first_voxel[-1] + 1, dtype=np.float64)
        return np.asarray(extents**self.enhancement.E, np.float64)

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which :func:`from_dataset` makes it again."""
        variables, statistic = self.statistic.to_variables()
        variables |= {
            "analysis_n_foci": ("analysis", self.n_foci),
            "pool_ijk": (("place", "axis"), self.pool),
            "mask_bits": pack_mask(self.mask),
        }
        if self.heights is not None:
            variables["tfce_height"] = ("height", self.heights)
        if self.observed is not None:
            variables["observed_sum"] = ("voxel", self.observed)
        settings = {
            "statistic": statistic,
            "shape": list(self.mask.shape),
            "random_state": self.random_state,
            "step": self.step,
            **self.facts(),
        }
        return xr.Dataset(
            variables, attrs={"job": "relocation", "job_settings": json.dumps(settings)}
        )


def from_dataset(dataset: xr.Dataset) -> Relocation:
    """Make a relocation again from what :meth:`Relocation.to_dataset` gave."""
    told = json.loads(dataset.attrs["job_settings"])
    values = {str(name): dataset[name].values for name in dataset.variables}
    return Relocation(
        statistic=Statistic.from_variables(dataset, told["statistic"]),
        n_foci=values["analysis_n_foci"],
        pool=values["pool_ijk"],
        mask=unpack_mask(dataset, told["shape"]),
        random_state=told["random_state"],
        step=told["step"],
        stat_thresh=told["stat_thresh"],
        heights=values.get("tfce_height"),
        enhancement=None if told["tfce"] is None else Enhancement(**told["tfce"]),
        observed=values.get("observed_sum"),
    )
