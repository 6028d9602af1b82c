"""All measurements of a run, one fresh process after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.amounts import SAMPLE_SIZE, amounts_of
from tests.benchmarks.command import OUT
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import (
    n_cores,
    run_command,
    run_group,
    run_group_peer,
    run_ours,
    run_peer,
)

#: Jobs of one group of analyses; the others are of many features.
GROUP_JOBS = ("iteration", "approximate", "command", "scaling", "memory", "whole")
JOBS = ("load", "fit", "topics", "words", *GROUP_JOBS)
#: Jobs that NiMARE does too.
PEER_JOBS = ("load", "fit", "topics", "words", "iteration", "approximate", "command")

#: Jobs that use one thread, whatever there is.
_ONE_THREAD = ("iteration", "approximate", "whole")

Measurements = dict[str, Any]
Say = Callable[[str], object]


class Process(NamedTuple):
    """One fresh process: its name, which begins with that of its job, and what it is told."""

    name: str
    options: dict[str, Any]

    @property
    def job(self) -> str:
        return self.name.partition("-")[0]


def measure_ours(
    inputs: Inputs, jobs: Sequence[str], folder: Path, *, threads: Sequence[int], say: Say
) -> Measurements:
    """Our processes: for each job and number of threads, what it printed."""
    found: Measurements = {}
    for job in jobs:
        for process in _processes(job, inputs):
            for n in _threads(job, threads):
                say(f"{process.name}, {n} thread{'s' * (n > 1)}")
                measured = _measure(inputs, process, folder, n)
                found.setdefault(process.name, {})[str(n)] = measured
    return found


def _measure(inputs: Inputs, process: Process, folder: Path, n: int) -> dict[str, Any]:
    if process.job == "command":
        amounts = amounts_of(inputs)
        words = our_command(inputs, amounts.command)
        done = run_command(words, folder, runs=amounts.command_runs, threads=n)
        return {"n_iters": amounts.command, **done}
    if process.job in GROUP_JOBS:
        return run_group(inputs, process.job, folder, threads=n, options=process.options)
    return run_ours(inputs, process.job, folder, threads=n, **process.options)


def our_command(inputs: Inputs, n_iters: int) -> list[str]:
    """A corrected ALE map of a corpus, as images."""
    words = [sys.executable, "-m", "nimare_dask", "ale", inputs.few, OUT, "--mask", inputs.mask]
    return [*words, "--sample-size", str(SAMPLE_SIZE), "--n-iters", str(n_iters), "--seed", "0"]


def peer_command(inputs: Inputs, studyset: str, n_iters: int) -> list[str]:
    """The same of NiMARE, from a file with the same analyses."""
    program = [sys.executable, "-m", "tests.benchmarks.peer_command"]
    return [*program, studyset, inputs.mask, OUT, str(n_iters)]


def measure_peer(
    inputs: Inputs, jobs: Sequence[str], folder: Path, *, say: Say, extend: bool = False
) -> Measurements:
    """NiMARE's processes, with only what `jobs` needs.

    With `extend` its command is run with few iterations, and its time extended to all of them.
    """
    found: Measurements = {}
    if {"load", "fit", "topics", "words"} & set(jobs):
        wanted = ["fit"] if "fit" in jobs else []
        wanted += ["decoder"] if {"topics", "words"} & set(jobs) else []
        say(f"NiMARE: {', '.join(['load', *wanted])} (some minutes)")
        found |= run_peer(inputs, wanted, folder)
    group = [job for job in jobs if job in GROUP_JOBS and job in PEER_JOBS]
    if group:
        say(f"NiMARE: {', '.join(group)}")
        found |= run_group_peer(inputs, group, folder)
    if "command" in group:
        studyset = found["command"].pop("studyset")
        found["command"] = _measure_peer_command(inputs, studyset, folder, extend, say)
    return found


def _measure_peer_command(
    inputs: Inputs, studyset: str, folder: Path, extend: bool, say: Say
) -> dict[str, Any]:
    amounts = amounts_of(inputs)
    counts = amounts.extended if extend else (amounts.command,)
    measured: dict[str, Any] = {}
    for n_iters in counts:
        say(f"NiMARE: command, {n_iters:,} iterations")
        words = peer_command(inputs, studyset, n_iters)
        runs = amounts.extended_runs if extend else 1
        measured[str(n_iters)] = run_command(words, folder, runs=runs, threads=1)
    return {
        "n_iters": amounts.command,
        "by_iterations": measured,
        "peak_mb": max(run["peak_mb"] for run in measured.values()),
    }


def all_threads() -> tuple[int, ...]:
    """One thread and all cores."""
    return tuple(sorted({1, n_cores()}))


def _threads(job: str, threads: Sequence[int]) -> Sequence[int]:
    if job in _ONE_THREAD:
        return (1,)
    return (1, 2) if job == "scaling" else threads


def _processes(job: str, inputs: Inputs) -> list[Process]:
    if job == "load":
        return [Process("load", {}), Process("open", {})]
    if job == "words":
        return [
            Process("words", {"n_features": inputs.n_words}),
            Process("words-few", {"n_features": inputs.n_words_few}),
        ]
    if job in ("iteration", "approximate"):
        sizes = ("few", "many") if job == "iteration" else ("few", "many", "all")
        return [Process(f"{job}-{size}", {"size": size}) for size in sizes]
    if job == "scaling":
        kinds = {"threads": False, "workers": True}
        return [Process(f"{job}-{name}", {"workers": kind}) for name, kind in kinds.items()]
    if job == "memory":
        return [
            Process(f"{job}-{size}-{n}", {"size": size, "n_iters": n})
            for size, counts in amounts_of(inputs).memory.items()
            for n in counts
        ]
    return [Process(job, {})]
