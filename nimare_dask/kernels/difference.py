"""Differences of two ALE maps under shuffled labels, from one table of whole numbers.

The table holds -ln(1 - activation) of each analysis at each voxel. Under any shuffle the sums of
the two groups add up to the same total T, and the difference of ALE,
exp(-(T - S)) - exp(-S), never decreases in the sum S of group 1. So whether a shuffle reaches the
observed difference is a comparison of whole numbers, and whether it is beyond a threshold too: a
table of limits of |2 S - T| leaves few voxels of which an exponential is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.clusters import largest_clusters

#: Voxels of a block: the sums of a block stay in the nearest cache while analyses are added.
BLOCK = 1024

#: The mass of clusters is counted in units of 1 / MASS_SCALE.
MASS_SCALE = float(1 << 40)


class Members(NamedTuple):
    """Work space: voxels of one sign, and by how much each is beyond the threshold."""

    voxel: NDArray[np.int32]  # (voxel)
    excess: NDArray[np.int64]  # (voxel), in units of 1 / MASS_SCALE


class Found(NamedTuple):
    """Voxels of iterations whose difference may be beyond the threshold, in order of blocks."""

    iteration: NDArray[np.int32]  # (entry)
    voxel: NDArray[np.int32]  # (entry)
    total: NDArray[np.int64]  # (entry): the sum of group 1


@njit(nogil=True, cache=True)
def differences(first, total, scale, out):  # type: ignore[no-untyped-def]
    """Write ALE of group 1 less that of group 2, float32 (voxel,), from sums in units of 1/scale.

    `first` is the sum of group 1 and `total` that of both, integers (voxel,).
    """
    for voxel in range(first.shape[0]):
        one = np.float64(first[voxel]) / scale
        two = np.float64(total[voxel] - first[voxel]) / scale
        out[voxel] = np.float32(np.expm1(-two) - np.expm1(-one))


def limits_of(total: NDArray[np.integer], threshold: float, scale: float) -> NDArray[np.int64]:
    """Distance of the sums of both groups up to which |difference| is surely not above `threshold`.

    The difference is 2 exp(-T/2) sinh(|S1 - S2| / 2), solved for |S1 - S2|, less some units for
    rounding; in units of 1 / scale, (voxel,).
    """
    half = np.arcsinh(threshold * np.exp(total / (2 * scale)) / 2)
    limits = np.floor(2 * scale * half * (1 - 1e-6)) - 4
    found: NDArray[np.int64] = np.minimum(limits, float(1 << 60)).astype(np.int64)
    return found


@njit(nogil=True, cache=True)
def add_analyses(table, members, sums):  # type: ignore[no-untyped-def]
    """Write to `sums` (voxel,) the sum of the rows `members` of a table (analysis, voxel)."""
    sums[:] = 0
    for member in range(members.shape[0]):
        row = table[members[member]]
        for voxel in range(sums.shape[0]):
            sums[voxel] += row[voxel]


@njit(nogil=True, cache=True)
def shuffle_block(  # type: ignore[no-untyped-def]
    table,
    chosen,
    takes_rest,
    first_iteration,
    first_voxel,
    total,
    observed,
    limits,
    room,
    up,
    low,
    found,
    n_found,
):
    """Do some iterations for one block of voxels.

    Parameters
    ----------
    table
        Integers (analysis, voxel of the block).
    chosen
        Analyses that are added up in each iteration, (iteration, member).
    takes_rest
        Whether group 1 is everybody else.
    first_iteration, first_voxel
        Number of the first iteration, and of the first voxel of the block.
    total, observed, limits
        Sum of both groups, observed sum of group 1 and limit of each voxel of the block.
    room
        Work space: integers of the type of the table and bytes, (voxel of the block,), and the same
        bytes eight at a time.
    up, low
        Iterations of at least and at most the observed difference, which grow; (voxel,).
    found
        Where voxels beyond the limits are listed, as far as there is room.
    n_found
        How many are listed before.

    Returns
    -------
    n_found
        How many there are after, with room or without.
    """
    sums, near, near_words = room
    near[:] = 0
    n_voxels = total.shape[0]
    for iteration in range(chosen.shape[0]):
        add_analyses(table, chosen[iteration], sums)
        if takes_rest:
            for voxel in range(n_voxels):
                sums[voxel] = total[voxel] - sums[voxel]
        for voxel in range(n_voxels):
            up[voxel] += sums[voxel] >= observed[voxel]
            low[voxel] += sums[voxel] <= observed[voxel]
            near[voxel] = abs(2 * sums[voxel] - total[voxel]) > limits[voxel]
        for word in range(near_words.shape[0]):
            if near_words[word] == 0:
                continue
            for voxel in range(8 * word, 8 * word + 8):
                if near[voxel]:
                    if n_found < found.voxel.shape[0]:
                        found.iteration[n_found] = first_iteration + iteration
                        found.voxel[n_found] = first_voxel + voxel
                        found.total[n_found] = sums[voxel]
                    n_found += 1
    return n_found


@njit(nogil=True, cache=True)
def measure(voxel, difference, threshold, grid, room, members):  # type: ignore[no-untyped-def]
    """Find the largest |difference|, and the largest clusters of one sign beyond a threshold.

    Parameters
    ----------
    voxel, difference
        Voxels, ascending, among them all that are beyond, and their differences: (entry,).
    threshold
        Of the absolute difference.
    grid, room, members
        The mask, and work space.

    Returns
    -------
    largest, size, mass
        Zeros when no voxel is beyond.
    """
    largest, size, mass = 0.0, np.int64(0), np.int64(0)
    for sign in (1.0, -1.0):
        n = 0
        for entry in range(voxel.shape[0]):
            value = np.float64(difference[entry]) * sign
            if value > threshold:
                largest = max(largest, value)
                members.voxel[n] = voxel[entry]
                members.excess[n] = np.rint((value - threshold) * MASS_SCALE)
                n += 1
        found = largest_clusters(members.voxel[:n], members.excess[:n], grid, room)
        size, mass = max(size, found[0]), max(mass, found[1])
    return largest, size, mass / MASS_SCALE


@njit(nogil=True, cache=True)
def add_survival(table, subsets, scale, out):  # type: ignore[no-untyped-def]
    """Add 1 - ALE of each of `subsets` (subset, member) of a table (analysis, voxel) to `out`.

    The table holds -ln(1 - activation) in units of 1 / scale.
    """
    sums = np.empty(table.shape[1], table.dtype)
    for subset in range(subsets.shape[0]):
        add_analyses(table, subsets[subset], sums)
        for voxel in range(out.shape[0]):
            out[voxel] += np.exp(-np.float64(sums[voxel]) / scale)
