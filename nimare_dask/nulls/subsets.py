"""Iterations of the balanced contrast of ALE: clusters of subsets of a group.

How large clusters are by chance, and how often those of random subsets are larger. A subset is
fitted with the approximate null of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import foci_of
from nimare_dask.kernels import clusters, overlay, prefixes
from nimare_dask.nulls import approximate
from nimare_dask.nulls.jobs import Batch, below, pack_mask, raw_numbers, unpack_mask
from nimare_dask.statistic import Statistic, StudyValues
from nimare_dask.stats import empirical, pz


@dataclass(frozen=True, kw_only=True)
class Activation:
    """Analyses and what their foci stand for, in whole numbers.

    Attributes
    ----------
    statistic
        ALE of all of them; its bins are not used.
    values, steps
        What activation can be, float32 (value,), and footprints of positions in it.
    ijk
        Voxel indices of the foci, one analysis after the other, int16 (focus, axis).
    n_foci
        Foci of each analysis, (analysis,).
    mask
        Voxels of the maps.
    """

    statistic: Statistic
    values: NDArray[np.float32]
    steps: overlay.Footprints
    ijk: NDArray[np.int16]
    n_foci: NDArray[np.int32]
    mask: NDArray[np.bool_]

    @cached_property
    def place(self) -> overlay.Place:
        """The mask as runs."""
        return overlay.place_of(self.mask)

    @property
    def n_voxels(self) -> int:
        """Voxels of the maps."""
        return int(self.place.first_voxel[-1])

    def foci_of(
        self, analyses: NDArray[np.integer]
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]:
        """Numbers of the foci of some analyses, owner of each among them, and their footprints."""
        places = foci_of(self.n_foci, analyses)
        owner = np.repeat(np.arange(len(analyses), dtype=np.int32), self.n_foci[analyses])
        return places, owner, self.statistic.footprint_of[analyses]

    def sums(
        self, analyses: NDArray[np.integer], ijk: NDArray[np.int32] | None = None
    ) -> NDArray[np.signedinteger]:
        """Sums of -ln(1 - activation) over some analyses, of their own foci or of others."""
        places, owner, which = self.foci_of(analyses)
        out = np.empty(self.n_voxels, self.statistic.sum_type)
        points = self.ijk[places].astype(np.int32) if ijk is None else ijk
        overlay.sum_footprints(
            points, owner, which, self.statistic.footprints, True, self.place, out
        )
        return out

    def significant(
        self,
        analyses: NDArray[np.integer],
        z_thresh: float,
        ijk: NDArray[np.int32] | None = None,
    ) -> NDArray[np.int32]:
        """Voxels where z of ALE, by its approximate null, is above a threshold; ascending."""
        places, owner, which = self.foci_of(analyses)
        points = self.ijk[places].astype(np.int32) if ijk is None else ijk
        counts = overlay.count_values(
            points, owner, which, self.steps, True, self.place, len(analyses), len(self.values)
        )
        study = StudyValues(values=self.values, counts=counts)
        bins = approximate.ale_bins(study.maxima())
        weights = approximate.ale_fold(study, bins, np.arange(len(analyses)))
        z = pz.nlogp_to_z(pz.p_to_nlogp(empirical.p_of_bins(weights)), "one")
        above = np.flatnonzero(z > z_thresh)
        if above.size == 0:
            return np.empty(0, np.int32)
        # Bins reach from half a step below their centre.
        lowest = bins[above[0]] - (bins[1] - bins[0]) / 2
        limit = int(self.statistic.first_sums(np.array([lowest]))[0])
        return np.flatnonzero(self.sums(analyses, ijk) >= limit).astype(np.int32)

    def to_variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and settings from which :meth:`from_dataset` makes it again."""
        variables, statistic = self.statistic.to_variables()
        del variables["bin_center"]
        variables |= {
            "value": ("value", self.values),
            "step_value": ("step_lane", self.steps.values),
            "step_plane": (("step_row", "plane_part"), self.steps.plane),
            "step_first_plane": ("step_footprint", self.steps.first_plane),
            "step_reach": (("footprint", "axis"), self.steps.reach),
            "focus_ijk": (("focus", "axis"), self.ijk),
            "analysis_n_foci": ("analysis", self.n_foci),
            "mask_bits": pack_mask(self.mask),
        }
        largest = self.steps.largest
        return variables, {"statistic": statistic, "largest": largest, "shape": self.mask.shape}

    @staticmethod
    def from_dataset(dataset: xr.Dataset, told: dict[str, Any]) -> Activation:
        """Make it again from what :meth:`to_variables` gave."""
        steps = dataset["step_value"].values
        return Activation(
            statistic=Statistic.from_variables(
                dataset.assign(bin_center=("bin", np.zeros(1))), told["statistic"]
            ),
            values=dataset["value"].values,
            steps=overlay.Footprints(
                values=steps,
                plane=dataset["step_plane"].values,
                first_plane=dataset["step_first_plane"].values,
                reach=dataset["step_reach"].values,
                largest=told["largest"],
                highest=int(np.iinfo(steps.dtype).max),
            ),
            ijk=dataset["focus_ijk"].values,
            n_foci=dataset["analysis_n_foci"].values,
            mask=unpack_mask(dataset, told["shape"]),
        )


