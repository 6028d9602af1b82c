"""Results that are written block by block: what a lost run has left is gone on with, by one run."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask.base import tokenize
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.errors import CorpusWarning, WorkerError
from nimare_dask.io import results
from nimare_dask.parallel import execute, parts
from tests.builders import small_space
from tests.null_runs import ROOT, names_in

FULL = OSError(errno.ENOSPC, "No space left on device")


def maps() -> xr.Dataset:
    """Lazy maps in six blocks, the same in every process."""
    space = small_space()
    corpus = nd.simulate_corpus(
        30, n_foci=200, n_features=6, effects_per_feature=1, space=space, random_state=1
    )
    made = nd.MKDAChi2().fit_features(corpus, threshold=0.01, space=space)[["z"]]
    return made.chunk({"effect": 1, "voxel": 200})


def stop_at(number: int, error: BaseException, patch: pytest.MonkeyPatch) -> list[Any]:
    """Raise an error in place of writing a block, counted from 1; gives what was written."""
    write, done = execute._write_block, list[Any]()

    def stop(*given: Any) -> None:
        if len(done) == number - 1:
            raise error
        write(*given)
        done.append(given[2:])

    patch.setattr(execute, "_write_block", stop)
    return done


def save(path: Path, dataset: xr.Dataset | None = None) -> list[tuple[int, int]]:
    """Write the maps one block after the other; gives what was reported."""
    said: list[tuple[int, int]] = []
    with dask.config.set(scheduler="synchronous"):
        nd.save_result(
            maps() if dataset is None else dataset,
            path,
            report=lambda done, n: said.append((done, n)),
        )
    return said


@pytest.mark.parametrize(
    "error",
    [FULL, WorkerError("lost"), OSError(errno.EIO, "Broken"), KeyboardInterrupt()],
    ids=["full disk", "lost cluster", "broken disk", "ctrl-c"],
)
def test_part__goes_on_where_it_was_stopped(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    whole = save(tmp_path / "whole.zarr")
    n_blocks = whole[-1][1]
    assert whole == [(done, n_blocks) for done in range(n_blocks + 1)] and n_blocks > 5
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        stop_at(4, error, patch)
        save(out)
    found = parts.left_of(out)
    assert found is not None and found[1:] == (3, n_blocks)
    assert not out.exists() and names_in(tmp_path) == [found[0].name, "whole.zarr"]
    with monkeypatch.context() as patch:
        written = stop_at(99, error, patch)
        assert save(out) == [(done, n_blocks) for done in range(3, n_blocks + 1)]
    assert len(written) == n_blocks - 3
    assert names_in(tmp_path) == ["out.zarr", "whole.zarr"]
    assert sorted(names_in(out)) == sorted(names_in(tmp_path / "whole.zarr"))
    expected = nd.open_result(tmp_path / "whole.zarr")
    assert_array_equal(
        nd.open_result(out)["z"].values.view(np.int32), expected["z"].values.view(np.int32)
    )


def test_part__of_another_result_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.zarr"
    with monkeypatch.context() as patch, pytest.raises(WorkerError):
        stop_at(4, WorkerError("lost"), patch)
        save(out)
    other = maps().isel(feature=slice(0, 3))
    with pytest.warns(CorpusWarning, match="keeps 3 of 19 blocks, and is not gone on with"):
        assert save(out, other)[0][0] == 0
    assert parts.left_of(out) is not None and nd.open_result(out).sizes["feature"] == 3


def test_part__of_a_run_that_lives_is_not_taken(tmp_path: Path) -> None:
    out, mark = tmp_path / "out.zarr", "abc"
    with parts.part_of(out, mark) as one:
        one.path.mkdir()
        one.begin(5)
        one.note("z 0.0")
        # A lock is of a process (or of what it has opened, which is the same here).
        with (
            pytest.warns(CorpusWarning, match="1 of 5 blocks, .* another run is at work on it"),
            parts.part_of(out, mark) as other,
        ):
            assert other.path != one.path and not other.begun
    with parts.part_of(out, mark) as again:
        assert again.path == one.path and again.begun and again.done == {"z 0.0"}
        again.note("z 0.1")
    assert parts.left_of(out) == (one.path, 2, 5)


def test_part__a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    with parts.part_of(out, "abc") as part:
        part.path.mkdir()
        part.begin(5)
        part.note("z 0.1")
    with (part.path / "blocks.txt").open("a") as file:
        file.write("z 0.2")  # of "z 0.20"
    with parts.part_of(out, "abc") as again:
        assert again.done == {"z 0.1"}
        again.note("z 0.3")
    with parts.part_of(out, "abc") as third:
        assert third.done == {"z 0.1", "z 0.3"}


def test_part__nothing_is_kept_of_errors_that_would_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="wrong"):
        stop_at(4, ValueError("wrong"), patch)
        save(tmp_path / "out.zarr")
    assert names_in(tmp_path) == [] and parts.left_of(tmp_path / "out.zarr") is None


def test_part__nothing_is_kept_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_lock", lambda _: False)
    with monkeypatch.context() as patch, pytest.raises(WorkerError):
        stop_at(4, WorkerError("lost"), patch)
        save(tmp_path / "out.zarr")
    assert names_in(tmp_path) == []
    save(tmp_path / "out.zarr")
    assert names_in(tmp_path) == ["out.zarr"]


def test_part__is_gone_on_with_on_any_number_of_workers() -> None:
    space = small_space()
    corpus = nd.simulate_corpus(
        30, n_foci=200, n_features=700, effects_per_feature=1, space=space, random_state=1
    )

    def mark(workers: int) -> str:
        with dask.config.set(scheduler="threads", num_workers=workers):
            made = nd.MKDAChi2().fit_features(corpus, threshold=0.01, space=space, chunks="feature")
            return str(tokenize(made))

    assert len({mark(workers) for workers in (1, 4, 9, 40)}) == 1


def test_part__is_gone_on_with_whatever_the_options_of_pandas(tmp_path: Path) -> None:
    marks = []
    for inferred in (False, True):
        with pd.option_context("future.infer_string", inferred):
            marks.append(results._mark(maps()))
    assert marks[0] == marks[1]


def many_maps(kind: str) -> xr.Dataset:
    """Lazy maps of each kind that a run of some length writes."""
    space = small_space()
    corpus = nd.simulate_corpus(
        30, n_foci=200, n_features=6, effects_per_feature=1, space=space, random_state=1
    )
    if kind == "coactivation":
        return nd.coactivation(corpus, nd.grid_targets(space, step=16), space=space)
    estimator = nd.MKDAChi2()
    chunks = "voxel" if kind == "voxel" else "feature"
    maps = estimator.fit_features(corpus, threshold=0.01, space=space, chunks=chunks)
    if kind == "fdr":
        return nd.correct_fdr(maps)
    if kind == "fwe":
        null = nd.feature_null(corpus, sizes=maps, n_iters=3, space=space, random_state=0)
        return nd.correct_fwe(maps, null)
    return maps


@pytest.mark.parametrize("kind", ["voxel", "feature", "fdr", "fwe", "coactivation"])
def test_part__is_known_by_names_and_not_by_code(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that is written where it is used has other bytes in another process."""

    def refuse(*_: object, **__: object) -> bytes:
        raise AssertionError("code is part of a name")

    # Where this raises, Dask falls back to a name that is new each time.
    monkeypatch.setattr("dask.tokenize.cloudpickle.dumps", refuse)
    assert results._mark(many_maps(kind)) == results._mark(many_maps(kind))


