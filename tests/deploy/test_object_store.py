"""Everything of zarr in an object store: the same bits, whole or not there, gone on with.

The store is moto's server, a process of this machine that speaks S3. Processes find it as programs
do in the field, by ``AWS_ENDPOINT_URL`` and credentials in their environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import nimare_dask as nd
from nimare_dask.errors import SourceFormatError, StoreAccessError, StoreExistsError
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.places import is_there, place
from tests import object_store
from tests.builders import coarse_space, tiny_corpus
from tests.command import run, write_mask
from tests.foci import draw_corpus
from tests.groups import SPACE
from tests.null_runs import (
    LONG_BATCH,
    LONG_ITERS,
    ROOT,
    assert_same_null,
    long_expected,
    long_run,
    threads,
)
from tests.object_store import Server

for needed in ("moto.server", "s3fs", "upath"):
    pytest.importorskip(needed, reason="the extras test and cloud are not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with object_store.running() as started:
        yield started


@pytest.fixture
def bucket(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket of a store that this process finds by itself."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    object_store.forget()
    yield server.make_bucket()
    object_store.forget()


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mask(SPACE, tmp_path_factory.mktemp("mask") / "mask.nii.gz")


def terms() -> xr.Dataset:
    """Lazy maps of five features."""
    corpus = draw_corpus(4, SPACE, 30, 5, empty=[4, 9])
    return nd.MKDAChi2().fit_features(corpus, threshold=0.7, space=SPACE)


def in_process(code: str, *words: str, server: Server) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **server.environment, "PYTHONPATH": str(ROOT)},
        timeout=240,
    )


# corpora and results


def test_corpus__of_the_command_line(bucket: str, server: Server, tmp_path: Path) -> None:
    nd.save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    address = f"{bucket}/deep/corpus.zarr"
    run("convert", tmp_path / "corpus.zarr", address)
    here, there = (
        run("info", path, "--json").stdout for path in (tmp_path / "corpus.zarr", address)
    )
    assert json.loads(here) == json.loads(there)
    again = run("convert", tmp_path / "corpus.zarr", address, code=1)
    assert f"{address} exists already" in again.error and "--force" in again.error
    assert again.stderr.count("\n") == 1
    run("convert", tmp_path / "corpus.zarr", address, "--force")
    pooled = f"{bucket}/pooled.zarr"
    run("combine", address, pooled)
    assert "0 errors" in run("validate", pooled).stdout
    wanted = nd.combine_analyses(nd.open_corpus(address))
    assert nd.corpus.digest(nd.open_corpus(pooled)) == nd.corpus.digest(wanted)
    assert not [name for name in server.names(bucket) if name.endswith(".part")]


def test_result__equals_that_of_a_folder(bucket: str, server: Server, tmp_path: Path) -> None:
    maps = terms()[["z", "chi2"]]
    saved = nd.save_result(maps, f"{bucket}/terms.zarr")
    assert str(saved) == f"{bucket}/terms.zarr"
    nd.save_result(maps, tmp_path / "terms.zarr")
    xr.testing.assert_identical(
        nd.open_result(saved).compute(), nd.open_result(tmp_path / "terms.zarr").compute()
    )
    # Object for file, and nothing beside.
    files = [path for path in (tmp_path / "terms.zarr").rglob("*") if path.is_file()]
    wanted = [path.relative_to(tmp_path).as_posix() for path in files]
    assert server.names(bucket) == sorted(wanted)
    with pytest.raises(StoreExistsError, match="exists already"):
        nd.save_result(maps, saved)
    nd.save_result(maps[["z"]], saved, overwrite=True)
    assert list(nd.open_result(saved).data_vars) == ["z"]
    assert not [name for name in server.names(bucket) if "chi2" in name]


def test_associate__with_everything_in_the_store(bucket: str, mask: Path, tmp_path: Path) -> None:
    corpus = draw_corpus(4, SPACE, 30, 5, empty=[4, 9])
    words = ["--mask", mask, "--threshold", 0.7, "--r", 12, "--fwe", "--n-iters", 20, "--seed", 3]
    for where in (str(tmp_path), bucket):
        nd.save_corpus(corpus, f"{where}/corpus.zarr")
        with dask.config.set(scheduler="synchronous"):
            run("associate", f"{where}/corpus.zarr", f"{where}/terms.zarr", *words)
    here, there = (nd.open_result(f"{where}/terms.zarr") for where in (str(tmp_path), bucket))
    xr.testing.assert_identical(here.compute(), there.compute())
    nulls = [nd.open_null(f"{where}/terms.null.zarr") for where in (str(tmp_path), bucket)]
    xr.testing.assert_equal(*nulls)
    status = json.loads(run("status", f"{bucket}/terms.null.zarr", "--json").stdout)
    assert (status["iterations done"], status["iterations to do"]) == (20, 0)
    for where in (str(tmp_path), bucket):
        run("export", f"{where}/terms.zarr", tmp_path / where.rpartition("/")[2])
    images = [tmp_path / where.rpartition("/")[2] for where in (str(tmp_path), bucket)]
    assert_same_files(*images)


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(path.relative_to(one) for path in one.rglob("*.nii.gz"))
    assert names and names == sorted(path.relative_to(other) for path in other.rglob("*.nii.gz"))
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes()


# what cannot be


def test_out__that_takes_images_is_on_this_machine(bucket: str, mask: Path) -> None:
    nd.save_corpus(tiny_corpus(), f"{bucket}/corpus.zarr")
    done = run("ale", f"{bucket}/corpus.zarr", f"{bucket}/out", "--mask", mask, code=1)
    assert done.error == (
        f"Error: {bucket}/out is an address, and images are written to this machine; give a path "
        "here, or for a corpus or a result an address that ends in .zarr."
    )
    done = run("export", f"{bucket}/corpus.zarr", f"{bucket}/images", code=1)
    assert "expected a result" in done.error


@pytest.mark.parametrize("verb", ["info", "status", "validate", "combine"])
def test_nothing__is_there(verb: str, bucket: str, server: Server) -> None:
    out = [f"{bucket}/out.zarr"] if verb == "combine" else []
    done = run(verb, f"{bucket}/a.zarr", *out, code=1)
    assert f"{bucket}/a.zarr is not there" in done.stdout + done.stderr
    assert server.names(bucket) == []


def test_bucket__that_is_not_there_is_a_sentence(bucket: str, tmp_path: Path) -> None:
    nd.save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    missing = f"{bucket}-not/corpus.zarr"
    for words in (["info", missing], ["convert", tmp_path / "corpus.zarr", missing]):
        done = run(*words, code=1)
        assert f"{missing} is in no bucket that is there" in done.error
        assert done.stderr.count("\n") <= 2


def test_store__that_cannot_be_reached_is_a_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    object_store.forget()
    done = run("info", f"{bucket}/corpus.zarr", code=1)
    assert done.stderr.count("\n") == 1
    assert f"{bucket}/corpus.zarr could not be reached" in done.error
    assert "http://127.0.0.1:9" in done.error and "AWS_ENDPOINT_URL" in done.error


def test_store__without_credentials_is_a_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    object_store.forget()
    done = run("info", f"{bucket}/corpus.zarr", code=1)
    assert done.stderr.count("\n") == 1
    assert f"{bucket}/corpus.zarr needs credentials, and there are none" in done.error


@pytest.mark.slow
def test_store__that_refuses_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nd.save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    with object_store.running(INITIAL_NO_AUTH_ACTION_COUNT="0") as strict:
        for name, value in strict.environment.items():
            monkeypatch.setenv(name, value)
        object_store.forget()
        address = "s3://bucket/corpus.zarr"
        for words in (["info", address], ["convert", tmp_path / "corpus.zarr", address]):
            done = run(*words, code=1)
            assert f"{address} may not be accessed" in done.error
            assert done.stderr.count("\n") <= 2
    object_store.forget()


# processes that share the work, and die


DIES = """
import os, signal, sys
import nimare_dask as nd
from tests.deploy import test_object_store as here

