"""A store of null iterations that grows batch by batch and survives any loss.

A batch is one whole chunk of each of a few zarr arrays, with a checksum, written by a rename; the
last that is written is its line in the log. So a batch is there whole, or it is not there and is
done again; nothing else needs to be known to go on, on any machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from nimare_dask.errors import SourceFormatError, StoreExistsError
from nimare_dask.parallel.stores import group_attributes, naming, whole_or_nothing
from nimare_dask.provenance import digest_values
from nimare_dask.schema import NULL_KIND, NULL_VERSION

#: Columns of the log: iterations of the batch, when it was done, how long it took.
_LOG = ("n_iters", "finished", "seconds")


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

    path: Path
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


def create(
    path: Path,
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
        inputs.to_zarr(partial / "inputs", zarr_format=3, consolidated=False)
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


def open_checkpoint(path: Path) -> Checkpoint:
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
    path = store.path / "inputs"
    try:
        with xr.open_zarr(path, consolidated=False, chunks=None) as opened:
            inputs: xr.Dataset = opened.load()
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


def _open(store: Checkpoint, mode: Any) -> Any:
    """The zarr group with every array that it must have."""
    try:
        group: Any = zarr.open_group(store.path, mode=mode)
        for name in ("null_max", "log", *store.parts):
            group[name].shape  # noqa: B018
    except (OSError, PermissionError):
        raise
    except Exception as error:
        raise SourceFormatError(
            f"The null {store.path} has lost an array ({type(error).__name__}: {error}); null_max, "
            f"log, {', '.join(store.parts)} are needed. Delete it and run what made it again."
        ) from error
    return group


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
        group = _open(store, "r+")
        for name in ("null_max", "log", *store.parts):
            array: Any = group[name]
            rows = n_iters if name == "null_max" else n_batches
            array.resize((rows, array.shape[1]))
        group.attrs["n_iters"] = n_iters
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
    with naming(store.path):
        group = _open(store, "r+")
        for name, values in parts.items():
            group[name][batch] = values
        group["null_max"][start:stop] = maxima
        group["log"][batch] = (stop - start, time.time(), seconds)


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
    store: Checkpoint, batch: int, group: Any = None
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.int64]], NDArray[np.float64]] | None:
    """Maxima, other parts and log of a batch; None when it is not there.

    Raises
    ------
    SourceFormatError
        When a chunk of it is torn.
    """
    group = group or _open(store, "r")
    start, stop = store.span(batch)
    try:
        log = group["log"][batch]
        if log[0] != stop - start:
            return None
        maxima = group["null_max"][start:stop]
        parts = {name: group[name][batch] for name in store.parts}
    except Exception as error:  # every codec has errors of its own
        raise SourceFormatError(f"Batch {batch} of {store.path} cannot be read: {error}") from error
    if np.isnan(maxima).any() or any((values < 0).any() for values in parts.values()):
        raise SourceFormatError(f"Batch {batch} of {store.path} is not whole.")
    return maxima, parts, log


def progress(store: Checkpoint) -> Progress:
    """Read through a store to see what it holds."""
    group = _open(store, "r")
    done, n_torn, n_done, logs = [], 0, 0, []
    for batch in range(store.n_batches):
        try:
            found = read_batch(store, batch, group)
        except SourceFormatError:
            n_torn += 1
            continue
        if found is not None:
            done.append(batch)
            n_done += len(found[0])
            logs.append(found[2])
    table = np.array(logs).reshape(-1, len(_LOG))
    return Progress(done, n_torn, n_done, table[:, 1], table[:, 2])
