"""All measurements of a run, one fresh process after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.amounts import EFFECTS, SAMPLE_SIZE, Topics, amounts_of
from tests.benchmarks.command import OUT
from tests.benchmarks.formats import FORMATS, PARTS
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import (
    n_cores,
    run_command,
    run_group,
    run_group_peer,
    run_ours,
    run_peer,
)

#: Jobs of one group of analyses.
GROUP_JOBS = ("iteration", "approximate", "command", "scaling", "memory", "whole")
#: Jobs of two groups of analyses.
PAIR_JOBS = ("permutation", "features", "subtraction", "pair-scaling")
JOBS = ("load", "fit", "topics", "words", "coactivation", *FORMATS, *GROUP_JOBS, *PAIR_JOBS)
#: Jobs of two groups that NiMARE does too, and all such jobs.
_PAIR_PEER_JOBS = ("permutation", "subtraction")
PEER_JOBS = (
    *("load", "fit", "topics", "words"),
    *FORMATS,
    *("iteration", "approximate", "command"),
    *_PAIR_PEER_JOBS,
)

#: Jobs that use one thread, whatever there is.
_ONE_THREAD = ("iteration", "approximate", "whole")
#: Corrections of the job of features: name, topics, effects.
_FEATURE_PARTS: tuple[tuple[str, Topics, list[str]], ...] = (
    ("one", "one", ["association"]),
    ("one-all-effects", "one", list(EFFECTS)),
    ("all", "all", ["association"]),
)

Measurements = dict[str, Any]
Say = Callable[[str], object]


class Process(NamedTuple):
    """One fresh process: its name, which begins with that of its job, and what it is told.

    `threads` are those that it is measured with, where it is not those of all processes of the job;
    `part` is what a job of two groups does.
    """

    name: str
    options: dict[str, Any]
    threads: Sequence[int] | None = None
    part: str = ""

    @property
    def job(self) -> str:
        # `open` is a process of the job `load`, and a job to whom it is told.
        return next((job for job in JOBS if f"{self.name}-".startswith(f"{job}-")), self.name)


def measure_ours(
    inputs: Inputs,
    jobs: Sequence[str],
    folder: Path,
    *,
    threads: Sequence[int],
    say: Say,
    full: bool = False,
) -> Measurements:
    """Our processes: for each job and number of threads, what it printed.

    With `full` nothing of ours is extended from a part of it.
    """
    found: Measurements = {}
    for job in jobs:
        for process in _processes(job, inputs, full):
            for n in process.threads or _threads(job, threads):
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
    if process.job in FORMATS:
        return run_group(
            inputs, process.job, folder, threads=n, options=process.options, module="formats"
        )
    if process.job in GROUP_JOBS:
        return run_group(inputs, process.job, folder, threads=n, options=process.options)
    if process.job in PAIR_JOBS:
        return run_group(
            inputs, process.part, folder, threads=n, options=process.options, module="pairs"
        )
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
    for job in (job for job in jobs if job in FORMATS):
        say(f"NiMARE: {job}")
        found |= run_group_peer(inputs, [job], folder, module="formats_peer")
    for job in (job for job in jobs if job in _PAIR_PEER_JOBS):
        say(f"NiMARE: {job} (some minutes)")
        found |= run_group_peer(inputs, [job], folder, module="pairs_peer")
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


def _processes(job: str, inputs: Inputs, full: bool) -> list[Process]:
    if job == "load":
        return [Process("load", {}), Process("open", {})]
    if job == "words":
        return [
            Process("words", {"n_features": inputs.n_words}),
            Process("words-few", {"n_features": inputs.n_words_few}),
        ]
    if job in FORMATS:
        threads = {"write": (1,)}  # once: the others read what it left
        return [Process(f"{job}-{part}", {"part": part}, threads.get(part)) for part in PARTS]
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
    if job in PAIR_JOBS:
        return list(_pair_processes(job, inputs, full))
    return [Process(job, {})]


def _pair_processes(job: str, inputs: Inputs, full: bool) -> Iterator[Process]:
    amounts = amounts_of(inputs)
    if job == "permutation":
        yield Process(f"{job}-iteration", {}, (1,), "shuffles")
        for kind, threads in (("threads", (1, 2)), ("workers", (2,))):
            options = {"topics": "one", "n_iters": amounts.pair_null, "workers": kind == "workers"}
            yield Process(f"{job}-{kind}", options, threads, "null")
    elif job == "features":
        for name, topics, effects in _FEATURE_PARTS:
            options = {"topics": topics, "effects": effects}
            yield Process(f"{job}-{name}", options, None, "corrected")
        yield Process(f"{job}-words", {"full": full}, None, "words")
    elif job == "pair-scaling":
        for topics, n_iters in amounts.pair_scaling.items():
            options = {"topics": topics, "n_iters": n_iters, "workers": True}
            yield Process(f"{job}-{topics}", options, (1, 2), "null")
    else:
        yield Process(job, {}, (1,), "differences")
