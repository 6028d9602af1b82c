"""The MKDA chi-square behind inference maps: each group is asked about only where it is active."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask.parallel import shapes
from nimare_dask.provenance import steps
from nimare_dask.results import find_map, map_keys
from tests.foci import make_corpus, make_space, reference_active
from tests.groups import SPACE
from tests.planted import planted
from tests.reference import pvalues
from tests.reference import two_groups as reference
from tests.slow import FLOAT32

R = 12.0
ESTIMATOR = nd.MKDAChi2(kernel=nd.MKDAKernel(r=R))
N = SPACE.n_voxels
ONES, ZEROS = np.ones(N), np.zeros(N)
#: What a voxel is that is not asked about.
NOTHING = {"z": 0, "chi2": 0, "p": 1, "logp": 0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def fit(first: Any = None, second: Any = None, **settings: Any) -> xr.Dataset:
    """The planted groups, compared behind two inference maps."""
    return ESTIMATOR.fit(
        *planted().pair, space=SPACE, inference_map1=first, inference_map2=second, **settings
    )


@cache
def plain() -> xr.Dataset:
    with dask.config.set(scheduler="synchronous"):
        return fit()


def drawn_maps(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inference maps with values of either sign, zeros and NaN, which overlap here and there."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, N)).astype(np.float32)
    for values in (first, second):
        values[rng.permutation(N)[:40]] = 0
        values[rng.permutation(N)[:40]] = np.nan
    return first, second


def of_association(maps: xr.Dataset) -> dict[str, NDArray[np.float32]]:
    return {name: maps[name].sel(effect="association").values for name in NOTHING}


# by hand, and against the reference


def test_fit__hand_computed() -> None:
    # A line of seven voxels; of 3 and 3 analyses 3 2 0 0 2 0 0 and 0 0 0 1 0 2 3 are active.
    line = make_space((1, 1, 7), seed=None)
    first = make_corpus(
        [[[0, 0, -6], [0, 0, -4], [0, 0, 2]], [[0, 0, -6], [0, 0, -4], [0, 0, 2]], [[0, 0, -6]]],
        prefix="first",
    )
    second = make_corpus(
        [[[0, 0, 6], [0, 0, 4], [0, 0, 0]], [[0, 0, 6], [0, 0, 4]], [[0, 0, 6]]], prefix="second"
    )
    maps = nd.MKDAChi2(kernel=nd.MKDAKernel(r=1)).fit(
        *(first, second),
        space=line,
        inference_map1=[1, 0, 1, 1, 0.1, 1, 0],
        inference_map2=[1, 1, 1, 1, -1, 1, 1],
    )
    assert_array_equal(maps["n_active"], [3, 2, 0, 1, 2, 2, 3])
    # 6 (a 3 - b 3)^2 / ((a + b) (6 - a - b) 9): 6, 3, -, 1.2, 3, 3, 6. At the first voxel group 1
    # is higher and active, at the second it is not active; at the fourth and the last two group 2
    # is higher and active, at the fifth group 1 is.
    wanted = np.array([6, 0, 0, 1.2, 3, 3, 6])
    found = of_association(maps)
    assert_allclose(found["chi2"], wanted, rtol=FLOAT32)
    sign = [1, 0, 0, -1, 1, -1, -1]
    assert_allclose(found["z"], np.sqrt(wanted) * sign, rtol=FLOAT32)
    # Two-sided, as chi-square is: erfc(sqrt(chi2 / 2)); 1 where nothing is asked.
    p = [0.014305878, 1, 1, 0.273321678, 0.083264517, 0.083264517, 0.014305878]
    assert_allclose(found["p"], p, rtol=1e-7)
    assert_allclose(found["logp"], np.abs(np.log10(p)), rtol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_fit__equals_reference(seed: int) -> None:
    groups, (first, second) = planted(seed=seed), drawn_maps(seed)
    active = reference_active(groups.pooled, SPACE, R)
    ones, twos = active[groups.member], active[~groups.member]
    counts = ones.sum(axis=0), twos.sum(axis=0)
    chi2, sign = reference.association_chi2(counts[0], counts[1], len(ones), len(twos))
    kept = (sign > 0) & (first > 0) | (sign < 0) & (second > 0)
    assert 20 < kept.sum() < N // 2 and (sign[kept] > 0).any() and (sign[kept] < 0).any()
    nlogp = pvalues.chi2_to_nlogp(np.where(kept, chi2, 0))
    wanted = {
        "chi2": np.where(kept, chi2, 0),
        "z": np.where(kept, np.sqrt(chi2) * sign, 0),
        "p": np.exp(nlogp),
        "logp": -nlogp / np.log(10),
    }
    maps = ESTIMATOR.fit(*groups.pair, space=SPACE, inference_map1=first, inference_map2=second)
    for name, values in of_association(maps).items():
        assert_allclose(values, wanted[name], rtol=FLOAT32, err_msg=name)


# what counts


def test_fit__only_association_is_behind_the_maps() -> None:
    maps = fit(*drawn_maps())
    assert [key.name for key in map_keys(maps)] == [key.name for key in map_keys(plain())]
    changed = {f"{name}_desc-association" for name in NOTHING}
    for key in map_keys(maps):
        same = np.array_equal(find_map(maps, key.name), find_map(plain(), key.name), equal_nan=True)
        assert same == (key.name not in changed), key.name
    assert_array_equal(maps["n_active"], plain()["n_active"])


def test_fit__everywhere_changes_nothing_but_where_groups_are_alike() -> None:
    found, wanted = of_association(fit(ONES, ONES)), of_association(plain())
    alike = wanted["z"] == 0
    assert alike.any() and not alike.all()
    for name, nothing in NOTHING.items():
        assert_array_equal(found[name], np.where(alike, nothing, wanted[name]), err_msg=name)


@pytest.mark.parametrize(("first", "second", "sign"), [(ONES, ZEROS, 1), (ZEROS, ONES, -1)])
def test_fit__one_group_active_is_one_sided(first: Any, second: Any, sign: int) -> None:
    found, wanted = of_association(fit(first, second)), of_association(plain())
    kept = wanted["z"] * sign > 0
    assert (wanted["z"] * sign < 0).any()
    for name, nothing in NOTHING.items():
        assert_array_equal(found[name], np.where(kept, wanted[name], nothing), err_msg=name)


def test_fit__values_above_zero_count_of_any_type() -> None:
    first, second = drawn_maps()
    wanted = fit(first, second)
    with np.errstate(invalid="ignore"):
        others: list[Any] = [
            (first > 0, second > 0),
            ((first > 0).tolist(), (second > 0).astype(int)),
            (np.where(first > 0, 1e-30, -1e30), np.where(second > 0, np.inf, np.nan)),
            (xr.DataArray(first, dims="voxel"), second.astype(float)),
        ]
    for pair in others:
        xr.testing.assert_identical(fit(*pair), wanted)


def test_fit__inputs_stay_as_they_are() -> None:
    first, second = drawn_maps()
    before = first.copy(), second.copy()
    fit(first, second)
    assert_array_equal(first, before[0])
    assert_array_equal(second, before[1])


def test_fit__swapped_groups_and_maps_give_the_opposite() -> None:
    first, second = drawn_maps()
    found = of_association(fit(first, second))
    groups = planted().pair[::-1]
    other = of_association(
        ESTIMATOR.fit(*groups, space=SPACE, inference_map1=second, inference_map2=first)
    )
    assert_array_equal(other["z"], -found["z"])
    for name in ("chi2", "p", "logp"):
        assert_array_equal(other[name], found[name], err_msg=name)


@pytest.mark.parametrize("chunk", [1, 17, 4096])
def test_fit__same_bits_in_any_blocks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = fit(*drawn_maps())
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", chunk)
    xr.testing.assert_identical(fit(*drawn_maps()), wanted)


def test_fit__provenance_tells_whether_it_is_directional() -> None:
    for maps, told in ((plain(), False), (fit(ONES, ZEROS), True)):
        assert steps(maps)[-1]["directional"] is told


# corrections


def test_fit__bonferroni_is_that_of_its_p() -> None:
    maps = nd.correct_bonferroni(fit(*drawn_maps()))
    nlogp = np.log(maps["p"].sel(effect="association").values.astype(float))
    wanted = np.exp(pvalues.bonferroni(nlogp))
    found = maps["p_bonferroni"].sel(effect="association")
    assert (wanted < 1).any()
    # p is rounded to float32, and so is z, whose square it comes from.
    assert_allclose(found, wanted, rtol=1e-5)


def test_fit__fdr_is_that_of_its_p() -> None:
    pair, estimator = planted().pair, nd.MKDAChi2(kernel=nd.MKDAKernel(r=8))
    # Where nobody is active, chi-square is 2 without inference maps, and 0 with them.
    maps = nd.correct_fdr(
        estimator.fit(*pair, space=SPACE, inference_map1=ONES, inference_map2=ZEROS)
    )
    assert (maps["n_active"] == 0).any()
    nlogp = np.log(maps["p"].sel(effect="association").values.astype(float))
    wanted = np.exp(pvalues.fdr(nlogp, "indep"))
    assert_allclose(maps["p_fdr_indep"].sel(effect="association"), wanted, rtol=1e-5)


def test_fit__fwe_is_that_of_the_plain_fit_where_it_is_asked() -> None:
    null = nd.label_permutation_null(
        ESTIMATOR, *planted().pair, space=SPACE, n_iters=20, random_state=1
    )
    maps = [nd.correct_fwe(each, null) for each in (fit(*drawn_maps()), plain())]
    found, wanted = (each.sel(effect="association", inference="voxel") for each in maps)
    kept = found["z"].values != 0
    assert (wanted["p_fwe"].values[kept] < 1).any() and (wanted["z_fwe"].values[~kept] != 0).any()
    for name, nothing in (("z_fwe", 0), ("p_fwe", 1), ("logp_fwe", 0)):
        assert_array_equal(found[name], np.where(kept, wanted[name], nothing), err_msg=name)


# refusals


@pytest.mark.parametrize("given", [(ONES, None), (None, ONES)])
def test_fit__one_map_without_the_other(given: Any) -> None:
    with pytest.raises(nd.SettingsError) as raised:
        fit(*given)
    assert str(raised.value) == "One inference map is given; expected both, or none."


@pytest.mark.parametrize(
    ("given", "name", "shape"),
    [
        ((ONES[1:], ONES), "inference_map1", "(499,)"),
        ((ONES, ONES[None]), "inference_map2", "(1, 500)"),
        ((SPACE.mask, ONES), "inference_map1", "(13, 14, 12)"),
        ((ONES, 1.0), "inference_map2", "()"),
    ],
)
def test_fit__maps_of_another_shape(given: Any, name: str, shape: str) -> None:
    with pytest.raises(nd.SchemaError) as raised:
        fit(*given)
    assert str(raised.value) == (
        f"{name} has shape {shape}; expected (500,), a value for each voxel of {SPACE}."
    )


@pytest.mark.parametrize("values", [ZEROS, -ONES, np.full(N, np.nan), np.zeros(N, bool)])
def test_fit__nothing_active(values: Any) -> None:
    with pytest.raises(nd.SettingsError, match="No voxel of either inference map is above 0, so"):
        fit(values, values)


def test_fit__maps_are_looked_at_first() -> None:
    first, _ = planted().pair
    with pytest.raises(nd.SettingsError, match="inference map"):
        ESTIMATOR.fit(first, first, space=SPACE, inference_map1=ONES)
