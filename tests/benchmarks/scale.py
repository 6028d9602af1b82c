"""How it grows: ``python -m tests.benchmarks.scale``, or ``make bench-scale``.

First one and two worker processes of one thread each, with real work: the Monte Carlo null of ALE,
the null of shuffled labels, and maps of all features that workers write. Then hundreds of workers
(:mod:`tests.benchmarks.swarm`), whose tasks sleep as long as the real ones were measured to take.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import dask
import psutil
from rich.console import Console
from rich.table import Table

import nimare_dask as nd
from nimare_dask.config import DATA_VARIABLE
from nimare_dask.nulls.jobs import Job
from nimare_dask.nulls.stored import job_of
from nimare_dask.parallel.execute import Report
from tests.benchmarks import report, swarm
from tests.benchmarks.group import estimator_of, null_job
from tests.benchmarks.inputs import Inputs, real_inputs, small_inputs
from tests.benchmarks.jobs import groups
from tests.benchmarks.measure import peak_mb

#: What must be reached: throughput of two workers against twice that of one, and MB of a worker.
EFFICIENCY, WORKER_MB, WORKER_MB_FEATURES = 0.85, 1500, 2000

#: Iterations of each null, and features of the maps; a minute or two of one worker at most.
FULL = {"ale": 3000, "labels": 5000, "features": 3000}
QUICK = {"ale": 60, "labels": 60, "features": 4}


@dataclass(frozen=True)
class Grown:
    """What so many workers did.

    Attributes
    ----------
    job
        Which work.
    n_workers
        Worker processes.
    seconds
        Whole calls, from the opened corpus to the end.
    first_seconds
        From the call to its first result.
    n_tasks
        Tasks of a call.
    bytes_per_task
        All that went through sockets of this machine in a call, of each task.
    worker_mb
        Largest resident memory of a worker.
    """

    job: str
    n_workers: int
    seconds: list[float]
    first_seconds: list[float]
    n_tasks: int
    bytes_per_task: float
    worker_mb: float


class Watch:
    """Takes the reports of a call: when the first result came, and how many tasks there were."""

    def __init__(self) -> None:
        self.began, self.first, self.n = time.perf_counter(), 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        if done and not self.first:
            self.first = time.perf_counter() - self.began
        self.n += bool(done)


#: A call, given a seed and what takes its reports.
Call = Callable[[int, Report], object]


def works(inputs: Inputs, folder: Path) -> dict[str, tuple[Call, Callable[[], object]]]:
    """Each kind of work, and something small of the same kind, which workers do first."""
    amounts = QUICK if inputs.quick else FULL
    space = nd.load_space(inputs.mask)
    many, corpus, words = map(nd.open_corpus, (inputs.many, inputs.corpus, inputs.words))
    ale, paths = estimator_of("ale"), count()
    fitted = ale.fit(many, space=space)
    pair = groups(corpus, inputs.topic)
    names = [str(name) for name in words["feature"].values[: amounts["features"]]]

    def null_of_ale(seed: int, report: Report) -> object:
        return nd.monte_carlo_null(
            ale,
            many,
            space=space,
            n_iters=amounts["ale"],
            random_state=seed,
            maps=fitted,
            report=report,
        )

    def null_of_labels(seed: int, report: Report) -> object:
        return nd.label_permutation_null(
            nd.MKDAChi2(),
            *pair,
            space=space,
            n_iters=amounts["labels"],
            random_state=seed,
            report=report,
        )

    def maps(seed: int, report: Report, chosen: Sequence[str] = names) -> object:
        made = nd.MKDAChi2().fit_features(
            words, threshold=1, features=chosen, space=space, chunks="feature"
        )
        path = folder / f"maps_{next(paths)}.zarr"
        corrected = nd.correct_fdr(made.sel(effect=["association"]))
        nd.save_result(corrected[["z", "z_fdr_indep"]], path, report=report)
        shutil.rmtree(path)
        return None

    chi2_job = job_of(
        nd.label_permutation_null(nd.MKDAChi2(), *pair, space=space, n_iters=1, random_state=0)
    )
    return {
        "ale": (null_of_ale, lambda: _everywhere(null_job(ale, many, space))),
        "labels": (null_of_labels, lambda: _everywhere(chi2_job)),
        "features": (maps, lambda: maps(0, Watch(), names[: len(names) // 16 or 1])),
    }


def _everywhere(job: Job) -> None:
    """Do an iteration on every worker, which loads its kernels."""
    from distributed import get_client

    get_client().run(_do_one, job)


def _do_one(job: Job) -> None:
    job.run(0, 1)


#: zarr and its compressor would take the cores of other workers.
_ONE_THREAD = {"ZARR_THREADING__MAX_WORKERS": 1, "BLOSC_NTHREADS": 1}


@contextmanager
def workers(n: int) -> Iterator[Any]:
    """So many worker processes of one thread each."""
    from distributed import Client, LocalCluster

    environment = "distributed.nanny.pre-spawn-environ"
    with (
        dask.config.set(
            {"scheduler": None, environment: dask.config.get(environment) | _ONE_THREAD}
        ),
        LocalCluster(
            n_workers=n, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n)
        yield client


def grow(inputs: Inputs, folder: Path, name: str, n: int, runs: int) -> Grown:
    """Measure one kind of work on so many workers."""
    call, warm = works(inputs, folder)[name]
    seconds, firsts, sent, n_tasks = [], [], [], 0
    with workers(n) as client:
        warm()
        for run in range(runs):
            before = _socket_bytes()
            watch = Watch()
            call(run, watch)
            seconds.append(time.perf_counter() - watch.began)
            firsts.append(watch.first)
            sent.append((_socket_bytes() - before) / watch.n)
            n_tasks = watch.n
        largest = max(client.run(peak_mb).values())
    return Grown(name, n, seconds, firsts, n_tasks, median(sent), largest)


def _socket_bytes() -> int:
    """Bytes that were sent on the loopback device so far; workers talk through it."""
    devices = psutil.net_io_counters(pernic=True)
    return int(next(devices[name].bytes_sent for name in ("lo", "lo0") if name in devices))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write them as JSON; 1 where something was not reached."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small simulated corpus")
    parser.add_argument("--only", choices=["workers", "swarm"], help="one of the two parts")
    parser.add_argument(
        "--work", choices=FULL, nargs="+", default=list(FULL), help="of the workers; else all"
    )
    parser.add_argument("--runs", type=int, default=3, help="calls of which the median counts (3)")
    parser.add_argument(
        "--out", type=Path, default=Path(".benchmarks") / "scale.json", help="JSON to write"
    )
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False)
    with tempfile.TemporaryDirectory(prefix="nimare_dask_scale_") as name:
        folder = Path(name)
        data = os.environ.get(DATA_VARIABLE)
        if chosen.quick or not data:
            inputs = small_inputs(folder / "inputs")
        else:
            inputs = real_inputs(Path(data), folder / "inputs")
        grown, swarms = [], []
        if chosen.only != "swarm":
            for job in chosen.work:
                for n in (1, 2):
                    console.print(f"{job} on {n} worker(s) ...", style="dim")
                    grown.append(grow(inputs, folder, job, n, chosen.runs))
        if chosen.only != "workers":
            for plan in swarm.plans(inputs, quick=chosen.quick or not data):
                console.print(f"{plan.name} on {plan.n_workers} workers ...", style="dim")
                swarms.append(swarm.measure(plan, folder))
    facts = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "tests.benchmarks.scale", *arguments]),
        "data": inputs.text,
        **report.machine(),
    }
    console.print(
        f"{facts['date']}   {facts['command']}\n{facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory_gb']} GB, {facts['system']}, Python {facts['python']}\n{facts['data']}"
    )
    reached = True
    if grown:
        table, reached = workers_table(grown)
        console.print(table)
    if swarms:
        table, well = swarm.table(swarms)
        reached = reached and well
        console.print(table)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    written = {**facts, "workers": list(map(asdict, grown)), "swarm": list(map(asdict, swarms))}
    chosen.out.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return 0 if chosen.quick else int(not reached)


def workers_table(grown: Sequence[Grown]) -> tuple[Table, bool]:
    """One row for each kind of work and number of workers, and whether all was reached."""
    table = Table(title="Worker processes of one thread each, real work; medians")
    for column in (
        "work",
        "workers",
        "seconds",
        "efficiency",
        "first result",
        "tasks",
        "sent/task",
    ):
        table.add_column(column, justify="right")
    table.add_column("worker at most", justify="right")
    alone = {each.job: median(each.seconds) for each in grown if each.n_workers == 1}
    reached = True
    for each in grown:
        efficiency = alone[each.job] / (median(each.seconds) * each.n_workers)
        most = WORKER_MB_FEATURES if each.job == "features" else WORKER_MB
        well = efficiency >= EFFICIENCY and each.worker_mb <= most
        reached = reached and well
        table.add_row(
            each.job,
            str(each.n_workers),
            f"{median(each.seconds):.2f}",
            f"{efficiency:.2f}{'' if well else ' (not reached)'}",
            f"{median(each.first_seconds):.2f} s",
            f"{each.n_tasks:,}",
            f"{each.bytes_per_task / 1e3:,.0f} kB",
            f"{each.worker_mb:,.0f} MB",
        )
    return table, reached


if __name__ == "__main__":
    sys.exit(main())