def die(done, total):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

nd.save_result(here.terms(), sys.argv[1], report=die)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_result__of_a_killed_writer_is_not_there(bucket: str, server: Server) -> None:
    address, maps = f"{bucket}/terms.zarr", terms()
    for blocks in ("0", "2"):
        done = in_process(DIES, address, blocks, server=server)
        assert done.returncode == -signal.SIGKILL, done.stderr
        left = server.names(bucket)
        assert ".terms.zarr.part" in left and "terms.zarr/zarr.json" not in left
        assert "terms.zarr/z/zarr.json" in left
        assert not is_there(place(address))
        with pytest.raises(SourceFormatError, match="was not written to its end"):
            nd.open_result(address)
    nd.save_result(maps, address)  # what is left is not in the way
    xr.testing.assert_equal(nd.open_result(address).compute(), maps.compute())
    assert ".terms.zarr.part" not in server.names(bucket)


@pytest.mark.slow
def test_result__written_by_workers(bucket: str, tmp_path: Path) -> None:
    """Two processes put their chunks by themselves, and one of them is killed on the way."""
    space = coarse_space()
    corpus = nd.simulate_corpus(300, n_foci=3000, n_features=40, space=space, random_state=1)
    maps = nd.MKDAChi2().fit_features(corpus, space=space, chunks="feature")
    nd.save_result(maps, tmp_path / "terms.zarr")
    with nd.cluster("local", n_workers=2, say=lambda told: None) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2 and os.getpid() not in pids.values()
        killed: list[int] = []

        def report(done: int, total: int) -> None:
            if done >= total // 3 and not killed and sys.platform != "win32":
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)

        nd.save_result(maps, f"{bucket}/terms.zarr", report=report)
        there = nd.open_result(f"{bucket}/terms.zarr")
        # Workers read by themselves too.
        xr.testing.assert_identical(
            there.compute(), nd.open_result(tmp_path / "terms.zarr").compute()
        )


