"""Nulls of two groups that last some seconds: here, or as a process of their own that is killed.

``python -m tests.two_group_runs SCHEME STORE`` is such a run, which says how far it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from tests.builders import coarse_space
from tests.null_runs import ROOT, threads

SCHEMES = ["labels", "features", "foci", "difference"]
#: Iterations of a batch of each, which takes about a tenth of a second; twenty make a run.
BATCH = {"labels": 300, "features": 60, "foci": 25, "difference": 250}
BATCHES = 20


@cache
def _groups() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    corpus = nd.simulate_corpus(
        200,
        n_foci=4000,
        n_features=2,
        effects_per_feature=1,
        space=coarse_space(),
        random_state=3,
    )
    first = np.arange(200) % 4 == 0
    return corpus, nd.select(corpus, first), nd.select(corpus, ~first)


def run(scheme: str, store: Path | None, **settings: Any) -> xr.Dataset:
    """A null of two seconds or so on one core."""
    corpus, first, second = _groups()
    given: dict[str, Any] = {
        "space": coarse_space(),
        "n_iters": BATCHES * BATCH[scheme],
        "batch": BATCH[scheme],
        "voxel_thresh": 0.01,
        "random_state": 11,
        "store": store,
        **settings,
    }
    if scheme == "features":
        return nd.feature_null(corpus, sizes=[3, 20, 50, 120, 199], **given)
    if scheme == "foci":
        return nd.random_foci_null(nd.MKDAChi2(), first, second, **given)
    estimator: Any = nd.MKDAChi2()
    if scheme == "difference":
        estimator = nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=14))
    return nd.label_permutation_null(estimator, first, second, **given)


@cache
def expected(scheme: str) -> xr.Dataset:
    """What it gives when nothing happens to it."""
    with threads(2):
        return run(scheme, None)


def assert_same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Everything that iterations leave behind, bit by bit."""
    names = [str(name) for name in wanted.data_vars if str(name).startswith("null_")]
    assert "null_max" in names
    for name in names:
        assert found[name].dims == wanted[name].dims
        assert found[name].dtype == wanted[name].dtype
        assert_array_equal(
            found[name].values.view(np.int64), wanted[name].values.view(np.int64), err_msg=name
        )


def start(scheme: str, store: Path) -> subprocess.Popen[str]:
    """A run as a process; each line of its output is the number of iterations done."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.two_group_runs", scheme, str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


if __name__ == "__main__":
    with threads(2):
        run(sys.argv[1], Path(sys.argv[2]), report=lambda done, total: print(done))
