"""Lines of the table for the jobs of one group of analyses."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from tests.benchmarks.amounts import KINDS, N_PLANNED, N_PLANNED_CORES
from tests.benchmarks.row import Row, ends, peak_of, seconds_of, z_difference

#: How many times faster than NiMARE, one thread each.
TIMES_FASTER = {"iteration": 8, "command": 5}
#: How many times as fast two threads, or worker processes, are as one.
GAIN = 1.7
#: How many times as much memory ten times as many iterations may need.
GROWTH = 1.05
#: Largest difference of z from NiMARE's in a fit of one group. An ALE value that lies between two
#: bins of the null, 1e-5 apart, may be put into either; a bin is 0.002 of z with 50 analyses.
Z_DIFFERENCE = 0.01
#: Resident memory that a null of the whole group must not pass.
GROUP_MB = 1000.0

_NAMES = {"ale": "ALE", "mkda": "MKDADensity", "kda": "KDA"}


def group_rows(ours: dict[str, Any], peer: dict[str, Any]) -> list[Row]:
    """The lines for what was measured, in the order of the jobs."""
    return [
        *_iterations(ours, peer.get("iteration", {})),
        *_fits(ours, peer.get("approximate", {})),
        *_command(ours, peer.get("command")),
        *_scaling(ours),
        *_memory(ours),
        *_whole(ours),
    ]


def one_of(by_threads: dict[str, Any]) -> dict[str, Any]:
    """What was measured with the fewest threads."""
    found: dict[str, Any] = by_threads[ends(by_threads)[0]]
    return found


def _analyses(measured: dict[str, Any]) -> str:
    return f"{measured['n_analyses']:,} analyses"


def _iterations(ours: dict[str, Any], peer: dict[str, Any]) -> Iterator[Row]:
    times = TIMES_FASTER["iteration"]
    for size in ("few", "many"):
        if f"iteration-{size}" not in ours:
            continue
        measured = one_of(ours[f"iteration-{size}"])
        for kind in KINDS:
            seconds = median(measured["kinds"][kind])
            theirs = peer.get(size, {}).get(kind)
            yield Row(
                job=f"{_NAMES[kind]}, {_analyses(measured)}: one iteration",
                one_thread=1000 * seconds,
                peer=None if theirs is None else 1000 * theirs["seconds"],
                unit="ms",
                must_reach=f"1/{times}",
                reached=None if theirs is None else seconds * times <= theirs["seconds"],
                peak_mb=measured["peak_mb"],
                peer_peak_mb=None if theirs is None else theirs["peak_mb"],
            )


def _fits(ours: dict[str, Any], peer: dict[str, Any]) -> Iterator[Row]:
    for size in ("few", "many", "all"):
        by_threads = ours.get(f"approximate-{size}")
        if by_threads is None:
            continue
        measured, theirs = one_of(by_threads), peer.get(size)
        name = f"ALE, {_analyses(measured)}: fit ({measured['method']})"
        yield Row(
            job=name,
            one_thread=median(measured["seconds"]),
            peer=None if theirs is None else median(theirs["seconds"]),
            peak_mb=peak_of(by_threads),
            peer_peak_mb=None if theirs is None else theirs["peak_mb"],
        )
        if theirs is not None:
            yield z_difference(name, by_threads, theirs, Z_DIFFERENCE)


def extended(peer: dict[str, Any]) -> float:
    """Seconds of the peer's command: measured, or on the line through two numbers of iterations."""
    n_iters, measured = int(peer["n_iters"]), peer["by_iterations"].get(str(peer["n_iters"]))
    if measured is not None:
        return float(median(measured["seconds"]))
    once, each = line(peer["by_iterations"])
    return once + each * n_iters


def line(by_iterations: dict[str, Any]) -> tuple[float, float]:
    """What is paid once and what an iteration costs, from two numbers of iterations."""
    found = {int(n): median(run["seconds"]) for n, run in by_iterations.items()}
    (low, least), (high, most) = sorted(found.items())
    each = (most - least) / (high - low)
    return least - low * each, each


