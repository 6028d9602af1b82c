"""Contrasts by way of main effects, and conjunctions: against the reference, names, refusals."""

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
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask.provenance import steps
from nimare_dask.results import find_map, map_keys
from tests.foci import draw_corpus, make_corpus, make_space
from tests.groups import SPACE
from tests.planted import assert_same_maps, planted, raw_numbers, shuffled
from tests.reference import pvalues
from tests.reference import two_groups as reference
from tests.slow import FLOAT32

FWHM, R = 20.0, 12.0
N_ITERS, SEED, ALPHA = 60, 3, 0.05
PAIRWISE: dict[str, Any] = {
    "ale": nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=FWHM)),
    "chi2": nd.MKDAChi2(kernel=nd.MKDAKernel(r=R)),
}
MAIN: dict[str, Any] = {
    "ale": nd.ALE(kernel=nd.ALEKernel(fwhm=FWHM)),
    "chi2": nd.MKDADensity(kernel=nd.MKDAKernel(r=R)),
}
TESTED = {"ale": "group1MinusGroup2", "chi2": "association"}
ADDED = ["group1MainEffect", "group2MainEffect", "conjunction", "contrast"]
CORRECT = ["fdr", "bonferroni", "fwe"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def compare(method: str, correct: Any = "fdr", **settings: Any) -> xr.Dataset:
    """A contrast of the planted groups."""
    given: dict[str, Any] = {
        "pairwise": PAIRWISE[method],
        "correct": correct,
        "alpha": ALPHA,
        "space": SPACE,
        "n_iters": N_ITERS,
        "random_state": SEED,
    }
    return nd.contrast(*planted().pair, **{**given, **settings})


@cache
def found(method: str, correct: str, n_iters: int = N_ITERS) -> xr.Dataset:
    with dask.config.set(scheduler="synchronous"):
        return compare(method, correct, n_iters=n_iters)


def z_of(maps: xr.Dataset, effect: str) -> NDArray[np.float32]:
    return maps["z"].sel(effect=effect).values


def read_image(path: Path) -> NDArray[Any]:
    image: Any = nib.load(path)
    return np.asanyarray(image.dataobj)


# main effects


def main_effect(method: str, correct: str, corpus: xr.Dataset, seed: int) -> NDArray[np.float64]:
    """Corrected z by the slow reference where corrected p is at most alpha, 0 elsewhere."""
    maps = MAIN[method].fit(corpus, space=SPACE)
    if correct != "fwe":
        nlogp = -maps["logp"].values.astype(float) * np.log(10)
        by = pvalues.bonferroni(nlogp) if correct == "bonferroni" else pvalues.fdr(nlogp, "indep")
        p, z = np.exp(by), pvalues.corrected_z(by, maps["z"].values)
    else:
        null = nd.monte_carlo_null(
            MAIN[method], corpus, space=SPACE, n_iters=N_ITERS, random_state=seed, maps=maps
        )
        sizes = null["null_max"].sel(inference="size").values
        p = np.ones(SPACE.n_voxels)
        threshold = null.attrs["stat_thresh"]
        for members in reference.clusters_above(maps["stat"].values, SPACE.mask, threshold):
            p[members] = reference.share_at_least(sizes, members.size)
        z = pvalues.p_to_z(p, "one")
    # No p is so near alpha that rounding decides.
    assert (np.abs(p - ALPHA) > 1e-6).all()
    return np.where(p <= ALPHA, z, 0)


@pytest.mark.parametrize("correct", CORRECT)
@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__main_effects_are_those_of_each_group_alone(method: str, correct: str) -> None:
    maps = found(method, correct)
    for number, corpus in enumerate(planted().pair):
        name, wanted = ADDED[number], main_effect(method, correct, corpus, SEED + number)
        assert 10 < (wanted > 0).sum() < 200 and wanted.min() == 0
        assert_array_equal(z_of(maps, name) != 0, wanted != 0)
        assert_allclose(z_of(maps, name), wanted, rtol=4 * FLOAT32, atol=0)


@pytest.mark.parametrize("correct", CORRECT)
@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__conjunction_is_the_smaller_main_effect(method: str, correct: str) -> None:
    maps = found(method, correct)
    first, second = (z_of(maps, name).astype(float) for name in ADDED[:2])
    wanted = reference.minimum_statistic(first, second)
    assert (wanted > 0).any() and (wanted == 0).any()
    assert_array_equal(z_of(maps, "conjunction"), wanted)


def test_contrast__main_estimator_of_another_kind() -> None:
    maps = compare("chi2", "bonferroni", main=MAIN["ale"])
    assert_array_equal(z_of(maps, ADDED[0]), z_of(found("ale", "bonferroni"), ADDED[0]))
    assert steps(maps)[-1]["settings"]["main"] == "ALE"
    assert not np.array_equal(z_of(maps, ADDED[0]), z_of(found("chi2", "bonferroni"), ADDED[0]))


# the difference


@pytest.mark.parametrize("correct", CORRECT)
def test_contrast__difference_of_ale_is_one_sided_behind_its_gates(correct: str) -> None:
    groups, maps = planted(), found("ale", correct)
    activation = groups.activation(FWHM)
    n_first, everyone = int(groups.member.sum()), range(len(activation))
    assert 2 * n_first <= len(activation)
    observed = reference.subtraction_difference(activation, np.flatnonzero(groups.member))
    chosen = [
        shuffled(raw_numbers(SEED, 0, iteration, n_first), everyone) for iteration in range(N_ITERS)
    ]
    differences = reference.subtraction_permutations(activation, chosen)
    gates = [z_of(maps, name) > 0 for name in ADDED[:2]]
    p, z = reference.subtraction_inference_p_z(observed, differences, *gates)
    # Where a shuffle nearly ties with the observed difference, rounding may decide.
    off = np.abs(differences - observed)
    sure = ~((off > 0) & (off < 1e-8)).any(axis=0)
    assert sure.mean() > 0.99
    one = maps.sel(effect=TESTED["ale"])
    assert_allclose(one["stat"], observed, rtol=0, atol=1e-7)
    assert_allclose(one["p"][sure], p[sure], rtol=FLOAT32)
    assert_allclose(one["z"][sure], z[sure], rtol=FLOAT32)
    assert_allclose(one["logp"][sure], np.abs(np.log10(p[sure])), rtol=FLOAT32)
    # Not where the other group is higher, significant as that may be.
    two_sided, _ = reference.subtraction_p_z(observed, differences)
    wrong = gates[0] & ~gates[1] & (observed < 0) | gates[1] & ~gates[0] & (observed > 0)
    assert (two_sided[wrong] < 1).any()
    assert (one["p"].values[wrong] == 1).all() and (one["z"].values[wrong] == 0).all()
    assert (z > 0).any() and (z < 0).any() and (gates[0] & gates[1]).any()


@pytest.mark.parametrize("correct", CORRECT)
def test_contrast__association_is_kept_behind_its_gates(correct: str) -> None:
    maps = found("chi2", correct)
    plain = PAIRWISE["chi2"].fit(*planted().pair, space=SPACE).sel(effect="association")
    first, second = (z_of(maps, name) > 0 for name in ADDED[:2])
    z = plain["z"].values
    kept = (z > 0) & first | (z < 0) & second
    assert (z[kept] > 0).any() and (z[kept] < 0).any() and (z[~kept] != 0).any()
    found_maps = maps.sel(effect="association")
    for name, nothing in (("z", 0), ("chi2", 0), ("p", 1), ("logp", 0)):
        wanted = np.where(kept, plain[name].values, nothing)
        assert_array_equal(found_maps[name], wanted, err_msg=name)


@pytest.mark.parametrize("correct", CORRECT)
@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__contrast_is_what_is_significant_uncorrected(method: str, correct: str) -> None:
    maps = found(method, correct)
    tested, contrast = (maps.sel(effect=name) for name in (TESTED[method], "contrast"))
    significant = (tested["p"].values <= ALPHA) & (tested["z"].values != 0)
    assert significant.any() and (tested["z"].values[~significant] != 0).any()
    for name, nothing in (("z", 0), ("p", 1), ("logp", 0)):
        wanted = np.where(significant, tested[name].values, nothing)
        assert_array_equal(contrast[name], wanted, err_msg=name)


def test_contrast__alpha_is_that_of_main_effects_and_of_the_contrast() -> None:
    strict, loose = compare("ale", alpha=0.02), compare("ale", alpha=0.5)
    for name in (ADDED[0], ADDED[1], "contrast"):
        few, many = z_of(strict, name) != 0, z_of(loose, name) != 0
        assert few.sum() < many.sum() and (few <= many).all()
    for maps, alpha in ((strict, 0.02), (loose, 0.5)):
        assert 0 < maps["p"].sel(effect="contrast").min() <= alpha
        assert steps(maps)[-1]["settings"]["alpha"] == alpha


def test_contrast__without_overlap_of_main_effects() -> None:
    # Each voxel of the line is of one group, so nothing is common to both.
    line = make_space((1, 1, 30), seed=None)
    groups = [
        make_corpus([[[0, 0, z]]] * 6, prefix=name) for name, z in (("one", -15), ("two", 15))
    ]
    estimator = nd.MKDAChi2(kernel=nd.MKDAKernel(r=4))
    maps = nd.contrast(*groups, pairwise=estimator, space=line, correct="bonferroni")
    assert_array_equal(np.flatnonzero(z_of(maps, ADDED[0])), np.arange(5) + 5)
    assert_array_equal(np.flatnonzero(z_of(maps, ADDED[1])), np.arange(5) + 20)
    assert not z_of(maps, "conjunction").any()
    # 12 * 36^2 / (6 * 6 * 6 * 6) = 12, so z is its root.
    wanted = np.zeros(30)
    wanted[5:10], wanted[20:25] = np.sqrt(12), -np.sqrt(12)
    assert_allclose(z_of(maps, "contrast"), wanted, rtol=FLOAT32)


def test_contrast__swapped_groups_have_the_opposite_contrast() -> None:
    maps = found("chi2", "fdr")
    other = nd.contrast(*planted().pair[::-1], pairwise=PAIRWISE["chi2"], space=SPACE)
    assert_array_equal(z_of(other, "contrast"), -z_of(maps, "contrast"))
    assert_array_equal(z_of(other, ADDED[0]), z_of(maps, ADDED[1]))
    assert_array_equal(z_of(other, "conjunction"), z_of(maps, "conjunction"))


# names


def names_of(method: str) -> set[str]:
    """NiMARE's names: those of the pairwise estimator, and those of the contrast."""
    kinds = {"stat" if method == "ale" else "chi2", "p", "z", "logp"}
    groups = {"group1", "group2", TESTED[method]} | ({"uniformity"} if method == "chi2" else set())
    names = {f"{kind}_desc-{effect}" for kind in kinds for effect in groups}
    if method == "chi2":
        of_a = ("A", "AgF", "AgU", "FgA", "AgF_prior", "FgA_prior", "group1", "group2")
        names |= {f"prob_desc-{what}" for what in of_a}
    return (
        names | {f"z_desc-{effect}" for effect in ADDED} | {"p_desc-contrast", "logp_desc-contrast"}
    )


@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__names_and_effects(method: str) -> None:
    maps = found(method, "fdr")
    keys = [key.name for key in map_keys(maps)]
    assert len(keys) == len(set(keys)) and set(keys) == names_of(method)
    before = maps["effect"].values.tolist()[: -len(ADDED)]
    assert maps["effect"].values.tolist() == [*before, *ADDED]
    assert maps["z"].attrs["effects"] == [*before, *ADDED]
    for name in ("p", "logp"):
        assert maps[name].attrs["effects"] == [*before, "contrast"]
        assert np.isnan(maps[name].sel(effect=ADDED[:3]).values).all()
    statistic = {"ale": "stat", "chi2": "chi2"}[method]
    assert maps[statistic].attrs["effects"] == before
    assert np.isnan(maps[statistic].sel(effect=ADDED).values).all()
    assert not np.isnan(maps["z"].values).any()
    for kind in set(maps.data_vars) - {"prob"}:
        assert maps[kind].dtype == np.float32 and maps[kind].dims == ("effect", "voxel")
        assert maps[kind].attrs["long_name"]


@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__saved_opened_and_exported(method: str, tmp_path: Path) -> None:
    maps = found(method, "fdr")
    opened = nd.open_result(nd.save_result(maps, tmp_path / "maps.zarr"))
    assert {key.name for key in map_keys(opened)} == names_of(method)
    assert_same_maps(opened.compute(), maps)
    assert steps(opened) == steps(maps)
    paths = nd.to_nifti(opened, tmp_path / "images")
    assert {path.name for path in paths} == {f"{name}.nii.gz" for name in names_of(method)}
    for name in ("z_desc-conjunction", "p_desc-contrast", "z_desc-group2MainEffect"):
        volume = read_image(tmp_path / "images" / f"{name}.nii.gz")
        assert_array_equal(volume[SPACE.mask], find_map(maps, name), err_msg=name)
        assert not volume[~SPACE.mask].any()
        sidecar = json.loads((tmp_path / "images" / f"{name}.json").read_text())
        assert sidecar["provenance"][-1]["step"] == "contrast"


def test_contrast__provenance() -> None:
    maps = found("ale", "bonferroni")
    *_, pairwise, last = steps(maps)
    assert pairwise["step"] == "ALESubtraction" and pairwise["settings"]["directional"]
    assert (pairwise["settings"]["n_iters"], pairwise["settings"]["random_state"]) == (60, 3)
    assert last["step"] == "contrast"
    assert last["settings"] == {"main": "ALE", "correct": "bonferroni", "alpha": ALPHA}
    assert list(last["references"]) == ["laird2005", "nichols2005"]


@pytest.mark.parametrize("name", ["random_state", "n_iters", "voxel_thresh"])
def test_contrast__provenance_has_what_main_effects_came_from(name: str) -> None:
    maps = compare("chi2", "fwe", random_state=None)
    assert any(name in step["settings"] for step in steps(maps))


@pytest.mark.parametrize("correct", [nd.correct_fdr, nd.correct_bonferroni])
def test_contrast__main_effects_are_not_corrected_again(correct: Any) -> None:
    added = {key.name for key in map_keys(correct(found("chi2", "fdr")))} - names_of("chi2")
    assert not {name for name in added if "MainEffect" in name or "conjunction" in name}


# stores


class Stop(Exception):
    """Raised by a report."""


NULLS = ["group1", "group2", "contrast"]
#: Two batches each.
N_STORED = 20


@pytest.mark.parametrize("n_whole", [0, 2])
def test_contrast__goes_on_after_an_exception_in_report(n_whole: int, tmp_path: Path) -> None:
    said: list[list[int]] = []

    def report(done: int, total: int) -> None:
        assert total == N_STORED
        if not said or said[-1][-1] == total:
            said.append([])
        said[-1].append(done)
        if stops and len(said) > n_whole and done > 0:
            raise Stop

    stops = True
    with pytest.raises(Stop):
        compare("ale", "fwe", n_iters=N_STORED, store=tmp_path, report=report)
    here = {path.name for path in tmp_path.iterdir()}
    assert here == {f"{name}.null.zarr" for name in NULLS[: n_whole + 1]}
    stopped = said[-1][-1]
    assert 0 < stopped < N_STORED
    stops = False
    said.clear()
    maps = compare("ale", "fwe", n_iters=N_STORED, store=tmp_path, report=report)
    assert_same_maps(maps, found("ale", "fwe", N_STORED))
    # What is done is read, and not done again.
    assert [part[0] for part in said] == [*[N_STORED] * n_whole, stopped, *[0] * (2 - n_whole)]
    for name in NULLS:
        assert nd.open_null(tmp_path / f"{name}.null.zarr").sizes["iteration"] == N_STORED


def test_contrast__goes_on_with_the_seeds_of_its_stores(tmp_path: Path) -> None:
    maps = compare("ale", "fwe", n_iters=N_STORED, random_state=None, store=tmp_path)
    again = compare("ale", "fwe", n_iters=N_STORED, random_state=None, store=tmp_path)
    assert_same_maps(again, maps)


def test_contrast__makes_the_folder_of_its_stores(tmp_path: Path) -> None:
    compare("ale", "fdr", n_iters=N_STORED, store=tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["contrast.null.zarr"]


def test_contrast__stores_of_other_groups_are_refused(tmp_path: Path) -> None:
    compare("ale", "fdr", n_iters=N_STORED, store=tmp_path)
    first, second = planted().pair
    fewer = nd.select(first, np.arange(first.sizes["analysis"]) > 0)
    with pytest.raises(nd.StoreExistsError, match=r"contrast\.null\.zarr holds iterations of ano"):
        nd.contrast(
            *(fewer, second),
            pairwise=PAIRWISE["ale"],
            space=SPACE,
            n_iters=N_STORED,
            random_state=SEED,
            store=tmp_path,
        )


@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__same_bits_with_threads(method: str) -> None:
    with dask.config.set(scheduler="threads", num_workers=2):
        assert_same_maps(compare(method, "fwe"), found(method, "fwe"))


# refusals


@pytest.mark.parametrize("method", ["ale", "chi2"])
def test_contrast__nothing_significant_is_a_sentence(method: str) -> None:
    with pytest.raises(nd.SettingsError) as raised:
        compare(method, "bonferroni", alpha=1e-40)
    assert str(raised.value) == (
        "Neither group has a significant main effect (corrected by bonferroni, alpha 1e-40), so "
        "there is nowhere to compare them; use a higher alpha, or compare them everywhere."
    )


def test_contrast__one_main_effect_is_enough() -> None:
    first, second = planted().pair
    alone = nd.select(second, np.arange(second.sizes["analysis"]) == 0)
    estimator = PAIRWISE["chi2"]
    maps = nd.contrast(first, alone, pairwise=estimator, space=SPACE, correct="bonferroni")
    assert z_of(maps, ADDED[0]).any() and not z_of(maps, ADDED[1]).any()
    assert not z_of(maps, "conjunction").any() and (z_of(maps, TESTED["chi2"]) >= 0).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"correct": "fwer"}, "correct is 'fwer'; expected 'fdr', 'bonferroni' or 'fwe'."),
        ({"correct": None}, "correct is None; expected"),
        ({"alpha": 0}, "alpha is 0; expected a p value."),
        ({"alpha": 1.0}, "alpha is 1.0; expected a p value."),
        ({"alpha": float("nan")}, "alpha is nan; expected a p value."),
        ({"space": "mni"}, "mni is neither the path of an image nor a space that is known"),
        ({"n_iters": 0}, "n_iters is 0; expected a whole number of at least 1."),
        ({"random_state": -1}, "random_state is -1; expected a whole number"),
        ({"correct": "fwe", "voxel_thresh": 2.0}, "voxel_thresh is 2.0; expected a p value."),
    ],
)
def test_contrast__settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(nd.SettingsError) as raised:
        compare("ale", **settings)
    assert str(raised.value).startswith(said)


