"""The reference comparisons of two groups against golden values, scipy and hand-made cases."""

import itertools
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from .chi2 import one_way, two_way
from .nulls import cluster_measures
from .pvalues import p_to_z
from .summary import ale
from .two_groups import (
    ale_of,
    association_chi2,
    balanced_p_z,
    chi2_fwe,
    chi2_maxima,
    chosen_rows,
    cluster_size_threshold,
    clusters_above,
    label_permutation_maxima,
    mean_difference,
    minimum_statistic,
    probability_of_clusters,
    random_foci_maxima,
    share_at_least,
    subset_schedule,
    subtraction_difference,
    subtraction_fwe,
    subtraction_inference_p_z,
    subtraction_maxima,
    subtraction_p_z,
    subtraction_permutations,
    subtraction_threshold,
    tail_counts,
    uniformity_chi2,
)

BoolArray = npt.NDArray[np.bool_]

# Voxels: never active | all | group 1 only | group 2 only | balanced.
ACTIVE = np.array(
    [
        [0, 1, 1, 0, 1],
        [0, 1, 1, 0, 0],
        [0, 1, 0, 1, 1],
        [0, 1, 0, 1, 1],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
    ],
    dtype=bool,
)
COUNTS_1, COUNTS_2 = [0, 2, 2, 0, 1], [0, 4, 0, 2, 2]

#: Modelled activations (analysis, voxel), whose products are exact.
HALVES = np.array([[0.5, 0.0], [0.5, 0.5], [0.0, 0.5], [0.0, 0.0]])
PAIRS = np.array(list(itertools.combinations(range(4), 2)))


def row(n: int, hole: int | None = None) -> BoolArray:
    """Return a mask (1, 1, n) of all voxels but the ``hole``."""
    mask = np.ones((1, 1, n), dtype=bool)
    if hole is not None:
        mask[0, 0, hole] = False
    return mask


def p_of(u: float) -> float:
    """Return the p of chi2 ``u``, to be given as a voxel threshold."""
    return float(stats.chi2.sf(u, 1))


# chi-square


def test_association_chi2__golden() -> None:
    chi2, sign = association_chi2([30, 5], [60, 45], 100, 900)
    assert_allclose(chi2, [59.8290598290598, 0], rtol=1e-14)
    assert_array_equal(sign, [1, 0])


def test_association_chi2__hand_computed() -> None:
    # Third voxel: 6 * (2*4 - 0)^2 / (2 * 4 * 2 * 4); fourth: 6 * (0 - 2*2)^2 / (2 * 4 * 2 * 4).
    chi2, sign = association_chi2(COUNTS_1, COUNTS_2, 2, 4)
    assert_array_equal(chi2, [2, 2, 6, 1.5, 0])
    assert_array_equal(sign, [0, 0, 1, -1, 0])


def test_association_chi2__degenerate_is_a_choice() -> None:
    chi2, sign = association_chi2(COUNTS_1, COUNTS_2, 2, 4, degenerate=0.0)
    assert_array_equal(chi2, [0, 0, 6, 1.5, 0])
    assert_array_equal(sign, [0, 0, 1, -1, 0])


def test_association_chi2__every_table_of_two_small_groups() -> None:
    n_1, n_2 = 4, 7
    tables = list(itertools.product(range(n_1 + 1), range(n_2 + 1)))
    a, b = [x for x, _ in tables], [y for _, y in tables]
    chi2, sign = association_chi2(a, b, n_1, n_2)
    assert_array_equal(chi2, two_way(a, b, n_1, n_2))
    for x, y, value, s in zip(a, b, chi2, sign, strict=True):
        assert s == np.sign(x / n_1 - y / n_2)
        if 0 < x + y < n_1 + n_2:
            table = [[x, y], [n_1 - x, n_2 - y]]
            expected = stats.chi2_contingency(table, correction=False).statistic
            assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
        else:
            assert value == 2


