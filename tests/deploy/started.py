"""A Dask cluster and a run on it as people start them, each part a process that can be lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml

from nimare_dask.cli.app import __file__ as _app
from tests.deploy import watch
from tests.deploy.hosts import Hosts

ROOT = Path(__file__).resolve().parents[2]
assert Path(_app).is_relative_to(ROOT), "the tests of one folder run the package of another"

#: Seconds after which something that should have happened never will.
HANGS = 120.0

#: deploy/dask.yaml with times of seconds, so that tests need not wait for minutes.
QUICK = {
    "distributed.scheduler.worker-ttl": "60s",
    "distributed.comm.timeouts.connect": "8s",
    "distributed.comm.timeouts.tcp": "12s",
    "nimare-dask.no-worker-timeout": "5s",
}


def quick_settings(path: Path, **others: Any) -> Path:
    """Write deploy/dask.yaml with short times, and others such as `scheduler__worker_ttl`."""
    settings = yaml.safe_load((ROOT / "deploy" / "dask.yaml").read_text())
    more = {}
    for name, value in others.items():
        last = name.replace("__", ".").replace("_", "-")
        more[f"nimare-dask.{last}" if last == "no-worker-timeout" else f"distributed.{last}"] = (
            value
        )
    for name, value in {**QUICK, **more}.items():
        *sections, last = name.split(".")
        place = settings
        for section in sections:
            place = place[section]
        assert last in place, f"deploy/dask.yaml has no {name}"
        place[last] = value
    path.write_text(yaml.safe_dump(settings))
    return path


def until(holds: Callable[[], Any], what: str, *, seconds: float = HANGS) -> Any:
    """Wait until something holds; gives what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s in vain until {what}")


