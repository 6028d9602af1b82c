"""All measurements of a run, one fresh process after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import n_cores, run_ours, run_peer

JOBS = ("load", "fit", "topics", "words")

Measurements = dict[str, Any]
Say = Callable[[str], object]


def measure_ours(
    inputs: Inputs, jobs: Sequence[str], folder: Path, *, threads: Sequence[int], say: Say
) -> Measurements:
    """Our processes: for each job and number of threads, what it printed."""
    found: Measurements = {}
    for job in jobs:
        for name, n_features in _processes(job, inputs):
            for n in threads:
                say(f"{name}, {n} thread{'s' * (n > 1)}")
                asked = name.partition("-")[0]
                found.setdefault(name, {})[str(n)] = run_ours(
                    inputs, asked, folder, threads=n, n_features=n_features
                )
    return found


def measure_peer(inputs: Inputs, jobs: Sequence[str], folder: Path, *, say: Say) -> Measurements:
    """NiMARE's process, with only what `jobs` needs."""
    wanted = ["fit"] if "fit" in jobs else []
    wanted += ["decoder"] if {"topics", "words"} & set(jobs) else []
    say(f"NiMARE: {', '.join(['load', *wanted])} (some minutes)")
    return run_peer(inputs, wanted, folder)


def all_threads() -> tuple[int, ...]:
    """One thread and all cores."""
    return tuple(sorted({1, n_cores()}))


def _processes(job: str, inputs: Inputs) -> list[tuple[str, int | None]]:
    if job == "load":
        return [("load", None), ("open", None)]
    if job == "words":
        return [("words", inputs.n_words), ("words-few", inputs.n_words_few)]
    return [(job, None)]
