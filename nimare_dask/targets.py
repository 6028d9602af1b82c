"""Places in the brain whose coactivation is asked for: voxels, parcels of an atlas, a coarse grid.

All of them are a number for each voxel of a mask: the target that the voxel belongs to.
"""

from __future__ import annotations

import csv
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nimare_dask.errors import (
    CorpusWarning,
    SelectionError,
    SettingsError,
    SourceFormatError,
    shorten,
)
from nimare_dask.space import Space, load_space, mm_to_voxel, voxel_to_mm

#: Names of parcels: one for each in the order of their numbers, by number, or a table of both.
Labels = Sequence[str] | Mapping[int, str] | str | Path

#: What tables call the number of a parcel, and its name.
_NUMBER_COLUMNS = ("index", "value", "label_id", "id", "intensity", "number")
_NAME_COLUMNS = ("name", "label", "region", "roi", "abbreviation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Places that do not overlap; made by `voxel_targets`, `grid_targets` or `parcel_targets`.

    Attributes
    ----------
    kind
        ``"voxel"`` or ``"parcel"``.
    names
        A name for each, unique, (target,).
    of_voxel
        Target of each voxel of the mask, int32 (voxel,); -1 for none.
    space
        The mask.
    n_dropped
        Targets that were given and have no voxel of their own in the mask.
    """

    kind: Literal["voxel", "parcel"]
    names: list[str]
    of_voxel: NDArray[np.int32]
    space: Space
    n_dropped: int = 0

    def __post_init__(self) -> None:
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            raise SettingsError(
                f"{len(twice):,} names are given to several targets ({shorten(twice)}); each must "
                "be unique."
            )

    @property
    def n_voxels(self) -> NDArray[np.int64]:
        """Voxels of each target inside the mask, (target,)."""
        inside = self.of_voxel[self.of_voxel >= 0]
        return np.bincount(inside, minlength=len(self.names)).astype(np.int64)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Mean of the voxel centres of each target in mm, (target, axis)."""
        inside = self.of_voxel >= 0
        xyz = voxel_to_mm(self.space.voxel_ijk[inside], self.space.affine)
        sums = [
            np.bincount(self.of_voxel[inside], xyz[:, axis], len(self.names)) for axis in range(3)
        ]
        return np.stack(sums, axis=1) / self.n_voxels[:, None]

    def __repr__(self) -> str:
        return f"<Targets: {len(self.names):,} {self.kind}s in {self.space.name}>"


def voxel_targets(
    xyz: ArrayLike,
    space: Space | str = "mni152_2mm",
    *,
    names: Sequence[str] | None = None,
    stacklevel: int = 2,
) -> Targets:
    """Single voxels.

    Parameters
    ----------
    xyz
        Points in mm of the space, (target, 3); each stands for the voxel that it lies in.
    space
        See :func:`~nimare_dask.space.load_space`.
    names
        What they are called; by default ``x=-24 y=0 z=12``.
    stacklevel
        Whose line a warning names.

    Returns
    -------
    targets
        Points outside the mask are left out, and so are points in the voxel of an earlier one; a
        warning says which.

    Raises
    ------
    SettingsError
        For points that are none, or names that do not fit them.
    SelectionError
        When no point lies in the mask.
    """
    space = load_space(space)
    points = _points(xyz)
    if names is None:
        names = [f"x={x:g} y={y:g} z={z:g}" for x, y, z in points]
    elif len(names) != len(points):
        raise SettingsError(f"There are {len(names):,} names for {len(points):,} points.")
    numbers = _volume(space, np.arange(space.n_voxels))
    voxel = _values_at(numbers, mm_to_voxel(points, space.affine), -1)
    inside = voxel >= 0
    _, first = np.unique(voxel[inside], return_index=True)
    kept = np.zeros(len(points), bool)
    kept[np.flatnonzero(inside)[first]] = True
    outside = [str(name) for name, known in zip(names, inside, strict=True) if not known]
    doubled = [str(name) for name, own in zip(names, inside & ~kept, strict=True) if own]
    if not kept.any():
        raise SelectionError(
            f"None of {len(points):,} target points lies in {space} ({shorten(outside)}); expected "
            f"mm in {space.reference}."
        )
    _warn(outside, len(points), f"lie outside {space.name}", stacklevel)
    _warn(doubled, len(points), "lie in the voxel of another one", stacklevel)
    of_voxel = np.full(space.n_voxels, -1, np.int32)
    of_voxel[voxel[kept]] = np.arange(int(kept.sum()), dtype=np.int32)
    return Targets(
        kind="voxel",
        names=[str(name) for name, keep in zip(names, kept, strict=True) if keep],
        of_voxel=of_voxel,
        space=space,
        n_dropped=len(points) - int(kept.sum()),
    )


def grid_targets(space: Space | str = "mni152_2mm", *, step: float) -> Targets:
    """Voxels on a grid that is coarser than the mask.

    Parameters
    ----------
    space
        See :func:`~nimare_dask.space.load_space`.
    step
        Distance of the targets along each axis in mm, a multiple of the edges of a voxel; the
        whole brain has some 3,700 at 8 mm.

    Raises
    ------
    SettingsError
        When the step is no multiple of the edges of a voxel.
    SelectionError
        When no voxel of the grid lies in the mask.
    """
    space = load_space(space)
    stride = np.rint(step / space.zooms).astype(np.int64) if np.isfinite(step) else np.zeros(3)
    if (stride < 1).any() or not np.allclose(stride * space.zooms, step):
        edges = " x ".join(f"{zoom:g}" for zoom in space.zooms)
        raise SettingsError(
            f"step is {step:g} mm; expected a multiple of the edges of a voxel, {edges} mm."
        )
    on_grid = (space.voxel_ijk % stride == stride // 2).all(axis=1)
    if not on_grid.any():
        raise SelectionError(f"No voxel of {space} is on a grid of {step:g} mm; use a smaller one.")
    return voxel_targets(voxel_to_mm(space.voxel_ijk[on_grid], space.affine), space)


def parcel_targets(
    atlas: Any,
    space: Space | str = "mni152_2mm",
    *,
    labels: Labels | None = None,
    stacklevel: int = 2,
) -> Targets:
    """Parcels of an atlas.

    Parameters
    ----------
    atlas
        A label image, or its path: whole numbers, one for each parcel; 0 is no parcel. It may be
        on any grid: each voxel of the mask belongs to the parcel at its centre.
    space
        See :func:`~nimare_dask.space.load_space`; the atlas is in the same reference.
    labels
        Names of the parcels: a list in the order of their numbers (which may begin with
        ``Background``), a dict by number, or the path of a table (.tsv, .csv) with a column
        ``index`` or ``value`` and a column ``name`` or ``label``. By default ``parcel 1``, ...
    stacklevel
        Whose line a warning names.

    Returns
    -------
    targets
        Parcels that have no voxel in the mask are left out, with a warning.

    Raises
    ------
    SourceFormatError
        For an image that is not of labels, or a table without those columns.
    SettingsError
        When the names do not fit the parcels.
    SelectionError
        When no voxel of the mask is in a parcel.
    """
    space = load_space(space)
    values, affine, source = _read_labels(atlas)
    known = np.unique(values[values > 0])
    names = _names_of(known, labels)
    where = mm_to_voxel(voxel_to_mm(space.voxel_ijk, space.affine), affine)
    value = _values_at(values, where, 0)
    present, of_inside = np.unique(value[value > 0], return_inverse=True)
    if len(present) == 0:
        raise SelectionError(
            f"No voxel of {space} is in a parcel of {source}; expected an atlas in the millimetres "
            f"of {space.reference}."
        )
    missing = [names[int(number)] for number in np.setdiff1d(known, present)]
    _warn(missing, len(known), f"have no voxel in {space.name}", stacklevel)
    of_voxel = np.full(space.n_voxels, -1, np.int32)
    of_voxel[value > 0] = of_inside
    return Targets(
        kind="parcel",
        names=[names[int(number)] for number in present],
        of_voxel=of_voxel,
        space=space,
        n_dropped=len(missing),
    )


def as_targets(
    targets: Any, space: Space, labels: Labels | None, *, stacklevel: int = 2
) -> Targets:
    """Targets of whatever is given: points, an atlas, or targets of this space."""
    if isinstance(targets, Targets):
        if labels is not None:
            raise SettingsError("labels are for an atlas; give the names when targets are made.")
        if targets.space.digest != space.digest:
            raise SettingsError(
                f"The targets are voxels of {targets.space}, but space is {space}; make them with "
                "the same space."
            )
        return targets
    if isinstance(targets, str | Path) or hasattr(targets, "dataobj"):
        return parcel_targets(targets, space, labels=labels, stacklevel=stacklevel + 1)
    if labels is not None and not isinstance(labels, Sequence):
        raise SettingsError("labels of points are a list of names, one for each.")
    if isinstance(labels, str):
        labels = [labels]
    return voxel_targets(targets, space, names=labels, stacklevel=stacklevel + 1)


def _points(xyz: ArrayLike) -> NDArray[np.float64]:
    try:
        points = np.asarray(xyz, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"targets is a {type(xyz).__name__}; expected points in mm, (target, 3), an atlas (its "
            "path or an image), or what voxel_targets(), grid_targets() or parcel_targets() return."
        ) from error
    points = points[None] if points.shape == (3,) else points
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise SettingsError(f"targets has shape {points.shape}; expected (target, 3) in mm.")
    if not np.isfinite(points).all():
        raise SettingsError("targets has values that are not finite; expected mm.")
    return points


def _volume(space: Space, values: NDArray[Any]) -> NDArray[np.int64]:
    volume = np.full(space.shape, -1, np.int64)
    volume[space.mask] = values
    return volume


def _values_at(
    volume: NDArray[np.int64], ijk: NDArray[np.int64], outside: int
) -> NDArray[np.int64]:
    """Values of a volume at voxels that may lie outside it, (voxel,)."""
    inside = ((ijk >= 0) & (ijk < volume.shape)).all(axis=1)
    found = np.full(len(ijk), outside, np.int64)
    found[inside] = volume[tuple(ijk[inside].T)]
    return found


def _warn(names: Sequence[str], n: int, what: str, stacklevel: int) -> None:
    if names:
        warnings.warn(
            f"{len(names):,} of {n:,} targets {what} and are left out ({shorten(names)}).",
            CorpusWarning,
            stacklevel=stacklevel + 1,
        )


def _read_labels(atlas: Any) -> tuple[NDArray[np.int64], NDArray[np.float64], str]:
    """Labels, affine and name of an atlas."""
    import nibabel as nib

    source = str(atlas) if isinstance(atlas, str | Path) else "the atlas"
    try:
        image: Any = nib.load(atlas) if isinstance(atlas, str | Path) else atlas
        values, affine = np.asarray(image.dataobj), np.asarray(image.affine, np.float64)
    except AttributeError as error:
        raise SettingsError(
            f"The atlas is a {type(atlas).__name__}; expected the path of a label image, or an "
            "image."
        ) from error
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceFormatError(
            f"{source} could not be read as an image ({error}); expected labels in NIfTI format."
        ) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise SourceFormatError(
            f"{source} has shape {values.shape}; expected labels of three dimensions (of a "
            "probabilistic atlas, take the most probable one)."
        )
    whole = np.nan_to_num(values, nan=0.0, posinf=0.5)
    if whole.dtype.kind == "f" and (whole != np.rint(whole)).any():
        raise SourceFormatError(
            f"{source} has values that are not whole numbers; expected labels, one for each parcel."
        )
    if whole.size == 0 or whole.min() < 0 or whole.max() <= 0:
        raise SourceFormatError(
            f"{source} has {'values below 0' if whole.size and whole.min() < 0 else 'no parcel'}; "
            "expected whole numbers from 1, and 0 where there is none."
        )
    return whole.astype(np.int64), affine, source


def _names_of(known: NDArray[np.int64], labels: Labels | None) -> dict[int, str]:
    """Name of each label."""
    if labels is None:
        return {int(number): f"parcel {number}" for number in known}
    if isinstance(labels, str | Path):
        labels = _read_names(Path(labels))
    if not isinstance(labels, Mapping):
        listed = [str(label) for label in labels]
        if listed and listed[0].casefold() == "background" and len(listed) == len(known) + 1:
            listed = listed[1:]
        if len(listed) != len(known):
            raise SettingsError(
                f"There are {len(listed):,} labels for {len(known):,} parcels; expected one for "
                "each, in the order of their numbers."
            )
        labels = dict(zip(known.tolist(), listed, strict=True))
    missing = [int(number) for number in known if int(number) not in labels]
    if missing:
        raise SettingsError(
            f"{len(missing):,} of {len(known):,} parcels have no label ({shorten(missing)})."
        )
    return {int(number): str(labels[int(number)]) for number in known}


def _read_names(path: Path) -> dict[int, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceFormatError(f"{path} could not be read as a table ({error}).") from error
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    columns = {str(name).strip().casefold(): name for name in (rows[0] if rows else {})}
    number = next((columns[name] for name in _NUMBER_COLUMNS if name in columns), None)
    name = next((columns[name] for name in _NAME_COLUMNS if name in columns), None)
    if number is None or name is None:
        raise SourceFormatError(
            f"{path} has the columns {shorten(list(columns)) or 'none'}; expected one of "
            f"{', '.join(_NUMBER_COLUMNS)} and one of {', '.join(_NAME_COLUMNS)}."
        )
    try:
        return {int(float(row[number])): str(row[name]).strip() for row in rows}
    except (TypeError, ValueError) as error:
        raise SourceFormatError(
            f"{path} has a {number} that is not a number ({error}); expected the number of a "
            "parcel in each line."
        ) from error