def test_association_chi2__swapped_groups() -> None:
    chi2, sign = association_chi2(COUNTS_1, COUNTS_2, 2, 4)
    swapped, swapped_sign = association_chi2(COUNTS_2, COUNTS_1, 4, 2)
    assert_array_equal(swapped, chi2)
    assert_array_equal(swapped_sign, -sign)


def test_association_chi2__large_counts_do_not_overflow() -> None:
    n = 2**16
    assert_array_equal(association_chi2([n], [0], n, n)[0], [2 * n])


def test_association_chi2__more_active_than_studies_raises() -> None:
    with pytest.raises(ValueError, match="within"):
        association_chi2([3], [0], 2, 2)


def test_uniformity_chi2__golden() -> None:
    chi2, sign = uniformity_chi2([3, 0, 1, 7, 2, 2], 21)
    golden = [0.1135135, 2.8378378, 1.0216216, 9.1945946, 0.1135135, 0.1135135]
    assert_allclose(chi2, golden, atol=5e-8)
    assert_array_equal(sign, [1, -1, -1, 1, -1, -1])  # the mean is 2.5
    assert_array_equal(chi2, one_way([3, 0, 1, 7, 2, 2], 21))


def test_uniformity_chi2__matches_goodness_of_fit() -> None:
    counts, n = np.array([3, 0, 1, 7, 2, 2]), 21
    e = counts.mean()
    for x, value in zip(counts, uniformity_chi2(counts, n)[0], strict=True):
        assert_allclose(value, stats.chisquare([x, n - x], [e, n - e]).statistic, rtol=1e-13)


@pytest.mark.parametrize("counts", [[0, 0, 0], [5, 5, 5]])
def test_uniformity_chi2__nothing_or_everything_active(counts: list[int]) -> None:
    chi2, sign = uniformity_chi2(counts, 5)
    assert_array_equal(chi2, [0, 0, 0])
    assert_array_equal(sign, [0, 0, 0])


# clusters


def test_clusters_above__strict_and_by_faces_within_the_mask() -> None:
    found = clusters_above([2, 3, 1, 1.5, 9, 9], row(7, hole=5), 1.0)
    # Volume: 2 3 1 1.5 9 | 9. The voxel at the threshold and the hole part the clusters.
    assert [members.tolist() for members in found] == [[0, 1], [3, 4], [5]]
    corner = np.zeros((2, 2, 1))
    corner[0, 0, 0] = corner[1, 1, 0] = 1.0
    found = clusters_above(corner.ravel(), np.ones((2, 2, 1), dtype=bool), 0.5)
    assert [members.tolist() for members in found] == [[0], [3]]


# the null of chi-square


def test_chi2_maxima__hand_computed() -> None:
    # chi2: uniformity 2 2 2 2 0; association 2 2 6 3/2 0; group 2 8/3 6 8/3 1/6 1/6.
    # One cluster of association for all its signs: 0, 0, 1 and -1.
    maxima = chi2_maxima(COUNTS_1, COUNTS_2, 2, 4, row(5), p_of(1.0))
    assert_allclose(maxima, [[2.0, 4.0, 4.0], [6.0, 4.0, 7.5], [6.0, 3.0, 25 / 3]])


def test_chi2_maxima__hole_in_the_mask_parts_clusters() -> None:
    maxima = chi2_maxima(COUNTS_1, COUNTS_2, 2, 4, row(6, hole=3), p_of(1.0))
    assert_allclose(maxima, [[2.0, 3.0, 3.0], [6.0, 3.0, 7.0], [6.0, 3.0, 25 / 3]])


def test_chi2_maxima__degenerate_voxels_can_be_left_out() -> None:
    maxima = chi2_maxima(COUNTS_1, COUNTS_2, 2, 4, row(5), p_of(1.0), degenerate=0.0)
    assert_allclose(maxima, [[2.0, 4.0, 4.0], [6.0, 2.0, 5.5], [6.0, 3.0, 25 / 3]])
    nothing = [0, 0, 0]
    assert_allclose(chi2_maxima(nothing, nothing, 2, 4, row(3), 0.001)[1], [2, 0, 0])
    assert not chi2_maxima(nothing, nothing, 2, 4, row(3), 0.001, degenerate=0.0).any()