def _command(ours: dict[str, Any], peer: dict[str, Any] | None) -> Iterator[Row]:
    if "command" not in ours:
        return
    by_threads, times = ours["command"], TIMES_FASTER["command"]
    one, many = seconds_of(by_threads)
    theirs = None if peer is None else extended(peer)
    name = f"ALE command, {one_of(by_threads)['n_iters']:,} iterations"
    if peer is not None and str(peer["n_iters"]) not in peer["by_iterations"]:
        name += f" (NiMARE: extended from {' and '.join(peer['by_iterations'])})"
    yield Row(
        job=name,
        one_thread=one,
        all_cores=many,
        peer=theirs,
        must_reach=f"1/{times}",
        reached=None if theirs is None else one * times <= theirs,
        peak_mb=peak_of(by_threads),
        peer_peak_mb=None if peer is None else peer["peak_mb"],
    )


def _scaling(ours: dict[str, Any]) -> Iterator[Row]:
    for kind, name in (("threads", "threads"), ("workers", "worker processes")):
        by_threads = ours.get(f"scaling-{kind}")
        if by_threads is None:
            continue
        one, two = seconds_of(by_threads)
        measured = one_of(by_threads)
        yield Row(
            job=f"ALE, {_analyses(measured)}: {measured['n_iters']:,} iterations, 1 and 2 {name}",
            one_thread=one,
            all_cores=two,
            peak_mb=peak_of(by_threads),
        )
        yield Row(
            job=f"gain of 2 {name}",
            all_cores=one / two,
            unit="x",
            must_reach=f"{GAIN:g} x",
            reached=one / two >= GAIN,
        )


def _memory(ours: dict[str, Any]) -> Iterator[Row]:
    for size in ("few", "many"):
        names = [name for name in ours if name.startswith(f"memory-{size}-")]
        for name in names:
            by_threads = ours[name]
            one, many = seconds_of(by_threads)
            measured = one_of(by_threads)
            yield Row(
                job=f"ALE, {_analyses(measured)}: fit, {measured['n_iters']:,} iterations, FWE",
                one_thread=one,
                all_cores=many,
                peak_mb=peak_of(by_threads),
            )
        if len(names) < 2:
            continue
        fewer, more = (ours[name] for name in names)
        measured = one_of(fewer)
        # Of the process, and of it while it iterates: a fit that needs more would hide a growth.
        growth = {
            n: max(more[n][part] / fewer[n][part] for part in ("peak_mb", "null_mb")) for n in fewer
        }
        first, last = (growth[n] for n in ends(growth))
        yield Row(
            job=f"memory, {one_of(more)['n_iters']:,} to {measured['n_iters']:,} iterations",
            one_thread=first,
            all_cores=last,
            unit="x",
            must_reach=f"{GROWTH:g} x",
            reached=max(growth.values()) <= GROWTH,
        )
        if size == "many":
            largest = max(peak_of(ours[name]) for name in names)
            yield Row(
                job=f"memory, {measured['n_foci']:,} foci",
                must_reach=f"{GROUP_MB:,.0f} MB",
                reached=largest < GROUP_MB,
                peak_mb=largest,
            )


def _whole(ours: dict[str, Any]) -> Iterator[Row]:
    if "whole" not in ours:
        return
    measured = one_of(ours["whole"])
    yield Row(
        job=f"ALE, {_analyses(measured)}: one iteration",
        one_thread=1000 * median(measured["seconds"]),
        unit="ms",
        peak_mb=peak_of(ours["whole"]),
    )
    yield Row(
        job=(
            f"{N_PLANNED:,} of them: {measured['n_tasks']:,} tasks, {N_PLANNED_CORES} cores, "
            f"{measured['seconds_on_cores']:,.0f} s (computed)"
        )
    )
