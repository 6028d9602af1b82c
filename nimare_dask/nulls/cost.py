"""What null iterations cost: how many make a batch, and how long all of them take."""

from __future__ import annotations

import time

from nimare_dask.nulls.jobs import Job
from nimare_dask.parallel.execute import expected_workers
from nimare_dask.parallel.plan import Plan

#: Seconds of a batch at most, on a few cores: so much is lost with a worker.
_BATCH_SECONDS = 1.0

#: Seconds of a batch at most for each worker, on many: a thousand workers may have batches of 20 s.
_BATCH_SECONDS_PER_WORKER = 0.02

#: Seconds that the process which gave the command is busy with a batch, to take it and write it
#: down, while which others wait.
_TAKING_SECONDS = 0.01

#: Batches that there are at least, so that progress is seen and little is lost.
_FEWEST_BATCHES = 8

#: The sizes that a batch can have.
_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

#: An iteration that takes longer than this is not done twice to see how long it takes.
_LONG_SECONDS = 5.0


def time_iteration(job: Job) -> float:
    """Seconds of one iteration, done here and now, when everything is compiled and at hand."""
    took = _timed(job)
    return took if took > _LONG_SECONDS else min(took, _timed(job))


def _timed(job: Job) -> float:
    began = time.perf_counter()
    job.run(0, 1)
    return time.perf_counter() - began


def batch_size(job: Job, n_iters: int, *, seconds: float | None = None) -> int:
    """Iterations of a batch, by the seconds that one takes here; timed when they are not given.

    The size by which all would be done first. Large batches leave some workers without work, small
    ones keep them waiting for the process that takes the batches.
    """
    workers = expected_workers()
    if n_iters < 2 * _FEWEST_BATCHES:
        return 1
    each = time_iteration(job) if seconds is None else seconds
    longest = max(_BATCH_SECONDS, _BATCH_SECONDS_PER_WORKER * workers)
    most = min(longest / max(each, 1e-9), n_iters / _FEWEST_BATCHES)

    def seconds_of_all(size: int) -> float:
        n_batches = -(-n_iters // size)
        rounds = -(-n_batches // workers)
        return rounds * size * each + n_batches * _TAKING_SECONDS

    return min([size for size in _SIZES if size <= most] or [1], key=seconds_of_all)


def plan_iterations(job: Job, n_iters: int) -> Plan:
    """Say what iterations would cost, from some that are done here and now."""
    seconds = time_iteration(job)
    workers, n_tasks = expected_workers(), -(-n_iters // batch_size(job, n_iters, seconds=seconds))
    return Plan(
        n_tasks=n_tasks,
        task_bytes=job.task_bytes(),
        seconds=seconds * n_iters / min(workers, n_tasks),
        n_workers=workers,
    )
