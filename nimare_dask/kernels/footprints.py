"""Which voxels a focus reaches, as runs along the last axis of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def sphere_columns(zooms: Sequence[float] | NDArray[Any], r: float) -> NDArray[np.int32]:
    """Columns of the sphere of voxel centres at most `r` from its centre, boundary included.

    A voxel offset (di, dj, dk) belongs to the sphere when the length of ``offset * zooms`` is at
    most `r`. All offsets that share (di, dj) are one run from -half to +half along the last axis,
    so the sphere is stored as its columns: 81 runs instead of 515 voxels for 10 mm on a 2 mm grid.

    Parameters
    ----------
    zooms
        Edge lengths of a voxel in mm, shape (3,).
    r
        Radius in mm.

    Returns
    -------
    columns
        Shape (column, 3): di, dj and the half length of the run, in voxels.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    """
    size = np.abs(np.asarray(zooms, dtype=float))
    reach = np.floor(r / size).astype(int) + 1
    i, j, k = (np.arange(-n, n + 1) for n in reach)
    grid = np.stack(np.meshgrid(i, j, k, indexing="ij"), axis=-1) * size
    inside = np.sqrt((grid**2).sum(axis=-1)) <= r
    length = inside.sum(axis=2)
    di, dj = np.nonzero(length)
    half = (length[di, dj] - 1) // 2
    return np.stack([i[di], j[dj], half], axis=1).astype(np.int32)
