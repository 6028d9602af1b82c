"""Files for batch systems: job scripts by their text, scripts of arrays by running them.

No batch system is needed: `sbatch`, `qsub` and `bsub` are stand-ins that take any job.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask.utils import parse_bytes, parse_timedelta

import nimare_dask as nd
from tests.command import run
from tests.deploy.settings import ARRAYS, DEPLOY, SETTINGS, commands, edited, read
from tests.null_runs import assert_same_null, n_done
from tests.null_runs import run as run_null

pytestmark = pytest.mark.skipif(
    find_spec("dask_jobqueue") is None, reason="dask-jobqueue is not installed (extra hpc)"
)

SYSTEMS = sorted(SETTINGS)
#: What each system prints when it takes a job, and how it is submitted and cancelled.
ANSWERS = {
    "slurm": "Submitted batch job 17",
    "pbs": "17.server",
    "sge": 'Your job 17 ("nimare-dask") has been submitted',
    "lsf": "Job <17> is submitted to default queue <normal>.",
}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
CANCEL = {"slurm": "scancel", "pbs": "qdel", "sge": "qdel", "lsf": "bkill"}
LIST = {"slurm": "squeue", "pbs": "qstat", "sge": "qstat", "lsf": "bjobs"}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Make a program of a name, found before all others: lines of bash."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))

    def make(name: str, lines: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/bash\n{lines}\n", encoding="utf-8")
        path.chmod(0o755)

    return make


Make = Callable[[str, str], None]


def takes_all(system: str, stand_in: Make, *, submit: str = ":", listed: str = "17") -> None:
    """A batch system that takes every job, and does nothing with it."""
    stand_in(SUBMIT[system], f"{submit}\necho '{ANSWERS[system]}'")
    stand_in(CANCEL[system], ":")
    stand_in(LIST[system], f"echo '{listed}'")


def job_script(system: str, folder: Path, stand_in: Make, **own: Any) -> str:
    """The script of a worker's job, with the settings of the folder deploy."""
    takes_all(system, stand_in)
    config = edited(system, folder, **own)
    # With no worker at least, none is submitted until there is work.
    with nd.cluster(system, adapt=(0, 1), config=config, say=lambda _sentence: None) as client:
        script: str = client.cluster.job_script()
    return script


# settings

HEADERS = {
    "slurm": """\
#SBATCH -J nimare-dask
#SBATCH -e {logs}/nimare-dask-%J.err
#SBATCH -o {logs}/nimare-dask-%J.out
#SBATCH -n 1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH -t 02:00:00""",
    "pbs": """\
#PBS -N nimare-dask
#PBS -l select=1:ncpus=1:mem=4gb
#PBS -l walltime=02:00:00
#PBS -e {logs}/
#PBS -o {logs}/
#PBS -V""",
    "sge": """\
#$ -N nimare-dask
#$ -l mem_free=4G
#$ -l h_rt=02:00:00
#$ -e {logs}/
#$ -o {logs}/
#$ -cwd
#$ -j y
#$ -V""",
    "lsf": """\
#BSUB -J nimare-dask
#BSUB -e {logs}/dummy-name-%J.err
#BSUB -o {logs}/dummy-name-%J.out
#BSUB -n 1
#BSUB -M 4000
#BSUB -W 02:00""",
}
SCRATCH = {"slurm": "${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"}


