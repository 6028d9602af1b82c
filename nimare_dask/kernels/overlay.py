"""Footprints laid over the brain: the largest within an analysis, the sum over analyses.

ALE, MKDA and KDA are the same operation with other footprints. Every focus lays a footprint of
whole numbers around itself. Where foci of one analysis overlap, the largest counts (the union of
MKDA, the maximum of ALE) or all do (KDA); analyses add up. Whole numbers make the sum exact and
the same in any order; what they stand for (counts, or -ln(1 - p) in units of 1/scale) is the
caller's.

The work goes plane by plane, so that the plane being summed, the plane of the current analysis and
the footprints stay in the nearest caches while all analyses pass over them. Planes of a footprint
are trimmed to what is not zero, and their rows padded to whole vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nimare_dask.kernels.lanes import VECTOR_BYTES, add_lanes, n_lanes, raise_lanes


class Footprints(NamedTuple):
    """Some footprints as planes of rows, the rows of a plane equally long."""

    #: (lane), int16 or int32: row after row, each padded with zeros to whole vectors
    values: NDArray[np.signedinteger]
    plane: NDArray[np.int64]  # (plane, 6): first lane, place of the first row and of its first
    # lane beside the focus, rows, vectors of a row, and the bits of a place that are shifted away
    first_plane: NDArray[np.int64]  # (footprint)
    reach: NDArray[np.int64]  # (footprint, axis): voxels from the focus to the edge
    largest: int  # the largest value of all
    highest: int  # that the type of the values can hold


class Place(NamedTuple):
    """The voxels of a mask, in C order, as runs along the last axis."""

    shape: NDArray[np.int64]  # (axis)
    first_run: NDArray[np.int64]  # (plane + 1)
    run: NDArray[np.int32]  # (run, 3): index on the second axis, first on the last axis, length
    first_voxel: NDArray[np.int64]  # (plane + 1)


def pack_footprints(dense: Sequence[NDArray[np.signedinteger]]) -> Footprints:
    """Turn dense footprints into rows.

    Parameters
    ----------
    dense
        Footprints of values that are not negative, each with an odd number of voxels along each
        axis and the focus in the middle.
    """
    values: list[NDArray[np.signedinteger]] = []
    planes: list[tuple[int, ...]] = []
    first_plane, reach = [], []
    n_packed = 0
    lanes = VECTOR_BYTES // dense[0].itemsize
    for footprint in dense:
        half = np.array(footprint.shape) // 2
        first_plane.append(len(planes))
        reach.append(half)
        # A loop that runs as often each time is guessed right, which is worth some rows of zeros.
        high = [np.flatnonzero(plane.any(axis=1)) for plane in footprint if plane.any()]
        usual = np.median([[lines[0], lines[-1]] for lines in high] or [[0, 0]], axis=0).astype(int)
        for plane in footprint:
            lines, places = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
            if lines.size == 0:
                planes.append((n_packed, 0, 0, 0, 0, 0))
                continue
            first, last = min(lines[0], usual[0]), max(lines[-1], usual[1])
            trimmed = plane[first : last + 1, places[0] : places[-1] + 1]
            # Stores within whole vectors never cross a cache line. Where they cost no further
            # vector, it is the footprint that is shifted by what is left over.
            n_vectors = -(-trimmed.shape[1] // lanes)
            whole = n_vectors == -(-(trimmed.shape[1] + lanes - 1) // lanes)
            padded = np.zeros((len(trimmed), (n_vectors + 1) * lanes), footprint.dtype)
            padded[:, lanes : lanes + trimmed.shape[1]] = trimmed
            place = first - half[1], places[0] - half[2]
            planes.append((n_packed, *place, len(trimmed), n_vectors, lanes - 1 if whole else 0))
            values.append(padded.ravel())
            n_packed += padded.size
    return Footprints(
        values=np.concatenate([*values, np.zeros(0, dense[0].dtype)]),
        plane=np.array(planes, np.int64).reshape(-1, 6),
        first_plane=np.array(first_plane, np.int64),
        reach=np.array(reach, np.int64).reshape(-1, 3),
        largest=max(int(footprint.max()) for footprint in dense),
        highest=int(np.iinfo(dense[0].dtype).max),
    )


def place_of(mask: NDArray[np.bool_]) -> Place:
    """Find the runs of a mask."""
    edges = np.diff(np.pad(mask, ((0, 0), (0, 0), (1, 1))).astype(np.int8), axis=2)
    i, j, begin = np.nonzero(edges == 1)
    end = np.nonzero(edges == -1)[2]
    planes = np.arange(mask.shape[0] + 1)
    return Place(
        shape=np.array(mask.shape, np.int64),
        first_run=np.searchsorted(i, planes).astype(np.int64),
        run=np.column_stack([j, begin, end - begin]).astype(np.int32),
        first_voxel=np.append(0, np.cumsum(mask.sum(axis=(1, 2)))).astype(np.int64),
    )


@njit(nogil=True, cache=True)
def _planes_of(ijk, owner, footprint_of, reach, shape):  # type: ignore[no-untyped-def]
    """List, for each plane, the foci that reach it, in the order in which they are given."""
    n_planes = shape[0]
    low, high = np.empty(ijk.shape[0], np.int32), np.empty(ijk.shape[0], np.int32)
    begin = np.zeros(n_planes + 2, np.int64)
    for focus in range(ijk.shape[0]):
        footprint = footprint_of[owner[focus]]
        far_i, far_j, far_k = reach[footprint, 0], reach[footprint, 1], reach[footprint, 2]
        i, j, k = ijk[focus, 0], ijk[focus, 1], ijk[focus, 2]
        near = (j + far_j >= 0) & (j - far_j < shape[1]) & (k + far_k >= 0) & (k - far_k < shape[2])
        low[focus] = max(0, i - far_i)
        high[focus] = max(low[focus], min(n_planes, i + far_i + 1)) if near else low[focus]
        if low[focus] < high[focus]:
            begin[low[focus] + 1] += 1
            begin[high[focus] + 1] -= 1
    for plane in range(n_planes + 1):  # begins and ends to foci of a plane
        begin[plane + 1] += begin[plane]
    for plane in range(n_planes + 1):  # foci of a plane to where they begin
        begin[plane + 1] += begin[plane]
    filled = begin[:-1].copy()
    foci = np.empty(begin[n_planes], np.int32)
    for focus in range(ijk.shape[0]):
        for plane in range(low[focus], high[focus]):
            at = filled[plane]
            foci[at] = focus
            filled[plane] = at + 1
    return begin, foci


@njit(nogil=True, cache=True)
def _room(ijk, footprints, shape):  # type: ignore[no-untyped-def]
    """Room around a plane, so that no row of a footprint needs a bounds check.

    Gives the lines before the first, the lines of all, the lanes before the first voxel of a line,
    and the lanes of a line.
    """
    far = np.zeros(3, np.int64)
    for footprint in range(footprints.reach.shape[0]):
        for axis in range(3):
            far[axis] = max(far[axis], footprints.reach[footprint, axis])
    low, high = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for focus in range(ijk.shape[0]):
        for axis in range(1, 3):
            low[axis] = max(low[axis], -ijk[focus, axis])
            high[axis] = max(high[axis], ijk[focus, axis] - shape[axis] + 1)
    # Foci that are further outside than they reach are on no plane.
    before, after = far + np.minimum(low, far), far + np.minimum(high, far)
    lanes = n_lanes(footprints.values)
    # Lines begin at whole vectors, and a footprint that begins within one may end in the next.
    stride = ((before[2] + shape[2] + after[2] + lanes - 1) // lanes + 1) * lanes
    return before[1], before[1] + shape[1] + after[1], before[2], stride


@njit(nogil=True, cache=True)
def _spots(ijk, owner, footprint_of, footprints, skipped, before, stride):  # type: ignore[no-untyped-def]
    """Where foci are: analysis, what leads from a plane to that of the footprint, lane; (focus, 3).

    And where a row of :attr:`Footprints.plane` begins beside its focus, in lanes, (plane,).
    """
    spots = np.empty((ijk.shape[0], 3), np.int32)
    for focus in range(ijk.shape[0]):
        footprint = footprint_of[owner[focus]]
        spots[focus, 0] = owner[focus]
        spots[focus, 1] = (
            footprints.first_plane[footprint] + footprints.reach[footprint, 0] - ijk[focus, 0]
        )
        spots[focus, 2] = (ijk[focus, 1] + skipped) * stride + ijk[focus, 2] + before
    plane = footprints.plane
    beside = np.empty(plane.shape[0], np.int64)
    for row in range(plane.shape[0]):
        beside[row] = plane[row, 1] * stride + plane[row, 2]
    return spots, beside


@njit(nogil=True, cache=True, inline="always")
def _add_rows(total, to, stride, source, lane, n_rows, n_vectors):  # type: ignore[no-untyped-def]
    lanes = n_lanes(total)
    # The lengths that occur most are written out, so that a row is a few instructions.
    if n_vectors == 1:
        for _ in range(n_rows):
            add_lanes(total, to, source, lane)
            to, lane = to + stride, lane + 2 * lanes
    elif n_vectors == 2:
        for _ in range(n_rows):
            add_lanes(total, to, source, lane)
            add_lanes(total, to + lanes, source, lane + lanes)
            to, lane = to + stride, lane + 3 * lanes
    elif n_vectors == 3:
        for _ in range(n_rows):
            add_lanes(total, to, source, lane)
            add_lanes(total, to + lanes, source, lane + lanes)
            add_lanes(total, to + 2 * lanes, source, lane + 2 * lanes)
            to, lane = to + stride, lane + 4 * lanes
    else:
        for _ in range(n_rows):
            for vector in range(n_vectors):
                add_lanes(total, to + vector * lanes, source, lane + vector * lanes)
            to, lane = to + stride, lane + (n_vectors + 1) * lanes


@njit(nogil=True, cache=True, inline="always")
def _raise_rows(own, total, base, to, stride, source, lane, n_rows, n_vectors):  # type: ignore[no-untyped-def]
    lanes = n_lanes(total)
    if n_vectors == 1:
        for _ in range(n_rows):
            raise_lanes(own, total, base, to, source, lane)
            to, lane = to + stride, lane + 2 * lanes
    elif n_vectors == 2:
        for _ in range(n_rows):
            raise_lanes(own, total, base, to, source, lane)
            raise_lanes(own, total, base, to + lanes, source, lane + lanes)
            to, lane = to + stride, lane + 3 * lanes
    elif n_vectors == 3:
        for _ in range(n_rows):
            raise_lanes(own, total, base, to, source, lane)
            raise_lanes(own, total, base, to + lanes, source, lane + lanes)
            raise_lanes(own, total, base, to + 2 * lanes, source, lane + 2 * lanes)
            to, lane = to + stride, lane + 4 * lanes
    else:
        for _ in range(n_rows):
            for vector in range(n_vectors):
                raise_lanes(own, total, base, to + vector * lanes, source, lane + vector * lanes)
            to, lane = to + stride, lane + (n_vectors + 1) * lanes


@njit(nogil=True, cache=True, inline="always")
def _source(spot, plane, beside, about, lanes):  # type: ignore[no-untyped-def]
    """Where a footprint goes on a plane, its first lane, the number of rows and their vectors."""
    row = spot[1] + plane
    to = spot[2] + beside[row]
    shift = to & about[row, 5]  # lines begin at whole vectors
    return to - shift, about[row, 0] + lanes - shift, about[row, 3], about[row, 4]


@njit(nogil=True, cache=True)
def _lay(plane, foci, spots, beside, footprints, union, stride, own, total, base):  # type: ignore[no-untyped-def]
    """Add foci of a plane to `total`; `own` is where one analysis is put together.

    Nothing is cleared between analyses: each counts from a `base` that is as high as anything that
    the ones before can have left in `own`. Gives the base for the next plane.
    """
    values, about, lanes = footprints.values, footprints.plane, n_lanes(total)
    if not union:
        for focus in foci:
            to, lane, n_rows, n = _source(spots[focus], plane, beside, about, lanes)
            _add_rows(total, to, stride, values, lane, n_rows, n)
        return base
    before = np.int32(-1)
    for focus in foci:
        # Which foci are of one analysis is as good as random: numbers, and no branch on them.
        base += footprints.largest * (spots[focus, 0] != before)
        before = spots[focus, 0]
        if base > footprints.highest - footprints.largest:
            own[:] = 0
            base = 0
        to, lane, n_rows, n = _source(spots[focus], plane, beside, about, lanes)
        _raise_rows(own, total, base, to, stride, values, lane, n_rows, n)
    return base


@njit(nogil=True, cache=True)
def sum_footprints(ijk, owner, footprint_of, footprints, union, place, out):  # type: ignore[no-untyped-def]
    """Sum footprints over all analyses at the voxels of a mask.

    Parameters
    ----------
    ijk
        Voxel indices of the foci, int32 (focus, axis), one analysis after the other; foci outside
        the volume reach in as far as their footprint does.
    owner
        Analysis of each focus, int32 (focus,).
    footprint_of
        Footprint of each analysis, int32 (analysis,).
    footprints, place
        See :class:`Footprints` and :class:`Place`.
    union
        Whether the largest counts where foci of one analysis overlap; else all do.
    out
        Where to write the sums, (voxel,): of the type of the footprints, which must hold them; or
        int64 for footprints of int32, and then any sum is held.
    """
    shape = place.shape
    skipped, n_lines, before, stride = _room(ijk, footprints, shape)
    spots, beside = _spots(ijk, owner, footprint_of, footprints, skipped, before, stride)
    own = np.zeros(n_lines * stride, footprints.values.dtype)
    total = np.empty(n_lines * stride, footprints.values.dtype)
    inside = skipped * stride + before
    base = 0
    begin, foci = _planes_of(ijk, owner, footprint_of, footprints.reach, shape)
    wide = out.itemsize > total.itemsize
    together = np.zeros(total.shape[0] if wide else 0, np.int64)
    for plane in range(shape[0]):
        if place.first_run[plane] == place.first_run[plane + 1]:
            continue
        here = foci[begin[plane] : begin[plane + 1]]
        total[:] = 0
        if not wide:
            base = _lay(plane, here, spots, beside, footprints, union, stride, own, total, base)
            _take_plane(plane, total, place, inside, stride, out)
            continue
        together[:] = 0
        end = 0
        while end < here.shape[0]:
            first = end
            end = _some_analyses(spots, here, first, footprints, union)
            some = here[first:end]
            base = _lay(plane, some, spots, beside, footprints, union, stride, own, total, base)
            for at in range(total.shape[0]):
                together[at] += total[at]
            total[:] = 0
        _take_plane(plane, together, place, inside, stride, out)


@njit(nogil=True, cache=True)
def _some_analyses(spots, foci, first, footprints, union):  # type: ignore[no-untyped-def]
    """The end of as many foci from `first` on as surely fit the type of the footprints."""
    most, n_foci = footprints.highest // max(1, footprints.largest), foci.shape[0]
    if n_foci - first <= most:
        return n_foci
    end = first + most
    if not union:
        return end
    while end > first + 1 and spots[foci[end], 0] == spots[foci[end - 1], 0]:  # whole analyses
        end -= 1
    while end < n_foci and spots[foci[end], 0] == spots[foci[end - 1], 0]:  # one of more foci
        end += 1
    return end


@njit(nogil=True, cache=True)
def _take_plane(plane, total, place, inside, stride, out):  # type: ignore[no-untyped-def]
    """Copy the voxels of the mask on a plane to where they belong."""
    voxel = place.first_voxel[plane]
    for run in range(place.first_run[plane], place.first_run[plane + 1]):
        start = inside + place.run[run, 0] * stride + place.run[run, 1]
        for step in range(place.run[run, 2]):
            out[voxel + step] = total[start + step]
        voxel += place.run[run, 2]


@njit(nogil=True, cache=True)
def count_values(ijk, owner, footprint_of, footprints, union, place, n_analyses, n_values):  # type: ignore[no-untyped-def]
    """Count, for each analysis, the voxels of the mask that have each value.

    Parameters are those of :func:`sum_footprints`; footprints hold values below `n_values`, and a
    sum above that is counted with the last.

    Returns
    -------
    counts
        int64, (analysis, value).
    """
    shape = place.shape
    skipped, n_lines, before, stride = _room(ijk, footprints, shape)
    spots, beside = _spots(ijk, owner, footprint_of, footprints, skipped, before, stride)
    own = np.zeros(n_lines * stride, footprints.values.dtype)
    total = np.empty(n_lines * stride, footprints.values.dtype)
    inside = skipped * stride + before
    base = 0
    counts = np.zeros((n_analyses, n_values), np.int64)
    n_voxels = place.first_voxel[shape[0]]
    start = 0
    while start < ijk.shape[0]:
        analysis = owner[start]
        end = start
        while end < ijk.shape[0] and owner[end] == analysis:
            end += 1
        begin, foci = _planes_of(
            ijk[start:end], owner[start:end], footprint_of, footprints.reach, shape
        )
        for plane in range(shape[0]):
            if begin[plane] == begin[plane + 1]:
                continue
            here = foci[begin[plane] : begin[plane + 1]] + start
            total[:] = 0
            base = _lay(plane, here, spots, beside, footprints, union, stride, own, total, base)
            for run in range(place.first_run[plane], place.first_run[plane + 1]):
                first = inside + place.run[run, 0] * stride + place.run[run, 1]
                for at in range(first, first + place.run[run, 2]):
                    counts[analysis, min(total[at], n_values - 1)] += 1
        start = end
    for analysis in range(n_analyses):
        counts[analysis, 0] += n_voxels - counts[analysis].sum()
    return counts
