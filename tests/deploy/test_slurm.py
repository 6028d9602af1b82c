"""Runs on a real SLURM, disturbed in every way that jobs are; each ends as if nothing had been.

Skipped where SLURM cannot be started (`apt-get install slurm-wlm munge`, as root).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from tests.builders import coarse_space
from tests.command import run, write_mask
from tests.deploy.settings import ARRAYS, DEPLOY, commands, edited
from tests.deploy.slurm_cluster import ROOT, Slurm, started, why_not
from tests.null_runs import LONG_ITERS, assert_same_null, long_expected, long_run, n_done

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(
        find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed (extra hpc)"
    ),
]

#: Other settings for one small machine: nothing is waited for, and lost jobs are replaced at once.
QUICK = {
    "distributed.deploy.lost-worker-timeout": "1s",
    "distributed.adaptive.interval": "500ms",
    "nimare-dask.n-workers": 2,
    "nimare-dask.no-worker-timeout": "2 minutes",
}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """SLURM, for the commands of this process as well."""
    if told := why_not():
        pytest.skip(told)
    with started() as one, pytest.MonkeyPatch.context() as patch:
        for name, value in one.env.items():
            patch.setenv(name, value)
        yield one


@pytest.fixture(autouse=True)
def no_jobs_left(slurm: Slurm) -> Iterator[None]:
    """Each test leaves an idle node, or shows what went on."""
    yield
    slurm.run("scontrol", "update", f"nodename={_node(slurm)}", "state=resume", ok=False)
    slurm.run("scancel", "--user=root")
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "the queue is empty")


def _node(slurm: Slurm) -> str:
    return slurm.run("sinfo", "--noheader", "--format=%N")


def wait_until(so: Callable[[], object], what: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def settings(folder: Path, **own: Any) -> Path:
    """The settings of the folder deploy for this SLURM."""
    return edited("slurm", folder, QUICK, memory="2GB", job_mem="2G", **own)


def disturbed(
    folder: Path, config: Path, disturb: Callable[[int], None] = lambda done: None
) -> xr.Dataset:
    """The long run on workers of SLURM; `disturb` is called with what is done after each batch."""
    with nd.cluster("slurm", n_workers=2, config=config):
        return long_run(folder / "null.zarr", report=lambda done, _total: disturb(done))


class Once:
    """Do something the first time that so much is done."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.at, self.act, self.done = at, act, False

    def __call__(self, done: int) -> None:
        if done >= self.at and not self.done:
            self.done = True
            self.act()


def test_slurm__ends_with_the_test_run_that_is_killed(slurm: Slurm) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        folder = holder.stdout.readline().strip()
        assert Path(folder, "slurm.conf").exists() and Path(folder) != slurm.folder

        def parts() -> list[str]:
            return [line for line in of_all_processes() if folder in line]

        assert len(parts()) >= 3
        holder.kill()
    wait_until(lambda: not parts() and not Path(folder).exists(), "all has ended")


#: Hold a SLURM, as a test run does.
HOLD = """
import time
from tests.deploy.slurm_cluster import started
with started() as slurm:
    print(slurm.folder, flush=True)
    time.sleep(600)
"""


