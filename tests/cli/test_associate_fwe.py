"""The option --fwe of the verb associate: one null of shuffled labels for all features."""

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
from nimare_dask.results import map_keys
from tests.command import Done, interrupt_at_batch, run, write_mask
from tests.foci import draw_corpus
from tests.groups import SPACE
from tests.planted import assert_same_maps

N_ITERS, SEED, THRESHOLD = 20, 3, 0.7
ESTIMATOR = nd.MKDAChi2(kernel=nd.MKDAKernel(r=12))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@cache
def corpus() -> xr.Dataset:
    """Thirty analyses, two of them without foci, and five features of different sizes."""
    return draw_corpus(4, SPACE, 30, 5, empty=[4, 9])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, the mask and the result of associate --fwe."""
    place = tmp_path_factory.mktemp("associate")
    write_mask(SPACE, place / "mask.nii.gz")
    nd.save_corpus(corpus(), place / "corpus.zarr")
    with dask.config.set(scheduler="synchronous"):
        associate(place, place / "terms.zarr")
    return place


def associate(folder: Path, out: Path, *words: object, code: int = 0) -> Done:
    fixed = ("--mask", folder / "mask.nii.gz", "--threshold", THRESHOLD, "--r", 12, "--fwe")
    seeded = ("--n-iters", N_ITERS, "--seed", SEED)
    return run("associate", folder / "corpus.zarr", out, *fixed, *seeded, *words, code=code)


def expected(folder: Path, effects: list[str], tested: list[str], **settings: Any) -> xr.Dataset:
    """The same by the Python interface."""
    space = str(folder / "mask.nii.gz")
    maps = ESTIMATOR.fit_features(corpus(), threshold=THRESHOLD, space=space, chunks="feature")
    null = nd.feature_null(
        corpus(),
        sizes=maps,
        estimator=ESTIMATOR,
        effects=tested,
        space=space,
        **{"n_iters": N_ITERS, "random_state": SEED, **settings},
    )
    return nd.correct_fwe(maps.sel(effect=effects), null)[["z", "z_fwe"]].compute()


BOTH = ["uniformity", "association"]


def test_fwe__equals_the_python_interface(folder: Path) -> None:
    wanted = expected(folder, BOTH, ["association"])
    found = nd.open_result(folder / "terms.zarr").compute()
    assert_same_maps(found, wanted)
    assert found["z_fwe"].dims == ("inference", "effect", "feature", "voxel")
    assert found["inference"].values.tolist() == ["voxel", "size", "mass"]
    assert (found["z_fwe"].sel(effect="association") != 0).any()
    assert np.isnan(found["z_fwe"].sel(effect="uniformity").values).all()
    assert found["z_fwe"].attrs["effects"] == ["association"]
    last = steps(found)[-1]
    assert last["step"] == "correct_fwe"
    assert (last["settings"]["n_iters"], last["settings"]["random_state"]) == (N_ITERS, SEED)


def test_fwe__each_feature_is_the_two_groups_alone(folder: Path) -> None:
    found = nd.open_result(folder / "terms.zarr")
    name = str(found["feature"].values[1])
    space = str(folder / "mask.nii.gz")
    some = nd.select(corpus(), corpus()["analysis_n_foci"].values > 0)
    mask = nd.has_label(some, name, threshold=THRESHOLD)
    pair = nd.select(some, mask), nd.select(some, ~mask)
    null = nd.label_permutation_null(
        ESTIMATOR, *pair, space=space, n_iters=N_ITERS, random_state=SEED
    )
    wanted = nd.correct_fwe(ESTIMATOR.fit(*pair, space=space), null)["z_fwe"]
    one = found["z_fwe"].sel(feature=name, effect="association").values
    assert_array_equal(one, wanted.sel(effect="association").values)


@pytest.mark.parametrize(
    ("given", "tested"),
    [(["uniformity"], ["uniformity"]), (BOTH, BOTH)],
)
def test_fwe__effects_that_are_asked_for(
    folder: Path, tmp_path: Path, given: list[str], tested: list[str]
) -> None:
    words = [word for effect in given for word in ("--effect", effect)]
    associate(folder, tmp_path / "out.zarr", *words)
    found = nd.open_result(tmp_path / "out.zarr").compute()
    assert_same_maps(found, expected(folder, given, tested))
    assert not np.isnan(found["z_fwe"].values).any()
    null = nd.open_null(tmp_path / "out.null.zarr")
    assert null["effect"].values.tolist() == tested


@pytest.mark.parametrize("method", ["indep", "negcorr"])
def test_fwe__beside_fdr(folder: Path, tmp_path: Path, method: Any) -> None:
    store = ("--store", folder / "terms.null.zarr")
    associate(folder, tmp_path / "out.zarr", "--fdr", "--fdr-method", method, *store)
    found = nd.open_result(tmp_path / "out.zarr").compute()
    assert set(found.data_vars) == {"z", f"z_fdr_{method}", "z_fwe"}
    wanted = expected(folder, BOTH, ["association"])
    assert_same_maps(found[["z", "z_fwe"]], wanted)
    plain = ESTIMATOR.fit_features(corpus(), threshold=THRESHOLD, space=SPACE)
    fdr = nd.correct_fdr(plain, method=method)[f"z_fdr_{method}"]
    assert_array_equal(found[f"z_fdr_{method}"], fdr)


def test_fwe__threshold_of_clusters(folder: Path, tmp_path: Path) -> None:
    associate(folder, tmp_path / "out.zarr", "--voxel-thresh", 0.05)
    found = nd.open_result(tmp_path / "out.zarr").compute()
    wanted = expected(folder, BOTH, ["association"], voxel_thresh=0.05)
    assert_same_maps(found, wanted)
    other = nd.open_result(folder / "terms.zarr")["z_fwe"]
    assert not np.array_equal(found["z_fwe"].sel(inference="size"), other.sel(inference="size"))
    assert_array_equal(found["z_fwe"].sel(inference="voxel"), other.sel(inference="voxel"))


def test_fwe__some_features_need_their_sizes_only(folder: Path, tmp_path: Path) -> None:
    associate(folder, tmp_path / "out.zarr", "--feature", "0001", "--feature", "0003")
    found = nd.open_result(tmp_path / "out.zarr").compute()
    names = found["feature"].values.tolist()
    assert names == ["set__0001", "set__0003"]
    every = nd.open_result(folder / "terms.zarr")
    assert_array_equal(found["z_fwe"], every["z_fwe"].sel(feature=names))
    sizes = nd.open_null(tmp_path / "out.null.zarr")["size"].values.tolist()
    assert sizes == sorted(set(found["n_selected"].values.tolist()))
    assert len(sizes) < len(nd.open_null(folder / "terms.null.zarr")["size"])


# stores


def test_store__beside_the_result(folder: Path) -> None:
    null = nd.open_null(folder / "terms.null.zarr")
    assert null.attrs["random_state"] == SEED and null.sizes["iteration"] == N_ITERS
    told = json.loads(run("status", folder / "terms.null.zarr", "--json").stdout)
    assert (told["estimator"], told["iterations to do"]) == ("MKDAChi2", 0)


def test_store__without_fwe_there_is_none(folder: Path, tmp_path: Path) -> None:
    words = ("--mask", folder / "mask.nii.gz", "--threshold", THRESHOLD)
    run("associate", folder / "corpus.zarr", tmp_path / "out.zarr", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]
    assert set(nd.open_result(tmp_path / "out.zarr").data_vars) == {"z"}


def test_store__of_the_same_run_is_read_and_grows(folder: Path, tmp_path: Path) -> None:
    words = ("--store", tmp_path / "mine.zarr")
    done = associate(folder, tmp_path / "out.zarr", *words)
    assert f"Null iterations are kept in {tmp_path / 'mine.zarr'}." in done.stderr
    assert "Null: 20 of 20 iterations in " in done.stderr
    assert "exists already" in associate(folder, tmp_path / "out.zarr", *words, code=1).error
    done = associate(folder, tmp_path / "out.zarr", *words, "--force")
    assert "Null: 20 of 20 iterations were done before." in done.stderr
    found = nd.open_result(tmp_path / "out.zarr").compute()
    assert_same_maps(found, nd.open_result(folder / "terms.zarr").compute())
    done = associate(folder, tmp_path / "more.zarr", *words, "--n-iters", 30)
    assert "Null: 20 of 30 iterations were done before." in done.stderr
    wanted = expected(folder, BOTH, ["association"], n_iters=30)
    assert_same_maps(nd.open_result(tmp_path / "more.zarr").compute(), wanted)


def test_store__of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    store = folder / "terms.null.zarr"
    for words, said in (
        (("--seed", 4), "random_state: 3 there, 4 now"),
        (("--voxel-thresh", 0.01), "voxel_thresh: 0.001 there, 0.01 now"),
        (("--r", 10), "r: 12.0 there, 10.0 now"),
    ):
        done = associate(folder, tmp_path / "out.zarr", "--store", store, *words, code=1)
        assert f"Error: {store} holds iterations of another run (" in done.error
        assert said in done.error
    assert not list(tmp_path.iterdir())


def test_ctrl_c__goes_on_with_the_same_command(folder: Path, tmp_path: Path) -> None:
    out, store = tmp_path / "out.zarr", tmp_path / "out.null.zarr"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at_batch(patch, 2)
        done = associate(folder, out, code=130)
    assert f"Stopped; {store} keeps 2 of 20 iterations; batches that were at work" in done.stderr
    assert f"Go on with:\n  nimare-dask associate {folder / 'corpus.zarr'} {out} " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [store.name]
    done = associate(folder, out)
    assert "Null: 2 of 20 iterations were done before." in done.stderr
    wanted = nd.open_result(folder / "terms.zarr")
    assert_same_maps(nd.open_result(out).compute(), wanted.compute())


# images


def test_export__names_of_nimare(folder: Path, tmp_path: Path) -> None:
    run("export", folder / "terms.zarr", tmp_path, "--feature", "0002")
    maps = nd.open_result(folder / "terms.zarr")
    corrected = {
        "voxel": "z_desc-association_level-voxel_corr-FWE_method-montecarlo",
        "size": "z_desc-associationSize_level-cluster_corr-FWE_method-montecarlo",
        "mass": "z_desc-associationMass_level-cluster_corr-FWE_method-montecarlo",
    }
    names = {"z_desc-uniformity", "z_desc-association", *corrected.values()}
    assert {key.name for key in map_keys(maps)} == names
    written = {path.name for path in (tmp_path / "set__0002").glob("*.nii.gz")}
    assert written == {f"{name}.nii.gz" for name in names}
    for inference, name in corrected.items():
        image: Any = nib.load(tmp_path / "set__0002" / f"{name}.nii.gz")
        wanted = maps["z_fwe"].sel(inference=inference, effect="association", feature="set__0002")
        assert_array_equal(np.asanyarray(image.dataobj)[SPACE.mask], wanted.values)
        sidecar = json.loads((tmp_path / "set__0002" / f"{name}.json").read_text())
        assert (sidecar["feature"], sidecar["inference"]) == ("set__0002", inference)
        assert sidecar["provenance"][-1]["settings"]["n_iters"] == N_ITERS


def test_export__one_corrected_map_of_every_feature(folder: Path, tmp_path: Path) -> None:
    name = "z_desc-associationSize_level-cluster_corr-FWE_method-montecarlo"
    done = run("export", folder / "terms.zarr", tmp_path, "--map", name)
    assert "5 maps in " in done.stderr
    assert {path.parent.name for path in map(Path, done.stdout.split())} == {
        f"set__{feature:04d}" for feature in range(5)
    }


# errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--voxel-thresh", 2), "voxel_thresh is 2.0; expected a p value."),
        (("--seed", -1), "random_state is -1; expected a whole number of at least 0, or None."),
        (("--feature", "0009"), "No feature is called '0009'. Did you mean"),
        (("--threshold", 2), "No feature of 5 has at least 1 analyses with a weight of 2 or more"),
    ],
)
def test_bad_options__are_one_sentence(
    folder: Path, tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    done = associate(folder, tmp_path / "out.zarr", *words, code=1)
    assert done.error.startswith(f"Error: {said}") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_n_iters__is_at_least_one(folder: Path, tmp_path: Path) -> None:
    associate(folder, tmp_path / "out.zarr", "--n-iters", 0, code=2)


def test_help__tells_of_the_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(run("associate", "--help").stdout.replace("│", " ").split())
    for word in ("--fwe", "--n-iters", "--seed", "--voxel-thresh", "--store"):
        assert f"{word} " in text
    assert "One null of shuffled labels serves all features" in text
    assert text.count("With --fwe:") == 4
