"""Small inputs for the overlay of footprints, and what comes out of it by plain loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nimare_dask.kernels import overlay

Shape = tuple[int, int, int]
#: Footprints as wide as one, two, three and more vectors of either type, and as flat as a line.
SIZES: tuple[Shape, ...] = ((3, 5, 7), (1, 1, 1), (5, 3, 17), (1, 7, 25), (7, 1, 3))


@dataclass(frozen=True)
class Overlay:
    """Foci, footprints and voxels, ready for the kernels and for plain loops."""

    ijk: NDArray[np.int32]
    owner: NDArray[np.int32]
    footprint_of: NDArray[np.int32]
    dense: list[NDArray[Any]]
    mask: NDArray[np.bool_]

    @property
    def n_analyses(self) -> int:
        return len(self.footprint_of)

    def sums(self, union: bool, kind: Any = None) -> NDArray[Any]:
        """What the kernel gives, of the type of the footprints or of `kind`, (voxel,)."""
        place = overlay.place_of(self.mask)
        out = np.full(int(self.mask.sum()), -1, kind or self.dense[0].dtype)
        footprints = overlay.pack_footprints(self.dense)
        foci = self.ijk, self.owner, self.footprint_of
        overlay.sum_footprints(*foci, footprints, union, place, out)
        return out

    def counts(self, union: bool, n_values: int) -> NDArray[np.int64]:
        """What the counting kernel gives, (analysis, value)."""
        place = overlay.place_of(self.mask)
        footprints = overlay.pack_footprints(self.dense)
        foci = self.ijk, self.owner, self.footprint_of
        counts: NDArray[np.int64] = overlay.count_values(
            *foci, footprints, union, place, self.n_analyses, n_values
        )
        return counts

    def expected_maps(self, union: bool) -> NDArray[np.int64]:
        """Each analysis alone, voxel by voxel of each footprint, (analysis, voxel)."""
        maps = np.zeros((self.n_analyses, *self.mask.shape), np.int64)
        for focus, analysis in zip(self.ijk.tolist(), self.owner.tolist(), strict=True):
            one = laid(self.dense[self.footprint_of[analysis]], focus, self.mask.shape)
            maps[analysis] = np.maximum(maps[analysis], one) if union else maps[analysis] + one
        return maps[:, self.mask]

    def expected_counts(self, union: bool, n_values: int) -> NDArray[np.int64]:
        """Voxels of each value, those above the last with it, (analysis, value)."""
        maps = np.minimum(self.expected_maps(union), n_values - 1)
        return np.array([np.bincount(row, minlength=n_values) for row in maps])


def laid(footprint: NDArray[Any], focus: list[int], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """A volume with one footprint around one focus; what falls outside is left out."""
    inside, source = [], []
    for axis in range(3):
        at = focus[axis] - footprint.shape[axis] // 2 + np.arange(footprint.shape[axis])
        kept = (at >= 0) & (at < shape[axis])
        inside.append(at[kept])
        source.append(np.flatnonzero(kept))
    volume = np.zeros(shape, np.int64)
    volume[np.ix_(*inside)] = footprint[np.ix_(*source)]
    return volume


def draw_footprint(rng: np.random.Generator, size: Shape, largest: int, kind: Any) -> NDArray[Any]:
    """Values up to `largest`, which is there; a third are zeros, at times with a whole edge."""
    values = rng.integers(0, largest, size=size, endpoint=True)
    values[rng.uniform(size=size) < 1 / 3] = 0
    for axis in range(3):
        edge = rng.choice([None, 0, -1])
        if edge is not None and size[axis] > 1:
            values[(slice(None),) * axis + (edge,)] = 0
    values[tuple(length // 2 for length in size)] = largest
    return values.astype(kind)


def draw_overlay(
    seed: int,
    shape: Shape,
    *,
    kind: Any = np.int16,
    sizes: tuple[Shape, ...] = SIZES,
    n_analyses: int = 7,
    n_foci: int = 40,
    largest: int = 300,
    holes: float = 0.3,
) -> Overlay:
    """Foci in, around and far from the volume, some twice; for some analyses one or none."""
    rng = np.random.default_rng(seed)
    dense = [draw_footprint(rng, size, largest, kind) for size in sizes]
    reach = np.max([np.array(size) // 2 for size in sizes], axis=0) + 2
    ijk = rng.integers(-reach, np.array(shape) + reach, size=(n_foci, 3))
    ijk[::2] = rng.integers(0, shape, size=ijk[::2].shape)
    owner = rng.integers(0, max(1, n_analyses - 2), size=n_foci)
    owner[-1:] = n_analyses - 1  # one focus; the analysis before has none
    fifth = n_foci // 5
    ijk[:fifth], owner[:fifth] = ijk[fifth : 2 * fifth], owner[fifth : 2 * fifth]
    far = ijk[2 * fifth : 2 * fifth + fifth // 2]
    far[np.arange(len(far)), np.arange(len(far)) % 3] = rng.choice([-32768, 32767, -999], len(far))
    order = np.argsort(owner, kind="stable")
    mask = rng.uniform(size=shape) >= holes
    mask[tuple(rng.integers(shape))] = True
    return Overlay(
        ijk=ijk[order].astype(np.int32),
        owner=owner[order].astype(np.int32),
        footprint_of=rng.integers(0, len(sizes), size=n_analyses).astype(np.int32),
        dense=dense,
        mask=mask,
    )