def test_chi2_maxima__golden_threshold() -> None:
    # chi2.isf(.001) is 10.827566170662733: 12 is above it, 10.8 is not.
    assert_allclose(stats.chi2.isf(0.001, 1), 10.827566170662733, rtol=1e-14)
    # 6 of 6 against 0 of 6 is 12; 3 of 3 against 1 of 12 is 15 * 33^2 / (4*11*3*12) = 10.31.
    maxima = chi2_maxima([6, 0], [0, 0], 6, 6, row(2), 0.001)
    assert_allclose(maxima[1], [12, 1, 12 - 10.827566170662733])
    maxima = chi2_maxima([3, 0], [1, 0], 3, 12, row(2), 0.001)
    assert_allclose(maxima[1], [15 * 33**2 / (4 * 11 * 3 * 12), 0, 0])


def test_chosen_rows__golden_shuffles() -> None:
    assert_array_equal(chosen_rows(6, 6, [0, 1]), [[3, 2, 5, 4, 0, 1], [4, 0, 2, 1, 5, 3]])
    assert_array_equal(chosen_rows(6, 2, [0, 1]), [[3, 2], [4, 0]])


def test_label_permutation_maxima__hand_computed_and_swapped() -> None:
    chosen = [[0, 1], [1, 0]]
    maxima = label_permutation_maxima(ACTIVE, chosen, row(5), p_of(1.0))
    assert maxima.dtype == np.float64
    assert_allclose(maxima, [[[2.0, 4.0, 4.0], [6.0, 4.0, 7.5], [6.0, 3.0, 25 / 3]]] * 2)
    assert_array_equal(maxima[0], maxima[1])  # the order of the rows of a group is nothing
    # Groups swapped: association as it was, uniformity and group 2 change places.
    swapped = label_permutation_maxima(ACTIVE, [[2, 3, 4, 5]], row(5), p_of(1.0))
    assert_array_equal(swapped[0], maxima[0][[2, 1, 0]])
    degenerate = label_permutation_maxima(ACTIVE, [[0, 1]], row(5), p_of(1.0), degenerate=0.0)
    assert_allclose(degenerate[0, 1], [6, 2, 5.5])


def test_label_permutation_maxima__against_whole_volumes() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((4, 5, 6)) < 0.8
    active = rng.random((9, np.count_nonzero(mask))) < 0.3
    chosen = chosen_rows(9, 4, range(5))
    u = 1.5
    maxima = label_permutation_maxima(active, chosen, mask, p_of(u))
    for rows, found in zip(chosen, maxima, strict=True):
        others = np.setdiff1d(np.arange(9), rows)
        a, b = active[rows].sum(axis=0), active[others].sum(axis=0)
        maps = (one_way(a, 4), two_way(a, b, 4, 5), one_way(b, 5))
        for chi2, largest in zip(maps, found, strict=True):
            volume = np.zeros(mask.shape)
            volume[mask] = chi2
            assert_allclose(largest, [chi2.max(), *cluster_measures(volume, u)[1]], rtol=1e-12)


@pytest.mark.parametrize("rows", [[0, 0], [5, 6], [0, 1, 2, 3, 4, 5]])
def test_label_permutation_maxima__rows_that_are_no_group_raise(rows: list[int]) -> None:
    with pytest.raises((ValueError, IndexError)):
        label_permutation_maxima(ACTIVE, [rows], row(5), 0.001)


def test_random_foci_maxima__hand_computed() -> None:
    # Counts 2 2 1 0 of 2, and 0 0 1 1 of 1. chi2: uniformity 6/5 6/5 2/15 10/3 (mean 5/4);
    # association 3 3 3/4 3; group 2 is 1 everywhere.
    group_1 = [[[0, 0, 0], [0, 0, 0]], [[0, 0, 1]]]
    maxima = random_foci_maxima(group_1, [[[0, 0, 3]]], row(4), (2, 2, 2), 2, p_of(0.5))
    assert_allclose(maxima, [[10 / 3, 2.0, 10 / 3 - 0.5], [3.0, 4.0, 7.75], [1.0, 4.0, 2.0]])