def of_all_processes() -> list[str]:
    """Words and environment of every process."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found.append(f"{process.cmdline()} {process.environ()}")
    return found


# workers


def test_slurm__workers_are_jobs_and_end_with_the_run(slurm: Slurm, tmp_path: Path) -> None:
    found = disturbed(tmp_path, settings(tmp_path))
    assert_same_null(found, long_expected())
    jobs = slurm.jobs()
    assert {job["JobName"] for job in jobs.values()} == {"nimare-dask"}
    assert len(slurm.numbers("CANCELLED") + slurm.numbers("COMPLETING")) == len(jobs) >= 2
    assert list((tmp_path / "logs").glob("nimare-dask-*.err"))


def test_slurm__cancelled_jobs_are_submitted_again(slurm: Slurm, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    cancelled: list[str] = []

    def cancel() -> None:
        cancelled.extend(slurm.numbers("RUNNING"))
        slurm.run("scancel", *cancelled)

    found = disturbed(tmp_path, settings(tmp_path), Once(LONG_ITERS // 3, cancel))
    assert_same_null(found, long_expected())
    assert cancelled and len(set(slurm.jobs()) - before) > len(cancelled)


def test_slurm__a_job_that_is_cancelled_while_it_waits_is_submitted_again(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 1.0)
    before, said = set(slurm.jobs()), []
    slurm.run("scontrol", "update", "partitionname=test", "state=down")

    def cancel(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("Dashboard"):
            wait_until(lambda: slurm.numbers("PENDING"), "a job waits")
            slurm.run("scancel", *slurm.numbers("PENDING"))
            slurm.run("scontrol", "update", "partitionname=test", "state=up")

    with nd.cluster("slurm", n_workers=1, config=settings(tmp_path), say=cancel) as client:
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
    assert len(set(slurm.jobs()) - before) == 2
    assert any("ended before a worker came" in sentence for sentence in said)


def test_slurm__walltime_is_never_reached(slurm: Slurm, tmp_path: Path) -> None:
    before = set(slurm.jobs())
    config = settings(
        tmp_path,
        walltime="00:01:00",
        worker_extra_args=["--lifetime", "20s", "--lifetime-stagger", "5s"],
    )
    began = time.monotonic()

    def dawdle(done: int) -> None:
        """Let the run take longer than the walltime, by writing what is done slowly."""
        time.sleep(max(0, began + 70 * done / LONG_ITERS - time.monotonic()))

    found = disturbed(tmp_path, config, dawdle)
    assert_same_null(found, long_expected())
    states = [told["JobState"] for number, told in slurm.jobs().items() if number not in before]
    assert "TIMEOUT" not in states
    assert len(states) >= 5, states


def test_slurm__a_node_that_goes_down_comes_back(slurm: Slurm, tmp_path: Path) -> None:
    def down() -> None:
        name = f"nodename={_node(slurm)}"
        slurm.run("scontrol", "update", name, "state=down", "reason=test")
        assert slurm.node_state().startswith("down")
        time.sleep(2)
        slurm.run("scontrol", "update", name, "state=resume", ok=False)  # it may be back by itself

    found = disturbed(tmp_path, settings(tmp_path), Once(LONG_ITERS // 3, down))
    assert_same_null(found, long_expected())


def test_slurm__a_queue_that_is_not_there_is_told_at_once(slurm: Slurm, tmp_path: Path) -> None:
    with (
        pytest.raises(nd.WorkerError, match=r"sbatch did not take a job .*Invalid partition"),
        nd.cluster("slurm", config=settings(tmp_path, queue="night")),
    ):
        pass


def test_slurm__jobs_that_fail_at_once_are_told(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 1.0)
    said: list[str] = []
    config = settings(tmp_path, python="/nowhere/python")
    with (
        pytest.raises(nd.WorkerError, match=r"Job.* ended before a worker came; .*logs") as error,
        nd.cluster("slurm", n_workers=1, config=config, say=said.append),
    ):
        pass
    assert str(tmp_path / "logs") in str(error.value)
    assert sum("Submitted again" in sentence for sentence in said) == 2


# commands


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus.zarr and mask.nii.gz, and what a command makes of them undisturbed."""
    folder = tmp_path_factory.mktemp("corpus")
    space = coarse_space()
    made = nd.simulate_corpus(
        100, n_foci=2000, n_features=2, effects_per_feature=1, space=space, random_state=4
    )
    nd.save_corpus(made, folder / "corpus.zarr")
    write_mask(space, folder / "mask.nii.gz")
    run(*words(folder, folder / "expected"))
    return folder


def words(folder: Path, out: Path | str) -> list[str]:
    """A meta-analysis with some seconds of null iterations."""
    mask = f"--mask={folder / 'mask.nii.gz'}"
    return ["mkda", f"{folder / 'corpus.zarr'}", f"{out}", mask, "--n-iters=2000", "--seed=1"]


def assert_as_expected(corpus: Path, out: Path) -> None:
    """All maps are those of the undisturbed run, bit by bit."""
    found = xr.open_zarr(out / "result.zarr", consolidated=False).load()
    expected = xr.open_zarr(corpus / "expected" / "result.zarr", consolidated=False).load()
    assert set(found) == set(expected) and "z" in found
    for name in expected.data_vars:
        assert_array_equal(
            np.ascontiguousarray(found[name].values).view(np.uint8),
            np.ascontiguousarray(expected[name].values).view(np.uint8),
            err_msg=str(name),
        )


def test_slurm__command_runs_on_workers(slurm: Slurm, corpus: Path, tmp_path: Path) -> None:
    config = settings(tmp_path)
    done = run(
        *words(corpus, tmp_path / "out"),
        "--cluster=slurm",
        "--workers=2",
        "--cluster-config",
        config,
    )
    assert "Dashboard: http" in done.stderr
    assert_as_expected(corpus, tmp_path / "out")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="ctrl-c"),
        pytest.param(signal.SIGKILL, id="killed"),
    ],
)
def test_slurm__command_that_ends_leaves_no_jobs(
    slurm: Slurm, corpus: Path, tmp_path: Path, how: signal.Signals
) -> None:
    config = settings(tmp_path, worker_extra_args=[])
    place = ["--cluster=slurm", "--workers=2", "--cluster-config", str(config)]
    command = subprocess.Popen(
        [sys.executable, "-m", "nimare_dask", *words(corpus, tmp_path / "out"), *place],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    with command:
        wait_until(lambda: n_done(tmp_path / "out" / "null.zarr") > 0, "some is done")
        command.send_signal(how)
        told = command.stderr.read()
    assert command.returncode == (130 if how == signal.SIGINT else -how), told
    assert "Traceback" not in told
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "the queue is empty")
    run(*words(corpus, tmp_path / "out"))
    assert_as_expected(corpus, tmp_path / "out")


