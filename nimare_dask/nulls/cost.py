"""What null iterations cost: how many make a batch, and how long all of them take."""

from __future__ import annotations

import time

from nimare_dask.nulls.jobs import Job
from nimare_dask.parallel.execute import n_workers
from nimare_dask.parallel.plan import Plan

#: Seconds of a batch that are aimed at, and the sizes that a batch can have.
_BATCH_SECONDS = 1.0
_BATCHES = (10, 25, 50, 100, 250)


#: Batches that there are at least, so that every core of a laptop has some.
_FEWEST_BATCHES = 8


def batch_size(job: Job, n_iters: int) -> int:
    """Iterations that take about a second by what they compute; fewer for short runs."""
    most = max(1.0, min(_BATCH_SECONDS / job.seconds(), n_iters / _FEWEST_BATCHES))
    return max([size for size in _BATCHES if size <= most], default=_BATCHES[0])


def plan_iterations(job: Job, n_iters: int) -> Plan:
    """Say what iterations would cost, from some that are done here and now."""
    job.run(0, 1)  # compiles
    each = []
    for iteration in range(3):
        began = time.perf_counter()
        job.run(iteration, iteration + 1)
        each.append(time.perf_counter() - began)
    workers, n_tasks = n_workers(), -(-n_iters // batch_size(job, n_iters))
    return Plan(
        n_tasks=n_tasks,
        task_bytes=job.task_bytes(),
        seconds=sorted(each)[1] * n_iters / min(workers, n_tasks),
        n_workers=workers,
    )
