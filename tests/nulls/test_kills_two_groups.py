"""Nulls of two groups whose processes are really killed: the same bits in the end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import nimare_dask as nd
from nimare_dask.parallel import checkpoints
from tests.null_runs import n_done, threads, wait_until
from tests.two_group_runs import BATCH, BATCHES, SCHEMES, assert_same, expected, run, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.mark.parametrize(
    "scheme",
    [
        scheme if scheme == "features" else pytest.param(scheme, marks=pytest.mark.slow)
        for scheme in SCHEMES
    ],
)
def test_kill__the_job_in_the_middle_of_batches(scheme: str, tmp_path: Path) -> None:
    store = tmp_path / "null.zarr"
    for batches in (3, 9):  # killed, gone on with, and killed again
        process = start(scheme, store)
        wait_until(process, batches * BATCH[scheme])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert batches * BATCH[scheme] <= n_done(store) < BATCHES * BATCH[scheme]
    before = set(checkpoints.progress(checkpoints.open_checkpoint(store)).done)
    said: list[int] = []
    with threads(2):
        null = run(scheme, store, report=lambda done, total: said.append(done))
    assert said[0] == len(before) * BATCH[scheme] and said[-1] == BATCHES * BATCH[scheme]
    assert_same(null, expected(scheme))
    assert_same(nd.open_null(store), expected(scheme))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_kill__a_worker_in_the_middle_of_batches(scheme: str, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    killed: list[int] = []
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):

        def report(done: int, _total: int) -> None:
            if done >= 4 * BATCH[scheme] and not killed:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        null = run(scheme, tmp_path / "null.zarr", report=report)
    assert killed
    assert_same(null, expected(scheme))
    assert_same(nd.open_null(tmp_path / "null.zarr"), expected(scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_extend__equals_one_run(scheme: str, tmp_path: Path) -> None:
    n_iters = 5 * BATCH[scheme] + 7
    whole = run(scheme, None, n_iters=n_iters)
    some = run(scheme, None, n_iters=2 * BATCH[scheme])
    assert_same(nd.extend_null(some, n_iters), whole)
    store = tmp_path / "null.zarr"
    run(scheme, store, n_iters=2 * BATCH[scheme])
    assert_same(nd.extend_null(nd.open_null(store), n_iters), whole)
    assert_same(nd.open_null(store), whole)
