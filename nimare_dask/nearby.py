"""Choosing analyses, and foci, by where foci lie: in a region, near a point, inside a mask."""

from __future__ import annotations

import operator
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from nimare_dask import corpus as _corpus
from nimare_dask import schema
from nimare_dask.activation import to_reference, warn_of_unknown_spaces
from nimare_dask.errors import CorpusWarning, SelectionError, SettingsError
from nimare_dask.kernels.nearest import nearest_distance
from nimare_dask.provenance import with_step
from nimare_dask.selection import as_mask
from nimare_dask.space import MNI_TO_TALAIRACH, SPELLINGS, Reference, Space, load_space, mm_to_voxel
from nimare_dask.subset import take

if TYPE_CHECKING:
    import nibabel as nib

_NEEDED = ("analysis_id", "analysis_n_foci", "focus_xyz", "focus_space")
_MADE_BY = "a reader, simulate_corpus() or corpus.build()"

#: Foci of a block that is looked up in a mask at once; its arrays stay in the caches.
_BLOCK = 1 << 14


def has_focus_in(
    corpus: xr.Dataset,
    roi: str | Path | nib.Nifti1Image | Space,
    space: Reference | None = None,
) -> xr.DataArray:
    """Mark the analyses that report at least one focus in a region.

    A focus is in the region when the voxel that it falls on (rounded half to even) is not zero
    there; foci outside its volume are not. MNI and Talairach coordinates are turned into those of
    the region (Lancaster 2007); foci of an unknown space are taken as MNI, with a warning.

    Parameters
    ----------
    corpus
        Any corpus.
    roi
        The path of an image, an image object or a :class:`~nimare_dask.space.Space`; see
        :func:`~nimare_dask.space.load_space`.
    space
        What the millimetres of an image are: ``"MNI"`` (the default) or ``"TAL"``.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    SettingsError, SourceFormatError
        For a region that cannot be read.
    SchemaError
        When `corpus` is not a corpus.
    """
    inside = _foci_inside(corpus, load_space(roi, reference=space), stacklevel=4)
    n_inside = np.bincount(
        _corpus.analysis_of_focus(corpus)[inside], minlength=corpus.sizes["analysis"]
    )
    return as_mask(corpus, n_inside > 0)


def has_focus_near(corpus: xr.Dataset, xyz: ArrayLike, r: float = 20.0) -> xr.DataArray:
    """Mark the analyses that report at least one focus near a point.

    Parameters
    ----------
    corpus
        Any corpus; its foci are turned into MNI coordinates (Lancaster 2007), those of an unknown
        space are taken as MNI, with a warning.
    xyz
        One point, (3,), or several, (point, 3), in mm of MNI: near any of them is near.
    r
        Largest Euclidean distance in mm, inclusive.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    SettingsError
        For points or a distance that cannot be.
    SchemaError
        When `corpus` is not a corpus.
    """
    try:
        farthest = float(r)
    except (TypeError, ValueError):
        farthest = np.nan
    if not farthest >= 0:
        raise SettingsError(f"r is {r!r}; expected a distance in mm, 0 or more.")
    distance = _distance(corpus, xyz, farthest)
    return as_mask(corpus, np.isfinite(distance) & (distance <= farthest))


def nearest_analyses(corpus: xr.Dataset, xyz: ArrayLike, n: int) -> xr.DataArray:
    """Mark the `n` analyses whose nearest focus is nearest to a point.

    Of analyses that are equally far the first in the corpus are taken.

    Parameters
    ----------
    corpus, xyz
        As for :func:`has_focus_near`; of several points the nearest counts.
    n
        How many analyses. Where fewer have a focus, all of those are marked, with a warning.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    SettingsError
        For points or a number that cannot be.
    SchemaError
        When `corpus` is not a corpus.
    """
    try:
        wanted = operator.index(n)
    except TypeError:
        wanted = 0
    if wanted < 1:
        raise SettingsError(f"n is {n!r}; expected a number of analyses, 1 or more.")
    distance = _distance(corpus, xyz, np.inf)
    found = int(np.isfinite(distance).sum())
    if found < wanted:
        warnings.warn(
            f"{wanted:,} analyses are asked for and {found:,} have a focus; those are marked.",
            CorpusWarning,
            stacklevel=2,
        )
    order = np.argsort(distance, kind="stable")[: min(wanted, found)]
    mask = np.zeros(len(distance), bool)
    mask[order] = True
    return as_mask(corpus, mask)


