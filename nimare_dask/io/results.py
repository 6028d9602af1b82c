"""Results as zarr groups."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from zarr.codecs import BloscCodec

from nimare_dask import results, schema
from nimare_dask.parallel.execute import Report, write_blocks
from nimare_dask.parallel.parts import part_of
from nimare_dask.parallel.places import AnyPath, place
from nimare_dask.parallel.stores import open_group, stamp, whole_or_nothing
from nimare_dask.provenance import versions

#: Maps of a chunk when it holds whole maps (one map is 0.9 MB at 2 mm), and when it holds blocks
#: of voxels.
_WHOLE_MAPS, _MAPS = 16, 128


def save_result(
    maps: xr.Dataset,
    path: str | AnyPath,
    *,
    overwrite: bool = False,
    report: Report | None = None,
) -> AnyPath:
    """Compute a result, block by block, and write it as one zarr group.

    When a cluster is lost, the disk is full or this process is killed, what was written is kept in
    a hidden folder beside `path`, and the same call goes on from there.

    Select what to keep first: ``save_result(terms[["z"]], path)`` computes z only.

    Parameters
    ----------
    maps
        A result, lazy or not.
    path
        Folder or address to write, usually ending in ``.zarr``. It appears when it is whole.
    overwrite
        Replace a zarr group that is there.
    report
        Called with the number of blocks written and of all blocks, before the first and after each.

    Raises
    ------
    StoreExistsError
        When `path` exists and may not be replaced.
    """
    results.check(maps)
    target = place(path)
    stamped = stamp(maps, kind=schema.RESULT_KIND, version=schema.RESULT_VERSION, facts={})
    stamped = stamped.copy()
    for name, variable in stamped.variables.items():
        if isinstance(variable.data, da.Array):
            stamped[name].data = _regular(variable.data)
    lazy = {
        str(name): variable.data
        for name, variable in stamped.variables.items()
        if isinstance(variable.data, da.Array)
    }
    encoding = {str(name): _encoding(stamped[name]) for name in stamped.variables}
    mark = _mark(stamped)
    with (
        part_of(target, mark) as part,
        whole_or_nothing(
            target, kind=schema.RESULT_KIND, overwrite=overwrite, part=part
        ) as partial,
    ):
        if part is None or not part.begun:
            # This writes metadata and what is in memory already; the lazy blocks come after.
            stamped.to_zarr(
                partial, zarr_format=3, consolidated=False, compute=False, encoding=encoding
            )
            if part is not None:
                part.begin(sum(array.npartitions for array in lazy.values()))
        write_blocks(lazy, partial, report=report, part=part)
        if part is not None:
            part.end()
    return target


def _mark(stamped: xr.Dataset) -> str:
    """Letters that another result would not have; lazy arrays count by how they are computed.

    Texts count as plain ones: what an index of them is depends on options of pandas.
    """

    def content(variable: xr.Variable) -> Any:
        if isinstance(variable.data, da.Array):
            return variable.data
        values = variable.values
        return values if values.dtype.kind in "biufc" else list(map(str, values.ravel()))

    variables = [
        (str(name), variable.dims, content(variable), variable.attrs)
        for name, variable in sorted(stamped.variables.items(), key=lambda item: str(item[0]))
    ]
    return str(tokenize(variables, stamped.attrs, versions()))[:12]


def _regular(array: da.Array) -> da.Array:
    """Blocks of one size along each dimension, as zarr has them; a choice of maps breaks that."""
    size = {
        axis: max(blocks)
        for axis, blocks in enumerate(array.chunks)
        if any(block != blocks[0] for block in blocks[:-1]) or blocks[-1] > blocks[0]
    }
    return array.rechunk(size) if size else array


def _encoding(variable: xr.DataArray) -> dict[str, Any]:
    encoding: dict[str, Any] = {}
    if variable.dtype.kind in "fiu":
        # Twice as fast on maps of z as shuffling bytes, for files a twentieth larger.
        encoding["compressors"] = [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")]
    if variable.ndim and variable.size:
        encoding["chunks"] = _chunks(variable)
    return encoding


def _chunks(variable: xr.DataArray) -> tuple[int, ...]:
    """Chunks that each block of a lazy variable covers whole."""
    if not isinstance(variable.data, da.Array):
        return (1,) * (variable.ndim - 1) + variable.shape[-1:]
    sizes = [max(chunks) for chunks in variable.data.chunks]
    if variable.ndim > 1:
        wanted = _WHOLE_MAPS if len(variable.data.chunks[-1]) == 1 else _MAPS
        blocks = variable.data.chunks[-2]
        if all(block % wanted == 0 for block in blocks[:-1]):
            sizes[-2] = min(wanted, sizes[-2])
    return tuple(int(np.clip(size, 1, None)) for size in sizes)


def open_result(path: str | AnyPath) -> xr.Dataset:
    """Open a result that :func:`save_result` wrote; maps are read when they are used.

    Raises
    ------
    SourceFormatError
        When it is not a result, or of another schema version.
    """
    opened = open_group(
        place(path), kind=schema.RESULT_KIND, version=schema.RESULT_VERSION, chunks={}
    )
    results.check(opened)
    small = [name for name in opened.coords if opened[name].dtype.kind in "UOTiu"]
    return opened.assign_coords({name: opened[name].load() for name in small})
