"""How many iterations make a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import dask
import pytest

from nimare_dask.nulls import cost
from nimare_dask.nulls.cost import batch_size, plan_iterations, time_iteration


@dataclass
class Timed:
    """A job whose iterations take given times, the last of them from then on."""

    takes: list[float]
    ran: list[tuple[int, int]] = field(default_factory=list)

    def run(self, start: int, stop: int) -> None:
        time.sleep(self.takes[min(len(self.ran), len(self.takes) - 1)])
        self.ran.append((start, stop))

    def task_bytes(self) -> int:
        return 7


def size(seconds: float, n_iters: int, workers: int) -> int:
    with dask.config.set(scheduler="threads", num_workers=workers):
        unused: Any = None
        return batch_size(unused, n_iters, seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "n_iters", "workers", "expected"),
    [
        (0.0003, 5000, 2, 500),  # a small ALE: so that there are eight batches at least
        (0.005, 5000, 2, 100),  # a second would be 200
        (0.1, 10_000, 2, 10),
        (3.0, 10_000, 2, 1),
        (0.1, 10_000, 200, 25),  # 200 workers may have four seconds; 40 would leave some idle
        (0.01, 100_000, 200, 250),
        (0.7, 10_000, 1000, 10),  # 2 would be 5,000 batches to take, 25 four hundred for 1,000
        (0.01, 100_000, 20, 100),
        (0.005, 100, 2, 10),
        (0.0, 10_000, 2, 1000),
    ],
)
def test_batch_size__by_time_and_workers(
    seconds: float, n_iters: int, workers: int, expected: int
) -> None:
    assert size(seconds, n_iters, workers) == expected


def test_batch_size__few_iterations_are_not_timed() -> None:
    with dask.config.set(scheduler="threads", num_workers=2):
        job: Any = Timed([0.0])
        assert batch_size(job, 15) == 1 and not job.ran


def test_batch_size__is_timed_here() -> None:
    with dask.config.set(scheduler="threads", num_workers=2):
        job: Any = Timed([0.05, 0.012])
        assert batch_size(job, 100_000) in {25, 50}  # 0.012 s and what the machine adds
        assert job.ran == [(0, 1), (0, 1)]


def test_time_iteration__leaves_compiling_out() -> None:
    job: Any = Timed([0.2, 0.01])
    assert 0.01 <= time_iteration(job) < 0.2


def test_time_iteration__long_ones_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_LONG_SECONDS", 0.01)
    job: Any = Timed([0.02])
    assert time_iteration(job) >= 0.02 and len(job.ran) == 1


def test_plan_iterations__seconds_of_all_on_the_workers_there_are() -> None:
    with dask.config.set(scheduler="threads", num_workers=4):
        job: Any = Timed([0.02])
        plan = plan_iterations(job, 1000)
    assert plan.n_workers == 4 and plan.task_bytes == 7
    assert plan.n_tasks in {20, 40}
    assert 1000 * 0.02 / 4 <= plan.seconds < 3 * 1000 * 0.02 / 4
