"""Voxels whose chi-square is above a threshold, from counts of active analyses.

For null iterations: a map is never written, only the largest chi-square and the list of voxels
above the threshold. Chi-square is the square of z rounded to float32, which is what fitted maps
hold, so that an iteration that equals the fitted map reaches it exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels import clusters

#: The mass of clusters is counted in units of 1 / MASS_SCALE.
MASS_SCALE = float(1 << 20)

#: Effects that there is a chi-square of, by number.
EFFECTS = ("uniformity", "association", "group2")
_UNIFORMITY, _ASSOCIATION = 0, 1

#: How far below the threshold float32 has to look to miss none: as a share, in analyses, and for
#: each analysis that there is.
_SHARE, _COUNT, _EACH = np.float32(1 - 1e-4), np.float32(0.01), np.float32(4e-7)


class Margins(NamedTuple):
    """What the association of any group needs of a voxel."""

    n_active: NDArray[np.int32]  # (voxel): analyses, in the group or not, that are active
    active: NDArray[np.float32]  # (voxel): the same
    spread: NDArray[np.float32]  # (voxel): sqrt(n_active (n - n_active)), inf where that is 0
    scale: NDArray[np.float64]  # (voxel): sqrt(n / (n_active (n - n_active))), 0 where not defined
    n: int  # analyses


class Room(NamedTuple):
    """Work space, used again and again."""

    voxels: NDArray[np.int32]  # (voxel): those above the threshold
    excess: NDArray[np.int64]  # (voxel): by how much, in units of 1 / MASS_SCALE
    near: NDArray[np.uint8]  # (voxel, up to a multiple of 8): 1 where chi-square may be above
    near_words: NDArray[np.uint64]  # the same bytes


def room_for(n_voxels: int) -> Room:
    """Make work space for maps of so many voxels."""
    near = np.zeros(-(-n_voxels // 8) * 8, np.uint8)
    return Room(
        np.empty(n_voxels, np.int32), np.empty(n_voxels, np.int64), near, near.view(np.uint64)
    )


def margins_of(n_active: NDArray[np.integer], n: int) -> Margins:
    """Prepare voxels at which `n_active` (voxel,) of `n` analyses are active."""
    active = n_active.astype(np.float64)
    product = active * (n - active)
    some = product > 0
    scale, spread = np.zeros(len(active)), np.full(len(active), np.inf, np.float32)
    scale[some] = np.sqrt(n / product[some])
    spread[some] = np.sqrt(product[some])
    return Margins(n_active.astype(np.int32), active.astype(np.float32), spread, scale, n)


@njit(nogil=True, cache=True, inline="always")
def _association_chi2(count, voxel, margins, n_selected, by_group):  # type: ignore[no-untyped-def]
    # In the order of kernels.chi2, so that both round alike.
    excess = np.float64(count) * margins.n - np.float64(margins.n_active[voxel]) * n_selected
    z = np.float64(np.float32(excess * margins.scale[voxel] * by_group))
    return z * z


@njit(nogil=True, cache=True)
def association_above(counts, margins, n_selected, threshold, room):  # type: ignore[no-untyped-def]
    """List the voxels whose association is above a threshold.

    Parameters
    ----------
    counts
        Active analyses of a group, (voxel,).
    margins
        See :class:`Margins`.
    n_selected
        Analyses of the group.
    threshold
        Chi-square.
    room
        Where to write them.

    Returns
    -------
    n_above, largest
        How many there are, and the largest chi-square of all voxels.
    """
    n = np.float64(margins.n)
    selected = np.float64(n_selected)
    variance = selected * (n - selected)
    by_group = 1 / np.sqrt(variance) if variance > 0 else 0.0
    share = np.float32(selected / n)
    limit = np.float32(np.sqrt(threshold * variance / n) / n) * _SHARE
    active, spread = margins.active, margins.spread
    margin = _COUNT + _EACH * np.float32(n)
    # Bytes, and the same bytes eight at a time: nearly all of them are 0.
    for voxel in range(counts.shape[0]):
        distance = np.abs(np.float32(counts[voxel]) - active[voxel] * share)
        room.near[voxel] = distance > limit * spread[voxel] - margin
    found, largest = 0, 0.0
    for word in range(room.near_words.shape[0]):
        if room.near_words[word] == 0:
            continue
        for voxel in range(8 * word, 8 * word + 8):
            if room.near[voxel]:
                chi2 = _association_chi2(counts[voxel], voxel, margins, selected, by_group)
                largest = max(largest, chi2)
                if chi2 > threshold:
                    room.voxels[found] = voxel
                    room.excess[found] = np.rint((chi2 - threshold) * MASS_SCALE)
                    found += 1
    if largest <= threshold:  # what is below was not looked at
        for voxel in range(counts.shape[0]):
            chi2 = _association_chi2(counts[voxel], voxel, margins, selected, by_group)
            largest = max(largest, chi2)
    return found, largest


@njit(nogil=True, cache=True)
def uniformity_above(counts, expected, n, threshold, room):  # type: ignore[no-untyped-def]
    """As :func:`association_above`, for `counts` against `expected`, their mean over the mask."""
    variance = expected * (n - expected)
    scale = np.sqrt(n / variance) if variance > 0 else 0.0
    most = np.int64(0)
    for voxel in range(counts.shape[0]):
        most = max(most, np.int64(counts[voxel]))
    # Chi-square is a table of the count.
    beyond = np.zeros(most + 1, np.int64)
    above = np.zeros(most + 1, np.bool_)
    chi2 = np.zeros(most + 1)
    for count in range(most + 1):
        z = np.float64(np.float32((count - expected) * scale))
        chi2[count] = z * z
        above[count] = chi2[count] > threshold
        beyond[count] = np.rint((chi2[count] - threshold) * MASS_SCALE)
    found = 0
    least = most
    for voxel in range(counts.shape[0]):
        active = np.int64(counts[voxel])
        least = min(least, active)
        room.voxels[found] = voxel
        room.excess[found] = beyond[active]
        found += above[active]
    return found, max(chi2[least], chi2[most])


class Rooms(NamedTuple):
    """The mask as a grid, and all work space that measuring a map needs."""

    grid: clusters.Grid
    clusters: clusters.Room
    above: Room


def rooms_for(mask: NDArray[np.bool_]) -> Rooms:
    """Make work space for a mask."""
    grid = clusters.grid_of(mask)
    return Rooms(grid, clusters.room_for(grid), room_for(int(mask.sum())))


@njit(nogil=True, cache=True)
def measure(group, others, margins, n_selected, effect, threshold, with_clusters, rooms, maxima):  # type: ignore[no-untyped-def]
    """Measure one effect of one pair of groups.

    Parameters
    ----------
    group, others
        Active analyses of the group and of the others, (voxel,).
    margins
        See :class:`Margins`.
    n_selected
        Analyses of the group.
    effect
        Position in `EFFECTS`.
    threshold
        Chi-square that voxels of clusters are above.
    with_clusters
        Whether clusters are wanted.
    rooms
        See :class:`Rooms`.
    maxima
        Where to write the largest chi-square, and the size and mass of the largest clusters.
    """
    room = rooms.above
    if effect == _ASSOCIATION:
        found, largest = association_above(group, margins, n_selected, threshold, room)
    else:
        counts = group if effect == _UNIFORMITY else others
        n = n_selected if effect == _UNIFORMITY else margins.n - n_selected
        total = np.int64(0)
        for voxel in range(counts.shape[0]):
            total += counts[voxel]
        expected = total / counts.shape[0]
        found, largest = uniformity_above(counts, expected, np.float64(n), threshold, room)
    maxima[0] = largest
    if with_clusters:
        size, mass = clusters.largest_clusters(
            room.voxels[:found], room.excess[:found], rooms.grid, rooms.clusters
        )
        maxima[1], maxima[2] = size, mass / MASS_SCALE
