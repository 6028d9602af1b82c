"""Null histograms without iterations, against plain loops, all combinations, and each other."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask import corpus as nd_corpus
from nimare_dask.activation import locate, study_values
from nimare_dask.footprint import ALEKernel
from nimare_dask.nulls import approximate
from nimare_dask.space import load_space, voxel_to_mm
from nimare_dask.statistic import StudyValues
from nimare_dask.stats.empirical import tail_of
from tests.reference import nulls

ROUNDING = 1e-12


def draw_study(
    seed: int, n_analyses: int, n_values: int = 6, *, highest: float = 0.01, n_voxels: int = 1000
) -> StudyValues:
    """Analyses that have some of the values, all of them most often 0."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(1e-4, highest, n_values)).astype(np.float32)
    counts = rng.integers(0, 40, size=(n_analyses, n_values + 1))
    counts[rng.uniform(size=counts.shape) < 0.4] = 0
    counts[:, 0] = n_voxels - counts[:, 1:].sum(axis=1)
    return StudyValues(values=np.append(np.float32(0), values), counts=counts)


def histograms_of(study: StudyValues, bins: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The histogram of each analysis, voxel by voxel."""
    return [
        nulls.study_histogram(np.repeat(study.values, counts), study.n_voxels, bins)
        for counts in study.counts
    ]


# StudyValues


def test_study_values__maxima_and_voxels() -> None:
    values = np.array([0, 0.25, 0.5], np.float32)
    study = StudyValues(values=values, counts=np.array([[1, 2, 0], [3, 0, 0], [0, 0, 3]]))
    assert study.n_voxels == 3
    assert_array_equal(study.maxima(), np.array([0.25, 0, 0.5], np.float32))


# bins


def test_ale_bins__hand_computed() -> None:
    # 840.4 steps, so 841, and one more; two of 1/2 make 3/4; nothing leaves one step.
    assert_array_equal(approximate.ale_bins(np.array([0.008404], np.float32)), np.arange(843) / 1e5)
    bins = approximate.ale_bins(np.array([0.5, 0.5], np.float32))
    assert (len(bins), bins[-1]) == (75002, 0.75001)
    assert_array_equal(approximate.ale_bins(np.zeros(3, np.float32)), [0, 1e-5])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    highest=st.sampled_from([0.003, 0.01, 0.3]),
)
def test_ale_bins__equal_reference_to_one_bin(seed: int, n: int, highest: float) -> None:
    # Both multiply in float32, in another order, so that the end can be on either side of a step.
    maxima = np.random.default_rng(seed).uniform(0, highest, n).astype(np.float32)
    found, expected = approximate.ale_bins(maxima), nulls.ale_bins(maxima)
    assert abs(len(found) - len(expected)) <= 1
    same = min(len(found), len(expected))
    assert_array_equal(found[:same], expected[:same])


# ALE, folded


@pytest.mark.parametrize("n_analyses", [1, 2, 7])
def test_ale_fold__equals_reference(n_analyses: int) -> None:
    for seed in range(3):
        study = draw_study(seed, n_analyses)
        bins = nulls.ale_bins(study.maxima())
        order = np.random.default_rng(seed).permutation(n_analyses)
        found = approximate.ale_fold(study, bins, order)
        histograms = histograms_of(study, bins)
        expected = nulls.ale_fold([histograms[analysis] for analysis in order], bins)
        assert_allclose(found, expected, rtol=ROUNDING, atol=0)
        assert_allclose(found.sum(), 1, rtol=ROUNDING)


def test_ale_fold__order_matters() -> None:
    bins = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    quarters = np.array([0, 0.25, 0.75], np.float32)
    study = StudyValues(values=quarters, counts=np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]]))
    assert_array_equal(approximate.ale_fold(study, bins, np.array([0, 1, 2])), np.eye(5)[4])
    assert_array_equal(approximate.ale_fold(study, bins, np.array([2, 0, 1])), np.eye(5)[3])


def test_ale_fold__values_in_one_bin_and_past_the_last() -> None:
    bins = np.arange(5) * 0.01
    values = np.array([0, 0.004, 0.006, 0.0061, 0.0062, 0.9], np.float32)
    study = StudyValues(values=values, counts=np.array([[1, 2, 3, 4, 5, 6]]))
    found = approximate.ale_fold(study, bins, np.array([0]))
    assert_array_equal(found, np.array([3, 12, 0, 0, 6]) / 21)


# ALE, by Fourier transform


def exact_law(study: StudyValues) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every combination of values: the statistic, ascending, and its probability."""
    shares = study.counts / study.n_voxels
    ale, probability = [], []
    for places in itertools.product(range(len(study.values)), repeat=len(shares)):
        share = math.prod(row[place] for row, place in zip(shares, places, strict=True))
        if share > 0:
            ale.append(1 - math.prod(1 - float(study.values[place]) for place in places))
            probability.append(share)
    order = np.argsort(ale)
    return np.array(ale)[order], np.array(probability)[order]


@pytest.mark.parametrize(("n_analyses", "n_values"), [(1, 5), (2, 6), (3, 5), (5, 3)])
def test_ale_fft__equals_all_combinations(n_analyses: int, n_values: int) -> None:
    for seed in range(3):
        study = draw_study(seed, n_analyses, n_values, highest=0.5)
        bins = approximate.ale_bins(study.maxima())
        weights = approximate.ale_fft(study, bins)
        assert_allclose(weights.sum(), 1, rtol=ROUNDING)
        ale, probability = exact_law(study)
        # Between two values that are far apart all of the tail must be right.
        gaps = np.flatnonzero(np.diff(ale) > 2e-4)
        assert len(gaps) > 2
        tail = tail_of(weights)
        for gap in gaps:
            place = int((ale[gap] + ale[gap + 1]) / 2 * 1e5)
            assert_allclose(tail[place], probability[gap + 1 :].sum(), rtol=1e-9, atol=1e-14)


@cache
def simulated(n_analyses: int) -> tuple[StudyValues, NDArray[np.float64]]:
    """Analyses of 9 foci on average anywhere in the brain and 8 to 59 subjects."""
    space = load_space("mni152_2mm")
    rng = np.random.default_rng(n_analyses)
    n_foci = rng.poisson(8, n_analyses) + 1
    places = space.voxel_ijk[rng.integers(0, space.n_voxels, n_foci.sum())]
    ids = [f"study{place:04d}" for place in range(n_analyses)]
    corpus = nd_corpus.build(
        analysis_id=ids,
        study_id=ids,
        n_foci=n_foci,
        xyz=voxel_to_mm(places, space.affine),
        focus_space=np.zeros(len(places)),
        spaces=["MNI"],
        sample_size=rng.integers(8, 60, n_analyses),
    )
    study = study_values(ALEKernel(), corpus, locate([corpus], space), space)
    return study, approximate.ale_bins(study.maxima())


@pytest.mark.parametrize(
    ("n_analyses", "error"),
    # The largest relative error of p from 1e-2 to 1e-10, half as large again as measured.
    [(20, 0.021), (100, 0.01), (300, 0.01)],
)
def test_ale_fft__error_against_the_fold(n_analyses: int, error: float) -> None:
    study, bins = simulated(n_analyses)
    folded = tail_of(approximate.ale_fold(study, bins, np.arange(n_analyses)))
    found = tail_of(approximate.ale_fft(study, bins))
    for exponent in range(2, 11):
        near = (folded < 10.0 ** (0.5 - exponent)) & (folded > 10.0 ** (-0.5 - exponent))
        assert near.sum() > 20
        assert_allclose(found[near], folded[near], rtol=error, err_msg=f"1e-{exponent}")


def test_ale_fft__order_of_analyses_does_not_matter() -> None:
    study, bins = simulated(100)
    order = np.random.default_rng(0).permutation(100)
    mixed = StudyValues(values=study.values, counts=study.counts[order])
    one, other = (tail_of(approximate.ale_fft(part, bins)) for part in (study, mixed))
    # To the error of the transform, which is an absolute one.
    assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_ale_fft__nothing_below_its_error() -> None:
    study, bins = simulated(100)
    weights = approximate.ale_fft(study, bins)
    assert weights[weights > 0].min() >= 1e-15
    assert_allclose(weights.sum(), 1, rtol=ROUNDING)


def test_ale_fft__what_is_almost_certain_stays_in_the_last_bin() -> None:
    # 7 times -ln(1 - 0.9) is 16.1, beyond where the convolution ends.
    counts = np.tile([0, 10], (7, 1))
    study = StudyValues(values=np.array([0, 0.9], np.float32), counts=counts)
    bins = approximate.ale_bins(study.maxima())
    weights = approximate.ale_fft(study, bins)
    assert_allclose(weights.sum(), 1, rtol=1e-9)
    assert_allclose(weights[bins > 1 - 2e-5].sum(), 1, rtol=1e-9)


# MKDA and KDA


def test_poisson_binomial__hand_computed() -> None:
    law = approximate.poisson_binomial(np.array([0.1, 0.2, 0.3]))
    assert_allclose(law, [0.504, 0.398, 0.092, 0.006], rtol=ROUNDING)
    assert_array_equal(approximate.poisson_binomial(np.array([0.0, 1.0, 1.0])), [0, 0, 1, 0])


@settings(max_examples=40, deadline=None)
@given(q=st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_poisson_binomial__equals_reference(q: list[float]) -> None:
    found = approximate.poisson_binomial(np.array(q))
    assert_allclose(found, nulls.poisson_binomial(q), rtol=ROUNDING, atol=1e-300)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 10),
    n_bins=st.sampled_from([100, 101, 997]),
    whole=st.booleans(),
)
def test_weighted_poisson_binomial__equals_reference(
    seed: int, n: int, n_bins: int, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 9, n).astype(float) if whole else rng.gamma(0.5, size=n) + 1e-9
    weights *= n / weights.sum()
    q = rng.uniform(0, 0.3, n)
    bins = approximate.weighted_bins(weights, n_bins)
    assert_allclose(bins, nulls.mkda_weighted_bins(weights, n_bins), rtol=ROUNDING)
    found = approximate.weighted_poisson_binomial(q, weights, bins)
    expected = nulls.weighted_poisson_binomial(q, weights, bins)
    assert_allclose(found, expected, rtol=ROUNDING, atol=0)
    assert_allclose(found.sum(), 1, rtol=ROUNDING)


