"""Which analyses activate which places, and counts of many large groups of analyses at once.

Groups of analyses that activate a place are large: a twentieth of all for a voxel, a quarter for
one of 400 parcels. For such groups a table with a column for each group is read instead of a list
of groups: the groups of an analysis are then neighbours in memory, and are added 16 at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.coverage import Runs, VoxelLines
from nimare_dask.kernels.rows import LENGTH_BITS, LONGEST_RUN, Rows

#: Voxels of a tile of counts that is turned in the nearest cache.
_TILE = 64


@njit(nogil=True, cache=True)
def _reached(rows, target, same_until, needed, start, found):  # type: ignore[no-untyped-def]
    """Write the targets that each analysis activates, and where those of each begin."""
    active = np.zeros(needed.shape[0], np.int64)
    touched = np.empty(needed.shape[0], np.int32)
    at = 0
    for analysis in range(start.shape[0] - 1):
        n_touched = 0
        for run in rows.run[rows.start[analysis] : rows.start[analysis + 1]]:
            voxel = np.int64(run >> LENGTH_BITS)
            end = voxel + np.int64(run & LONGEST_RUN)
            while voxel < end:
                until = min(end, same_until[voxel])
                own = target[voxel]
                if active[own] == 0:
                    touched[n_touched] = own
                    n_touched += 1
                active[own] += until - voxel
                voxel = until
        for t in range(n_touched):
            own = touched[t]
            if active[own] >= needed[own]:
                found[at] = own
                at += 1
            active[own] = 0
        start[analysis + 1] = at


def reached_targets(
    rows: Rows, target: NDArray[np.int32], needed: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """List the targets that each analysis activates.

    Parameters
    ----------
    rows
        Runs of each analysis over the voxels of all targets.
    target
        Target of each of those voxels, (voxel,).
    needed
        Voxels of each target that must be active, (target,).

    Returns
    -------
    start, found
        A ragged array: the targets of analysis ``a`` are ``found[start[a]:start[a + 1]]``, in no
        order.
    """
    last = np.flatnonzero(np.diff(target, append=-1)) + 1  # where neighbours are of other targets
    same_until = np.repeat(last, np.diff(last, prepend=0))
    start = np.zeros(len(rows.start), np.int64)
    # Room for the most that there can be; what is not written takes no memory.
    n_active = int((rows.run & np.uint32(LONGEST_RUN)).sum(dtype=np.int64))
    found = np.empty(min(n_active, (len(start) - 1) * len(needed)), np.int32)
    _reached(rows, target, same_until, needed, start, found)
    return start, found[: start[-1]].copy()


@njit(nogil=True, cache=True)
def _count_table(runs, lines, length, member, counts):  # type: ignore[no-untyped-def]
    n_groups = member.shape[1]
    change = np.zeros((length + 1, n_groups), member.dtype)
    total = np.empty(n_groups, member.dtype)
    for line in range(lines.ij.shape[0]):
        for run in range(runs.start[line], runs.start[line + 1]):
            analysis, begin, end = runs.analysis[run], runs.begin[run], runs.end[run]
            for g in range(n_groups):
                change[begin, g] += member[analysis, g]
            for g in range(n_groups):
                change[end, g] -= member[analysis, g]
        total[:] = 0
        k = 0
        for voxel in range(lines.start[line], lines.start[line + 1]):
            while k <= lines.k[voxel]:
                for g in range(n_groups):
                    total[g] += change[k, g]
                    change[k, g] = 0
                k += 1
            for g in range(n_groups):
                counts[voxel, g] = total[g]
        change[k:] = 0


def count_table(
    runs: Runs, lines: VoxelLines, length: int, member: NDArray[np.bool_], n_columns: int
) -> NDArray[np.int32]:
    """Count, at each voxel, the active analyses of each group, from a table of who is in which.

    Parameters
    ----------
    runs, lines
        The runs of all analyses along lines of `length` voxels.
    member
        Whether an analysis is in a group, (analysis, group).
    n_columns
        Columns of the result; those beyond the groups are not written.

    Returns
    -------
    counts
        Shape (voxel, column).
    """
    # Sums wrap around on the way (an end may come before its beginning); what they come to is a
    # number of analyses, so it need only fit.
    kind = np.uint16 if len(member) <= np.iinfo(np.uint16).max else np.uint32
    counts = np.empty((len(lines.k), n_columns), np.int32)
    _count_table(runs, lines, length, member.astype(kind), counts)
    return counts


@njit(nogil=True, cache=True)
def _turn(counts, turned):  # type: ignore[no-untyped-def]
    n_groups, n_voxels = turned.shape
    for voxel_0 in range(0, n_voxels, _TILE):
        for group in range(n_groups):
            for voxel in range(voxel_0, min(voxel_0 + _TILE, n_voxels)):
                turned[group, voxel] = counts[voxel, group]


def turn_counts(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Counts of groups as maps, (group, voxel), from (voxel, group + 1) with those of all last."""
    turned = np.empty((counts.shape[1] - 1, counts.shape[0]), np.int32)
    _turn(counts, turned)
    return turned
