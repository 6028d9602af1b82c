"""What this package does in each job of two groups of analyses, and how long it takes.

As a program (``python -m tests.benchmarks.pairs``) it reads one job as JSON from standard input,
does it in this fresh process and prints one line of JSON. What is measured is warm: something small
of the same kind has been done before.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import nimare_dask as nd
from nimare_dask.estimators.two_groups import TwoGroups, pool
from nimare_dask.nulls.cost import batch_size
from nimare_dask.nulls.jobs import Job
from nimare_dask.nulls.stored import job_of
from tests.benchmarks.amounts import (
    N_WORD_ITERS,
    SAMPLE_SIZE,
    VOXEL_THRESH,
    Topics,
    amounts_of,
)
from tests.benchmarks.group import shared_null, time_runs
from tests.benchmarks.inputs import TOPIC_THRESHOLD, Inputs
from tests.benchmarks.jobs import groups, scheduler
from tests.benchmarks.measure import peak_mb

#: What is measured of iterations, and with which uncorrected p of voxels in clusters.
MEASURED = {"clusters": VOXEL_THRESH, "voxels": None}

#: Everything that a correction gives, and what is kept of thousands of features.
_ALL, _Z = ["z", "p_fwe", "z_fwe", "logp_fwe"], ["z", "z_fwe"]


def subtraction() -> nd.ALESubtraction:
    """With the same sample size for all analyses."""
    return nd.ALESubtraction(kernel=nd.ALEKernel(sample_size=SAMPLE_SIZE))


def null_job(
    estimator: TwoGroups,
    pair: tuple[xr.Dataset, xr.Dataset],
    space: nd.Space,
    voxel_thresh: float | None = VOXEL_THRESH,
) -> Any:
    """What `label_permutation_null` makes of its arguments before it iterates."""
    return estimator.permutation_job(
        pool(*pair, space), random_state=0, voxel_thresh=voxel_thresh, stat_thresh=None
    )


def shuffles(inputs: Inputs) -> dict[str, Any]:
    """Iterations of shuffled labels with clusters of three effects, and what is built before them.

    ``seconds`` are of one iteration; ``tables_seconds`` from located foci to the first iteration,
    ``ready_seconds`` the same from the saved corpus.
    """
    amounts = amounts_of(inputs)
    space = nd.load_space(inputs.mask)
    tables, ready = [], []
    for run in range(amounts.ready + 1):
        began = time.perf_counter()
        pair = groups(nd.open_corpus(inputs.corpus), inputs.topic)
        job = null_job(nd.MKDAChi2(), pair, space)
        located = time.perf_counter()
        job.tables()
        if run:
            tables.append(time.perf_counter() - located)
            ready.append(time.perf_counter() - began)
    job.run(0, 2)
    return {
        "n_selected": int(job.sizes[0]),
        "n_analyses": job.n_analyses,
        "effects": list(job.effects),
        "inference": job.labels["inference"],
        "tables_seconds": tables,
        "ready_seconds": ready,
        "seconds": _each(job, amounts.pair_each["shuffle"], amounts.runs),
    }


def differences(inputs: Inputs) -> dict[str, Any]:
    """Iterations of ALE subtraction, with clusters and without."""
    amounts = amounts_of(inputs)
    space = nd.load_space(inputs.mask)
    pair = nd.open_corpus(inputs.few), nd.open_corpus(inputs.other)
    n, found = amounts.pair_each["difference"], {}
    for name, voxel_thresh in MEASURED.items():
        null_job(subtraction(), pair, space, voxel_thresh).run(0, 2)
        began = time.perf_counter()
        job = null_job(subtraction(), pair, space, voxel_thresh)
        ready = time.perf_counter() - began
        job.run(0, 2)
        found[name] = {"ready_seconds": ready, "seconds": _each(job, n, amounts.runs)}
    return {"n_analyses": [group.sizes["analysis"] for group in pair], "measured": found}


def _each(job: Job, n: int, runs: int) -> list[float]:
    """Seconds of an iteration in runs of `n`, as batches have them."""
    seconds = time_runs(lambda run: job.run(run * n, (run + 1) * n), runs)
    return [each / n for each in seconds]


def null(
    inputs: Inputs, folder: Path, threads: int, topics: Topics, n_iters: int, workers: bool
) -> dict[str, Any]:
    """A whole null of shuffled labels with its store, shared by threads or worker processes.

    Of one topic with three effects, or of all topics with association. The call is measured from
    the opened corpus, so it holds what each process builds for itself.
    """
    space, corpus = nd.load_space(inputs.mask), nd.open_corpus(inputs.corpus)
    pair = groups(corpus, inputs.topic)
    maps, stores = _fit(corpus, space, topics, inputs), count()

    def run_null(run: int, n_iters: int = n_iters) -> xr.Dataset:
        asked: dict[str, Any] = {"space": space, "n_iters": n_iters, "random_state": run}
        asked["store"] = folder / f"null_{next(stores)}.zarr"
        if topics == "one":
            return nd.label_permutation_null(nd.MKDAChi2(), *pair, **asked)
        return nd.feature_null(corpus, sizes=maps, **asked)

    with scheduler(1):
        job = job_of(run_null(0, 1))
    runs = amounts_of(inputs).pair_runs[topics]
    found = shared_null(run_null, job, runs, threads if workers else None)
    return _facts(job, n_iters) | {"n_features": maps.sizes["feature"], **found}


def corrected(inputs: Inputs, folder: Path, topics: Topics, effects: list[str]) -> dict[str, Any]:
    """Maps of one topic or of all, their null and its store, and the corrected maps to zarr.

    From the saved corpus. With association alone it is `feature_null`, one null for all topics.
    """
    space = nd.load_space(inputs.mask)
    facts: dict[str, Any] = {}

    def run_all(n_iters: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            here, corpus = Path(name), nd.open_corpus(inputs.corpus)
            asked: dict[str, Any] = {"space": space, "n_iters": n_iters, "random_state": 0}
            asked["store"] = here / "null.zarr"
            if effects == ["association"]:
                maps = _fit(corpus, space, topics, inputs)
                found = nd.feature_null(corpus, sizes=maps, **asked)
            else:
                pair = groups(corpus, inputs.topic)
                maps = nd.MKDAChi2().fit(*pair, space=space).sel(effect=effects)
                found = nd.label_permutation_null(nd.MKDAChi2(), *pair, **asked)
            written = nd.save_result(nd.correct_fwe(maps, found)[_ALL], here / "maps.zarr")
            facts["n_features"] = maps.sizes.get("feature", 1)
            facts["stored_mb"] = _megabytes(written)

    amounts = amounts_of(inputs)
    run_all(2)
    seconds = time_runs(lambda _: run_all(amounts.pair_null), amounts.pair_runs[topics])
    return {"n_iters": amounts.pair_null, "effects": effects, "seconds": seconds, **facts}


def words(inputs: Inputs, folder: Path, full: bool) -> dict[str, Any]:
    """One null for all title words, interrupted and taken on, and the correction of their z.

    Not `full`, some iterations and the correction of some words, from frequent to rare, are
    extended to all of them in ``seconds``.
    """
    few, more, n_corrected = amounts_of(inputs).words
    more = N_WORD_ITERS if full else more
    space, corpus = nd.load_space(inputs.mask), nd.open_corpus(inputs.words)
    nd.feature_null(corpus, sizes=[1, 2], n_iters=1, space=space, random_state=0)
    every = corpus["feature"].values.tolist()
    maps = _fit(corpus, space, "all", inputs, threshold=1)
    reported: list[int] = []

    def run_null(n_iters: int) -> tuple[xr.Dataset, float]:
        reported.clear()
        began = time.perf_counter()
        made = nd.feature_null(
            corpus,
            sizes=maps,
            n_iters=n_iters,
            space=space,
            random_state=0,
            store=folder / "null.zarr",
            report=lambda done, _: reported.append(done),
        )
        return made, time.perf_counter() - began

    _, first = run_null(few)
    made, second = run_null(more)
    resumed = reported[0] == few and made.sizes["iteration"] == more
    # Each call prepares for itself, and the second has `more - few` iterations to do.
    each = (second - first) / (more - 2 * few)
    if not full:
        places = np.linspace(0, len(every) - 1, min(n_corrected, len(every))).astype(int)
        chosen = [every[place] for place in places]
        maps = _fit(corpus, space, "all", inputs, threshold=1, features=chosen)
    began = time.perf_counter()
    written = nd.save_result(nd.correct_fwe(maps, made)[_Z], folder / "maps.zarr")
    correcting = time.perf_counter() - began
    share = maps.sizes["feature"] / len(every)
    null_seconds = first + (second if full else each * (N_WORD_ITERS - few))
    return {
        "n_features": len(every),
        "n_sizes": made.sizes["size"],
        "n_iters": more if full else N_WORD_ITERS,
        "measured_iters": [few, more],
        "n_corrected": maps.sizes["feature"],
        "full": full,
        "resumed": resumed,
        "iteration_seconds": each,
        "null_seconds": null_seconds,
        "correct_seconds": correcting / share,
        "seconds": [null_seconds + correcting / share],
        "stored_mb": _megabytes(written) / share,
    }


def _fit(
    corpus: xr.Dataset,
    space: nd.Space,
    topics: Topics,
    inputs: Inputs,
    *,
    threshold: float = TOPIC_THRESHOLD,
    features: list[str] | None = None,
) -> xr.Dataset:
    """Association of the topic, or of all features or some; lazy."""
    maps = nd.MKDAChi2().fit_features(
        corpus,
        threshold=threshold,
        features=[inputs.topic] if topics == "one" else features,
        space=space,
        chunks="feature",
    )
    return maps.sel(effect=["association"])


def _facts(job: Job, n_iters: int) -> dict[str, Any]:
    return {"n_iters": n_iters, "batch": batch_size(job, n_iters), **job.facts()}


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def measure(
    inputs: Inputs, job: str, folder: Path, threads: int, options: dict[str, Any]
) -> dict[str, Any]:
    """Do one job; `options` say what of it."""
    if job == "null":
        return null(inputs, folder, threads, **options)
    if job == "corrected":
        return corrected(inputs, folder, **options)
    if job == "words":
        return words(inputs, folder, **options)
    if job == "differences":
        return differences(inputs)
    assert job == "shuffles"
    return shuffles(inputs)


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    inputs, threads = Inputs(**request["inputs"]), request["threads"]
    with scheduler(threads), tempfile.TemporaryDirectory(dir=request["folder"]) as here:
        answer = measure(inputs, request["job"], Path(here), threads, request["options"])
    print(json.dumps({"peak_mb": peak_mb(), **answer}))


if __name__ == "__main__":
    main()
