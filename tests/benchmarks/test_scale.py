"""How it grows: every work and both swarms at small size, and whether the verdicts are right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks import scale, swarm
from tests.benchmarks.measure import ROOT


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make bench-scale` measures of a small corpus."""
    out = tmp_path_factory.mktemp("scale") / "scale.json"
    words = ["-m", "tests.benchmarks.scale", "--quick", "--runs", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(out.read_text()))


@pytest.mark.slow
def test_scale__measures_every_work_on_one_and_two_workers(written: dict[str, Any]) -> None:
    found = [scale.Grown(**row) for row in written["workers"]]
    assert [(row.job, row.n_workers) for row in found] == [
        (job, n) for job in scale.FULL for n in (1, 2)
    ]
    for row in found:
        assert row.n_tasks > 1 and row.bytes_per_task > 0
        assert 0 < row.first_seconds[0] < row.seconds[0]
        assert 100 < row.worker_mb < scale.WORKER_MB
    # Batches are as large as suits the workers; blocks of maps are not.
    one, two = (row for row in found if row.job == "features")
    assert one.n_tasks == two.n_tasks


@pytest.mark.slow
def test_scale__swarm_does_every_iteration(written: dict[str, Any]) -> None:
    found = [swarm.Swarmed(**row) for row in written["swarm"]]
    assert len(found) == 2
    for row in found:
        assert row.n_tasks == -(-row.n_iters // row.batch)
        assert row.work_seconds == pytest.approx(row.n_iters * row.iteration_seconds)
        # Nothing is faster than workers that sleep for all of it.
        assert row.seconds > row.work_seconds / row.n_workers
        assert 0 < row.first_seconds <= row.seconds
        assert 0 < row.scheduler_seconds <= row.seconds
        # No order between the two: a driver gives memory back as well.
        assert min(row.client_mb, row.client_mb_at_first) > 100


def grown(**given: Any) -> list[scale.Grown]:
    """One and two workers, of which two are just fast enough."""
    one = scale.Grown("ale", 1, [17.0], [1.0], 30, 1e5, 400.0)
    return [one, replace(one, n_workers=2, **{"seconds": [10.0], **given})]


@pytest.mark.parametrize(
    ("given", "reached"),
    [({}, True), ({"seconds": [10.1]}, False), ({"worker_mb": 1501.0}, False)],
)
def test_workers_table__says_what_is_reached(given: dict[str, Any], reached: bool) -> None:
    assert scale.workers_table(grown(**given))[1] is reached


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ({}, True),
        ({"scheduler_seconds": 361.0}, False),
        ({"n_tasks": 20_000}, False),
        ({"client_mb": 1100.0}, False),
    ],
)
def test_swarm_table__says_what_is_reached(given: dict[str, Any], reached: bool) -> None:
    seen = swarm.Swarmed("ALE", 200, 10_000, 0.722, 5, 2000, 7220.0, 48.6, 9.2, 10.8, 950.0, 900.0)
    assert swarm.table([replace(seen, **given)])[1] is reached
