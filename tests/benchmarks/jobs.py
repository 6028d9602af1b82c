"""What this package does in each job, and how long it takes.

As a program (``python -m tests.benchmarks.jobs``) it reads one job as JSON from standard input,
does it in this fresh process and prints one line of JSON: seconds of each repetition and the
largest resident memory. The first, short repetition is not measured: it loads compiled kernels.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dask
import nibabel as nib
import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

import nimare_dask as nd
from tests.benchmarks.inputs import TOPIC_THRESHOLD, Inputs
from tests.benchmarks.measure import peak_mb

#: Measured repetitions of each job; the median counts.
REPETITIONS = {"load": 3, "open": 5, "fit": 5, "topics": 3, "words": 1, "coactivation": 3}

#: Parcels of the atlas whose coactivation is measured.
N_PARCELS, N_PARCELS_QUICK = 400, 12


def load(inputs: Inputs, path: Path) -> Path:
    """Tables and features of a database to a saved corpus."""
    files = [(inputs.features, inputs.vocabulary)]
    corpus = nd.read_neurosynth(inputs.coordinates, inputs.metadata, features=files)
    return nd.save_corpus(corpus, path)


def groups(corpus: xr.Dataset, feature: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Analyses with the topic, and the rest."""
    mask = nd.has_label(corpus, feature, TOPIC_THRESHOLD)
    return nd.select(corpus, mask), nd.select(corpus, ~mask)


def fit(pair: tuple[xr.Dataset, xr.Dataset], space: nd.Space) -> xr.Dataset:
    """One meta-analysis of two groups."""
    return nd.MKDAChi2().fit(*pair, space=space)


def topics(
    corpus: xr.Dataset, space: nd.Space, path: Path, features: list[str] | None = None
) -> Path:
    """Association and uniformity z of all topics to zarr."""
    maps = nd.MKDAChi2().fit_features(
        corpus, threshold=TOPIC_THRESHOLD, features=features, space=space
    )
    return nd.save_result(maps[["z"]], path)


def words(
    corpus: xr.Dataset, space: nd.Space, path: Path, features: list[str] | None = None
) -> Path:
    """Association z of all words, and the same corrected for false discoveries, to zarr."""
    maps = nd.MKDAChi2().fit_features(
        corpus, threshold=1, features=features, space=space, chunks="feature"
    )
    corrected = nd.correct_fdr(maps.sel(effect=["association"]))
    return nd.save_result(corrected[["z", "z_fdr_indep"]], path)


def parcels(space: nd.Space, n: int) -> nib.Nifti1Image:
    """An atlas of `n` parcels: each voxel of the mask belongs to the nearest of drawn voxels."""
    ijk = space.voxel_ijk.astype(float)
    seeds = np.random.default_rng(0).choice(len(ijk), n, replace=False)
    values = np.zeros(space.shape, np.int32)
    values[space.mask] = cKDTree(ijk[seeds]).query(ijk)[1] + 1
    return nib.Nifti1Image(values, space.affine)


def coactivation(corpus: xr.Dataset, space: nd.Space, path: Path, atlas: nib.Nifti1Image) -> Path:
    """Counts and association z of every parcel with every voxel, to zarr."""
    maps = nd.coactivation(corpus, atlas, space=space).sel(effect=["association"])
    return nd.save_result(maps[["n_both", "z"]], path)


def measure(inputs: Inputs, job: str, folder: Path, n_features: int | None) -> dict[str, Any]:
    """Do one job; where results are written, each repetition has a path of its own in `folder`."""
    if job == "load":
        return _times(job, folder, lambda path: load(inputs, path))
    if job == "open":
        return _times(job, folder, lambda _: nd.open_corpus(inputs.corpus))
    space = nd.load_space(inputs.mask)
    corpus = nd.open_corpus(inputs.words if job == "words" else inputs.corpus)
    if job == "fit":
        pair = groups(corpus, inputs.feature)
        z_file = folder.parent / f"{folder.name}_z.npy"  # outlives `folder`

        def keep(maps: xr.Dataset) -> None:
            np.save(z_file, maps["z"].sel(effect="association").values)

        timed = _times(job, folder, lambda _: fit(pair, space), after=keep)
        return timed | {"z": str(z_file), "n_selected": pair[0].sizes["analysis"]}
    run = topics if job == "topics" else words
    if job == "coactivation":
        n_parcels = N_PARCELS_QUICK if inputs.quick else N_PARCELS
        atlas = parcels(space, n_parcels)
        timed = _times(job, folder, lambda path: coactivation(corpus, space, path, atlas))
        return timed | {"n_parcels": n_parcels}
    names = [str(name) for name in corpus["feature"].values[:n_features]]
    facts: dict[str, Any] = {"n_features": len(names)}

    def look(path: Path) -> None:
        facts["stored_mb"] = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6

    return facts | _times(
        job,
        folder,
        lambda path: run(corpus, space, path, names),
        first=lambda path: run(corpus, space, path, names[:2]),
        after=look,
    )


def _times(
    job: str,
    folder: Path,
    action: Callable[[Path], Any],
    *,
    first: Callable[[Path], Any] | None = None,
    after: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    seconds, processor = [], []
    for number in range(REPETITIONS[job] + 1):
        path = folder / f"{job}_{number}.zarr"
        began, began_processor = time.perf_counter(), time.process_time()
        result = (first or action)(path) if number == 0 else action(path)
        if number:
            seconds.append(time.perf_counter() - began)
            processor.append(time.process_time() - began_processor)
            if after is not None:
                after(result)
        shutil.rmtree(path, ignore_errors=True)
    return {"seconds": seconds, "processor_seconds": processor}


def scheduler(threads: int) -> AbstractContextManager[Any]:
    """Dask's threads, or none of them for one."""
    if threads == 1:
        return dask.config.set(scheduler="synchronous")
    return dask.config.set(scheduler="threads", num_workers=threads)


def main() -> None:
    request = json.load(sys.stdin)
    inputs = Inputs(**request["inputs"])
    with scheduler(request["threads"]), tempfile.TemporaryDirectory(dir=request["folder"]) as here:
        timed = measure(inputs, request["job"], Path(here), request["n_features"])
    print(json.dumps(timed | {"peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
