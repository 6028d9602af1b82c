"""Null iterations in which labels are shuffled: chi-square of groups of the same sizes.

Which analyses have the label is drawn anew; where analyses report stays as it is. All that such an
iteration depends on is how many have the label, so one set of shuffles serves every feature of a
database: the first analyses of one shuffle are a group of every size.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import distributions

from nimare_dask.activation import index_foci
from nimare_dask.kernels import coverage, exceed, prefixes, rows
from nimare_dask.nulls.jobs import Batch, own_fields, pack_mask, raw_numbers, unpack_mask
from nimare_dask.provenance import digest_values

INFERENCES = ("voxel", "size", "mass")

#: Chi-square below which voxels are not looked at when there is no cluster-forming threshold.
SEARCH_FROM = 10.8

#: About the bytes of the table of runs, and of building it, for each focus.
_TABLE_BYTES = 600

#: Threads of one process build the table of runs once, not each for itself.
_building = threading.Lock()


def chi2_threshold(voxel_thresh: float | None) -> float | None:
    """Chi-square with one degree of freedom that a share `voxel_thresh` is above by chance."""
    return None if voxel_thresh is None else float(distributions.chi2.isf(voxel_thresh, 1))


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What is built from the foci once in each process: 100 MB for all of Neurosynth."""

    rows: rows.Rows
    margins: exceed.Margins