@dataclass(frozen=True, kw_only=True)
class Surviving:
    """Subsets of a group: how large their clusters are, or which voxels are in large ones.

    Attributes
    ----------
    activation
        The analyses of the group.
    target_n
        Analyses of a subset.
    z_thresh
        Clusters are made of voxels whose z is above it.
    pool
        Voxel indices that foci fall on, int32 (place, axis): then each iteration draws a subset and
        new places for its foci. None: iteration i is the reported foci of subset i.
    subsets
        The subsets, (iteration, analysis), where foci stay.
    larger_than
        Clusters of so many voxels and fewer do not survive.
    random_state, step
        Seed, and what the iterations are for.
    """

    activation: Activation
    target_n: int
    z_thresh: float
    random_state: int
    pool: NDArray[np.int32] | None = None
    subsets: NDArray[np.int32] | None = None
    larger_than: float = 0.0
    step: int = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        """What there is a maximum of."""
        return {"inference": ["size"]}

    @property
    def lengths(self) -> dict[str, int]:
        """Length of each array that adds up over iterations."""
        return {} if self.subsets is None else {"null_surviving": self.activation.n_voxels}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        return {"target_n": self.target_n, "larger_than": self.larger_than}

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        activation, grid = self.activation, clusters.grid_of(self.activation.mask)
        room = clusters.room_for(grid)
        sizes = np.zeros((stop - start, 1))
        surviving = np.zeros(activation.n_voxels, np.int64)
        for row, iteration in enumerate(range(start, stop)):
            voxels = self._voxels(iteration)
            size, mass = np.empty((2, len(voxels)), np.int64)
            clusters.cluster_of_each(voxels, np.zeros_like(mass), grid, room, size, mass)
            sizes[row] = size.max(initial=0)
            surviving[voxels[size > self.larger_than]] += 1
        return Batch(maxima=sizes, sums={"null_surviving": surviving} if self.lengths else {})

    def _voxels(self, iteration: int) -> NDArray[np.int32]:
        if self.subsets is not None:
            return self.activation.significant(self.subsets[iteration], self.z_thresh)
        assert self.pool is not None
        n = len(self.activation.n_foci)
        analyses = np.arange(n, dtype=np.int32)
        raw = raw_numbers(self, iteration, n + int(self.activation.n_foci.sum()))
        if self.target_n < n:
            prefixes.shuffle(raw[: self.target_n], analyses)
            analyses = np.sort(analyses[: self.target_n])
        n_foci = int(self.activation.n_foci[analyses].sum())
        drawn = below(raw[n : n + n_foci], np.uint64(len(self.pool))).astype(np.intp)
        return self.activation.significant(analyses, self.z_thresh, self.pool[drawn])

    def task_bytes(self) -> int:
        """About the memory of a running batch."""
        return 100 * self.activation.n_voxels

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which it can be made again."""
        variables, settings = self.activation.to_variables()
        if self.pool is not None:
            variables["pool_ijk"] = (("place", "axis"), self.pool)
        if self.subsets is not None:
            variables["subset"] = (("subset", "member"), self.subsets)
        names = ("target_n", "z_thresh", "larger_than", "random_state", "step")
        settings |= {name: getattr(self, name) for name in names}
        return xr.Dataset(
            variables, attrs={"job": "surviving", "job_settings": json.dumps(settings)}
        )

    @staticmethod
    def from_dataset(dataset: xr.Dataset) -> Surviving:
        """Make it again from what :meth:`to_dataset` gave."""
        told = json.loads(dataset.attrs["job_settings"])
        names = ("target_n", "z_thresh", "larger_than", "random_state", "step")
        return Surviving(
            activation=Activation.from_dataset(dataset, told),
            pool=dataset["pool_ijk"].values if "pool_ijk" in dataset else None,
            subsets=dataset["subset"].values if "subset" in dataset else None,
            **{name: told[name] for name in names},
        )
