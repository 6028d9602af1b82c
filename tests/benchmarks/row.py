"""A line of the table, and what is read off measurements."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; a number is None where it was not measured or has no meaning."""

    job: str
    one_thread: float | None = None
    all_cores: float | None = None
    peer: float | None = None
    #: Seconds, milliseconds, difference of z scores, times as much.
    unit: Literal["s", "ms", "z", "x"] = "s"
    must_reach: str = ""
    reached: bool | None = None
    peak_mb: float | None = None
    peer_peak_mb: float | None = None

    @property
    def ratio_one_thread(self) -> float | None:
        """NiMARE's time in units of ours with one thread."""
        return self._ratio(self.one_thread)

    @property
    def ratio(self) -> float | None:
        """NiMARE's time in units of ours with all cores."""
        return self._ratio(self.all_cores)

    def _ratio(self, ours: float | None) -> float | None:
        return None if self.peer is None or not ours else self.peer / ours


def z_difference(
    job: str, ours: dict[str, Any], peer: dict[str, Any], most: float, *, same: bool = True
) -> Row:
    """The largest difference of two maps of z, for the fewest and the most threads.

    It may be `most`; `same` says whether both sides had the same analyses.
    """
    one, many = (
        float(np.abs(np.load(ours[n]["z"]) - np.load(peer["z"])).max()) for n in ends(ours)
    )
    return Row(
        job=f"{job}, largest difference of z",
        one_thread=one,
        all_cores=many,
        unit="z",
        must_reach=f"{most:g}",
        reached=same and max(one, many) <= most,
    )


def ends(by_threads: dict[str, Any]) -> tuple[str, str]:
    """The fewest and the most threads; twice the same where there is one."""
    threads = sorted(by_threads, key=int)
    return threads[0], threads[-1]


def seconds_of(by_threads: dict[str, Any]) -> tuple[float, float]:
    """Medians with the fewest and the most threads."""
    first, last = (median(by_threads[n]["seconds"]) for n in ends(by_threads))
    return first, last


def peak_of(by_threads: dict[str, Any]) -> float:
    """The largest memory of all runs of a job, in MB."""
    return max(float(run["peak_mb"]) for run in by_threads.values())
