"""Where each analysis is active, as runs of voxels, to count any group of analyses quickly.

Voxels are numbered in C order of the mask, so what an analysis activates on one line of voxels is
one or a few ranges of numbers. A count of active analyses is a running sum over all voxels of the
places where ranges begin and end: a group costs two additions for each run of its analyses (1,700
runs an analysis in Neurosynth), whatever the database.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.coverage import FocusIndex, Runs, VoxelLines, list_runs

#: Bits of a run that hold its length; the others hold its first voxel.
LENGTH_BITS = 8
LONGEST_RUN = (1 << LENGTH_BITS) - 1
MOST_VOXELS = 1 << (32 - LENGTH_BITS)


class Rows(NamedTuple):
    """Runs of voxels of each analysis, one analysis after the other."""

    start: NDArray[np.int64]  # (analysis + 1): where the runs of each analysis begin
    run: NDArray[np.uint32]  # (run): first voxel, and in the lowest 8 bits the number of voxels


@njit(nogil=True, cache=True)
def _fill_rows(runs, lines, length, place, packed):  # type: ignore[no-untyped-def]
    """Write the runs of all lines to the places of their analyses; `place` moves along."""
    voxel_at = np.empty(length + 1, np.int64)
    for line in range(lines.ij.shape[0]):
        voxel, last = lines.start[line], lines.start[line + 1]
        for k in range(length + 1):
            while voxel < last and lines.k[voxel] < k:
                voxel += 1
            voxel_at[k] = voxel
        for run in range(runs.start[line], runs.start[line + 1]):
            first, end = voxel_at[runs.begin[run]], voxel_at[runs.end[run]]
            analysis = runs.analysis[run]
            while first < end:
                n = min(end - first, LONGEST_RUN)
                packed[place[analysis]] = (first << LENGTH_BITS) | n
                place[analysis] += 1
                first += n


@njit(nogil=True, cache=True)
def _close_gaps(start, end, packed):  # type: ignore[no-untyped-def]
    """Move the runs of each analysis together; return where each begins."""
    closed = np.zeros(start.shape[0], np.int64)
    to = 0
    for analysis in range(end.shape[0]):
        closed[analysis] = to
        for run in range(start[analysis], end[analysis]):
            packed[to] = packed[run]
            to += 1
    closed[end.shape[0]] = to
    return closed


def list_rows(index: FocusIndex, lines: VoxelLines) -> Rows:
    """List the runs of each analysis.

    Parameters
    ----------
    index, lines
        The foci, and all voxels of a mask (see :mod:`nimare_dask.kernels.coverage`); at most
        `MOST_VOXELS` of them.

    Returns
    -------
    rows
        All of Neurosynth at 2 mm: 23 million runs, 94 MB.

    Raises
    ------
    ValueError
        When there are more voxels than numbers for them.
    """
    if len(lines.k) > MOST_VOXELS:
        raise ValueError(f"{len(lines.k):,} voxels; at most {MOST_VOXELS:,} can be numbered.")
    return _rows_of(list_runs(index, lines), lines, index.length, index.n_analyses)


def _rows_of(runs: Runs, lines: VoxelLines, length: int, n_analyses: int) -> Rows:
    start = np.zeros(n_analyses + 1, np.int64)
    # A run that is too long for its bits becomes several.
    parts = 1 + (runs.end - runs.begin - 1) // LONGEST_RUN if length > LONGEST_RUN else None
    np.cumsum(np.bincount(runs.analysis, parts, minlength=n_analyses), out=start[1:])
    packed = np.empty(start[-1], np.uint32)
    end = start[:-1].copy()
    _fill_rows(runs, lines, length, end, packed)
    closed = _close_gaps(start, end, packed)  # runs that lie in holes of the mask left gaps
    return Rows(closed, packed[: closed[-1]])


@njit(nogil=True, cache=True)
def add_rows(rows, chosen, change):  # type: ignore[no-untyped-def]
    """Add to `change` (voxel + 1,) where runs of the `chosen` analyses begin and end.

    The running sum of `change` is the number of them that are active at each voxel.
    """
    start, runs = rows.start, rows.run
    for at in range(chosen.shape[0]):
        for run in runs[start[chosen[at]] : start[chosen[at] + 1]]:
            first = run >> LENGTH_BITS
            change[first] += 1
            change[first + (run & LONGEST_RUN)] -= 1


@njit(nogil=True, cache=True)
def running_sum(change, counts):  # type: ignore[no-untyped-def]
    """Write the running sum of `change` to `counts` (voxel,); return the sum of all counts."""
    total = np.int64(0)
    count = np.int64(0)
    for voxel in range(counts.shape[0]):
        count += change[voxel]
        counts[voxel] = count
        total += count
    return total