def test_random_foci_maxima__a_study_without_foci_counts() -> None:
    group_1 = [np.array([[0, 0, 0]]), np.empty((0, 3), dtype=np.int64)]
    maxima = random_foci_maxima(group_1, [[[0, 0, 3]]], row(4), (2, 2, 2), 2, p_of(0.5))
    assert_array_equal(
        maxima, chi2_maxima([1, 1, 0, 0], [0, 0, 1, 1], 2, 1, row(4), p_of(0.5), 2.0)
    )


def test_share_at_least__ties_count_and_never_zero() -> None:
    assert share_at_least([1, 2, 2, 3], 2) == 0.75
    assert share_at_least([1, 2, 2, 3], 4) == 0.25
    assert share_at_least([1, 2, 2, 3], 0) == 1


def test_chi2_fwe__hand_computed() -> None:
    # Clusters of chi2 > 2: voxels 1 and 2 (size 2, mass 3), voxel 4 (size 1, mass 7).
    maxima = np.array([[4, 2, 3.1], [3, 1, 0.5], [10, 0, 7.1], [1, 3, 8]])
    sign = [1, -1, 0, 1, -1]
    maps = chi2_fwe([0, 4, 3, 0.5, 9], sign, maxima, row(5), p_of(2.0))
    assert_array_equal(maps["p_voxel"], [1, 0.5, 0.75, 1, 0.25])
    assert_array_equal(maps["p_size"], [1, 0.5, 0.5, 1, 0.75])
    assert_array_equal(maps["p_mass"], [1, 0.75, 0.75, 1, 0.5])
    for inference in ("voxel", "size", "mass"):
        p = maps[f"p_{inference}"]
        assert_allclose(maps[f"z_{inference}"], stats.norm.isf(p / 2) * sign, atol=1e-15)
        assert_allclose(maps[f"logp_{inference}"], -np.log10(p), atol=1e-15)
    assert len(maps) == 9


def test_chi2_fwe__golden_floor_and_no_cluster() -> None:
    maps = chi2_fwe([20, 0], [-1, 1], np.zeros((1000, 3)), row(2), 0.001)
    for inference in ("voxel", "size", "mass"):
        assert_allclose(maps[f"p_{inference}"], [0.001, 1])
        assert_allclose(maps[f"z_{inference}"], [-3.2905267, 0], atol=6e-8)
        assert_allclose(maps[f"logp_{inference}"], [3, 0])


def test_chi2_fwe__observed_labels_tie_with_themselves() -> None:
    mask, voxel_thresh = row(5), p_of(1.0)
    maxima = label_permutation_maxima(ACTIVE, [[0, 1], [1, 0]], mask, voxel_thresh)
    chi2, sign = association_chi2(COUNTS_1, COUNTS_2, 2, 4)
    maps = chi2_fwe(chi2, sign, maxima[:, 1], mask, voxel_thresh)
    assert_array_equal(maps["p_voxel"], [1] * 5)
    assert_array_equal(maps["p_size"], [1] * 5)
    assert_array_equal(maps["p_mass"], [1] * 5)


# ALE differences


def test_ale_of__hand_computed() -> None:
    assert_array_equal(ale_of(HALVES, [0, 1]), [0.75, 0.5])
    assert_array_equal(ale_of(HALVES, [3]), [0, 0])


def test_ale_of__exact_product_and_other_form() -> None:
    activation = np.random.default_rng(1).random((7, 20)) ** 4
    rows = [0, 2, 3, 6]
    found = ale_of(activation, rows)
    for voxel in range(20):
        remaining = math.prod(1 - Fraction(float(activation[row, voxel])) for row in rows)
        assert_allclose(found[voxel], float(1 - remaining), atol=1e-15, rtol=0)
    assert_allclose(found, ale(list(activation[rows])), atol=1e-15, rtol=0)


