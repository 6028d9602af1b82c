"""From measurements to a table that says what was to be reached, and whether it was."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich import box
from rich.table import Table

from tests.benchmarks.formats_report import format_rows
from tests.benchmarks.group_report import group_rows
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import n_cores
from tests.benchmarks.pairs_report import pair_rows
from tests.benchmarks.row import Row, ends, peak_of, seconds_of, z_difference

#: How many times faster than NiMARE, with all cores.
TIMES_FASTER = {"load": 6, "fit": 4, "topics": 25, "words": 150}
#: Seconds within which a saved corpus opens.
OPEN_SECONDS = 0.5
#: Resident memory that no process of ours may pass.
PEAK_MB = 2000.0
#: Seconds for the coactivation of all parcels with all cores.
COACTIVATION_SECONDS = 10.0
#: Largest difference of z from NiMARE's in the fit of two groups.
Z_DIFFERENCE = 0.001

_PACKAGES = ("nimare-dask", "nimare", "dask", "numba", "numpy", "scipy", "xarray", "zarr")


def rows(ours: dict[str, Any], peer: dict[str, Any], inputs: Inputs) -> list[Row]:
    """The lines for what was measured, in the order of the jobs."""
    table: list[Row] = []
    if "load" in ours:
        table.append(_against_peer("load", "load, save", ours["load"], peer.get("load"), None))
        seconds = seconds_of(ours["open"])
        table.append(
            Row(
                job="open again",
                one_thread=seconds[0],
                all_cores=seconds[1],
                must_reach=f"{OPEN_SECONDS:g} s",
                reached=max(seconds) <= OPEN_SECONDS,
                peak_mb=peak_of(ours["open"]),
            )
        )
    if "fit" in ours:
        table.append(_against_peer("fit", "fit", ours["fit"], peer.get("fit"), None))
        if "fit" in peer:
            theirs = peer["fit"]
            same = all(run["n_selected"] == theirs["n_selected"] for run in ours["fit"].values())
            table.append(z_difference("fit", ours["fit"], theirs, Z_DIFFERENCE, same=same))
    for job, kind in (("topics", "topic"), ("words", "word")):
        if job in ours:
            n = next(iter(ours[job].values()))["n_features"]
            facts = peer.get("decoder")
            extended = facts and facts["fixed_seconds"] + n * facts[f"seconds_per_{kind}"]
            table.append(_against_peer(job, f"{n:,} {job}", ours[job], facts, extended))
    if "words-few" in ours:
        few, many = ours["words-few"], ours["words"]
        seconds = seconds_of(few)
        table.append(
            Row(
                job=f"{inputs.n_words_few:,} words",
                one_thread=seconds[0],
                all_cores=seconds[1],
                peak_mb=peak_of(few),
            )
        )
        growth = {n: many[n]["peak_mb"] / few[n]["peak_mb"] for n in few}
        first, last = (growth[n] for n in ends(few))
        table.append(
            Row(
                job=f"memory, {inputs.n_words:,} to {inputs.n_words_few:,} words",
                one_thread=first,
                all_cores=last,
                unit="x",
            )
        )
    if "coactivation" in ours:
        table.append(_coactivation(ours["coactivation"]))
    table += format_rows(ours, peer)
    table += group_rows(ours, peer)
    table += pair_rows(ours, peer)
    largest = max(peak_of(by_threads) for by_threads in ours.values())
    table.append(
        Row(
            job="memory, largest",
            must_reach=f"{PEAK_MB:,.0f} MB",
            reached=largest <= PEAK_MB,
            peak_mb=largest,
        )
    )
    return table


def _coactivation(ours: dict[str, Any]) -> Row:
    seconds, peak = seconds_of(ours), peak_of(ours)
    return Row(
        job=f"coactivation of {next(iter(ours.values()))['n_parcels']} parcels, counts and z",
        one_thread=seconds[0],
        all_cores=seconds[1],
        must_reach=f"{COACTIVATION_SECONDS:g} s",
        reached=seconds[1] < COACTIVATION_SECONDS and peak < PEAK_MB,
        peak_mb=peak,
    )


def _against_peer(
    job: str,
    name: str,
    ours: dict[str, Any],
    peer: dict[str, Any] | None,
    peer_seconds: float | None,
) -> Row:
    seconds = seconds_of(ours)
    theirs = None if peer is None else peer_seconds or peer["seconds"]
    return Row(
        job=name,
        one_thread=seconds[0],
        all_cores=seconds[1],
        peer=theirs,
        must_reach=f"1/{TIMES_FASTER[job]}",
        reached=None if theirs is None else seconds[1] * TIMES_FASTER[job] <= theirs,
        peak_mb=peak_of(ours),
        peer_peak_mb=None if peer is None else peer["peak_mb"],
    )


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
    if unit == "z":
        return f"{value:.1e}"
    if unit != "s":
        return f"{value:,.{0 if value >= 1000 else 2}f} {unit}"
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
