"""What a person sees while something runs: plain sentences, and progress.

Progress is a bar on a terminal and a line every few seconds in a log, always on standard error, so
that standard output holds results only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.plan import say_seconds

#: The words after ``nimare-dask`` of the command that runs.
words_given: ContextVar[tuple[str, ...]] = ContextVar("words_given", default=())

#: Seconds between two lines in a log.
LOG_EVERY = 10.0


def say(message: str) -> None:
    """Write a sentence to standard error."""
    print(message, file=sys.stderr, flush=True)


def say_rate(rate: float, unit: str) -> str:
    """A rate for people: 152 iterations a second, 0.13 blocks a second."""
    return f"{rate:,.0f} {unit} a second" if rate >= 10 else f"{rate:.2g} {unit} a second"


class Pace:
    """How fast something goes and how long it will take, from what was done since it began.

    The first report says what was done before, by a run that this one goes on from; it counts
    neither for the rate nor for the remaining time. Another total, or less than before, is the
    first report of another thing, such as the next file.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.done, self.total, self.before = sys.maxsize, 0, 0
        self.began = self.now = time.monotonic()

    def tell(self, done: int, total: int) -> bool:
        """Take a report; say whether it is the first."""
        self.now = time.monotonic()
        first = done < self.done or (total != self.total and done < total)
        self.done, self.total = done, total
        if first:
            self.before, self.began = done, self.now
        return first

    def __str__(self) -> str:
        """The rate, and the remaining time while there is some; nothing while it is not known."""
        took = self.now - self.began
        if self.done <= self.before or took <= 0:
            return ""
        rate = (self.done - self.before) / took
        told = say_rate(rate, self.unit)
        if self.done < self.total:
            told += f", about {say_seconds((self.total - self.done) / rate)} left"
        return told


@contextmanager
def progress(label: str, unit: str = "blocks") -> Iterator[Report]:
    """Give a function to call with what is done and what there is to do, before and during it."""
    pace = Pace(unit)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=None, pace="")

            def show(done: int, total: int) -> None:
                pace.tell(done, total)
                bar.update(task, completed=done, total=total, pace=str(pace))

            yield show
        return
    last, said = time.monotonic(), -1

    def log(done: int, total: int) -> None:
        nonlocal last, said
        first = pace.tell(done, total)
        if first:
            if done:
                say(f"{label}: {done:,} of {total:,} {unit} were done before.")
        elif done != said and (done >= total or pace.now - last >= LOG_EVERY):
            told = f"{label}: {done:,} of {total:,} {unit} in {say_seconds(pace.now - pace.began)}"
            say(f"{told}, {pace}" if str(pace) else told)
        else:
            return
        last, said = pace.now, done

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
