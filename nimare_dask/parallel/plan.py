"""What a job will cost, said before it starts: tasks, memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import dask.config
import numpy as np
from dask.callbacks import Callback

from nimare_dask.parallel.execute import n_workers


@dataclass(frozen=True)
class Plan:
    """The cost of computing some lazy arrays.

    Attributes
    ----------
    n_tasks
        Tasks of the graph.
    task_bytes
        About the memory that one running block needs.
    seconds
        About how long it takes, from one timed block.
    n_workers
        Tasks that run at the same time.
    """

    n_tasks: int
    task_bytes: int
    seconds: float
    n_workers: int

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"Plan: {self.n_tasks:,} tasks, about {self.task_bytes / 1e6:,.0f} MB each, "
            f"{self.n_workers} at a time; about {say_seconds(self.seconds)} to compute."
        )


def plan(arrays: Mapping[str, da.Array], *, block_copies: int = 3) -> Plan:
    """Plan the computation of lazy arrays by running one block of them, here and now.

    What the blocks share (sorting the foci, listing runs) is told apart from what each costs.

    Parameters
    ----------
    arrays
        Lazy arrays by name.
    block_copies
        Arrays of the size of a block that a task holds at its worst.
    """
    graph: dict[Any, Any] = {}
    first: list[Any] = []
    n_blocks = 0
    for array in arrays.values():
        graph |= dict(array.__dask_graph__())
        places = list(np.ndindex(*array.numblocks))
        first.append(array.blocks[places[0]])
        n_blocks = max(n_blocks, len(places))
    timer = _Timer()
    with dask.config.set(scheduler="synchronous"), timer:
        da.compute(*first, optimize_graph=False)
    # Tasks of a block are named (array, block, ...); what blocks share has a plain name.
    once = sum(took for key, took in timer.seconds.items() if not isinstance(key, tuple))
    each = sum(timer.seconds.values()) - once
    workers = n_workers()
    largest = max(int(np.prod(block.shape)) * block.dtype.itemsize for block in first)
    return Plan(
        n_tasks=len(graph),
        task_bytes=largest * (block_copies + len(arrays) - 1),
        seconds=once + each * n_blocks / min(workers, n_blocks),
        n_workers=workers,
    )


class _Timer(Callback):
    """Seconds of each task of a local scheduler."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: dict[Any, float] = {}
        self.began: dict[Any, float] = {}

    def _pretask(self, key: Any, dsk: Any, state: Any) -> None:
        self.began[key] = time.perf_counter()

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        self.seconds[key] = time.perf_counter() - self.began[key]


def say_seconds(seconds: float) -> str:
    """A time for people: 0.4 s, 12 s, 3 min, 2 h 5 min."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
