"""Fresh processes and their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.inputs import Inputs

ROOT = Path(__file__).resolve().parents[2]
_THREADS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLOSC_NTHREADS",
    "ZARR_THREADING__MAX_WORKERS",
)


def n_cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_mb() -> float:
    """Largest resident memory of this process, in MB (10^6 bytes)."""
    # Linux hands ru_maxrss on to the programs that a process starts, so a large parent would count;
    # VmHWM begins anew with each program.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def begin_peak() -> None:
    """Let :func:`peak_mb` count from now on, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def run_ours(
    inputs: Inputs, job: str, folder: Path, *, threads: int, n_features: int | None = None
) -> dict[str, Any]:
    """Measure one job of this package in a fresh process."""
    request = {"job": job, "threads": threads, "folder": str(folder), "n_features": n_features}
    environment = dict.fromkeys(_THREADS, str(threads))
    done = _run("tests.benchmarks.jobs", {**request, "inputs": asdict(inputs)}, environment)
    return {"job": job, "threads": threads, **done}


def run_peer(inputs: Inputs, jobs: list[str], folder: Path) -> dict[str, Any]:
    """Measure NiMARE, as it comes, in one fresh process: loading, fit, decoder."""
    request = {"inputs": asdict(inputs), "jobs": jobs, "folder": str(folder)}
    return _run("tests.benchmarks.peer", request, {})


def run_group(
    inputs: Inputs,
    job: str,
    folder: Path,
    *,
    threads: int,
    options: dict[str, Any],
    module: str = "group",
) -> dict[str, Any]:
    """Measure one job of one group of analyses, or of `pairs`, in a fresh process."""
    request = {"job": job, "threads": threads, "folder": str(folder), "options": options}
    environment = dict.fromkeys(_THREADS, str(threads))
    done = _run(f"tests.benchmarks.{module}", {**request, "inputs": asdict(inputs)}, environment)
    return {"job": job, "threads": threads, **done}


def run_group_peer(
    inputs: Inputs, jobs: list[str], folder: Path, *, module: str = "group_peer"
) -> dict[str, Any]:
    """Measure NiMARE in one fresh process and with one thread: one group, or two."""
    request = {"inputs": asdict(inputs), "jobs": jobs, "folder": str(folder)}
    return _run(f"tests.benchmarks.{module}", request, dict.fromkeys(_THREADS, "1"))


def run_command(words: list[str], folder: Path, *, runs: int, threads: int) -> dict[str, Any]:
    """Measure a command, see tests.benchmarks.command."""
    environment = {**dict.fromkeys(_THREADS, str(threads)), "DASK_NUM_WORKERS": str(threads)}
    request = {"words": words, "runs": runs, "folder": str(folder)}
    return _run("tests.benchmarks.command", request, environment)


def _run(module: str, request: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Give a module one request as JSON; its last line of output is the answer."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
