"""p values from histograms and from null maxima, against plain loops and known laws."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.stats import empirical
from tests.reference import nulls

WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1e-12, 0.1, 1.0, 7.0]), min_size=2, max_size=30)

# histograms


def test_p_of_bins__hand_computed() -> None:
    p = empirical.p_of_bins([0.5, 0.25, 0.0, 0.25, 0.0])
    assert_array_equal(p, [1, 0.5, 0.25, 0.25, 0.25])
    assert_array_equal(empirical.tail_of([2, 1, 0, 1, 0]), [1, 0.5, 0.25, 0.25, 0])


@settings(max_examples=100, deadline=None)
@given(weights=WEIGHTS.filter(any))
def test_p_of_bins__equals_reference(weights: list[float]) -> None:
    bins = np.arange(len(weights)) * 0.5
    expected = nulls.nullhist_to_p(bins, weights, bins)
    assert_allclose(empirical.p_of_bins(weights), expected, rtol=1e-13)
    assert empirical.p_of_bins(weights)[0] == 1


def test_p_of_bins__small_shares_far_out_are_not_lost() -> None:
    # Summed from above: added to what is below they would vanish.
    tail = empirical.tail_of([1.0, 1e-20, 1e-25, 1e-30])
    assert_allclose(tail[1:], [1e-20, 1e-25, 1e-30], rtol=1.1e-5)


@settings(max_examples=100, deadline=None)
@given(
    weights=WEIGHTS.filter(any),
    p=st.sampled_from([1e-13, 0.001, 0.05, 0.125, 0.5, 0.999, 1.0]),
)
def test_threshold_bin__equals_reference(weights: list[float], p: float) -> None:
    bins = np.arange(len(weights)) * 0.5
    found = empirical.threshold_bin(weights, p)
    assert bins[found] == nulls.threshold_of_p(p, weights, bins)


def test_threshold_bin__hand_computed() -> None:
    weights = [0.5, 0.25, 0.25, 0.0]
    # Tails 1, 1/2, 1/4, 0: above bin 0 p is at most 1/2.
    assert [empirical.threshold_bin(weights, p) for p in (1.0, 0.5, 0.3, 0.25, 0.1)] == [
        0,
        0,
        1,
        1,
        2,
    ]
    assert empirical.threshold_bin([0.0, 0.0, 1.0], 0.5) == 2  # every tail is above


@settings(max_examples=60, deadline=None)
@given(weights=WEIGHTS.filter(any), p=st.floats(1e-6, 0.9))
def test_threshold_bin__above_it_p_is_small(weights: list[float], p: float) -> None:
    place = empirical.threshold_bin(weights, p)
    tail = empirical.tail_of(weights)
    assert (tail[place + 1 :] <= p).all()
    assert place == 0 or tail[place] > p


# maxima


def test_p_of_maxima__hand_computed() -> None:
    null = [3.0, 1.0, 2.0, 2.0]
    p = empirical.p_of_maxima([0.5, 1, 1.5, 2, 2.5, 3, 4], null)
    assert_array_equal(p, [1, 1, 0.75, 0.75, 0.25, 0.25, 0.25])
    assert_array_equal(empirical.p_of_maxima([[2.5, 0], [9, 3]], null), [[0.25, 1], [0.25, 0.25]])
    assert empirical.p_of_maxima(2.0, null) == 0.75


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(-2, 12), min_size=1, max_size=10),
    null=st.lists(st.integers(0, 10), min_size=2, max_size=40),
)
def test_p_of_maxima__equals_reference(values: list[int], null: list[int]) -> None:
    expected = nulls.null_to_p(values, null, "upper")
    expected[np.asarray(values) <= min(null)] = 1  # the reference stays below 1
    assert_allclose(empirical.p_of_maxima(values, null), expected, rtol=1e-14)


# maxima, with a tail


def gumbel_quantile(p: Any) -> NDArray[np.float64]:
    """What a maximum exceeds with probability `p`."""
    quantile: NDArray[np.float64] = -np.log(-np.log1p(-np.asarray(p, np.float64)))
    return quantile


@cache
def ratios() -> NDArray[np.float64]:
    """Estimated over true p at 1e-4 and 1e-5: 200 repetitions of 5,000 iterations."""
    true = np.array([1e-4, 1e-5])
    found = []
    for seed in range(200):
        null = np.random.default_rng(seed).gumbel(size=5000)
        found.append(empirical.p_of_maxima_with_tail(gumbel_quantile(true), null) / true)
    return np.array(found)


def within(ratio: NDArray[np.float64], factor: float) -> float:
    """Share of estimates that are right to a factor."""
    return float(np.mean((ratio <= factor) & (ratio >= 1 / factor)))


@pytest.mark.parametrize(("place", "factor", "share"), [(0, 2, 0.48), (0, 5, 0.78), (1, 5, 0.54)])
def test_p_of_maxima_with_tail__error_on_gumbel_maxima(
    place: int, factor: float, share: float
) -> None:
    # Measured: 0.495 and 0.805 at 1e-4, 0.555 at 1e-5.
    assert within(ratios()[:, place], factor) >= share


def test_p_of_maxima_with_tail__is_not_biased_on_gumbel_maxima() -> None:
    low, high = np.median(ratios(), axis=0)
    assert 0.7 < low < 1.4
    assert 0.5 < high < 2
    # Not far too large either: 95 % are below 3.2 and 7.8 times the true p.
    assert (np.quantile(ratios(), 0.95, axis=0) < [4, 10]).all()


def test_p_of_maxima_with_tail__never_absurdly_small_on_gumbel_maxima() -> None:
    # A fitted tail that ends gives p = 0 beyond its end: nothing that 5,000 iterations can show.
    assert ratios().min() > 1e-6


def test_p_of_maxima_with_tail__ten_exceedances_stay_empirical() -> None:
    null = np.random.default_rng(1).gumbel(size=5000)
    ascending = np.sort(null)
    values = np.concatenate([ascending[[0, 2500, -500, -11, -10]], [-99.0]])
    found = empirical.p_of_maxima_with_tail(values, null)
    assert_array_equal(found, empirical.p_of_maxima(values, null))
    beyond = ascending[-9:]
    assert (
        empirical.p_of_maxima_with_tail(beyond, null) != empirical.p_of_maxima(beyond, null)
    ).all()


@pytest.mark.parametrize("n", [303, 581, 616])
def test_p_of_maxima_with_tail__ten_exceedances_stay_empirical_for_any_number(n: int) -> None:
    # 10 / n * n is less than 10 in float64 for these.
    null = np.random.default_rng(2).gumbel(size=n)
    value = np.sort(null)[-10:-9]
    assert_array_equal(empirical.p_of_maxima_with_tail(value, null), [10 / n])


def test_p_of_maxima_with_tail__order_of_values_is_kept() -> None:
    for seed in range(20):
        null = np.random.default_rng(seed).gumbel(size=2000)
        values = np.append(np.sort(null)[-40:], gumbel_quantile([1e-5, 1e-6]))
        found = empirical.p_of_maxima_with_tail(np.sort(values), null)
        assert (np.diff(found) <= 0).all()


def test_p_of_maxima_with_tail__any_shape() -> None:
    null = np.random.default_rng(3).gumbel(size=2000)
    values = np.append(np.sort(null)[[0, 1900]], gumbel_quantile([1e-4, 1e-5]))
    flat = empirical.p_of_maxima_with_tail(values, null)
    square = empirical.p_of_maxima_with_tail(values.reshape(2, 2), null)
    assert_array_equal(square, flat.reshape(2, 2))
    assert_array_equal([empirical.p_of_maxima_with_tail(value, null) for value in values], flat)


def test_p_of_maxima_with_tail__below_one_over_n_and_above_zero() -> None:
    null = np.random.default_rng(4).gumbel(size=1000)
    found = empirical.p_of_maxima_with_tail(gumbel_quantile([1e-4, 1e-6, 1e-12, 1e-200]), null)
    assert (np.diff(found) <= 0).all()
    assert 0 < found[-1] <= found[0] < 1e-3


DEGENERATE = {
    "all equal": np.full(5000, 3.0),
    "two values": np.repeat([1.0, 2.0], 2500),
    "sizes with many ties": np.random.default_rng(0).poisson(3, 5000).astype(float),
    "few above zero": np.append(np.zeros(4990), np.full(10, 7.0)),
    "few iterations": np.random.default_rng(1).gumbel(size=299),
    "five": np.arange(5.0),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_p_of_maxima_with_tail__degenerate_nulls_stay_empirical(name: str) -> None:
    null = DEGENERATE[name]
    values = null.max() + np.array([-1, -0.5, 0, 0.5, 100])
    found = empirical.p_of_maxima_with_tail(values, null)
    assert_array_equal(found, empirical.p_of_maxima(values, null))
