"""Null iterations of chi-square in which the foci of both groups fall anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.kernels import exceed, overlay
from nimare_dask.kernels.footprints import dense_sphere
from nimare_dask.nulls.jobs import Batch, below, own_fields, pack_mask, raw_numbers, unpack_mask
from nimare_dask.nulls.label_counts import INFERENCES, SEARCH_FROM


@dataclass(frozen=True, kw_only=True)
class Redraw:
    """All that iterations need, small enough to be sent to every worker once.

    Attributes
    ----------
    n_foci
        Foci of each analysis, (analysis,).
    in_first
        Whether each analysis is of the first group, (analysis,).
    columns
        What a focus reaches, int32 (column, part); see kernels.footprints.
    pool
        Voxel indices that foci fall on, int32 (place, axis).
    mask
        Voxels of the maps.
    chi2_thresh
        Clusters are made of voxels strictly above it; None leaves clusters out.
    random_state, step
        Seed, and what the iterations are for.
    """

    n_foci: NDArray[np.int32]
    in_first: NDArray[np.bool_]
    columns: NDArray[np.int32]
    pool: NDArray[np.int32]
    mask: NDArray[np.bool_]
    chi2_thresh: float | None
    random_state: int
    step: int = 0

    @property
    def labels(self) -> dict[str, list[Any]]:
        """What there is a maximum of, by dimension."""
        inference = list(INFERENCES if self.chi2_thresh is not None else INFERENCES[:1])
        return {"effect": list(exceed.EFFECTS), "inference": inference}

    @property
    def lengths(self) -> dict[str, int]:
        """Nothing adds up over iterations."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        return {"chi2_thresh": self.chi2_thresh}

    @cached_property
    def footprints(self) -> overlay.Footprints:
        """The sphere, in numbers that can hold a count of all analyses."""
        kind = np.int16 if len(self.n_foci) <= np.iinfo(np.int16).max else np.int32
        return overlay.pack_footprints([dense_sphere(self.columns).astype(kind)])

    @cached_property
    def place(self) -> overlay.Place:
        """The mask as runs."""
        return overlay.place_of(self.mask)

    @cached_property
    def groups(self) -> list[tuple[NDArray[np.intp], NDArray[np.int32]]]:
        """Numbers of the foci of each group, and which of its analyses each belongs to."""
        found = []
        of_first = np.repeat(self.in_first, self.n_foci)
        for group in (True, False):
            n_foci = self.n_foci[self.in_first == group]
            owner = np.repeat(np.arange(len(n_foci), dtype=np.int32), n_foci)
            found.append((np.flatnonzero(of_first == group), owner))
        return found

    def counts(self, iteration: int) -> list[NDArray[np.signedinteger]]:
        """Active analyses of each group in an iteration, (voxel,) each."""
        raw = raw_numbers(self, iteration, int(self.n_foci.sum()))
        ijk = np.take(self.pool, below(raw, np.uint64(len(self.pool))).astype(np.intp), axis=0)
        found = []
        for foci, owner in self.groups:
            which = np.zeros(int(owner[-1]) + 1, np.int32)
            sums = np.empty(int(self.place.first_voxel[-1]), self.footprints.values.dtype)
            overlay.sum_footprints(ijk[foci], owner, which, self.footprints, True, self.place, sums)
            found.append(sums)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return own_fields(self)

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        rooms = exceed.rooms_for(self.mask)
        shape = [len(labels) for labels in self.labels.values()]
        maxima = np.zeros((stop - start, *shape))
        n, n_first = len(self.n_foci), int(self.in_first.sum())
        for row, iteration in enumerate(range(start, stop)):
            group, others = self.counts(iteration)
            margins = exceed.margins_of(group.astype(np.int32) + others, n)
            for effect in range(len(exceed.EFFECTS)):
                exceed.measure(
                    group,
                    others,
                    margins,
                    n_first,
                    effect,
                    SEARCH_FROM if self.chi2_thresh is None else self.chi2_thresh,
                    self.chi2_thresh is not None,
                    rooms,
                    maxima[row, effect],
                )
        return Batch(maxima=maxima.reshape(stop - start, -1), sums={})

    def task_bytes(self) -> int:
        """About the memory of a running batch."""
        return 80 * int(self.mask.sum()) + 120 * int(self.n_foci.sum())

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which :func:`from_dataset` makes it again."""
        settings = {
            "shape": list(self.mask.shape),
            "chi2_thresh": self.chi2_thresh,
            "random_state": self.random_state,
            "step": self.step,
        }
        return xr.Dataset(
            {
                "analysis_n_foci": ("analysis", self.n_foci),
                "analysis_in_first": ("analysis", self.in_first),
                "footprint_column": (("column", "column_part"), self.columns),
                "pool_ijk": (("place", "axis"), self.pool),
                "mask_bits": pack_mask(self.mask),
            },
            attrs={"job": "redraw", "job_settings": json.dumps(settings)},
        )


def from_dataset(dataset: xr.Dataset) -> Redraw:
    """Make a job again from what :meth:`Redraw.to_dataset` gave."""
    told = json.loads(dataset.attrs["job_settings"])
    return Redraw(
        n_foci=dataset["analysis_n_foci"].values,
        in_first=dataset["analysis_in_first"].values.astype(bool),
        columns=dataset["footprint_column"].values,
        pool=dataset["pool_ijk"].values,
        mask=unpack_mask(dataset, told["shape"]),
        chi2_thresh=told["chi2_thresh"],
        random_state=told["random_state"],
        step=told["step"],
    )