@pytest.mark.parametrize("system", SYSTEMS)
def test_job_script__is_as_expected(
    system: str, tmp_path: Path, stand_in: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lsf.conf").write_text("LSF_UNIT_FOR_LIMITS=MB\n")
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))
    script = job_script(system, tmp_path, stand_in, python="python3")
    scratch = SCRATCH.get(system, "${TMPDIR:-/tmp}")
    address = re.search(r"tcp://\S+", script)
    assert address is not None
    assert script.splitlines() == [
        "#!/usr/bin/env bash",
        "",
        *HEADERS[system].format(logs=tmp_path / "logs").splitlines(),
        f"export DASK_CONFIG={tmp_path / system}.yaml",
        "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1",
        f'[ -w "$HOME" ] || export NUMBA_CACHE_DIR="{scratch}/numba-$(id -u)"',
        f"python3 -m distributed.cli.dask_worker {address[0]} --name dummy-name --nthreads 1 "
        "--memory-limit 2.79GiB --nanny --death-timeout 120 "
        f'--local-directory "{scratch}" --lifetime 105m --lifetime-stagger 10m',
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_job_script__finds_scratch_and_threads_on_the_node(
    system: str, tmp_path: Path, stand_in: Make
) -> None:
    stand_in("show", r'printf "%s\n" "$@"; env')
    script = job_script(system, tmp_path, stand_in, python="show")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "TMPDIR": "/fast disk"}

    def shown(**more: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-eu"], input=script, env=environment | more,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    found = shown()
    assert found[found.index("--local-directory") + 1] == "/fast disk"
    assert {f"NUMBA_CACHE_DIR=/fast disk/numba-{os.getuid()}", "OMP_NUM_THREADS=1"} < set(found)
    assert {"NUMBA_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"} < set(found)
    assert f"DASK_CONFIG={tmp_path / system}.yaml" in found
    of_slurm = shown(SLURM_TMPDIR="/local/17")
    place = "/local/17" if system == "slurm" else "/fast disk"
    assert of_slurm[of_slurm.index("--local-directory") + 1] == place
    assert not any("NUMBA_CACHE_DIR" in line for line in shown(HOME=str(tmp_path)))


def test_job_script__of_several_workers(tmp_path: Path, stand_in: Make) -> None:
    script = job_script("slurm", tmp_path, stand_in, cores=8, processes=4, memory="16GiB")
    assert "--nthreads 2 --memory-limit 4.00GiB --nworkers 4 --nanny" in script
    assert "#SBATCH --cpus-per-task=8" in script


def test_job_script__has_queue_and_account(tmp_path: Path, stand_in: Make) -> None:
    own = {"queue": "long", "account": "lab", "job_extra_directives": ["--qos=low"]}
    script = job_script("slurm", tmp_path, stand_in, **own)
    assert {"#SBATCH -p long", "#SBATCH -A lab", "#SBATCH --qos=low"} < set(script.splitlines())


def seconds(walltime: str, system: str) -> int:
    parts = [int(part) for part in walltime.split(":")]
    if system == "lsf":  # hours and minutes
        parts.append(0)
    hours, minutes, rest = parts
    return 3600 * hours + 60 * minutes + rest


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings__lifetime_ends_before_the_walltime(system: str) -> None:
    own = read(system)["jobqueue"][system]
    words = own["worker-extra-args"]
    given = dict(zip(words[::2], words[1::2], strict=True))
    last = sum(parse_timedelta(given[name]) for name in ("--lifetime", "--lifetime-stagger"))
    assert last + 300 <= seconds(own["walltime"], system)


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings__job_has_more_memory_than_its_worker(system: str) -> None:
    own = read(system)["jobqueue"][system]
    asked = {
        "slurm": lambda: own["job-mem"] + "iB",  # K, M, G of SLURM are powers of 1024
        "pbs": lambda: own["resource-spec"].rpartition("mem=")[2].replace("gb", "GiB"),
        "sge": lambda: own["resource-spec"].rpartition("=")[2] + "iB",
        "lsf": lambda: own["mem"],
    }[system]()
    # The nanny, beside the worker in the job, is 150 MB.
    assert parse_bytes(asked) >= 1.2 * parse_bytes(own["memory"])


def leaves(settings: Mapping[str, Any], *before: str) -> Iterator[tuple[str, ...]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, *before, name)
        else:
            yield (*before, name)


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings__have_names_that_dask_knows(system: str) -> None:
    known: dict[str, Any] = {"nimare-dask": {"n-workers": 1, "no-worker-timeout": "1m"}}
    for package, name in [("dask_jobqueue", "jobqueue.yaml"), ("distributed", "distributed.yaml")]:
        # Not imported: dask-jobqueue would take Ctrl-C from the tests.
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None
        known |= yaml.safe_load((Path(spec.origin).parent / name).read_text(encoding="utf-8"))
    # Read where they are used, without standing in the file of defaults.
    known["jobqueue"]["sge"] |= {"project": None}
    for path in leaves(read(system)):
        place: Any = known
        for name in path:
            assert name in place, ".".join(path)
            place = place[name]


def test_settings__differ_in_jobqueue_only() -> None:
    first, *others = [read(system) for system in SYSTEMS]
    for other in others:
        assert {**other, "jobqueue": None} == {**first, "jobqueue": None}
    keys = [set(read(system)["jobqueue"][system]) for system in SYSTEMS]
    assert len(set.intersection(*keys)) >= 15


# jobs that fail


def test_cluster__without_the_batch_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(nd.SettingsError, match=r"no sbatch here; .*login node"),
        nd.cluster("slurm", config=SETTINGS["slurm"]),
    ):
        pass


