"""Groups that are the first so many analyses of one shuffle, counted one after the other.

A shuffle gives a group of every size: the first analyses of it. Groups of a database are counted by
going along one shuffle once, which costs the analyses of the largest group, whatever the number of
groups. A group of more than half of all analyses is everybody but the first so many.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.exceed import measure
from nimare_dask.kernels.rows import add_rows, running_sum


class Prefixes(NamedTuple):
    """Groups by the number of analyses of the shuffle that they take or leave, ascending."""

    length: NDArray[np.int64]  # (group): analyses from the start of the shuffle
    is_rest: NDArray[np.bool_]  # (group): whether the group is everybody else
    place: NDArray[np.int64]  # (group): where its maxima go


def prefixes_of(sizes: NDArray[np.integer], n: int) -> Prefixes:
    """Put groups of `sizes` (group,) of `n` analyses in order."""
    is_rest = 2 * sizes > n
    length = np.where(is_rest, n - sizes, sizes)
    order = np.argsort(length, kind="stable")
    return Prefixes(length[order].astype(np.int64), is_rest[order], order.astype(np.int64))


@njit(nogil=True, cache=True)
def shuffle(raw, order):  # type: ignore[no-untyped-def]
    """Bring the first analyses of a random order to the front of `order` (analysis,).

    The first steps of the shuffle of Fisher and Yates, one for each of `raw`, 64 random bits each.
    """
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for at in range(raw.shape[0]):
        left = np.uint64(order.shape[0] - at)
        # The upper half of raw * left.
        drawn = ((raw[at] >> half) * left + ((raw[at] & low) * left >> half)) >> half
        other = at + np.int64(drawn)
        order[at], order[other] = order[other], order[at]


@njit(nogil=True, cache=True)
def measure_prefixes(  # type: ignore[no-untyped-def]
    rows, order, prefixes, effects, margins, threshold, with_clusters, rooms, room, maxima
):
    """Measure every group of one shuffle.

    Parameters
    ----------
    rows
        Runs of each analysis.
    order
        A shuffle, as far as the groups need it.
    prefixes
        The groups.
    effects
        Positions in ``exceed.EFFECTS``, (effect,).
    margins, threshold, with_clusters, rooms
        See :func:`nimare_dask.kernels.exceed.measure`.
    room
        Work space, integers that hold the number of analyses: (3, voxel + 1).
    maxima
        Where to write, float64 (group, effect, inference).
    """
    change, first, rest = room[0], room[1, :-1], room[2, :-1]
    change[:] = 0
    done = -1
    for at in range(prefixes.length.shape[0]):
        length = prefixes.length[at]
        if length != done:
            add_rows(rows, order[max(done, 0) : length], change)
            running_sum(change, first)
            for voxel in range(first.shape[0]):
                rest[voxel] = margins.n_active[voxel] - first[voxel]
            done = length
        group, others, n_selected = first, rest, length
        if prefixes.is_rest[at]:
            group, others, n_selected = rest, first, margins.n - length
        for place in range(effects.shape[0]):
            measure(
                group,
                others,
                margins,
                n_selected,
                effects[place],
                threshold,
                with_clusters,
                rooms,
                maxima[prefixes.place[at], place],
            )
