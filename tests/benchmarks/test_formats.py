"""Jobs of formats: what they do at small size, and what the table makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimare_dask import facts
from tests.benchmarks import formats, formats_peer, formats_report
from tests.benchmarks.__main__ import main
from tests.benchmarks.formats import FORMATS, PARTS, literature, measure, written
from tests.benchmarks.inputs import Inputs, small_inputs
from tests.benchmarks.run import measure_peer

_PEAK = {"peak_mb": 900.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return small_inputs(tmp_path_factory.mktemp("inputs"))


def test_literature__has_two_analyses_a_study_and_what_releases_have() -> None:
    corpus = literature(20, 300)
    assert (corpus.sizes["study"], corpus.sizes["analysis"], corpus.sizes["focus"]) == (20, 40, 300)
    np.testing.assert_array_equal(np.bincount(corpus["analysis_study"].values), 2)
    rows, values = facts.values(corpus, "focus.values")
    assert rows.tolist() == list(range(0, 300, 3))
    assert all(each["kind"] == "z" for (each,) in values)


@pytest.mark.bench
@pytest.mark.parametrize("job", FORMATS)
def test_measure__each_part_of_each_format_beside_nimare(
    inputs: Inputs, job: str, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow" if job == "parquet" else "nimare")
    done = {part: measure(inputs, job, tmp_path, {"part": part}) for part in PARTS}
    assert all(path.exists() for path in written(job, tmp_path))
    sizes = {"n_study": 50, "n_analysis": 100, "n_focus": 800}
    assert done["read"].items() >= sizes.items()
    assert done["open"].items() >= sizes.items()
    assert done["read"]["n_weight"] == done["open"]["n_weight"] > 100
    assert all(len(each["seconds"]) == formats.RUNS for each in done.values())
    pytest.importorskip("nimare")
    assert formats_peer.measure(job, tmp_path).items() >= sizes.items()


@pytest.mark.bench
def test_main__does_the_job_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("tests.benchmarks.__main__.all_threads", lambda: (1,))
    out = tmp_path / "bench.json"
    assert main(["--quick", "--jobs", "parquet", "--out", str(out)]) == 0
    lines = [row["job"] for row in json.loads(out.read_text())["table"]]
    assert lines == [
        "read parquet, 50 studies, 800 points",
        "write parquet",
        "open the corpus of parquet again",
        "memory, largest",
    ]


def _measured(seconds: float, peak: float, n_focus: int) -> dict[str, Any]:
    sizes = {"n_study": 2, "n_analysis": 4, "n_focus": n_focus, "seconds": [seconds]}
    read = {"1": sizes | {"peak_mb": peak}, "2": sizes | {"peak_mb": 1.0}}
    other = {"1": {"seconds": [0.5], **_PEAK}}
    return {"nimads-read": read, "nimads-write": other, "nimads-open": other}


@pytest.mark.parametrize(
    ("seconds", "peak", "n_focus", "reached"),
    [(3.0, 900.0, 9, True), (3.1, 900.0, 9, False), (1.0, 2001.0, 9, False), (1.0, 9.0, 8, False)],
)
def test_format_rows__judge_time_memory_and_sizes(
    seconds: float, peak: float, n_focus: int, reached: bool
) -> None:
    theirs = {"n_study": 2, "n_analysis": 4, "n_focus": 9, "seconds": [9.0], **_PEAK}
    ours = _measured(seconds, peak, n_focus)
    read, write, opened = formats_report.format_rows(ours, {"nimads": theirs})
    assert read.reached is reached
    assert read.must_reach == "1/3, 2,000 MB"
    assert (write.reached, opened.reached) == (None, True)
    assert formats_report.format_rows(ours, {})[0].reached is None


@pytest.mark.bench
@pytest.mark.slow
def test_measure_peer__reads_what_ours_wrote(inputs: Inputs, tmp_path: Path) -> None:
    measure(inputs, "parquet", tmp_path, {"part": "write"})
    found = measure_peer(inputs, ["parquet"], tmp_path, say=lambda _: None)
    assert found["parquet"]["n_focus"] == 800
