"""Small inputs for tests: masks, foci, groups and corpora, all from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nimare_dask import corpus as _corpus
from nimare_dask.kernels import coverage
from nimare_dask.kernels.footprints import sphere_columns
from nimare_dask.space import Reference, Space, voxel_to_mm
from tests.reference.kernel import mkda_maps
from tests.reference.space import lancaster_mni2tal, lancaster_tal2mni, mm_to_voxel

Shape = tuple[int, int, int]


def make_space(
    shape: Shape = (6, 7, 8),
    zooms: Sequence[float] = (2.0, 2.0, 2.0),
    *,
    seed: int | None = 0,
    name: str = "small",
    reference: Reference = "MNI",
) -> Space:
    """A grid around the origin; with a seed three of ten voxels are holes, with None none is."""
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(zooms)
    mask = np.ones(shape, dtype=bool)
    if seed is not None:
        mask = np.random.default_rng(seed).uniform(size=shape) < 0.7
        mask[0, 0, 0] = True
    return Space(name, mask, affine, reference)


@dataclass(frozen=True)
class Case:
    """Foci, voxels and groups, ready for the kernels and for the slow reference."""

    ijk: NDArray[np.int32]
    owner: NDArray[np.int32]
    n_analyses: int
    mask: NDArray[np.bool_]
    zooms: tuple[float, float, float]
    r: float
    member: NDArray[np.bool_]  # (analysis, group)

    @property
    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """What the counting kernels take: where the groups of each analysis begin, and they."""
        start = np.append(0, np.cumsum(self.member.sum(axis=1))).astype(np.int64)
        return start, np.nonzero(self.member)[1].astype(np.int32), self.member.shape[1]

    @property
    def index(self) -> coverage.FocusIndex:
        i, j, k = self.mask.shape
        columns = sphere_columns(self.zooms, self.r)
        return coverage.index_foci(self.ijk, self.owner, columns, (i, j, k), self.n_analyses)

    @property
    def lines(self) -> coverage.VoxelLines:
        return coverage.group_lines(np.argwhere(self.mask).astype(np.int16))

    @property
    def expected(self) -> NDArray[np.bool_]:
        """Activation by the slow reference, (analysis, voxel)."""
        foci = [self.ijk[self.owner == analysis] for analysis in range(self.n_analyses)]
        return mkda_maps(foci, self.mask, self.zooms, self.r)


def draw_case(
    seed: int,
    shape: Shape,
    zooms: tuple[float, float, float] = (2.0, 2.0, 2.0),
    *,
    r: float = 6.0,
    n_analyses: int = 12,
    n_foci: int = 40,
    n_groups: int = 5,
    holes: float = 0.3,
) -> Case:
    """Foci inside and outside the volume, some of them twice, for some analyses none."""
    rng = np.random.default_rng(seed)
    reach = np.ceil(r / np.array(zooms)).astype(int) + 2
    ijk = rng.integers(-reach, np.array(shape) + reach, size=(n_foci, 3))
    owner = rng.integers(0, max(1, n_analyses - 2), size=n_foci)  # the last ones have none
    twice = n_foci // 5
    ijk[:twice], owner[:twice] = ijk[n_foci - twice :], owner[n_foci - twice :]
    mask = rng.uniform(size=shape) >= holes
    mask[tuple(rng.integers(shape))] = True
    return Case(
        ijk=ijk.astype(np.int32),
        owner=owner.astype(np.int32),
        n_analyses=n_analyses,
        mask=mask,
        zooms=zooms,
        r=r,
        member=rng.uniform(size=(n_analyses, n_groups)) < 0.4,
    )


def make_corpus(
    foci: Sequence[Any],
    weights: Any = None,
    *,
    spaces: Sequence[str] = ("MNI",),
    codes: Sequence[int] | None = None,
    prefix: str = "study",
) -> xr.Dataset:
    """A corpus of foci in mm, one (focus, 3) for each analysis, and weights (analysis, feature)."""
    points = [np.asarray(part, dtype=np.float64).reshape(-1, 3) for part in foci]
    xyz = np.concatenate(points)
    matrix = None if weights is None else csc_matrix(np.asarray(weights, dtype=np.float64))
    ids = np.array([f"{prefix}{place:04d}" for place in range(len(points))], dtype=object)
    return _corpus.build(
        analysis_id=ids + "-1",
        study_id=ids,
        n_foci=[len(part) for part in points],
        xyz=xyz,
        focus_space=np.zeros(len(xyz), np.int8) if codes is None else codes,
        spaces=spaces,
        feature=[] if matrix is None else [f"set__{f:04d}" for f in range(matrix.shape[1])],
        weights=matrix,
    )


def draw_foci(
    seed: int, space: Space, n_analyses: int, n_each: int = 4, *, empty: Sequence[int] = ()
) -> list[NDArray[np.float64]]:
    """Foci in whole mm, in and around the volume of `space`, a list of (focus, 3)."""
    rng = np.random.default_rng(seed)
    corners = voxel_to_mm(np.array([[-2, -2, -2], np.array(space.shape) + 1]), space.affine)
    low, high = np.sort(corners, axis=0)
    sizes = rng.integers(1, 2 * n_each, size=n_analyses)
    sizes[list(empty)] = 0
    return [np.round(rng.uniform(low, high, size=(size, 3))) for size in sizes]


def draw_corpus(
    seed: int,
    space: Space,
    n_analyses: int = 30,
    n_features: int = 6,
    *,
    empty: Sequence[int] = (),
) -> xr.Dataset:
    """A corpus around `space` whose features are had by about a third of the analyses."""
    rng = np.random.default_rng(seed + 1000)
    weights = rng.uniform(size=(n_analyses, n_features))
    weights[weights < 0.65] = 0
    weights[0], weights[1] = 0, 1  # no feature is had by all, none by nobody
    return make_corpus(draw_foci(seed, space, n_analyses, empty=empty), weights)


def reference_active(corpus: xr.Dataset, space: Space, r: float) -> NDArray[np.bool_]:
    """Activation (analysis, voxel) of a corpus by the slow reference; unknown spaces are MNI."""
    xyz = corpus["focus_xyz"].values.copy()
    for code, name in enumerate(corpus.attrs["spaces"]):
        here = corpus["focus_space"].values == code
        talairach = name in ("TAL", "Talairach")
        if talairach and space.reference == "MNI":
            xyz[here] = lancaster_tal2mni(xyz[here])
        elif space.reference == "TAL" and not talairach:
            xyz[here] = lancaster_mni2tal(xyz[here])
    ijk = mm_to_voxel(xyz, space.affine)
    parts = np.split(ijk, np.cumsum(corpus["analysis_n_foci"].values)[:-1])
    zooms = [float(zoom) for zoom in np.abs(np.diag(space.affine)[:3])]
    return mkda_maps(parts, space.mask, zooms, r)
