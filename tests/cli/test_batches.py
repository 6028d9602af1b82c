"""--prepare, run-batch and merge: a job array without a scheduler, by its commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nimare_dask as nd
from nimare_dask.cli import outcome
from nimare_dask.provenance import steps
from tests.builders import coarse_space
from tests.command import run, write_mask
from tests.null_runs import n_done
from tests.planted import assert_same_maps

N_ITERS = 40

#: Verbs that prepare one store, with what they need.
VERBS: dict[str, tuple[object, ...]] = {
    "ale": ("--sample-size", 20),
    "ale-fft": ("--sample-size", 20, "--null", "fft"),
    "mkda": ("--r", 12, "--tfce"),
    "kda": (),
    "scale": ("--pool", "baseline.txt", "--sample-size", 20),
    "macm": ("--xyz", -24, 4, -16, "--r", 20, "--sample-size", 20),
    "macm-chi2": ("--xyz", -24, 4, -16, "--r", 20, "--method", "chi2"),
    "contrast": ("--group1", "simulated__000>=0.1"),
    "contrast-foci": ("--group1", "simulated__000>=0.1", "--permute", "foci"),
    "contrast-ale": ("--group1", "simulated__000>=0.1", "--method", "ale", "--sample-size", 20),
    "associate": ("--threshold", 0.1, "--fwe", "--fdr"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 40 analyses, a coarse mask, and points of a pool."""
    place, space = tmp_path_factory.mktemp("batches"), coarse_space()
    write_mask(space, place / "mask.nii.gz")
    corpus = nd.simulate_corpus(40, n_foci=600, n_features=2, space=space)
    nd.save_corpus(corpus, place / "corpus.zarr")
    lines = (" ".join(f"{value:g}" for value in row) for row in corpus["focus_xyz"].values)
    (place / "baseline.txt").write_text("\n".join(lines))
    return place


def words_of(name: str, out: Path) -> list[object]:
    verb = name.partition("-")[0]
    seeded = ("--n-iters", N_ITERS, "--seed", 3, "--mask", "mask.nii.gz")
    return [verb, "corpus.zarr", out, *VERBS[name], *seeded]


