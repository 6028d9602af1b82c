"""How far the nearest focus of each analysis is from any of a few points."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def _nearest(xyz, space, matrices, points, low, high, n_foci, out):  # type: ignore[no-untyped-def]
    focus = 0
    for analysis in range(n_foci.shape[0]):
        nearest = np.inf
        for _ in range(n_foci[analysis]):
            m = matrices[space[focus]]
            a, b, c = xyz[focus, 0], xyz[focus, 1], xyz[focus, 2]
            focus += 1
            x = m[0, 0] * a + m[0, 1] * b + m[0, 2] * c + m[0, 3]
            if x < low[0] or x > high[0]:
                continue
            y = m[1, 0] * a + m[1, 1] * b + m[1, 2] * c + m[1, 3]
            if y < low[1] or y > high[1]:
                continue
            z = m[2, 0] * a + m[2, 1] * b + m[2, 2] * c + m[2, 3]
            if z < low[2] or z > high[2]:
                continue
            for point in range(points.shape[0]):
                dx = x - points[point, 0]
                dy = y - points[point, 1]
                dz = z - points[point, 2]
                nearest = min(nearest, dx * dx + dy * dy + dz * dz)
        out[analysis] = np.sqrt(nearest)


def nearest_distance(
    xyz: NDArray[np.float64],
    space: NDArray[np.int8],
    matrices: NDArray[np.float64],
    points: NDArray[np.float64],
    n_foci: NDArray[np.int32],
    farthest: float = np.inf,
) -> NDArray[np.float64]:
    """Distance from the nearest focus of each analysis to the nearest of `points`, in mm.

    Parameters
    ----------
    xyz
        Foci as reported, (focus, 3), one analysis after the other.
    space
        Which of `matrices` brings a focus to where the points are, (focus,).
    matrices
        Homogeneous, (space, 4, 4).
    points
        (point, 3).
    n_foci
        Foci of each analysis, (analysis,).
    farthest
        Distances beyond it need not be right; they come out beyond it, or as infinity.

    Returns
    -------
    distance
        (analysis,); infinity where there is no focus.
    """
    # A focus outside the box of the points is not compared with each; the box is a little larger
    # than `farthest`, so that rounding loses none that is exactly so far.
    reach = farthest * (1 + 1e-9) + 1e-9
    low, high = points.min(axis=0) - reach, points.max(axis=0) + reach
    out = np.empty(len(n_foci))
    _nearest(xyz, space, matrices, points, low, high, n_foci, out)
    return out
