"""Benchmarks beside NiMARE: ``python -m tests.benchmarks``, or ``make bench``.

With NIMARE_DASK_DATA set (the folder that holds neurosynth/) it measures the real database and
NiMARE beside it; without, a simulated database of the same size and no peer. Jobs are of many
features (load, fit, topics, words, coactivation), of formats of files, whose content is simulated
(nimads, parquet), of one group of analyses (iteration, approximate, command, scaling, memory,
whole), or of two (permutation, features, subtraction, pair-scaling).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from nimare_dask.config import DATA_VARIABLE
from tests.benchmarks import report
from tests.benchmarks.inputs import Inputs, real_inputs, simulated_inputs, small_inputs
from tests.benchmarks.row import Row
from tests.benchmarks.run import (
    JOBS,
    Measurements,
    all_threads,
    measure_ours,
    measure_peer,
)

_WIDTH = 132


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it as JSON; 1 where something was not reached."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    say = Console(stderr=True, highlight=False).print
    with tempfile.TemporaryDirectory(prefix="nimare_dask_bench_") as temporary:
        folder = Path(temporary)
        inputs, is_real = _inputs(chosen.quick, folder / "inputs", console)
        ours = measure_ours(
            inputs, chosen.jobs, folder, threads=all_threads(), say=say, full=chosen.full
        )
        peer = {}
        if (is_real or chosen.peer) and not chosen.no_peer:
            peer = measure_peer(inputs, chosen.jobs, folder, say=say, extend=chosen.extend_peer)
        table = report.rows(ours, peer, inputs)
    facts = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "tests.benchmarks", *arguments]),
        "data": inputs.text,
        **report.machine(),
    }
    _print(console, facts, table, peer.get("decoder"))
    lines = [
        asdict(row) | {"ratio": row.ratio, "ratio_one_thread": row.ratio_one_thread}
        for row in table
    ]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    written = {**facts, "table": lines, "ours": ours, "peer": peer}
    for run in _with_z(ours, peer):
        run.pop("z", None)  # a file that is gone
    chosen.out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    console.print(f"Written to {chosen.out}", soft_wrap=True)
    # A small corpus is no measure of what must be reached.
    return 0 if chosen.quick else int(any(row.reached is False for row in table))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    known = ",".join(JOBS)
    parser.add_argument("--jobs", type=_jobs, default=JOBS, help=f"some of {known} (all)")
    parser.add_argument("--quick", action="store_true", help="a small simulated corpus, no peer")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="NiMARE beside simulated data too; on the 4 mm of --quick its Gaussian is another one",
    )
    parser.add_argument("--no-peer", action="store_true", help="leave NiMARE out")
    parser.add_argument(
        "--extend-peer",
        action="store_true",
        help="run NiMARE's command with few iterations, and extend its time to all (the table says "
        "so)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="do all iterations of the null of words, and correct all of them (features; not so, "
        "both are extended from some)",
    )
    default = Path(".benchmarks") / "bench.json"
    parser.add_argument("--out", type=Path, default=default, help=f"JSON to write ({default})")
    return parser


def _jobs(text: str) -> tuple[str, ...]:
    asked = text.split(",")
    unknown = [job for job in asked if job not in JOBS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {','.join(JOBS)}")
    return tuple(job for job in JOBS if job in asked)


def _inputs(quick: bool, folder: Path, console: Console) -> tuple[Inputs, bool]:
    if quick:
        return small_inputs(folder), False
    data = os.environ.get(DATA_VARIABLE)
    if data:
        return real_inputs(Path(data), folder), True
    console.print(
        f"{DATA_VARIABLE} is unset, so the database is simulated and NiMARE is not measured; "
        "set it to the folder that holds neurosynth/."
    )
    return simulated_inputs(folder), False


def _with_z(ours: Measurements, peer: Measurements) -> Iterator[dict[str, Any]]:
    """Everything measured that may name a file of z."""
    for by_threads in ours.values():
        yield from by_threads.values()
    yield from (peer.get("fit", {}), *peer.get("approximate", {}).values())


def _print(
    console: Console,
    facts: dict[str, object],
    table: list[Row],
    decoder: dict[str, float] | None,
) -> None:
    versions = facts["versions"]
    assert isinstance(versions, dict)
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    console.print(
        f"{facts['date']}   {facts['command']}\n"
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gb']} GB, "
        f"{facts['system']}, Python {facts['python']}\n{named}\n{facts['data']}"
    )
    console.print(report.as_table(table))
    console.print(
        "Ours: medians of warm repetitions (words: one), each job in fresh processes; commands "
        "from their start, with nothing compiled. 'reached?' is said of all cores, for iterations "
        "and commands of one thread, for topics to 1 of both; times of NiMARE are with n_cores=1."
    )
    if decoder:
        console.print(
            f"NiMARE's CorrelationDecoder: {decoder['fixed_seconds']:.1f} s once, "
            f"{decoder['seconds_per_topic']:.2f} s a topic, {decoder['seconds_per_word']:.2f} s a "
            "word, extended to all of them. It gives association z only: no uniformity, no "
            "correction, nothing written."
        )


if __name__ == "__main__":
    sys.exit(main())
