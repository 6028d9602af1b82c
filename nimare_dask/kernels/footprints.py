"""What a focus reaches: spheres and Gaussians on the grid of a volume."""

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


def dense_sphere(columns: NDArray[np.int32]) -> NDArray[np.float64]:
    """Fill in the columns of a sphere: 1 inside and 0 outside, with the focus in the middle."""
    half = np.abs(columns).max(axis=0)
    sphere = np.zeros(2 * half + 1)
    for di, dj, length in columns:
        sphere[half[0] + di, half[1] + dj, half[2] - length : half[2] + length + 1] = 1.0
    return sphere


def gaussian(fwhm: float, zooms: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    """Probability that an activation reported at a voxel lies at each voxel around it.

    A normal law cut at four standard deviations along each axis, in steps of a voxel, that sums to
    1; places below 2.2e-16 on every line through them are left out.

    Parameters
    ----------
    fwhm
        Full width at half maximum in mm.
    zooms
        Edge lengths of a voxel in mm, shape (3,).

    Returns
    -------
    values
        With an odd number of voxels along each axis, and the focus in the middle.

    References
    ----------
    Eickhoff SB et al. (2009), doi:10.1002/hbm.20718.
    """
    weights = []
    for zoom in np.abs(np.asarray(zooms, dtype=float)):
        sigma = fwhm / zoom / np.sqrt(8.0 * np.log(2.0))
        far = int(4.0 * sigma + 0.5)
        along = np.exp(-0.5 / sigma**2 * np.arange(-far, far + 1) ** 2)
        weights.append(along / along.sum())
    values: NDArray[np.float64] = np.multiply.outer(
        np.multiply.outer(weights[0], weights[1]), weights[2]
    )
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        kept = np.flatnonzero(values.max(axis=others) > np.finfo(float).eps)
        values = np.take(values, kept, axis=axis)
    return values
