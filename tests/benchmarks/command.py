"""A whole command, from its start to its files on disk, with nothing compiled before.

As a program (``python -m tests.benchmarks.command``) it reads the command as JSON from standard
input and prints one line of JSON. It imports little, so that its own memory is not taken for that
of the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Stands in a command for the folder that it is to write.
OUT = "{out}"


def measure(words: list[str], runs: int, folder: Path) -> dict[str, Any]:
    """Run a command some times, each with an empty folder for compiled code and for results."""
    found: dict[str, Any] = {"seconds": [], "peak_mb": 0.0}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            here = Path(name)
            (here / "compiled").mkdir()
            seconds, peak = _run(words, here)
            found["seconds"].append(seconds)
            found["peak_mb"] = max(found["peak_mb"], peak)
            found["n_images"] = len(list((here / "out").glob("*.nii.gz")))
    return found


def _run(words: list[str], here: Path) -> tuple[float, float]:
    """Seconds and largest resident memory (MB) of a command in a process of its own."""
    out = str(here / "out")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(here / "compiled")}
    with (here / "said.txt").open("w+", encoding="utf-8") as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [word.replace(OUT, out) for word in words],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise RuntimeError(f"{words} ended with {process.returncode}:\n{said.read()[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_maxrss * unit / 1e6


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    print(json.dumps(measure(request["words"], request["runs"], Path(request["folder"]))))


if __name__ == "__main__":
    main()