def test_slurm__command_adapts_workers_to_the_work(
    slurm: Slurm, corpus: Path, tmp_path: Path
) -> None:
    before, config = set(slurm.jobs()), settings(tmp_path)
    place = ["--cluster=slurm", "--adapt=0:2", "--cluster-config", config]
    run(*words(corpus, tmp_path / "out"), *place)
    assert_as_expected(corpus, tmp_path / "out")
    assert len(set(slurm.jobs()) - before) == 2


def ended(slurm: Slurm, number: str) -> str:
    """Wait until a job has ended; gives its state."""
    going_on = ("PENDING", "RUNNING", "COMPLETING")
    wait_until(lambda: slurm.jobs()[number]["JobState"] not in going_on, f"job {number} ends", 180)
    return slurm.jobs()[number]["JobState"]


def test_slurm__whole_run_in_one_allocation(
    slurm: Slurm, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three programs on the two cores of this node.
    monkeypatch.setenv("SLURM_OVERCOMMIT", "1")
    fewer = ["--parsable", "--overcommit", "--ntasks=3", "--mem-per-cpu=2G", "--time=5"]
    script = DEPLOY / "slurm" / "run.sbatch"
    number = slurm.run("sbatch", *fewer, script, *words(corpus, "out"), cwd=tmp_path)
    state = ended(slurm, number)
    logs = "".join(path.read_text() for path in tmp_path.glob("nimare-dask-*.log"))
    assert state == "COMPLETED", logs
    assert logs.count("Dashboard: http") == 1 and "Traceback" not in logs, logs
    assert_as_expected(corpus, tmp_path / "out")
    left = {path.name for path in tmp_path.iterdir()} - {"out"}
    assert all(name.endswith(".log") for name in left), left


def test_slurm__runner_without_srun_is_told(slurm: Slurm, corpus: Path, tmp_path: Path) -> None:
    told = f"nimare-dask {' '.join(words(corpus, tmp_path / 'out'))} --cluster slurm-runner"
    alone = ["--parsable", "--ntasks=2", "--mem=2G", "--output=log", "--wrap", told]
    assert ended(slurm, slurm.run("sbatch", *alone, cwd=tmp_path)) == "FAILED"
    log = (tmp_path / "log").read_text()
    assert "start the command by srun" in log and "Traceback" not in log


def processes(element: str) -> list[psutil.Process]:
    """Programs of an element of an array."""
    found, (array, share) = [], element.split("_")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            given = process.environ()
            of_element = (given.get("SLURM_ARRAY_JOB_ID"), given.get("SLURM_ARRAY_TASK_ID"))
            if of_element == (array, share) and "run-batch" in process.cmdline():
                found.append(process)
    return found


def test_slurm__array_with_an_element_that_is_killed(
    slurm: Slurm, corpus: Path, tmp_path: Path
) -> None:
    analysis = "ale corpus.zarr pain --select 'pain>=0.1' --n-iters 10000 --seed 1"
    prepare, array, merge, again, merge_again = [
        line.replace(analysis, " ".join(words(corpus, "pain")))
        .replace("array.sbatch", str(ARRAYS["slurm"]))
        .replace("zarr 20", "zarr 3")
        .replace("--array=0-19", "--array=0-2")
        .replace("--array=7,12", "--array=1")
        .replace("--mem=8G", "--mem=2G")
        for line in commands(ARRAYS["slurm"])
    ]  # fmt: skip
    env = {**os.environ, "SBATCH_MEM_PER_CPU": "2G"}

    def shell(*lines: str) -> str:
        return subprocess.run(
            ["bash", "-euc", "\n".join(lines)],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True,
        ).stdout.strip()  # fmt: skip

    store = tmp_path / "pain" / "null.zarr"
    number = shell(prepare, array, merge, "echo $array").splitlines()[-1]
    wait_until(lambda: processes(f"{number}_1"), "element 1 runs")
    for process in processes(f"{number}_1"):
        process.kill()  # as the system does where memory is short
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "the queue is empty", 180)
    states = {name: told["JobState"] for name, told in slurm.jobs().items()}
    assert [states[f"{number}_{share}"] for share in (0, 2)] == ["COMPLETED"] * 2
    assert states[f"{number}_1"] == "FAILED"
    assert 0 < n_done(store) < 2000 and not (tmp_path / "pain" / "result.zarr").exists()

    shell(again, merge_again)
    wait_until(lambda: not slurm.run("squeue", "--noheader"), "the queue is empty", 180)
    assert_as_expected(corpus, tmp_path / "pain")
