"""A store of null iterations that grows batch by batch and survives any loss.

A batch is one whole chunk of each of a few zarr arrays, with a checksum, written by a rename (in an
object store by one put); the last that is written is its line in the log. So a batch is there
whole, or it is not there and is done again; nothing else needs to be known to go on, on any
machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from nimare_dask.errors import SourceFormatError, StoreAccessError, StoreExistsError
from nimare_dask.parallel.objects import many_at_once
from nimare_dask.parallel.places import AnyPath, is_address, is_there, reaching, zarr_store
from nimare_dask.parallel.stores import group_attributes, naming, whole_or_nothing
from nimare_dask.provenance import digest_values
from nimare_dask.schema import NULL_KIND, NULL_VERSION

#: Columns of the log: iterations of the batch, when it was done, how long it took.
_LOG = ("n_iters", "finished", "seconds")

#: Maxima, other parts and log of a batch.
Stored: TypeAlias = tuple[NDArray[np.float64], dict[str, NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Checkpoint:
    """A store of batches.

    Attributes
    ----------
    path
        The zarr group.
    batch
        Iterations of a batch; the last may have fewer.
    n_iters
        Iterations that the store is for.
    parts
        Names of the arrays beside the maxima: a row of each for every batch.
    fingerprint
        What the iterations depend on.
    facts
        Further attributes.
    """

    path: AnyPath
    batch: int
    n_iters: int
    parts: tuple[str, ...]
    fingerprint: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def n_batches(self) -> int:
        """Batches, done or not."""
        return -(-self.n_iters // self.batch)

    def span(self, batch: int) -> tuple[int, int]:
        """First iteration of a batch, and the one after its last."""
        return batch * self.batch, min((batch + 1) * self.batch, self.n_iters)

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The arrays of a store, open for writing."""
        return _open(self, "r+")


def create(
    path: AnyPath,
    *,
    inputs: xr.Dataset,
    fingerprint: Mapping[str, Any],
    facts: Mapping[str, Any],
    n_iters: int,
    batch: int,
    n_maxima: int,
    lengths: Mapping[str, int],
) -> Checkpoint:
    """Make an empty store.

    Parameters
    ----------
    path
        Where; appears when it is whole.
    inputs
        What iterations are computed from, kept in the group ``inputs``.
    fingerprint
        What the iterations depend on; a store is used again for the same only.
    facts
        Further attributes.
    n_iters, batch
        Iterations, and how many make a batch.
    n_maxima
        Maxima of an iteration.
    lengths
        Lengths of the other arrays, of which each batch has one row, by name.
    """
    with whole_or_nothing(path, kind=NULL_KIND) as partial:
        inputs.to_zarr(partial, group="inputs", zarr_format=3, consolidated=False)
        group = zarr.open_group(partial, mode="a", zarr_format=3)
        group.attrs.update(
            {
                "kind": NULL_KIND,
                "schema_version": NULL_VERSION,
                "fingerprint": dict(fingerprint),
                "n_iters": n_iters,
                "batch": batch,
                "parts": list(lengths),
                **facts,
            }
        )
        n_batches = -(-n_iters // batch)
        shapes: dict[str, tuple[tuple[int, int], int, str, float]] = {
            "null_max": ((n_iters, n_maxima), batch, "float64", np.nan),
            "log": ((n_batches, len(_LOG)), 1, "float64", np.nan),
        }
        for name, length in lengths.items():
            shapes[name] = ((n_batches, length), 1, "int64", -1)
        for name, (shape, rows, dtype, fill) in shapes.items():
            group.create_array(
                name,
                shape=shape,
                chunks=(rows, shape[1]),
                dtype=dtype,
                fill_value=fill,
                compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec()],
            )
    return open_checkpoint(path)


def open_checkpoint(path: AnyPath) -> Checkpoint:
    """Open a store; raise SourceFormatError when it is none."""
    attributes = group_attributes(path, kind=NULL_KIND, version=NULL_VERSION)
    return Checkpoint(
        path.absolute(),
        int(attributes["batch"]),
        int(attributes["n_iters"]),
        tuple(attributes["parts"]),
        attributes["fingerprint"],
        attributes,
    )


