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
        for plane in footprint:
            lines, places = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
            if lines.size == 0:
                planes.append((n_packed, 0, 0, 0, 0, 0))
                continue
            trimmed = plane[lines[0] : lines[-1] + 1, places[0] : places[-1] + 1]
            # Stores within whole vectors never cross a cache line. Where they cost no further
            # vector, it is the footprint that is shifted by what is left over.
            n_vectors = -(-trimmed.shape[1] // lanes)
            whole = n_vectors == -(-(trimmed.shape[1] + lanes - 1) // lanes)
            padded = np.zeros((len(trimmed), (n_vectors + 1) * lanes), footprint.dtype)
            padded[:, lanes : lanes + trimmed.shape[1]] = trimmed
            place = lines[0] - half[1], places[0] - half[2]
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
def _list_tasks(plane, foci, ijk, owner, footprint_of, footprints, length, before, stride, tasks):  # type: ignore[no-untyped-def]
    """Write down what is to be laid on a plane.

    For each focus: its analysis, the first lane of the footprint, where that goes in the plane, the
    number of rows and the vectors of a row.
    """
    about = footprints.plane
    lanes = n_lanes(footprints.values)
    for task in range(foci.shape[0]):
        focus = foci[task]
        analysis = owner[focus]
        footprint = footprint_of[analysis]
        row = (
            footprints.first_plane[footprint]
            + plane
            - ijk[focus, 0]
            + footprints.reach[footprint, 0]
        )
        line, place = about[row, 1] + ijk[focus, 1], before + ijk[focus, 2] + about[row, 2]
        skipped = max(0, -line)
        shift = place & about[row, 5]
        tasks[task, 0] = analysis
        tasks[task, 1] = about[row, 0] + skipped * (about[row, 4] + 1) * lanes + lanes - shift
        tasks[task, 2] = (line + skipped) * stride + place - shift
        tasks[task, 3] = min(line + about[row, 3], length) - line - skipped
        tasks[task, 4] = about[row, 4]


@njit(nogil=True, cache=True)
def _margins(ijk, footprints, shape):  # type: ignore[no-untyped-def]
    """Room before and after each row of a plane, so that no row needs a bounds check."""
    far = 0
    for footprint in range(footprints.reach.shape[0]):
        far = max(far, footprints.reach[footprint, 2])
    outside_low, outside_high = 0, 0
    for focus in range(ijk.shape[0]):
        outside_low = max(outside_low, -ijk[focus, 2])
        outside_high = max(outside_high, ijk[focus, 2] - shape[2] + 1)
    before = far + min(outside_low, far)
    after = far + min(outside_high, far)
    lanes = n_lanes(footprints.values)
    # Rows begin at whole vectors, and a footprint that begins within one may end in the next.
    return before, ((before + shape[2] + after + lanes - 1) // lanes + 1) * lanes


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


@njit(nogil=True, cache=True)
def _lay(tasks, first, end, footprints, union, stride, own, total, base):  # type: ignore[no-untyped-def]
    """Add tasks of a plane to `total`; `own` is where one analysis is put together.

    Nothing is cleared between analyses: each counts from a `base` that is as high as anything that
    the ones before can have left in `own`. Gives the base for the next plane.
    """
    values, largest = footprints.values, footprints.largest
    start = first
    while start < end:
        after = start + 1
        if union:
            while after < end and tasks[after, 0] == tasks[start, 0]:
                after += 1
        if after == start + 1:
            to, lane = tasks[start, 2], tasks[start, 1]
            _add_rows(total, to, stride, values, lane, tasks[start, 3], tasks[start, 4])
        else:
            if base > footprints.highest - largest:
                own[:] = 0
                base = 0
            for task in range(start, after):
                to, lane = tasks[task, 2], tasks[task, 1]
                _raise_rows(
                    own, total, base, to, stride, values, lane, tasks[task, 3], tasks[task, 4]
                )
            base += largest
        start = after
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
    before, stride = _margins(ijk, footprints, shape)
    own = np.zeros(shape[1] * stride, footprints.values.dtype)
    total = np.empty(shape[1] * stride, footprints.values.dtype)
    base = 0
    begin, foci = _planes_of(ijk, owner, footprint_of, footprints.reach, shape)
    tasks = np.empty((np.diff(begin).max(), 5), np.int32)
    wide = out.itemsize > total.itemsize
    together = np.zeros(total.shape[0] if wide else 0, np.int64)
    for plane in range(shape[0]):
        if place.first_run[plane] == place.first_run[plane + 1]:
            continue
        here = foci[begin[plane] : begin[plane + 1]]
        _list_tasks(
            plane, here, ijk, owner, footprint_of, footprints, shape[1], before, stride, tasks
        )
        total[:] = 0
        if not wide:
            base = _lay(tasks, 0, here.shape[0], footprints, union, stride, own, total, base)
            _take_plane(plane, total, place, before, stride, out)
            continue
        together[:] = 0
        end = 0
        while end < here.shape[0]:
            first = end
            end = _some_analyses(tasks, first, here.shape[0], footprints, union)
            base = _lay(tasks, first, end, footprints, union, stride, own, total, base)
            for at in range(total.shape[0]):
                together[at] += total[at]
            total[:] = 0
        _take_plane(plane, together, place, before, stride, out)


@njit(nogil=True, cache=True)
def _some_analyses(tasks, first, n_tasks, footprints, union):  # type: ignore[no-untyped-def]
    """The end of as many tasks from `first` on as surely fit the type of the footprints."""
    most = footprints.highest // max(1, footprints.largest)
    if n_tasks - first <= most:
        return n_tasks
    end = first + most
    if not union:
        return end
    while end > first + 1 and tasks[end, 0] == tasks[end - 1, 0]:  # analyses stay whole
        end -= 1
    while end < n_tasks and tasks[end, 0] == tasks[end - 1, 0]:  # one of more foci than that
        end += 1
    return end


@njit(nogil=True, cache=True)
def _take_plane(plane, total, place, before, stride, out):  # type: ignore[no-untyped-def]
    """Copy the voxels of the mask on a plane to where they belong."""
    voxel = place.first_voxel[plane]
    for run in range(place.first_run[plane], place.first_run[plane + 1]):
        start = place.run[run, 0] * stride + before + place.run[run, 1]
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
    before, stride = _margins(ijk, footprints, shape)
    own = np.zeros(shape[1] * stride, footprints.values.dtype)
    total = np.empty(shape[1] * stride, footprints.values.dtype)
    base = 0
    counts = np.zeros((n_analyses, n_values), np.int64)
    n_voxels = place.first_voxel[shape[0]]
    start = 0
    while start < ijk.shape[0]:
        analysis = owner[start]
        end = start
        while end < ijk.shape[0] and owner[end] == analysis:
            end += 1
        points, owners = ijk[start:end], owner[start:end]
        begin, foci = _planes_of(points, owners, footprint_of, footprints.reach, shape)
        for plane in range(shape[0]):
            if begin[plane] == begin[plane + 1]:
                continue
            here = foci[begin[plane] : begin[plane + 1]]
            tasks = np.empty((here.shape[0], 5), np.int32)
            _list_tasks(
                plane,
                here,
                points,
                owners,
                footprint_of,
                footprints,
                shape[1],
                before,
                stride,
                tasks,
            )
            total[:] = 0
            base = _lay(tasks, 0, here.shape[0], footprints, union, stride, own, total, base)
            for run in range(place.first_run[plane], place.first_run[plane + 1]):
                first = place.run[run, 0] * stride + before + place.run[run, 1]
                for at in range(first, first + place.run[run, 2]):
                    counts[analysis, min(total[at], n_values - 1)] += 1
        start = end
    for analysis in range(n_analyses):
        counts[analysis, 0] += n_voxels - counts[analysis].sum()
    return counts
