"""Null iterations of the difference of two ALE maps, in which analyses change groups."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import foci_of
from nimare_dask.kernels import clusters, difference, overlay, prefixes
from nimare_dask.nulls.jobs import STEPS, Batch, own_fields, pack_mask, raw_numbers, unpack_mask
from nimare_dask.nulls.label_counts import INFERENCES
from nimare_dask.statistic import Statistic

#: Up to this size a table of all analyses is kept in memory; beyond it maps are rebuilt from foci.
TABLE_BYTES = 500_000_000

#: Values (iteration x voxel) that the cluster-forming threshold is a quantile of, about; and the
#: number of iterations that they are from.
_CALIBRATION_VALUES, _CALIBRATIONS = 25_000_000, (20, 200)

#: Threads of one process build the table once, not each for itself.
_building = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is built from the foci once in each process."""

    #: Whole numbers of all analyses, or None where that would be too large.
    rows: difference.Table | None
    total: NDArray[np.signedinteger]  # (voxel): sum over all analyses
    observed: NDArray[np.signedinteger]  # (voxel): sum over group 1


@dataclass(frozen=True, kw_only=True)
class Subtraction:
    """All that iterations need, small enough to be sent to every worker once.

    Attributes
    ----------
    statistic
        ALE of all analyses.
    ijk
        Voxel indices of the foci, one analysis after the other, int16 (focus, axis).
    n_foci
        Foci of each analysis, (analysis,).
    in_first
        Whether each analysis is of group 1, (analysis,).
    mask
        Voxels of the maps.
    stat_thresh
        Clusters are made of voxels whose absolute difference is strictly above it.
    with_clusters
        Whether clusters are wanted.
    random_state, step
        Seed, and what the iterations are for.
    """

    statistic: Statistic
    ijk: NDArray[np.int16]
    n_foci: NDArray[np.int32]
    in_first: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    stat_thresh: float
    with_clusters: bool
    random_state: int
    step: int = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        """What there is a maximum of, by dimension."""
        return {"inference": list(INFERENCES if self.with_clusters else INFERENCES[:1])}

    @property
    def lengths(self) -> dict[str, int]:
        """Length of each array that adds up over iterations."""
        n_voxels = int(self.mask.sum())
        return {"null_up": n_voxels, "null_low": n_voxels}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        return {"stat_thresh": self.stat_thresh if self.with_clusters else None}

    @cached_property
    def place(self) -> overlay.Place:
        """The mask as runs."""
        return overlay.place_of(self.mask)

    def sums(self, analyses: NDArray[np.integer]) -> NDArray[np.signedinteger]:
        """Sums of -ln(1 - activation) over some analyses, rebuilt from their foci, (voxel,)."""
        places = foci_of(self.n_foci, analyses)
        out = np.empty(int(self.place.first_voxel[-1]), self.statistic.sum_type)
        overlay.sum_footprints(
            self.ijk[places].astype(np.int32),
            np.repeat(np.arange(len(analyses), dtype=np.int32), self.n_foci[analyses]),
            self.statistic.footprint_of[analyses],
            self.statistic.footprints,
            True,
            self.place,
            out,
        )
        return out

    def table(self) -> Table:
        """What is built from the foci: once in a process, and never sent anywhere."""
        with _building:
            if "_table" not in self.__dict__:
                self.__dict__["_table"] = self._build()
        table: Table = self.__dict__["_table"]
        return table

    def _build(self) -> Table:
        everyone = np.arange(len(self.n_foci))
        total, observed = self.sums(everyone), self.sums(np.flatnonzero(self.in_first))
        each = (self.sums(everyone[analysis : analysis + 1]) for analysis in everyone)
        rows = difference.table_of(each, len(total), TABLE_BYTES)
        return Table(rows=rows, total=total, observed=observed)

    def __getstate__(self) -> dict[str, Any]:
        return own_fields(self)

    def with_threshold(self, stat_thresh: float) -> Subtraction:
        """The same with another threshold, and the table that is built already."""
        job = replace(self, stat_thresh=float(stat_thresh))
        job.__dict__["_table"] = self.table()
        return job

    @property
    def takes_rest(self) -> bool:
        """Whether group 1 is the larger, so that the analyses of group 2 are drawn."""
        return 2 * int(self.in_first.sum()) > len(self.n_foci)

    def order(self, iteration: int) -> NDArray[np.int32]:
        """The analyses of the smaller group in an iteration, (member,)."""
        n, n_first = len(self.n_foci), int(self.in_first.sum())
        count = min(n_first, n - n_first)
        order = np.arange(n, dtype=np.int32)
        prefixes.shuffle(raw_numbers(self, iteration, count), order)
        return order[:count]

    def chosen(self, iteration: int) -> NDArray[np.int32]:
        """The analyses of group 1 in an iteration, (member,)."""
        order = self.order(iteration)
        if not self.takes_rest:
            return order
        return np.setdiff1d(np.arange(len(self.n_foci), dtype=np.int32), order)

    def first_sums(self, iteration: int) -> NDArray[np.signedinteger]:
        """Sums of group 1 in an iteration, (voxel,)."""
        table, order = self.table(), self.order(iteration)
        if table.rows is None:
            part = self.sums(order)
        else:
            part = np.empty_like(table.total)
            difference.sum_analyses(table.rows, order, part)
        return table.total - part if self.takes_rest else part

    def differences(self, first: NDArray[np.signedinteger]) -> NDArray[np.float32]:
        """ALE of group 1 less that of group 2, given the sums of group 1, (voxel,)."""
        return self._differences(first, self.table().total)

    def _differences(
        self, first: NDArray[np.signedinteger], total: NDArray[np.signedinteger]
    ) -> NDArray[np.float32]:
        out = np.empty(len(first), np.float32)
        difference.differences(first, total, self.statistic.scale, out)
        return out

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        table, n_iters = self.table(), stop - start
        orders = np.array([self.order(iteration) for iteration in range(start, stop)])
        n_voxels = len(table.total)
        room_for = 10_000 + n_iters * n_voxels // 200
        while True:
            found = difference.Found(
                np.empty(room_for, np.int32), np.empty(room_for, np.int32), np.empty(room_for, int)
            )
            up, low = np.zeros((2, n_voxels), np.uint32)
            n_found = self._shuffle(table, orders, up, low, found)
            if n_found <= room_for:
                break
            room_for = n_found
        maxima = self._measure(start, n_iters, found, n_found)
        return Batch(maxima=maxima, sums={"null_up": up, "null_low": low})

    def _shuffle(
        self,
        table: Table,
        orders: NDArray[np.int32],
        up: NDArray[np.uint32],
        low: NDArray[np.uint32],
        found: difference.Found,
    ) -> int:
        """Count and list all voxels of all iterations; give the number that are listed."""
        limits = difference.limits_of(table.total, self.stat_thresh, self.statistic.scale)
        about = (table.total, table.observed, limits)
        if table.rows is not None:
            shuffle = difference.shuffle_table
            return int(shuffle(table.rows, orders, self.takes_rest, *about, up, low, found))
        near, n_found = np.zeros(-(-len(limits) // 8) * 8, np.uint8), 0
        for iteration, order in enumerate(orders):
            sums = self.sums(order)
            sums = table.total - sums if self.takes_rest else sums
            room = (near, near.view(np.uint64))
            n_found = difference.look_at(sums, 0, iteration, *about, *room, up, low, found, n_found)
        return n_found

    def _measure(
        self, start: int, n_iters: int, found: difference.Found, n_found: int
    ) -> NDArray[np.float64]:
        table, grid = self.table(), clusters.grid_of(self.mask)
        room = clusters.room_for(grid)
        n_voxels = len(table.total)
        members = difference.Members(np.empty(n_voxels, np.int32), np.empty(n_voxels, np.int64))
        order = np.argsort(found.iteration[:n_found], kind="stable")
        voxel, first = found.voxel[order], found.total[order]
        values = self._differences(first, table.total[voxel])
        ends = np.cumsum(np.bincount(found.iteration[:n_found], minlength=n_iters))
        maxima = np.zeros((n_iters, len(INFERENCES)))
        for row, (begin, end) in enumerate(zip(np.append(0, ends), ends, strict=False)):
            maxima[row] = difference.measure(
                voxel[begin:end], values[begin:end], self.stat_thresh, grid, room, members
            )
            if maxima[row, 0] == 0:  # nothing is beyond the threshold, and only that was listed
                maxima[row, 0] = np.abs(self.differences(self.first_sums(start + row))).max()
        return maxima[:, : len(self.labels["inference"])]

    def _table_bytes(self) -> int:
        """About the size of the table: half of the blocks of an analysis hold something."""
        item = self.statistic.sum_type.itemsize
        return len(self.n_foci) * int(self.mask.sum()) * item // 2

    def task_bytes(self) -> int:
        """About the memory of a running batch, and the table."""
        table = self._table_bytes()
        return 120 * int(self.mask.sum()) + (table if table <= TABLE_BYTES else 0)

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which :func:`from_dataset` makes it again."""
        variables, statistic = self.statistic.to_variables()
        settings = {
            "statistic": statistic,
            "shape": list(self.mask.shape),
            "stat_thresh": self.stat_thresh,
            "with_clusters": self.with_clusters,
            "random_state": self.random_state,
            "step": self.step,
        }
        return xr.Dataset(
            {
                **variables,
                "focus_ijk": (("focus", "axis"), self.ijk),
                "analysis_n_foci": ("analysis", self.n_foci),
                "analysis_in_first": ("analysis", self.in_first),
                "mask_bits": pack_mask(self.mask),
            },
            attrs={"job": "subtraction", "job_settings": json.dumps(settings)},
        )


def from_dataset(dataset: xr.Dataset) -> Subtraction:
    """Make a job again from what :meth:`Subtraction.to_dataset` gave."""
    told = json.loads(dataset.attrs["job_settings"])
    return Subtraction(
        statistic=Statistic.from_variables(dataset, told["statistic"]),
        ijk=dataset["focus_ijk"].values,
        n_foci=dataset["analysis_n_foci"].values,
        in_first=dataset["analysis_in_first"].values.astype(bool),
        mask=unpack_mask(dataset, told["shape"]),
        stat_thresh=told["stat_thresh"],
        with_clusters=told["with_clusters"],
        random_state=told["random_state"],
        step=told["step"],
    )


def threshold_of(job: Subtraction, voxel_thresh: float) -> float:
    """Absolute difference that a share `voxel_thresh` of the null is above.

    The quantile over the voxels of some iterations of a stream of their own, so that it is known
    before the first iteration of a null and does not change when that is extended.
    """
    n_voxels = int(job.mask.sum())
    fewest, most = _CALIBRATIONS
    n_iters = int(np.clip(_CALIBRATION_VALUES // n_voxels, fewest, most))
    calibration = replace(job, step=STEPS["threshold"])
    calibration.__dict__["_table"] = job.table()
    values = np.empty((n_iters, n_voxels), np.float32)
    for iteration in range(n_iters):
        values[iteration] = np.abs(calibration.differences(calibration.first_sums(iteration)))
    flat = values.ravel()
    place = (flat.size - 1) * (1 - voxel_thresh)
    low = int(np.floor(place))
    high = min(low + 1, flat.size - 1)
    flat.partition([low, high])
    share = place - low
    return float(flat[low]) * (1 - share) + float(flat[high]) * share
