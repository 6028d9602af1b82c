"""Real processes that are really killed: what is left is gone on with, and the bits are the same.

The run is the long one of ``tests/null_runs.py``: twenty batches of some tenths of a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import xarray as xr

import nimare_dask as nd
from nimare_dask.parallel import checkpoints, iterations
from tests.null_runs import (
    LONG_BATCH,
    LONG_ITERS,
    assert_same_null,
    long_expected,
    long_run,
    n_done,
    start_long_run,
    threads,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

#: Seconds after which a process that should have ended hangs.
HANGS = 60.0


def times(store: Path) -> dict[int, float]:
    """When each whole batch of a store was done."""
    found = checkpoints.progress(checkpoints.open_checkpoint(store))
    return dict(zip(found.done, found.finished.tolist(), strict=True))


def go_on(store: Path) -> xr.Dataset:
    """Finish a store on threads; holds that what is there is neither damaged nor done again."""
    before, said = times(store), list[int]()
    assert checkpoints.progress(checkpoints.open_checkpoint(store)).n_torn == 0
    with threads(2), warnings.catch_warnings():
        warnings.simplefilter("error")
        null = long_run(store, report=lambda done, total: said.append(done))
    assert said[0] == len(before) * LONG_BATCH and said[-1] == LONG_ITERS
    after = times(store)
    assert len(after) == LONG_ITERS // LONG_BATCH
    assert {batch: after[batch] for batch in before} == before
    return null


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and its children, whatever state they are in."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        family = [process]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=30)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[Any]]]:
    """Processes that end with the test at the latest."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes
    for process in processes[::-1]:
        end(process)


def start_scheduler(
    folder: Path, started: list[subprocess.Popen[Any]]
) -> tuple[subprocess.Popen[Any], str]:
    """``dask scheduler`` as a person starts it; the process and its address."""
    told = folder / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", told]
    process = start_dask("scheduler", *words, started=started)
    until = time.monotonic() + HANGS
    while time.monotonic() < until:
        if told.exists() and (text := told.read_text()):
            return process, str(json.loads(text)["address"])
        time.sleep(0.05)
    raise AssertionError("dask scheduler did not start")


