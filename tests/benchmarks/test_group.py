"""Jobs of one group of analyses: what they do at small size, and what the table makes of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import nimare_dask as nd
from tests.benchmarks import group, group_report
from tests.benchmarks.amounts import FULL, KINDS, QUICK, amounts_of
from tests.benchmarks.command import OUT, measure
from tests.benchmarks.group_peer import SIZES
from tests.benchmarks.inputs import Inputs, simulated_inputs, small_inputs, some_analyses
from tests.benchmarks.jobs import scheduler
from tests.benchmarks.measure import ROOT, run_group_peer
from tests.benchmarks.row import Row
from tests.benchmarks.run import (
    measure_ours,
    measure_peer,
    our_command,
    peer_command,
)
from tests.builders import coarse_space
from tests.studies.false_positives import null_corpus


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return small_inputs(tmp_path_factory.mktemp("inputs"))


# What the jobs work on.


def test_inputs__hold_a_group_and_some_of_it(inputs: Inputs) -> None:
    corpus, many, few = map(nd.open_corpus, (inputs.corpus, inputs.many, inputs.few))
    assert few.sizes["analysis"] == 10
    assert set(few["analysis_id"].values) < set(many["analysis_id"].values)
    assert set(many["analysis_id"].values) < set(corpus["analysis_id"].values)
    assert amounts_of(inputs) == QUICK
    assert amounts_of(replace(inputs, quick=False)) == FULL


def test_some_analyses__have_the_number_of_foci_or_the_nearest() -> None:
    corpus = null_corpus(60, coarse_space(), 0)
    chosen = some_analyses(corpus, 20, 205)
    assert (chosen.sizes["analysis"], chosen.sizes["focus"]) == (20, 205)
    again = some_analyses(corpus, 20, 205)
    np.testing.assert_array_equal(again["analysis_id"].values, chosen["analysis_id"].values)
    most = some_analyses(corpus, 20, 9999, tries=50)
    assert 205 < most.sizes["focus"] < 240


# The jobs.


@pytest.mark.bench
@pytest.mark.parametrize("kind", KINDS)
def test_null_job__is_that_of_monte_carlo_null(inputs: Inputs, kind: Any) -> None:
    space, corpus = nd.load_space(inputs.mask), nd.open_corpus(inputs.few)
    estimator = group.estimator_of(kind)
    null = nd.monte_carlo_null(estimator, corpus, space=space, n_iters=5, random_state=0)
    job = group.null_job(estimator, corpus, space)
    np.testing.assert_array_equal(job.run(0, 5).maxima, null["null_max"].values)
    assert job.inference == ["voxel", "size", "mass"]


@pytest.mark.bench
@pytest.mark.parametrize("job", ["iteration", "approximate", "scaling", "memory", "whole"])
def test_measure__gives_what_the_table_needs(inputs: Inputs, job: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    options: dict[str, Any] = {} if job in ("scaling", "whole") else {"size": "few"}
    options |= {"scaling": {"workers": False}, "memory": {"n_iters": 10}}.get(job, {})
    with scheduler(2):
        found = group.measure(inputs, job, here, 2, options)
    assert found["n_analyses"] == {"scaling": 96, "whole": 300}.get(job, 10)
    seconds = found["kinds"]["kda"] if job == "iteration" else found["seconds"]
    assert all(0 < each < 60 for each in seconds)
    if job == "memory":
        assert nd.open_null(here / "null.zarr").sizes["iteration"] == 10
        assert 50 < found["null_mb"] <= found["peak_mb"] * 1.001
    if job == "whole":
        assert found["n_tasks"] == -(-10_000 // found["batch"])


@pytest.mark.bench
def test_command_measure__starts_with_nothing_compiled(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "assert not os.listdir(os.environ['NUMBA_CACHE_DIR'])\n"
        "held = b'1' * 60_000_000\n"
        "out = pathlib.Path(sys.argv[1]); out.mkdir()\n"
        "(out / 'a.nii.gz').touch(); (out / 'b.txt').touch()\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    words = [sys.executable, str(tmp_path / "script.py"), OUT]
    found = measure(words, 2, tmp_path)
    assert len(found["seconds"]) == 2
    assert found["n_images"] == 1
    assert found["peak_mb"] > 60
    with pytest.raises(RuntimeError, match="ended with 2"):
        measure([sys.executable, "no_such_file.py"], 1, tmp_path)


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A small corpus on 2 mm, where both sides have the same Gaussian."""
    return simulated_inputs(
        tmp_path_factory.mktemp("fine"),
        n_analyses=60,
        n_foci=600,
        n_topics=8,
        n_words=(20, 10),
        n_few=(8, 80),
        quick=True,
    )


@pytest.mark.slow
@pytest.mark.bench
@pytest.mark.long
def test_peer__does_the_same(fine: Inputs, tmp_path: Path) -> None:
    wanted = ["iteration", "approximate"]
    ours = measure_ours(fine, wanted, tmp_path, threads=[1], say=print)
    peer = measure_peer(fine, wanted, tmp_path, say=print)
    rows = group_report.group_rows(ours, peer)
    beside = [row for row in rows if row.peer is not None]
    assert len(beside) == len(SIZES) * (len(KINDS) + 1)
    differences = [row for row in rows if row.unit == "z"]
    assert len(differences) == len(SIZES)
    assert all(row.reached for row in differences)


