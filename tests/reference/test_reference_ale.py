"""The reference kernels, statistics and nulls against golden values and hand-made cases."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from .gaussian import ale_fwhm, ale_kernel, ale_modelled_activation, ale_sigma
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
from .summary import ale, kda, kda_modelled_activation, mkda, mkda_modelled_activation

MM2 = (2.0, 2.0, 2.0)
QUARTERS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def line(*values: float) -> np.ndarray:
    """Values as a volume (1, 1, voxel)."""
    return np.array(values, dtype=np.float64).reshape(1, 1, -1)


# gaussian


@pytest.mark.parametrize(
    ("n", "fwhm", "sigma", "edge", "peak"),
    [
        (5, 11.3733, 2.41491, 21, 0.00450863),
        (10, 10.0026, 2.12385, 17, 0.00662871),
        (15, 9.5018, 2.01752, 17, 0.0077322),
        (20, 9.24124, 1.9622, 17, 0.00840461),
        (30, 8.97312, 1.90527, 17, 0.00918059),
        (50, 8.75272, 1.85847, 15, 0.00989287),
        (100, 8.5837, 1.82258, 15, 0.0104884),
        (None, 10.0, 2.1233, 17, 0.00663381),
    ],
)
def test_ale_kernel__golden_2mm(
    n: int | None, fwhm: float, sigma: float, edge: int, peak: float
) -> None:
    width = 10.0 if n is None else ale_fwhm(n)
    assert_allclose(width, fwhm, rtol=5e-6)
    assert_allclose(ale_sigma(width, MM2), [sigma] * 3, rtol=5e-6)
    kernel = ale_kernel(width, MM2)
    assert kernel.shape == (edge, edge, edge)
    assert np.count_nonzero(kernel > 0) == edge**3
    assert_allclose(kernel.max(), peak, rtol=5e-6)
    assert kernel[edge // 2, edge // 2, edge // 2] == kernel.max()
    assert_allclose(kernel.sum(), 1, rtol=1e-13)


def test_ale_fwhm__hand_computed() -> None:
    # 17.118 / sqrt(N) and 8.411 mm, added in squares; an infinite sample leaves the template's.
    assert_allclose(ale_fwhm(1), math.hypot(17.118, 8.411), rtol=5e-5)
    assert_allclose(ale_fwhm(1e12), 8.411, rtol=5e-5)
    assert ale_fwhm(20) > ale_fwhm(20.5) > ale_fwhm(21)


@pytest.mark.parametrize("n", [0.0, -1.0, math.nan, math.inf])
def test_ale_fwhm__needs_a_sample_size(n: float) -> None:
    with pytest.raises(ValueError, match="sample size"):
        ale_fwhm(n)


def test_ale_kernel__is_the_outer_product_of_normal_densities() -> None:
    kernel = ale_kernel(ale_fwhm(20), MM2)
    x = np.arange(-8, 9) / ale_sigma(ale_fwhm(20), MM2)[0]
    line_kernel = np.exp(-(x**2) / 2)
    line_kernel /= line_kernel.sum()
    expected = line_kernel[:, None, None] * line_kernel[:, None] * line_kernel
    assert_allclose(kernel, expected, rtol=1e-12)


def test_ale_kernel__other_grids_keep_the_width_in_mm() -> None:
    zooms = (1.0, 2.0, 3.0)
    assert_allclose(ale_sigma(10.0, zooms), [4.2466, 2.1233, 1.41553], rtol=5e-6)
    kernel = ale_kernel(10.0, zooms)
    # Radius int(4 sigma + 0.5): 17, 8 and 6.
    assert kernel.shape == (35, 17, 13)
    assert_allclose(kernel.sum(), 1, rtol=1e-13)
    # Second moments in mm, somewhat less than sigma^2 for being cut at 4 sigma.
    for axis, zoom in enumerate(zooms):
        x = (np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2) * zoom
        others = tuple(other for other in range(3) if other != axis)
        assert_allclose(kernel.sum(axis=others) @ x**2, (10 / 2.354820) ** 2, rtol=5e-3)


def test_ale_kernel__box_of_31_cuts_a_wide_kernel_off() -> None:
    kernel = ale_kernel(24.0, MM2)  # sigma 5.1 voxels, radius 20
    assert kernel.shape == (31, 31, 31)
    assert 0.97 < kernel.sum() < 1 - 1e-3


def test_ale_modelled_activation__one_focus() -> None:
    kernel = ale_kernel(ale_fwhm(20), MM2)
    volume = ale_modelled_activation(np.array([[10, 11, 12]]), kernel, (20, 21, 22))
    assert volume.dtype == np.float32
    assert_array_equal(np.argwhere(volume == volume.max()), [[10, 11, 12]])
    assert_array_equal(volume[2:19, 3:20, 4:21], kernel.astype(np.float32))
    assert np.count_nonzero(volume) == 17**3


def test_ale_modelled_activation__hand_computed_maximum_and_duplicates() -> None:
    kernel = line(0.25, 0.5, 0.25)
    foci = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 2], [0, 0, 5]])
    volume = ale_modelled_activation(foci, kernel, (1, 1, 7))
    assert_array_equal(volume, line(0.25, 0.5, 0.5, 0.25, 0.25, 0.5, 0.25))


def test_ale_modelled_activation__outside_foci_reach_in_and_do_not_wrap() -> None:
    kernel = line(0.1, 0.2, 0.4, 0.2, 0.1)
    shape = (1, 1, 4)
    before = ale_modelled_activation([[0, 0, -1]], kernel, shape)
    assert_allclose(before, line(0.2, 0.1, 0, 0))
    after = ale_modelled_activation([[0, 0, 5]], kernel, shape)
    assert_allclose(after, line(0, 0, 0, 0.1))
    far = ale_modelled_activation([[0, 0, -3], [0, 0, 7], [1, 0, 0], [0, -1, 0]], kernel, shape)
    assert not far.any()


def test_ale_modelled_activation__same_as_blurring_a_delta() -> None:
    fwhm = ale_fwhm(50)
    shape, focus = (9, 10, 11), (0, 9, 5)
    delta = np.zeros(shape)
    delta[focus] = 1
    expected = ndimage.gaussian_filter(delta, ale_sigma(fwhm, MM2), mode="constant")
    volume = ale_modelled_activation([focus], ale_kernel(fwhm, MM2), shape)
    assert_allclose(volume, expected, rtol=1e-6)


def test_ale_modelled_activation__ijk_must_be_integers_and_may_be_empty() -> None:
    with pytest.raises(ValueError, match="integers"):
        ale_modelled_activation([[0.5, 0, 0]], line(1.0), (1, 1, 1))
    assert not ale_modelled_activation(np.empty((0, 3)), line(1.0), (1, 1, 3)).any()


# summary


def test_modelled_activation__union_and_sum_of_spheres() -> None:
    foci = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 2], [0, 0, 7]])
    union = mkda_modelled_activation(foci, (1, 1, 7), MM2, 2, 3.0)
    assert_array_equal(union, line(3, 3, 3, 3, 0, 0, 3))
    total = kda_modelled_activation(foci, (1, 1, 7), MM2, 2, 3.0)
    assert_array_equal(total, line(3, 9, 9, 6, 0, 0, 3))
    nothing = np.empty((0, 3), dtype=np.int64)
    assert not mkda_modelled_activation(nothing, (1, 1, 7), MM2, 2).any()
    assert not kda_modelled_activation(nothing, (1, 1, 7), MM2, 2).any()


def test_ale__hand_computed() -> None:
    # 1 - (1/2)(3/4)(1/2) = 13/16.
    studies = [line(0.5, 0, 0.25, 1), line(0.25, 0, 0, 0.5), line(0.5, 0, 0, 0)]
    assert_array_equal(ale(studies), line(13 / 16, 0, 0.25, 1))


def test_ale__equals_one_minus_the_product() -> None:
    studies = np.random.default_rng(0).uniform(0, 0.2, size=(30, 2, 3, 4)).astype(np.float32)
    expected = 1 - np.prod(1 - studies.astype(np.float64), axis=0)
    assert_allclose(ale(list(studies)), expected, rtol=1e-14)
    # 1 - (1 - x) would lose all of this.
    assert_allclose(ale([line(1e-20), line(2e-20)]), line(3e-20), rtol=1e-15)


def test_mkda_and_kda__hand_computed() -> None:
    studies = [line(1, 0, 1), line(1, 1, 0)]
    assert_array_equal(mkda(studies), line(2, 1, 1))
    assert_array_equal(mkda(studies, [1.5, 0.5]), line(2, 0.5, 1.5))
    assert_array_equal(kda([line(2, 0, 1), line(1, 3, 0)]), line(3, 3, 1))


def test_summary__bad_input_raises() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ale([])
    with pytest.raises(ValueError, match="same shape"):
        kda([line(1), line(1, 2)])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ale([line(1.5)])


# nulls: histograms


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


# nulls: Poisson-binomial


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


# nulls: p-values


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


# nulls: clusters


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


# nulls: study weights


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
