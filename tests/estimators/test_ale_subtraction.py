"""ALE subtraction: maps from counts of shuffles, against the slow reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask import results
from nimare_dask.errors import SchemaError, SelectionError, SettingsError
from nimare_dask.nulls.stored import job_of
from nimare_dask.provenance import steps
from nimare_dask.space import Space
from tests.foci import make_corpus
from tests.group_pairs import (
    ALE,
    CHI2,
    FWHM,
    Pair,
    difference_error,
    pair,
    run,
    sum_error,
)
from tests.groups import SPACE
from tests.reference import two_groups as reference
from tests.reference.pvalues import p_to_z

EFFECT = "group1MinusGroup2"
N = 40
#: A rounding to float32, after a few of float64.
FLOAT32 = 2.0**-24 + 2.0**-40
SIZES = [(18, 7), (18, 12), (18, 1), (5, 2), (2, 1)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def fit(groups: Pair, **settings: Any) -> xr.Dataset:
    given = {"space": SPACE, "n_iters": N, "random_state": 3, **settings}
    return ALE.fit(groups.first, groups.second, **given)


def shuffled(groups: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Differences of the same shuffles (iteration, voxel), the observed, and voxels that are sure.

    A voxel is not where a difference is within rounding of the observed, but not equal to it.
    """
    job = groups.subtraction(seed=3)
    chosen = np.array([job.chosen(iteration) for iteration in range(N)])
    differences = reference.subtraction_permutations(groups.activation, chosen)
    observed = reference.subtraction_difference(groups.activation, groups.rows)
    close = np.abs(differences - observed) <= 2 * sum_error(job, groups.activation)
    near = (close & (differences != observed)).any(axis=0)
    assert near.sum() <= 25, "of 500 voxels"
    return differences, observed, ~near


# against the reference


@pytest.mark.parametrize(("n", "n_first"), SIZES)
def test_fit__equals_reference(n: int, n_first: int) -> None:
    groups = pair(n, n_first, effect=True)
    found = fit(groups)
    differences, observed, sure = shuffled(groups)
    maps = found.sel(effect=EFFECT)
    error = difference_error(groups.subtraction(), groups.activation)
    assert (np.abs(maps["stat"].values - observed) <= error).all()
    p, z = reference.subtraction_p_z(observed, differences)
    expected = {"p": p, "z": z, "logp": np.abs(np.log10(p))}
    for name, values in expected.items():
        assert maps[name].dtype == np.float32
        assert_allclose(maps[name].values[sure], values[sure], rtol=FLOAT32, atol=0, err_msg=name)
    assert n < 18 or (p < 0.2).any(), "the case must have an effect"
    assert p.min() >= 1 / N and p.max() <= 1


@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12)])
def test_fit__p_and_z_are_those_of_the_counts(n: int, n_first: int) -> None:
    groups = pair(n, n_first)
    null = nd.label_permutation_null(
        ALE, groups.first, groups.second, space=SPACE, n_iters=N, random_state=3
    )
    up, low = null["null_up"].values, null["null_low"].values
    p = np.clip(2 * np.minimum(up, low) / N, 1 / N, 1)
    found = fit(groups, null=null)
    assert_allclose(found["p"].sel(effect=EFFECT), p, rtol=FLOAT32, atol=0)
    z = p_to_z(p, "two") * np.sign(low - up)
    assert_allclose(found["z"].sel(effect=EFFECT), z, rtol=FLOAT32, atol=0)
    for name in ("stat", "p", "z", "logp"):
        assert_array_equal(found[name], fit(groups)[name], err_msg="a null of its own")