def test_contrast__fwe_needs_a_threshold_of_clusters() -> None:
    with pytest.raises(nd.SettingsError, match="voxel_thresh is None"):
        compare("ale", "fwe", voxel_thresh=None)


@pytest.mark.parametrize("settings", [{"pairwise": "ale"}, {"main": "ale"}])
def test_contrast__estimators_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(nd.SettingsError):
        compare("ale", **settings)


def test_contrast__groups_without_foci_or_with_shared_analyses() -> None:
    first, second = planted().pair
    bare = nd.select(first, first["analysis_n_foci"].values == 0)
    for settings, said in (((first, first), "are in both groups"), ((bare, second), "no focus")):
        with pytest.raises(nd.SelectionError, match=said):
            nd.contrast(*settings, pairwise=PAIRWISE["ale"], space=SPACE, n_iters=10)


def test_contrast__shared_analyses_are_found_before_iterations() -> None:
    first, _ = planted().pair
    said: list[int] = []
    with pytest.raises(nd.SelectionError):
        nd.contrast(
            *(first, first),
            pairwise=PAIRWISE["ale"],
            correct="fwe",
            space=SPACE,
            n_iters=10,
            report=lambda done, total: said.append(done),
        )
    assert said == []


def test_contrast__nothing_significant_is_found_before_shuffles() -> None:
    said: list[int] = []
    with pytest.raises(nd.SettingsError):
        compare("ale", alpha=1e-40, report=lambda done, total: said.append(done))
    assert said == []


