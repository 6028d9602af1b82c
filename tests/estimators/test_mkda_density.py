"""MKDA density of analyses that count differently, against the slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.mkda_density import MKDADensity, StudyWeights
from nimare_dask.footprint import MKDAKernel
from tests import slow
from tests.groups import SPACE, group, with_foci
from tests.reference import nulls


def discounts(corpus: xr.Dataset) -> list[float]:
    return [nulls.inference_discount(kind) for kind in corpus["analysis_inference"].values.tolist()]


def raw_mapping(corpus: xr.Dataset) -> dict[str, float]:
    return {name: 1.0 + place for place, name in enumerate(corpus["analysis_id"].values.tolist())}


def expected_weights(name: str, corpus: xr.Dataset) -> NDArray[np.float64]:
    sizes = corpus["analysis_sample_size"].values.tolist()
    if name == "linear, discounted":
        return nulls.study_weights(sizes, "linear", discounts(corpus))
    if name == "none, discounted":
        return nulls.study_weights(sizes, "none", discounts(corpus))
    if name == "mapping":
        mapped = raw_mapping(group(4))
        raw = np.array([mapped[name] for name in corpus["analysis_id"].values.tolist()])
        return len(raw) * raw / raw.sum()
    return nulls.study_weights(sizes, "linear" if name == "linear" else "sqrt")


WEIGHTINGS: dict[str, Any] = {
    "sample_size": "sample_size",
    "sqrt": StudyWeights(),
    "linear": StudyWeights(transform="linear"),
    "linear, discounted": StudyWeights(transform="linear", inference_field="analysis_inference"),
    "none, discounted": StudyWeights(transform="none", inference_field="analysis_inference"),
    "mapping": raw_mapping(group(4)),
}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_mkda_density__weighted_equals_reference(name: str) -> None:
    corpus = group(4)
    some = with_foci(corpus)
    weights = expected_weights(name, some)
    assert_allclose(weights.sum(), len(weights))
    estimator = MKDADensity(
        kernel=MKDAKernel(r=14), weighting=WEIGHTINGS[name], n_histogram_bins=1237
    )
    assert_allclose(estimator.weights(some), weights, rtol=1e-14)
    volumes = slow.mkda_volumes(some, SPACE, 14)
    found = estimator.fit(corpus, space=SPACE)
    slow.check(found, slow.fit_weighted_mkda(volumes, weights, 1237, SPACE), near=1e-6)


def test_mkda_density__weighted_default_bins() -> None:
    corpus = group(5, 6)
    some = with_foci(corpus)
    weights = expected_weights("sqrt", some)
    volumes = slow.mkda_volumes(some, SPACE, 14)
    found = MKDADensity(kernel=MKDAKernel(r=14), weighting="sample_size").fit(corpus, space=SPACE)
    slow.check(found, slow.fit_weighted_mkda(volumes, weights, 100_000, SPACE), near=1e-6)


# weights


@pytest.mark.parametrize("weighting", [None, "uniform", StudyWeights(transform="none")])
def test_weights__equal_ones_are_counts(weighting: Any) -> None:
    corpus = group(6)
    found = MKDADensity(kernel=MKDAKernel(r=14), weighting=weighting).fit(corpus, space=SPACE)
    plain = MKDADensity(kernel=MKDAKernel(r=14)).fit(corpus, space=SPACE)
    for name in ("stat", "p", "null_weight"):
        assert_array_equal(found[name], plain[name])
    assert found.sizes["bin"] == with_foci(corpus).sizes["analysis"] + 1


def test_weights__equal_sample_sizes_and_equal_mapping_are_counts() -> None:
    corpus = group(6).assign(analysis_sample_size=("analysis", np.full(9, 17.0)))
    equal = dict.fromkeys(corpus["analysis_id"].values.tolist(), 0.3)
    for weighting in ("sample_size", equal):
        assert_array_equal(MKDADensity(weighting=weighting).weights(corpus), np.ones(9))


def test_weights__missing_sample_sizes_have_the_mean_weight_of_the_others() -> None:
    sizes = np.array([4.0, np.nan, 16, 9, 0, 25, 4, 4, 4])
    corpus = group(7).assign(analysis_sample_size=("analysis", sizes))
    raw = StudyWeights(on_missing="impute").raw(corpus)
    assert_allclose(raw, [2, 20 / 7, 4, 3, 20 / 7, 5, 2, 2, 2], rtol=1e-14)
    found = MKDADensity(weighting=StudyWeights(on_missing="impute")).weights(corpus)
    assert_allclose(found, 9 * raw / raw.sum(), rtol=1e-14)
    with pytest.raises(SchemaError, match=r"2 of 9 analyses .*on_missing='impute'"):
        MKDADensity(weighting="sample_size").weights(corpus)


def test_weights__none_known_cannot_be_imputed() -> None:
    corpus = group(7).drop_vars("analysis_sample_size")
    with pytest.raises(SchemaError, match="None of 9 analyses has a sample size"):
        StudyWeights(on_missing="impute").raw(corpus)
    assert_array_equal(StudyWeights(transform="none").raw(corpus), np.ones(9))


def test_weights__inference_discount() -> None:
    kinds = [
        "fixed",
        "FFX",
        "Fixed-Effects",
        "fixed effects",
        " FE ",
        "random",
        "",
        "rfx",
        "fixedly",
    ]
    corpus = group(7).assign(kind=("analysis", np.array(kinds)))
    weights = StudyWeights(transform="none", inference_field="kind", fixed_effects_discount=0.5)
    assert_array_equal(weights.raw(corpus), [0.5] * 5 + [1] * 4)
    with pytest.raises(SchemaError, match="no variable 'other'"):
        StudyWeights(transform="none", inference_field="other").raw(corpus)


def test_weights__mapping_must_have_every_analysis() -> None:
    corpus = group(7)
    weights = raw_mapping(corpus) | {"study0001-1": 0.0}
    del weights["study0002-1"]
    with pytest.raises(SettingsError, match=r"2 of 9 analyses .*study0001-1, study0002-1"):
        MKDADensity(weighting=weights).weights(corpus)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"transform": "log"}, "expected 'sqrt', 'linear' or 'none'"),
        ({"on_missing": "drop"}, "expected 'raise' or 'impute'"),
        ({"fixed_effects_discount": 0}, "above 0 and up to 1"),
        ({"fixed_effects_discount": 1.5}, "above 0 and up to 1"),
    ],
)
def test_study_weights__settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        StudyWeights(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weighting": "size"}, "weighting is 'size'"),
        ({"weighting": 3}, "weighting is 3"),
        ({"n_histogram_bins": 10}, "expected at least 100"),
    ],
)
def test_mkda_density__settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        MKDADensity(**settings)
