"""Clusters of voxels that are connected by faces, found on runs of voxels.

What is above a threshold is given as a list of voxels. Neighbours on a line become one run, and
runs are joined where they overlap with those of the two lines before, so that the cost is that of
the runs. Masses are whole numbers, in units that callers choose, which add up to the same in any
order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Grid(NamedTuple):
    """The voxels of a mask, in C order, as segments: neighbours along the last axis."""

    segment: NDArray[np.int32]  # (voxel): segment that each is in
    first: NDArray[np.int32]  # (segment + 1): first voxel
    k: NDArray[np.int32]  # (segment): place of the first voxel on its line
    line: NDArray[np.int32]  # (segment): line, in a table with a margin before each axis
    row: int  # lines of that table with the same first index
    n_lines: int


class Room(NamedTuple):
    """Work space for clusters of a grid, used again and again."""

    begin: NDArray[np.int32]  # (run)
    end: NDArray[np.int32]  # (run)
    line: NDArray[np.int32]  # (run)
    parent: NDArray[np.int32]  # (run)
    size: NDArray[np.int64]  # (run)
    mass: NDArray[np.int64]  # (run)
    opened: NDArray[np.int32]  # (line): its first run
    closed: NDArray[np.int32]  # (line): the one after its last run; 0 where it has none


def grid_of(mask: NDArray[np.bool_]) -> Grid:
    """Prepare a mask, (x, y, z)."""
    ijk = np.argwhere(mask)
    row = mask.shape[1] + 1
    line = (ijk[:, 0] + 1) * row + ijk[:, 1] + 1
    begins = np.ones(len(ijk), bool)
    begins[1:] = (line[1:] != line[:-1]) | (ijk[1:, 2] != ijk[:-1, 2] + 1)
    first = np.flatnonzero(begins)
    return Grid(
        segment=(np.cumsum(begins) - 1).astype(np.int32),
        first=np.append(first, len(ijk)).astype(np.int32),
        k=ijk[first, 2].astype(np.int32),
        line=line[first].astype(np.int32),
        row=row,
        n_lines=(mask.shape[0] + 1) * row,
    )


def room_for(grid: Grid) -> Room:
    """Make work space that is enough for any voxels of a grid."""
    # At most every second voxel of a segment begins a run.
    n_runs = int((np.diff(grid.first).astype(np.int64) + 1).sum() // 2) + 1
    begin, end, line, parent = np.empty((4, n_runs), np.int32)
    size, mass = np.empty((2, n_runs), np.int64)
    opened, closed = np.zeros((2, grid.n_lines), np.int32)
    return Room(begin, end, line, parent, size, mass, opened, closed)


@njit(nogil=True, cache=True)
def _root(parent, node):  # type: ignore[no-untyped-def]
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(nogil=True, cache=True)
def _list_runs(voxels, excess, grid, room):  # type: ignore[no-untyped-def]
    """Turn voxels, ascending, into runs; return how many there are."""
    n, n_runs, line, at = voxels.shape[0], 0, -1, 0
    while at < n:
        voxel = voxels[at]
        segment = grid.segment[voxel]
        if grid.line[segment] != line:
            line = grid.line[segment]
            room.opened[line] = n_runs
        # Ascending numbers are neighbours up to where they are more than the steps from the first.
        last = min(n, at + grid.first[segment + 1] - voxel)
        mass, end = np.int64(0), at
        while end < last and voxels[end] - end == voxel - at:
            mass += excess[end]
            end += 1
        begin = grid.k[segment] + voxel - grid.first[segment]
        room.begin[n_runs] = begin
        room.end[n_runs] = begin + end - at
        room.line[n_runs] = line
        room.parent[n_runs] = n_runs
        room.size[n_runs] = end - at
        room.mass[n_runs] = mass
        n_runs += 1
        room.closed[line] = n_runs
        at = end
    return n_runs


@njit(nogil=True, cache=True)
def _join(n_runs, back, room):  # type: ignore[no-untyped-def]
    """Join runs with those that they touch on the line `back` lines before."""
    begin, end, parent = room.begin, room.end, room.parent
    line, other, last = -1, 0, 0
    for run in range(n_runs):
        if room.line[run] != line:
            line = room.line[run]
            other, last = room.opened[line - back], room.closed[line - back]
        while other < last and end[other] <= begin[run]:
            other += 1
        touching = other
        while touching < last and begin[touching] < end[run]:
            one, two = _root(parent, run), _root(parent, touching)
            parent[max(one, two)] = min(one, two)
            touching += 1


@njit(nogil=True, cache=True)
def _connect(voxels, excess, grid, room):  # type: ignore[no-untyped-def]
    """Add up runs by cluster at their first run, and leave lines empty; return how many runs."""
    n_runs = _list_runs(voxels, excess, grid, room)
    _join(n_runs, 1, room)
    _join(n_runs, grid.row, room)
    for run in range(n_runs):
        room.opened[room.line[run]] = 0
        room.closed[room.line[run]] = 0
        root = _root(room.parent, run)
        room.parent[run] = root
        if root != run:
            room.size[root] += room.size[run]
            room.mass[root] += room.mass[run]
    return n_runs


@njit(nogil=True, cache=True)
def largest_clusters(voxels, excess, grid, room):  # type: ignore[no-untyped-def]
    """Find the largest size and the largest mass of clusters.

    Parameters
    ----------
    voxels
        Numbers of some voxels, ascending, (member,).
    excess
        What each adds to the mass of its cluster, int64 (member,).
    grid, room
        The mask, and work space for it.

    Returns
    -------
    size, mass
        Of two clusters, which may differ; zeros when there are no voxels.
    """
    n_runs = _connect(voxels, excess, grid, room)
    largest, heaviest = np.int64(0), np.int64(0)
    for run in range(n_runs):
        largest, heaviest = max(largest, room.size[run]), max(heaviest, room.mass[run])
    return largest, heaviest


@njit(nogil=True, cache=True)
def cluster_of_each(voxels, excess, grid, room, size, mass):  # type: ignore[no-untyped-def]
    """Write size and mass of the cluster of each of `voxels` (member,) to int64 (member,)."""
    n_runs = _connect(voxels, excess, grid, room)
    at = 0
    for run in range(n_runs):
        root = room.parent[run]
        for _ in range(room.begin[run], room.end[run]):
            size[at] = room.size[root]
            mass[at] = room.mass[root]
            at += 1
