"""Running a graph: writing its blocks to zarr, with progress, on threads or on a cluster."""

from __future__ import annotations

import time
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

from nimare_dask.errors import WorkerError
from nimare_dask.parallel.objects import RootLast, Unfinished
from nimare_dask.parallel.parts import Part
from nimare_dask.parallel.places import reaching, zarr_store
from nimare_dask.parallel.settings import no_worker_seconds

#: Local schedulers by Dask's names for them.
_THREADS = ("threads", "threading")
PROCESSES = ("processes", "multiprocessing")
_SYNCHRONOUS = ("synchronous", "sync", "single-threaded")

#: Seconds between two looks at the workers while nothing is done, and between two at what is done.
LOOK_EVERY, _POLL_EVERY = 5.0, 0.05

#: Called with what is done and what there is to do; first with what was done before.
Report = Callable[[int, int], None]


def _write_block(
    block: NDArray[Any], target: str | Unfinished, name: str, region: tuple[slice, ...]
) -> None:
    array: Any
    if isinstance(target, str):
        array = zarr.open_group(target, mode="r+")[name]
        array[region] = block
        return
    target.refuse_taken()
    with reaching(target.path):
        # By its own address: the group has no root yet.
        array = zarr.open_array(zarr_store(target.path / name), mode="r+")
        array[region] = block


def write_blocks(
    arrays: Mapping[str, da.Array],
    path: Path | RootLast,
    *,
    report: Report | None = None,
    part: Part | None = None,
) -> None:
    """Compute lazy arrays and write each block into the zarr array of its name in `path`.

    A block of an array must cover whole chunks of its zarr array, so no chunk has two writers.

    Parameters
    ----------
    arrays
        Lazy arrays by name.
    path
        A zarr group with an array for each, of the same shape; or one that is being written in an
        object store, where workers put their blocks by themselves.
    report
        Called before the first block and after each.
    part
        Knows the blocks that were written before, and is told of others.
    """
    writes, names, n_before = [], {}, 0
    task = delayed(_write_block, pure=False)
    target = str(path.absolute()) if isinstance(path, Path) else path.unfinished
    for name, array in arrays.items():
        blocks = array.to_delayed(optimize_graph=False)
        edges = [np.append(0, np.cumsum(sizes)) for sizes in array.chunks]
        for place in np.ndindex(*array.numblocks):
            label = f"{name} {'.'.join(map(str, place))}"
            if part is not None and label in part.done:
                n_before += 1
                continue
            region = tuple(
                slice(int(edge[at]), int(edge[at + 1]))
                for edge, at in zip(edges, place, strict=True)
            )
            writes.append(task(blocks[place], target, name, region))
            names[writes[-1].key] = label
    n_blocks = n_before + len(writes)
    if report and n_blocks:
        report(n_before, n_blocks)

    def written(key: Any) -> None:
        label = names.pop(key, None)
        if label is not None and part is not None:
            part.note(label)
        if label is not None and report:
            report(n_blocks - len(names), n_blocks)

    client = active_client()
    if client is not None and writes:
        _write_on_cluster(client, writes, written)
    elif writes:
        with _Counter(written):
            compute(*writes)
    if isinstance(path, Path) and (client is not None or n_before):
        # What zarr had begun to write in a process that was killed.
        for begun in path.rglob("*.partial"):
            begun.unlink(missing_ok=True)


def lost_connection(error: BaseException) -> WorkerError:
    """What to raise when the scheduler does not answer any more."""
    return WorkerError(
        "The connection to the Dask scheduler was lost; start a cluster again and run this again "
        f"({type(error).__name__})."
    )


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Say in a sentence what went wrong on a cluster."""
    from asyncio import CancelledError as LoopCancelledError
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm.core import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise WorkerError(
            "A worker died several times over the same block, most often for want of memory; "
            "give workers more memory or fewer threads (the last was "
            f"{error.last_worker.address}, whose log says more)."
        ) from error
    except ImportError as error:
        raise WorkerError(
            f"A worker could not do its part ({error}); workers need the same versions of "
            "nimare_dask and its libraries as this process."
        ) from error
    except (CancelledError, LoopCancelledError, CommClosedError, ClosedClientError) as error:
        raise lost_connection(error) from error
    except OSError as error:
        # Those of a disk have a number; without one it is Dask's "Timed out trying to connect".
        if error.errno is not None:
            raise
        raise lost_connection(error) from error


class Patience:
    """How long a cluster may be without a worker that takes work."""

    def __init__(self, client: Any) -> None:
        self.seconds = no_worker_seconds()
        self._client = client
        self._without_since: float | None = None

    def look(self) -> None:
        """Raise WorkerError when no worker has taken work for too long.

        A worker that is short of memory is there and takes no work, maybe for ever.
        """
        workers = self._client.scheduler_info(n_workers=-1).get("workers", {})
        paused = sum(worker.get("status") == "paused" for worker in workers.values())
        now = time.monotonic()
        if len(workers) > paused:
            self._without_since = None
            return
        since = self._without_since = self._without_since or now
        if now - since <= self.seconds:
            return
        if paused:
            raise WorkerError(
                f"All {paused:,} workers of the Dask cluster have been short of memory for "
                f"{self.seconds:.0f} s and take no work; start some with more memory or fewer "
                "threads, and run this again."
            )
        raise WorkerError(
            f"The Dask cluster has had no worker for {self.seconds:.0f} s; start some and run this "
            "again."
        )


def _write_on_cluster(client: Any, writes: list[Any], written: Callable[[Any], None]) -> None:
    # A block is written whole and the same each time, so a lost worker's blocks are done again.
    left = set(client.compute(writes, retries=2))
    with cluster_errors():
        try:
            for future in _as_done(client, left):
                if future.status in ("error", "cancelled"):
                    future.result()  # raises
                # A worker that died would take what it keeps of a future with it, and the block
                # would be done again.
                left.discard(future)
                future.release()
                written(future.key)
        finally:
            client.cancel(list(left))


def _as_done(client: Any, futures: set[Any]) -> Iterator[Any]:
    """Futures as they are done, as long as there are workers or some may still come."""
    from distributed import as_completed

    patience, looked = Patience(client), time.monotonic()
    completed = as_completed(list(futures), loop=client.loop)
    while not completed.is_empty():
        done = completed.next_batch(block=False)
        if done:
            looked = time.monotonic()
            yield from done
        elif time.monotonic() - looked > min(LOOK_EVERY, patience.seconds):
            patience.look()
            looked = time.monotonic()
        else:
            time.sleep(_POLL_EVERY)


class _Counter(Callback):
    """Tell of the tasks that a local scheduler finishes."""

    def __init__(self, done: Callable[[Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._done = done

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        self._done(key)


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
            raise lost_connection(error) from error
    if dask.config.get("scheduler", None) in _SYNCHRONOUS:
        return 1
    from dask.system import CPU_COUNT

    return int(dask.config.get("num_workers", None) or CPU_COUNT)


def expected_workers() -> int:
    """As `n_workers`, or as many as a cluster that has just been started is going to have."""
    return max(n_workers(), int(dask.config.get("nimare-dask.expected-workers", 0)))