# conjunction


@cache
def terms() -> xr.Dataset:
    """Maps of two features."""
    corpus = draw_corpus(2, SPACE, 24, 2)
    return nd.MKDAChi2(kernel=nd.MKDAKernel(r=R)).fit_features(corpus, space=SPACE)


def test_conjunction__equals_reference() -> None:
    pair = [found("chi2", "fdr"), PAIRWISE["chi2"].fit(*planted(seed=1).pair, space=SPACE)]
    common = nd.conjunction(pair[0], pair[1], "z_desc-association")
    first, second = (z_of(maps, "association") for maps in pair)
    wanted = reference.minimum_statistic(first, second)
    assert (wanted > 0).any() and (wanted < 0).any() and (wanted[first * second < 0] == 0).all()
    assert_array_equal(z_of(common, "conjunction"), wanted)
    assert common["z"].dtype == np.float32 and common["z"].dims == ("effect", "voxel")
    assert [key.name for key in map_keys(common)] == ["z_desc-conjunction"]


def test_conjunction__of_main_effects_is_that_of_the_contrast() -> None:
    maps = found("ale", "fwe")
    singles = []
    for number, corpus in enumerate(planted().pair):
        single = MAIN["ale"].fit(corpus, space=SPACE)
        given: dict[str, Any] = {"n_iters": N_ITERS, "random_state": SEED + number}
        null = nd.monte_carlo_null(MAIN["ale"], corpus, space=SPACE, maps=single, **given)
        singles.append(nd.correct_fwe(single, null))
    name = "z_desc-size_level-cluster_corr-FWE_method-montecarlo"
    both = z_of(nd.conjunction(singles[0], singles[1], name), "conjunction")
    inside = z_of(maps, "conjunction") > 0
    assert inside.any()
    assert_array_equal(both[inside], z_of(maps, "conjunction")[inside])


