"""What is told of jobs that fail, and the memory of a task in an allocation."""

from __future__ import annotations

import pytest

import nimare_dask as nd
from nimare_dask.parallel import allocation
from nimare_dask.parallel.batch_jobs import Troubles, told_by


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nsbatch /tmp/a.sh\n"
            "stdout:\n\nstderr:\nsbatch: error: one thing\nsbatch: error: invalid partition.\n\n",
            "sbatch: error: invalid partition",
        ),
        (
            "Command exited with non-zero exit code.\nExit code: 255\nCommand:\nbsub< /tmp/a.sh\n"
            "stdout:\n\nstderr:\n\n",
            "Exit code: 255",
        ),
        ("[Errno 13] Permission denied: 'sbatch'", "[Errno 13] Permission denied: 'sbatch'"),
        ("", "RuntimeError"),
    ],
)
def test_told_by__is_what_the_batch_system_said(text: str, told: str) -> None:
    assert told_by(RuntimeError(text)) == told


def test_troubles__are_an_error_until_a_worker_has_come() -> None:
    said: list[str] = []
    troubles = Troubles("sbatch", None, said.append)
    troubles.waited_for = True
    assert troubles.hopeless() is None
    troubles.refused("no such queue")
    assert troubles.hopeless() == "sbatch did not take a job of a worker: no such queue"
    assert not said  # whoever waits tells it


def test_troubles__three_rounds_of_jobs_that_end() -> None:
    said: list[str] = []
    troubles = Troubles("sbatch", "logs", said.append)
    troubles.waited_for = troubles.taken = True
    for number in ("7", "8"):
        troubles.ended([number])
        assert troubles.hopeless() is None
    troubles.ended([str(number) for number in range(9)])
    assert troubles.hopeless() == (
        "Jobs 0, 1, 2, 3, 4 ... ended before a worker came; their logs are in logs"
    )
    assert [sentence.split(" ended")[0] for sentence in said] == ["Job 7", "Job 8"]


def test_troubles__are_sentences_once_a_worker_has_come() -> None:
    said: list[str] = []
    troubles = Troubles("qsub", None, said.append)
    troubles.waited_for = troubles.taken = troubles.came = True
    for _ in range(5):
        troubles.refused("too many jobs")
    assert troubles.hopeless() is None
    assert said == [
        "qsub did not take a job of a worker: too many jobs. It will be submitted again."
    ]


@pytest.mark.parametrize(
    ("variables", "memory"),
    [
        ({}, "auto"),
        ({"SLURM_MEM_PER_CPU": "4000"}, "3600MiB"),
        ({"SLURM_MEM_PER_CPU": "4000", "SLURM_CPUS_PER_TASK": "2"}, "7200MiB"),
        ({"SLURM_MEM_PER_NODE": "16000", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1"}, "3600MiB"),
        ({"SLURM_MEM_PER_NODE": "0"}, "auto"),
    ],
)
def test_memory_of_task__is_its_share(
    variables: dict[str, str], memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("MEM_PER_CPU", "MEM_PER_NODE", "CPUS_PER_TASK", "STEP_TASKS_PER_NODE")
    for name in names:
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert allocation.memory_of_task() == memory


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "start the command by srun"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, "start the command by srun"),
        (
            {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"},
            "start the command by srun",
        ),
        (
            {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"},
            "has 2 tasks; slurm-runner needs at least 3",
        ),
    ],
)
def test_slurm_runner__needs_the_tasks_of_a_step(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JOB_ID", "NTASKS", "STEP_NUM_TASKS"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(nd.SettingsError, match=told), nd.cluster("slurm-runner"):
        pass
