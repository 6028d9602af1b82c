"""Simulated corpora: exact sizes, repeatable, and with effects that an estimator finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from nimare_dask import corpus as nd_corpus
from nimare_dask.corpus import digest
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.provenance import steps
from nimare_dask.simulate import simulate_corpus
from nimare_dask.space import Space, mm_to_voxel, voxel_to_mm
from nimare_dask.wholeness import check
from tests.builders import coarse_space, small_space

SIZES: list[dict[str, Any]] = [
    {},
    {"n_foci": 60},
    {"n_foci": 61},
    {"n_foci": 60, "foci_per_effect": 20.0},
    {"n_foci": 90, "foci_per_effect": 5.0, "features_per_analysis": 10.0},
    {"n_foci": 5000, "foci_per_effect": 0.0},
    {"features_per_analysis": 0.0},
    {"features_per_analysis": 50.0},
    {"n_features": 1, "effects_per_feature": 1},
    {"n_features": 300, "effects_per_feature": 5},
]


def simulate(n_analyses: int = 60, **settings: Any) -> xr.Dataset:
    return simulate_corpus(n_analyses, **{"space": small_space(), **settings})


# sizes


@pytest.mark.parametrize("settings", SIZES, ids=str)
def test_simulate_corpus__sizes_are_exact(settings: dict[str, Any]) -> None:
    corpus = simulate(**settings)
    check(corpus)
    assert corpus.sizes["analysis"] == 60
    assert corpus.sizes["focus"] == settings.get("n_foci", 35 * 60)
    assert corpus.sizes["feature"] == settings.get("n_features", 10)
    assert corpus["analysis_n_foci"].values.min() >= 1
    n_truth = settings.get("n_features", 10) * settings.get("effects_per_feature", 2)
    assert corpus["truth_xyz"].shape == (n_truth, 3)


def test_simulate_corpus__one_analysis_with_one_focus() -> None:
    corpus = simulate(1, n_foci=1)
    assert (corpus.sizes["analysis"], corpus.sizes["focus"]) == (1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_simulate_corpus__each_analysis_has_a_focus_when_there_are_just_enough(seed: int) -> None:
    settings: dict[str, Any] = {"foci_per_effect": 3.0, "features_per_analysis": 2.0}
    assert (
        simulate(n_foci=60, random_state=seed, **settings)["analysis_n_foci"].values.tolist()
        == [1] * 60
    )


@pytest.mark.parametrize(
    ("n_analyses", "n_foci"), [(120_000, 900_000), (120_000, 120_000), (14_371, 507_891)]
)
def test_simulate_corpus__size_of_a_literature(n_analyses: int, n_foci: int) -> None:
    corpus = simulate_corpus(n_analyses, n_foci=n_foci, space="mni152_2mm")
    assert corpus.sizes["analysis"] == n_analyses
    assert corpus.sizes["focus"] == n_foci
    assert corpus["analysis_n_foci"].values.min() >= 1
    assert int(corpus["analysis_n_foci"].values.sum()) == n_foci


def test_simulate_corpus__features_per_analysis_on_average() -> None:
    corpus = simulate(5000, n_foci=20_000, n_features=20, features_per_analysis=3.0)
    # 100,000 draws of 0.15: the standard deviation of the mean is 0.023.
    assert abs(corpus.sizes["weight"] / 5000 - 3.0) < 0.12
    assert corpus["weight_value"].values.min() > 0.001


def test_simulate_corpus__features_and_ids() -> None:
    corpus = simulate(12, n_features=3)
    assert corpus["feature"].values.tolist() == [f"simulated__00{i}" for i in range(3)]
    assert corpus["analysis_id"].values.tolist()[11] == "simulated000011-1"
    assert corpus["study_id"].values.tolist()[11] == "simulated000011"


@pytest.mark.parametrize("reference", ["MNI", "TAL"])
def test_simulate_corpus__foci_are_of_the_space(reference: Any) -> None:
    corpus = simulate(space=small_space(reference))
    assert corpus.attrs["spaces"] == [reference]
    assert not corpus["focus_space"].values.any()


def test_simulate_corpus__foci_without_signal_lie_in_the_mask() -> None:
    space = small_space()
    corpus = simulate(features_per_analysis=0.0, space=space)
    voxels = mm_to_voxel(corpus["focus_xyz"].values, space.affine)
    assert space.mask[tuple(voxels.T)].all()


# seeds


def test_simulate_corpus__same_seed_same_corpus() -> None:
    first, again = simulate(random_state=7), simulate(random_state=7)
    xr.testing.assert_identical(first, again)
    assert digest(first) == digest(again)


def test_simulate_corpus__another_seed_another_corpus() -> None:
    digests = {digest(simulate(random_state=seed)) for seed in range(4)}
    assert len(digests) == 4


def test_simulate_corpus__does_not_touch_the_random_state_of_numpy() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    simulate()
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002


# the truth


def test_simulate_corpus__records_the_truth() -> None:
    space = coarse_space()
    corpus = simulate_corpus(20, n_features=4, effects_per_feature=3, space=space)
    truth = corpus["truth_xyz"].values
    assert_array_equal(corpus["truth_feature"].values, np.repeat(np.arange(4), 3))
    voxels = mm_to_voxel(truth, space.affine)
    assert space.mask[tuple(voxels.T)].all()
    assert_array_equal(voxel_to_mm(voxels, space.affine), truth)
    apart = np.linalg.norm(truth[:, None] - truth[None], axis=2)[~np.eye(12, dtype=bool)]
    assert apart.min() >= 20.0


def test_simulate_corpus__foci_of_an_effect_lie_around_it() -> None:
    corpus = simulate_corpus(
        2000,
        n_foci=12_000,
        n_features=1,
        effects_per_feature=1,
        features_per_analysis=1.0,
        foci_per_effect=5.0,
        spread=3.0,
        space=coarse_space(),
    )
    away = corpus["focus_xyz"].values - corpus["truth_xyz"].values
    near = away[np.linalg.norm(away, axis=1) < 12.0]
    # 10,000 of 12,000 foci are of the effect; rounding to whole mm adds 1/12 to their variance.
    assert abs(len(near) - 10_000) < 400
    assert np.abs(near.mean(axis=0)).max() < 0.15
    assert np.abs(near.std(axis=0) - np.sqrt(9 + 1 / 12)).max() < 0.2


def test_simulate_corpus__only_analyses_with_the_feature_have_its_foci() -> None:
    corpus = simulate_corpus(
        400, n_foci=4000, n_features=2, foci_per_effect=4.0, spread=1.0, space=coarse_space()
    )
    weights = nd_corpus.weights_of(corpus).toarray() > 0
    owner = nd_corpus.analysis_of_focus(corpus)
    places = zip(corpus["truth_xyz"].values, corpus["truth_feature"].values, strict=True)
    for place, feature in places:
        near = np.linalg.norm(corpus["focus_xyz"].values - place, axis=1) < 4.0
        assert near.sum() > 100
        assert weights[owner[near], feature].mean() > 0.99


def test_simulate_corpus__provenance_is_how_to_make_it_again() -> None:
    space = small_space()
    corpus = simulate(30, n_features=2, spread=2.5, random_state=5, space=space)
    (step,) = steps(corpus)
    assert step["step"] == "simulate_corpus"
    assert step["settings"]["space"] == "small"
    again = simulate_corpus(**{**step["settings"], "space": space})
    xr.testing.assert_identical(again, corpus)


def test_simulate_corpus__takes_numbers_of_numpy() -> None:
    numbers: dict[str, Any] = {"n_analyses": np.int64(20), "n_foci": np.int32(50)}
    corpus = simulate(**numbers, spread=np.float32(4.0))
    assert corpus.sizes["focus"] == 50
    assert steps(corpus)[0]["settings"]["n_analyses"] == 20


def nearest_truth(corpus: xr.Dataset, feature: int, place: np.ndarray[Any, Any]) -> float:
    """Distance in mm from a place to the nearest planted effect of a feature."""
    truth = corpus["truth_xyz"].values[corpus["truth_feature"].values == feature]
    return float(np.linalg.norm(truth - place, axis=1).min())


def peaks(corpus: xr.Dataset, space: Space) -> np.ndarray[Any, Any]:
    """Where the association z of each feature is largest, in mm, (feature, 3)."""
    maps = MKDAChi2().fit_features(corpus, space=space)
    z = maps["z"].sel(effect="association").transpose("feature", "voxel").values
    return voxel_to_mm(space.voxel_ijk[z.argmax(axis=1)], space.affine)


def test_simulate_corpus__planted_effects_are_found() -> None:
    space = coarse_space()
    corpus = simulate_corpus(2000, n_features=8, space=space, random_state=11)
    found = peaks(corpus, space)
    distances = [nearest_truth(corpus, feature, found[feature]) for feature in range(8)]
    assert max(distances) <= 10.0, distances
    # The effects of the other features are elsewhere.
    elsewhere = [nearest_truth(corpus, (feature + 1) % 8, found[feature]) for feature in range(8)]
    assert min(elsewhere) > 10.0, elsewhere


# settings that cannot be


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_analyses": 0}, r"n_analyses.* 0"),
        ({"n_analyses": -5}, r"n_analyses.* -5"),
        ({"n_features": 0}, r"n_features.* 0"),
        ({"effects_per_feature": 0}, r"effects_per_feature.* 0"),
        ({"n_foci": 59}, r"n_foci is 59 for 60 analyses; each analysis needs at least one"),
        ({"n_foci": 0}, r"n_foci is 0"),
        ({"features_per_analysis": -1.0}, r"features_per_analysis.* -1"),
        ({"features_per_analysis": float("nan")}, r"features_per_analysis.* nan"),
        ({"foci_per_effect": -1.0}, r"foci_per_effect.* -1"),
        ({"foci_per_effect": float("nan")}, r"foci_per_effect.* nan"),
        ({"spread": -1.0}, r"spread.* -1"),
        ({"spread": float("nan")}, r"spread.* nan"),
        ({"spread": float("inf")}, r"spread.* inf"),
        ({"random_state": -1}, r"random_state.* -1"),
        ({"space": "mni152_9mm"}, r"mni152_9mm.*mni152_2mm"),
    ],
    ids=str,
)
def test_simulate_corpus__settings_that_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        simulate(**settings)
