"""The verb contrast: what a person types, reads and gets back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.provenance import steps
from nimare_dask.results import find_map, map_keys
from tests.command import Done, interrupt_at_batch, run, write_mask
from tests.foci import make_corpus
from tests.groups import SPACE
from tests.planted import assert_same_maps, planted

N_ITERS, SEED = 20, 1
#: Weights of the first feature mark group 1; two analyses of it have the second feature too.
ONE, TWO = "0000>=0.1", "0001>=0.1"
CHI2, ALE = nd.MKDAChi2(kernel=nd.MKDAKernel(r=12)), nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=20))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@cache
def labelled() -> xr.Dataset:
    """The planted analyses with weights of three features."""
    groups = planted()
    first = np.flatnonzero(groups.in_first)
    weights = np.full((len(groups.in_first), 3), 0.05)
    weights[groups.in_first, 0] = 0.5
    weights[~groups.in_first, 1] = 0.5
    weights[first[-2:], 1] = 0.5
    parts = np.split(
        groups.corpus["focus_xyz"].values, np.cumsum(groups.corpus["analysis_n_foci"].values)[:-1]
    )
    return make_corpus(parts, weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus and the mask."""
    place = tmp_path_factory.mktemp("contrast")
    write_mask(SPACE, place / "mask.nii.gz")
    nd.save_corpus(labelled(), place / "corpus.zarr")
    return place


@pytest.fixture
def given(folder: Path) -> dict[str, Any]:
    """What every function of the Python interface is given, but groups."""
    return {"space": str(folder / "mask.nii.gz"), "n_iters": N_ITERS, "random_state": SEED}


@cache
def pair(*, rest: bool = True) -> tuple[xr.Dataset, xr.Dataset]:
    """The groups, by the Python interface."""
    first = nd.has_label(labelled(), "0000", threshold=0.1)
    second = nd.has_label(labelled(), "0001", threshold=0.1)
    if rest:
        return nd.select(labelled(), first), nd.select(labelled(), ~first)
    return nd.select(labelled(), first & ~second), nd.select(labelled(), second & ~first)


def contrast(folder: Path, out: Path | str, *words: object, code: int = 0) -> Done:
    """The verb, with few iterations; `out` in the folder, or a path."""
    fixed = ("--mask", folder / "mask.nii.gz", "--n-iters", N_ITERS, "--seed", SEED)
    group1 = () if "--group1" in words else ("--group1", ONE)
    return run("contrast", folder / "corpus.zarr", out, *group1, *fixed, *words, code=code)


