"""Modelled activation: where each analysis is active, given a kernel and a space.

Activation is rebuilt from the foci where it is needed and never stored; :func:`activation_maps`
gives it as a lazy array to people who want to see it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import CorpusWarning, SettingsError
from nimare_dask.footprint import Kernel, MKDAKernel
from nimare_dask.kernels import coverage, overlay
from nimare_dask.parallel import shapes
from nimare_dask.space import SPELLINGS, Space, load_space, mm_to_voxel, mni2tal, tal2mni
from nimare_dask.statistic import StudyValues
from nimare_dask.wholeness import check


@dataclass(frozen=True)
class LocatedFoci:
    """Foci in the voxels of a space; out of the volume or the mask, none is dropped.

    Attributes
    ----------
    ijk
        Voxel indices, (focus, 3), one analysis after the other; may lie outside the volume.
    n_foci
        Foci of each analysis, (analysis,).
    n_by_space
        Foci by the space that they were reported in.
    n_outside_mask, n_outside_volume
        Foci outside the mask (which includes those outside the volume), and outside the volume.
    """

    ijk: NDArray[np.int16]
    n_foci: NDArray[np.int32]
    n_by_space: dict[str, int]
    n_outside_mask: int
    n_outside_volume: int

    @property
    def n_analyses(self) -> int:
        """Analyses, with or without foci."""
        return len(self.n_foci)

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Analysis of each focus, (focus,)."""
        return np.repeat(np.arange(self.n_analyses, dtype=np.int32), self.n_foci)

    def take(self, order: NDArray[np.intp]) -> LocatedFoci:
        """The same analyses in another order, (analysis,)."""
        return replace(self, ijk=self.ijk[foci_of(self.n_foci, order)], n_foci=self.n_foci[order])

    def report(self) -> dict[str, Any]:
        """The counts, for provenance and for people."""
        return {
            "n_foci": len(self.ijk),
            "n_foci_by_space": self.n_by_space,
            "n_foci_outside_mask": self.n_outside_mask,
            "n_foci_outside_volume": self.n_outside_volume,
        }


def foci_of(n_foci: NDArray[np.integer], analyses: NDArray[np.integer]) -> NDArray[np.intp]:
    """Positions of the foci of some analyses, one analysis after the other, (focus,).

    `n_foci` (analysis,) counts those of each; foci lie one analysis after the other.
    """
    first = np.append(0, np.cumsum(n_foci, dtype=np.intp))[analyses]
    found = n_foci[analyses]
    start = np.append(0, np.cumsum(found, dtype=np.intp))[:-1]
    places: NDArray[np.intp] = np.repeat(first - start, found)
    return places + np.arange(len(places))


def locate(corpora: list[xr.Dataset], space: Space) -> LocatedFoci:
    """Transform the foci of one or more corpora, one after the other, into voxels of `space`.

    Talairach and MNI coordinates are turned into the reference of the space (Lancaster 2007). Foci
    of an unknown space are taken as MNI, with one warning that counts them.
    """
    xyz, by_space = _in_reference(corpora, space)
    # A focus beyond the range of int16 is further from any volume than any footprint.
    far = np.iinfo(np.int16)
    ijk = mm_to_voxel(xyz, space.affine).clip(far.min, far.max).astype(np.int16)
    in_volume = np.all((ijk >= 0) & (ijk < space.shape), axis=1)
    in_mask = np.zeros(len(ijk), bool)
    in_mask[in_volume] = space.mask[tuple(ijk[in_volume].T)]
    return LocatedFoci(
        ijk=ijk,
        n_foci=np.concatenate([corpus["analysis_n_foci"].values for corpus in corpora]),
        n_by_space={name: count for name, count in by_space.items() if count},
        n_outside_mask=int((~in_mask).sum()),
        n_outside_volume=int((~in_volume).sum()),
    )


