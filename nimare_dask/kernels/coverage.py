"""Which analyses are active at which voxels, rebuilt from the foci one line of voxels at a time.

An analysis is active at a voxel when one of its foci has the voxel in its footprint (the union of
spheres of MKDA). A line is all voxels that share their first two indices. For each line the kernels
keep, per analysis, one bit for each place along the line; a focus sets a whole run of bits at once,
and the overlap of foci of one analysis is removed by OR. What is read back are the runs: where an
analysis becomes active and where it ceases to be. A count along the line is the running sum of
those events, so its cost is that of the runs (24 million for all of Neurosynth), not that of the
active voxels (164 million) nor that of analysis x voxel (3.3 billion).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.bits import count_ones, count_trailing_zeros

_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)

#: Lines whose runs are listed in one go, which bounds the memory for runs that are not yet merged.
_LINES_AT_ONCE = 256


class FocusIndex(NamedTuple):
    """Foci sorted by the line of voxels that they lie on, with the footprint that each of them has.

    The table of lines has a margin as wide as the footprint, so foci outside the volume whose
    footprint reaches into it are kept.
    """

    start: NDArray[np.int64]  # (line of the table + 1): where the foci of each line begin
    analysis: NDArray[np.int32]  # (focus)
    k: NDArray[np.int32]  # (focus): voxel index along the line, plus `offset`
    below: NDArray[np.uint64]  # (place + offset, word): bits set for the voxels before that place
    footprint: NDArray[np.int32]  # (column, 3): see footprints.sphere_columns
    margin: int  # lines around the volume, on each side
    n_lines_j: int  # length of the second axis of the table
    length: int  # voxels along a line of the volume
    n_analyses: int


class VoxelLines(NamedTuple):
    """Some voxels, in C order of the volume, grouped by line."""

    ij: NDArray[np.int32]  # (line, 2)
    start: NDArray[np.int64]  # (line + 1): where the voxels of each line begin
    k: NDArray[np.int32]  # (voxel)


class Runs(NamedTuple):
    """Where along each line each analysis is active, line by line."""

    start: NDArray[np.int64]  # (line + 1): where the runs of each line begin
    analysis: NDArray[np.integer]  # (run)
    begin: NDArray[np.int16]  # (run): first voxel
    end: NDArray[np.int16]  # (run): the voxel after the last


def index_foci(
    ijk: NDArray[np.integer],
    focus_analysis: NDArray[np.int32],
    footprint: NDArray[np.int32],
    shape: tuple[int, int, int],
    n_analyses: int,
) -> FocusIndex:
    """Sort foci by line.

    Parameters
    ----------
    ijk
        Voxel indices of the foci, (focus, 3); may lie outside the volume.
    focus_analysis
        Position of the analysis of each focus, (focus,).
    footprint
        Columns of the footprint, (column, 3).
    shape
        Shape of the volume.
    n_analyses
        Number of analyses.
    """
    margin = int(np.abs(footprint[:, :2]).max())
    height = int(footprint[:, 2].max())
    lines_i, lines_j = shape[0] + 2 * margin, shape[1] + 2 * margin
    i, j, k = (ijk[:, axis].astype(np.int64) for axis in range(3))
    i, j = i + margin, j + margin
    near = (i >= 0) & (i < lines_i) & (j >= 0) & (j < lines_j)
    near &= (k >= -height) & (k < shape[2] + height)
    line = (i * lines_j + j)[near]
    # The table of lines of a 2 mm brain fits 16 bits, for which a stable sort is a radix sort.
    small = line.astype(np.min_scalar_type(lines_i * lines_j))
    order = np.argsort(small, kind="stable")
    start = np.zeros(lines_i * lines_j + 1, np.int64)
    np.cumsum(np.bincount(line, minlength=lines_i * lines_j), out=start[1:])
    # Runs begin and end at most two heights outside the volume, where the table is all or nothing.
    offset = 2 * height
    place = np.arange(-offset, shape[2] + offset + 1)
    return FocusIndex(
        start=start,
        analysis=focus_analysis[near][order].astype(np.int32),
        k=(k[near][order] + offset).astype(np.int32),
        below=_bits_below(np.clip(place, 0, shape[2]), shape[2] // 64 + 1),
        footprint=np.ascontiguousarray(footprint, np.int32),
        margin=margin,
        n_lines_j=lines_j,
        length=int(shape[2]),
        n_analyses=int(n_analyses),
    )


def _bits_below(place: NDArray[np.integer], n_words: int) -> NDArray[np.uint64]:
    """For each place along a line, one bit for each voxel before it: (place, word)."""
    set_bits = np.clip(place[:, None] - 64 * np.arange(n_words), 0, 64).astype(np.uint64)
    # Shifting by 64 is not defined, so a full word is set apart.
    partial = (_ONE << (set_bits % np.uint64(64))) - _ONE
    return np.where(set_bits == 64, _FULL, partial)


def group_lines(voxel_ijk: NDArray[np.integer]) -> VoxelLines:
    """Group voxels (voxel, 3), given in C order, by line."""
    ij = voxel_ijk[:, :2].astype(np.int32)
    first = np.ones(len(ij), bool)
    first[1:] = (ij[1:] != ij[:-1]).any(axis=1)
    start = np.append(np.flatnonzero(first), len(ij)).astype(np.int64)
    return VoxelLines(ij=ij[first], start=start, k=voxel_ijk[:, 2].astype(np.int32))


@njit(nogil=True, cache=True)
def _fill_line(i, j, index, bits, touched):  # type: ignore[no-untyped-def]
    """Set the bits of line (i, j); list the analyses that have any and return their number."""
    # The innermost loop, once for each focus and line that it reaches (41 million times for all of
    # Neurosynth): no branch in it, and the run of bits is the difference of two table rows.
    start, analyses, ks, below = index.start, index.analysis, index.k, index.below
    words = bits.shape[1]
    found = 0
    for column in range(index.footprint.shape[0]):
        half = index.footprint[column, 2]
        line = (i - index.footprint[column, 0] + index.margin) * index.n_lines_j
        line += j - index.footprint[column, 1] + index.margin
        for focus in range(start[line], start[line + 1]):
            analysis = analyses[focus]
            low = ks[focus] - half
            high = ks[focus] + half + 1
            before = np.uint64(0)
            after = np.uint64(0)
            for word in range(words):
                active = bits[analysis, word]
                before |= active
                active |= below[high, word] ^ below[low, word]
                after |= active
                bits[analysis, word] = active
            touched[found] = (
                analysis  # written always, so `touched` has one place more than analyses
            )
            found += (before == 0) & (after != 0)
    return found


@njit(nogil=True, cache=True)
def _running_sum(change, lines, line, counts):  # type: ignore[no-untyped-def]
    """Turn the changes along one line into counts at its voxels; leave `change` all 0."""
    n_groups = counts.shape[1]
    k = 0
    for voxel in range(lines.start[line], lines.start[line + 1]):
        if voxel == lines.start[line]:
            for g in range(n_groups):
                counts[voxel, g] = 0
        else:
            for g in range(n_groups):
                counts[voxel, g] = counts[voxel - 1, g]
        while k <= lines.k[voxel]:
            for g in range(n_groups):
                counts[voxel, g] += change[k, g]
                change[k, g] = 0
            k += 1
    change[k:] = 0


@njit(nogil=True, cache=True)
def _count(index, lines, group_start, group, counts):  # type: ignore[no-untyped-def]
    bits = np.zeros((index.n_analyses, index.length // 64 + 1), np.uint64)
    touched = np.empty(index.n_analyses + 1, np.int32)
    change = np.zeros((index.length + 1, counts.shape[1]), np.int32)
    for line in range(lines.ij.shape[0]):
        found = _fill_line(lines.ij[line, 0], lines.ij[line, 1], index, bits, touched)
        for t in range(found):
            analysis = touched[t]
            begin = group_start[analysis]
            end = group_start[analysis + 1]
            sign = 1
            carry = np.uint64(0)
            for word in range(bits.shape[1]):
                active = bits[analysis, word]
                bits[analysis, word] = 0
                if begin == end:
                    continue
                # A bit of `edges` is set where a run begins and just after it ends.
                edges = active ^ ((active << _ONE) | carry)
                carry = active >> np.uint64(63)
                while edges != 0:
                    k = 64 * word + count_trailing_zeros(edges)
                    edges &= edges - _ONE
                    for g in range(begin, end):
                        change[k, group[g]] += sign
                    sign = -sign
        _running_sum(change, lines, line, counts)


@njit(nogil=True, cache=True)
def _list_runs(index, lines, first, last, analysis, begin, end, n_runs):  # type: ignore[no-untyped-def]
    """List the runs of lines `first` to `last`; return how many there are."""
    bits = np.zeros((index.n_analyses, index.length // 64 + 1), np.uint64)
    touched = np.empty(index.n_analyses + 1, np.int32)
    at = 0
    for line in range(first, last):
        before = at
        found = _fill_line(lines.ij[line, 0], lines.ij[line, 1], index, bits, touched)
        for t in range(found):
            carry = np.uint64(0)
            opened = False
            for word in range(bits.shape[1]):
                active = bits[touched[t], word]
                bits[touched[t], word] = 0
                edges = active ^ ((active << _ONE) | carry)
                carry = active >> np.uint64(63)
                while edges != 0:
                    k = 64 * word + count_trailing_zeros(edges)
                    edges &= edges - _ONE
                    if opened:
                        end[at] = k
                        at += 1
                    else:
                        analysis[at] = touched[t]
                        begin[at] = k
                    opened = not opened
        n_runs[line] = at - before
    return at


@njit(nogil=True, cache=True)
def _count_runs(runs, lines, length, group_start, group, counts):  # type: ignore[no-untyped-def]
    change = np.zeros((length + 1, counts.shape[1]), np.int32)
    for line in range(lines.ij.shape[0]):
        for run in range(runs.start[line], runs.start[line + 1]):
            analysis = runs.analysis[run]
            for g in range(group_start[analysis], group_start[analysis + 1]):
                change[runs.begin[run], group[g]] += 1
                change[runs.end[run], group[g]] -= 1
        _running_sum(change, lines, line, counts)


@njit(nogil=True, cache=True)
def _extent(index, lines):  # type: ignore[no-untyped-def]
    extent = np.zeros(index.n_analyses, np.int64)
    words = index.length // 64 + 1
    bits = np.zeros((index.n_analyses, words), np.uint64)
    touched = np.empty(index.n_analyses + 1, np.int32)
    wanted = np.empty(words, np.uint64)
    for line in range(lines.ij.shape[0]):
        found = _fill_line(lines.ij[line, 0], lines.ij[line, 1], index, bits, touched)
        wanted[:] = 0
        for voxel in range(lines.start[line], lines.start[line + 1]):
            k = lines.k[voxel]
            wanted[k >> 6] |= _ONE << np.uint64(k & 63)
        for t in range(found):
            analysis = touched[t]
            for word in range(words):
                extent[analysis] += count_ones(bits[analysis, word] & wanted[word])
                bits[analysis, word] = 0
    return extent


@njit(nogil=True, cache=True)
def _dense(index, lines, active):  # type: ignore[no-untyped-def]
    bits = np.zeros((index.n_analyses, index.length // 64 + 1), np.uint64)
    touched = np.empty(index.n_analyses + 1, np.int32)
    for line in range(lines.ij.shape[0]):
        found = _fill_line(lines.ij[line, 0], lines.ij[line, 1], index, bits, touched)
        for t in range(found):
            analysis = touched[t]
            for voxel in range(lines.start[line], lines.start[line + 1]):
                k = lines.k[voxel]
                active[analysis, voxel] = (bits[analysis, k >> 6] >> np.uint64(k & 63)) & _ONE
            bits[analysis] = 0


def count_active(
    index: FocusIndex,
    lines: VoxelLines,
    group_start: NDArray[np.int64],
    group: NDArray[np.int32],
    n_groups: int,
) -> NDArray[np.int32]:
    """Count, at each voxel, the active analyses of each group.

    Parameters
    ----------
    index, lines
        The foci and the voxels.
    group_start, group
        Groups of each analysis as a ragged array: those of analysis ``a`` are
        ``group[group_start[a]:group_start[a + 1]]``. An analysis may be in any number of groups.
    n_groups
        Number of groups.

    Returns
    -------
    counts
        Shape (voxel, group).
    """
    # Big arrays are made by numpy, which asks for huge pages; numba's own do not.
    counts = np.empty((len(lines.k), n_groups), np.int32)
    _count(index, lines, group_start, group, counts)
    return counts


def list_runs(index: FocusIndex, lines: VoxelLines) -> Runs:
    """List where along each line each analysis is active, for counting many times.

    All of Neurosynth at 2 mm has 24 million runs in 145 MB; counting from them saves rebuilding
    them, which is two thirds of a count of few groups.
    """
    n_lines = len(lines.ij)
    n_runs = np.zeros(n_lines, np.int64)
    kind = np.uint16 if index.n_analyses <= 1 << 16 else np.int32
    # A focus opens at most one run on each line that it reaches: the room that a step needs.
    place = np.arange(0, n_lines + _LINES_AT_ONCE, _LINES_AT_ONCE).clip(max=n_lines)
    parts = []
    for first, last in pairwise(place.tolist()):
        room = _foci_in_reach(index, lines.ij[first:last])
        part = (np.empty(room, kind), np.empty(room, np.int16), np.empty(room, np.int16))
        used = _list_runs(index, lines, first, last, *part, n_runs)
        parts.append([array[:used].copy() for array in part])
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return Runs(np.append(0, np.cumsum(n_runs)), *joined)


def _foci_in_reach(index: FocusIndex, ij: NDArray[np.int32]) -> int:
    per_line = np.diff(index.start)
    lines = (ij[:, :1] - index.footprint[:, 0] + index.margin) * index.n_lines_j
    return int(per_line[lines + ij[:, 1:] - index.footprint[:, 1] + index.margin].sum())


def count_from_runs(
    runs: Runs,
    lines: VoxelLines,
    length: int,
    group_start: NDArray[np.int64],
    group: NDArray[np.int32],
    n_groups: int,
) -> NDArray[np.int32]:
    """The same as :func:`count_active`, from runs of the same lines, `length` voxels each."""
    counts = np.empty((len(lines.k), n_groups), np.int32)
    _count_runs(runs, lines, length, group_start, group, counts)
    return counts


def count_voxels(index: FocusIndex, lines: VoxelLines) -> NDArray[np.int64]:
    """Count, for each analysis, the voxels of `lines` at which it is active: (analysis,)."""
    extent: NDArray[np.int64] = _extent(index, lines)
    return extent


def dense_activation(index: FocusIndex, lines: VoxelLines) -> NDArray[np.uint8]:
    """1 where an analysis is active and 0 elsewhere: (analysis, voxel)."""
    active = np.zeros((index.n_analyses, len(lines.k)), np.uint8)
    _dense(index, lines, active)
    return active