def test_ale_of__order_of_rows_and_of_equal_values_changes_no_bit() -> None:
    activation = np.random.default_rng(2).random((6, 50))
    assert_array_equal(ale_of(activation, [0, 1, 2]), ale_of(activation, [2, 0, 1]))
    again = np.vstack([activation[:3], activation[[2, 0, 1]]])
    assert not subtraction_difference(again, [0, 1, 2]).any()


def test_subtraction_permutations__hand_computed() -> None:
    # Groups 01, 02, 03, 12, 13, 23.
    differences = subtraction_permutations(HALVES, PAIRS)
    assert_array_equal(differences[:, 0], [0.75, 0, 0, 0, 0, -0.75])
    assert_array_equal(differences[:, 1], [0, 0, -0.75, 0.75, 0, 0])


def test_subtraction_p_z__hand_computed() -> None:
    observed = subtraction_difference(HALVES, [0, 1])
    assert_array_equal(observed, [0.75, 0])
    differences = subtraction_permutations(HALVES, PAIRS)
    up, lo = tail_counts(observed, differences)
    assert_array_equal(up, [1, 5])
    assert_array_equal(lo, [6, 5])
    p, z = subtraction_p_z(observed, differences)
    assert_allclose(p, [2 / 6, 1])  # 10/6 is cut to 1
    assert_allclose(z, [stats.norm.isf(1 / 6), 0])


def test_subtraction_p_z__never_below_one_over_n() -> None:
    p, z = subtraction_p_z([5.0, -5.0], np.zeros((4, 2)))
    assert_array_equal(p, [0.25, 0.25])
    assert_allclose(z, [stats.norm.isf(0.125), -stats.norm.isf(0.125)])


def test_subtraction__swapped_groups() -> None:
    activation = np.random.default_rng(3).random((8, 30)) * (
        np.random.default_rng(4).random((8, 30)) < 0.4
    )
    chosen = chosen_rows(8, 3, range(40))
    others = np.array([np.setdiff1d(np.arange(8), rows) for rows in chosen])
    observed = subtraction_difference(activation, range(3))
    swapped = subtraction_difference(activation, range(3, 8))
    assert_array_equal(swapped, -observed)
    differences = subtraction_permutations(activation, chosen)
    swapped_differences = subtraction_permutations(activation, others)
    assert_array_equal(swapped_differences, -differences)
    up, lo = tail_counts(observed, differences)
    assert_array_equal(tail_counts(swapped, swapped_differences), (lo, up))
    p, z = subtraction_p_z(observed, differences)
    swapped_p, swapped_z = subtraction_p_z(swapped, swapped_differences)
    assert_array_equal(swapped_p, p)
    assert_array_equal(swapped_z, -z)


def test_subtraction_inference_p_z__hand_computed() -> None:
    differences = subtraction_permutations(HALVES, PAIRS)[:, [0, 0, 0, 0, 1]]
    observed = [0.75, 0.75, -0.75, -0.75, 0.0]
    p, z = subtraction_inference_p_z(
        observed, differences, [True, False, False, True, True], [False, True, True, False, True]
    )
    assert_allclose(p, [1 / 6, 1, 1 / 6, 1, 1])
    assert_allclose(z, [stats.norm.isf(1 / 6), 0, -stats.norm.isf(1 / 6), 0, 0], atol=1e-15)


def test_subtraction_inference_p_z__one_tailed_z_is_never_of_the_other_sign() -> None:
    p, z = subtraction_inference_p_z([0.5], [[1], [1], [1], [0]], [True], [False])
    assert_array_equal(p, [0.75])
    assert_array_equal(z, [0])
    p, z = subtraction_inference_p_z([0.5], np.zeros((4, 1)), [True], [False])
    assert_array_equal(p, [0.25])
    assert_array_equal(z, p_to_z([0.25], "one"))


def test_subtraction_threshold__hand_computed() -> None:
    # |D| sorted: eight times 0, then four times 0.75; position 7.5 of 0..11 is half-way.
    differences = subtraction_permutations(HALVES, PAIRS)
    assert_allclose(subtraction_threshold(differences, 3.5 / 11), 0.375)
    assert subtraction_threshold(differences, 0.0) == 0.75


