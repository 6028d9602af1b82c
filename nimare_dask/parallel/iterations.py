"""The shape ``map_iterations``: independent batches of null iterations with small results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import dask.config
from dask.base import compute
from dask.delayed import delayed

from nimare_dask.errors import WorkerError
from nimare_dask.parallel.execute import PROCESSES, active_client, cluster_errors, n_workers
from nimare_dask.parallel.shapes import share

Result = TypeVar("Result")

#: Batches that are on their way for each worker: one at work, one waiting, so none is idle.
_AHEAD = 2

#: How long a cluster may be without any worker; `nimare-dask.no-worker-timeout` in Dask's
#: configuration sets another number of seconds.
NO_WORKER_SECONDS = 600.0


def map_iterations(
    run: Callable[[Any, int], Result],
    shared: Any,
    batches: Sequence[int],
    take: Callable[[int, Result], None],
) -> None:
    """Call ``take(batch, run(shared, batch))`` for every batch, in any order, one at a time.

    Results are taken as they come and not kept, so memory does not grow with their number.

    Parameters
    ----------
    run
        Pure; runs on a thread here, or on a worker of the active Dask client.
    shared
        What every batch needs; sent to each worker once.
    batches
        Numbers of batches.
    take
        Runs in this process.

    Raises
    ------
    WorkerError
        When the cluster loses its workers or its scheduler.
    """
    client = active_client()
    if client is None and dask.config.get("scheduler", None) in PROCESSES:
        _on_processes(run, shared, batches, take)
    elif client is None:
        _on_threads(run, shared, batches, take)
    else:
        with cluster_errors():
            _on_cluster(client, run, shared, batches, take)


def _on_threads(
    run: Callable[[Any, int], Result],
    shared: Any,
    batches: Sequence[int],
    take: Callable[[int, Result], None],
) -> None:
    one_at_a_time = threading.Lock()
    stopped = threading.Event()

    def run_and_take(batch: int) -> None:
        if stopped.is_set():
            return
        result = run(shared, batch)
        with one_at_a_time:
            # Whoever caught an error elsewhere may have removed what `take` writes to.
            if not stopped.is_set():
                take(batch, result)

    task = delayed(run_and_take, pure=False, traverse=False)
    try:
        compute(*[task(batch) for batch in batches], optimize_graph=False)
    except BaseException:
        # Threads that have not begun their batch must not begin it after Ctrl-C or an error.
        stopped.set()
        raise


def _on_processes(
    run: Callable[[Any, int], Result],
    shared: Any,
    batches: Sequence[int],
    take: Callable[[int, Result], None],
) -> None:
    """Dask's local processes give results back together, so some batches go at a time."""
    task, everywhere = delayed(run, pure=False, traverse=False), share(shared)
    at_once = 4 * n_workers()
    for at in range(0, len(batches), at_once):
        some = batches[at : at + at_once]
        for batch, result in zip(
            some, compute(*[task(everywhere, batch) for batch in some]), strict=True
        ):
            take(batch, result)


def _on_cluster(
    client: Any,
    run: Callable[[Any, int], Result],
    shared: Any,
    batches: Sequence[int],
    take: Callable[[int, Result], None],
) -> None:
    (everywhere,) = client.persist([share(shared)])
    task = delayed(run, pure=False, traverse=False)
    waiting = list(batches)[::-1]
    batch_of: dict[Any, int] = {}

    def submit() -> None:
        # Workers may come one after the other, so how many there are is asked each time.
        while waiting and len(batch_of) < _AHEAD * n_workers():
            batch = waiting.pop()
            # A batch is the same each time, so a lost worker's batches are done again.
            batch_of[client.compute(task(everywhere, batch), retries=2)] = batch

    try:
        submit()
        while batch_of:
            for future in _some_done(client, list(batch_of)):
                batch = batch_of.pop(future)
                result = future.result()
                future.release()
                submit()
                take(batch, result)
    finally:
        client.cancel(list(batch_of))


def _some_done(client: Any, futures: list[Any]) -> list[Any]:
    """Wait until a batch is done, as long as there are workers or some may still come."""
    from distributed import wait

    patience = float(dask.config.get("nimare-dask.no-worker-timeout", NO_WORKER_SECONDS))
    without_since: float | None = None
    while True:
        try:
            return list(
                wait(futures, timeout=min(5.0, patience), return_when="FIRST_COMPLETED").done
            )
        except TimeoutError:
            if client.nthreads():
                without_since = None
                continue
        without_since = without_since or time.monotonic()
        if time.monotonic() - without_since > patience:
            raise WorkerError(
                f"The Dask cluster has had no worker for {patience:.0f} s; start some and run this "
                "again (a store keeps what was done)."
            )
