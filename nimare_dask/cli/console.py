"""What a person sees while something runs: plain sentences, and progress.

Progress is a bar on a terminal and a line every few seconds in a log, always on standard error, so
that standard output holds results only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.plan import say_seconds

#: Seconds between two lines in a log.
LOG_EVERY = 10.0


def say(message: str) -> None:
    """Write a sentence to standard error."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, unit: str = "blocks") -> Iterator[Report]:
    """Give a function to call with what is done and what there is to do."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=None)

            def show(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield show
        return
    started = last = time.monotonic()

    def log(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < LOG_EVERY:
            return
        last, took = now, now - started
        rate = done / max(took, 1e-9)
        left = "" if done >= total else f", about {say_seconds((total - done) / rate)} left"
        say(f"{label}: {done:,} of {total:,} {unit} in {say_seconds(took)}{left}")

    yield log


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


@contextmanager
def sentences_for_warnings() -> Iterator[None]:
    """Show each of the package's warnings once, as a sentence instead of a line of code."""
    import warnings

    shown: set[str] = set()
    before = warnings.showwarning

    def show(message, category, filename, lineno, file=None, line=None):  # type: ignore[no-untyped-def]
        from nimare_dask.errors import CorpusWarning

        if not issubclass(category, CorpusWarning):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            say(f"Note: {message}")

    with warnings.catch_warnings():
        from nimare_dask.errors import CorpusWarning

        warnings.simplefilter("always", CorpusWarning)
        warnings.showwarning = show
        yield