@pytest.mark.parametrize("kernel", [nd.ALEKernel(fwhm=FWHM), nd.ALEKernel(), nd.ALEKernel(fwhm=9)])
def test_fit__maps_of_the_groups_are_those_of_ale(kernel: nd.ALEKernel) -> None:
    groups = pair()
    found = nd.ALESubtraction(kernel=kernel).fit(
        groups.first, groups.second, space=SPACE, n_iters=2, random_state=0
    )
    assert found["effect"].values.tolist() == [EFFECT, "group1", "group2"]
    for effect, corpus in (("group1", groups.first), ("group2", groups.second)):
        own = nd.ALE(kernel=kernel).fit(corpus, space=SPACE)
        for name in ("stat", "p", "z", "logp"):
            assert found[name].dims == ("effect", "voxel")
            assert_array_equal(found[name].sel(effect=effect), own[name], err_msg=name)
    # The difference has units that fit all analyses together, the maps of a group finer ones; and
    # each is rounded to float32.
    ones, twos = (
        found["stat"].sel(effect=name).values.astype(float) for name in ("group1", "group2")
    )
    job = nd.ALESubtraction(kernel=kernel).permutation_job(
        groups.pooled, random_state=0, voxel_thresh=None, stat_thresh=1.0
    )
    error = 2.0**-23 * (ones + twos) + 18 / job.statistic.scale
    assert (np.abs(found["stat"].sel(effect=EFFECT).values - (ones - twos)) <= error).all()


def test_fit__hand_computed() -> None:
    # One analysis each, far from each other: two divisions, the observed and its mirror image.
    one, other = (make_corpus([[[x, 0, 0]]], prefix=f"x{x}") for x in (-40, 40))
    found = ALE.fit(one, other, space=SPACE, n_iters=50, random_state=1)
    stat, p = found["stat"].sel(effect=EFFECT).values, found["p"].sel(effect=EFFECT).values
    null = nd.label_permutation_null(ALE, one, other, space=SPACE, n_iters=50, random_state=1)
    job: Any = job_of(null)
    same = sum(bool((job.chosen(iteration) == [0]).all()) for iteration in range(50))
    assert 10 < same < 40
    # Where the difference is positive it is reached by the observed division only.
    few = np.where(stat > 0, same, np.where(stat < 0, same, 50))
    assert_allclose(p, np.minimum(2 * few / 50, 1), rtol=FLOAT32)
    assert (stat > 0).any() and (stat < 0).any() and (stat == 0).any()


# mirror images


@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (18, 1), (5, 2)])
def test_fit__swapped_groups_have_the_other_sign(n: int, n_first: int) -> None:
    # Groups of different size: the same analyses are drawn as the smaller one.
    groups = pair(n, n_first, effect=True)
    one, other = fit(groups), fit(groups.swapped)
    for name in ("stat", "z"):
        values = one[name].sel(effect=EFFECT).values
        assert_array_equal(other[name].sel(effect=EFFECT), -values, err_msg=name)
    for name in ("p", "logp"):
        assert_array_equal(other[name].sel(effect=EFFECT), one[name].sel(effect=EFFECT))
    for name in ("stat", "p", "z", "logp"):
        assert_array_equal(other[name].sel(effect="group1"), one[name].sel(effect="group2"))
        assert_array_equal(other[name].sel(effect="group2"), one[name].sel(effect="group1"))


def test_fit__swapped_groups_of_one_size_have_the_other_statistic() -> None:
    # Who is drawn is group 1, so shuffles are others.
    groups = pair(18, 9)
    one, other = fit(groups), fit(groups.swapped)
    assert_array_equal(other["stat"].sel(effect=EFFECT), -one["stat"].sel(effect=EFFECT))