@pytest.mark.parametrize("kept", [False, True])
def test_conjunction__saved_or_not(kept: bool, tmp_path: Path) -> None:
    first, second = (MAIN["ale"].fit(corpus, space=SPACE) for corpus in planted().pair)
    other = nd.open_result(nd.save_result(second, tmp_path / "two.zarr")) if kept else second
    common = nd.conjunction(first, other)
    wanted = reference.minimum_statistic(first["z"].values, second["z"].values)
    assert_array_equal(common["z"][0], wanted)
    opened = nd.open_result(nd.save_result(common, tmp_path / "common.zarr"))
    assert_same_maps(opened.compute(), common)
    (path,) = nd.to_nifti(opened, tmp_path / "images")
    assert path.name == "z_desc-conjunction.nii.gz"
    assert_array_equal(read_image(path)[SPACE.mask], wanted)
    last = steps(common)[-1]
    assert last["step"] == "conjunction" and last["settings"] == {"map": "z"}
    assert json.loads(last["other_provenance"])[-1]["step"] == "ALE"
    assert [step["step"] for step in steps(common)] == ["select", "ALE", "conjunction"]


def test_conjunction__of_features() -> None:
    maps = terms()
    names = maps["feature"].values.tolist()
    parts = [maps.sel(feature=[name]) for name in names]
    common = nd.conjunction(parts[0], parts[1], "z_desc-association")
    first, second = (find_map(maps, "z_desc-association", feature=name) for name in names)
    assert_array_equal(common["z"][0], reference.minimum_statistic(first, second))
    same = nd.conjunction(maps, maps, name="z", effect="association", feature=names[0])
    assert_array_equal(same["z"][0], first)
    assert steps(same)[-1]["settings"]["feature"] == names[0]
    with pytest.raises(nd.UnknownLabelError, match="one map for each feature; say feature="):
        nd.conjunction(maps, maps, name="z_desc-association")


