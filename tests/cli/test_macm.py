"""The verb macm: which analyses it takes, what it does with them, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import nimare_dask as nd
from tests.builders import coarse_space
from tests.command import interrupt_at_batch, run, write_mask

SEED = (-24, 4, -16)
N_ITERS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 60 analyses, a coarse mask, and a region around the seed."""
    place, space = tmp_path_factory.mktemp("macm"), coarse_space()
    write_mask(space, place / "mask.nii.gz")
    centres = space.voxel_ijk @ space.affine[:3, :3].T + space.affine[:3, 3]
    values = np.zeros(space.shape, np.uint8)
    values[space.mask] = np.linalg.norm(centres - SEED, axis=1) <= 20
    nib.Nifti1Image(values, space.affine).to_filename(place / "roi.nii.gz")
    corpus = nd.simulate_corpus(60, n_foci=900, n_features=2, space=space)
    nd.save_corpus(corpus, place / "corpus.zarr")
    return place


def macm(folder: Path, out: str, *words: object, code: int = 0) -> str:
    given = ["--mask", folder / "mask.nii.gz", "--n-iters", N_ITERS, "--seed", 1]
    done = run("macm", folder / "corpus.zarr", folder / out, *given, *words, code=code)
    return done.stderr


def test_macm__equals_the_python_interface(folder: Path) -> None:
    said = macm(folder, "ale", "--xyz", *SEED, "--r", 20, "--sample-size", 20)
    corpus, mask = nd.open_corpus(folder / "corpus.zarr"), str(folder / "mask.nii.gz")
    chosen = nd.select(corpus, nd.has_focus_near(corpus, SEED, r=20))
    assert 5 < chosen.sizes["analysis"] < 55
    assert f"{chosen.sizes['analysis']} of 60 analyses report within 20 mm of -24 4 -16." in said
    estimator = nd.ALE(kernel=nd.ALEKernel(sample_size=20))
    maps = estimator.fit(chosen, space=mask)
    null = nd.monte_carlo_null(
        estimator, chosen, space=mask, n_iters=N_ITERS, random_state=1, maps=maps
    )
    wanted, written = nd.correct_fwe(maps, null), nd.open_result(folder / "ale" / "result.zarr")
    for name in ("stat", "z", "z_fwe"):
        np.testing.assert_array_equal(written[name].values, wanted[name].values, err_msg=name)
    assert (folder / "ale" / "z_level-voxel_corr-FWE_method-montecarlo.nii.gz").is_file()


def test_macm__mkda_of_a_region_among_selected(folder: Path) -> None:
    options = ["--method", "mkda", "--kernel-r", 12, "--correct", "fdr"]
    roi = folder / "roi.nii.gz"
    said = macm(folder, "mkda.zarr", "--roi", roi, "--select", "simulated__000>=0.1", *options)
    corpus, mask = nd.open_corpus(folder / "corpus.zarr"), str(folder / "mask.nii.gz")
    chosen = nd.select(corpus, nd.has_label(corpus, "simulated__000", 0.1))
    n = chosen.sizes["analysis"]
    chosen = nd.select(chosen, nd.has_focus_in(chosen, roi))
    assert f"{chosen.sizes['analysis']} of {n} analyses report in {roi}." in said
    wanted = nd.MKDADensity(kernel=nd.MKDAKernel(r=12)).fit(chosen, space=mask)
    written = nd.open_result(folder / "mkda.zarr")
    np.testing.assert_array_equal(written["z"].values, wanted["z"].values)
    assert "z_fdr_indep" in written


@pytest.mark.parametrize("correct", ["none", "fwe"])
def test_macm__chi2_is_the_region_against_the_rest(folder: Path, correct: str) -> None:
    options = ["--method", "chi2", "--correct", correct]
    macm(folder, f"chi2-{correct}", "--xyz", *SEED, "--r", 20, *options)
    corpus, mask = nd.open_corpus(folder / "corpus.zarr"), str(folder / "mask.nii.gz")
    there = nd.has_focus_near(corpus, SEED, r=20)
    groups = nd.select(corpus, there), nd.select(corpus, ~there)
    wanted = nd.MKDAChi2().fit(*groups, space=mask)
    if correct == "fwe":
        null = nd.label_permutation_null(
            nd.MKDAChi2(), *groups, space=mask, n_iters=N_ITERS, random_state=1
        )
        wanted = nd.correct_fwe(wanted, null)
    written = nd.open_result(folder / f"chi2-{correct}" / "result.zarr")
    for name in ("z",) if correct == "none" else ("z", "z_fwe"):
        np.testing.assert_array_equal(written[name].values, wanted[name].values, err_msg=name)


@pytest.mark.parametrize("method", ["ale", "mkda", "chi2"])
def test_macm__says_a_plan_and_writes_nothing(folder: Path, method: str) -> None:
    given = ["--sample-size", 20] if method == "ale" else []
    said = macm(folder, "plan", "--xyz", *SEED, "--r", 20, "--method", method, "--plan", *given)
    assert "A worker with" in said
    assert not (folder / "plan").exists()


def test_macm__goes_on_after_ctrl_c(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--xyz", *SEED, "--r", 20, "--method", "chi2")
    with monkeypatch.context() as patch:
        interrupt_at_batch(patch, 1)
        macm(folder, "stopped", *words, code=130)
    assert not (folder / "stopped" / "result.zarr").exists()
    macm(folder, "stopped", *words)
    assert (folder / "stopped" / "result.zarr").is_dir()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "either --roi IMAGE or --xyz X Y Z, and neither is given."),
        (["--roi", "a.nii", "--xyz", 0, 0, 0], "but both are given."),
        (["--roi", "a.nii", "--r", 8], "--r is for --xyz"),
        (["--roi", "none.nii"], "none.nii is neither the path of an image"),
        (["--xyz", 900, 0, 0], "None of 60 analyses reports a focus within 6 mm of 900 0 0"),
        (["--xyz", 0, 0, 0, "--r", 900, "--method", "chi2"], "none to compare with"),
        (["--xyz", 0, 0, 0, "--kernel-r", 6], "--kernel-r is for --method mkda or chi2"),
        (["--xyz", 0, 0, 0, "--method", "mkda", "--fwhm", 9], "--fwhm is for --method ale"),
        (["--xyz", 0, 0, 0, "--method", "chi2", "--tfce"], "--tfce is for --method ale or mkda"),
        (["--xyz", 0, 0, 0, "--r", -1], "r is -1.0; expected a distance"),
    ],
)
def test_macm__refuses_in_a_sentence(folder: Path, words: list[object], says: str) -> None:
    said = macm(folder, "refused", *words, code=1)
    assert said.splitlines()[-1].startswith("Error: ")
    assert says in said
    assert not (folder / "refused").exists()


def test_macm__needs_three_coordinates(folder: Path) -> None:
    macm(folder, "refused", "--xyz", 0, 0, code=2)
