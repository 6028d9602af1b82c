"""Signed square roots of chi-square from counts, for many groups at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Voxels and groups of a tile: counts are (voxel, group), maps are (group, voxel), and a tile of
#: both stays in cache while it is turned.
_TILE = 64


@njit(nogil=True, cache=True)
def _association(counts, n_selected, n_total, z):  # type: ignore[no-untyped-def]
    n_voxels, n_groups = counts.shape[0], counts.shape[1] - 1
    # The denominator is a product of what depends on the voxel and what depends on the group, so
    # the inner loop neither divides nor takes roots.
    by_voxel = np.zeros(n_voxels)
    for voxel in range(n_voxels):
        active = float(counts[voxel, n_groups])
        if 0 < active < n_total:
            by_voxel[voxel] = np.sqrt(n_total / (active * (n_total - active)))
    for voxel_0 in range(0, n_voxels, _TILE):
        voxel_1 = min(voxel_0 + _TILE, n_voxels)
        for group_0 in range(0, n_groups, _TILE):
            for group in range(group_0, min(group_0 + _TILE, n_groups)):
                selected = float(n_selected[group])
                by_group = 0.0
                if 0 < selected < n_total:
                    by_group = 1 / np.sqrt(selected * (n_total - selected))
                for voxel in range(voxel_0, voxel_1):
                    # a n2 - b n1, with b = active - a and n2 = n - n1, is a n - active n1.
                    excess = counts[voxel, group] * n_total - counts[voxel, n_groups] * selected
                    z[group, voxel] = excess * by_voxel[voxel] * by_group


@njit(nogil=True, cache=True)
def _uniformity(counts, expected, n, z):  # type: ignore[no-untyped-def]
    n_voxels, n_groups = counts.shape
    for voxel_0 in range(0, n_voxels, _TILE):
        voxel_1 = min(voxel_0 + _TILE, n_voxels)
        for group_0 in range(0, n_groups, _TILE):
            for group in range(group_0, min(group_0 + _TILE, n_groups)):
                variance = expected[group] * (n[group] - expected[group])
                scale = np.sqrt(n[group] / variance) if variance > 0 else 0.0
                for voxel in range(voxel_0, voxel_1):
                    z[group, voxel] = (counts[voxel, group] - expected[group]) * scale


def association_z(
    counts: NDArray[np.integer],
    n_selected: NDArray[np.integer],
    n_total: int,
    dtype: Any = np.float64,
) -> NDArray[Any]:
    """Square root of the 2 x 2 chi-square, positive where selected analyses are active more often.

    With a of n1 selected and b of n2 other analyses active at a voxel and N = n1 + n2,
    chi-square is N (a n2 - b n1)^2 / ((a + b)(N - a - b) n1 n2), with no continuity correction.

    Parameters
    ----------
    counts
        Active analyses, (voxel, group + 1): those of each group, and last those of all.
    n_selected
        Analyses in each group, (group,).
    n_total
        Analyses in all.
    dtype
        Float type of the result.

    Returns
    -------
    z
        Shape (group, voxel); 0 where no analysis or every analysis is active.

    References
    ----------
    Yarkoni T et al. (2011), doi:10.1038/nmeth.1635.
    """
    z = np.empty((counts.shape[1] - 1, counts.shape[0]), dtype)
    _association(counts, n_selected.astype(np.int64), float(n_total), z)
    return z


def uniformity_z(
    counts: NDArray[np.integer],
    expected: NDArray[np.float64],
    n: NDArray[np.integer],
    dtype: Any = np.float64,
) -> NDArray[Any]:
    """Square root of the chi-square against the same count everywhere, signed by the difference.

    With x of n analyses active and e expected, chi-square is (x - e)^2 n / (e (n - e)).

    Parameters
    ----------
    counts
        Active analyses, (voxel, group).
    expected
        Mean of the counts over all voxels of the mask, (group,).
    n
        Analyses in each group, (group,).
    dtype
        Float type of the result.

    Returns
    -------
    z
        Shape (group, voxel); 0 for a group that is active nowhere or everywhere.
    """
    z = np.empty((counts.shape[1], counts.shape[0]), dtype)
    _uniformity(counts, expected.astype(np.float64), n.astype(np.float64), z)
    return z
