"""The shape ``map_iterations``: independent batches of null iterations with small results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import dask.config
from dask.base import compute
from dask.delayed import delayed

from nimare_dask.errors import WorkerError
from nimare_dask.parallel.execute import (
    LOOK_EVERY,
    PROCESSES,
    Patience,
    active_client,
    cluster_errors,
    expected_workers,
    n_workers,
)
from nimare_dask.parallel.parts import is_full
from nimare_dask.parallel.shapes import share

Result = TypeVar("Result")

#: Batches that are on their way for each worker: one at work, one waiting, so none is idle.
_AHEAD = 2

#: Results that are fetched together: each message to a worker and back takes some milliseconds,
#: which is long for a driver of a thousand workers.
_TOGETHER = 16


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
    growing = dask.config.get("nimare-dask.growing", False)
    patience = Patience(client)

    def start(batch: int) -> None:
        # A batch is the same each time, so a lost worker's batches are done again.
        batch_of[client.compute(task(everywhere, batch), retries=2)] = batch

    def at_once() -> int:
        # Workers may come one after the other, so how many there are is asked again and again. A
        # cluster that grows with the work has to see work for all that it may have.
        return _AHEAD * (expected_workers() if growing else n_workers())

    def submit(most: int) -> None:
        while waiting and len(batch_of) < most:
            start(waiting.pop())

    try:
        submit(at_once())
        while batch_of:
            done = _some_done(list(batch_of))
            if not done:
                patience.look()
                if not waiting:
                    _start_again(client, list(batch_of.values()), start)
            for at in range(0, len(done), _TOGETHER):
                # Of a batch that was started again the slower future was cancelled.
                some = [future for future in done[at : at + _TOGETHER] if future in batch_of]
                results, most = _results_of(client, some, patience), at_once()
                for future, result in zip(some, results, strict=True):
                    if future not in batch_of:
                        continue
                    batch = batch_of[future]
                    others = [other for other, its in batch_of.items() if its == batch]
                    for other in others:
                        del batch_of[other]
                    future.release()
                    if len(others) > 1:
                        client.cancel([other for other in others if other is not future])
                    submit(most)
                    take(batch, result)
    finally:
        client.cancel(list(batch_of))


def _start_again(client: Any, batches: list[int], start: Callable[[int], None]) -> None:
    """Give the last batches to workers that have nothing to do as well; whoever is first counts.

    The worker that has them may be frozen or cut off, of which the scheduler hears late.
    """
    idle = sum(not tasks for tasks in client.processing().values())
    alone = [batch for batch in batches if batches.count(batch) == 1]
    for batch in alone[: _AHEAD * idle]:
        start(batch)


def _some_done(futures: list[Any]) -> list[Any]:
    """Wait for a while until a batch is done; none when it takes longer."""
    from distributed import wait

    try:
        return list(wait(futures, timeout=LOOK_EVERY, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _results_of(client: Any, futures: list[Any], patience: Patience) -> list[Any]:
    """Results of batches that are done, in one message of the scheduler when all is well."""

    async def together() -> list[Any]:
        return list(await client.gather(futures, asynchronous=True))

    # Whatever goes wrong, or takes too long, does so again for one of them.
    with suppress(Exception):
        return list(client.sync(together, callback_timeout=LOOK_EVERY))
    return [_result_of(future, patience) for future in futures]


def _result_of(future: Any, patience: Patience) -> Any:
    """The result of a batch that is done; it is done again when its worker is lost meanwhile."""
    while True:
        try:
            return future.result(timeout=patience.seconds)
        except TimeoutError:
            if future.status == "error":
                raise
            patience.look()
        except OSError as error:
            if not is_full(error):
                raise
            raise WorkerError(
                "A worker has no room left on its disk for scratch (`--local-directory` of `dask "
                "worker`); make room there or give another folder, and run this again."
            ) from error
