"""The shapes of parallel work, on public Dask API only.

Here: ``map_voxels`` (independent blocks of voxels, all analyses in each). Big inputs that every
task needs go in through :func:`share`, so that a graph holds them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import delayed
from numpy.typing import DTypeLike, NDArray

from nimare_dask.errors import SettingsError

#: Voxels of a block. A block of 4,096 voxels x 3,000 features of int32 is 49 MB, and 56 blocks
#: cover the brain at 2 mm, enough for some tens of workers.
VOXEL_CHUNK = 4096

#: Bytes that one task may hold. Two threads with four such arrays each stay under 2 GB.
TASK_BYTES = 200_000_000

#: Largest lazy array that is turned from blocks of voxels into blocks of maps.
TURN_BYTES = 1_000_000_000


def share(value: Any) -> Any:
    """Make one graph node of a big input that many tasks need."""
    return delayed(value, pure=True, traverse=False)


def call_once(function: Callable[..., Any], *args: Any) -> Any:
    """Make one graph node of ``function(*args)`` whose value many tasks need."""
    return delayed(function, pure=True, traverse=False)(*args)


def voxel_chunk(n_voxels: int, bytes_per_voxel: int) -> int:
    """Voxels of a block so that a task holds at most about `TASK_BYTES`, and at least 64."""
    return int(min(n_voxels, max(64, min(VOXEL_CHUNK, TASK_BYTES // max(1, bytes_per_voxel)))))


def map_voxels(
    function: Callable[..., NDArray[Any]],
    voxel_ijk: NDArray[np.integer],
    *,
    n_columns: int,
    dtype: DTypeLike,
    chunk: int,
    **shared: Any,
) -> da.Array:
    """Apply ``function(voxel_ijk_block, **shared) -> (voxel, column)`` to blocks of voxels.

    Parameters
    ----------
    function
        Pure; called once for each block.
    voxel_ijk
        Voxel indices, (voxel, axis).
    n_columns
        Columns of the result.
    dtype
        Type of the result.
    chunk
        Voxels of a block.
    **shared
        Inputs that every task needs, made with :func:`share` or :func:`call_once`.

    Returns
    -------
    array
        Lazy, (voxel, column), one chunk along columns.
    """
    blocks = da.from_array(np.ascontiguousarray(voxel_ijk), chunks=(chunk, -1))
    array: da.Array = da.map_blocks(
        function,
        blocks,
        chunks=(blocks.chunks[0], (n_columns,)),
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
        **shared,
    )
    return array


def sum_over_voxels(
    function: Callable[..., NDArray[Any]],
    voxel_ijk: NDArray[np.integer],
    *,
    chunk: int,
    **shared: Any,
) -> Any:
    """Add up ``function(voxel_ijk_block, **shared)`` over blocks of voxels; one lazy value.

    Sums of integers are exact, so the result does not depend on the blocks.
    """
    task = delayed(function, pure=True)
    parts = [
        task(np.ascontiguousarray(voxel_ijk[start : start + chunk]), **shared)
        for start in range(0, len(voxel_ijk), chunk)
    ]
    return delayed(_add_up, pure=True)(parts)


def _add_up(parts: list[NDArray[Any]]) -> NDArray[Any]:
    total: NDArray[Any] = np.sum(parts, axis=0)
    return total


def counts_to_maps(
    function: Callable[..., NDArray[Any]],
    counts: da.Array,
    *,
    dtype: DTypeLike = np.float32,
    **shared: Any,
) -> da.Array:
    """Apply ``function(counts (voxel, group + 1), **shared) -> (group, voxel)`` to each block."""
    array: da.Array = da.blockwise(
        function,
        "gv",
        counts,
        "vg",
        # Sizes, not a function of them: the name of the array counts what is given here, and a
        # lambda is not the same in every process.
        adjust_chunks={"g": tuple(size - 1 for size in counts.chunks[1])},
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
        **shared,
    )
    return array


def assemble(blocks: list[list[da.Array]]) -> da.Array:
    """Put blocks of maps together.

    Parameters
    ----------
    blocks
        For each block of groups, an array (group, voxel) for each label.

    Returns
    -------
    array
        Lazy, (label, group, voxel).
    """
    array: da.Array = da.stack([da.concatenate(row) for row in zip(*blocks, strict=True)])
    return array


def stack(arrays: Sequence[Any]) -> Any:
    """Put arrays of one shape together along a new first axis; lazy where one of them is."""
    lazy = any(isinstance(array, da.Array) for array in arrays)
    return da.stack(arrays) if lazy else np.stack(arrays)


def filled_like(array: Any, value: float) -> Any:
    """An array of one value, of the shape and type of another; lazy where that is."""
    if not isinstance(array, da.Array):
        return np.full_like(array, value)
    # Not da.full_like, whose name counts code that is not the same in every process.
    return da.broadcast_to(np.array(value, array.dtype), array.shape, chunks=array.chunks)


def apply_to_whole_maps(
    function: Callable[..., NDArray[Any]],
    *arrays: Any,
    shared: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Apply ``function(*blocks (..., voxel), **shared, **settings) -> (..., voxel)`` to whole maps.

    The last of `arrays` gives the blocks; the others have its shape, or 1 where they do not vary.
    What is `shared` is large, and is one node of a graph. Arrays that are not lazy are done at
    once. Lazy ones that come in blocks of voxels are turned into blocks of maps first, which holds
    all of them in memory; that is refused above 1 GB.

    Raises
    ------
    SettingsError
        When the maps are too large to be turned.
    """
    if not any(isinstance(array, da.Array) for array in arrays):
        return function(*arrays, **(shared or {}), **settings)
    maps = da.asarray(arrays[-1])
    if maps.numblocks[-1] > 1:
        if maps.nbytes > TURN_BYTES:
            raise SettingsError(
                f"These maps are {maps.nbytes / 1e9:.1f} GB in blocks of voxels, and this needs "
                "whole maps; make them in blocks of features, fit_features(..., chunks='feature')."
            )
        # A multiple of 16, the number of maps that a saved chunk holds.
        rows = max(16, TASK_BYTES // (2 * maps.shape[-1] * maps.dtype.itemsize) // 16 * 16)
        size = dict.fromkeys(range(maps.ndim - 1), 1) | {maps.ndim - 1: -1}
        if maps.ndim > 1:
            size[maps.ndim - 2] = rows
        maps = maps.rechunk(size)
    others = [
        da.asarray(array).rechunk(
            tuple(
                (1,) if length == 1 else chunks
                for length, chunks in zip(array.shape, maps.chunks, strict=True)
            )
        )
        for array in arrays[:-1]
    ]
    meta = np.empty((0,) * maps.ndim, np.float32)
    return da.map_blocks(
        partial(function, **settings),
        *others,
        maps,
        chunks=maps.chunks,
        dtype=np.float32,
        meta=meta,
        **{name: share(value) for name, value in (shared or {}).items()},
    )