@pytest.mark.parametrize("system", SYSTEMS)
def test_cluster__a_job_that_is_not_taken(system: str, tmp_path: Path, stand_in: Make) -> None:
    takes_all(system, stand_in)
    # dask-jobqueue hides what bsub says.
    stand_in(SUBMIT[system], "echo 'error: no such queue: night' >&2; exit 1")
    why = rf"{SUBMIT[system]} did not take a job of a worker: "
    why += "Exit code: 1" if system == "lsf" else r"error: no such queue: night\.$"
    quick = {"distributed.adaptive.interval": "100ms"}
    with (
        pytest.raises(nd.WorkerError, match=why),
        nd.cluster(system, config=edited(system, tmp_path, quick)),
    ):
        pass


@pytest.mark.parametrize("system", SYSTEMS)
def test_cluster__jobs_that_end_at_once(
    system: str, tmp_path: Path, stand_in: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 0.2)
    takes_all(system, stand_in, submit=f"echo taken >>{tmp_path}/taken", listed="170  other")
    said: list[str] = []
    quick = {"distributed.adaptive.interval": "100ms"}
    with (
        pytest.raises(nd.WorkerError, match=r"Job 17 ended before a worker came; .*/logs\.$"),
        nd.cluster(system, n_workers=1, config=edited(system, tmp_path, quick), say=said.append),
    ):
        pass
    assert (tmp_path / "taken").read_text().count("taken") >= 3
    assert [sentence.endswith("Submitted again.") for sentence in said[1:]] == [True, True]


def test_cluster__a_job_that_is_not_taken_beside_one_that_is(
    tmp_path: Path, stand_in: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 0.1)
    # The one that is not taken is told first, and submitted again until it is taken.
    once = f"mkdir {tmp_path}/first 2>/dev/null && {{ echo 'error: busy' >&2; exit 1; }}; sleep 0.3"
    takes_all("slurm", stand_in, submit=f"{once}; echo taken >>{tmp_path}/taken")
    said: list[str] = []
    quick = {"distributed.adaptive.interval": "100ms", "nimare-dask.no-worker-timeout": "2s"}
    config = edited("slurm", tmp_path, quick)
    with (
        pytest.raises(nd.WorkerError, match="has had no worker for 2 s"),
        nd.cluster("slurm", n_workers=2, config=config, say=said.append),
    ):
        pass
    assert (tmp_path / "taken").read_text().count("taken") == 2


def test_cluster__waits_for_jobs_that_wait(
    tmp_path: Path, stand_in: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 0.1)
    takes_all("slurm", stand_in, submit=f"echo taken >>{tmp_path}/taken")
    quick = {"distributed.adaptive.interval": "100ms", "nimare-dask.no-worker-timeout": "2s"}
    with (
        pytest.raises(nd.WorkerError, match="has had no worker for 2 s"),
        nd.cluster("slurm", n_workers=1, config=edited("slurm", tmp_path, quick)),
    ):
        pass
    assert (tmp_path / "taken").read_text().count("taken") == 1


# arrays