def test_weighted_poisson_binomial__equal_weights_are_the_plain_law() -> None:
    q = np.array([0.1, 0.2, 0.3])
    bins = approximate.weighted_bins(np.ones(3), 100)
    found = approximate.weighted_poisson_binomial(q, np.ones(3), bins)
    assert_allclose(found[::33], approximate.poisson_binomial(q), rtol=ROUNDING)
    assert np.count_nonzero(found) == 4


def test_weighted_bins__a_weight_of_almost_nothing_still_counts() -> None:
    weights = np.array([1e-9, 1e-9, 3.0])
    bins = approximate.weighted_bins(weights, 100)
    assert_array_equal(bins, nulls.mkda_weighted_bins(weights, 100))
    found = approximate.weighted_poisson_binomial(np.array([0.5, 0.5, 0.0]), weights, bins)
    assert_allclose(found[:3], [0.25, 0.5, 0.25])


@pytest.mark.parametrize("n_analyses", [1, 2, 8])
def test_sum_fold__equals_reference(n_analyses: int) -> None:
    rng = np.random.default_rng(n_analyses)
    n_foci = 3 * n_analyses
    counts = rng.integers(0, 9, size=(n_analyses, 5))
    counts[:, 4] = 0  # values that no analysis has
    counts[0, 1:] = 0  # an analysis that reaches no voxel
    counts[:, 0] += 50 - counts.sum(axis=1)
    study = StudyValues(values=np.arange(5, dtype=np.float32), counts=counts)
    bins = nulls.kda_bins(1.0, n_foci)
    found = approximate.sum_fold(study, len(bins))
    expected = nulls.kda_fold(histograms_of(study, bins), bins)
    assert found.shape == expected.shape
    assert_allclose(found, expected, rtol=ROUNDING, atol=0)