#: The tables of the latest corpus, for all nulls of it in this process.
_built: dict[tuple[str, ...], Tables] = {}


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """All that iterations need, small enough to be sent to every worker once.

    Attributes
    ----------
    ijk
        Voxel indices of the foci, one analysis after the other, int16 (focus, axis).
    n_foci
        Foci of each analysis, (analysis,).
    columns
        What a focus reaches, int32 (column, part); see kernels.footprints.
    mask
        Voxels of the maps.
    sizes
        Analyses that have the label, for each group, ascending, (size,).
    effects
        Which chi-squares.
    chi2_thresh
        Clusters are made of voxels strictly above it; None leaves clusters out.
    random_state, step
        Seed, and what the iterations are for.
    by_size
        Whether maxima have a dimension for sizes; else there is one size.
    """

    ijk: NDArray[np.int16]
    n_foci: NDArray[np.int32]
    columns: NDArray[np.int32]
    mask: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    effects: tuple[str, ...]
    chi2_thresh: float | None
    random_state: int
    step: int = 0
    by_size: bool = False

    @property
    def labels(self) -> dict[str, list[Any]]:
        """What there is a maximum of, by dimension."""
        inference = list(INFERENCES if self.chi2_thresh is not None else INFERENCES[:1])
        groups: dict[str, list[Any]] = {"size": self.sizes.tolist()} if self.by_size else {}
        return {**groups, "effect": list(self.effects), "inference": inference}

    @property
    def lengths(self) -> dict[str, int]:
        """Nothing adds up over iterations."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        return {
            "chi2_thresh": self.chi2_thresh,
            "sizes": self.sizes.tolist(),
            "effects": list(self.effects),
        }

    @property
    def n_analyses(self) -> int:
        """Analyses, with the label or without."""
        return len(self.n_foci)

    @cached_property
    def groups(self) -> prefixes.Prefixes:
        """The sizes, in the order in which they are counted."""
        return prefixes.prefixes_of(self.sizes, self.n_analyses)

    def tables(self) -> Tables:
        """What is built from the foci: once for all nulls in a process, and never sent anywhere."""
        with _building:
            if self._corpus not in _built:
                lines = coverage.group_lines(np.argwhere(self.mask))
                index = index_foci(self.ijk, self.n_foci, self.columns, self.mask.shape)
                table = rows.list_rows(index, lines)
                change = np.zeros(int(self.mask.sum()) + 1, np.int32)
                n_active = np.empty(len(change) - 1, np.int32)
                rows.add_rows(table, np.arange(self.n_analyses, dtype=np.int32), change)
                rows.running_sum(change, n_active)
                margins = exceed.margins_of(n_active, self.n_analyses)
                _built.clear()  # of another corpus
                _built[self._corpus] = Tables(rows=table, margins=margins)
            return _built[self._corpus]

    @cached_property
    def _corpus(self) -> tuple[str, ...]:
        """What tables are built from, by its digests."""
        arrays = (self.ijk, self.n_foci, self.columns, self.mask)
        return tuple(digest_values(array) for array in arrays)

    def __getstate__(self) -> dict[str, Any]:
        return own_fields(self)

    def order(self, iteration: int) -> NDArray[np.int32]:
        """The first analyses of a shuffle, as many as the groups need, (analysis,)."""
        count = int(self.groups.length[-1])
        order = np.arange(self.n_analyses, dtype=np.int32)
        prefixes.shuffle(raw_numbers(self, iteration, count), order)
        return order[:count]

    def chosen(self, iteration: int, size: int | None = None) -> NDArray[np.int32]:
        """Positions of the analyses that have the label in an iteration, (size,)."""
        size = int(self.sizes[0]) if size is None else size
        order = self.order(iteration)
        if 2 * size <= self.n_analyses:
            return order[:size]
        return np.setdiff1d(np.arange(self.n_analyses), order[: self.n_analyses - size])

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        tables, rooms = self.tables(), exceed.rooms_for(self.mask)
        kind = np.int16 if self.n_analyses <= np.iinfo(np.int16).max else np.int32
        room = np.empty((3, len(tables.margins.n_active) + 1), kind)
        shape = [len(labels) for labels in self.labels.values()]
        maxima = np.zeros((stop - start, len(self.sizes), len(self.effects), shape[-1]))
        effects = np.array([exceed.EFFECTS.index(name) for name in self.effects])
        for row, iteration in enumerate(range(start, stop)):
            prefixes.measure_prefixes(
                tables.rows,
                self.order(iteration),
                self.groups,
                effects,
                tables.margins,
                SEARCH_FROM if self.chi2_thresh is None else self.chi2_thresh,
                self.chi2_thresh is not None,
                rooms,
                room,
                maxima[row],
            )
        return Batch(maxima=maxima.reshape(stop - start, -1), sums={})

    def task_bytes(self) -> int:
        """About the memory of a running batch, and its share of the tables."""
        n_voxels = int(self.mask.sum())
        return 60 * n_voxels + _TABLE_BYTES * len(self.ijk)

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which :func:`from_dataset` makes it again."""
        settings = {
            "shape": list(self.mask.shape),
            "effects": list(self.effects),
            "chi2_thresh": self.chi2_thresh,
            "random_state": self.random_state,
            "step": self.step,
            "by_size": self.by_size,
        }
        return xr.Dataset(
            {
                "focus_ijk": (("focus", "axis"), self.ijk),
                "analysis_n_foci": ("analysis", self.n_foci),
                "footprint_column": (("column", "column_part"), self.columns),
                "mask_bits": pack_mask(self.mask),
                "group_size": ("group", self.sizes),
            },
            attrs={"job": "label counts", "job_settings": json.dumps(settings)},
        )


def from_dataset(dataset: xr.Dataset) -> LabelCounts:
    """Make a job again from what :meth:`LabelCounts.to_dataset` gave."""
    told = json.loads(dataset.attrs["job_settings"])
    return LabelCounts(
        ijk=dataset["focus_ijk"].values,
        n_foci=dataset["analysis_n_foci"].values,
        columns=dataset["footprint_column"].values,
        mask=unpack_mask(dataset, told["shape"]),
        sizes=dataset["group_size"].values,
        effects=tuple(told["effects"]),
        chi2_thresh=told["chi2_thresh"],
        random_state=told["random_state"],
        step=told["step"],
        by_size=told["by_size"],
    )
