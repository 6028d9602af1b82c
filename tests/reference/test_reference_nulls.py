"""The reference nulls, p values, clusters and weights against golden and hand-made cases."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from .nulls import (
    NullTail,
    Transform,
    ale_bins,
    ale_fold,
    bonferroni,
    cluster_measures,
    inference_discount,
    kda_bins,
    kda_fold,
    mkda_weighted_bins,
    nearest,
    null_to_p,
    nullhist_to_p,
    poisson_binomial,
    study_histogram,
    study_weights,
    tfce,
    threshold_of_p,
    weight_shifts,
    weighted_poisson_binomial,
)
from .pvalues import p_to_z
from .volumes import line

QUARTERS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


# histograms


def test_nearest__halves_go_up() -> None:
    assert [nearest(x) for x in (0.0, 0.49999, 0.5, 1.5, 2.5, 2.4999)] == [0, 0, 1, 2, 3, 2]
    # floor(x + 0.5) would be 1 here.
    assert nearest(0.49999999999999994) == 0


def test_ale_bins__hand_computed() -> None:
    # One study: 840.4 steps, so 841; the centres go to 842.
    bins = ale_bins([0.008404])
    assert_array_equal(bins, np.arange(843) / 1e5)
    # Two of 1/2 make 3/4.
    bins = ale_bins(np.array([0.5, 0.5], dtype=np.float32))
    assert bins.size == 75002
    assert bins[-1] == 0.75001


def test_kda_bins__hand_computed() -> None:
    assert_array_equal(kda_bins(2.0, 3), [0, 2, 4, 6, 8])


def test_study_histogram__hand_computed() -> None:
    # Steps: 0.4 -> 0, 0.5 -> 1, 1.2 -> 1, 8 -> the last; six more voxels are zero.
    expected = np.array([7, 2, 0, 0, 1]) / 10
    assert_array_equal(study_histogram([0.1, 0.125, 0.3, 2.0], 10, QUARTERS), expected)
    with_zeros = [0, 0.1, 0.125, 0, 0.3, 2.0, 0, 0, 0, 0]
    assert_array_equal(study_histogram(with_zeros, 10, QUARTERS), expected)
    assert_array_equal(study_histogram([], 10, QUARTERS), [1, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="more values"):
        study_histogram([0.5, 0.5], 1, QUARTERS)


def test_ale_fold__hand_computed() -> None:
    first = np.array([0.5, 0, 0.5, 0, 0])
    second = np.array([0.75, 0.25, 0, 0, 0])
    # 1/2 and 1/4 make 5/8, which is 2.5 steps, so 3.
    expected = [0.375, 0.125, 0.375, 0.125, 0]
    assert_array_equal(ale_fold([first, second], QUARTERS), expected)
    assert_array_equal(ale_fold([first], QUARTERS), first)


def test_ale_fold__several_pairs_fall_in_one_bin() -> None:
    first = np.array([0.25, 0.25, 0.5, 0, 0])
    # (2, 1) and (2, 2) both make 3 steps: 2.5 and 3.
    second = np.array([0, 0.5, 0.5, 0, 0])
    # (0,1)->1, (0,2)->2, (1,1): 7/16 -> 1.75 -> 2, (1,2): 5/8 -> 2.5 -> 3.
    expected = [0, 0.125, 0.25, 0.125 + 0.5, 0]
    assert_array_equal(ale_fold([first, second], QUARTERS), expected)


def test_ale_fold__order_matters() -> None:
    quarter, three_quarters = np.eye(5)[1], np.eye(5)[3]
    # 1/4 and 1/4: 7/16, so 1/2; that and 3/4: 7/8, so 1.
    assert_array_equal(ale_fold([quarter, quarter, three_quarters], QUARTERS), np.eye(5)[4])
    # 3/4 and 1/4: 13/16, so 3/4; and once more.
    assert_array_equal(ale_fold([three_quarters, quarter, quarter], QUARTERS), np.eye(5)[3])


def test_ale_fold__close_to_all_combinations() -> None:
    rng = np.random.default_rng(0)
    bins = ale_bins([0.01] * 4)
    values = rng.uniform(0, 0.01, size=(4, 5)).astype(np.float32)
    histograms = [study_histogram(row, 7, bins) for row in values]
    folded = ale_fold(histograms, bins)
    assert_allclose(folded.sum(), 1, rtol=1e-13)
    scores = [
        1 - math.prod(1 - m for m in combination)
        for combination in itertools.product(*([0.0, 0.0, *map(float, row)] for row in values))
    ]
    exact_mean = math.fsum(scores) / len(scores)
    # Each of four histograms and three steps rounds by half a bin at most.
    assert_allclose(folded @ bins, exact_mean, atol=3.5e-5, rtol=0)
    tail = nullhist_to_p(0.01, folded, bins)
    below, above = (np.mean([s >= 0.01 + d for s in scores]) for d in (4e-5, -4e-5))
    assert below - 1e-12 <= tail <= above + 1e-12


def test_kda_fold__hand_computed() -> None:
    bins = kda_bins(1.0, 3)
    first = study_histogram([1, 1, 2], 4, bins)
    second = study_histogram([1], 4, bins)
    assert_array_equal(first, [0.25, 0.5, 0.25, 0, 0])
    assert_array_equal(second, [0.75, 0.25, 0, 0, 0])
    expected = np.convolve([0.25, 0.5, 0.25], [0.75, 0.25])
    assert_array_equal(kda_fold([first, second], bins), [*expected, 0])


def test_fold__shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        ale_fold([np.ones(4)], QUARTERS)
    with pytest.raises(ValueError, match="at least one"):
        kda_fold([], QUARTERS)


# Poisson-binomial


def test_poisson_binomial__golden() -> None:
    assert_allclose(poisson_binomial([0.1, 0.2, 0.3]), [0.504, 0.398, 0.092, 0.006], rtol=1e-13)
    assert_array_equal(poisson_binomial([]), [1])


def test_poisson_binomial__equal_probabilities_are_binomial() -> None:
    n, q = 20, 0.3
    expected = [math.comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(n + 1)]
    assert_allclose(poisson_binomial([q] * n), expected, rtol=1e-12)


def test_weighted_poisson_binomial__hand_computed() -> None:
    weights = [1.5, 0.5]
    bins = mkda_weighted_bins(weights, 5)
    assert_array_equal(bins, [0, 0.5, 1, 1.5, 2])
    # Shifts of 3 and 1 bins.
    expected = [0.5 * 0.75, 0.5 * 0.25, 0, 0.5 * 0.75, 0.5 * 0.25]
    assert_array_equal(weighted_poisson_binomial([0.5, 0.25], weights, bins), expected)


def test_weight_shifts__to_even_and_one_at_least() -> None:
    assert weight_shifts([1.25, 0.75, 0.1, 1.0], 0.5) == [2, 2, 1, 2]


def test_mkda_weighted_bins__room_for_rounding() -> None:
    # Step 1, and shifts of 2, 1, 1 and 1 bins where the weights sum to 3.
    assert mkda_weighted_bins([1.875, 0.375, 0.375, 0.375], 4).size == 6


def test_weighted_poisson_binomial__equal_weights_are_not_weighted() -> None:
    q = [0.1, 0.2, 0.3]
    bins = mkda_weighted_bins([1, 1, 1], 4)
    assert_array_equal(bins, [0, 1, 2, 3])
    assert_allclose(weighted_poisson_binomial(q, [1, 1, 1], bins), poisson_binomial(q))


# p-values


def test_nullhist_to_p__uniform() -> None:
    # A hundred bins: 0 to 99.
    bins, weights = np.arange(100.0), np.ones(100)
    t = [0, 1, 99, 100, 101, math.inf, -3]
    expected = [1, 0.99, 0.01, 0.01, 0.01, 0.01, 1]
    assert_allclose(nullhist_to_p(t, weights, bins), expected)
    voxelwise = np.repeat(weights[:, None], 7, axis=1)
    assert_allclose(nullhist_to_p(t, voxelwise, bins), expected)


def test_nullhist_to_p__floor_is_the_smallest_tail_above_zero() -> None:
    weights = np.array([4, 3, 1, 0, 0])
    # t of 0.125 is half a step, so it belongs to the bin above.
    t = [0.0, 0.12, 0.125, 0.3, 0.5, 0.75, 9.0]
    expected = [1, 1, 0.5, 0.5, 0.125, 0.125, 0.125]
    assert_array_equal(nullhist_to_p(t, weights, QUARTERS), expected)


def test_nullhist_to_p__voxelwise_nulls_share_the_floor() -> None:
    weights = np.array([[4, 2], [3, 2], [1, 0], [0, 0], [0, 0]])
    assert_array_equal(nullhist_to_p([0.25, 0.25], weights, QUARTERS), [0.5, 0.5])
    assert_array_equal(nullhist_to_p([1.0, 1.0], weights, QUARTERS), [0.125, 0.125])


def test_nullhist_to_p__shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="weights"):
        nullhist_to_p([0.5], np.ones(4), QUARTERS)
    with pytest.raises(ValueError, match="voxel"):
        nullhist_to_p([0.5], np.ones((5, 2)), QUARTERS)


@pytest.mark.parametrize(
    ("p", "threshold"),
    # Tails are 8/8, 7/8, ... 1/8 at 0, 1, ... 7.
    [(0.3, 5.0), (0.25, 5.0), (0.24, 6.0), (0.125, 6.0), (0.1, 7.0), (1.0, 0.0), (0.9, 0.0)],
)
def test_threshold_of_p__hand_computed(p: float, threshold: float) -> None:
    assert threshold_of_p(p, np.ones(8), np.arange(8.0)) == threshold


def test_threshold_of_p__counts_are_normalised() -> None:
    weights = np.array([900, 90, 9, 1])
    # Tails 1, 0.1, 0.01, 0.001.
    assert threshold_of_p(0.05, weights, np.arange(4.0)) == 1.0
    assert threshold_of_p(0.0005, weights, np.arange(4.0)) == 3.0


NULL = np.array([-10, -9, -9, -6, -5, -2, -1, 0, 1, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9])


@pytest.mark.parametrize(
    ("t", "tail", "p"),
    [
        (9, "two", 0.1),
        (-9, "two", 0.3),
        (0, "two", 0.8),
        (20, "two", 0.05),
        (-20, "two", 0.05),
        (9, "lower", 0.95),
        (-10, "lower", 0.05),
        (-20, "lower", 0.05),
        (0, "upper", 0.65),
        (9, "upper", 0.05),
        (20, "upper", 0.05),
        (-20, "upper", 0.95),
    ],
)
def test_null_to_p__golden(t: float, tail: NullTail, p: float) -> None:
    assert_allclose(null_to_p(t, NULL, tail), p)
    assert_allclose(null_to_p([[t]], NULL[::-1], tail), [[p]])


def test_null_to_p__golden_symmetric() -> None:
    t = [0, 9, -9, 10, 20]
    assert_allclose(null_to_p(t, NULL, "two", symmetric=True), [0.95, 0.2, 0.2, 0.05, 0.05])


def test_null_to_p__golden_off_cluster() -> None:
    n = 5000
    sizes = np.arange(n)  # of the largest cluster, one of them 0
    p = null_to_p(0, sizes, "upper")
    assert p == 1 - 1 / n
    assert p_to_z(p, "one") == 0
    assert_allclose(p_to_z(p, "two"), 2.51e-4, atol=5e-7)
    assert_allclose(-np.log10(p), 8.69e-5, atol=5e-8)


def test_null_to_p__empty_null_raises() -> None:
    with pytest.raises(ValueError, match="empty"):
        null_to_p(0, [], "upper")


def test_bonferroni__is_the_one_of_pvalues() -> None:
    assert_allclose(np.exp(bonferroni(np.log([0.01, 0.5]))), [0.02, 1])


# clusters


def test_cluster_measures__hand_computed() -> None:
    volume = line(2, 3, 1, 1.5, 0, 9, -9)
    clusters, largest = cluster_measures(volume, 1.0)
    # The voxel at the threshold parts the first two.
    assert clusters == [(2, 3.0), (1, 0.5), (1, 8.0)]
    assert largest == (2, 8.0)


def test_cluster_measures__faces_only() -> None:
    volume = np.zeros((3, 3, 3))
    for voxel in [(0, 0, 0), (0, 1, 1), (1, 1, 0), (1, 2, 1), (2, 2, 2)]:
        volume[voxel] = 2.0
    assert cluster_measures(volume, 0.5) == ([(1, 1.5)] * 5, (1, 1.5))
    volume[0, 0, 1] = 2.0  # joins the first two
    assert cluster_measures(volume, 0.5)[1] == (3, 4.5)


def test_cluster_measures__none() -> None:
    assert cluster_measures(line(1, 1), 1.0) == ([], (0, 0.0))


def test_cluster_measures__two_tailed_signs_are_apart() -> None:
    clusters, largest = cluster_measures(line(2, -3, -4, 0), 1.0, "two")
    assert clusters == [(1, 1.0), (2, 5.0)]
    assert largest == (2, 5.0)
    assert cluster_measures(line(2, -3, -4, 0), 1.0)[1] == (1, 1.0)


def test_tfce__hand_computed() -> None:
    # Height 1: two voxels and one; height 2: one and one, 4 each; height 3: one, 9.
    root = math.sqrt(2)
    enhanced = tfce(line(0, 1, 2, 0, 3, -5), 0.5, 2.0, 1.0)
    assert_allclose(enhanced, line(0, root, root + 4, 0, 14, 0), rtol=1e-15)


def test_tfce__step_scales_the_sum_and_heights_are_its_multiples() -> None:
    # Heights 0.5, 1, 1.5, not 2: the maximum is 1.75.
    assert_allclose(tfce(line(1.75), 1.0, 1.0, 0.5), line((0.5 + 1 + 1.5) * 0.5), rtol=1e-15)
    assert not tfce(line(0.4, -1), 0.5, 2.0, 0.5).any()


def test_tfce__faces_only() -> None:
    volume = np.zeros((2, 2, 1))
    volume[0, 0, 0] = volume[1, 1, 0] = 1.0
    assert_array_equal(tfce(volume, 1.0, 2.0, 1.0), volume)
    volume[0, 1, 0] = 1.0
    assert_array_equal(tfce(volume, 1.0, 2.0, 1.0), 3 * volume)


def test_tfce__close_to_the_integral() -> None:
    # One voxel of height 3: the integral of h^2 is 9.
    assert_allclose(tfce(line(3), 0.5, 2.0, 2.0**-10), line(9), rtol=1e-3)


# study weights


@pytest.mark.parametrize(
    ("transform", "expected"),
    [("sqrt", [0.5, 1.0, 1.5]), ("linear", [3 / 14, 12 / 14, 27 / 14]), ("none", [1, 1, 1])],
)
def test_study_weights__hand_computed(transform: Transform, expected: list[float]) -> None:
    assert_allclose(study_weights([4, 16, 36], transform), expected, rtol=1e-15)


def test_study_weights__discounts() -> None:
    # Raw 4 and 4 * 0.75 = 3: 8/7 and 6/7.
    assert_allclose(study_weights([16, 16], "sqrt", [1, 0.75]), [8 / 7, 6 / 7], rtol=1e-15)
    assert_allclose(study_weights([10, 90], "none", [1, 0.75]), [8 / 7, 6 / 7], rtol=1e-15)


def test_study_weights__equal_are_exactly_one() -> None:
    assert_array_equal(study_weights([13] * 7), np.ones(7))
    assert_array_equal(study_weights([13] * 7, "sqrt", [0.75] * 7), np.ones(7))


@pytest.mark.parametrize("size", [0, -4, math.nan])
def test_study_weights__need_sample_sizes(size: float) -> None:
    with pytest.raises(ValueError, match="sample size"):
        study_weights([20, size])


def test_inference_discount__names() -> None:
    names = ["fixed", "FFX", "Fixed-Effects", "fixed effects", "fe", "random", ""]
    assert [inference_discount(name) for name in names] == [0.75] * 5 + [1.0] * 2
