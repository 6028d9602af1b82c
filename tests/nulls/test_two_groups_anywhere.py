"""Nulls of two groups give the same bits with any batch, thread, process and worker."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.nulls import subtraction
from nimare_dask.nulls.stored import job_of
from tests.group_pairs import KINDS, assert_same_null, null_names, run
from tests.null_runs import threads

N = 23


@pytest.fixture(scope="module")
def expected() -> dict[str, xr.Dataset]:
    """Some iterations of each null, one after the other in one batch."""
    with dask.config.set(scheduler="synchronous"):
        return {kind: run(kind, N, batch=N) for kind in KINDS}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("scheduler", ["synchronous", "two threads"])
@pytest.mark.parametrize("kind", KINDS)
def test_null__same_bits_for_any_batch_and_thread(
    kind: str, scheduler: str, stored: bool, expected: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    configs: dict[str, dict[str, Any]] = {
        "synchronous": {"scheduler": "synchronous"},
        "two threads": {"scheduler": "threads", "num_workers": 2},
    }
    for batch in [7] if stored else [1, 7, N, 100]:
        store = tmp_path / "null" if stored else None
        with dask.config.set(configs[scheduler]):
            found = run(kind, N, batch=batch, store=store)
        assert_same_null(found, expected[kind])
        assert found.attrs["batch"] == batch
    if stored:
        assert_same_null(nd.open_null(tmp_path / "null"), expected[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_null__same_bits_on_worker_processes(
    kind: str, expected: dict[str, xr.Dataset], client: Any, tmp_path: Path
) -> None:
    with client.as_current():
        assert_same_null(run(kind, N, batch=5), expected[kind])
        some = run(kind, 11, batch=4, store=tmp_path / "null")
        assert_same_null(nd.extend_null(some, N), expected[kind])
    assert_same_null(nd.open_null(tmp_path / "null"), expected[kind])


def test_null__same_bits_with_dask_processes(expected: dict[str, xr.Dataset]) -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(2, mp_context=spawn) as processes,
        dask.config.set(scheduler="processes", pool=processes, num_workers=2),
    ):
        for kind in KINDS:
            assert_same_null(run(kind, N, batch=6), expected[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_null__batches_add_up_to_all(kind: str, expected: dict[str, xr.Dataset]) -> None:
    job = job_of(expected[kind])
    spans = [(0, 1), (1, 9), (9, 10), (10, N)]
    parts = [job.run(*span) for span in spans]
    whole = job.run(0, N)
    assert_array_equal(np.concatenate([part.maxima for part in parts]), whole.maxima)
    null = expected[kind]["null_max"].values.reshape(N, -1)
    assert_array_equal(whole.maxima, null)
    assert set(whole.sums) == set(null_names(expected[kind])) - {"null_max"}
    for name, values in whole.sums.items():
        added = sum(part.sums[name].astype(np.int64) for part in parts)
        assert_array_equal(added, values)
        assert_array_equal(added, expected[kind][name])


def test_null__same_bits_without_a_table(
    expected: dict[str, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subtraction, "TABLE_BYTES", 0)
    for n_threads in (1, 2):
        with threads(n_threads):
            assert_same_null(run("ale", N, batch=5), expected["ale"])


@pytest.mark.parametrize("kind", KINDS)
def test_null__reports_every_iteration_once(kind: str) -> None:
    said: list[tuple[int, int]] = []
    with threads(2):
        run(kind, N, batch=5, report=lambda done, total: said.append((done, total)))
    assert said[0] == (0, N) and said[-1] == (N, N) and len(said) == 6
    assert [done for done, _ in said] == sorted({done for done, _ in said})
