"""Lines of the table for the jobs of formats of files."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from tests.benchmarks.formats import FORMATS
from tests.benchmarks.row import Row, ends, peak_of, seconds_of

#: Memory that no reader may pass.
READ_MB = 2000.0
#: Seconds within which the saved corpus opens.
OPEN_SECONDS = 1.0


def format_rows(ours: dict[str, Any], peer: dict[str, Any]) -> list[Row]:
    """The lines for what was measured, in the order of the formats."""
    return [row for job in FORMATS if f"{job}-read" in ours for row in _rows(job, ours, peer)]


def _rows(job: str, ours: dict[str, Any], peer: dict[str, Any]) -> Iterator[Row]:
    read, theirs, times = ours[f"{job}-read"], peer.get(job), FORMATS[job].times
    measured = read[ends(read)[0]]
    one, many = seconds_of(read)
    seconds = None if theirs is None else median(theirs["seconds"])
    sizes = ("n_study", "n_analysis", "n_focus")
    same = theirs is None or all(theirs[name] == measured[name] for name in sizes)
    fits = same and peak_of(read) < READ_MB
    yield Row(
        job=f"read {job}, {measured['n_study']:,} studies, {measured['n_focus']:,} points",
        one_thread=one,
        all_cores=many,
        peer=seconds,
        must_reach=f"1/{times}, {READ_MB:,.0f} MB",
        reached=fits and max(one, many) * times <= seconds if seconds is not None else None,
        peak_mb=peak_of(read),
        peer_peak_mb=None if theirs is None else theirs["peak_mb"],
    )
    for part, most in (("write", None), ("open", OPEN_SECONDS)):
        done = ours[f"{job}-{part}"]
        one, many = seconds_of(done)
        yield Row(
            job=f"write {job}" if part == "write" else f"open the corpus of {job} again",
            one_thread=one,
            all_cores=many,
            must_reach="" if most is None else f"{most:g} s",
            reached=None if most is None else max(one, many) <= most,
            peak_mb=peak_of(done),
        )