@pytest.mark.parametrize("name", VERBS)
def test_array__maps_are_those_of_one_run(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    out, store = tmp_path / "out.zarr", tmp_path / "out.null.zarr"
    said = run(*words_of(name, out), "--prepare").stderr
    assert f"{store} is ready for {N_ITERS} iterations in " in said
    assert f"nimare-dask run-batch {store} --task I --of N" in said
    assert [path.name for path in tmp_path.iterdir()] == [store.name]
    # Elements of the array and the merge start wherever the batch system puts them.
    monkeypatch.chdir(tmp_path)
    for task in (2, 0, 1):
        assert n_done(store) < N_ITERS
        assert (
            f"Share {task} of 3 is done"
            in run("run-batch", store, "--task", task, "--of", 3).stderr
        )
    said = run("merge", store).stderr
    assert f"All {N_ITERS} iterations are there: nimare-dask {name.partition('-')[0]} " in said
    monkeypatch.chdir(folder)
    run(*words_of(name, tmp_path / "whole.zarr"))
    found, wanted = nd.open_result(out), nd.open_result(tmp_path / "whole.zarr")
    assert_same_maps(found.compute(), wanted.compute())
    assert steps(found) == steps(wanted)


def test_array__seed_that_was_drawn_is_kept(folder: Path, tmp_path: Path) -> None:
    mask = ("--mask", folder / "mask.nii.gz")
    words = ("ale", folder / "corpus.zarr", tmp_path / "out.zarr", "--sample-size", 20, *mask)
    run(*words, "--n-iters", 20, "--prepare")
    run("run-batch", tmp_path / "out.null.zarr", "--task", 0, "--of", 1)
    run("merge", tmp_path / "out.null.zarr")
    assert nd.open_result(tmp_path / "out.zarr")["z_fwe"].notnull().any()


def test_merge__of_a_store_that_is_not_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run(*words_of("ale", tmp_path / "out.zarr"), "--prepare")
    store = tmp_path / "out.null.zarr"
    run("run-batch", store, "--task", 0, "--of", 2)
    done = run("merge", store, code=1)
    assert (
        f"{store} holds {n_done(store)} of 40 iterations; give the jobs of its array" in done.error
    )
    assert not (tmp_path / "out.zarr").exists()


def test_merge__of_a_store_of_a_script(tmp_path: Path) -> None:
    from tests.null_runs import run as null_run

    null_run("mkda", 10, store=tmp_path / "null.zarr")
    done = run("merge", tmp_path / "null.zarr", code=1)
    assert "was not made by a command with --prepare" in done.error


def test_merge__of_something_else(folder: Path, tmp_path: Path) -> None:
    done = run("merge", folder / "corpus.zarr", code=1)
    assert "is a corpus; expected a null" in done.error
    assert "does not exist" in run("merge", tmp_path / "none.zarr", code=1).error


def test_run_batch__no_such_share(tmp_path: Path) -> None:
    done = run("run-batch", tmp_path / "x.zarr", "--task", 4, "--of", 4, code=1)
    assert done.error == "Error: --task is 4, and there are 4 shares (--of); expected 0 to 3."
    done = run("run-batch", tmp_path / "x.zarr", "--task", 0, "--of", 1, code=1)
    assert "does not exist; expected a null" in done.error


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("ale", ("--null", "montecarlo"), "--null montecarlo makes one of uncorrected p values"),
        ("ale", ("--correct", "fdr"), "which --correct fwe makes"),
        ("ale", ("--plan",), "--plan or --prepare, not both"),
        ("contrast", ("--main-effects",), "--main-effects makes one for each group"),
        ("macm-chi2", ("--correct", "fdr"), "which --correct fwe makes"),
    ],
    ids=["montecarlo", "fdr", "plan", "main-effects", "macm"],
)
def test_prepare__where_there_is_not_one_null(
    name: str,
    words: tuple[object, ...],
    said: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    done = run(*words_of(name, tmp_path / "out.zarr"), "--prepare", *words, code=1)
    assert said in done.error and not list(tmp_path.iterdir())


def test_prepare__associate_without_fwe(folder: Path, tmp_path: Path) -> None:
    done = run("associate", folder / "corpus.zarr", tmp_path / "x.zarr", "--prepare", code=1)
    assert done.error == "Error: --prepare is for null iterations, which --fwe makes."


@pytest.mark.slow
def test_array__elements_as_processes_one_of_which_is_killed(folder: Path, tmp_path: Path) -> None:
    mask = ("--mask", folder / "mask.nii.gz", "--seed", 3, "--n-iters", 4000)
    words = ("ale", folder / "corpus.zarr", tmp_path / "out.zarr", "--sample-size", 20, *mask)
    run(*words, "--prepare")
    store = tmp_path / "out.null.zarr"

    def element(task: int) -> subprocess.Popen[bytes]:
        given = ["run-batch", str(store), "--task", str(task), "--of", "2"]
        return subprocess.Popen([sys.executable, "-m", "nimare_dask", *given])

    running = [element(0), element(1)]
    while n_done(store) < 500:
        assert running[1].poll() is None
    running[1].kill()
    assert running[0].wait(timeout=120) == 0 and running[1].wait(timeout=10) != 0
    assert n_done(store) < 4000
    assert element(1).wait(timeout=120) == 0 and n_done(store) == 4000
    run("merge", store)
    run("ale", words[1], tmp_path / "whole.zarr", *words[3:])
    found, wanted = nd.open_result(tmp_path / "out.zarr"), nd.open_result(tmp_path / "whole.zarr")
    assert_same_maps(found.compute(), wanted.compute())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ale", "a b.zarr", "pain"), "nimare-dask ale 'a b.zarr' pain"),
        (
            ("ale", "c.zarr", "pain", "--seed", "1", "--cluster", "slurm-runner"),
            "sbatch run.sbatch ale c.zarr pain --seed 1",
        ),
        ((), "the same command"),
    ],
)
def test_told__the_command_that_goes_on(words: tuple[str, ...], told: str) -> None:
    assert outcome._again(words) == told
