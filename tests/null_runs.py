"""Null iterations that several test files run: here, or as a process of their own that is killed.

``python -m tests.null_runs STORE [SCHEDULER]`` is the long run, which says how far it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.estimators.prepared import OneSample, Prepared
from nimare_dask.nulls.monte_carlo import relocate
from nimare_dask.nulls.relocation import Relocation
from nimare_dask.parallel import checkpoints
from tests.builders import coarse_space, small_space

ROOT = Path(__file__).resolve().parents[1]
SPACE = small_space()
NAMES = ["ale", "mkda", "kda", "scale"]
#: Iterations of the long run, and of one of its batches, which takes some tenths of a second.
LONG_ITERS, LONG_BATCH = 1500, 75


@cache
def corpus(seed: int = 0) -> xr.Dataset:
    """Twelve analyses of one to about ten foci, of three sample sizes."""
    made = nd.simulate_corpus(
        12, n_foci=60, n_features=2, effects_per_feature=1, space=SPACE, random_state=seed
    )
    sizes = np.array([9, 16, 40, 16] * 3, np.float32)
    return made.assign(analysis_sample_size=("analysis", sizes))


@cache
def estimator(name: str) -> OneSample:
    """One of each kind, with footprints that reach some voxels."""
    made: dict[str, OneSample] = {
        "ale": nd.ALE(kernel=nd.ALEKernel(fwhm=24)),
        "mkda": nd.MKDADensity(kernel=nd.MKDAKernel(r=15)),
        "weighted": nd.MKDADensity(
            kernel=nd.MKDAKernel(r=15), weighting="sample_size", n_histogram_bins=500
        ),
        "kda": nd.KDA(kernel=nd.KDAKernel(r=15)),
        "scale": nd.SCALE(xyz=corpus(1)["focus_xyz"].values, kernel=nd.ALEKernel(fwhm=24)),
    }
    return made[name]


@cache
def maps(name: str) -> xr.Dataset | None:
    """A fit, which spares each run the approximate null; None for SCALE, which has none."""
    chosen: Any = estimator(name)
    return None if name == "scale" else chosen.fit(corpus(), space=SPACE, null_method="fft")


def run(name: str = "mkda", n_iters: int = 40, **settings: Any) -> xr.Dataset:
    """The null of a small corpus, a few milliseconds."""
    given = {"space": SPACE, "random_state": 5, "voxel_thresh": 0.05, "maps": maps(name)}
    return nd.monte_carlo_null(estimator(name), corpus(), n_iters=n_iters, **{**given, **settings})


def job(name: str, *, seed: int = 5, **settings: Any) -> Relocation:
    """What the iterations of such a run are."""
    prepared = Prepared(estimator(name), corpus(), SPACE)
    given = {"voxel_thresh": 0.05, "coverage": "brain", "maps": maps(name), "tfce": None}
    return relocate(estimator(name), prepared, SPACE, random_state=seed, **{**given, **settings})


def assert_same_null(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Everything that iterations leave behind, bit by bit."""
    names = [name for name in expected.data_vars if str(name).startswith("null_")]
    assert {"null_max", "null_histogram"} <= set(names)
    assert [name for name in found.data_vars if str(name).startswith("null_")] == names
    assert found["inference"].values.tolist() == expected["inference"].values.tolist()
    for name in names:
        one, other = found[name].values, expected[name].values
        assert one.dtype == other.dtype and found[name].dims == expected[name].dims
        assert_array_equal(one.view(np.int64), other.view(np.int64), err_msg=str(name))


def threads(n: int) -> AbstractContextManager[Any]:
    """Run on `n` threads, also beside a client."""
    manager: AbstractContextManager[Any] = dask.config.set(scheduler="threads", num_workers=n)
    return manager


def n_done(store: Path) -> int:
    """Iterations in whole batches of a store; 0 when there is none yet."""
    if not store.exists():
        return 0
    return checkpoints.progress(checkpoints.open_checkpoint(store)).n_done


def names_in(folder: Path) -> list[str]:
    """What is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


# the long run


def long_run(store: Path | None, **settings: Any) -> xr.Dataset:
    """A null of some seconds on one core, in twenty batches."""
    space = coarse_space()
    many = nd.simulate_corpus(
        200, n_foci=6000, n_features=2, effects_per_feature=1, space=space, random_state=3
    )
    return nd.monte_carlo_null(
        nd.MKDADensity(),
        many,
        space=space,
        n_iters=LONG_ITERS,
        batch=LONG_BATCH,
        random_state=11,
        store=store,
        **settings,
    )


@cache
def long_expected() -> xr.Dataset:
    """What the long run gives when nothing happens to it."""
    with threads(2):
        return long_run(None)


def start_long_run(store: Path, scheduler: str = "") -> subprocess.Popen[str]:
    """The long run as a process; each line of its output is the number of iterations done."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.null_runs", str(store), scheduler],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_until(process: subprocess.Popen[str], done: int) -> int:
    """Read the output of a long run until so many iterations are done; gives how many are."""
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if int(line) >= done:
            return int(line)
    raise AssertionError(f"ended before {done} iterations:\n{process.stderr.read()}")


def _main(store: str, scheduler: str = "") -> None:
    from distributed import Client

    with Client(scheduler) if scheduler else threads(2):
        try:
            long_run(Path(store), report=lambda done, total: print(done))
        except nd.WorkerError as error:
            print(f"WorkerError: {error}", file=sys.stderr)
            sys.exit(3)


if __name__ == "__main__":
    _main(*sys.argv[1:])