def _in_reference(
    corpora: list[xr.Dataset], space: Space
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Coordinates in the reference of a space, and the number of foci by reported space."""
    for corpus in corpora:
        check(corpus)
    xyz, by_space = [], dict[str, int]()
    for corpus in corpora:
        codes, names = corpus["focus_space"].values, corpus.attrs["spaces"]
        points = corpus["focus_xyz"].values.astype(np.float64)
        for code, name in enumerate(names):
            here = codes == code
            by_space[name] = by_space.get(name, 0) + int(here.sum())
            points[here] = to_reference(points[here], name, space.reference)
        xyz.append(points)
    warn_of_unknown_spaces(by_space, stacklevel=5)
    return np.concatenate(xyz), by_space


def to_reference(
    xyz: NDArray[np.float64], name: str, reference: Literal["MNI", "TAL"]
) -> NDArray[np.float64]:
    """Points, (point, 3) in mm, of a space as it was reported, in MNI or Talairach coordinates."""
    reported = SPELLINGS.get(name, "MNI")
    if reported == reference:
        return xyz
    return tal2mni(xyz) if reference == "MNI" else mni2tal(xyz)


def warn_of_unknown_spaces(by_space: dict[str, int], *, stacklevel: int) -> None:
    """Warn of foci whose space is not known; `by_space` counts foci by reported space."""
    unknown = {name: n for name, n in by_space.items() if name not in SPELLINGS and n}
    if unknown:
        total = sum(by_space.values())
        counted = [f"{n:,} of space {name!r}" for name, n in unknown.items()]
        named = ", ".join(counted) if len(unknown) > 1 else repr(next(iter(unknown)))
        warnings.warn(
            f"{sum(unknown.values()):,} of {total:,} foci have a space that is not known ({named}; "
            f"known are {', '.join(SPELLINGS)}); they are taken as MNI.",
            CorpusWarning,
            stacklevel=stacklevel,
        )


def foci_pool(corpus: xr.Dataset, space: Space | str = "mni152_2mm") -> NDArray[np.float64]:
    """All foci of a corpus in mm of a space, (focus, 3): where foci are reported at all.

    Parameters
    ----------
    corpus
        Such as a whole database.
    space
        Whose reference (MNI or Talairach) coordinates are turned into.
    """
    return _in_reference([corpus], load_space(space))[0]


def index_foci(
    ijk: NDArray[np.int16],
    n_foci: NDArray[np.int32],
    footprint: NDArray[np.int32],
    shape: tuple[int, int, int],
) -> coverage.FocusIndex:
    """Sort foci, one analysis after the other, by line of voxels; see kernels.coverage."""
    analysis = np.repeat(np.arange(len(n_foci), dtype=np.int32), n_foci)
    return coverage.index_foci(ijk, analysis, footprint, shape, len(n_foci))


def value_steps(
    kernel: Kernel, corpus: xr.Dataset, space: Space
) -> tuple[NDArray[np.float32], overlay.Footprints, NDArray[np.int32]]:
    """Footprints that hold positions in a table of values, so that every value is exact.

    Returns
    -------
    values
        What modelled activation can be, ascending from 0, float32 (value,).
    footprints
        Of positions in `values`.
    footprint_of
        Footprint of each analysis, (analysis,).
    """
    dense, footprint_of = kernel.footprints(corpus, space)
    if kernel.union:
        return *values_of_union(dense), footprint_of
    # Foci add up, so a value is a number of foci.
    values = np.arange(int(corpus["analysis_n_foci"].values.max()) + 1, dtype=np.float32)
    return values, _positions(dense, values), footprint_of


def values_of_union(
    dense: list[NDArray[np.float64]],
) -> tuple[NDArray[np.float32], overlay.Footprints]:
    """Values that the maximum of footprints can have, and footprints of positions in them."""
    exact = [footprint.astype(np.float32).ravel() for footprint in dense]
    values = np.unique(np.concatenate([[np.float32(0)], *exact]))
    return values, _positions(dense, values)


def _positions(dense: list[NDArray[np.float64]], values: NDArray[np.float32]) -> overlay.Footprints:
    kind = np.int16 if len(values) <= np.iinfo(np.int16).max else np.int32
    places: list[NDArray[np.signedinteger]] = [
        np.searchsorted(values, footprint.astype(np.float32)).astype(kind) for footprint in dense
    ]
    return overlay.pack_footprints(places)


def study_values(
    kernel: Kernel, corpus: xr.Dataset, foci: LocatedFoci, space: Space
) -> StudyValues:
    """Count, for each analysis, the voxels of the mask that have each value of activation."""
    values, footprints, footprint_of = value_steps(kernel, corpus, space)
    counts = overlay.count_values(
        foci.ijk.astype(np.int32),
        foci.owner,
        footprint_of,
        footprints,
        kernel.union,
        overlay.place_of(space.mask),
        foci.n_analyses,
        len(values),
    )
    return StudyValues(values=values, counts=counts)


def activation_maps(
    corpus: xr.Dataset,
    kernel: Kernel | None = None,
    space: Space | str = "mni152_2mm",
    *,
    analysis_chunk: int = 512,
) -> xr.DataArray:
    """Where each analysis is active, as a lazy array.

    Parameters
    ----------
    corpus
        Any corpus.
    kernel
        What a focus stands for; MKDA with 10 mm by default.
    space
        See :func:`~nimare_dask.space.load_space`.
    analysis_chunk
        Analyses of a chunk; a chunk holds that many maps of the whole mask, of one to
        four bytes a voxel.

    Returns
    -------
    maps
        (analysis, voxel), with the coordinates ``analysis_id`` and ``voxel_i``, ``voxel_j`` and
        ``voxel_k``: uint8 of 1 where active for MKDA, int16 numbers of foci for KDA, float32
        probabilities for ALE.

    Raises
    ------
    SchemaError
        When `corpus` is not a corpus.
    SettingsError
        For a space or chunk that cannot be.
    """
    if analysis_chunk < 1:
        raise SettingsError(f"analysis_chunk is {analysis_chunk}; expected at least 1.")
    kernel, space = kernel or MKDAKernel(), load_space(space)
    foci = locate([corpus], space)
    starts = np.arange(0, foci.n_analyses, analysis_chunk)
    first_focus = np.append(0, np.cumsum(foci.n_foci))
    dtype: Any
    if isinstance(kernel, MKDAKernel):
        columns, dtype = kernel.footprint(space), np.uint8
        make = partial(_active_block, columns=columns, shape=space.shape, voxel_ijk=space.voxel_ijk)
    else:
        values, footprints, footprint_of = value_steps(kernel, corpus, space)
        dtype = np.float32 if kernel.union else np.int16
        make = partial(
            _value_block,
            values=values.astype(dtype),
            footprints=footprints,
            footprint_of=footprint_of,
            union=kernel.union,
            mask=space.mask,
        )
    blocks = []
    for start in starts.tolist():
        n_foci = foci.n_foci[start : start + analysis_chunk]
        ijk = foci.ijk[first_focus[start] : first_focus[start + len(n_foci)]]
        value = shapes.call_once(make, ijk, n_foci, start)
        blocks.append(da.from_delayed(value, (len(n_foci), space.n_voxels), dtype))
    return xr.DataArray(
        da.concatenate(blocks, axis=0),
        dims=("analysis", "voxel"),
        name="activation",
        coords={
            "analysis_id": corpus["analysis_id"],
            **results.voxel_coords(space),
        },
        attrs={"shape": list(space.shape), "affine": space.affine.tolist(), **kernel.settings()},
    )


def _active_block(
    ijk: NDArray[np.int16],
    n_foci: NDArray[np.int32],
    start: int,
    *,
    columns: NDArray[np.int32],
    shape: tuple[int, int, int],
    voxel_ijk: NDArray[np.int16],
) -> NDArray[np.uint8]:
    focus_index = index_foci(ijk, n_foci, columns, shape)
    return coverage.dense_activation(focus_index, coverage.group_lines(voxel_ijk))


def _value_block(
    ijk: NDArray[np.int16],
    n_foci: NDArray[np.int32],
    start: int,
    *,
    values: NDArray[Any],
    footprints: overlay.Footprints,
    footprint_of: NDArray[np.int32],
    union: bool,
    mask: NDArray[np.bool_],
) -> NDArray[Any]:
    """The maps of a block of analyses, the first of which is number `start` of all."""
    place = overlay.place_of(mask)
    maps = np.empty((len(n_foci), int(place.first_voxel[-1])), values.dtype)
    found = np.empty(maps.shape[1], footprints.values.dtype)
    last = np.cumsum(n_foci)
    for analysis, (end, count) in enumerate(zip(last, n_foci, strict=True)):
        points = ijk[end - count : end].astype(np.int32)
        owner = np.zeros(count, np.int32)
        which = footprint_of[start + analysis : start + analysis + 1]
        overlay.sum_footprints(points, owner, which, footprints, union, place, found)
        maps[analysis] = values[found]
    return maps