def test_fit__groups_with_the_same_foci_do_not_differ() -> None:
    parts = [[[0.0, 0, 0], [16, 8, 0]], [[-24.0, 0, 8]], [[0.0, 0, 8]]]
    one, other = (make_corpus(parts, prefix=name) for name in ("one", "two"))
    found = ALE.fit(one, other, space=SPACE, n_iters=30, random_state=0).sel(effect=EFFECT)
    assert (found["stat"] == 0).all()
    null = nd.label_permutation_null(
        ALE, one, other, space=SPACE, n_iters=30, random_state=0, voxel_thresh=None
    )
    ups, lows = null["null_up"].values, null["null_low"].values
    assert (ups + lows >= 30).all() and (ups + lows > 30).any(), "ties count for both"
    p = np.clip(2 * np.minimum(ups, lows) / 30, 1 / 30, 1)
    assert_allclose(found["p"], p, rtol=FLOAT32)
    same = make_corpus(parts[:1] * 3, prefix="same"), make_corpus(parts[:1] * 2, prefix="others")
    alike = ALE.fit(*same, space=SPACE, n_iters=9, random_state=0)
    assert (alike["stat"].sel(effect=EFFECT) > 0).any(), "three analyses are more than two"
    assert (alike["p"].sel(effect=EFFECT) == 1).all()
    assert (alike["z"].sel(effect=EFFECT) == 0).all()


def test_fit__analyses_without_foci_and_their_order_do_not_matter() -> None:
    groups = pair()
    some = [
        nd.select(part, part["analysis_n_foci"].values > 0)
        for part in (groups.first, groups.second)
    ]
    without = ALE.fit(*some, space=SPACE, n_iters=N, random_state=3)
    for name in ("stat", "p", "z", "logp"):
        assert_array_equal(without[name], fit(groups)[name])


# where each group is active