NULL_DIES = """
import os, signal, sys
from tests.null_runs import long_run, threads

def die(done, total):
    if done >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

with threads(2):
    long_run(sys.argv[1], report=die)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_null__of_a_killed_run_is_gone_on_with(bucket: str, server: Server) -> None:
    address = f"{bucket}/null.zarr"
    done = in_process(NULL_DIES, address, str(5 * LONG_BATCH), server=server)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = times(address)
    assert 4 <= len(before) < LONG_ITERS // LONG_BATCH
    store: Any = place(address)
    torn = store / "null_histogram" / "c" / str(next(iter(before))) / "0"
    torn.write_bytes(torn.read_bytes()[:40])
    said: list[int] = []
    with threads(2), pytest.warns(nd.CorpusWarning, match="computed again: 1"):
        null = long_run(store, report=lambda done, total: said.append(done))
    assert said[0] == (len(before) - 1) * LONG_BATCH and said[-1] == LONG_ITERS
    assert_same_null(null, long_expected())
    assert_same_null(nd.open_null(address), long_expected())
    after = times(address)
    assert {batch: after[batch] for batch in list(before)[1:]} == dict(list(before.items())[1:])


def times(address: str) -> dict[int, float]:
    """When each whole batch of a store was done."""
    found = checkpoints.progress(checkpoints.open_checkpoint(place(address)))
    return dict(zip(found.done, found.finished.tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_shares__of_processes_that_know_nothing_of_each_other(
    bucket: str, server: Server, tmp_path: Path
) -> None:
    """--prepare, run-batch by two processes of which one is killed, run-batch again, and merge."""
    coarse = write_mask(coarse_space(), tmp_path / "mask.nii.gz")
    corpus = nd.simulate_corpus(
        60, n_foci=1800, n_features=2, effects_per_feature=1, space=coarse_space(), random_state=3
    )
    words = ["--mask", coarse, "--n-iters", 3000, "--seed", 7]
    for where in (str(tmp_path), bucket):
        nd.save_corpus(corpus, f"{where}/corpus.zarr")
    run("mkda", tmp_path / "corpus.zarr", tmp_path / "out.zarr", *words)
    prepared = run("mkda", f"{bucket}/corpus.zarr", f"{bucket}/out.zarr", *words, "--prepare")
    store = f"{bucket}/out.null.zarr"
    assert f"nimare-dask run-batch {store} --task I --of N" in prepared.stderr
    early = run("merge", store, code=1)
    assert f"{store} holds 0 of 3,000 iterations" in early.error

    def start(task: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "nimare_dask",
                "run-batch",
                store,
                *f"--task {task} --of 2".split(),
            ],
            env={**os.environ, **server.environment, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )

    shares = [start(task) for task in range(2)]
    try:
        until = time.monotonic() + 120
        while not [batch for batch in times(store) if batch % 2] and time.monotonic() < until:
            time.sleep(0.1)
        shares[1].kill()
        assert shares[0].wait(timeout=120) == 0
        shares[1].wait(timeout=30)
        n_batches = checkpoints.open_checkpoint(place(store)).n_batches
        done = set(times(store))
        assert set(range(0, n_batches, 2)) <= done and len(done) < n_batches
        status = json.loads(run("status", store, "--json").stdout)
        assert status["batches done"] == len(done) and status["torn batches"] == 0
        shares.append(start(1))
        assert shares[2].wait(timeout=120) == 0
    finally:
        for share in shares:
            share.kill()
            share.wait(timeout=30)
    merged = run("merge", store)
    assert "All 3,000 iterations are there" in merged.stderr
    here, there = (nd.open_result(f"{where}/out.zarr") for where in (str(tmp_path), bucket))
    xr.testing.assert_identical(here.compute(), there.compute())


@pytest.mark.slow
def test_store__that_is_lost_in_the_middle_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with object_store.running() as fragile:
        for name, value in fragile.environment.items():
            monkeypatch.setenv(name, value)
        object_store.forget()
        address = f"{fragile.make_bucket()}/null.zarr"

        def report(done: int, total: int) -> None:
            if done >= 2 * LONG_BATCH:
                fragile.process.kill()

        with threads(2), pytest.raises(StoreAccessError, match=f"{address} could not be reached"):
            long_run(place(address), report=report)
    object_store.forget()


def test_null__of_several_threads_and_seeds(bucket: str, tmp_path: Path) -> None:
    """Batches that are put at the same time do not take each other's place."""
    from tests.null_runs import run as short

    with threads(4):
        null = short("mkda", 40, batch=3, store=f"{bucket}/null.zarr")
    assert_same_null(null, short("mkda", 40))
    assert_same_null(nd.open_null(f"{bucket}/null.zarr"), null)
    assert np.isfinite(null["null_max"].values).all()
