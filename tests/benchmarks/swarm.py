"""Hundreds of workers on one machine: a real scheduler, and tasks that sleep instead of computing.

The driver, the store, the graph, what is sent and what comes back are those of the real job; only
``run`` sleeps as long as the real iterations were measured to take. The scheduler is a process of
its own, whose processor time is what scheduling costs; all workers live in another.

``python -m tests.benchmarks.swarm ADDRESS N`` is that other process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import numpy as np
import psutil
import xarray as xr
from rich.table import Table

import nimare_dask as nd
from nimare_dask.nulls.cost import time_iteration
from nimare_dask.nulls.jobs import Batch, Job, n_maxima
from nimare_dask.nulls.scheme import run as run_null
from nimare_dask.nulls.stored import job_of
from tests.benchmarks.group import estimator_of, null_job
from tests.benchmarks.inputs import Inputs

#: What must be reached: scheduling as a share of the work, tasks, and by what share the driver may
#: have grown from the first result to the end.
OVERHEAD, MOST_TASKS, GROWTH = 0.05, 20_000, 0.2


@dataclass(frozen=True)
class Sleeping:
    """A job that takes as long as another, and leaves as much behind."""

    job: Any
    each: float
    left: Batch

    def run(self, start: int, stop: int) -> Batch:
        """Sleep."""
        time.sleep(self.each * (stop - start))
        return Batch(
            maxima=np.zeros((stop - start, n_maxima(self.job))),
            sums=self.left.sums,
        )

    @property
    def random_state(self) -> int:
        """That of the job."""
        return int(self.job.random_state)

    @property
    def step(self) -> int:
        """That of the job."""
        return int(self.job.step)

    @property
    def labels(self) -> dict[str, list[Any]]:
        """Those of the job."""
        labels: dict[str, list[Any]] = self.job.labels
        return labels

    @property
    def lengths(self) -> dict[str, int]:
        """Those of the job."""
        lengths: dict[str, int] = self.job.lengths
        return lengths

    def facts(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def task_bytes(self) -> int:
        """That of the job."""
        return int(self.job.task_bytes())

    def to_dataset(self) -> xr.Dataset:
        """That of the job, which goes into the store."""
        dataset: xr.Dataset = self.job.to_dataset()
        return dataset


@dataclass(frozen=True)
class Plan:
    """A null that so many workers share."""

    name: str
    job: Job
    seconds: float
    n_iters: int
    n_workers: int


@dataclass(frozen=True)
class Swarmed:
    """What so many workers did.

    Attributes
    ----------
    name, n_workers, n_iters
        What it was.
    iteration_seconds
        How long an iteration sleeps.
    batch, n_tasks
        Iterations of a task, and tasks.
    work_seconds
        All that was slept, by all workers.
    seconds, first_seconds
        The whole call, and until its first result.
    scheduler_seconds
        Processor time of the scheduler in the call.
    client_mb, client_mb_at_first
        Resident memory of the driver at its end and at the first result.
    """

    name: str
    n_workers: int
    n_iters: int
    iteration_seconds: float
    batch: int
    n_tasks: int
    work_seconds: float
    seconds: float
    first_seconds: float
    scheduler_seconds: float
    client_mb: float
    client_mb_at_first: float


def plans(inputs: Inputs, *, quick: bool) -> list[Plan]:
    """ALE of the whole database, and the null of all words; with measured seconds."""
    space, corpus = nd.load_space(inputs.mask), nd.open_corpus(inputs.corpus)
    ale = null_job(estimator_of("ale"), corpus, space)
    words = nd.open_corpus(inputs.words)
    sizes = nd.MKDAChi2().fit_features(words, threshold=1, space=space, chunks="feature")
    null = nd.feature_null(words, sizes=sizes, n_iters=1, space=space, random_state=0)
    jobs: list[tuple[str, Job, int]] = [
        (f"ALE of {corpus.sizes['analysis']:,}", ale, 10_000),
        (f"labels of {sizes.sizes['feature']:,} features", job_of(null), 5_000),
    ]
    with dask.config.set(scheduler="synchronous"):
        timed = [
            (name, job, min(time_iteration(job) for _ in range(3)), n) for name, job, n in jobs
        ]
    numbers = (4,) if quick else (200, 1000)
    return [
        Plan(name, job, seconds, 200 if quick else n, workers)
        for name, job, seconds, n in timed
        for workers in numbers
    ]


@contextmanager
def swarm(n: int, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A scheduler and so many workers, in two processes; the address and the scheduler."""
    with tempfile.TemporaryDirectory(dir=folder) as here:
        told = Path(here) / "scheduler.json"
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        scheduler = subprocess.Popen(
            [sys.executable, "-m", "dask", "scheduler", *words, "--scheduler-file", str(told)],
            stderr=subprocess.DEVNULL,
        )
        started = [scheduler]
        try:
            while not (told.exists() and told.read_text()):
                if scheduler.poll() is not None:
                    raise RuntimeError("dask scheduler did not start")
                time.sleep(0.05)
            address = json.loads(told.read_text())["address"]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.benchmarks.swarm", address, str(n), here],
                    stderr=subprocess.DEVNULL,
                )
            )
            yield address, psutil.Process(scheduler.pid)
        finally:
            for process in started[::-1]:
                process.kill()
                process.wait()