def family(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """A process and all that it has started, itself first."""
    try:
        first = psutil.Process(process.pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def send(members: Sequence[psutil.Process], number: int) -> None:
    """Send a signal to all that are still there."""
    for member in members:
        try:
            member.send_signal(number)
        except psutil.NoSuchProcess:
            continue


@dataclass(frozen=True)
class Line:
    """What a worker noted, see `watch`."""

    time: float
    pid: int
    worker: str
    what: str
    key: str


class Command:
    """A process with what it says, on standard error or output, in a file."""

    def __init__(self, words: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
            )

    @property
    def said(self) -> str:
        """All that it has said."""
        return self.log.read_text(errors="replace")

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    @property
    def error(self) -> str:
        """The sentence that it ended with."""
        return next(line for line in self.said.splitlines()[::-1] if line.startswith("Error: "))

    @property
    def goes_on(self) -> list[str]:
        """The command that it says one may go on with, without `nimare-dask`."""
        lines = self.said.splitlines()
        place = next(at for at, line in enumerate(lines) if line.endswith(" with:"))
        program, *words = shlex.split(lines[place + 1])
        assert program == "nimare-dask"
        return words

    def end(self, code: int = 0, *, seconds: float = HANGS) -> None:
        """Wait until it ends, and hold it to its exit code."""
        found = self.process.wait(timeout=seconds)
        assert found == code, f"exit {found}\n{self.said}"

    def kill(self) -> None:
        """Kill it and all that it has started."""
        members = family(self.process)
        send(members, signal.SIGKILL)
        self.process.wait(timeout=30)
        psutil.wait_procs(members[1:], timeout=30)


class Cluster:
    """`dask scheduler`, `dask worker` and `nimare-dask`, on one host or each on its own.

    Parameters
    ----------
    folder
        For logs and settings.
    hosts
        Hosts, of which the one called `scheduler` has the scheduler, `driver` runs commands, and
        others have the worker of their name; without them everything is on this machine.
    slow
        Seconds that each block of maps takes longer to write.
    settings
        Settings of Dask for all, see `quick_settings`.
    """

    def __init__(
        self, folder: Path, *, hosts: Hosts | None = None, slow: float = 0.0, **settings: Any
    ) -> None:
        self.folder, self.hosts, self.slow = folder, hosts, slow
        self.settings = quick_settings(folder / "dask.yaml", **settings)
        self.notes, self._from = folder / "watch.txt", 0
        self.greed = folder / "greed"
        self.notes.touch()
        self.address = ""
        self.commands: dict[str, Command] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for command in list(self.commands.values())[::-1]:
            command.kill()

    def ready(self) -> Self:
        """Forget the runs of before, and start again what they have lost."""
        if "scheduler" not in self.commands or self.commands["scheduler"].gone:
            self.scheduler()
        names = ("one", "two")
        lost = [name for name in names if name not in self.commands or self.commands[name].gone]
        self.workers(*lost, options=["--memory-limit", "1GB"])
        for name in names:
            until(lambda name=name: self._lives(name), f"{name} is there again")
        # What a driver that was killed has left behind is done.
        while time.time() - self.notes.stat().st_mtime < 1.0:
            time.sleep(0.1)
        self._from = self.notes.stat().st_size
        return self

    def _lives(self, name: str) -> bool:
        try:
            return self.worker_process(name).status() not in ("stopped", "zombie")
        except psutil.NoSuchProcess:
            return False

    def start(self, name: str, host: str, words: Sequence[object], **more: str) -> Command:
        """Start a process on a host; it ends with the cluster at the latest."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "DASK_CONFIG": str(self.settings),
            watch.FILE: str(self.notes),
            watch.GREED: str(self.greed),
            watch.SLOW: str(self.slow),
            **more,
        }
        given = list(map(str, words))
        if self.hosts is not None:
            given = self.hosts.on(host, given)
        if shutil.which("setpriv"):  # also where the tests themselves are killed
            given = ["setpriv", "--pdeathsig", "KILL", *given]
        command = Command(given, self.folder / f"{name}.log", environment)
        if name in self.commands:
            self.commands[name].kill()
        self.commands[name] = command
        return command

    def scheduler(self) -> None:
        """Start the scheduler, or start it again at the address that it had."""
        told = self.folder / "scheduler.json"
        told.unlink(missing_ok=True)
        host = "127.0.0.1" if self.hosts is None else self.hosts.address("scheduler")
        port = self.address.rpartition(":")[2] or "0"
        words = ["--host", host, "--port", port, "--no-dashboard", "--scheduler-file", told]
        self.start("scheduler", "scheduler", [sys.executable, "-m", "dask", "scheduler", *words])
        text = until(lambda: told.exists() and told.read_text(), "the scheduler is there")
        self.address = json.loads(text)["address"]

    def workers(
        self, *names: str, options: Sequence[object] = (), prefix: Sequence[str] = ()
    ) -> None:
        """Start workers of one thread, and wait until they are there."""
        known = len(self.lines("made"))
        for name in names:
            self.worker(name, options=options, prefix=prefix)
        until(lambda: len(self.lines("made")) >= known + len(names), f"{names} are there")

    def worker(
        self, name: str, *, options: Sequence[object] = (), prefix: Sequence[str] = ()
    ) -> Command:
        """Start one worker with its nanny."""
        words = [*prefix, *self.worker_words(name, options)]
        return self.start(name, name, words)

    def worker_words(self, name: str, options: Sequence[object] = ()) -> list[str]:
        """`dask worker`, as a person types it."""
        scratch = self.folder / f"scratch-{name}"
        words = ["worker", self.address, "--name", name, "--nthreads", 1, "--no-dashboard"]
        if "--local-directory" not in options:
            words += ["--local-directory", scratch]
        words += ["--preload", "tests.deploy.watch", *options]
        return [sys.executable, "-m", "dask", *map(str, words)]

    def run(
        self, words: Sequence[object], *, name: str = "driver", prefix: Sequence[str] = ()
    ) -> Command:
        """Start a command of nimare-dask on this cluster, from the host of the driver."""
        where = ["--cluster", self.address, "--cluster-config", self.settings]
        whole = [*prefix, sys.executable, "-m", "nimare_dask", *words, *where]
        return self.start(name, "driver", whole)

    def worker_process(self, name: str) -> psutil.Process:
        """The process of a worker that computes, which its nanny has started."""
        return psutil.Process(self.lines("made", worker=name, of_all=True)[-1].pid)

    def lines(
        self, what: str | None = None, *, worker: str | None = None, of_all: bool = False
    ) -> list[Line]:
        """What workers noted since the run began, or ever, in order."""
        found = []
        for text in self.notes.read_text()[0 if of_all else self._from :].splitlines():
            when, pid, name, happened, *key = text.split(" ", 4)
            said = float(when)
            said -= 3600 * round((said - time.time()) / 3600)  # of a clock that is an hour ahead
            if what in (None, happened) and worker in (None, name):
                found.append(Line(said, int(pid), name, happened, (key or [""])[0]))
        return found

    def begun(self, task: str) -> Counter[str]:
        """How often tasks of a name were begun, by their key."""
        return Counter(line.key for line in self.lines("begun") if line.key.startswith(task))

    def longest_pause(self, task: str, since: float) -> float:
        """Seconds for which no task of a name ended, from some time on."""
        ended = [line.time for line in self.lines("ended") if line.key.startswith(task)]
        times = [since, *sorted(when for when in ended if when > since)]
        return max((b - a for a, b in pairwise(times)), default=0.0)


def wrong_clock(offset: str) -> list[str]:
    """What begins a command so that its clock is wrong, such as by +1h; nothing without faketime.

    The clock that only goes forward is right: it begins when a machine starts.
    """
    if shutil.which("faketime") is None:
        return []
    # The command faketime stays between a process and its signals; what it loads does not.
    library = subprocess.run(
        ["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    settings = (f"LD_PRELOAD={library}", f"FAKETIME={offset}", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    # The times of files are not those of this clock; numba would compile everything again.
    return ["env", "NO_FAKE_STAT=1", *settings]


def can_mount(folder: Path) -> bool:
    """Whether a small disk can be made here."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()
    return done.returncode == 0


class Disk:
    """A disk of some size, as a folder; a context manager."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self.size = folder, size

    def __enter__(self) -> Self:
        self.folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", str(self.folder)]
        subprocess.run(words, check=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def grow(self, size: str) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave no room at all."""
        with (self.folder / "full").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"0" * 4096)
            except OSError:
                pass
        assert shutil.disk_usage(self.folder).free < 4096
