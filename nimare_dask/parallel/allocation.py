"""A run inside one allocation of SLURM: `srun` starts the same program in every task."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from nimare_dask.errors import SettingsError

#: Tasks that there must be: a scheduler, the program, a worker.
_FEWEST = 3


def start() -> Any:
    """Become scheduler or worker, which does not return; or the task that goes on.

    Raises
    ------
    SettingsError
        When this is no task of a step of SLURM, or there are too few of them.
    """
    job, tasks = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_NTASKS")
    # Without srun there is one program, and it would wait for the others until the walltime.
    if not (job and tasks) or os.environ.get("SLURM_STEP_NUM_TASKS") != tasks:
        raise SettingsError(
            "slurm-runner works in the tasks of an allocation of SLURM only; start the command by "
            "srun in a job, as deploy/slurm/run.sbatch does."
        )
    if int(tasks) < _FEWEST:
        raise SettingsError(
            f"The allocation has {tasks} tasks; slurm-runner needs at least {_FEWEST} (--ntasks): "
            "a scheduler, this program, and one or more workers."
        )
    restored = signal.getsignal(signal.SIGINT)
    try:
        from dask_jobqueue.slurm import SLURMRunner
        from distributed.utils import json_load_robust
    except ImportError as error:
        raise SettingsError(
            "slurm-runner needs dask-jobqueue; install nimare_dask with the extra hpc: pip install "
            "'nimare-dask[hpc]'."
        ) from error

    class Runner(SLURMRunner):
        """One whose tasks read the scheduler's file again where it is half written."""

        async def get_scheduler_address(self) -> str:
            written = await asyncio.to_thread(json_load_robust, self.scheduler_file)
            return str(written["address"])

    # A job that SLURM starts again has the same number, and its file of before is of no use.
    again, step = os.environ.get("SLURM_RESTART_COUNT", "0"), os.environ.get("SLURM_STEP_ID", "0")
    runner = Runner(  # type: ignore[no-untyped-call]
        scheduler_file=f"nimare-dask-scheduler-{{job_id}}-{step}-{again}.json",
        worker_class="distributed.Nanny",
        worker_options={
            "nthreads": int(os.environ.get("SLURM_CPUS_PER_TASK", "1")),
            "local_directory": os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR") or "/tmp",
            "memory_limit": memory_of_task(),
        },
    )
    # Only the one that goes on gets here; dask-jobqueue has taken Ctrl-C for the others' end.
    signal.signal(signal.SIGINT, restored)
    return runner


def memory_of_task() -> str:
    """What one task may use, for Dask; a tenth is left, so that Dask acts before SLURM kills."""
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    by_core = _megabytes("SLURM_MEM_PER_CPU") * cores
    # Memory of a node is shared by its tasks: 8(x3),2 are three nodes with 8 tasks and one with 2.
    counts = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")
    tasks = max(int(count.partition("(")[0]) for count in counts)
    mebibytes = by_core or _megabytes("SLURM_MEM_PER_NODE") // tasks
    return f"{mebibytes * 9 // 10}MiB" if mebibytes else "auto"


def _megabytes(variable: str) -> int:
    value = os.environ.get(variable, "0")
    return int(value) if value.isdecimal() else 0