def without(voxel: int) -> NDArray[np.bool_]:
    """The mask without one of its voxels."""
    mask = SPACE.mask.copy()
    mask[tuple(SPACE.voxel_ijk[voxel])] = False
    return mask


def test_conjunction__other_masks_are_refused() -> None:
    affine = SPACE.affine.copy()
    affine[0, 3] += 8
    spaces = [
        nd.Space("small", without(0), SPACE.affine),
        nd.Space("other voxels", without(-1), SPACE.affine),
        nd.Space("moved", without(0), affine),
        SPACE,
    ]
    maps, *others = (MAIN["chi2"].fit(planted().first, space=space) for space in spaces)
    n = SPACE.n_voxels
    for other, size in zip(others, (n - 1, n - 1, n), strict=True):
        with pytest.raises(nd.SchemaError) as raised:
            nd.conjunction(maps, other)
        assert str(raised.value) == (
            f"The two results have different masks ({n - 1} and {size} voxels); make both with "
            "the same space."
        )


def test_conjunction__another_reference_is_refused() -> None:
    talairach = nd.Space("small", SPACE.mask, SPACE.affine, "TAL")
    first, second = (
        MAIN["ale"].fit(corpus, space=space)
        for corpus, space in zip(planted().pair, (SPACE, talairach), strict=True)
    )
    with pytest.raises(nd.SchemaError):
        nd.conjunction(first, second)


def test_conjunction__of_p_is_refused() -> None:
    first, second = (MAIN["ale"].fit(corpus, space=SPACE) for corpus in planted().pair)
    with pytest.raises(nd.SettingsError):
        nd.conjunction(first, second, "p")


def test_conjunction__unknown_maps_and_other_datasets() -> None:
    single, pair = MAIN["ale"].fit(planted().first, space=SPACE), found("ale", "fdr")
    with pytest.raises(nd.UnknownLabelError, match=r"The result has no map 'zz'\. Did you mean z"):
        nd.conjunction(single, single, name="zz")
    with pytest.raises(nd.UnknownLabelError, match="'z_desc-contrast'"):
        nd.conjunction(pair, single, name="z_desc-contrast")
    with pytest.raises(nd.UnknownLabelError, match="one map for each effect; say effect="):
        nd.conjunction(pair, pair)
    with pytest.raises(nd.SchemaError, match="voxel_i"):
        nd.conjunction(planted().first, single)
