"""Jobs of a batch system as workers: submitted again when they end, and told about when they fail.

dask-jobqueue submits a job again when its worker has come and gone. Two things it does not see: a
job that the batch system did not take, and a job that ended before its worker came (no Python on
the node, no memory, cancelled while it waited). Either would be waited for without end.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Callable
from typing import Any

import dask.config
from dask.utils import parse_timedelta
from distributed import Adaptive, Status

#: Commands that list the unfinished jobs of this user: a line for each, which begins with its
#: number.
_LISTED_BY: dict[str, Callable[[], list[str]]] = {
    "slurm": lambda: ["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"],
    "pbs": lambda: ["qstat", "-u", getpass.getuser()],
    "sge": lambda: ["qstat", "-u", getpass.getuser()],
    "lsf": lambda: ["bjobs", "-noheader", "-o", "jobid"],
}

#: Seconds between two looks for jobs that ended, while workers are missing: at first, and at most.
FIRST_LOOK, LAST_LOOK = 10.0, 120.0

#: How often all jobs may end without any worker having come, before the first has come.
_ROUNDS = 3


class Troubles:
    """What went wrong with jobs, for people and for whoever waits for a worker."""

    def __init__(self, command: str, logs: str | None, say: Callable[[str], None]) -> None:
        self.command, self.logs, self.say = command, logs, say
        #: Whether somebody waits for the first worker, who will tell what `hopeless` says.
        self.waited_for = False
        #: Jobs that are being submitted, whether one was taken, and whether a worker has come.
        self.submitting, self.taken, self.came = 0, False, False
        self.rounds = 0
        self.last = ""

    def refused(self, told: str) -> None:
        """Note that the batch system did not take a job."""
        before, self.last = self.last, f"{self.command} did not take a job of a worker: {told}"
        if self.last != before and (self.taken or not self.waited_for):
            self.say(f"{self.last}. It will be submitted again.")

    def ended(self, numbers: list[str]) -> None:
        """Note that jobs ended before their workers came."""
        self.rounds += 1
        where = f"their logs are in {self.logs}" if self.logs else "log-directory: keeps their logs"
        word = "Job" if len(numbers) == 1 else "Jobs"
        shown = ", ".join(numbers[:5]) + (" ..." if len(numbers) > 5 else "")
        self.last = f"{word} {shown} ended before a worker came; {where}"
        if not (self.waited_for and self.hopeless()):
            self.say(f"{self.last}. Submitted again.")

    def hopeless(self) -> str | None:
        """Why no worker will come, when none has come yet."""
        if self.came or self.submitting or (self.taken and self.rounds < _ROUNDS):
            return None
        return self.last or None


def told_by(error: Exception) -> str:
    """The line by which the batch system says why, without dask-jobqueue's frame around it."""
    text, _, told = str(error).partition("stderr:\n")
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    if not lines:  # nothing was said, or it was no command that failed
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        lines = [line for line in lines if line.startswith("Exit code")] or lines
    return lines[-1].rstrip(".") if lines else type(error).__name__


def watched(job_class: Any, troubles: Troubles) -> Any:
    """The class of a system's jobs, of which a submission that fails is noted and not raised."""

    class Watched(job_class):  # type: ignore[misc]
        async def start(self) -> None:
            troubles.submitting += 1
            try:
                await super().start()
                troubles.taken = True
            except (RuntimeError, OSError, ValueError) as error:
                troubles.refused(told_by(error))
                self.status = Status.running  # without a number; `Resubmitting` drops it
            finally:
                troubles.submitting -= 1

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed

    return Watched


async def unfinished(system: str) -> set[str] | None:
    """Numbers of this user's jobs that wait or run; None when the batch system does not say."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_LISTED_BY[system](),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    except OSError:
        return None
    if process.returncode:
        return None
    found = set()
    for line in out.decode(errors="replace").splitlines():
        number = ""
        for letter in line.strip():
            if not letter.isdigit():
                break
            number += letter
        if number:
            found.add(number)
    return found


class Resubmitting(Adaptive):
    """Dask's adaptive scaling, which also replaces jobs that end before their workers come."""

    cluster: Any

    def __init__(self, cluster: Any, *, system: str, troubles: Troubles, **settings: Any) -> None:
        super().__init__(cluster, **settings)
        self._system, self._troubles = system, troubles
        self._came: set[str] = set()
        self._lost: dict[Any, float] = {}
        self._pause, self._look_at = FIRST_LOOK, time.monotonic() + FIRST_LOOK

    async def target(self) -> int:
        """How many workers there should be; asked for at each step."""
        await self._replace()
        wanted: int = await super().target()  # type: ignore[no-untyped-call]
        return wanted

    def _absent(self) -> dict[Any, str | None]:
        """Numbers of jobs whose workers have not come yet, or have all gone, by name."""
        there = [str(name) for name in self.observed]
        absent = {}
        for name, job in self.cluster.workers.items():
            here = any(seen == str(name) or seen.startswith(f"{name}-") for seen in there)
            if here:
                self._lost.pop(name, None)
            if job.job_id in self._came:
                if not here and self._is_lost(name):
                    absent[name] = job.job_id
            elif here:
                self._came.add(job.job_id)
                self._troubles.came, self._troubles.rounds = True, 0
                self._pause, self._look_at = FIRST_LOOK, time.monotonic() + FIRST_LOOK
            else:
                absent[name] = job.job_id
        return absent

    def _is_lost(self, name: Any) -> bool:
        """Whether all workers of a job of several have been away for a while.

        Dask itself forgets jobs of one worker only, which have its name.
        """
        if "group" not in self.cluster.worker_spec.get(name, {}):
            return False
        timeout = parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout"))
        now = time.monotonic()
        return bool(now - self._lost.setdefault(name, now) >= timeout)

    async def _replace(self) -> None:
        """Forget jobs that will bring no worker, so that Dask submits others in their place."""
        absent = self._absent()
        if not absent or time.monotonic() < self._look_at:
            return
        listed = await unfinished(self._system) if any(absent.values()) else None
        still = self._absent()  # workers may have come while the batch system was asked
        gone = {
            name: number
            for name, number in absent.items()
            if name in still
            and still[name] == number
            and (number is None or (listed is not None and number not in listed))
        }
        for name in gone:
            del self.cluster.workers[name]
            self._lost.pop(name, None)
        numbers = [number for number in gone.values() if number and number not in self._came]
        if numbers:
            self._troubles.ended(numbers)
        self._pause = min(2 * self._pause, LAST_LOOK)
        self._look_at = time.monotonic() + self._pause


def adapt(cluster: Any, system: str, *, fewest: int, most: int) -> None:
    """Keep so many workers, by submitting jobs and by giving them back; see `Resubmitting`.

    Jobs of several workers come and go as a whole, so their workers are rounded up.
    """
    each = int(dask.config.get(f"jobqueue.{system}.processes", None) or 1)
    fewest, most = (-(-count // each) * each for count in (fewest, most))
    cluster.adapt(
        Adaptive=Resubmitting,
        minimum=fewest,
        maximum=most,
        system=system,
        troubles=cluster.troubles,
    )
