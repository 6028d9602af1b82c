"""Modelled activation: where each analysis is active, given a kernel and a space.

Activation is rebuilt from the foci where it is needed and never stored; :func:`activation_maps`
gives it as a lazy array to people who want to see it.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import corpus as _corpus
from nimare_dask import results
from nimare_dask.errors import CorpusWarning, SettingsError
from nimare_dask.kernels import coverage
from nimare_dask.kernels.footprints import sphere_columns
from nimare_dask.parallel import shapes
from nimare_dask.space import SPELLINGS, Space, load_space, mm_to_voxel, mni2tal, tal2mni


@dataclass(frozen=True, kw_only=True)
class MKDAKernel:
    """An analysis is active within `r` mm of any of its foci, boundary included.

    Parameters
    ----------
    r
        Radius in mm, from voxel centre to voxel centre; 515 voxels for 10 mm on a 2 mm grid.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    """

    r: float = 10.0

    def __post_init__(self) -> None:
        radius: object = self.r
        if not isinstance(radius, int | float | np.number) or not 0 < float(radius) < np.inf:
            raise SettingsError(f"r is {self.r!r}; expected a radius in mm above 0.")

    def footprint(self, space: Space) -> NDArray[np.int32]:
        """Columns of the sphere on the grid of `space`, see kernels.footprints."""
        return sphere_columns(space.zooms, self.r)

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"kernel": type(self).__name__, **asdict(self)}


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

    def report(self) -> dict[str, Any]:
        """The counts, for provenance and for people."""
        return {
            "n_foci": len(self.ijk),
            "n_foci_by_space": self.n_by_space,
            "n_foci_outside_mask": self.n_outside_mask,
            "n_foci_outside_volume": self.n_outside_volume,
        }


def locate(corpora: list[xr.Dataset], space: Space) -> LocatedFoci:
    """Transform the foci of one or more corpora, one after the other, into voxels of `space`.

    Talairach and MNI coordinates are turned into the reference of the space (Lancaster 2007). Foci
    of an unknown space are taken as MNI, with one warning that counts them.
    """
    for corpus in corpora:
        _corpus.check(corpus)
    xyz, by_space = [], dict[str, int]()
    for corpus in corpora:
        codes, names = corpus["focus_space"].values, corpus.attrs["spaces"]
        points = corpus["focus_xyz"].values.astype(np.float64)
        for code, name in enumerate(names):
            here = codes == code
            by_space[name] = by_space.get(name, 0) + int(here.sum())
            points[here] = _to_reference(points[here], name, space.reference)
        xyz.append(points)
    _warn_of_unknown_spaces(by_space)
    # A focus beyond the range of int16 is further from any volume than any footprint.
    far = np.iinfo(np.int16)
    ijk = mm_to_voxel(np.concatenate(xyz), space.affine).clip(far.min, far.max).astype(np.int16)
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


def _to_reference(
    xyz: NDArray[np.float64], name: str, reference: Literal["MNI", "TAL"]
) -> NDArray[np.float64]:
    reported = SPELLINGS.get(name, "MNI")
    if reported == reference:
        return xyz
    return tal2mni(xyz) if reference == "MNI" else mni2tal(xyz)


def _warn_of_unknown_spaces(by_space: dict[str, int]) -> None:
    unknown = {name: n for name, n in by_space.items() if name not in SPELLINGS and n}
    if unknown:
        total = sum(by_space.values())
        counted = [f"{n:,} of space {name!r}" for name, n in unknown.items()]
        named = ", ".join(counted) if len(unknown) > 1 else repr(next(iter(unknown)))
        warnings.warn(
            f"{sum(unknown.values()):,} of {total:,} foci have a space that is not known ({named}; "
            f"known are {', '.join(SPELLINGS)}); they are taken as MNI.",
            CorpusWarning,
            stacklevel=4,
        )


def index_foci(
    ijk: NDArray[np.int16],
    n_foci: NDArray[np.int32],
    footprint: NDArray[np.int32],
    shape: tuple[int, int, int],
) -> coverage.FocusIndex:
    """Sort foci, one analysis after the other, by line of voxels; see kernels.coverage."""
    analysis = np.repeat(np.arange(len(n_foci), dtype=np.int32), n_foci)
    return coverage.index_foci(ijk, analysis, footprint, shape, len(n_foci))


def activation_maps(
    corpus: xr.Dataset,
    kernel: MKDAKernel | None = None,
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
        What a focus reaches; 10 mm by default.
    space
        See :func:`~nimare_dask.space.load_space`.
    analysis_chunk
        Analyses of a chunk; a chunk holds that many maps of the whole mask, one byte a voxel.

    Returns
    -------
    maps
        uint8, 1 where active, (analysis, voxel), with the coordinates ``analysis_id`` and
        ``voxel_i``, ``voxel_j`` and ``voxel_k``.

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
    voxel_ijk = shapes.share(space.voxel_ijk)
    blocks = []
    for start in starts.tolist():
        n_foci = foci.n_foci[start : start + analysis_chunk]
        ijk = foci.ijk[first_focus[start] : first_focus[start + len(n_foci)]]
        value = shapes.call_once(
            _dense_block, ijk, n_foci, kernel.footprint(space), space.shape, voxel_ijk
        )
        blocks.append(da.from_delayed(value, (len(n_foci), space.n_voxels), np.uint8))
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


def _dense_block(
    ijk: NDArray[np.int16],
    n_foci: NDArray[np.int32],
    footprint: NDArray[np.int32],
    shape: tuple[int, int, int],
    voxel_ijk: NDArray[np.int16],
) -> NDArray[np.uint8]:
    focus_index = index_foci(ijk, n_foci, footprint, shape)
    return coverage.dense_activation(focus_index, coverage.group_lines(voxel_ijk))