def focus_filter(
    corpus: xr.Dataset,
    mask: str | Path | nib.Nifti1Image | Space = "mni152_2mm",
) -> xr.Dataset:
    """Keep the foci inside a mask, and every analysis.

    Parameters
    ----------
    corpus
        Any corpus.
    mask
        See :func:`~nimare_dask.space.load_space`. A focus is inside when the voxel that it falls on
        is not zero.

    Returns
    -------
    corpus
        The same analyses in the same order. Those left without a focus are counted in a warning.

    Raises
    ------
    SelectionError
        When no focus is inside.
    SettingsError, SourceFormatError
        For a mask that cannot be read.
    SchemaError
        When `corpus` is not a corpus.
    """
    return _filtered(corpus, mask)


@dataclass(frozen=True, kw_only=True)
class FocusFilter:
    """Keep the foci inside a mask, as a settings object: :func:`focus_filter` under NiMARE's name.

    Attributes
    ----------
    mask
        See :func:`~nimare_dask.space.load_space`.
    """

    mask: str | Path | nib.Nifti1Image | Space = "mni152_2mm"

    def transform(self, corpus: xr.Dataset) -> xr.Dataset:
        """Apply :func:`focus_filter`."""
        return _filtered(corpus, self.mask)


def _filtered(corpus: xr.Dataset, mask: str | Path | nib.Nifti1Image | Space) -> xr.Dataset:
    space = load_space(mask)
    inside = _foci_inside(corpus, space, stacklevel=5)
    if not inside.any():
        raise SelectionError(
            f"None of {len(inside):,} foci is inside {space.name}; use another mask."
        )
    before = corpus["analysis_n_foci"].values
    filtered = take(corpus, {"focus": inside})
    emptied = int(((before > 0) & (filtered["analysis_n_foci"].values == 0)).sum())
    if emptied:
        warnings.warn(
            f"{emptied:,} of {len(before):,} analyses have no focus inside {space.name}; they are "
            "kept, without foci.",
            CorpusWarning,
            stacklevel=3,
        )
    return with_step(
        filtered,
        "focus_filter",
        settings={"mask": space.name, "mask_digest": space.digest},
        n_foci=int(inside.sum()),
        n_foci_before=len(inside),
        n_analyses_emptied=emptied,
    )


def _foci_inside(corpus: xr.Dataset, space: Space, *, stacklevel: int) -> NDArray[np.bool_]:
    """Whether the voxel of each focus is in the mask of `space`, (focus,)."""
    codes, names = _spaces_of(corpus, stacklevel=stacklevel)
    xyz = corpus["focus_xyz"].values
    inside = np.zeros(len(xyz), bool)
    for start in range(0, len(xyz), _BLOCK):
        block = slice(start, start + _BLOCK)
        points, space_of = xyz[block].astype(np.float64), codes[block]
        for code in np.flatnonzero(np.bincount(space_of)):
            here = space_of == code
            points[here] = to_reference(points[here], names[code], space.reference)
        ijk = mm_to_voxel(points, space.affine)
        there = np.flatnonzero(np.all((ijk >= 0) & (ijk < space.shape), axis=1))
        inside[start + there] = space.mask[tuple(ijk[there].T)]
    return inside


def _distance(corpus: xr.Dataset, xyz: ArrayLike, farthest: float) -> NDArray[np.float64]:
    """Millimetres in MNI from each analysis to the nearest of some points, (analysis,)."""
    points = _points(xyz)
    codes, names = _spaces_of(corpus, stacklevel=4)
    to_mni = np.linalg.inv(MNI_TO_TALAIRACH)
    matrices = [to_mni if SPELLINGS.get(name) == "TAL" else np.eye(4) for name in names]
    return nearest_distance(
        np.ascontiguousarray(corpus["focus_xyz"].values, dtype=np.float64),
        codes,
        np.array(matrices).reshape(-1, 4, 4),
        points,
        corpus["analysis_n_foci"].values,
        farthest,
    )


def _points(xyz: ArrayLike) -> NDArray[np.float64]:
    """Points as (point, 3)."""
    try:
        points = np.atleast_2d(np.asarray(xyz, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"xyz is {xyz!r}; expected three numbers in mm of MNI.") from error
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise SettingsError(
            f"xyz has shape {np.shape(xyz)}; expected one point in mm of MNI, (3,), or several, "
            "(point, 3)."
        )
    if not np.isfinite(points).all():
        raise SettingsError("xyz has values that are not finite; expected mm of MNI.")
    return points


def _spaces_of(corpus: xr.Dataset, *, stacklevel: int) -> tuple[NDArray[np.int8], list[str]]:
    """Space of each focus, (focus,), as a place in a list of names; unknown ones are told."""
    # Not the whole check of a corpus: its names alone would take longer than the selection.
    schema.check(corpus, _NEEDED, made_by=_MADE_BY)
    codes, names = corpus["focus_space"].values, corpus.attrs["spaces"]
    counts = np.bincount(codes, minlength=len(names)).tolist()
    warn_of_unknown_spaces(dict(zip(names, counts, strict=True)), stacklevel=stacklevel + 1)
    return codes, names
