"""Results on disk: the same maps come back, whole or not at all, and as images with sidecars."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.testing import assert_array_equal

from nimare_dask.corpus import digest, open_corpus, save_corpus
from nimare_dask.correct import correct_fdr
from nimare_dask.errors import (
    SchemaError,
    SourceFormatError,
    StoreExistsError,
    UnknownLabelError,
)
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.io.nifti import file_safe, get_map, to_nifti
from nimare_dask.io.results import open_result, save_result
from nimare_dask.parallel import execute
from nimare_dask.parallel.parts import left_of
from nimare_dask.provenance import steps
from nimare_dask.selection import has_label, select
from nimare_dask.simulate import simulate_corpus
from nimare_dask.space import load_space
from tests.builders import listing, small_space, tiny_corpus

SPACE = small_space()
FEATURES = [f"simulated__{index:03d}" for index in range(3)]
EFFECTS = ["uniformity", "association", "group1", "group2"]
PROBABILITIES = ["A", "AgF", "AgU", "FgA", "AgF_prior", "FgA_prior", "group1", "group2"]
# What NiMARE calls the maps of MKDAChi2.
PAIR_NAMES = {
    *(f"{value}_desc-{effect}" for value in ("z", "chi2", "p", "logp") for effect in EFFECTS),
    *(f"prob_desc-{name}" for name in PROBABILITIES),
}


@pytest.fixture(scope="module")
def corpus() -> xr.Dataset:
    return simulate_corpus(80, n_foci=400, n_features=3, space=SPACE, random_state=2)


@pytest.fixture(scope="module")
def pair(corpus: xr.Dataset) -> xr.Dataset:
    """One pair of groups: in memory."""
    mask = has_label(corpus, "simulated__000")
    return MKDAChi2().fit(select(corpus, mask), select(corpus, ~mask), space=SPACE)


@pytest.fixture(scope="module")
def terms(corpus: xr.Dataset) -> xr.Dataset:
    """Every feature: lazy."""
    return MKDAChi2().fit_features(corpus, space=SPACE)


@pytest.fixture
def store(terms: xr.Dataset, tmp_path: Path) -> Path:
    return save_result(terms[["z"]], tmp_path / "terms.zarr")


def plain(maps: xr.Dataset) -> xr.Dataset:
    """A result without what saving adds."""
    attributes = {k: v for k, v in maps.attrs.items() if k not in ("kind", "schema_version")}
    return maps.drop_attrs(deep=False).assign_attrs(attributes)


# round trips


def test_save_result__pair_opens_identical(pair: xr.Dataset, tmp_path: Path) -> None:
    opened = open_result(save_result(pair, tmp_path / "pair.zarr"))
    xr.testing.assert_identical(plain(opened.compute()), pair)
    types = {name: variable.dtype for name, variable in pair.variables.items()}
    assert {name: variable.dtype for name, variable in opened.variables.items()} == types


@pytest.mark.parametrize("chunks", ["voxel", "feature"])
def test_save_result__features_open_identical(
    corpus: xr.Dataset, tmp_path: Path, chunks: Any
) -> None:
    maps = MKDAChi2().fit_features(corpus, space=SPACE, chunks=chunks)
    opened = open_result(save_result(maps, tmp_path / "terms.zarr"))
    xr.testing.assert_identical(plain(opened.compute()), maps.compute())
    assert opened["feature"].values.tolist() == FEATURES


def test_save_result__in_memory_equals_lazy(terms: xr.Dataset, tmp_path: Path) -> None:
    lazy = open_result(save_result(terms, tmp_path / "lazy.zarr"))
    now = open_result(save_result(terms.compute(), tmp_path / "now.zarr"))
    xr.testing.assert_identical(lazy.compute(), now.compute())


@pytest.mark.parametrize("voxels", [100, 64, 1000])
def test_save_result__does_not_depend_on_blocks(
    terms: xr.Dataset, tmp_path: Path, voxels: int
) -> None:
    blocks = terms[["z"]].compute().chunk({"voxel": voxels, "feature": 2})
    opened = open_result(save_result(blocks, tmp_path / "blocks.zarr"))
    xr.testing.assert_equal(opened["z"].compute(), terms["z"].compute())


def test_save_result__corrected_opens_identical(terms: xr.Dataset, tmp_path: Path) -> None:
    corrected = correct_fdr(terms, method="negcorr")
    opened = open_result(save_result(corrected, tmp_path / "fdr.zarr"))
    xr.testing.assert_identical(plain(opened.compute()), corrected.compute())


def test_save_result__computes_only_the_maps_that_are_kept(
    terms: xr.Dataset, tmp_path: Path
) -> None:
    def fail(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise AssertionError("a map was computed that nobody asked for")

    trap = terms.assign(p=terms["p"].copy(data=terms["p"].data.map_blocks(fail, dtype="f4")))
    opened = open_result(save_result(trap[["z"]], tmp_path / "z.zarr"))
    assert list(opened.data_vars) == ["z"]


def test_save_result__computes_each_block_once(terms: xr.Dataset, tmp_path: Path) -> None:
    calls: list[tuple[int, ...]] = []

    def count(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append(block.shape)
        return block

    maps = terms[["z"]].compute().chunk({"voxel": 200})
    counted = maps["z"].data.map_blocks(count, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    save_result(maps.assign(z=maps["z"].copy(data=counted)), tmp_path / "z.zarr")
    assert len(calls) == counted.npartitions >= 3


def test_save_result__a_choice_of_maps_keeps_what_images_need(
    store: Path, terms: xr.Dataset
) -> None:
    opened = open_result(store)
    assert {"voxel_i", "voxel_j", "voxel_k", "n_active", "n_selected"} <= set(opened.coords)
    assert_array_equal(opened["n_selected"], terms["n_selected"])
    for feature in FEATURES:
        names = {"name": "z_desc-association", "feature": feature}
        image, expected = get_map(opened, **names), get_map(terms, **names)
        assert_array_equal(image.get_fdata(), expected.get_fdata())
    assert steps(opened) == steps(terms)


def test_save_result__can_be_corrected_after_opening(store: Path, terms: xr.Dataset) -> None:
    later, now = correct_fdr(open_result(store)), correct_fdr(terms)
    assert_array_equal(later["z_fdr_indep"].values, now["z_fdr_indep"].values)


def test_save_result__over_the_store_that_it_is_read_from(store: Path, terms: xr.Dataset) -> None:
    save_result(correct_fdr(open_result(store)), store, overwrite=True)
    opened = open_result(store)
    assert_array_equal(opened["z"].values, terms["z"].values)
    assert_array_equal(opened["p_fdr_indep"].values, correct_fdr(terms)["p_fdr_indep"].values)


def test_open_result__is_lazy_and_its_labels_are_not(store: Path) -> None:
    opened = open_result(store)
    assert isinstance(opened["z"].data, da.Array)
    lazy = [name for name in opened.coords if isinstance(opened[name].data, da.Array)]
    assert lazy == []


def test_save_result__carries_space_and_provenance(store: Path, corpus: xr.Dataset) -> None:
    opened = open_result(store)
    assert opened.attrs["space_digest"] == SPACE.digest
    assert (opened.attrs["space"], opened.attrs["reference"]) == ("small", "MNI")
    assert tuple(opened.attrs["shape"]) == SPACE.shape
    assert_array_equal(opened.attrs["affine"], SPACE.affine)
    made, fitted = steps(opened)
    assert (made["step"], fitted["step"]) == ("simulate_corpus", "MKDAChi2")
    assert fitted["corpus_digests"] == [digest(corpus)]


# progress and crashes


def test_save_result__reports_progress(terms: xr.Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    blocks = terms[["z"]].compute().chunk({"voxel": 200})
    save_result(blocks, tmp_path / "z.zarr", report=lambda done, all_: seen.append((done, all_)))
    n = sum(v.data.npartitions for v in blocks.variables.values() if v.chunks is not None)
    assert n > blocks["z"].data.npartitions >= 3
    assert seen == [(done, n) for done in range(n + 1)], "first what was done before"


def block_that_fails(error: BaseException) -> Callable[..., Any]:
    def fail(values: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        if block_info and block_info[0]["chunk-location"][-1] == 2:
            raise error
        return values

    return fail


@pytest.mark.parametrize("error", [MemoryError("no memory"), ValueError("wrong")], ids=repr)
@pytest.mark.parametrize("old", [False, True])
def test_save_result__a_block_that_fails_leaves_nothing_new(
    terms: xr.Dataset, store: Path, error: BaseException, old: bool
) -> None:
    if not old:
        shutil.rmtree(store)
    before = listing(store.parent)
    maps = terms[["z"]].compute().chunk({"voxel": 100})
    spoilt = maps["z"].data.map_blocks(block_that_fails(error), dtype="f4")
    with (
        pytest.raises(type(error)),
        dask.config.set(scheduler="synchronous"),
    ):
        save_result(maps.assign(z=maps["z"].copy(data=spoilt)), store, overwrite=old)
    assert listing(store.parent) == before
    if old:
        assert_array_equal(open_result(store)["z"].values, terms["z"].values)


def test_save_result__stopped_while_writing_leaves_a_part(
    terms: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = execute._write_block
    done: list[Any] = []

    def stop(*args: Any) -> None:
        if len(done) == 2:
            raise OSError("No space left on device")
        write(*args)
        done.append(args)

    monkeypatch.setattr(execute, "_write_block", stop)
    with pytest.raises(OSError, match="No space"), dask.config.set(scheduler="synchronous"):
        save_result(terms[["z"]].compute().chunk({"voxel": 100}), tmp_path / "terms.zarr")
    assert len(done) == 2
    left = left_of(tmp_path / "terms.zarr")
    assert left is not None and left[1] == 2
    assert [path.name for path in tmp_path.iterdir()] == [left[0].name]


def test_save_result__stopped_by_its_reader_leaves_a_part(
    terms: xr.Dataset, tmp_path: Path
) -> None:
    def stop(done: int, n_blocks: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), dask.config.set(scheduler="synchronous"):
        save_result(terms[["z"]], tmp_path / "terms.zarr", report=stop)
    left = left_of(tmp_path / "terms.zarr")
    assert left is not None and left[1] == 1
    assert [path.name for path in tmp_path.iterdir()] == [left[0].name]


def test_save_result__refuses_to_overwrite(store: Path, pair: xr.Dataset) -> None:
    with pytest.raises(StoreExistsError, match=r"terms\.zarr exists already.*overwrite=True"):
        save_result(pair, store)
    assert "feature" in open_result(store).dims


def test_save_result__overwrites_when_asked(store: Path, pair: xr.Dataset) -> None:
    assert save_result(pair, store, overwrite=True) == store
    assert "feature" not in open_result(store).dims
    assert [path.name for path in store.parent.iterdir()] == ["terms.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_save_result__leaves_what_is_not_zarr(
    pair: xr.Dataset, tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(StoreExistsError, match="not a zarr group"):
        save_result(pair, tmp_path / "notes", overwrite=overwrite)
    assert listing(tmp_path) == ["notes", "notes/a.txt"]


def test_save_result__leaves_a_corpus(pair: xr.Dataset, tmp_path: Path) -> None:
    path = save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    with pytest.raises(StoreExistsError, match=r"is nimare_dask\.corpus, not a result"):
        save_result(pair, path, overwrite=True)
    assert open_corpus(path).sizes["focus"] == 6


def test_save_result__any_choice_of_lazy_maps(terms: xr.Dataset, tmp_path: Path) -> None:
    blocks = xr.concat([terms[["z"]].compute()] * 5, dim="feature")
    names = np.array([f"f{index:02d}" for index in range(15)], dtype=object)
    lazy = blocks.assign_coords(feature=names).chunk({"feature": 4, "voxel": 250})
    chosen = lazy.isel(feature=[0, 1, 5, 6, 7, 13, 14], voxel=slice(3, None))
    opened = open_result(save_result(chosen, tmp_path / "chosen.zarr"))
    assert_array_equal(opened["z"].values, chosen["z"].values)


# what is refused


def test_save_result__a_corpus_is_no_result(corpus: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"voxel_i .*is missing.*an estimator's fit\(\)"):
        save_result(corpus, tmp_path / "corpus.zarr")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", ["shape", "affine"])
def test_save_result__without_a_place_in_the_brain(
    pair: xr.Dataset, tmp_path: Path, name: str
) -> None:
    bare = pair.copy()
    del bare.attrs[name]
    with pytest.raises(SchemaError, match=f"no attribute {name}, so its maps have no place"):
        save_result(bare, tmp_path / "pair.zarr")


def test_open_result__a_corpus_is_no_result(tmp_path: Path) -> None:
    path = save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    with pytest.raises(SourceFormatError, match=r"is a corpus; expected a result"):
        open_result(path)


def test_open_result__missing_path(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"does not exist; expected a result"):
        open_result(tmp_path / "none.zarr")


def test_open_result__another_schema_version(store: Path) -> None:
    group: Any = zarr.open_group(store, mode="r+")
    group.attrs["schema_version"] = 99
    with pytest.raises(SourceFormatError, match=r"schema version 99; .*reads 1"):
        open_result(store)


# maps by name


def test_get_map__by_name_and_by_labels(pair: xr.Dataset) -> None:
    for effect in EFFECTS:
        by_name = get_map(pair, f"z_desc-{effect}").get_fdata()
        assert_array_equal(by_name, get_map(pair, "z", effect=effect).get_fdata())
        expected = np.zeros(SPACE.shape, np.float32)
        expected[SPACE.mask] = pair["z"].sel(effect=effect).values
        assert_array_equal(by_name, expected)


def test_get_map__image_has_the_grid_of_the_mask(pair: xr.Dataset) -> None:
    image = get_map(pair, "p_desc-association")
    assert_array_equal(image.affine, SPACE.affine)
    assert image.shape == SPACE.shape
    assert image.get_data_dtype() == np.float32
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4
    assert not image.get_fdata()[~SPACE.mask].any()
    # p is never 0 inside, so 0 is what lies outside.
    assert image.get_fdata()[SPACE.mask].all()


def test_get_map__talairach_is_said_in_the_header(corpus: xr.Dataset) -> None:
    space = small_space("TAL")
    maps = MKDAChi2().fit_features(corpus, space=space, features=FEATURES[:1])
    assert int(get_map(maps, "z", effect="association").header["sform_code"]) == 3


def test_get_map__is_loaded_as_the_mask_that_it_came_from(pair: xr.Dataset) -> None:
    inside = load_space(get_map(pair, "p_desc-association"))
    assert_array_equal(inside.mask, SPACE.mask)
    assert inside.digest == SPACE.digest


def test_get_map__of_a_feature(terms: xr.Dataset) -> None:
    z = terms["z"].sel(effect="uniformity").values
    for place, feature in enumerate(FEATURES):
        values = get_map(terms, "z_desc-uniformity", feature=feature).get_fdata()[SPACE.mask]
        assert_array_equal(values.astype(np.float32), z[place])
    short = get_map(terms, "z_desc-uniformity", feature="002").get_fdata()
    assert_array_equal(short, get_map(terms, "z_desc-uniformity", feature=FEATURES[2]).get_fdata())


def test_get_map__the_only_feature_needs_no_name(terms: xr.Dataset) -> None:
    one = terms.isel(feature=[1])
    expected = get_map(terms, "z_desc-association", feature=FEATURES[1])
    assert_array_equal(get_map(one, "z_desc-association").get_fdata(), expected.get_fdata())


def test_get_map__of_what_was_computed_from_two_maps(terms: xr.Dataset) -> None:
    z = terms["z"].sel(effect="association", feature=FEATURES[0])
    values = get_map(terms.assign(double=z * 2)[["double"]], "double").get_fdata()
    assert_array_equal(values[SPACE.mask].astype(np.float32), (z * 2).values)


def test_get_map__corrected_by_the_name_of_nimare(terms: xr.Dataset) -> None:
    one = correct_fdr(terms.isel(feature=[0]))
    name = "z_desc-association_level-voxel_corr-FDR_method-indep"
    expected = one["z_fdr_indep"].sel(effect="association").values.ravel()
    assert_array_equal(get_map(one, name).get_fdata()[SPACE.mask].astype(np.float32), expected)


def test_get_map__unknown_map_is_answered_with_a_suggestion(pair: xr.Dataset) -> None:
    with pytest.raises(
        UnknownLabelError, match=r"no map 'z_desc-asociation'\. Did you mean z_desc-a"
    ):
        get_map(pair, "z_desc-asociation")
    with pytest.raises(UnknownLabelError, match=r"no map '_desc-group2'.*z_desc-group2"):
        get_map(pair, "_desc-group2")


def test_get_map__unknown_labels_are_answered_with_a_suggestion(terms: xr.Dataset) -> None:
    with pytest.raises(
        UnknownLabelError, match=r"effect .*'asociation'\. Did you mean association"
    ):
        get_map(terms, "z", effect="asociation", feature=FEATURES[0])
    with pytest.raises(UnknownLabelError, match=r"feature .*'simulated__009'\. Did you mean simul"):
        get_map(terms, "z_desc-association", feature="simulated__009")


def test_get_map__says_which_choice_is_left(pair: xr.Dataset, terms: xr.Dataset) -> None:
    with pytest.raises(
        UnknownLabelError, match=r"'z_desc-association' .*each feature; say feature="
    ):
        get_map(terms, "z_desc-association")
    with pytest.raises(UnknownLabelError, match=r"'z' .* each effect; say effect=.*uniformity"):
        get_map(pair, "z")
    with pytest.raises(UnknownLabelError, match=r"'prob' .* each probability; say probability="):
        get_map(pair, "prob")


def test_get_map__names_every_label_of_a_short_choice(pair: xr.Dataset) -> None:
    with pytest.raises(UnknownLabelError) as caught:
        get_map(pair, "z")
    assert [effect for effect in EFFECTS if effect not in str(caught.value)] == []


def test_get_map__a_label_of_another_dimension(pair: xr.Dataset) -> None:
    with pytest.raises(UnknownLabelError, match="feature"):
        get_map(pair, "z_desc-association", feature="pain")


def test_get_map__a_name_and_another_label(pair: xr.Dataset) -> None:
    with pytest.raises(UnknownLabelError, match="effect"):
        get_map(pair, "z_desc-association", effect="uniformity")


# images in a folder


def stems(paths: list[Path]) -> set[str]:
    return {path.name.removesuffix(".nii.gz") for path in paths}


def test_to_nifti__names_are_those_of_nimare(pair: xr.Dataset, tmp_path: Path) -> None:
    paths = to_nifti(pair, tmp_path / "maps")
    assert stems(paths) == PAIR_NAMES
    both = {f"{name}{end}" for name in PAIR_NAMES for end in (".nii.gz", ".json")}
    assert set(listing(tmp_path / "maps")) == both
    assert len(paths) == len(PAIR_NAMES)


def test_to_nifti__names_of_corrected_maps(pair: xr.Dataset, tmp_path: Path) -> None:
    before = set(pair.data_vars)
    corrected = correct_fdr(correct_fdr(pair), method="negcorr").drop_vars(before)
    assert stems(to_nifti(corrected, tmp_path)) == {
        f"{value}_desc-{effect}{end}"
        for value in ("z", "p", "logp")
        for effect in EFFECTS
        for end in ("_level-voxel_corr-FDR_method-indep", "_corr-FDR_method-negcorr")
    }


def test_to_nifti__files_are_the_maps(pair: xr.Dataset, tmp_path: Path) -> None:
    for path in to_nifti(pair, tmp_path):
        image: Any = nib.load(path)
        name = path.name.removesuffix(".nii.gz")
        assert image.get_data_dtype() == np.float32
        assert np.isnan(image.header["scl_slope"]) or image.header["scl_slope"] == 1
        assert_array_equal(image.affine, SPACE.affine)
        assert_array_equal(image.get_fdata(), get_map(pair, name).get_fdata())
        assert not np.nan_to_num(image.get_fdata()[~SPACE.mask]).any()


def test_to_nifti__sidecar_of_a_pair(pair: xr.Dataset, corpus: xr.Dataset, tmp_path: Path) -> None:
    to_nifti(pair, tmp_path, names=["z_desc-association"])
    assert listing(tmp_path) == ["z_desc-association.json", "z_desc-association.nii.gz"]
    sidecar = json.loads((tmp_path / "z_desc-association.json").read_text())
    assert sidecar["map"] == "z_desc-association"
    assert sidecar["effect"] == "association"
    assert sidecar["description"] == "z score"
    assert sidecar["n_voxels"] == SPACE.n_voxels
    assert sidecar["space"] == {
        "space": "small",
        "reference": "MNI",
        "shape": list(SPACE.shape),
        "affine": SPACE.affine.tolist(),
    }
    assert sidecar["provenance"] == steps(pair)
    fitted = sidecar["provenance"][-1]
    assert fitted["n_analyses"] == 80
    assert fitted["n_selected"] == int(has_label(corpus, FEATURES[0]).sum())
    assert fitted["settings"]["r"] == 10.0
    assert {"numpy", "nimare_dask", "python"} <= set(fitted["versions"])
    assert {"wager2007", "yarkoni2011"} <= set(sidecar["references"])
    assert "10.1093/scan/nsm015" in sidecar["references"]["wager2007"]


def test_to_nifti__features_have_folders(terms: xr.Dataset, tmp_path: Path) -> None:
    paths = to_nifti(terms, tmp_path, names=["z_desc-association", "prob_desc-A"])
    folders = [tmp_path / feature for feature in FEATURES]
    assert paths == [
        folder / f"{name}.nii.gz"
        for name in ("z_desc-association", "prob_desc-A")
        for folder in folders
    ]
    counts = terms["n_selected"].values.tolist()
    for folder, feature, n in zip(folders, FEATURES, counts, strict=True):
        sidecar = json.loads((folder / "z_desc-association.json").read_text())
        assert (sidecar["feature"], sidecar["n_selected"]) == (feature, n)
        image: Any = nib.load(folder / "z_desc-association.nii.gz")
        expected = get_map(terms, "z_desc-association", feature=feature)
        assert_array_equal(image.get_fdata(), expected.get_fdata())


def test_to_nifti__choice_of_features(terms: xr.Dataset, tmp_path: Path) -> None:
    paths = to_nifti(terms, tmp_path, names=["z_desc-association"], features=["002", FEATURES[0]])
    assert [path.parent.name for path in paths] == [FEATURES[2], FEATURES[0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [FEATURES[0], FEATURES[2]]


def test_to_nifti__one_name_is_a_choice_of_one(terms: xr.Dataset, tmp_path: Path) -> None:
    (path,) = to_nifti(terms, tmp_path, names="z_desc-association", features="002")
    assert path == tmp_path / FEATURES[2] / "z_desc-association.nii.gz"


def test_to_nifti__feature_named_twice_is_written_once(terms: xr.Dataset, tmp_path: Path) -> None:
    paths = to_nifti(terms, tmp_path, names=["prob_desc-A"], features=["001", FEATURES[1]])
    assert paths == [tmp_path / FEATURES[1] / "prob_desc-A.nii.gz"]


def test_to_nifti__labels_become_names_of_folders(terms: xr.Dataset, tmp_path: Path) -> None:
    names = np.array(["a/../b c", "..", "痛み"], dtype=np.dtypes.StringDType())
    paths = to_nifti(terms.assign_coords(feature=names), tmp_path, names=["z_desc-association"])
    assert [path.resolve().parent.parent for path in paths] == [tmp_path.resolve()] * 3
    assert len({path.parent for path in paths}) == 3
    sidecars = [json.loads(path.with_name("z_desc-association.json").read_text()) for path in paths]
    assert [sidecar["feature"] for sidecar in sidecars] == names.tolist()


def test_to_nifti__features_of_like_names_do_not_overwrite_each_other(
    terms: xr.Dataset, tmp_path: Path
) -> None:
    names = np.array(["working memory", "working_memory", "Working memory"], dtype=object)
    paths = to_nifti(terms.assign_coords(feature=names), tmp_path, names=["z_desc-association"])
    assert len(set(paths)) == 3
    for path, name in zip(paths, names, strict=True):
        sidecar = json.loads(path.with_name("z_desc-association.json").read_text())
        assert sidecar["feature"] == name


@pytest.mark.parametrize("label", ["", ".", "..", "/", "a/b", "a\\b", "a\0b", "con:", " "])
def test_file_safe__is_one_name(label: str) -> None:
    safe = file_safe(label)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\\0:*?"<>| ')


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"names": ["z_desc-association", "z_desc-nothing"]}, r"No map .*'z_desc-nothing'.*Did"),
        ({"features": [FEATURES[0], "fear"]}, r"No feature .*'fear'"),
    ],
)
def test_to_nifti__an_unknown_choice_writes_nothing(
    terms: xr.Dataset, tmp_path: Path, choice: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(UnknownLabelError, match=says):
        to_nifti(terms, tmp_path / "maps", **choice)
    assert listing(tmp_path) == []


def test_to_nifti__features_of_a_result_without_features(pair: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(UnknownLabelError, match="not about features"):
        to_nifti(pair, tmp_path, features=["pain"])


def test_to_nifti__stopped_in_the_middle_leaves_no_image(
    pair: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: nib.Nifti1Image, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", stop)
    with pytest.raises(OSError, match="No space"):
        to_nifti(pair, tmp_path, names=["z_desc-association"])
    assert [name for name in listing(tmp_path) if not name.startswith(".")] == []


def test_to_nifti__leaves_no_part_files(terms: xr.Dataset, tmp_path: Path) -> None:
    to_nifti(terms, tmp_path, names=["z_desc-association"])
    assert [name for name in listing(tmp_path) if "part" in name] == []


def test_to_nifti__of_what_was_opened(store: Path, terms: xr.Dataset, tmp_path: Path) -> None:
    paths = to_nifti(open_result(store), tmp_path / "maps", features=["001"])
    assert stems(paths) == {"z_desc-uniformity", "z_desc-association"}
    image: Any = nib.load(paths[0])
    name = paths[0].name.removesuffix(".nii.gz")
    assert_array_equal(image.get_fdata(), get_map(terms, name, feature="001").get_fdata())


def test_to_nifti__only_corrected_maps_are_said_to_be_corrected(tmp_path: Path) -> None:
    space = small_space()
    corpus = simulate_corpus(40, n_features=2, space=space)
    maps = correct_fdr(MKDAChi2().fit_features(corpus, threshold=0.05, space=space))
    to_nifti(
        maps,
        tmp_path,
        names=["z_desc-association", "z_desc-association_level-voxel_corr-FDR_method-indep"],
    )
    for path in tmp_path.rglob("*.json"):
        said = json.loads(path.read_text())
        corrected = "corr-FDR" in path.name
        assert ("correct_fdr" in [step["step"] for step in said["provenance"]]) == corrected
        assert ("benjamini1995" in said["references"]) == corrected
