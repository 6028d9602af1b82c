"""What is read off the sums of one iteration: their histogram, and the clusters of the highest.

Sums are whole numbers, and a bin of a histogram, or a step of heights, is a range of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Most entries of the table that leads from a sum to its bin; half of it fits the second cache.
_MOST_BUCKETS = 1 << 20


class Steps(NamedTuple):
    """Ranges of whole numbers, with a table that leads from a number to about its range."""

    #: (bin + 1): the first number of each bin, ascending from 0, and one beyond all numbers
    edges: NDArray[np.int64]
    start: NDArray[np.int32]  # (bucket): the bin of the first number of each bucket
    shift: int  # a bucket is all numbers that share what is left after shifting away these bits


def steps_at(edges: NDArray[np.integer]) -> Steps:
    """Prepare ranges that begin at `edges` (bin,), which ascend from 0 and may repeat."""
    first_of = np.ascontiguousarray(edges, np.int64)
    widths = np.diff(np.unique(first_of))
    shift = max(0, int(widths.min()).bit_length() - 1) if widths.size else 0
    while int(first_of[-1]) >> shift >= _MOST_BUCKETS:
        shift += 1
    first = np.arange((int(first_of[-1]) >> shift) + 1, dtype=np.int64) << shift
    start = np.searchsorted(first_of, first, side="right") - 1
    padded = np.append(first_of, np.iinfo(np.int64).max)
    return Steps(edges=padded, start=start.astype(np.int32), shift=shift)


@njit(nogil=True, cache=True, inline="always")
def _bin_of(value, steps):  # type: ignore[no-untyped-def]
    step = steps.start[min(value >> steps.shift, steps.start.shape[0] - 1)]
    # A bucket is mostly no wider than a bin: one step without a branch that is guessed wrong.
    step += steps.edges[step + 1] <= value
    while steps.edges[step + 1] <= value:
        step += 1
    return step


@njit(nogil=True, cache=True)
def tally(sums, steps, counts):  # type: ignore[no-untyped-def]
    """Add to `counts` int64 (bin,) how many of `sums` (voxel,) are in each bin."""
    if steps.shift == 0:  # a bucket is one number, so that the table says all
        last = np.int64(steps.start.shape[0] - 1)
        for voxel in range(sums.shape[0]):
            counts[steps.start[min(np.int64(sums[voxel]), last)]] += 1
        return
    for voxel in range(sums.shape[0]):
        counts[_bin_of(np.int64(sums[voxel]), steps)] += 1


@njit(nogil=True, cache=True)
def bins_of(sums, steps):  # type: ignore[no-untyped-def]
    """Find the bin of each of `sums` (voxel,), int32 (voxel,)."""
    found = np.empty(sums.shape[0], np.int32)
    for voxel in range(sums.shape[0]):
        found[voxel] = _bin_of(np.int64(sums[voxel]), steps)
    return found


@njit(nogil=True, cache=True)
def count_reaching(sums, observed, counts):  # type: ignore[no-untyped-def]
    """Add 1 to `counts` (voxel,) where `sums` are at least `observed`."""
    for voxel in range(sums.shape[0]):
        counts[voxel] += sums[voxel] >= observed[voxel]


class Neighbours(NamedTuple):
    """Where voxels lie in a volume with a margin of one, so that each has a voxel before it."""

    place: NDArray[np.int32]  # (voxel)
    back: NDArray[np.int64]  # (axis): how far back the neighbour on each axis is
    size: int  # of the volume


def neighbours_of(mask: NDArray[np.bool_]) -> Neighbours:
    """Prepare the voxels of a mask for finding clusters among some of them."""
    shape = np.array(mask.shape) + 1
    padded = np.zeros(shape, bool)
    padded[1:, 1:, 1:] = mask
    return Neighbours(
        place=np.flatnonzero(padded).astype(np.int32),
        back=np.array([shape[1] * shape[2], shape[2], 1], np.int64),
        size=padded.size,
    )


@njit(nogil=True, cache=True)
def _root(parent, node):  # type: ignore[no-untyped-def]
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True)
def largest_clusters(voxels, excess, neighbours, label):  # type: ignore[no-untyped-def]
    """Find the largest size and the largest mass of clusters that are connected by faces.

    Parameters
    ----------
    voxels
        Some voxels, ascending, (member,).
    excess
        What each adds to the mass of its cluster, float64 (member,).
    neighbours
        See :class:`Neighbours`.
    label
        Work space of zeros, int32 (place,), which is left as zeros.

    Returns
    -------
    size, mass
        Of two clusters, which may differ; zeros when there are no voxels.
    """
    n = voxels.shape[0]
    parent = np.empty(n, np.int32)
    size, mass = np.zeros(n, np.int64), np.zeros(n)
    for node in range(n):
        place = neighbours.place[voxels[node]]
        label[place] = node + 1
        before = label[place - 1]
        parent[node] = before - 1 if before > 0 else node
        for axis in range(2):
            beside = place - neighbours.back[axis]
            # Where the voxel before has such a neighbour too, the two are connected already.
            if label[beside] > 0 and not (before > 0 and label[beside - 1] > 0):
                one, two = _root(parent, node), _root(parent, label[beside] - 1)
                parent[max(one, two)] = min(one, two)
    largest, heaviest = 0, 0.0
    # Most neighbours are of one cluster, whose sums stay at hand while they are.
    current, voxels_there, mass_there = 0, 0, 0.0
    for node in range(n):
        label[neighbours.place[voxels[node]]] = 0
        # Parents come first, so theirs are roots already.
        root = parent[parent[node]]
        parent[node] = root
        if root != current:
            size[current], mass[current] = voxels_there, mass_there
            current, voxels_there, mass_there = root, size[root], mass[root]
        voxels_there += 1
        mass_there += excess[node]
    if n > 0:
        size[current], mass[current] = voxels_there, mass_there
    for node in range(n):
        largest, heaviest = max(largest, size[node]), max(heaviest, mass[node])
    return largest, heaviest


@njit(nogil=True, cache=True)
def largest_enhanced(level, height, extent_power, neighbours, label):  # type: ignore[no-untyped-def]
    """Find the largest score of threshold-free cluster enhancement.

    A voxel's score is the sum, over all levels up to its own, of ``size ** E * height``, where size
    is that of its cluster (connected by faces) among the voxels of at least that level.

    Parameters
    ----------
    level
        Level of each voxel, int32 (voxel,); 0 is below the first.
    height
        What each level counts, ``h ** H * step``, float64 (level,); the first is not used.
    extent_power
        ``size ** E`` for every size, float64 (size,).
    neighbours, label
        As in :func:`largest_clusters`.

    References
    ----------
    Smith SM, Nichols TE (2009), doi:10.1016/j.neuroimage.2008.03.061.
    """
    highest = 0
    for voxel in range(level.shape[0]):
        highest = max(highest, level[voxel])
    begin = np.zeros(highest + 2, np.int64)
    for voxel in range(level.shape[0]):
        begin[level[voxel]] += 1
    n = level.shape[0] - begin[0]
    # Nodes are voxels from the highest level down.
    end = 0
    for step in range(highest, 0, -1):
        begin[step], end = end, end + begin[step]
    member = np.empty(n, np.int32)
    for voxel in range(level.shape[0]):
        if level[voxel] > 0:
            member[begin[level[voxel]]] = voxel
            begin[level[voxel]] += 1
    parent, size, best = np.empty(n, np.int32), np.ones(n, np.int64), np.zeros(n)
    roots = np.empty(n, np.int32)
    n_roots = node = 0
    for step in range(highest, 0, -1):
        while node < begin[step]:
            place = neighbours.place[member[node]]
            parent[node] = node
            label[place] = node + 1
            roots[n_roots] = node
            n_roots += 1
            for axis in range(3):
                for side in (-1, 1):
                    beside = place + side * neighbours.back[axis]
                    other = label[beside] if beside < label.shape[0] else 0
                    if other > 0:
                        one, two = _root(parent, node), _root(parent, other - 1)
                        if one != two:
                            low, high = min(one, two), max(one, two)
                            parent[high] = low
                            size[low] += size[high]
                            best[low] = max(best[low], best[high])
            node += 1
        kept = 0
        for at in range(n_roots):
            root = roots[at]
            if parent[root] == root:
                best[root] += extent_power[size[root]] * height[step]
                roots[kept] = root
                kept += 1
        n_roots = kept
    largest = 0.0
    for at in range(n_roots):
        largest = max(largest, best[roots[at]])
    for at in range(n):
        label[neighbours.place[member[at]]] = 0
    return largest