def assert_images(folder: Path, maps: xr.Dataset) -> None:
    """An image and a JSON file of each map, by its name."""
    names = {key.name for key in map_keys(maps)}
    assert {path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz")} == names
    assert {path.stem for path in folder.glob("*.json")} == names
    for name in names:
        image: Any = nib.load(folder / f"{name}.nii.gz")
        values = np.asanyarray(image.dataobj)[SPACE.mask]
        assert_array_equal(values, find_map(maps, name), err_msg=name)


# equal to the Python interface


def test_chi2__equals_the_python_interface(
    folder: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    done = contrast(folder, tmp_path / "out", "--r", 12)
    null = nd.label_permutation_null(CHI2, *pair(), **given)
    wanted = nd.correct_fwe(CHI2.fit(*pair(), space=given["space"]), null)
    written = nd.open_result(tmp_path / "out" / "result.zarr").compute()
    assert_same_maps(written, wanted)
    assert_images(tmp_path / "out", wanted)
    assert nd.open_null(tmp_path / "out" / "null.zarr").attrs["random_state"] == SEED
    first, second = pair()
    for number, group in enumerate((first, second), start=1):
        sizes = group.sizes["analysis"], group.sizes["focus"]
        assert f"Group {number}: {sizes[0]} analyses with {sizes[1]} foci." in done.stderr
    assert "Null: 20 of 20 iterations in " in done.stderr and done.stdout == ""
    assert "z_desc-association_level-voxel_corr-FWE_method-montecarlo: " in done.stderr
    assert f"Written: {tmp_path / 'out' / 'result.zarr'} and 60 images beside it" in done.error
    significant = find_map(
        written, "p_desc-associationSize_level-cluster_corr-FWE_method-montecarlo"
    )
    n = int((significant < 0.05).sum())
    name = "z_desc-associationSize_level-cluster_corr-FWE_method-montecarlo"
    assert f"{name}: {n} voxels with p < 0.05." in done.stderr


def test_ale__equals_the_python_interface(
    folder: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    words = ("--method", "ale", "--fwhm", 20, "--voxel-thresh", 0.01)
    done = contrast(folder, tmp_path / "out", *words, "--group2", TWO, "--drop-shared")
    groups = pair(rest=False)
    null = nd.label_permutation_null(ALE, *groups, voxel_thresh=0.01, **given)
    wanted = nd.correct_fwe(ALE.fit(*groups, space=given["space"], null=null), null)
    assert_same_maps(nd.open_result(tmp_path / "out" / "result.zarr").compute(), wanted)
    assert_images(tmp_path / "out", wanted)
    assert "2 analyses are in both groups and are left out." in done.stderr
    sizes = [group.sizes["analysis"] for group in groups]
    assert sizes == [7, 13] and f"Group 1: {sizes[0]} analyses" in done.stderr


def test_permute__foci(
    folder: Path, tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = SPACE.mask.copy()
    grey[SPACE.shape[0] // 2 :] = False
    monkeypatch.setattr(nd.Space, "grey_matter", grey)
    maps = CHI2.fit(*pair(), space=given["space"])
    for coverage in ("brain", "gm"):
        out = tmp_path / f"{coverage}.zarr"
        contrast(folder, out, "--r", 12, "--permute", "foci", "--coverage", coverage)
        null = nd.random_foci_null(CHI2, *pair(), coverage=coverage, **given)
        assert_same_maps(nd.open_result(out).compute(), nd.correct_fwe(maps, null))
        assert nd.open_null(tmp_path / f"{coverage}.null.zarr").attrs["coverage"] == coverage


@pytest.mark.parametrize(
    ("correct", "suffix"),
    [
        ("fdr", "_level-voxel_corr-FDR_method-indep"),
        ("bonferroni", "_corr-FWE_method-bonferroni"),
        ("none", ""),
    ],
)
def test_correct__chi2_needs_no_iterations(
    folder: Path, tmp_path: Path, correct: str, suffix: str
) -> None:
    done = contrast(folder, tmp_path / "out", "--r", 12, "--correct", correct)
    assert (tmp_path / "out" / f"z_desc-association{suffix}.nii.gz").is_file()
    assert not (tmp_path / "out" / "null.zarr").exists() and "iterations" not in done.stderr
    maps = CHI2.fit(*pair(), space=str(folder / "mask.nii.gz"))
    if correct != "none":
        maps = nd.correct_fdr(maps) if correct == "fdr" else nd.correct_bonferroni(maps)
    assert_same_maps(nd.open_result(tmp_path / "out" / "result.zarr").compute(), maps)


@pytest.mark.parametrize(
    ("correct", "words", "kernel"),
    [
        ("fdr", ("--fwhm", 20), nd.ALEKernel(fwhm=20)),
        ("none", ("--sample-size", 3), nd.ALEKernel(sample_size=3)),
    ],
)
def test_correct__ale_shuffles_for_its_p(
    *, folder: Path, tmp_path: Path, given: dict[str, Any], correct: str, words: Any, kernel: Any
) -> None:
    out = tmp_path / "out.zarr"
    contrast(folder, out, "--method", "ale", *words, "--correct", correct)
    maps = nd.ALESubtraction(kernel=kernel).fit(*pair(), **given)
    if correct == "fdr":
        maps = nd.correct_fdr(maps)
    assert_same_maps(nd.open_result(out).compute(), maps)
    assert nd.open_null(tmp_path / "out.null.zarr").sizes["iteration"] == N_ITERS


# main effects


@pytest.mark.parametrize(
    ("method", "correct"), [("chi2", "fdr"), ("ale", "fwe"), ("ale", "bonferroni")]
)
def test_main_effects__equal_the_python_interface(
    folder: Path, tmp_path: Path, given: dict[str, Any], method: str, correct: Any
) -> None:
    words: tuple[object, ...] = (
        "--method",
        method,
        *(("--r", 12) if method == "chi2" else ("--fwhm", 20)),
    )
    words += ("--main-effects", "--correct", correct, "--alpha", 0.1, "--voxel-thresh", 0.002)
    with_images = correct == "fdr"
    out = tmp_path / ("out" if with_images else "out.zarr")
    done = contrast(folder, out, *words)
    wanted = nd.contrast(
        *pair(),
        pairwise=CHI2 if method == "chi2" else ALE,
        correct=correct,
        alpha=0.1,
        voxel_thresh=0.002,
        **given,
    )
    assert (wanted["z"].sel(effect=["group1MainEffect", "contrast"]) != 0).any("voxel").all()
    result = out / "result.zarr" if with_images else out
    assert_same_maps(nd.open_result(result).compute(), wanted)
    if with_images:
        assert_images(out, wanted)
        assert (out / "z_desc-group1MainEffect.nii.gz").is_file()
    stores = {"group1", "group2"} if correct == "fwe" else set()
    stores |= {"contrast"} if method == "ale" else set()
    for name in stores:
        store = tmp_path / "out.null" / f"{name}.null.zarr"
        assert nd.open_null(store).sizes["iteration"] == N_ITERS
    assert done.stderr.count("Null: 20 of 20 iterations in ") == len(stores)


def test_main_effects__without_iterations_have_no_stores(folder: Path, tmp_path: Path) -> None:
    done = contrast(folder, tmp_path / "out", "--r", 12, "--main-effects", "--correct", "fdr")
    assert "iterations" not in done.stderr and not (tmp_path / "out" / "null").exists()


@pytest.mark.parametrize("words", [("--main-effects",), ("--correct", "fdr")])
def test_permute__without_such_a_null_is_refused(
    folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    contrast(folder, tmp_path / "out.zarr", "--r", 12, "--permute", "foci", *words, code=1)


def test_main_effects__threshold_of_zero_is_refused(folder: Path, tmp_path: Path) -> None:
    done = contrast(folder, tmp_path / "o.zarr", "--main-effects", "--voxel-thresh", 0, code=1)
    assert done.error == "Error: voxel_thresh is 0.0; expected a p value."


# plan


@pytest.mark.parametrize(
    "words", [("--r", 12), ("--method", "ale", "--fwhm", 20), ("--permute", "foci")]
)
def test_plan__says_the_cost_and_writes_nothing(
    folder: Path, tmp_path: Path, words: tuple[object, ...]
) -> None:
    done = contrast(folder, tmp_path / "out", *words, "--plan", "--n-iters", 5000)
    assert "Plan: " in done.stderr and " tasks, about " in done.stderr
    assert "A worker with " in done.error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [(), ("--main-effects",)])
def test_plan__of_a_correction_without_iterations(
    folder: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = contrast(folder, tmp_path / "out", "--plan", "--correct", "fdr", *words)
    assert done.error == "Plan: no null iterations; a few seconds."


# stores


def test_store__is_read_by_the_same_run_and_refuses_another(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "shuffles.zarr"
    words = ("--r", 12, "--store", store)
    assert "20 of 20 iterations in " in contrast(folder, tmp_path / "one.zarr", *words).stderr
    done = contrast(folder, tmp_path / "two.zarr", *words)
    assert f"Null iterations are kept in {store}." in done.stderr
    assert "Null: 20 of 20 iterations were done before." in done.stderr
    one, two = (nd.open_result(tmp_path / f"{name}.zarr").compute() for name in ("one", "two"))
    assert_same_maps(two, one)
    said = contrast(folder, tmp_path / "three.zarr", "--r", 10, "--store", store, code=1).error
    assert f"{store} holds iterations of another run (r: 12.0 there, 10.0 now" in said
    others = (*words, "--group2", TWO, "--drop-shared")
    said = contrast(folder, tmp_path / "four.zarr", *others, code=1).error
    assert "another run (sizes: [8] there, [6] now; group 1: " in said
    told = json.loads(run("status", store, "--json").stdout)
    assert told["estimator"] == "MKDAChi2" and told["iterations done"] == N_ITERS


def test_store__of_main_effects_is_a_folder_without_the_suffix(
    folder: Path, tmp_path: Path
) -> None:
    words = ("--method", "ale", "--fwhm", 20, "--main-effects", "--correct", "bonferroni")
    contrast(folder, tmp_path / "out.zarr", *words, "--store", tmp_path / "mine.zarr")
    assert (tmp_path / "mine" / "contrast.null.zarr").is_dir()
    assert not (tmp_path / "mine.zarr").exists()


@pytest.mark.parametrize("out", ["out", "out.zarr"])
def test_out__folder_or_result(folder: Path, tmp_path: Path, out: str) -> None:
    words = ("--method", "ale", "--fwhm", 20, "--correct", "none", "--store", tmp_path / "s.zarr")
    done = contrast(folder, tmp_path / out, *words)
    result = tmp_path / out if out.endswith(".zarr") else tmp_path / out / "result.zarr"
    assert f"Written: {result}" in done.error
    assert ("images beside it" in done.error) == (out == "out")
    assert {path.name for path in tmp_path.iterdir()} == {out, "s.zarr"}
    before = nd.open_result(result).compute()
    assert "exists already" in contrast(folder, tmp_path / out, *words, code=1).error
    contrast(folder, tmp_path / out, *words, "--force")
    assert_same_maps(nd.open_result(result).compute(), before)


@pytest.mark.parametrize(
    ("words", "batch", "store"),
    [
        (("--r", 12), 2, "stopped.null.zarr"),
        (("--method", "ale", "--fwhm", 20), 2, "stopped.null.zarr"),
        (
            ("--method", "ale", "--fwhm", 20, "--main-effects", "--correct", "bonferroni"),
            2,
            "stopped.null",
        ),
    ],
)
def test_ctrl_c__goes_on_with_the_same_command(
    folder: Path, tmp_path: Path, words: tuple[object, ...], batch: int, store: str
) -> None:
    contrast(folder, tmp_path / "whole.zarr", *words)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at_batch(patch, batch)
        done = contrast(folder, tmp_path / "stopped.zarr", *words, code=130)
    assert f"Stopped; {tmp_path / store} keeps " in done.stderr
    assert f"Go on with:\n  nimare-dask contrast {folder / 'corpus.zarr'} " in done.stderr
    assert {path.name for path in tmp_path.glob("stopped*")} == {store}
    done = contrast(folder, tmp_path / "stopped.zarr", *words)
    assert "Null: 2 of 20 iterations were done before." in done.stderr
    results = [nd.open_result(tmp_path / f"{name}.zarr") for name in ("stopped", "whole")]
    assert_same_maps(results[0].compute(), results[1].compute())
    assert steps(results[0]) == steps(results[1])


# errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--group1", "00001>=0.1"), "No feature is called '00001'. Did you mean set__0001"),
        (("--group2", "none>=0.1"), "No feature is called 'none'."),
        (("--group1", "0002>=0.1"), "No analysis is in group 1; use a lower threshold or another"),
        (("--group2", "0002>=0.1"), "No analysis is in group 2; use a lower threshold or another"),
        (("--group1", "0002>=0.01"), "No analysis is in group 2; use a lower threshold or another"),
        (("--group1", "0000>=x"), "--group1 is '0000>=x'; expected LABEL>=NUMBER, such as 'pain>"),
        (("--group2", ">=0.1"), "--group2 is '>=0.1'; expected LABEL>=NUMBER, such as 'pain>=0"),
        (("--group2", "0001>=nan"), "--group2 is '0001>=nan'; expected LABEL>=NUMBER"),
        (
            ("--group2", TWO),
            "2 analyses are in both groups (9 in group 1, 15 in group 2); leave them out with "
            "--drop-shared, or compare with --group2 rest.",
        ),
        (("--group2", ONE, "--drop-shared"), "No analysis is in group 1; use a lower threshold"),
        (
            ("--method", "ale", "--fwhm", "20", "--permute", "foci"),
            "--permute foci is for --method chi2; ale shuffles labels.",
        ),
        (("--coverage", "gm"), "--coverage is for --permute foci; labels have no place."),
        (
            ("--main-effects", "--correct", "none"),
            "--main-effects needs a correction; use --correct fwe, fdr or bonferroni.",
        ),
        (("--main-effects", "--alpha", "2"), "alpha is 2.0; expected a p value."),
        (
            ("--main-effects", "--correct", "bonferroni", "--alpha", "1e-40"),
            "Neither group has a significant main effect (corrected by bonferroni, alpha 1e-40), "
            "so there is nowhere to compare them; use a higher alpha, or compare them everywhere.",
        ),
        (
            ("--sample-size", "9"),
            "--sample-size and --fwhm are for --method ale; chi2 has --r.",
        ),
        (
            ("--method", "ale", "--r", "9"),
            "--r is for --method chi2; ale has --sample-size and --fwhm.",
        ),
        (("--method", "ale"), "8 of 8 analyses have no sample size"),
        (("--method", "ale", "--fwhm", "9", "--sample-size", "9"), "fwhm is 9 and sample_size is"),
        (("--voxel-thresh", "1.5"), "voxel_thresh is 1.5; expected a p value."),
        (("--r", "0"), "r is 0.0; expected a radius in mm above 0."),
    ],
)
def test_bad_options__are_one_sentence(
    folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = contrast(folder, tmp_path / "bad.zarr", *words, code=1)
    assert done.error.startswith(f"Error: {said}")
    assert "Traceback" not in done.stderr and not (tmp_path / "bad.zarr").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "anova"),
        ("--correct", "bh"),
        ("--permute", "all"),
        ("--n-iters", "0"),
        ("--select", "0000>=0.1"),
        ("--tfce",),
    ],
)
def test_wrong_usage__exits_2(folder: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    contrast(folder, tmp_path / "out", *words, code=2)


def test_group1__is_needed(folder: Path, tmp_path: Path) -> None:
    done = run("contrast", folder / "corpus.zarr", tmp_path / "out", code=2)
    assert "--group1" in done.stderr


def test_help__names_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    text = run("contrast", "--help").stdout
    assert "Compare two groups of analyses" in text
    words = "group1 group2 method drop-shared main-effects alpha permute r sample-size fwhm n-iters"
    words += (
        " seed correct store plan voxel-thresh coverage mask cluster workers adapt cluster-config"
    )
    words += " prepare force"
    for word in words.split():
        assert f"--{word} " in text, word
    for said in ("such as 'pain>=0.1'", "MKDA chi-square (association)", "or rest.", "chi2|ale"):
        assert said in text
    for word in ("--select", "--null ", "--tfce", "--stop-after"):
        assert word not in text
    assert "contrast" in run("--help").stdout
