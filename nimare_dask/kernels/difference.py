"""Differences of two ALE maps under shuffled labels, from one table of whole numbers.

The table holds -ln(1 - activation) of each analysis at each voxel, in pieces of 1,024 voxels of
which those that hold nothing are left out (a third). Under any shuffle the sums of the two groups
add up to the same total T, and the difference of ALE, exp(-(T - S)) - exp(-S), never decreases in
the sum S of group 1. So whether a shuffle reaches the observed difference is a comparison of whole
numbers, and whether it is beyond a threshold too: a table of limits of |2 S - T| leaves few voxels
of which an exponential is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.clusters import largest_clusters

#: Voxels of a block: an analysis has nothing in a third of such blocks, and the sums stay in the
#: nearest cache while analyses are added. With 256 the work for each block costs more than the
#: further blocks that are left out save.
BLOCK = 1024

#: The mass of clusters is counted in units of 1 / MASS_SCALE.
MASS_SCALE = float(1 << 40)


class Table(NamedTuple):
    """Whole numbers of each analysis at each voxel, without the blocks that are all 0."""

    piece: NDArray[np.signedinteger]  # (piece, voxel of a block)
    place: NDArray[np.int32]  # (block, analysis): its piece, or -1


def table_of(
    rows: Iterable[NDArray[np.signedinteger]], n_voxels: int, most_bytes: float = np.inf
) -> Table | None:
    """Make a table of the rows of analyses, (voxel,) each; None when it would be too large."""
    n_blocks = -(-n_voxels // BLOCK)
    pieces: list[NDArray[np.signedinteger]] = []
    places: list[NDArray[np.int32]] = []
    n_pieces = 0
    for row in rows:
        blocks = np.zeros((n_blocks, BLOCK), row.dtype)
        blocks.reshape(-1)[:n_voxels] = row
        some = blocks.any(axis=1)
        place = np.full(n_blocks, -1, np.int32)
        place[some] = n_pieces + np.arange(int(some.sum()))
        n_pieces += int(some.sum())
        if n_pieces * BLOCK * row.itemsize > most_bytes:
            return None
        pieces.append(blocks[some])
        places.append(place)
    return Table(np.concatenate(pieces), np.ascontiguousarray(np.array(places).T))


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
def add_analyses(table, block, members, sums):  # type: ignore[no-untyped-def]
    """Write to `sums` (voxel of a block,) the sum of some analyses of a :class:`Table`."""
    place = table.place[block]
    sums[:] = 0
    for member in range(members.shape[0]):
        piece = place[members[member]]
        if piece >= 0:
            row = table.piece[piece]
            for voxel in range(sums.shape[0]):
                sums[voxel] += row[voxel]


@njit(nogil=True, cache=True)
def sum_analyses(table, members, out):  # type: ignore[no-untyped-def]
    """Write to `out` (voxel,) the sum of some analyses."""
    length = table.piece.shape[1]
    for block in range(table.place.shape[0]):
        here = out[block * length : (block + 1) * length]
        add_analyses(table, block, members, here)


@njit(nogil=True, cache=True)
def look_at(  # type: ignore[no-untyped-def]
    sums, first_voxel, iteration, total, observed, limits, near, near_words, up, low, found, n_found
):
    """Compare the sums of group 1 at some voxels in one iteration.

    Parameters
    ----------
    sums
        Sums of group 1, (voxel,) of some voxels.
    first_voxel
        Number of the first of them.
    iteration
        Number of the iteration.
    total, observed, limits
        Sum of both groups, observed sum of group 1 and limit of each voxel of the mask.
    near, near_words
        Work space: bytes that are 0, at least as many as `sums` up to a multiple of 8, and the same
        bytes eight at a time.
    up, low
        Iterations of at least and at most the observed difference, which grow; (voxel,) of the
        mask.
    found, n_found
        Where voxels beyond the limits are listed, as far as there is room, and how many are.

    Returns
    -------
    n_found
        How many there are after, with room or without.
    """
    n_voxels = sums.shape[0]
    for voxel in range(n_voxels):
        at = first_voxel + voxel
        up[at] += sums[voxel] >= observed[at]
        low[at] += sums[voxel] <= observed[at]
        near[voxel] = abs(2 * sums[voxel] - total[at]) > limits[at]
    for word in range((n_voxels + 7) // 8):
        if near_words[word] == 0:
            continue
        for voxel in range(8 * word, 8 * word + 8):
            if near[voxel]:
                near[voxel] = 0
                if n_found < found.voxel.shape[0]:
                    found.iteration[n_found] = iteration
                    found.voxel[n_found] = first_voxel + voxel
                    found.total[n_found] = sums[voxel]
                n_found += 1
    return n_found


@njit(nogil=True, cache=True)
def shuffle_table(table, chosen, takes_rest, total, observed, limits, up, low, found):  # type: ignore[no-untyped-def]
    """Do some iterations, block of voxels by block.

    Parameters
    ----------
    table
        See :class:`Table`.
    chosen
        Analyses that are added up in each iteration, (iteration, member).
    takes_rest
        Whether group 1 is everybody else.
    total, observed, limits, up, low, found
        See :func:`look_at`.

    Returns
    -------
    n_found
        How many voxels are beyond the limits, with room or without.
    """
    length = table.piece.shape[1]
    near = np.zeros((length + 7) // 8 * 8, np.uint8)
    near_words = near.view(np.uint64)
    room = np.empty(length, table.piece.dtype)
    n_found = 0
    for block in range(table.place.shape[0]):
        first_voxel = block * length
        sums = room[: min(length, total.shape[0] - first_voxel)]
        for iteration in range(chosen.shape[0]):
            add_analyses(table, block, chosen[iteration], sums)
            if takes_rest:
                for voxel in range(sums.shape[0]):
                    sums[voxel] = total[first_voxel + voxel] - sums[voxel]
            n_found = look_at(
                sums,
                first_voxel,
                iteration,
                total,
                observed,
                limits,
                near,
                near_words,
                up,
                low,
                found,
                n_found,
            )
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
    """Add 1 - ALE of each of `subsets` (subset, member) of analyses of a table to `out` (voxel,).

    The table holds -ln(1 - activation) in units of 1 / scale.
    """
    length = table.piece.shape[1]
    room = np.empty(length, table.piece.dtype)
    for block in range(table.place.shape[0]):
        here = out[block * length : (block + 1) * length]
        sums = room[: here.shape[0]]
        for subset in range(subsets.shape[0]):
            add_analyses(table, block, subsets[subset], sums)
            for voxel in range(here.shape[0]):
                here[voxel] += np.exp(-np.float64(sums[voxel]) / scale)