def inputs_digest(inputs: xr.Dataset) -> str:
    """SHA-256 of all that iterations are computed from."""
    return digest_values(
        np.array(
            [digest_values(inputs[name].values) for name in sorted(map(str, inputs.variables))]
        )
    )


def read_inputs(store: Checkpoint) -> xr.Dataset:
    """What the iterations of a store are computed from.

    Raises
    ------
    SourceFormatError
        When it cannot be read, or is not what was written.
    """
    path = zarr_store(store.path / "inputs", read_only=True)
    try:
        with reaching(store.path), xr.open_zarr(path, consolidated=False, chunks=None) as opened:
            inputs: xr.Dataset = opened.load()
    except StoreAccessError:
        raise
    except Exception as error:  # every codec has errors of its own
        raise SourceFormatError(
            f"The inputs of the null {store.path} cannot be read: {error}"
        ) from error
    if inputs_digest(inputs) != store.fingerprint["inputs"]:
        raise SourceFormatError(
            f"The inputs of the null {store.path} are not what was written. Run what made it again "
            "with another store."
        )
    return inputs


def _root(store: Checkpoint, mode: Any) -> Any:
    where = zarr_store(store.path, read_only=mode == "r")
    return zarr.open_group(where, mode=mode, zarr_format=3, use_consolidated=False)


def _open(store: Checkpoint, mode: Any) -> dict[str, Any]:
    """The arrays that a store must have."""
    try:
        with reaching(store.path):
            group = _root(store, mode)
            arrays = {name: group[name] for name in ("null_max", "log", *store.parts)}
            for array in arrays.values():
                array.shape  # noqa: B018
    except (OSError, PermissionError):
        raise
    except Exception as error:
        raise SourceFormatError(
            f"The null {store.path} has lost an array ({type(error).__name__}: {error}); null_max, "
            f"log, {', '.join(store.parts)} are needed. Delete it and run what made it again."
        ) from error
    return arrays


def refuse_other(store: Checkpoint, fingerprint: Mapping[str, Any]) -> None:
    """Raise StoreExistsError when a store is of another run, naming what differs."""
    wanted = json.loads(json.dumps(dict(fingerprint)))
    names = [
        name
        for name in dict.fromkeys([*wanted, *store.fingerprint])
        if wanted.get(name) != store.fingerprint.get(name)
    ]
    if names:
        told = "; ".join(
            f"{name}: {_brief(store.fingerprint.get(name))} there, {_brief(wanted.get(name))} now"
            for name in names
        )
        raise StoreExistsError(
            f"{store.path} holds iterations of another run ({told}). Give another path "
            "(--store), delete that one, or repeat the settings that it was made with."
        )