def measure(plan: Plan, folder: Path) -> Swarmed:
    """Run the driver on a swarm."""
    from distributed import Client

    me, firsts = psutil.Process(), list[tuple[float, float]]()
    with (
        dask.config.set(scheduler=None),
        swarm(plan.n_workers, folder) as (address, scheduler),
        Client(address) as client,
    ):
        client.wait_for_workers(plan.n_workers, timeout=300)
        client.run(_load)
        time.sleep(3)  # what the workers say when they come is not of the call
        before, began = scheduler.cpu_times(), time.perf_counter()

        def report(done: int, total: int) -> None:
            if done and not firsts:
                firsts.append((time.perf_counter() - began, me.memory_info().rss / 1e6))

        null = run_null(
            Sleeping(plan.job, plan.seconds, plan.job.run(0, 1)),
            _FACTS,
            n_iters=plan.n_iters,
            batch=None,
            store=folder / f"swarm_{uuid4().hex}.zarr",
            report=report,
        )
        seconds, after = time.perf_counter() - began, scheduler.cpu_times()
    batch = int(null.attrs["batch"])
    return Swarmed(
        name=plan.name,
        n_workers=plan.n_workers,
        n_iters=plan.n_iters,
        iteration_seconds=plan.seconds,
        batch=batch,
        n_tasks=-(-plan.n_iters // batch),
        work_seconds=plan.seconds * plan.n_iters,
        seconds=seconds,
        first_seconds=firsts[0][0],
        scheduler_seconds=after.user + after.system - before.user - before.system,
        client_mb=me.memory_info().rss / 1e6,
        client_mb_at_first=firsts[0][1],
    )


def _load() -> None:
    """Import what a batch needs, as workers that have worked before have done."""


#: What a null keeps of how it was made; nothing here was.
_FACTS: dict[str, Any] = {
    "scheme": "swarm",
    "estimator": "Sleeping",
    "told": {},
    "stop_after": None,
    "observed_max": None,
    "space_digest": "",
    "settings": {},
    "facts": {"corpus_digests": [""]},
    "corpus_provenance": "[]",
}


def table(swarms: Sequence[Swarmed]) -> tuple[Table, bool]:
    """One row for each, and whether all was reached."""
    shown = Table(title="Workers that sleep as long as measured iterations take, real scheduler")
    columns = (
        "null",
        "workers",
        "iterations",
        "each",
        "batch",
        "tasks",
        "work",
        "ideal",
        "took",
        "first result",
        "scheduler",
        "of the work",
        "driver",
    )
    for column in columns:
        shown.add_column(column, justify="right")
    reached = True
    for each in swarms:
        share = each.scheduler_seconds / each.work_seconds
        flat = each.client_mb <= (1 + GROWTH) * each.client_mb_at_first
        well = share < OVERHEAD and each.n_tasks < MOST_TASKS and flat
        reached = reached and well
        shown.add_row(
            each.name,
            f"{each.n_workers:,}",
            f"{each.n_iters:,}",
            f"{each.iteration_seconds * 1e3:.0f} ms",
            str(each.batch),
            f"{each.n_tasks:,}",
            f"{each.work_seconds:,.0f} s",
            f"{each.work_seconds / each.n_workers:.1f} s",
            f"{each.seconds:.1f} s",
            f"{each.first_seconds:.1f} s",
            f"{each.scheduler_seconds:.1f} s",
            f"{share:.2%}{'' if well else ' (not reached)'}",
            f"{each.client_mb_at_first:,.0f} to {each.client_mb:,.0f} MB",
        )
    return shown, reached


#: Workers of one process count the same open files and look at the same loop, each for itself; a
#: worker of its own process spends nothing on that, and hundreds here would do nothing else.
_UNWATCHED = {
    "distributed.admin.tick.interval": "10s",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.worker.profile.enabled": False,
}


async def _work(address: str, n: int, folder: str) -> None:
    """Be so many workers until the end."""
    from distributed import Worker

    def worker(number: int) -> Any:
        return Worker(
            address,
            nthreads=1,
            name=str(number),
            local_directory=f"{folder}/{number}",
            dashboard=False,
            memory_limit=None,
            # So many files may one process have open; each worker keeps lines to others.
            connection_limit=4,
        )

    # Looking through all that hundreds of workers hold would take most of the time of all of them.
    gc.disable()
    made = []
    for start in range(0, n, 50):
        made += await asyncio.gather(*map(worker, range(start, min(start + 50, n))))
    await asyncio.gather(*(each.finished() for each in made))


if __name__ == "__main__":
    with dask.config.set(_UNWATCHED):
        asyncio.run(_work(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
