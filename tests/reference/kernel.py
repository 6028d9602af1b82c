"""MKDA sphere kernel: voxel offsets and the modelled activation map of each analysis."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def sphere_offsets(zooms: Sequence[float], r: float) -> IntArray:
    """Offsets (offset, 3) in voxels of the voxels whose centre is at most ``r`` mm away.

    ``zooms`` are the three voxel sizes in mm. The boundary is inclusive. Rows are in C order
    (first axis slowest).
    """
    if len(zooms) != 3 or min(zooms) <= 0 or r < 0:
        raise ValueError("need three positive zooms and a radius of at least 0")
    # One candidate more than needed on each side: the distance test decides.
    spans = [range(-math.ceil(r / zoom) - 1, math.ceil(r / zoom) + 2) for zoom in zooms]
    kept = []
    for di in spans[0]:
        for dj in spans[1]:
            for dk in spans[2]:
                squared = (di * zooms[0]) ** 2 + (dj * zooms[1]) ** 2 + (dk * zooms[2]) ** 2
                if math.sqrt(squared) <= r:
                    kept.append((di, dj, dk))
    return np.array(kept, dtype=np.int64)


def mkda_map(
    ijk: npt.ArrayLike, mask: npt.ArrayLike, zooms: Sequence[float], r: float
) -> BoolArray:
    """Modelled activation of ONE analysis: (voxel,) bool over in-mask voxels in C order.

    ``ijk`` (focus, 3) are integer voxel indices and may lie outside the mask or the volume: the
    whole sphere is placed around the focus as it is, and each placed voxel outside the volume or
    the mask is then dropped. ``mask`` (x, y, z) is boolean; ``zooms`` and ``r`` are in mm.
    """
    foci = np.asarray(ijk)
    if foci.size == 0:
        foci = np.empty((0, 3), dtype=np.int64)
    if foci.ndim != 2 or foci.shape[1] != 3 or not np.issubdtype(foci.dtype, np.integer):
        raise ValueError("ijk must be integers of shape (n, 3)")
    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 3:
        raise ValueError("mask must have three dimensions")

    placed: set[tuple[int, int, int]] = set()
    offsets = [(int(di), int(dj), int(dk)) for di, dj, dk in sphere_offsets(zooms, r)]
    for i, j, k in foci:
        for di, dj, dk in offsets:
            placed.add((int(i) + di, int(j) + dj, int(k) + dk))

    active = np.zeros(inside.shape, dtype=bool)
    for voxel in placed:
        # Checked by hand, since a negative index would otherwise wrap around.
        if all(0 <= index < size for index, size in zip(voxel, inside.shape, strict=True)):
            active[voxel] = True
    in_mask: BoolArray = active[inside]
    return in_mask


def mkda_maps(
    list_of_ijk: Sequence[npt.ArrayLike], mask: npt.ArrayLike, zooms: Sequence[float], r: float
) -> BoolArray:
    """Modelled activations (analysis, voxel) bool, one ``mkda_map`` row for each analysis."""
    n_voxels = int(np.count_nonzero(np.asarray(mask, dtype=bool)))
    maps = np.zeros((len(list_of_ijk), n_voxels), dtype=bool)
    for row, ijk in enumerate(list_of_ijk):
        maps[row] = mkda_map(ijk, mask, zooms, r)
    return maps