#: Variables that each system sets for the element of a share, counted from 0.
ELEMENT: dict[str, Callable[[int], dict[str, str]]] = {
    "slurm": lambda share: {"SLURM_ARRAY_TASK_ID": f"{share}", "SLURM_CPUS_PER_TASK": "2"},
    "pbs": lambda share: {"PBS_ARRAY_INDEX": f"{share + 1}", "NCPUS": "2"},
    "sge": lambda share: {"SGE_TASK_ID": f"{share + 1}", "NSLOTS": "2"},
    "lsf": lambda share: {"LSB_JOBINDEX": f"{share + 1}", "LSB_DJOB_NUMPROC": "2"},
}
#: What they set where there is no array.
NO_ELEMENT: dict[str, dict[str, str]] = {
    "slurm": {},
    "pbs": {},
    "sge": {"SGE_TASK_ID": "undefined"},
    "lsf": {"LSB_JOBINDEX": "0"},
}


def element(
    system: str, folder: Path, store: str, shares: str, given: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the script of an array as the system would."""
    by_words = system in ("slurm", "sge")
    told = {} if by_words else {"STORE": store, "SHARES": shares}
    return subprocess.run(
        ["bash", ARRAYS[system], *([store, shares] if by_words else [])],
        cwd="/" if system == "pbs" else folder,  # PBS begins in the home folder
        env={**os.environ, "PBS_O_WORKDIR": str(folder), **told, **given},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("path", [*ARRAYS.values(), DEPLOY / "slurm" / "run.sbatch"], ids=str)
def test_scripts__are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    for line in commands(path):
        subprocess.run(["bash", "-n"], input=line, text=True, check=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_array__elements_do_all_shares(system: str, tmp_path: Path, stand_in: Make) -> None:
    stand_in("nimare-dask", r'echo "$DASK_NUM_WORKERS $NUMBA_NUM_THREADS $PWD"; printf "%s\n" "$@"')
    store = tmp_path / "a b" / "null.zarr"
    store.parent.mkdir()
    settings: dict[str, Any] = {"n_iters": 40, "batch": 5, "store": store}
    run_null(**settings, compute=False)
    for share in range(3):
        done = element(system, tmp_path, "a b/null.zarr", "3", ELEMENT[system](share))
        assert not done.returncode, done.stderr
        around, *words = done.stdout.splitlines()
        assert around == f"2 1 {tmp_path}"
        assert words == ["run-batch", "a b/null.zarr", "--task", f"{share}", "--of", "3"]
        run(*[str(store) if word == "a b/null.zarr" else word for word in words])
    assert n_done(store) == 40
    assert_same_null(nd.open_null(store), run_null(n_iters=40, batch=5))


@pytest.mark.parametrize("system", SYSTEMS)
def test_array__outside_an_array(system: str, tmp_path: Path, stand_in: Make) -> None:
    stand_in("nimare-dask", "echo ran")
    done = element(system, tmp_path, "null.zarr", "20", NO_ELEMENT[system])
    assert done.returncode and not done.stdout
    assert "submit this as an array" in done.stderr and SUBMIT[system] in done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_array__without_a_store(system: str, tmp_path: Path, stand_in: Make) -> None:
    stand_in("nimare-dask", "echo ran")
    done = element(system, tmp_path, "", "", ELEMENT[system](0))
    assert done.returncode and not done.stdout and "is missing" in done.stderr


def test_array__elements_of_torque_and_by_hand(tmp_path: Path, stand_in: Make) -> None:
    stand_in("nimare-dask", 'echo "$@"')
    for given in ({"PBS_ARRAYID": "7"}, {"SHARE": "7"}):
        done = element("pbs", tmp_path, "null.zarr", "20", given)
        assert done.stdout.strip() == "run-batch null.zarr --task 6 --of 20"


@pytest.mark.parametrize("system", SYSTEMS)
def test_array__commands_wait_for_each_other(system: str, tmp_path: Path, stand_in: Make) -> None:
    number = {"slurm": "17", "pbs": "17.server"}.get(system, "Job <17>")
    stand_in(SUBMIT[system], f"printf '%s|' \"$@\" >>given; echo >>given; echo '{number}'")
    (tmp_path / ARRAYS[system].name).write_text("")  # bsub reads it
    prepare, array, merge, *_again = commands(ARRAYS[system])
    script = "\n".join(["set -eu", prepare, array, merge])
    done = subprocess.run(["bash"], input=script, cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    first, second, third = (tmp_path / "given").read_text().splitlines()
    after = {
        "slurm": ["--dependency=afterok:17|", "--dependency=afterok:17|"],
        "pbs": ["depend=afterok:17.server|", "depend=afterok:17.server|"],
        "sge": ["-hold_jid|prepare|", "-hold_jid|shares|"],
        "lsf": ["-w|done(prepare)|", "-w|done(shares)|"],
    }[system]
    assert after[0] in second and after[1] in third
    elements = "--array=0-19|" if system == "slurm" else "1-20"
    assert elements in second
    if system in ("slurm", "lsf"):  # the others are given commands as a script
        assert "--prepare" in first and "nimare-dask merge pain/null.zarr" in third


# whole runs


@pytest.mark.slow
@pytest.mark.parametrize("system", ["pbs", "sge", "lsf"])
def test_cluster__works_where_jobs_run_here(system: str, tmp_path: Path, stand_in: Make) -> None:
    # Jobs run as processes of this machine; qdel and bkill end them.
    script = "cat >" if system == "lsf" else 'cat "$1" >'
    begin = f"{script}{tmp_path}/job.sh; setsid bash {tmp_path}/job.sh >{tmp_path}/log 2>&1 &\n"
    takes_all(system, stand_in, submit=f"{begin} echo $! >{tmp_path}/pid")
    stand_in(CANCEL[system], f'echo "$1" >{tmp_path}/cancelled; kill -- -$(cat {tmp_path}/pid)')
    try:
        with nd.cluster(system, n_workers=1, config=edited(system, tmp_path)):
            found = run_null(n_iters=40, batch=5)
    finally:
        if (tmp_path / "pid").exists():
            subprocess.run([CANCEL[system], "17"], capture_output=True)
    assert_same_null(found, run_null(n_iters=40, batch=5))
    assert (tmp_path / "cancelled").read_text().strip() == "17"


@pytest.mark.slow
def test_cluster__jobs_of_several_workers_are_submitted_again(
    tmp_path: Path, stand_in: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimare_dask.parallel.batch_jobs.FIRST_LOOK", 0.5)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    # Jobs are submitted at the same time, and each gets a number of its own.
    number = f"exec 9>{tmp_path}/lock; flock 9; number=$(ls {jobs} | wc -l)"
    begin = f"setsid bash {jobs}/$number >/dev/null 2>&1 9>&- & echo $! >{tmp_path}/$number.pid"
    stand_in(
        "sbatch",
        f'{number}; cat "$1" >{jobs}/$number\n{begin}\necho "Submitted batch job 1$number"',
    )
    stand_in("scancel", f"for job; do kill -- -$(cat {tmp_path}/${{job#1}}.pid); done")
    alive = f'for pid in {tmp_path}/*.pid; do kill -0 -- -$(cat "$pid") 2>/dev/null'
    stand_in("squeue", f'{alive} && echo 1$(basename "$pid" .pid); done; true')

    def submitted() -> int:
        return len(list(jobs.iterdir()))

    def wait(holds: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.1)

    quick = {
        "distributed.adaptive.interval": "200ms",
        "distributed.adaptive.wait-count": 3,
        "distributed.deploy.lost-worker-timeout": "1s",
    }
    config = edited("slurm", tmp_path, quick, cores=2, processes=2, memory="2GB")
    with nd.cluster("slurm", n_workers=3, config=config, say=lambda _: None) as client:
        client.wait_for_workers(4, timeout=60)
        time.sleep(2)  # three workers that were asked for are two whole jobs, and stay so
        assert submitted() == 2 and len(client.nthreads()) == 4
        subprocess.run(["scancel", "10"], check=True)
        wait(lambda: submitted() == 3)
        wait(lambda: len(client.nthreads()) == 4)
    wait(lambda: not subprocess.run(["squeue"], capture_output=True, check=True).stdout)