def test_subtraction_maxima__hand_computed() -> None:
    # The signs part voxel 0 from 1 and 2; size and mass are of the negative cluster.
    maxima = subtraction_maxima([[2.0, -3.0, -4.0, 0.0, 1.5], [0.0] * 5], row(5), 1.0)
    assert_array_equal(maxima, [[4, 2, 5], [0, 0, 0]])


def test_subtraction_maxima__against_whole_volumes() -> None:
    rng = np.random.default_rng(5)
    mask = rng.random((5, 4, 6)) < 0.8
    differences = rng.normal(size=(6, np.count_nonzero(mask)))
    for difference, found in zip(
        differences, subtraction_maxima(differences, mask, 0.3), strict=True
    ):
        volume = np.zeros(mask.shape)
        volume[mask] = difference
        expected = [np.abs(difference).max(), *cluster_measures(volume, 0.3, "two")[1]]
        assert_allclose(found, expected, rtol=1e-14)
    assert_array_equal(
        subtraction_maxima(-differences, mask, 0.3), subtraction_maxima(differences, mask, 0.3)
    )


def test_subtraction_fwe__hand_computed() -> None:
    # Clusters: voxel 0 (1, mass 1), voxels 1 and 2 (2, mass 5), voxel 4 (1, mass 0.5).
    maxima = np.array([[4, 2, 5], [3, 1, 1], [2, 3, 0.5], [1, 0, 0]])
    sign = [1, -1, 1, 0, -1]
    maps = subtraction_fwe([2, -3, -4, 0, 1.5], sign, maxima, row(5), 1.0)
    assert_array_equal(maps["p_voxel"], [0.75, 0.5, 0.25, 1, 0.75])
    assert_array_equal(maps["p_size"], [0.75, 0.5, 0.5, 1, 0.75])
    assert_array_equal(maps["p_mass"], [0.5, 0.25, 0.25, 1, 0.75])
    for inference in ("voxel", "size", "mass"):
        p = maps[f"p_{inference}"]
        assert_allclose(maps[f"z_{inference}"], stats.norm.isf(p / 2) * sign, atol=1e-15)
    by_z_map = subtraction_fwe([2, -3, -4, 0, 1.5], np.multiply(sign, 0.3), maxima, row(5), 1.0)
    assert_array_equal(by_z_map["z_mass"], maps["z_mass"])


# conjunction


def test_minimum_statistic__hand_computed() -> None:
    first, second = [3.0, 2.0, -3.0, 2.0, -2.0, 0.0], [1.0, 4.0, -1.0, -1.0, 1.0, 5.0]
    assert_array_equal(minimum_statistic(first, second), [1, 2, -1, 0, 0, 0])
    assert_array_equal(minimum_statistic(second, first), [1, 2, -1, 0, 0, 0])


def test_minimum_statistic__is_the_minimum_of_maps_that_are_not_negative() -> None:
    first, second = np.random.default_rng(6).random((2, 20))
    first[3], second[7] = 0, 0
    assert_array_equal(minimum_statistic(first, second), np.minimum(first, second))
    assert_array_equal(minimum_statistic(-first, -second), -np.minimum(first, second))


# groups of equal size


