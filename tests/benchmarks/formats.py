"""Files of a literature: how long they take to be written and read, and the corpus to be opened.

As a program (``python -m tests.benchmarks.formats``) it does one part of one job in this process.
The part ``write`` comes first: it leaves the files of the job for the others, and for the peer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import nimare_dask as nd
from nimare_dask.corpus import build, weights_of
from nimare_dask.facts import Facts
from tests.benchmarks.group import time_runs
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.jobs import scheduler
from tests.benchmarks.measure import begin_peak, peak_mb

#: Studies and points; each study has two analyses.
N_STUDIES, N_POINTS = 20_000, 700_000
QUICK_STUDIES, QUICK_POINTS = 50, 800
RUNS = 3
PARTS = ("write", "read", "open")


def _write_nimads(corpus: xr.Dataset, path: Path) -> list[Path]:
    return nd.write_nimads(corpus, path)


def _read_nimads(paths: list[Path]) -> xr.Dataset:
    return nd.read_nimads(paths[0], paths[1:])


def _peer_nimads(paths: list[Path]) -> Any:
    from nimare.studyset import Studyset

    annotations = [json.loads(path.read_text(encoding="utf-8")) for path in paths[1:]]
    return _with_foci(Studyset(str(paths[0]), target=None, annotations=annotations))


def _peer_parquet(paths: list[Path]) -> Any:
    from nimare.studyset import Studyset

    return _with_foci(Studyset.from_parquet(str(paths[0])))


def _with_foci(studyset: Any) -> Any:
    """A studyset with its table of coordinates, which NiMARE makes when it is first asked for."""
    studyset.coordinates  # noqa: B018
    return studyset


@dataclass(frozen=True)
class Format:
    """A format: our writer and reader, NiMARE's reader, and what must be reached.

    Readers get what the writer gave back; `times` is how many times faster than NiMARE ours is.
    """

    name: str
    write: Callable[[xr.Dataset, Path], list[Path]]
    read: Callable[[list[Path]], xr.Dataset]
    peer: Callable[[list[Path]], Any]
    times: int


FORMATS = {
    "nimads": Format("studyset.json", _write_nimads, _read_nimads, _peer_nimads, times=3),
    "parquet": Format(
        "release",
        lambda corpus, path: [nd.write_parquet(corpus, path)],
        lambda paths: nd.read_parquet(paths[0]),
        _peer_parquet,
        times=1,
    ),
}


def literature(n_studies: int, n_points: int) -> xr.Dataset:
    """A simulated corpus with two analyses a study, titles, sample sizes and z of some points."""
    n = 2 * n_studies
    made = nd.simulate_corpus(n, n_foci=n_points, n_features=50, features_per_analysis=2.5)
    study = np.repeat([f"study{number:06d}" for number in range(n_studies)], 2).astype(object)
    contrast = np.tile(["one", "two"], n_studies).astype(object)
    facts = Facts()
    numbers = range(n_studies)
    facts.add_column("study.name", [f"What {at} people see when they look at it" for at in numbers])
    facts.add_column("study.authors", [f"Author A{at % 999}, Writer B{at % 77}" for at in numbers])
    facts.add_column("study.publication", [f"Journal {at % 200}" for at in numbers])
    facts.add_column("analysis.name", [f"task > rest {at % 9}" for at in range(n)])
    facts.add_column("analysis.metadata.sample_sizes", [[10 + at % 30] for at in range(n)])
    rows = np.arange(0, n_points, 3)
    z = np.round(np.random.default_rng(0).uniform(2.3, 9.0, len(rows)), 2).tolist()
    facts.add_column("focus.values", [[{"kind": "z", "value": value}] for value in z], rows)
    return build(
        analysis_id=study + "-" + contrast,
        study_id=study,
        contrast=contrast,
        n_foci=made["analysis_n_foci"].values,
        xyz=made["focus_xyz"].values,
        focus_space=made["focus_space"].values,
        spaces=made.attrs["spaces"],
        feature=made["feature"].values.tolist(),
        weights=weights_of(made),
        facts=facts,
    )


def place_of(job: str, folder: Path) -> Path:
    """Where the part ``write`` of a job says what it wrote."""
    return folder / f"formats_{job}" / "written.json"


def written(job: str, folder: Path) -> list[Path]:
    """What the part ``write`` of a job wrote."""
    return [Path(path) for path in json.loads(place_of(job, folder).read_text(encoding="utf-8"))]


def write(job: str, folder: Path, n_studies: int, n_points: int) -> dict[str, Any]:
    """Write the files of a job, and the corpus itself."""
    corpus, kind, place = literature(n_studies, n_points), FORMATS[job], place_of(job, folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    begin_peak()
    last: list[Path] = []

    def once(run: int) -> None:
        last[:] = kind.write(corpus, place.with_name(f"{run}_{kind.name}"))

    seconds = time_runs(once, RUNS)
    nd.save_corpus(corpus, place.with_name("corpus.zarr"), overwrite=True)
    place.write_text(json.dumps([str(path.absolute()) for path in last]), encoding="utf-8")
    return {"seconds": seconds}


def measure(inputs: Inputs, job: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Do one part of one job."""
    part = options["part"]
    if part == "write":
        size = (QUICK_STUDIES, QUICK_POINTS) if inputs.quick else (N_STUDIES, N_POINTS)
        return write(job, folder, *size)
    paths, found = written(job, folder), []

    def once(_: int) -> None:
        if part == "open":
            found[:] = [nd.open_corpus(place_of(job, folder).with_name("corpus.zarr"))]
        else:
            found[:] = [FORMATS[job].read(paths)]

    once(0)
    seconds = time_runs(once, RUNS)
    names = ("study", "analysis", "focus", "feature", "weight")
    return {"seconds": seconds, **{f"n_{name}": found[0].sizes[name] for name in names}}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    inputs, folder = Inputs(**request["inputs"]), Path(request["folder"])
    with scheduler(request["threads"]):
        answer = measure(inputs, request["job"], folder, request["options"])
    print(json.dumps({"peak_mb": peak_mb(), **answer}))


if __name__ == "__main__":
    main()