def test_part__of_a_process_that_was_killed(tmp_path: Path) -> None:
    """Another process finds it, so what is written has the same mark in every process."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from nimare_dask.parallel import execute; from tests.parallel import test_parts\n"
        "write, done = execute._write_block, []\n"
        "def stop(*given):\n"
        "    if len(done) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(*given); done.append(1)\n"
        "execute._write_block = stop\n"
        "test_parts.save(Path(sys.argv[1]))\n"
    )
    out = tmp_path / "out.zarr"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=120,
    )
    assert done.returncode == -9, done.stderr
    # A block whose line was not written yet is written again.
    assert save(out)[0][0] in (2, 3)
    assert names_in(tmp_path) == ["out.zarr"]


# a cluster without anyone who takes work


class FakeClient:
    """A client that says what state workers are in."""

    def __init__(self, *states: str) -> None:
        self.states = states

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        """As that of `distributed.Client`."""
        assert n_workers == -1
        return {"workers": {f"tcp://{at}": {"status": it} for at, it in enumerate(self.states)}}


def patience(client: FakeClient) -> execute.Patience:
    with dask.config.set({"nimare-dask.no-worker-timeout": "0.05s"}):
        return execute.Patience(client)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), "has had no worker for 0 s; start some"),
        (("paused", "paused"), "All 2 workers of the Dask cluster have been short of memory for"),
    ],
)
def test_patience__ends(states: tuple[str, ...], said: str) -> None:
    import time

    waiting = patience(FakeClient(*states))
    waiting.look()
    time.sleep(0.1)
    with pytest.raises(WorkerError, match=said):
        waiting.look()


def test_patience__begins_again_with_each_worker_that_comes() -> None:
    import time

    client = FakeClient()
    waiting = patience(client)
    waiting.look()
    time.sleep(0.1)
    client.states = ("paused", "running")
    waiting.look()
    client.states = ("paused",)
    waiting.look()
    time.sleep(0.1)
    with pytest.raises(WorkerError, match="All 1 workers"):
        waiting.look()