def start_dask(*words: object, started: list[subprocess.Popen[Any]]) -> subprocess.Popen[Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    started.append(process)
    return process


def start_worker(address: str, *more: str, started: list[subprocess.Popen[Any]]) -> Any:
    words = ["worker", address, "--nthreads", "1", "--no-dashboard", *more]
    return start_dask(*words, started=started)


def nap(seconds: float, batch: int) -> int:
    time.sleep(seconds)
    return batch


# (a) a worker


@pytest.mark.slow
def test_kill__workers_in_the_middle_of_batches(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    killed: list[int] = []
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
    ):

        def report(done: int, total: int) -> None:
            # Both have a batch at work and one waiting, so whichever dies dies over a batch.
            if done >= LONG_BATCH * (4 + 6 * len(killed)) and len(killed) < 2:
                pids = client.run(os.getpid, on_error="ignore")
                victim = next(pid for pid in pids.values() if pid not in killed)
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        null = long_run(tmp_path / "null", report=report)
        client.wait_for_workers(2, timeout=30)
        assert not set(killed) & set(client.run(os.getpid).values())
    assert len(killed) == 2
    assert_same_null(null, long_expected())
    assert_same_null(nd.open_null(tmp_path / "null"), long_expected())


# (b) the scheduler, or all workers


@pytest.mark.slow
def test_kill__scheduler_is_said_soon_and_the_store_goes_on(
    tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    scheduler, address = start_scheduler(tmp_path, started)
    start_worker(address, "--death-timeout", "20", started=started)
    run = start_long_run(tmp_path / "null", address)
    started.append(run)
    done = wait_until(run, 4 * LONG_BATCH)
    scheduler.kill()
    began = time.monotonic()
    _, errors = run.communicate(timeout=HANGS)
    took = time.monotonic() - began
    assert run.returncode == 3, errors
    assert took < 20, f"the driver ended {took:.0f} s after the scheduler"
    sentence = next(line for line in errors.splitlines() if line.startswith("WorkerError: "))
    assert "The connection to the Dask scheduler was lost" in sentence
    assert "run this again" in sentence
    assert done <= n_done(tmp_path / "null") < LONG_ITERS
    assert_same_null(go_on(tmp_path / "null"), long_expected())


@pytest.mark.slow
def test_kill__the_only_worker_and_a_new_one_comes(
    tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    _, address = start_scheduler(tmp_path, started)
    worker = start_worker(address, "--no-nanny", started=started)
    run = start_long_run(tmp_path / "null", address)
    started.append(run)
    wait_until(run, 4 * LONG_BATCH)
    worker.kill()
    worker.wait(timeout=30)
    time.sleep(1.0)
    start_worker(address, started=started)
    _, errors = run.communicate(timeout=HANGS)
    assert run.returncode == 0, errors
    assert_same_null(nd.open_null(tmp_path / "null"), long_expected())


@pytest.mark.slow
def test_kill__scheduler_just_before_it_is_asked_for_its_workers(
    tmp_path: Path, started: list[subprocess.Popen[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    scheduler, address = start_scheduler(tmp_path, started)
    start_worker(address, "--death-timeout", "20", started=started)
    asked, n_workers = [], iterations.n_workers

    def kill_and_ask() -> int:
        asked.append(1)
        if len(asked) == 4:
            scheduler.kill()
            scheduler.wait(timeout=30)
        return n_workers()

    monkeypatch.setattr(iterations, "n_workers", kill_and_ask)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
        Client(address, set_as_default=False) as client,
        client.as_current(),
        pytest.raises(nd.WorkerError, match="connection to the Dask scheduler was lost"),
    ):
        iterations.map_iterations(nap, 0.1, range(30), lambda batch, result: None)
    assert len(asked) >= 4


@pytest.mark.slow
def test_kill__the_only_worker_and_none_comes(
    tmp_path: Path, started: list[subprocess.Popen[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_NIMARE_DASK__NO_WORKER_TIMEOUT", "3")
    _, address = start_scheduler(tmp_path, started)
    worker = start_worker(address, "--no-nanny", started=started)
    run = start_long_run(tmp_path / "null", address)
    started.append(run)
    wait_until(run, 4 * LONG_BATCH)
    worker.kill()
    _, errors = run.communicate(timeout=HANGS)
    assert run.returncode == 3 and "WorkerError: " in errors


# (c) the whole job


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_kill__the_job_again_and_again(
    seed: int, tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    store, random = tmp_path / "null", np.random.default_rng(seed)
    for _ in range(3):
        before = n_done(store)
        run = start_long_run(store)
        started.append(run)
        wait_until(run, before + LONG_BATCH)
        time.sleep(random.uniform(0, 0.3))
        run.kill()
        run.wait(timeout=30)
        assert run.returncode == -signal.SIGKILL
        assert before < n_done(store) < LONG_ITERS
    assert_same_null(go_on(store), long_expected())
    assert_same_null(nd.open_null(store), long_expected())


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.2])
def test_kill__the_job_while_it_begins(
    seconds: float, tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    """A store that is being made is there whole, or not at all under its name."""
    run = start_long_run(tmp_path / "null")
    started.append(run)
    until = time.monotonic() + HANGS
    while not any(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(seconds)
    run.kill()
    run.wait(timeout=30)
    if (tmp_path / "null").exists():
        checkpoints.open_checkpoint(tmp_path / "null")
    with threads(2):
        assert_same_null(long_run(tmp_path / "null"), long_expected())


@pytest.mark.slow
def test_kill__two_jobs_on_one_store_and_one_of_them_dies(
    tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    """A queue that starts a job again before it has noticed that the first one lives."""
    one = start_long_run(tmp_path / "null")
    started.append(one)
    wait_until(one, 2 * LONG_BATCH)
    other = start_long_run(tmp_path / "null")
    started.append(other)
    wait_until(other, 4 * LONG_BATCH)
    one.kill()
    _, errors = other.communicate(timeout=HANGS)
    assert other.returncode == 0, errors
    assert_same_null(nd.open_null(tmp_path / "null"), long_expected())


# (d) Ctrl-C


@pytest.mark.slow
def test_ctrl_c__ends_soon_and_the_store_goes_on(
    tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    run = start_long_run(tmp_path / "null")
    started.append(run)
    done = wait_until(run, 4 * LONG_BATCH)
    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = run.communicate(timeout=HANGS)
    took = time.monotonic() - began
    assert took < 10, f"ended {took:.0f} s after Ctrl-C"
    assert run.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors
    assert done <= n_done(tmp_path / "null") < LONG_ITERS, "the rest was not done first"
    assert_same_null(go_on(tmp_path / "null"), long_expected())


@pytest.mark.slow
def test_ctrl_c__on_a_cluster_leaves_the_cluster_free(
    tmp_path: Path, started: list[subprocess.Popen[Any]]
) -> None:
    from distributed import Client

    _, address = start_scheduler(tmp_path, started)
    start_worker(address, started=started)
    run = start_long_run(tmp_path / "null", address)
    started.append(run)
    wait_until(run, 4 * LONG_BATCH)
    run.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = run.communicate(timeout=HANGS)
    assert time.monotonic() - began < 15 and "KeyboardInterrupt" in errors
    with Client(address, set_as_default=False) as client:
        until = time.monotonic() + 20
        while any(client.processing().values()) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(client.processing().values()), "its batches are still computed"
    assert_same_null(go_on(tmp_path / "null"), long_expected())
