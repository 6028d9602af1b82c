"""Shares of a null's iterations, done by programs that know nothing of each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nimare_dask as nd
from nimare_dask.parallel import checkpoints
from nimare_dask.schema import NULL_KIND
from tests.null_runs import NAMES, ROOT, assert_same_null, n_done, names_in, run

N_ITERS, BATCH = 45, 4


def made(folder: Path, name: str = "mkda") -> Path:
    """A store of 45 iterations in 12 batches, none of which is done."""
    store = folder / "null.zarr"
    null = run(name, N_ITERS, store=store, batch=BATCH, compute=False)
    assert null.attrs["kind"] == NULL_KIND and null.sizes["iteration"] == 0
    assert checkpoints.progress(checkpoints.open_checkpoint(store)).n_done == 0
    return store


@pytest.mark.parametrize("name", NAMES)
def test_run_batches__shares_in_any_order_give_the_same_null(name: str, tmp_path: Path) -> None:
    store = made(tmp_path, name)
    assert [nd.run_batches(store, task=task, of=5) for task in (3, 0, 4, 1, 2)] == [
        8,  # batches 3 and 8
        12,  # 0, 5, 10
        8,
        9,  # 1, 6 and 11, which has one iteration
        8,
    ]
    assert_same_null(nd.open_null(store), run(name, N_ITERS))
    assert_same_null(run(name, N_ITERS, store=store), run(name, N_ITERS))


def test_run_batches__what_is_done_is_not_done_again(tmp_path: Path) -> None:
    store, said = made(tmp_path), list[tuple[int, int]]()
    nd.run_batches(store, task=0, of=3)
    assert nd.run_batches(store, task=0, of=3) == 0
    # Another number of shares: of its batches 0, 2, 4, ... half of the first share is done.
    done = nd.run_batches(
        store, task=0, of=2, report=lambda done, total: said.append((done, total))
    )
    assert done == 16 and said[0] == (8, 24) and said[-1] == (24, 24)
    assert n_done(store) == 16 + 16


def test_run_batches__more_shares_than_batches(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert nd.run_batches(store, task=30, of=50) == 0
    assert nd.run_batches(store) == N_ITERS


def test_run_batches__torn_batch_is_done_again(tmp_path: Path) -> None:
    store = made(tmp_path)
    nd.run_batches(store)
    chunk = store / "null_max" / "c" / "3" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    assert nd.run_batches(store, task=0, of=2) == 0
    assert nd.run_batches(store, task=1, of=2) == BATCH
    assert_same_null(nd.open_null(store), run("mkda", N_ITERS))


def test_run_batches__processes_at_the_same_time(tmp_path: Path) -> None:
    store = made(tmp_path)
    code = f"import nimare_dask as nd; print(nd.run_batches({str(store)!r}, task=%d, of=2))"
    # The second share is done by two at once, which write the same.
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code % task], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for task in (0, 1, 1)
    ]
    done = [int(process.communicate(timeout=120)[0]) for process in running]
    assert done[0] == 24 and 21 <= done[1] + done[2] <= 42
    assert_same_null(nd.open_null(store), run("mkda", N_ITERS))
    assert names_in(tmp_path) == ["null.zarr"]


@pytest.mark.parametrize(("task", "of"), [(2, 2), (-1, 3), (0, 0), (0.5, 2), (True, 3), ("0", 2)])
def test_run_batches__no_such_share(task: int, of: int, tmp_path: Path) -> None:
    with pytest.raises(nd.SettingsError, match="expected 0 to"):
        nd.run_batches(made(tmp_path), task=task, of=of)


def test_run_batches__another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path)
    monkeypatch.setattr("nimare_dask.nulls.stored.__version__", "99.0")
    with pytest.raises(nd.StoreExistsError, match=r"this is 99\.0"):
        nd.run_batches(store)


def test_run_batches__no_store(tmp_path: Path) -> None:
    with pytest.raises(nd.SourceFormatError, match="does not exist"):
        nd.run_batches(tmp_path / "none.zarr")
    with pytest.raises(nd.SourceFormatError, match="not a zarr version 3 group"):
        nd.run_batches(tmp_path)


def test_compute__without_a_store_is_refused() -> None:
    with pytest.raises(nd.SettingsError, match=r"say where \(store=\)"):
        run("mkda", compute=False)


def test_compute__twice_keeps_what_is_done(tmp_path: Path) -> None:
    store = made(tmp_path)
    nd.run_batches(store, task=0, of=3)
    null = run("mkda", N_ITERS, store=store, compute=False)
    assert null.attrs["batch"] == BATCH and n_done(store) == 16


def test_open_null__unfinished_says_how_to_go_on(tmp_path: Path) -> None:
    store = made(tmp_path)
    nd.run_batches(store, task=0, of=3)
    with pytest.raises(nd.SchemaError, match="holds 16 of 45 iterations"):
        nd.open_null(store)


def test_run_batches__null_that_stops_early(tmp_path: Path) -> None:
    expected = run("mkda", N_ITERS, stop_after=3)
    store = tmp_path / "null.zarr"
    run("mkda", N_ITERS, stop_after=3, store=store, batch=BATCH, compute=False)
    nd.run_batches(store, task=1, of=2)
    nd.run_batches(store, task=0, of=2)
    found = run("mkda", N_ITERS, stop_after=3, store=store)
    np.testing.assert_array_equal(found["null_max"], expected["null_max"])
