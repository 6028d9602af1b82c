"""From measurements to a table that says what was to be reached, and whether it was."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import psutil
from rich import box
from rich.table import Table

from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import n_cores

#: How many times faster than NiMARE, with all cores.
TIMES_FASTER = {"load": 6, "fit": 4, "topics": 25, "words": 150}
#: Seconds within which a saved corpus opens.
OPEN_SECONDS = 0.5
#: Resident memory that no process of ours may pass.
PEAK_MB = 2000.0
#: Largest difference of z from NiMARE's in the fit of two groups.
Z_DIFFERENCE = 0.001

_PACKAGES = ("nimare-dask", "nimare", "dask", "numba", "numpy", "scipy", "xarray", "zarr")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; a number is None where it was not measured or has no meaning."""

    job: str
    one_thread: float | None = None
    all_cores: float | None = None
    peer: float | None = None
    unit: Literal["s", "z", "x"] = "s"  # seconds, difference of z scores, times as much
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


def rows(ours: dict[str, Any], peer: dict[str, Any], inputs: Inputs) -> list[Row]:
    """The lines for what was measured, in the order of the jobs."""
    table = []
    if "load" in ours:
        table.append(_against_peer("load", "load, save", ours["load"], peer.get("load"), None))
        seconds = _seconds(ours["open"])
        table.append(
            Row(
                job="open again",
                one_thread=seconds[0],
                all_cores=seconds[1],
                must_reach=f"{OPEN_SECONDS:g} s",
                reached=max(seconds) <= OPEN_SECONDS,
                peak_mb=_peak(ours["open"]),
            )
        )
    if "fit" in ours:
        table.append(_against_peer("fit", "fit", ours["fit"], peer.get("fit"), None))
        if "fit" in peer:
            table.append(_difference(ours["fit"], peer["fit"]))
    for job, kind in (("topics", "topic"), ("words", "word")):
        if job in ours:
            n = next(iter(ours[job].values()))["n_features"]
            facts = peer.get("decoder")
            extended = facts and facts["fixed_seconds"] + n * facts[f"seconds_per_{kind}"]
            table.append(_against_peer(job, f"{n:,} {job}", ours[job], facts, extended))
    if "words-few" in ours:
        few, many = ours["words-few"], ours["words"]
        seconds = _seconds(few)
        table.append(
            Row(
                job=f"{inputs.n_words_few:,} words",
                one_thread=seconds[0],
                all_cores=seconds[1],
                peak_mb=_peak(few),
            )
        )
        growth = {n: many[n]["peak_mb"] / few[n]["peak_mb"] for n in few}
        first, last = (growth[n] for n in _ends(few))
        table.append(
            Row(
                job=f"memory, {inputs.n_words:,} to {inputs.n_words_few:,} words",
                one_thread=first,
                all_cores=last,
                unit="x",
            )
        )
    largest = max(_peak(by_threads) for by_threads in ours.values())
    table.append(
        Row(
            job="memory, largest",
            must_reach=f"{PEAK_MB:,.0f} MB",
            reached=largest <= PEAK_MB,
            peak_mb=largest,
        )
    )
    return table


def _against_peer(
    job: str,
    name: str,
    ours: dict[str, Any],
    peer: dict[str, Any] | None,
    peer_seconds: float | None,
) -> Row:
    seconds = _seconds(ours)
    theirs = None if peer is None else peer_seconds or peer["seconds"]
    return Row(
        job=name,
        one_thread=seconds[0],
        all_cores=seconds[1],
        peer=theirs,
        must_reach=f"1/{TIMES_FASTER[job]}",
        reached=None if theirs is None else seconds[1] * TIMES_FASTER[job] <= theirs,
        peak_mb=_peak(ours),
        peer_peak_mb=None if peer is None else peer["peak_mb"],
    )


def _difference(ours: dict[str, Any], peer: dict[str, Any]) -> Row:
    one, many = (
        float(np.abs(np.load(ours[n]["z"]) - np.load(peer["z"])).max()) for n in _ends(ours)
    )
    same = all(run["n_selected"] == peer["n_selected"] for run in ours.values())
    return Row(
        job="fit, largest difference of z",
        one_thread=one,
        all_cores=many,
        unit="z",
        must_reach=f"{Z_DIFFERENCE:g}",
        reached=same and max(one, many) <= Z_DIFFERENCE,
    )


def _ends(by_threads: dict[str, Any]) -> tuple[str, str]:
    """The fewest and the most threads; twice the same where there is one."""
    threads = sorted(by_threads, key=int)
    return threads[0], threads[-1]


def _seconds(by_threads: dict[str, Any]) -> tuple[float, float]:
    first, last = (median(by_threads[n]["seconds"]) for n in _ends(by_threads))
    return first, last


def _peak(by_threads: dict[str, Any]) -> float:
    return max(float(run["peak_mb"]) for run in by_threads.values())


def as_table(table: list[Row]) -> Table:
    """The lines for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("job")
    for head in (
        f"ours\n1 thread|ours\n{n_cores()} cores|NiMARE\nn_cores=1|ratio\n1 thread|"
        f"ratio\n{n_cores()} cores|must\nreach|reached?|peak MB\nours|peak MB\nNiMARE"
    ).split("|"):
        shown.add_column(head, justify="right")
    for row in table:
        shown.add_row(
            row.job,
            _amount(row.one_thread, row.unit),
            _amount(row.all_cores, row.unit),
            _amount(row.peer, row.unit),
            _fraction(row.ratio_one_thread),
            _fraction(row.ratio),
            row.must_reach,
            {True: "yes", False: "NO", None: ""}[row.reached],
            _whole(row.peak_mb),
            _whole(row.peer_peak_mb),
        )
    return shown


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit != "s":
        return f"{value:.2f} {unit}" if unit == "x" else f"{value:.1e}"
    digits = 0 if value >= 1000 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{digits}f} s"


def _fraction(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"1/{ratio:,.0f}" if ratio >= 10 else f"1/{ratio:.1f}"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {
        "processor": _processor(),
        "cores": n_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