@pytest.mark.slow
@pytest.mark.bench
def test_commands__write_the_same_z(fine: Inputs, tmp_path: Path) -> None:
    studyset = run_group_peer(fine, ["command"], tmp_path)["command"]["studyset"]
    commands = {"ours": our_command(fine, 4), "peers": peer_command(fine, studyset, 4)}
    for name, words in commands.items():
        words = [word.replace(OUT, str(tmp_path / name)) for word in words]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    ours, peers = (tmp_path / name / "z.nii.gz" for name in commands)
    images = [np.asarray(nib.load(path).dataobj) for path in (ours, peers)]
    assert np.ptp(images[0]) > 2
    np.testing.assert_allclose(*images, rtol=0, atol=group_report.Z_DIFFERENCE)
    written = {path.name for path in peers.parent.glob("*level*.nii.gz")}
    assert len(written) >= 6
    assert written <= {path.name for path in ours.parent.glob("*.nii.gz")}


# The table.


def rows_of(ours: dict[str, Any], peer: dict[str, Any] | None = None) -> list[Row]:
    return group_report.group_rows(ours, peer or {})


@pytest.mark.parametrize(("seconds", "reached"), [(0.0099, True), (0.0101, False)])
def test_group_rows__judge_iterations_of_one_thread(seconds: float, reached: bool) -> None:
    kinds = {kind: [9.0, seconds, 0.0001] for kind in KINDS}
    ours = {"iteration-few": {"1": {"n_analyses": 50, "kinds": kinds, "peak_mb": 300.0}}}
    peer = {"iteration": {"few": {"kda": {"seconds": 0.08, "peak_mb": 500.0}}}}
    ale, _, kda = rows_of(ours, peer)
    assert ale.job == "ALE, 50 analyses: one iteration"
    assert ale.reached is None
    assert kda.one_thread == pytest.approx(1000 * seconds)
    assert (kda.all_cores, kda.peer, kda.unit) == (None, 80.0, "ms")
    assert kda.ratio_one_thread == pytest.approx(0.08 / seconds)
    assert kda.reached is reached


@pytest.mark.parametrize(("n_found", "seconds"), [((5000,), 100.0), ((200, 600), 108.0)])
def test_group_rows__extend_the_command_of_the_peer(
    n_found: tuple[int, ...], seconds: float
) -> None:
    run = {"n_iters": 5000, "peak_mb": 1.0}
    ours = {"command": {"1": run | {"seconds": [21.0]}, "2": run | {"seconds": [11.0]}}}
    measured = {5000: [100.0], 200: [12.0], 600: [20.0, 1.0, 30.0]}
    by_iterations = {str(n): {"seconds": measured[n], "peak_mb": 2.0} for n in n_found}
    peer = {"command": {"n_iters": 5000, "by_iterations": by_iterations, "peak_mb": 2.0}}
    (row,) = rows_of(ours, peer)
    assert row.peer == pytest.approx(seconds)
    assert ("extended from 200 and 600" in row.job) == (len(n_found) == 2)
    assert row.reached is (len(n_found) == 2)  # of one thread: 5 x 21 s
    assert row.must_reach == "1/5"


@pytest.mark.parametrize(("two", "reached"), [(1.0, True), (1.01, False)])
def test_group_rows__judge_the_gain_of_two(two: float, reached: bool) -> None:
    run = {"n_iters": 400, "n_analyses": 701, "peak_mb": 1.0}
    by_threads = {"1": run | {"seconds": [1.7]}, "2": run | {"seconds": [two]}}
    table = rows_of({"scaling-threads": by_threads, "scaling-workers": by_threads})
    gains = [row for row in table if row.unit == "x"]
    assert [row.job for row in gains] == ["gain of 2 threads", "gain of 2 worker processes"]
    assert all(row.reached is reached for row in gains)


@pytest.mark.parametrize(
    ("peak", "null", "growth"), [(310.0, 205.0, 310 / 300), (310.0, 220.0, 1.1)]
)
def test_group_rows__judge_memory_also_while_iterating(
    peak: float, null: float, growth: float
) -> None:
    run = {"n_analyses": 701, "n_foci": 29_399, "seconds": [1.0], "peak_mb": 300.0}
    fewer = {"1": run | {"n_iters": 100, "null_mb": 200.0}}
    more = {"1": run | {"n_iters": 1000, "null_mb": null, "peak_mb": peak}}
    table = rows_of({"memory-many-100": fewer, "memory-many-1000": more})
    first, second, ratio, largest = table
    assert (first.peak_mb, second.peak_mb) == (300.0, peak)
    assert ratio.job == "memory, 1,000 to 100 iterations"
    assert ratio.one_thread == pytest.approx(growth)
    assert ratio.reached is (growth <= 1.05)
    assert largest.job == "memory, 29,399 foci"
    assert (largest.peak_mb, largest.reached) == (peak, True)
