"""The verbs ale, mkda, kda, scale and status: what a person types, reads and gets back."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import zarr

import nimare_dask as nd
from nimare_dask.cli.app import main
from tests.builders import coarse_space

#: What every verb is given here: the coarse mask and few iterations.
N_ITERS = 30


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    stdout: str
    stderr: str


def run(*words: object, code: int = 0) -> Done:
    """Run a command in this process, which has loaded everything, and hold it to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    done = Done(out.getvalue(), err.getvalue())
    assert (ended.value.code or 0) == code, f"exit {ended.value.code}\n{done.stdout}\n{done.stderr}"
    return done


def run_apart(*words: object) -> Done:
    """Run a command in a process of its own, as a person does."""
    done = subprocess.run(
        [sys.executable, "-m", "nimare_dask", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return Done(done.stdout, done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 40 simulated analyses with two features, and a coarse mask."""
    place = tmp_path_factory.mktemp("meta")
    space = coarse_space()
    nib.Nifti1Image(space.mask.astype(np.uint8), space.affine).to_filename(place / "mask.nii.gz")
    corpus = nd.simulate_corpus(
        40, n_foci=400, n_features=2, features_per_analysis=1.0, foci_per_effect=2, space=space
    )
    nd.save_corpus(corpus, place / "corpus.zarr")
    return place


def arguments(folder: Path, verb: str, out: str, *words: object) -> list[object]:
    given = ["--mask", folder / "mask.nii.gz", "--n-iters", N_ITERS, "--seed", 1]
    if verb in ("ale", "scale") and "--sample-size" not in words and "--fwhm" not in words:
        given += ["--sample-size", 20]
    return [verb, folder / "corpus.zarr", folder / out, *given, *words]


@pytest.mark.parametrize(
    ("verb", "estimator", "command"),
    [
        ("ale", nd.ALE(kernel=nd.ALEKernel(sample_size=20)), run_apart),
        ("mkda", nd.MKDADensity(), run),
        ("kda", nd.KDA(), run),
    ],
)
def test_verb__equals_the_python_interface(
    folder: Path, verb: str, estimator: nd.ALE, command: Callable[..., Done]
) -> None:
    done = command(*arguments(folder, verb, verb, "--select", "simulated__000>=0.1"))
    assert "z_desc-size_level-cluster_corr-FWE_method-montecarlo: " in done.stderr
    corpus = nd.open_corpus(folder / "corpus.zarr")
    chosen = nd.select(corpus, nd.has_label(corpus, "simulated__000", threshold=0.1))
    assert f"{chosen.sizes['analysis']} analyses with {chosen.sizes['focus']} foci." in done.stderr
    mask = str(folder / "mask.nii.gz")
    maps = estimator.fit(chosen, space=mask)
    null = nd.monte_carlo_null(
        estimator, chosen, space=mask, n_iters=N_ITERS, random_state=1, maps=maps
    )
    wanted = nd.correct_fwe(maps, null)
    written = nd.open_result(folder / verb / "result.zarr")
    for name in ("stat", "z", "z_fwe", "logp_fwe"):
        np.testing.assert_array_equal(written[name].values, wanted[name].values, err_msg=name)
    image = nib.load(folder / verb / "z_desc-mass_level-cluster_corr-FWE_method-montecarlo.nii.gz")
    same = nd.get_map(wanted, "z_desc-mass_level-cluster_corr-FWE_method-montecarlo")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(same.dataobj))


def test_scale__falls_on_the_foci_of_the_corpus(folder: Path) -> None:
    run(*arguments(folder, "scale", "scale.zarr", "--select", "simulated__001>=0.1"))
    maps = nd.open_result(folder / "scale.zarr")
    corpus = nd.open_corpus(folder / "corpus.zarr")
    chosen = nd.select(corpus, nd.has_label(corpus, "simulated__001", threshold=0.1))
    mask = str(folder / "mask.nii.gz")
    estimator = nd.SCALE(
        xyz=nd.foci_pool(corpus, nd.load_space(mask)), kernel=nd.ALEKernel(sample_size=20)
    )
    wanted = estimator.fit(chosen, space=mask, n_iters=N_ITERS, random_state=1)
    np.testing.assert_array_equal(maps["p"].values, wanted["p"].values)
    assert [str(name) for name in maps["inference"].values] == ["voxel"]


def test_scale__takes_a_pool_from_a_file(folder: Path) -> None:
    (folder / "pool.txt").write_text("0 0 0\n10 0 0\n")
    run(*arguments(folder, "scale", "pool.zarr", "--pool", folder / "pool.txt"))
    (folder / "bad.txt").write_text("0 0\n")
    done = run(*arguments(folder, "scale", "bad.zarr", "--pool", folder / "bad.txt"), code=1)
    assert "expected points in mm" in done.stderr


@pytest.mark.parametrize(
    ("correct", "name"),
    [
        ("fdr", "z_corr-FDR_method-indep"),
        ("bonferroni", "z_corr-FWE_method-bonferroni"),
        ("none", "z"),
    ],
)
def test_correct__needs_no_iterations(folder: Path, correct: str, name: str) -> None:
    run(*arguments(folder, "ale", f"ale-{correct}", "--correct", correct))
    assert (folder / f"ale-{correct}" / f"{name}.nii.gz").is_file()
    assert not (folder / f"ale-{correct}" / "null.zarr").exists()


def test_null__montecarlo_has_a_stream_of_its_own(folder: Path) -> None:
    run(*arguments(folder, "mkda", "mc", "--null", "montecarlo", "--tfce"))
    opened = nd.open_null(folder / "mc" / "null.zarr")
    fitted = nd.open_null(folder / "mc" / "null.fit.zarr")
    assert not np.array_equal(opened["null_histogram"].values, fitted["null_histogram"].values)
    maps = nd.open_result(folder / "mc" / "result.zarr")
    np.testing.assert_array_equal(maps["null_weight"].values, fitted["null_histogram"].values)
    assert (folder / "mc" / "z_desc-tfce_level-voxel_corr-FWE_method-montecarlo.nii.gz").is_file()


def test_plan__says_the_cost_and_writes_nothing(folder: Path) -> None:
    done = run(*arguments(folder, "ale", "planned", "--plan", "--n-iters", 5000))
    assert "Plan: " in done.stderr and " tasks, about " in done.stderr
    assert "A worker with " in done.stderr
    assert not (folder / "planned").exists()


def test_missing_sample_sizes__are_listed_with_the_ways_out(folder: Path) -> None:
    done = run("ale", folder / "corpus.zarr", folder / "without", code=1)
    assert done.stderr.splitlines()[-1].startswith(
        "Error: 40 of 40 analyses have no sample size (simulated000000-1, "
    )
    assert "--sample-size 20 or --fwhm 10" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--select", "simulated__000>=x"), "expected LABEL>=NUMBER"),
        (("--select", "nothing>=0.1"), "No feature is called 'nothing'"),
        (("--select", "simulated__000>=5"), "No analysis of 40 is selected"),
        (("--sample-size", "20", "--fwhm", "8"), "give one of them"),
        (("--voxel-thresh", "1.5"), "expected a p value"),
    ],
)
def test_bad_options__are_sentences(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = run(*arguments(folder, "ale", "bad", *words), code=1)
    assert said in done.stderr.splitlines()[-1]


def test_result__is_not_replaced_unasked(folder: Path) -> None:
    command = arguments(folder, "kda", "twice", "--correct", "none")
    run(*command)
    assert "exists already" in run(*command, code=1).stderr
    run(*command, "--force")


def test_store__of_another_run_is_refused(folder: Path) -> None:
    run(*arguments(folder, "kda", "first", "--store", folder / "shared.zarr"))
    other = arguments(folder, "kda", "second", "--store", folder / "shared.zarr", "--r", "6")
    done = run(*other, code=1)
    assert "holds iterations of another run (r: 10.0 there, 6.0 now" in done.stderr


def test_store__of_the_same_run_is_read(folder: Path) -> None:
    command = arguments(folder, "kda", "again")
    assert "Null: 30 of 30 iterations in " in run(*command).stderr
    done = run(*command, "--force")
    assert "Null: 30 of 30 iterations were done before." in done.stderr
    assert " iterations a second" not in done.stderr


def test_store__on_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", write)
    store = folder / "elsewhere" / "full.zarr"
    done = run(*arguments(folder, "kda", "full", "--store", store), code=1)
    assert done.stderr.splitlines()[-1] == (
        f"Error: {store}: No space left on device; make room there, and give the same command "
        "again."
    )


def test_status__reads_a_store(folder: Path) -> None:
    store = folder / "status.zarr"
    run(*arguments(folder, "kda", "status", "--store", store))
    told = json.loads(run("status", store, "--json").stdout)
    assert (told["iterations done"], told["iterations to do"]) == (N_ITERS, 0)
    assert told["estimator"] == "KDA" and told["seed"] == 1
    assert "iterations done" in run("status", store).stdout
    chunk = max((store / "null_max" / "c").rglob("*"), key=lambda path: path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    torn = json.loads(run("status", store, "--json").stdout)
    assert torn["torn batches"] == 1 and torn["iterations to do"] > 0
    assert "expected a null" in run("status", folder / "corpus.zarr", code=1).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c__leaves_a_store_to_go_on_from(folder: Path) -> None:
    words = arguments(folder, "ale", "stopped", "--n-iters", 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "nimare_dask", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    store = folder / "stopped" / "null.zarr"
    deadline = time.monotonic() + 120
    while not any((store / "log" / "c").rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Stopped; {store} keeps " in said and " of 20,000 iterations; batches that were" in said
    assert f"Go on with:\n  nimare-dask {shlex.join(map(str, words))}\n" in said
    told = json.loads(run("status", store, "--json").stdout)
    assert 0 < told["iterations done"] < 20_000


def test_status__tells_of_runs_that_failed(folder: Path) -> None:
    store = folder / "failed.zarr"
    corpus = nd.open_corpus(folder / "corpus.zarr")
    estimator = nd.KDA(kernel=nd.KDAKernel(r=10))
    space = nd.load_space(str(folder / "mask.nii.gz"))

    def fail(done: int, _total: int) -> None:
        if done:
            raise RuntimeError("lost the\nnetwork")

    settings = {"space": space, "n_iters": 20, "batch": 10, "random_state": 0, "store": store}
    for _ in range(2):
        with pytest.raises(RuntimeError):
            nd.monte_carlo_null(estimator, corpus, report=fail, **settings)
    told = json.loads(run("status", store, "--json").stdout)
    assert told["runs that failed"] == 2
    assert told["last failure"].endswith("RuntimeError: lost the\nnetwork")
    nd.monte_carlo_null(estimator, corpus, **settings)
    told = json.loads(run("status", store, "--json").stdout)
    assert told["iterations to do"] == 0 and told["runs that failed"] == 2
