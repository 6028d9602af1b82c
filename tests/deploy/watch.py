"""What a worker does, line by line in a file: `dask worker --preload tests.deploy.watch`.

A line is a time, the process, the name of the worker, what happened and to which task.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

#: The file, and a file that makes the worker which begins a task next take too much memory.
FILE, GREED = "NIMARE_DASK_TEST_WATCH", "NIMARE_DASK_TEST_GREED"

#: Seconds that every block takes longer to write, as on a slow disk.
SLOW = "NIMARE_DASK_TEST_SLOW"


class Watch(WorkerPlugin):
    """Note when a worker is up, and when tasks begin and end on it."""

    name = "watch"

    def __init__(self) -> None:
        self.file = os.open(os.environ[FILE], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.worker: Any = None
        self.hoard = b""

    def setup(self, worker: Any) -> None:
        """A worker has the plugin."""
        self.worker = worker

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """A task goes from one state to another."""
        if finish == "executing":
            self.note("begun", key)
            self._be_greedy()
        elif start == "executing":
            self.note("ended" if finish == "memory" else finish, key)

    def note(self, what: str, key: Any = "") -> None:
        """Write a line, whole."""
        name = key[0] if isinstance(key, tuple) else key
        place = "".join(f".{part}" for part in key[1:]) if isinstance(key, tuple) else ""
        line = f"{time.time():.3f} {os.getpid()} {self.worker.name} {what} {name}{place}\n"
        os.write(self.file, line.encode())

    def _be_greedy(self) -> None:
        greed = Path(os.environ[GREED])
        if greed.exists():
            greed.unlink()
            self.hoard = b"x" * int(self.worker.memory_manager.memory_limit)
            time.sleep(5)  # its nanny looks ten times a second
            os.kill(os.getpid(), signal.SIGABRT)


def write_slowly() -> None:
    """Make this process one with a slow disk."""
    from nimare_dask.parallel import execute

    write, seconds = execute._write_block, float(os.environ[SLOW])

    @functools.wraps(write)
    def slow(*given: Any) -> None:
        select.select([], [], [], seconds)  # time.sleep fails where the clock is faketime's
        write(*given)

    execute._write_block = slow


async def dask_setup(worker: Any) -> None:
    """What `--preload` calls."""
    if float(os.environ[SLOW]):
        write_slowly()
    watch = Watch()
    await worker.plugin_add(plugin=watch, name="watch")
    watch.note("made")
