"""Lines of the table for the jobs of two groups of analyses."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from tests.benchmarks.group_report import GAIN, extended, line, one_of
from tests.benchmarks.row import Row, peak_of, seconds_of

#: How many times faster than NiMARE an iteration is, one thread each, and what is aimed at.
TIMES_FASTER = {"permutation": 80, "subtraction": 8}
AIM = 140
#: Seconds from located foci to the first iteration, and of all iterations of one topic on two
#: cores.
READY_SECONDS, NULL_SECONDS = 6.0, 60.0
#: Resident memory of a process that shuffles labels of the whole database, and of thousands of
#: features.
PERMUTATION_MB, WORDS_MB = 1500.0, 2000.0
#: How many times as long all topics take as one, and what is aimed at.
TOPICS_TIMES, TOPICS_AIM = 12, 8


def pair_rows(ours: dict[str, Any], peer: dict[str, Any]) -> list[Row]:
    """The lines for what was measured, in the order of the jobs."""
    return [
        *_permutation(ours, peer.get("permutation")),
        *_features(ours),
        *_words(ours),
        *_subtraction(ours, peer.get("subtraction")),
        *_scaling(ours),
    ]


def _permutation(ours: dict[str, Any], peer: dict[str, Any] | None) -> Iterator[Row]:
    if "permutation-iteration" not in ours:
        return
    measured, times = one_of(ours["permutation-iteration"]), TIMES_FASTER["permutation"]
    once, each = (None, None) if peer is None else line(peer["by_iterations"])
    seconds = median(measured["seconds"])
    same = peer is None or peer["n_selected"] == measured["n_selected"]
    # Of 14,371 analyses: the topic against all others.
    name = f"labels, {measured['n_selected']:,} of {measured['n_analyses']:,} analyses"
    yield Row(
        job=f"{name}: one iteration (aim 1/{AIM})",
        one_thread=1000 * seconds,
        peer=None if each is None else 1000 * each,
        unit="ms",
        must_reach=f"1/{times}",
        reached=None if each is None else same and seconds * times <= each,
        peak_mb=measured["peak_mb"],
        peer_peak_mb=None if peer is None else peer["peak_mb"],
    )
    tables = median(measured["tables_seconds"])
    yield Row(
        job=f"{name}: preparation, located foci to ready",
        one_thread=tables,
        must_reach=f"{READY_SECONDS:g} s",
        reached=tables <= READY_SECONDS,
    )
    yield Row(
        job=f"{name}: preparation, saved corpus to ready",
        one_thread=median(measured["ready_seconds"]),
        peer=once,
    )
    threads, workers = ours["permutation-threads"], ours["permutation-workers"]
    one, two = seconds_of(threads)
    n_iters = f"{one_of(threads)['n_iters']:,} iterations"
    told = "" if peer is None else f" (NiMARE: extended from {' and '.join(peer['by_iterations'])})"
    theirs = None if peer is None else extended(peer)
    yield Row(
        job=f"{name}: {n_iters}, 1 and 2 threads{told}",
        one_thread=one,
        all_cores=two,
        peer=theirs,
        must_reach=f"{NULL_SECONDS:g} s",
        reached=two <= NULL_SECONDS,
        peak_mb=peak_of(threads),
        peer_peak_mb=None if peer is None else peer["peak_mb"],
    )
    _, shared = seconds_of(workers)
    yield Row(
        job=f"{name}: {n_iters}, 2 worker processes",
        all_cores=shared,
        peer=theirs,
        must_reach=f"{NULL_SECONDS:g} s",
        reached=shared <= NULL_SECONDS,
        peak_mb=peak_of(workers),
    )
    largest = max(peak_of(ours[job]) for job in ours if job.startswith("permutation-"))
    yield Row(
        job="memory, labels of the whole database",
        must_reach=f"{PERMUTATION_MB:,.0f} MB",
        reached=largest < PERMUTATION_MB,
        peak_mb=largest,
    )


def _features(ours: dict[str, Any]) -> Iterator[Row]:
    jobs = [f"features-{name}" for name in ("one", "one-all-effects", "all")]
    if jobs[0] not in ours:
        return
    for by_threads in map(ours.__getitem__, jobs):
        measured = one_of(by_threads)
        n, effects = measured["n_features"], measured["effects"]
        topics = "1 topic" if n == 1 else f"{n:,} topics"
        of = effects[0] if len(effects) == 1 else f"{len(effects)} effects"
        one, many = seconds_of(by_threads)
        yield Row(
            job=f"{topics}, {of}: {measured['n_iters']:,} iterations, FWE to zarr",
            one_thread=one,
            all_cores=many,
            peak_mb=peak_of(by_threads),
        )
    single, triple, every = (seconds_of(ours[job]) for job in jobs)
    n = one_of(ours[jobs[2]])["n_features"]
    for name, beside, most in (("same effect", single, TOPICS_TIMES), ("3 effects", triple, None)):
        times = [all_of / one for all_of, one in zip(every, beside, strict=True)]
        yield Row(
            job=f"{n:,} topics to 1, {name}" + (f" (aim {TOPICS_AIM} x)" if most else ""),
            one_thread=times[0],
            all_cores=times[1],
            unit="x",
            must_reach=f"{most} x" if most else "",
            reached=max(times) <= most if most else None,
        )


def _words(ours: dict[str, Any]) -> Iterator[Row]:
    if "features-words" not in ours:
        return
    by_threads = ours["features-words"]
    measured = one_of(by_threads)
    name = f"{measured['n_features']:,} words, {measured['n_iters']:,} iterations, FWE z to zarr"
    if not measured["full"]:
        name += (
            f" (extended from {measured['measured_iters'][1]:,} iterations and "
            f"{measured['n_corrected']:,} words)"
        )
    one, many = seconds_of(by_threads)
    largest = peak_of(by_threads)
    yield Row(
        job=name,
        one_thread=one,
        all_cores=many,
        must_reach=f"resumed, {WORDS_MB:,.0f} MB",
        reached=largest < WORDS_MB and all(run["resumed"] for run in by_threads.values()),
        peak_mb=largest,
    )


def _subtraction(ours: dict[str, Any], peer: dict[str, Any] | None) -> Iterator[Row]:
    if "subtraction" not in ours:
        return
    measured, times = one_of(ours["subtraction"]), TIMES_FASTER["subtraction"]
    groups = " and ".join(f"{n:,}" for n in measured["n_analyses"])
    for name, found in measured["measured"].items():
        seconds = median(found["seconds"])
        theirs = None if peer is None else peer[name]
        _, each = (None, None) if theirs is None else line(theirs["by_iterations"])
        what = "with clusters" if name == "clusters" else "voxels only"
        yield Row(
            job=f"ALE difference, {groups} analyses: one iteration, {what}",
            one_thread=1000 * seconds,
            peer=None if each is None else 1000 * each,
            unit="ms",
            must_reach=f"1/{times}",
            reached=None if each is None else seconds * times <= each,
            peak_mb=measured["peak_mb"],
            peer_peak_mb=None if theirs is None else theirs["peak_mb"],
        )


def _scaling(ours: dict[str, Any]) -> Iterator[Row]:
    for topics in ("one", "all"):
        by_threads = ours.get(f"pair-scaling-{topics}")
        if by_threads is None:
            continue
        one, two = seconds_of(by_threads)
        measured = one_of(by_threads)
        n = measured["n_features"]
        name = f"labels, {n:,} topic{'s' * (n > 1)}"
        yield Row(
            job=f"{name}: {measured['n_iters']:,} iterations, 1 and 2 worker processes",
            one_thread=one,
            all_cores=two,
            peak_mb=peak_of(by_threads),
        )
        yield Row(
            job=f"{name}: gain of 2 worker processes",
            all_cores=one / two,
            unit="x",
            must_reach=f"{GAIN:g} x",
            reached=one / two >= GAIN,
        )