def gates(groups: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Maps that overlap, with values of either sign and none."""
    rng = np.random.default_rng(1)
    one, other = rng.normal(0.3, 1, (2, SPACE.n_voxels))
    one[:40] = other[20:60] = 0
    return one, np.where(rng.uniform(size=len(other)) < 0.1, np.nan, other)


@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (2, 1)])
def test_inference_maps__equal_reference(n: int, n_first: int) -> None:
    groups = pair(n, n_first, effect=True)
    one, other = gates(groups)
    found = fit(groups, inference_map1=one, inference_map2=other)
    differences, observed, sure = shuffled(groups)
    p, z = reference.subtraction_inference_p_z(observed, differences, one > 0, other > 0)
    # The sign of a difference that is rounding of nothing is not sure.
    tiny = np.abs(observed) <= difference_error(groups.subtraction(), groups.activation)
    sure = sure & ~(tiny & (observed != 0))
    assert (~sure).sum() <= 30
    maps = found.sel(effect=EFFECT)
    for name, values in (("p", p), ("z", z), ("logp", np.abs(np.log10(p)))):
        assert_allclose(maps[name].values[sure], values[sure], rtol=FLOAT32, atol=0, err_msg=name)
    closed = ~(((one > 0) & (observed > 0)) | ((other > 0) & (observed < 0)))
    assert closed.any() and (~closed).any()
    assert (maps["p"].values[closed] == 1).all() and (maps["z"].values[closed] == 0).all()
    # Only the test is another: the statistic and the maps of the groups are as they were.
    plain = fit(groups)
    assert_array_equal(found["stat"], plain["stat"])
    for name in ("p", "z", "logp"):
        assert_array_equal(found[name][1:], plain[name][1:])
    assert steps(found)[-1]["settings"]["directional"] is True
    assert steps(plain)[-1]["settings"]["directional"] is False


def test_inference_maps__of_any_type_and_of_one_group_only() -> None:
    groups = pair(effect=True)
    nothing, everything = np.zeros(SPACE.n_voxels), np.ones(SPACE.n_voxels, bool)
    found = fit(groups, inference_map1=everything, inference_map2=nothing)
    stat = found["stat"].sel(effect=EFFECT).values
    assert (found["p"].sel(effect=EFFECT).values[stat <= 0] == 1).all()
    assert (found["z"].sel(effect=EFFECT) >= 0).all()
    array = xr.DataArray(everything.astype(np.int8), dims="voxel")
    again = fit(groups, inference_map1=array, inference_map2=nothing.tolist())
    assert_array_equal(again["p"], found["p"])


NOTHING = np.zeros(SPACE.n_voxels)


@pytest.mark.parametrize(
    ("maps", "error", "sentence"),
    [
        ((np.ones(SPACE.n_voxels), None), SettingsError, "One inference map is given; expected bo"),
        ((None, np.ones(SPACE.n_voxels)), SettingsError, "One inference map is given; expected bo"),
        ((NOTHING, NOTHING - 1), SettingsError, "No voxel of either inference map is above 0"),
        ((NOTHING, np.ones(7)), SchemaError, r"inference_map2 has shape \(7,\); expected \(500,\)"),
        ((np.ones((1, SPACE.n_voxels)), NOTHING), SchemaError, r"inference_map1 has shape \(1, 50"),
    ],
)
def test_inference_maps__that_cannot_be(maps: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        fit(pair(), inference_map1=maps[0], inference_map2=maps[1])


# what is refused


def test_fit__groups_that_cannot_be_compared() -> None:
    groups, nothing = pair(), make_corpus([[], []])
    with pytest.raises(SelectionError, match=r"The selected analyses have no focus at all \(2 "):
        ALE.fit(nothing, groups.second, space=SPACE)
    with pytest.raises(SelectionError, match=r"The unselected analyses have no focus at all \(2 "):
        ALE.fit(groups.first, nothing, space=SPACE)
    with pytest.raises(SelectionError, match="7 analyses are in both groups"):
        ALE.fit(groups.corpus, groups.first, space=SPACE)
    without = groups.first.drop_vars("analysis_sample_size")
    with pytest.raises(SchemaError, match="7 of 7 analyses have no sample size"):
        nd.ALESubtraction().fit(without, groups.second, space=SPACE)


def test_fit__kernel_of_another_kind_is_refused() -> None:
    for kernel in (nd.MKDAKernel(), nd.KDAKernel()):
        with pytest.raises(SettingsError, match=r"kernel of ALESubtraction is a .*ALEKernel"):
            nd.ALESubtraction(kernel=kernel)  # type: ignore[arg-type]


def test_fit__null_of_something_else_is_refused() -> None:
    groups = pair()
    apart = "They do not belong together: one was made with"
    given: dict[str, Any] = {"space": SPACE, "n_iters": 1, "voxel_thresh": None}
    mask = SPACE.mask.copy()
    mask[tuple(SPACE.voxel_ijk[7])] = False
    space = Space("small", mask, SPACE.affine)
    narrow = nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=9))
    both = groups.first, groups.second
    nulls = [
        (run("chi2", 1), f"{apart} estimator ALESubtraction, the other with MKDAChi2"),
        (nd.label_permutation_null(narrow, *both, **given), f"{apart} fwhm"),
        (nd.label_permutation_null(ALE, *both[::-1], **given), f"{apart} corpus"),
        (nd.label_permutation_null(ALE, *both, **{**given, "space": space}), f"{apart} mask"),
        (CHI2.fit(*both, space=SPACE), apart),
        (xr.Dataset(), "found a dataset of nothing"),
    ]
    for null, sentence in nulls:
        with pytest.raises(SchemaError, match=sentence):
            fit(groups, null=null)


def test_fit__says_how_it_was_made() -> None:
    groups = pair()
    found = fit(groups)
    step = steps(found)[-1]
    assert step["step"] == "ALESubtraction"
    wanted = {"estimator": "ALESubtraction", "fwhm": FWHM, "n_iters": N, "random_state": 3}
    assert wanted.items() <= step["settings"].items()
    assert (step["n_analyses"], step["n_selected"], step["n_analyses_without_foci"]) == (18, 7, 2)
    assert list(step["references"]) == ["laird2005", "eickhoff2012", "lancaster2007"]
    names = {key.name for key in results.map_keys(found)}
    effects = (EFFECT, "group1", "group2")
    assert names == {f"{m}_desc-{e}" for m in ("stat", "p", "z", "logp") for e in effects}
    drawn = fit(groups, random_state=None)
    seed = steps(drawn)[-1]["settings"]["random_state"]
    assert_array_equal(fit(groups, random_state=seed)["p"], drawn["p"])
