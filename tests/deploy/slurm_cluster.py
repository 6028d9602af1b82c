"""A real SLURM of one node on this machine, for tests and for trying things out.

``python -m tests.deploy.slurm_cluster start`` leaves one running and prints the line that lets a
shell use it; ``stop`` ends it. Tests take the fixture ``slurm``.

It needs root and the Debian packages slurm-wlm and munge, and touches no service of the system:
munged (as user munge), slurmctld and slurmd run from a folder of their own, on free ports. One
process, the keeper, holds them and ends them, with all jobs, when its standard input is closed, as
it is when the test run ends in any way.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
#: What `start` leaves for `stop`.
_BY_HAND = Path(tempfile.gettempdir()) / "nimare-dask-slurm"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# Of a test: jobs start and end at once, and can be asked about long after.
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=3
MinJobAge=86400
# The node has two cores, whatever the machine has.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurmError(Exception):
    """Why SLURM cannot be started here."""


def why_not() -> str | None:
    """Why SLURM cannot be started here; None when it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "SLURM is started by root only"
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurm-wlm munge"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "no user munge: apt-get install munge"
    return None


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Slurm:
    """A SLURM that runs; commands are given through it."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """Variables with which the commands of SLURM, and what calls them, find this one."""
        here = str(Path(sys.executable).parent)  # nimare-dask of this environment
        return {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": os.pathsep.join([here, _path()]),
            "PYTHONPATH": str(ROOT),
        }

    def run(self, *words: object, cwd: Path | None = None, ok: bool = True) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            [str(word) for word in words],
            env={**os.environ, **self.env},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 or not ok, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, dict[str, str]]:
        """What SLURM says of each job so far, by number (elements of arrays: 12_3)."""
        found = {}
        for line in self.run("scontrol", "--oneliner", "show", "jobs", ok=False).splitlines():
            told = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" in told:
                element = told.get("ArrayTaskId")
                name = f"{told['ArrayJobId']}_{element}" if element else told["JobId"]
                found[name] = told
        return found

    def numbers(self, state: str, name: str | None = None) -> list[str]:
        """Jobs in a state, in the order of their submission."""
        return [
            number
            for number, told in sorted(self.jobs().items(), key=lambda item: int(item[1]["JobId"]))
            if told["JobState"] == state and name in (None, told["JobName"])
        ]

    def node_state(self) -> str:
        """The state of the node: idle, allocated, down ..."""
        return self.run("sinfo", "--noheader", "--format=%T", ok=False)

    def logs(self) -> str:
        """The ends of what its parts wrote."""
        told = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("munge/*.log")]):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            told += [f"== {path.name}", *lines[-15:]]
        return "\n".join(told)


@contextmanager
def started() -> Iterator[Slurm]:
    """A SLURM that lasts as long as the block, or as this process."""
    if told := why_not():
        raise NoSlurmError(told)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.slurm_cluster", "keep"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which then close the keeper's input
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        said = keeper.stdout.readline().strip()
        if not said.startswith("/"):
            raise NoSlurmError(f"SLURM does not start: {said}{keeper.stdout.read()}")
        yield Slurm(Path(said))
    finally:
        keeper.stdin.close()
        keeper.wait(timeout=60)
        keeper.stdout.close()


# The keeper.


def _free_ports(n: int) -> list[int]:
    with_sockets = [socket.socket() for _ in range(n)]
    try:
        for one in with_sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in with_sockets]
    finally:
        for one in with_sockets:
            one.close()


#: Loaded before there is another user, who may not read the files of Python.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Let the system end this process when the keeper is killed (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGTERM)


def _lay_out(folder: Path) -> None:
    """Write the configuration, and the key of munge."""
    folder.chmod(0o755)  # munged is another user
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    for path in (folder / "munge", key):
        shutil.chown(path, "munge", "munge")
    controller_port, node_port = _free_ports(2)
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller_port=controller_port,
            node_port=node_port,
        ),
        encoding="utf-8",
    )


def _begin(words: Sequence[str], folder: Path, user: str | None = None) -> subprocess.Popen[bytes]:
    environment: Mapping[str, str] = {**os.environ, **Slurm(folder).env}
    with (folder / f"{words[0]}.out.log").open("wb") as out:
        return subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            preexec_fn=_end_with_parent,
        )


def _begin_all(folder: Path, parts: list[subprocess.Popen[bytes]]) -> None:
    munge = folder / "munge"
    files = {
        "socket": "socket",
        "key-file": "key",
        "log-file": "munged.log",
        "pid-file": "pid",
        "seed-file": "seed",
    }
    options = [f"--{option}={munge / name}" for option, name in files.items()]
    parts.append(_begin(["munged", "--foreground", *options], folder, "munge"))
    _wait_for("munged", parts[-1], (munge / "socket").exists)
    parts.append(_begin(["slurmctld", "-D"], folder))
    slurm = Slurm(folder)
    _wait_for("slurmctld", parts[-1], lambda: "is UP" in slurm.run("scontrol", "ping", ok=False))
    parts.append(_begin(["slurmd", "-D"], folder))
    _wait_for("slurmd", parts[-1], lambda: slurm.node_state() == "idle")


def _wait_for(name: str, part: subprocess.Popen[bytes], ready: object, seconds: float = 30) -> None:
    assert callable(ready)
    until = time.monotonic() + seconds
    while not ready():
        if part.poll() is not None:
            raise NoSlurmError(f"{name} ended with {part.returncode}")
        if time.monotonic() > until:
            raise NoSlurmError(f"{name} was not ready after {seconds:.0f} s")
        time.sleep(0.1)


def _end_all(folder: Path, parts: list[subprocess.Popen[bytes]]) -> None:
    """End jobs, then the parts, then what is left of jobs."""
    slurm = Slurm(folder)
    if len(parts) == 3:
        with suppress(subprocess.TimeoutExpired, OSError):
            slurm.run("scancel", f"--user={pwd.getpwuid(os.geteuid()).pw_name}", ok=False)
            until = time.monotonic() + 10
            while slurm.run("squeue", "--noheader", ok=False) and time.monotonic() < until:
                time.sleep(0.2)
    for part in reversed(parts):
        part.terminate()
        try:
            part.wait(timeout=10)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()
    ours = str(folder / "slurm.conf")
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            of_job = "SLURM_JOB_ID" in environment or process.name() == "slurmstepd"
            if of_job and environment.get("SLURM_CONF") == ours:
                process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _keep(*, until_told: bool) -> int:
    """Start everything, say where, and end everything when the standard input is closed."""
    folder = Path(tempfile.mkdtemp(prefix="nimare-dask-slurm-"))
    parts: list[subprocess.Popen[bytes]] = []
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    try:
        try:
            _lay_out(folder)
            _begin_all(folder, parts)
        except (NoSlurmError, OSError, subprocess.SubprocessError) as error:
            print(f"{error}\n{Slurm(folder).logs()}", flush=True)
            return 1
        print(folder, flush=True)
        if until_told:
            _BY_HAND.write_text(f"{os.getpid()} {folder}", encoding="utf-8")
            while not stopped:
                signal.pause()
        else:
            sys.stdin.read()
    except SystemExit:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all(folder, parts)
    return 0


# By hand.


def _start_by_hand() -> int:
    if told := why_not():
        print(f"SLURM cannot be started: {told}", file=sys.stderr)
        return 1
    if _BY_HAND.exists():
        print(f"One is running already ({_BY_HAND.read_text()}); stop it first.", file=sys.stderr)
        return 1
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.slurm_cluster", "keep-until-told"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert keeper.stdout is not None
    said = keeper.stdout.readline().strip()
    if not said.startswith("/"):
        print(f"SLURM does not start: {said}{keeper.stdout.read()}", file=sys.stderr)
        return 1
    print(f"export SLURM_CONF={said}/slurm.conf")
    return 0


def _stop_by_hand() -> int:
    if not _BY_HAND.exists():
        print("None is running.", file=sys.stderr)
        return 1
    pid = int(_BY_HAND.read_text(encoding="utf-8").split()[0])
    _BY_HAND.unlink()
    with suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(pid)
        if "tests.deploy.slurm_cluster" in keeper.cmdline():
            keeper.terminate()
            keeper.wait(timeout=60)
    return 0


def _main(words: list[str]) -> int:
    verbs = {
        "start": _start_by_hand,
        "stop": _stop_by_hand,
        "keep": lambda: _keep(until_told=False),
        "keep-until-told": lambda: _keep(until_told=True),
    }
    if len(words) != 1 or words[0] not in verbs:
        print("usage: python -m tests.deploy.slurm_cluster start|stop", file=sys.stderr)
        return 2
    return verbs[words[0]]()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
