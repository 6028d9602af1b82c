"""Nulls of two groups and of all features that a correction refuses, and with what sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import nimare_dask as nd
from nimare_dask.errors import SchemaError
from nimare_dask.space import Space
from tests.group_pairs import ALE, CHI2, FWHM, Pair, R, featured, pair, run
from tests.groups import SPACE

WIDER = nd.MKDAChi2(kernel=nd.MKDAKernel(r=R + 1))
APART = "They do not belong together: one was made with"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def permuted(estimator: Any, groups: Pair, space: Space = SPACE) -> xr.Dataset:
    return nd.label_permutation_null(
        estimator, groups.first, groups.second, space=space, n_iters=1, voxel_thresh=None
    )


@pytest.fixture(scope="module")
def chi2() -> xr.Dataset:
    return CHI2.fit(pair().first, pair().second, space=SPACE)


@pytest.fixture(scope="module")
def ale() -> xr.Dataset:
    return ALE.fit(pair().first, pair().second, space=SPACE, n_iters=2, random_state=0)


@pytest.fixture(scope="module")
def features() -> xr.Dataset:
    return CHI2.fit_features(featured(), space=SPACE)


def test_null__of_another_kernel_is_refused(
    chi2: xr.Dataset, ale: xr.Dataset, features: xr.Dataset
) -> None:
    narrow = nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=FWHM - 1))
    sizes = features["n_selected"].values
    nulls = [
        (chi2, permuted(WIDER, pair()), f"{APART} r 16"),
        (ale, permuted(narrow, pair()), f"{APART} fwhm 23"),
        (features, run("features", 1, sizes=sizes, estimator=WIDER), f"{APART} r 16"),
    ]
    for maps, null, sentence in nulls:
        with pytest.raises(SchemaError, match=sentence):
            nd.correct_fwe(maps, null)


def test_null__of_another_estimator_is_refused(chi2: xr.Dataset, ale: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match=f"{APART} estimator MKDAChi2, the other with ALESubtrac"):
        nd.correct_fwe(ale, permuted(CHI2, pair()))
    with pytest.raises(SchemaError, match="is one of ALESubtraction, and the result has no map st"):
        nd.correct_fwe(chi2, permuted(ALE, pair()))
    one_group = nd.monte_carlo_null(
        nd.MKDADensity(), pair().first, space=SPACE, n_iters=1, voxel_thresh=None
    )
    with pytest.raises(SchemaError, match="is one of MKDADensity, and the result has no map stat"):
        nd.correct_fwe(chi2, one_group)
    with pytest.raises(SchemaError, match="is one of MKDADensity, and the result has no map stat"):
        nd.correct_fwe(ale, one_group)
    of_one = nd.MKDADensity().fit(pair().first, space=SPACE, null_method="fft")
    with pytest.raises(SchemaError, match="is one of MKDAChi2, and the result has no map z of tha"):
        nd.correct_fwe(of_one, permuted(CHI2, pair()))


@pytest.mark.parametrize("estimator", [CHI2, ALE])
def test_null__of_other_groups_is_refused(
    estimator: Any, chi2: xr.Dataset, ale: xr.Dataset
) -> None:
    maps = chi2 if estimator is CHI2 else ale
    for groups in (pair(18, 8), pair(18, 7, seed=1), pair().swapped):
        with pytest.raises(SchemaError, match=f"{APART} corpus "):
            nd.correct_fwe(maps, permuted(estimator, groups))
    mask = SPACE.mask.copy()
    mask[tuple(SPACE.voxel_ijk[7])] = False
    with pytest.raises(SchemaError, match=f"{APART} mask "):
        nd.correct_fwe(maps, permuted(estimator, pair(), Space("small", mask, SPACE.affine)))


def test_null__of_two_groups_is_none_of_features(chi2: xr.Dataset, features: xr.Dataset) -> None:
    with pytest.raises(SchemaError, match=f"{APART} corpus "):
        nd.correct_fwe(features, permuted(CHI2, pair()))
    with pytest.raises(SchemaError, match=f"{APART} corpus "):
        nd.correct_fwe(chi2, run("features", 1))


def test_null__without_a_size_or_effect_is_refused(features: xr.Dataset) -> None:
    missing = r"has no groups of 12 analyses \(and 1 other sizes .*feature_null\(corpus, sizes=map"
    with pytest.raises(SchemaError, match=missing):
        nd.correct_fwe(features, run("features", 1, sizes=[3, 7, 9]))
    null = run("features", 1, effects=["group2"])
    with pytest.raises(SchemaError, match="The null tests group2, and the result has uniformity, "):
        nd.correct_fwe(features, null)
    with pytest.raises(SchemaError, match="The null tests association, and the result has unifor"):
        nd.correct_fwe(features.sel(effect=["uniformity"]), run("features", 1))
    # Sizes that no feature has do not matter.
    more = run("features", 3, sizes=[1, 3, 4, 7, 9, 12, 15, 17])
    some = run("features", 3)
    one, other = (nd.correct_fwe(features, null)["p_fwe"].values for null in (more, some))
    np.testing.assert_array_equal(one, other)


def test_null__a_prior_does_not_matter(features: xr.Dataset) -> None:
    # It changes probabilities only, so a null serves fits of any.
    other = nd.MKDAChi2(kernel=CHI2.kernel, prior=0.1)
    maps = other.fit(pair().first, pair().second, space=SPACE)
    assert "p_fwe" in nd.correct_fwe(maps, permuted(CHI2, pair()))


def test_null__that_is_none(chi2: xr.Dataset, ale: xr.Dataset) -> None:
    null = permuted(ALE, pair())
    for other in (xr.Dataset(), chi2, null.drop_vars("null_max"), null.drop_attrs()):
        with pytest.raises(SchemaError, match="null has no null_max"):
            nd.correct_fwe(ale, other)
    with pytest.raises(SchemaError):
        nd.correct_fwe(null, null)
    for names in (["p"], ["z"]):
        with pytest.raises(SchemaError, match="and the result has no map stat of that"):
            nd.correct_fwe(ale[names], null)
