"""What this package does in each job of one group of analyses, and how long it takes.

As a program (``python -m tests.benchmarks.group``) it reads one job as JSON from standard input,
does it in this fresh process and prints one line of JSON. What is measured is warm: something small
of the same kind has been done before.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import dask
import numpy as np
import xarray as xr

import nimare_dask as nd
from nimare_dask.estimators.prepared import OneSample, Prepared
from nimare_dask.nulls.cost import batch_size
from nimare_dask.nulls.jobs import Job
from nimare_dask.nulls.monte_carlo import relocate
from nimare_dask.nulls.relocation import Relocation
from tests.benchmarks.amounts import (
    KINDS,
    N_PLANNED,
    N_PLANNED_CORES,
    SAMPLE_SIZE,
    VOXEL_THRESH,
    Kind,
    Size,
    amounts_of,
    corpus_of,
)
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.jobs import scheduler
from tests.benchmarks.measure import begin_peak, peak_mb


def estimator_of(kind: Kind) -> Any:
    """An estimator as the peer has it by default, with the same sample size for all analyses."""
    if kind == "ale":
        return nd.ALE(kernel=nd.ALEKernel(sample_size=SAMPLE_SIZE))
    return nd.MKDADensity() if kind == "mkda" else nd.KDA()


def null_job(estimator: OneSample, corpus: xr.Dataset, space: nd.Space) -> Relocation:
    """What `monte_carlo_null` makes of its arguments before it iterates."""
    return relocate(
        estimator,
        Prepared(estimator, corpus, space),
        space,
        random_state=0,
        voxel_thresh=VOXEL_THRESH,
        coverage="brain",
        maps=None,
        tfce=None,
    )


def iteration(inputs: Inputs, size: Size) -> dict[str, Any]:
    """Iterations of the null of each estimator: draws, sums, histogram, maximum and clusters."""
    amounts = amounts_of(inputs)
    space, corpus = _open(inputs, size)
    n, kinds = amounts.each[size], {}
    for kind in KINDS:
        job = null_job(estimator_of(kind), corpus, space)
        job.run(0, 2)
        seconds = time_runs(lambda run, job=job: job.run(run * n, (run + 1) * n), amounts.runs)
        kinds[kind] = [each / n for each in seconds]
    return _facts(corpus) | {"kinds": kinds}


def approximate(inputs: Inputs, size: Size, z_file: Path) -> dict[str, Any]:
    """A fit of ALE with the approximate null: folded, and by FFT for the whole database."""
    space, corpus = _open(inputs, size)
    estimator, method = estimator_of("ale"), "fft" if size == "all" else "fold"
    found: list[xr.Dataset] = []
    small = nd.open_corpus(inputs.few)
    estimator.fit(small, space=space, null_method=method)

    def fit(_: int) -> None:
        found[:] = [estimator.fit(corpus, space=space, null_method=method)]

    seconds = time_runs(fit, amounts_of(inputs).fits[size])
    np.save(z_file, found[0]["z"].values)
    return _facts(corpus) | {"seconds": seconds, "method": method, "z": str(z_file)}


def scaling(inputs: Inputs, workers: bool, threads: int) -> dict[str, Any]:
    """The null of ALE of the group, shared by threads, or by worker processes of one thread each.

    Workers are there and have done an iteration before the clock starts. What is measured is the
    whole call; what one iteration takes, ``ready_seconds``, is mostly not shared.
    """
    amounts = amounts_of(inputs)
    space, corpus = _open(inputs, "many")
    estimator = estimator_of("ale")
    maps = estimator.fit(corpus, space=space)
    job = null_job(estimator, corpus, space)
    job.run(0, 1)

    def null(run: int, n_iters: int = amounts.scaling) -> None:
        nd.monte_carlo_null(
            estimator, corpus, space=space, n_iters=n_iters, random_state=run, maps=maps
        )

    facts = _facts(corpus) | {"n_iters": amounts.scaling, "batch": batch_size(job, amounts.scaling)}
    return facts | shared_null(null, job, amounts.scaling_runs, threads if workers else None)


def shared_null(
    null: Callable[..., object], job: Job, runs: int, n_workers: int | None
) -> dict[str, Any]:
    """Time a null that threads share, or so many worker processes, which are warm by then.

    `null` gets the number of the run, and the number of iterations where it is not to do all.
    """

    def measured() -> dict[str, Any]:
        null(0, 1)
        (ready,) = time_runs(lambda run: null(run, 1), 1)
        return {"ready_seconds": ready, "seconds": time_runs(null, runs)}

    if n_workers is None:
        return measured()
    with _cluster(n_workers) as client:
        client.run(_warm, job)
        found = measured()
        return found | {"peak_mb": max(peak_mb(), *client.run(peak_mb).values())}


def _warm(job: Job) -> None:
    job.run(0, 1)


@contextmanager
def _cluster(n: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        dask.config.set(scheduler=None),  # threads that were asked for would be used before it
        LocalCluster(
            n_workers=n, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n)
        yield client


def memory(inputs: Inputs, size: Size, n_iters: int, folder: Path) -> dict[str, Any]:
    """Fit, null with its store, and correction of ALE, and the memory that they need."""
    space, corpus = _open(inputs, size)
    estimator = estimator_of("ale")
    began = time.perf_counter()
    maps = estimator.fit(corpus, space=space)
    before = peak_mb()
    begin_peak()
    null = nd.monte_carlo_null(
        estimator,
        corpus,
        space=space,
        n_iters=n_iters,
        random_state=0,
        maps=maps,
        store=folder / "null.zarr",
    )
    iterating = peak_mb()
    nd.correct_fwe(maps, null).load()
    return _facts(corpus) | {
        "seconds": [time.perf_counter() - began],
        "n_iters": n_iters,
        "null_mb": iterating,
        "peak_mb": max(before, peak_mb()),
    }


def whole(inputs: Inputs) -> dict[str, Any]:
    """An iteration of ALE of the whole database, and what many of them would be on a cluster."""
    space, corpus = _open(inputs, "all")
    began = time.perf_counter()
    job = null_job(estimator_of("ale"), corpus, space)
    ready = time.perf_counter() - began
    before = peak_mb()
    begin_peak()
    job.run(0, 1)
    seconds = time_runs(lambda run: job.run(run, run + 1), amounts_of(inputs).whole)
    batch = batch_size(job, 5000)
    n_tasks = -(-N_PLANNED // batch)
    each_core = -(-n_tasks // N_PLANNED_CORES) * batch  # iterations of the core that has most
    return _facts(corpus) | {
        "seconds": seconds,
        "ready_seconds": ready,
        "iterating_mb": peak_mb(),
        "peak_mb": max(before, peak_mb()),
        "batch": batch,
        "n_tasks": n_tasks,
        "seconds_on_cores": each_core * median(seconds),
    }


def _open(inputs: Inputs, size: Size) -> tuple[nd.Space, xr.Dataset]:
    return nd.load_space(inputs.mask), nd.open_corpus(corpus_of(inputs, size))


def _facts(corpus: xr.Dataset) -> dict[str, Any]:
    return {"n_analyses": corpus.sizes["analysis"], "n_foci": corpus.sizes["focus"]}


def time_runs(action: Callable[[int], object], runs: int) -> list[float]:
    """How long each run takes; `action` gets its number."""
    seconds = []
    for run in range(runs):
        began = time.perf_counter()
        action(run)
        seconds.append(time.perf_counter() - began)
    return seconds


def measure(
    inputs: Inputs, job: str, folder: Path, threads: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Do one job; `options` say which size of it."""
    if job == "iteration":
        return iteration(inputs, **options)
    if job == "approximate":
        z_file = folder.parent / f"{folder.name}_z.npy"  # outlives `folder`
        return approximate(inputs, z_file=z_file, **options)
    if job == "scaling":
        return scaling(inputs, threads=threads, **options)
    if job == "memory":
        return memory(inputs, folder=folder, **options)
    assert job == "whole"
    return whole(inputs)


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    inputs, threads = Inputs(**request["inputs"]), request["threads"]
    with scheduler(threads), tempfile.TemporaryDirectory(dir=request["folder"]) as here:
        answer = measure(inputs, request["job"], Path(here), threads, request["options"])
    print(json.dumps({"peak_mb": peak_mb(), **answer}))


if __name__ == "__main__":
    main()
