"""How long NiMARE takes to read the files that ours read: one fresh process, one thread."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.formats import FORMATS, written
from tests.benchmarks.group import time_runs
from tests.benchmarks.measure import peak_mb

#: After one that is not measured.
RUNS = 2


def measure(job: str, folder: Path) -> dict[str, Any]:
    """Read the files of a job."""
    paths, found = written(job, folder), []

    def once(_: int) -> None:
        found[:] = [FORMATS[job].peer(paths)]

    once(0)
    seconds = time_runs(once, RUNS)
    studyset = found[0]
    sizes = {"n_analysis": len(studyset.ids), "n_study": len(studyset.study_ids)}
    return {"seconds": seconds, "peak_mb": peak_mb(), **sizes, "n_focus": len(studyset.coordinates)}


def main() -> None:
    """Answer one request."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    print(json.dumps({job: measure(job, folder) for job in request["jobs"]}))


if __name__ == "__main__":
    main()
