"""Sums of whole numbers and the statistic that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.kernels import overlay, tally
from nimare_dask.statistic import Statistic, whole_numbers
from tests.reference.nulls import nearest

HIGHEST = np.iinfo(np.int32).max


def statistic(scale: float, probability: bool, bins: Any = (0.0, 1.0)) -> Statistic:
    return Statistic(
        footprints=overlay.pack_footprints([np.array([[[1, 2, 1]]], np.int32)]),
        footprint_of=np.zeros(2, np.int32),
        union=True,
        scale=scale,
        wide=False,
        probability=probability,
        bins=np.asarray(bins, np.float64),
    )


# whole numbers


@pytest.mark.parametrize(("n", "kind"), [(32767, np.int16), (32768, np.int32)])
def test_whole_numbers__counts_stay_counts(n: int, kind: type) -> None:
    sphere = np.array([[[0.0, 1, 0]]])
    (found,), scale, wide = whole_numbers([sphere], np.zeros(n, np.int32))
    assert (scale, wide, found.dtype) == (1.0, False, kind)
    assert_array_equal(found, sphere)


def test_whole_numbers__several_counts() -> None:
    parts = [np.array([[[3.0, 0]]]), np.array([[[30000.0]]])]
    for of, kind in (([0, 1, 0], np.int16), ([1, 1], np.int32)):
        found, scale, wide = whole_numbers(parts, np.array(of, np.int32))
        assert (scale, wide) == (1.0, False)
        assert [values.dtype for values in found] == [kind, kind]
        assert_array_equal(found[0], parts[0])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([1, 2, 3, 100, 20_000]),
    highest=st.sampled_from([1e-9, 0.0084, 0.5, 1.0, 3.7, 1e5]),
)
def test_whole_numbers__their_sum_fits_and_units_are_fine(
    seed: int, n: int, highest: float
) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.uniform(0, highest, size=(1, 3, 5)) for _ in range(3)]
    footprint_of = rng.integers(0, 3, n).astype(np.int32)
    found, scale, wide = whole_numbers(parts, footprint_of)
    assert np.log2(scale) == np.rint(np.log2(scale))
    total = sum(int(found[which].max()) for which in footprint_of)
    assert total <= HIGHEST or wide
    largest = max(int(values.max()) for values in found)
    assert 2**20 - 1 <= largest < HIGHEST
    assert largest <= 2**23 or not wide
    for values, part in zip(found, parts, strict=True):
        assert values.dtype == np.int32
        assert_allclose(values / scale, part, rtol=0, atol=0.5 / scale)


@pytest.mark.parametrize(("n", "wide"), [(20, False), (500, False), (14_000, True)])
def test_whole_numbers__many_analyses_of_ale_need_int64(n: int, wide: bool) -> None:
    peak = -np.log1p(-np.array([[[0.0084, 0.002, 1e-6]]]))
    (found,), scale, needed = whole_numbers([peak], np.zeros(n, np.int32))
    assert needed == wide
    assert_allclose(found / scale, peak, rtol=1e-2)
    assert_allclose(found.max() / scale, peak.max(), rtol=1e-6)


# values


def test_values__hand_computed() -> None:
    sums = np.array([0, 4, 8], np.int32)
    plain = statistic(4.0, probability=False)
    assert_array_equal(plain.values(sums), [0, 1, 2])
    ale = statistic(4.0, probability=True)
    assert_allclose(ale.values(sums), [0, 1 - np.exp(-1), 1 - np.exp(-2)], rtol=1e-7)
    assert plain.values(sums).dtype == ale.values(sums).dtype == np.float32


def test_values__small_probabilities_are_not_lost() -> None:
    tiny = statistic(2.0**36, probability=True).values(np.array([1], np.int32))
    assert_allclose(tiny, 2.0**-36, rtol=1e-7)


# heights as sums


@pytest.mark.parametrize("probability", [True, False])
@pytest.mark.parametrize("scale", [1.0, 64.0, 1000.0])
def test_first_sums__equal_a_search_of_all(scale: float, probability: bool) -> None:
    some = statistic(scale, probability)
    sums = np.arange(5000)
    values = some.values(sums).astype(np.float64)
    heights = np.concatenate([values[:200], values[:200] + 1e-9, [-1.0, 0.0, 0.3, 0.9]])
    heights = heights[heights <= values[-1]]
    expected = [int(np.flatnonzero(values >= height)[0]) for height in heights]
    assert_array_equal(some.first_sums(heights), expected)
    for height in heights[heights < values[-1]][::7]:
        below = np.flatnonzero(values <= height)
        assert some.last_sum(float(height)) == (below[-1] if below.size else -1)


def test_first_sums__a_height_that_no_sum_reaches() -> None:
    assert_array_equal(statistic(4.0, True).first_sums(np.array([1.5, 0.0])), [2**62, 0])


@settings(max_examples=60, deadline=None)
@given(
    scale=st.sampled_from([1.0, 7.0, 2.0**20, 2.0**31]),
    probability=st.booleans(),
    height=st.floats(0, 0.75, width=32),
)
def test_last_sum__is_the_last_that_is_not_above(
    scale: float, probability: bool, height: float
) -> None:
    some = statistic(scale, probability)
    last = some.last_sum(height)
    around = some.values(np.array([last, last + 1])).astype(np.float64)
    assert around[0] <= height < around[1]


# bins as sums


@pytest.mark.parametrize(
    ("scale", "probability", "step", "n_bins"),
    [(1.0, False, 1.0, 12), (1000.0, False, 0.037, 300), (2.0**14, True, 1e-3, 900)],
)
def test_steps__are_the_nearest_bins(
    scale: float, probability: bool, step: float, n_bins: int
) -> None:
    some = statistic(scale, probability, np.arange(n_bins) * step)
    sums = np.arange(0, int(scale * 3) + 20)
    found = tally.bins_of(sums.astype(np.int32), some.steps)
    values = some.values(sums).astype(np.float64)
    expected = [min(nearest(value / step), n_bins - 1) for value in values]
    # A value in the middle between two bins, to the last bit or two, can be in either.
    middle = np.abs(values / step % 1 - 0.5) < 1e-9
    assert middle.sum() < 0.01 * len(sums)
    assert_array_equal(found[~middle], np.array(expected)[~middle])


def test_steps__halves_go_up() -> None:
    some = statistic(2.0, probability=False, bins=np.arange(4.0))
    found = tally.bins_of(np.array([0, 1, 2, 3, 4, 5, 6, 7, 99], np.int32), some.steps)
    assert_array_equal(found, [0, 1, 1, 2, 2, 3, 3, 3, 3])


def test_steps__a_bin_that_no_sum_reaches_does_not_make_the_others_slow() -> None:
    # Bins of ALE go past 1 where many analyses are; a bucket of the table must stay narrow.
    some = statistic(2.0**20, probability=True, bins=np.arange(100_002) * 1e-5)
    steps = some.steps
    per_bucket = np.diff(np.append(steps.start, len(steps.edges) - 1))
    assert per_bucket.max() <= 50
    check = np.array([0, 5, 2**20, 2**23], np.int32)
    found = tally.bins_of(check, steps)
    assert_array_equal(found, np.searchsorted(steps.edges, check, side="right") - 1)
