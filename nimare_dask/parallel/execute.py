"""Running a graph: writing its blocks to zarr, with progress, on threads or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask.array as da
import dask.config
import numpy as np
import zarr
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed
from numpy.typing import NDArray

from nimare_dask.errors import SettingsError, WorkerError

#: Local schedulers by Dask's names for them.
_THREADS = ("threads", "threading")
PROCESSES = ("processes", "multiprocessing")
_SYNCHRONOUS = ("synchronous", "sync", "single-threaded")

#: Called with what is done and what there is to do; first with what was done before.
Report = Callable[[int, int], None]


def _write_block(block: NDArray[Any], path: str, name: str, region: tuple[slice, ...]) -> None:
    array: Any = zarr.open_group(path, mode="r+")[name]
    array[region] = block


def write_blocks(
    arrays: Mapping[str, da.Array], path: Path, *, report: Report | None = None
) -> None:
    """Compute lazy arrays and write each block into the zarr array of its name in `path`.

    A block of an array must cover whole chunks of its zarr array, so no chunk has two writers.

    Parameters
    ----------
    arrays
        Lazy arrays by name.
    path
        A zarr group with an array for each, of the same shape.
    report
        Called before the first block and after each.
    """
    writes = []
    task = delayed(_write_block, pure=False)
    for name, array in arrays.items():
        blocks = array.to_delayed(optimize_graph=False)
        edges = [np.append(0, np.cumsum(sizes)) for sizes in array.chunks]
        for place in np.ndindex(*array.numblocks):
            region = tuple(
                slice(int(edge[at]), int(edge[at + 1]))
                for edge, at in zip(edges, place, strict=True)
            )
            writes.append(task(blocks[place], str(path.absolute()), name, region))
    if not writes:
        return
    if report:
        report(0, len(writes))
    client = active_client()
    if client is None:
        keys = {write.key for write in writes}
        with _Counter(keys, report):
            compute(*writes)
        return
    _write_on_cluster(client, writes, report)


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Say in a sentence what went wrong on a cluster."""
    from asyncio import CancelledError as LoopCancelledError
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm.core import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise WorkerError(
            "A worker died several times over the same block, most often for want of memory; "
            f"give workers more memory or fewer threads ({error})."
        ) from error
    except ImportError as error:
        raise WorkerError(
            f"A worker could not do its part ({error}); workers need the same versions of "
            "nimare_dask and its libraries as this process."
        ) from error
    except (CancelledError, LoopCancelledError, CommClosedError) as error:
        raise WorkerError(
            "The connection to the Dask scheduler was lost; start a cluster again and run this "
            f"again ({type(error).__name__})."
        ) from error


def _write_on_cluster(client: Any, writes: list[Any], report: Report | None) -> None:
    from distributed import as_completed

    # A block is written whole and the same each time, so a lost worker's blocks are done again.
    futures = client.compute(writes, retries=2)
    try:
        with cluster_errors():
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if report:
                    report(done, len(writes))
    finally:
        client.cancel(futures)


class _Counter(Callback):
    """Count the tasks of some keys as a local scheduler finishes them."""

    def __init__(self, keys: set[Any], report: Report | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._report, self._done = keys, report, 0

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        if key in self._keys and self._report:
            self._done += 1
            self._report(self._done, len(self._keys))


def active_client() -> Any:
    """The distributed client of this process, or None; does not import distributed."""
    import sys

    # Whoever asks Dask for threads or processes gets them, also beside a client.
    if "distributed" not in sys.modules or dask.config.get("scheduler", None) in (
        *_THREADS,
        *PROCESSES,
        *_SYNCHRONOUS,
    ):
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def n_workers() -> int:
    """Tasks that run at the same time: threads of the cluster, or of this machine."""
    client = active_client()
    if client is not None:
        try:
            return max(1, sum(map(int, client.nthreads().values())))
        except OSError as error:
            raise WorkerError(
                "The connection to the Dask scheduler was lost; start a cluster again and run this "
                f"again ({type(error).__name__})."
            ) from error
    if dask.config.get("scheduler", None) in _SYNCHRONOUS:
        return 1
    from dask.system import CPU_COUNT

    return int(dask.config.get("num_workers", None) or CPU_COUNT)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use a running Dask scheduler inside the block; without an address, threads.

    Raises
    ------
    SettingsError
        When nothing answers at the address.
    """
    if address is None:
        yield
        return
    from distributed import Client

    try:
        client = Client(address, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise SettingsError(
            f"No Dask scheduler answers at {address} ({error}); start one with `dask scheduler` "
            "and give its address (tcp://host:8786), or leave --scheduler out to use this machine."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError as error:
            raise WorkerError(
                f"The scheduler at {address} has had no worker for 60 s; start some with "
                f"`dask worker {address}`."
            ) from error
        yield