def _brief(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


def grow(store: Checkpoint, n_iters: int) -> Checkpoint:
    """Make room for more iterations; those that are done stay."""
    if n_iters <= store.n_iters:
        return store
    n_batches = -(-n_iters // store.batch)
    with naming(store.path):
        for name, array in _open(store, "r+").items():
            rows = n_iters if name == "null_max" else n_batches
            array.resize((rows, array.shape[1]))
        _root(store, "r+").attrs["n_iters"] = n_iters
    return open_checkpoint(store.path)


def write_batch(
    store: Checkpoint,
    batch: int,
    maxima: NDArray[np.float64],
    parts: Mapping[str, NDArray[np.integer]],
    seconds: float,
) -> None:
    """Write one batch; its line in the log is written last."""
    start, stop = store.span(batch)
    every = {**parts, "null_max": maxima}
    far = is_address(store.path)

    def put(name: str) -> None:
        arrays[name][slice(start, stop) if name == "null_max" else batch] = every[name]

    with naming(store.path):
        arrays = store.arrays if far else _open(store, "r+")
        for _ in many_at_once(put, every) if far else map(put, every):
            pass
        if far and not is_there(store.path):
            raise SourceFormatError(f"{store.path} was removed while it was written.")
        arrays["log"][batch] = (stop - start, time.time(), seconds)


def note_command(store: Checkpoint, words: Sequence[str], folder: Path) -> None:
    """Keep the command line that makes maps of what a store will hold, and where it was given."""
    with naming(store.path):
        _root(store, "r+").attrs["command"] = {"words": list(words), "folder": str(folder)}


def note_failure(store: Checkpoint, error: BaseException) -> None:
    """Keep that a run ended in an error, for people who look later; never an error itself."""
    note = {"when": time.time(), "error": f"{type(error).__name__}: {error}"}
    # Whatever keeps this from being written is likely the error itself.
    with suppress(Exception):
        log = _open(store, "r+")["log"]
        log.attrs["failures"] = [*log.attrs.get("failures", []), note]


def failures(store: Checkpoint) -> list[dict[str, Any]]:
    """When runs of a store ended in an error, and which, oldest first."""
    return list(_open(store, "r")["log"].attrs.get("failures", []))


@dataclass(frozen=True)
class Progress:
    """What a store holds.

    Attributes
    ----------
    done
        Numbers of whole batches.
    n_torn
        Batches that were begun but cannot be read, and are done again.
    n_done
        Iterations in whole batches.
    finished, seconds
        When each whole batch was done (seconds since 1970), and how long it took.
    """

    done: list[int]
    n_torn: int
    n_done: int
    finished: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def rate(self, batch: int) -> float | None:
        """Iterations a second of the latest run, None when nothing is done.

        Batches of a run overlap or follow each other; a pause of several batches begins another.
        """
        if not len(self.finished):
            return None
        order = np.argsort(self.finished)
        finished, seconds = self.finished[order], self.seconds[order]
        began = finished - seconds
        pauses = np.flatnonzero(began[1:] - finished[:-1] > 5 + 3 * seconds.mean())
        first = int(pauses[-1]) + 1 if pauses.size else 0
        took = finished[-1] - began[first:].min()
        return float(batch * (len(finished) - first) / max(took, 1e-9))


def read_batch(
    store: Checkpoint, batch: int, arrays: Mapping[str, Any] | None = None
) -> Stored | None:
    """Maxima, other parts and log of a batch; None when it is not there.

    Raises
    ------
    SourceFormatError
        When a chunk of it is torn.
    """
    arrays = _open(store, "r") if arrays is None else arrays
    start, stop = store.span(batch)
    try:
        with reaching(store.path):
            log = arrays["log"][batch]
            if log[0] != stop - start:
                return None
            maxima = arrays["null_max"][start:stop]
            parts = {name: arrays[name][batch] for name in store.parts}
    except StoreAccessError:
        raise
    except Exception as error:  # every codec has errors of its own
        raise SourceFormatError(f"Batch {batch} of {store.path} cannot be read: {error}") from error
    if np.isnan(maxima).any() or any((values < 0).any() for values in parts.values()):
        raise SourceFormatError(f"Batch {batch} of {store.path} is not whole.")
    return maxima, parts, log


def read_batches(
    store: Checkpoint, batches: Sequence[int], arrays: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, Stored | SourceFormatError | None]]:
    """Read batches in order; a torn one gives its error, as all do when an array is lost."""
    if arrays is None:
        try:
            arrays = _open(store, "r")
        except SourceFormatError as error:
            return iter([(batch, error) for batch in batches])

    def read(batch: int) -> Stored | SourceFormatError | None:
        try:
            return read_batch(store, batch, arrays)
        except SourceFormatError as error:
            return error

    found = many_at_once(read, batches) if is_address(store.path) else map(read, batches)
    return zip(batches, found, strict=True)


def progress(store: Checkpoint) -> Progress:
    """Read through a store to see what it holds."""
    done, n_torn, n_done, logs = [], 0, 0, []
    for batch, found in read_batches(store, range(store.n_batches), _open(store, "r")):
        if isinstance(found, SourceFormatError):
            n_torn += 1
        elif found is not None:
            done.append(batch)
            n_done += len(found[0])
            logs.append(found[2])
    table = np.array(logs).reshape(-1, len(_LOG))
    return Progress(done, n_torn, n_done, table[:, 1], table[:, 2])