def test_subset_schedule__one_left_out_in_turn() -> None:
    expected = [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert_array_equal(subset_schedule(4, 3, None, 1, 0), expected)
    assert_array_equal(subset_schedule(4, 3, 2, 1, 0), expected)


def test_subset_schedule__all_when_few() -> None:
    for n_samples in (None, 6, 100):
        assert_array_equal(subset_schedule(4, 2, n_samples, 10, 0), PAIRS)
    assert_array_equal(subset_schedule(3, 3, 5, 10, 0), [[0, 1, 2]])


def test_subset_schedule__too_many_to_list() -> None:
    with pytest.raises(ValueError, match="limit"):
        subset_schedule(4, 2, None, 5, 0)


def test_subset_schedule__drawn_are_distinct_sorted_and_reproducible() -> None:
    drawn = subset_schedule(10, 4, 50, 1000, 7)
    assert drawn.shape == (50, 4)
    assert np.all(np.diff(drawn, axis=1) > 0)
    rows = [tuple(subset) for subset in drawn.tolist()]
    assert rows == sorted(set(rows))
    assert_array_equal(drawn, subset_schedule(10, 4, 50, 10_000, 7))
    assert not np.array_equal(drawn, subset_schedule(10, 4, 50, 1000, 8))


def test_subset_schedule__draws_are_the_first_of_a_random_state() -> None:
    rng = np.random.RandomState(3)
    by_choice = sorted(sorted(rng.choice(30, 5, replace=False).tolist()) for _ in range(4))
    assert_array_equal(subset_schedule(30, 5, 4, 1000, 3), by_choice)


def test_cluster_size_threshold__hand_computed() -> None:
    # Largest sizes 3, 0 and 1; percentile 75 of 0 1 3 is 2.
    z = [[4, 4, 4, 0], [3, 3, 3, 3], [4, 3, 4, 0]]
    assert_allclose(cluster_size_threshold(z, row(4), 3.0, 0.25), 2)
    assert_allclose(cluster_size_threshold(z, row(4), 3.0, 0.0), 3)


def test_probability_of_clusters__hand_computed() -> None:
    # Sizes 2 and 1 | 3 | 1, at the threshold none | none; more than 1 survives.
    z = [[4, 4, 0, 4], [0, 4, 5, 6], [3, 3, 3, 4], [0, 0, 0, 0]]
    assert_array_equal(probability_of_clusters(z, row(4), 3.0, 1), [1 / 4, 2 / 4, 1 / 4, 1 / 4])
    assert_array_equal(probability_of_clusters(z, row(4), 3.0, 0.5), [1 / 4, 2 / 4, 1 / 4, 3 / 4])
    assert not probability_of_clusters(z, row(4), 3.0, 3).any()


def test_mean_difference__hand_computed() -> None:
    # ALE of 01, 12, and of 23, 03: 3/4 1/2, 1/2 3/4, 0 1/2, 1/2 0.
    found = mean_difference(HALVES, HALVES, [[0, 1], [1, 2]], [[2, 3], [0, 3]])
    assert_array_equal(found, [(0.75 + 0) / 2, (0 + 0.75) / 2])


def test_mean_difference__swapped_groups_and_whole_groups() -> None:
    first, second = np.random.default_rng(8).random((2, 5, 12))
    one, two = [[0, 1], [2, 4], [1, 3]], [[3, 4], [0, 1], [0, 2]]
    there = mean_difference(first, second, one, two)
    assert_array_equal(mean_difference(second, first, two, one), -there)
    whole = mean_difference(first, second, [range(5)], [range(5)])
    pooled = np.vstack([first, second])
    assert_array_equal(whole, subtraction_difference(pooled, range(5)))


def test_balanced_p_z__hand_computed() -> None:
    # Percentile 95 of 1..20 is 1 + 0.95 * 19 = 19.05; 80 is 16.2.
    null_max = np.random.default_rng(9).permutation(np.arange(1.0, 21.0))
    observed = [19.0, 19.5, 25.0, -19.0, -19.5, -25.0, 0.0]
    p, z = balanced_p_z(observed, -null_max, null_max, 0.1)
    assert_allclose(p, [1, 0.05, 0.05, 1, 0.05, 0.05, 1])
    high = 1.6448536
    assert_allclose(z, [0, high, high, 0, -high, -high, 0], atol=6e-8)
    p, z = balanced_p_z([17.0, -17.0], -null_max, null_max, 0.4)
    assert_allclose(p, [4 / 20, 4 / 20])  # 17, 18, 19, 20: a tie counts
    assert_allclose(z, [stats.norm.isf(0.2), -stats.norm.isf(0.2)])


def test_balanced_p_z__a_voxel_at_the_threshold_is_not_significant() -> None:
    p, z = balanced_p_z([2.0, -2.0], [-2.0] * 5, [2.0] * 5, 0.05)
    assert_array_equal(p, [1, 1])
    assert_array_equal(z, [0, 0])
