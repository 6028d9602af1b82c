"""The folded null histogram of ALE against plain loops over all pairs of bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels.fold import fold_histograms
from nimare_dask.nulls.approximate import ale_bins
from tests.reference import nulls

QUARTERS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
#: The order of sums differs; all that is added is positive.
ROUNDING = 1e-12


def check(histograms: Any, bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fold histograms (analysis, bin), whose last bins may be left out; compare every bin."""
    histograms = np.asarray(histograms, np.float64)
    whole = np.zeros((len(histograms), len(bins)))
    whole[:, : histograms.shape[1]] = histograms
    before = histograms.copy()
    found = fold_histograms(histograms, bins)
    expected = nulls.ale_fold(list(whole), bins)
    assert_array_equal(found > 0, expected > 0)
    assert_allclose(found, expected, rtol=ROUNDING, atol=0)
    assert_allclose(found.sum(), np.prod(whole.sum(axis=1)), rtol=ROUNDING)
    assert_array_equal(histograms, before)
    return found


def draw_histograms(
    seed: int, n_analyses: int, n_bins: int, *, filled: float = 0.5
) -> NDArray[np.float64]:
    """Shares of voxels in each bin, most in the first, many in none; sums are 1."""
    rng = np.random.default_rng(seed)
    shares = rng.gamma(0.3, size=(n_analyses, n_bins)) * (rng.uniform(size=n_bins) < filled)
    shares[rng.uniform(size=shares.shape) > filled] = 0
    shares[:, 0] += 1
    return shares / shares.sum(axis=1, keepdims=True)


def test_fold_histograms__hand_computed() -> None:
    # 1/2 and 1/4 make 5/8, which is 2.5 steps, so 3.
    found = check([[0.5, 0, 0.5], [0.75, 0.25, 0]], QUARTERS)
    assert_array_equal(found, [0.375, 0.125, 0.375, 0.125, 0])


def test_fold_histograms__one_analysis_is_itself() -> None:
    histogram = draw_histograms(0, 1, 40)
    found = check(histogram, np.arange(90) * 0.01)
    assert_array_equal(found[:40], histogram[0])
    assert not found[40:].any()


def test_fold_histograms__order_matters() -> None:
    quarter, three_quarters = np.eye(5)[1], np.eye(5)[3]
    assert_array_equal(check([quarter, quarter, three_quarters], QUARTERS), np.eye(5)[4])
    assert_array_equal(check([three_quarters, quarter, quarter], QUARTERS), np.eye(5)[3])


def test_fold_histograms__nothing_active_changes_nothing() -> None:
    histograms = draw_histograms(1, 3, 30)
    nothing = np.eye(30)[:1]
    bins = np.arange(80) * 0.01
    found = check(np.concatenate([nothing, histograms[:2], nothing, histograms[2:]]), bins)
    assert_array_equal(found, fold_histograms(histograms, bins))


def test_fold_histograms__edge_bins() -> None:
    # All in the last bin of an analysis, all in the last bin of ALE, and what lies past it.
    bins = np.arange(51) * 0.02
    check(np.tile(np.eye(51)[50], (3, 1)), bins)
    check([np.eye(51)[50], np.eye(51)[0]], bins)
    check([np.eye(51)[25], np.eye(51)[25], np.eye(51)[1]], bins)
    short = bins[:20]  # unions of 0.38 and 0.38 are past it
    check(np.tile(np.full(20, 0.05), (4, 1)), short)


def test_fold_histograms__no_first_bin() -> None:
    # A focus for every voxel: nothing is inactive, so the least rises with every analysis.
    histograms = draw_histograms(2, 6, 30)
    histograms[:, 0] = 0
    check(histograms, np.arange(200) * 0.005)


@pytest.mark.parametrize("filled", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("n_analyses", [2, 5, 12])
def test_fold_histograms__equals_reference(n_analyses: int, filled: float) -> None:
    for seed in range(3):
        histograms = draw_histograms(seed, n_analyses, 60, filled=filled)
        check(histograms, np.arange(700) * 0.001)


def test_fold_histograms__the_bins_of_ale_in_more_than_one_block() -> None:
    # 841 bins of an analysis and some 8,000 of ALE, which are folded 2,048 at a time.
    bins = ale_bins(np.full(10, 0.0084046, np.float32))
    assert len(bins) > 3 * 2048
    check(draw_histograms(3, 10, 842, filled=0.2), bins)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_analyses=st.integers(1, 5),
    n_study_bins=st.integers(1, 40),
    n_more=st.integers(0, 100),
    step=st.sampled_from([1e-5, 0.001, 0.007, 0.01, 0.3]),
    filled=st.sampled_from([0.1, 0.7]),
)
def test_fold_histograms__drawn(
    seed: int, n_analyses: int, n_study_bins: int, n_more: int, step: float, filled: float
) -> None:
    bins = np.arange(max(2, n_study_bins + n_more)) * step
    bins = bins[: max(2, int(np.searchsorted(bins, 1.0, side="right")))]
    check(draw_histograms(seed, n_analyses, min(n_study_bins, len(bins)), filled=filled), bins)
