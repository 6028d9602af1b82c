"""The reference implementations against published vectors, golden values and hand-made cases."""

import math

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from .chi2 import mkda_chi2, one_way, two_way
from .kernel import mkda_map, mkda_maps, sphere_offsets
from .pvalues import Method, Tail, bonferroni, chi2_to_nlogp, corrected_z, fdr, nlogp_to_z, p_to_z
from .space import lancaster_mni2tal, lancaster_tal2mni, mm_to_voxel

MNI_2MM = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1.0]])
ALE_2MM = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1.0]])
LANCASTER_POINTS = np.array([[-44.0, 31, 27], [20, -32, 14], [28, -76, 28]])


# space


def test_lancaster_tal2mni__published_vectors() -> None:
    expected = [
        [-45.83997568, 35.97904559, 23.55194326],
        [22.69248975, -31.34145016, 13.91284087],
        [31.53113226, -76.61685748, 33.22105166],
    ]
    assert_allclose(lancaster_tal2mni(LANCASTER_POINTS), expected, atol=5e-9, rtol=0)


def test_lancaster_mni2tal__published_vectors() -> None:
    expected = [
        [-42.3176, 26.0594, 29.7364],
        [17.4781, -32.6076, 14.0009],
        [24.7353, -75.0184, 23.3283],
    ]
    assert_allclose(lancaster_mni2tal(LANCASTER_POINTS), expected, atol=5.1e-5, rtol=0)


def test_lancaster_mni2tal__hand_computed() -> None:
    # The origin gives the translation; (10, 0, 0) adds ten times the first column.
    expected = [[-1.0423, -1.3940, 3.6475], [8.3147, -1.4590, 3.7505]]
    assert_allclose(lancaster_mni2tal([[0, 0, 0], [10, 0, 0]]), expected, atol=1e-12)


def test_lancaster__round_trip() -> None:
    assert_allclose(lancaster_mni2tal(lancaster_tal2mni(LANCASTER_POINTS)), LANCASTER_POINTS)


def test_lancaster__other_shapes_raise() -> None:
    with pytest.raises(ValueError, match="shape"):
        lancaster_mni2tal([[1, 2], [3, 4]])


def test_mm_to_voxel__known_points() -> None:
    assert_array_equal(
        mm_to_voxel([[20, 20, 20], [0, 0, 0]], MNI_2MM), [[55, 73, 46], [45, 63, 36]]
    )


@pytest.mark.parametrize(
    ("x", "i"), [(-44, 23), (-45, 22), (-43, 24), (-91, 0), (-93, -2), (-92, -1), (93, 92)]
)
def test_mm_to_voxel__ties_go_to_even(x: int, i: int) -> None:
    assert mm_to_voxel([[x, 0, 0]], MNI_2MM)[0, 0] == i


def test_mm_to_voxel__flipped_axis() -> None:
    # (90 - x) / 2: 0 for 90, 45 for 0, 90 for -90, and 44.5 -> 44 for 1.
    points = [[90, 0, 0], [0, 0, 0], [-90, 0, 0], [1, 0, 0]]
    assert_array_equal(mm_to_voxel(points, ALE_2MM)[:, 0], [0, 45, 90, 44])


def test_mm_to_voxel__nan_raises() -> None:
    with pytest.raises(ValueError, match="finite"):
        mm_to_voxel([[np.nan, 0, 0]], MNI_2MM)


# kernel


@pytest.mark.parametrize(
    ("r", "count"),
    [(2, 7), (4, 33), (6, 123), (8, 257), (10, 515), (12, 925), (14, 1419), (15, 1791)],
)
def test_sphere_offsets__golden_counts_2mm(r: int, count: int) -> None:
    offsets = sphere_offsets((2, 2, 2), r)
    assert offsets.shape == (count, 3)
    assert len({tuple(row) for row in offsets.tolist()}) == count


def test_sphere_offsets__hand_computed() -> None:
    expected = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    assert_array_equal(sphere_offsets((2, 2, 2), 2), expected)


def test_sphere_offsets__anisotropic_and_tiny() -> None:
    # 3 mm reaches one voxel of 3 mm, one of 2 mm, none of 4 mm; 3-2 diagonals are too far.
    expected = [[-1, 0, 0], [0, -1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert_array_equal(sphere_offsets((3, 2, 4), 3), expected)
    assert_array_equal(sphere_offsets((2, 2, 2), 1), [[0, 0, 0]])


def test_mkda_map__hand_computed() -> None:
    mask = np.ones((3, 3, 3), dtype=bool)
    mask[1, 1, 2] = False
    active = mkda_map(np.array([[1, 1, 1]]), mask, (2, 2, 2), 2)
    assert active.dtype == np.bool_
    assert active.shape == (26,)
    # C order of the 27 voxels: 4, 10, 12, 13, (14 is outside the mask), 16, 22.
    assert_array_equal(np.flatnonzero(active), [4, 10, 12, 13, 15, 21])


def test_mkda_map__duplicates_and_overlap_are_a_union() -> None:
    mask = np.ones((1, 1, 5), dtype=bool)
    active = mkda_map(np.array([[0, 0, 1], [0, 0, 1], [0, 0, 2]]), mask, (2, 2, 2), 2)
    assert_array_equal(active, [True, True, True, True, False])


def test_mkda_map__outside_foci_reach_in_and_do_not_wrap() -> None:
    mask = np.ones((1, 1, 5), dtype=bool)
    outside = mkda_map(np.array([[0, 0, -1]]), mask, (2, 2, 2), 2)
    assert_array_equal(outside, [True, False, False, False, False])
    beyond = mkda_map(np.array([[0, 0, 5]]), mask, (2, 2, 2), 2)
    assert_array_equal(beyond, [False, False, False, False, True])
    far = mkda_map(np.array([[0, 0, -9], [7, 0, 0]]), mask, (2, 2, 2), 2)
    assert not far.any()


def test_mkda_map__focus_outside_mask_inside_volume_counts() -> None:
    mask = np.array([False, False, True, True, True]).reshape(1, 1, 5)
    assert_array_equal(mkda_map(np.array([[0, 0, 1]]), mask, (2, 2, 2), 2), [True, False, False])


def test_mkda_maps__rows_keep_order_and_empty_analyses() -> None:
    mask = np.ones((1, 1, 4), dtype=bool)
    foci = [np.array([[0, 0, 0]]), np.empty((0, 3), dtype=np.int64), np.array([[0, 0, 3]])]
    expected = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert_array_equal(mkda_maps(foci, mask, (2, 2, 2), 2), np.array(expected, dtype=bool))


def test_mkda_map__ijk_must_be_integers() -> None:
    with pytest.raises(ValueError, match="integers"):
        mkda_map([[0.5, 0, 0]], np.ones((2, 2, 2), dtype=bool), (2, 2, 2), 2)


# chi2


def test_one_way__golden() -> None:
    expected = [0.1135135, 2.8378378, 1.0216216, 9.1945946, 0.1135135, 0.1135135]
    assert_allclose(one_way([3, 0, 1, 7, 2, 2], 21), expected, atol=5e-8)


def test_one_way__equals_short_formula() -> None:
    x, n = np.array([3, 0, 1, 7, 2, 2]), 21
    e = x.mean()
    assert_allclose(one_way(x, n), (x - e) ** 2 * n / (e * (n - e)), rtol=1e-13)


def test_one_way__hand_computed() -> None:
    # e = 1 of n = 4: (2 - 1)^2 / 1 + (2 - 3)^2 / 3 = 4/3.
    assert_allclose(one_way([0, 1, 2], 4), [4 / 3, 0, 4 / 3])


@pytest.mark.parametrize("counts", [[0, 0, 0], [5, 5, 5]])
def test_one_way__nothing_or_everything_active(counts: list[int]) -> None:
    assert_array_equal(one_way(counts, 5), [0, 0, 0])


def test_two_way__golden() -> None:
    assert_allclose(two_way([30, 5], [60, 45], 100, 900), [59.8290598290598, 0], rtol=1e-14)


def test_two_way__hand_computed() -> None:
    # a = 2 of 2, b = 1 of 3: 5 * (6 - 2)^2 / (3 * 2 * 2 * 3) = 80/36.
    assert_allclose(two_way([2], [1], 2, 3), [80 / 36])


def test_two_way__matches_the_textbook_table() -> None:
    table = np.array([[30, 60], [70, 840]])
    expected = stats.chi2_contingency(table, correction=False).statistic
    assert_allclose(two_way([30], [60], 100, 900), [expected])


def test_two_way__degenerate_is_two() -> None:
    assert_array_equal(two_way([0, 4], [0, 6], 4, 6), [2, 2])


def test_two_way__large_counts_do_not_overflow() -> None:
    # N * (a * n_b - b * n_a)^2 is 2^67 here, past int64; perfect association gives chi2 = N.
    n = 2**16
    assert_array_equal(two_way([n], [0], n, n), [2 * n])


def _tiny_maps() -> dict[str, np.ndarray]:
    # Voxels: never active | all | selected only | unselected only | balanced.
    selected = np.array([[0, 1, 1, 0, 1], [0, 1, 1, 0, 0]], dtype=bool)
    unselected = np.array(
        [[0, 1, 0, 1, 1], [0, 1, 0, 1, 1], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]], dtype=bool
    )
    return mkda_chi2(selected, unselected)


def test_mkda_chi2__names_shapes_dtype() -> None:
    tests = ("uniformity", "group1", "group2", "association")
    expected = {f"{v}_desc-{t}" for v in ("z", "chi2", "p", "logp") for t in tests}
    probabilities = ("A", "AgF", "AgU", "FgA", "group1", "group2", "AgF_prior", "FgA_prior")
    expected |= {f"prob_desc-{name}" for name in probabilities}
    maps = _tiny_maps()
    assert set(maps) == expected
    assert all(m.shape == (5,) and m.dtype == np.float64 for m in maps.values())


def test_mkda_chi2__hand_computed_probabilities() -> None:
    # A_F = [0, 2, 2, 0, 1] of 2; A_U = [0, 4, 0, 2, 2] of 4; N = 6.
    maps = _tiny_maps()
    assert_allclose(maps["prob_desc-A"], [0, 1, 1 / 3, 1 / 3, 1 / 2])
    assert_allclose(maps["prob_desc-AgF"], [0, 1, 1, 0, 1 / 2])
    assert_allclose(maps["prob_desc-AgU"], [0, 1, 0, 1 / 2, 1 / 2])
    assert_allclose(maps["prob_desc-FgA"], [np.nan, 1 / 3, 1, 0, 1 / 3])
    assert_allclose(maps["prob_desc-AgF_prior"], [0, 1, 1 / 2, 1 / 4, 1 / 2])
    assert_allclose(maps["prob_desc-FgA_prior"], [np.nan, 1 / 2, 1, 0, 1 / 2])
    assert_array_equal(maps["prob_desc-group1"], maps["prob_desc-AgF"])
    assert_array_equal(maps["prob_desc-group2"], maps["prob_desc-AgU"])


def test_mkda_chi2__hand_computed_association() -> None:
    # Third voxel: 6 * (2*4 - 0)^2 / (2 * 4 * 2 * 4) = 6.
    # Fourth: 6 * (0 - 2*2)^2 / (2 * 4 * 2 * 4) = 1.5. First and second have an empty margin.
    maps = _tiny_maps()
    assert_allclose(maps["chi2_desc-association"], [2, 2, 6, 1.5, 0])
    assert_allclose(maps["z_desc-association"], [0, 0, math.sqrt(6), -math.sqrt(1.5), 0])
    assert_allclose(maps["p_desc-association"], stats.chi2.sf([2, 2, 6, 1.5, 0], 1))
    assert_allclose(maps["p_desc-association"][0], 0.157, atol=5e-4)
    assert_allclose(maps["logp_desc-association"], -np.log10(stats.chi2.sf([2, 2, 6, 1.5, 0], 1)))


def test_mkda_chi2__hand_computed_uniformity() -> None:
    # A_F: e = 1 of 2, (x - 1)^2 * 2 / 1. A_U: e = 8/5 of 4, (x - 8/5)^2 * 4 / (96/25).
    maps = _tiny_maps()
    assert_allclose(maps["chi2_desc-uniformity"], [2, 2, 2, 2, 0])
    assert_allclose(maps["z_desc-uniformity"], np.sqrt(2) * np.array([-1, 1, 1, -1, 0]))
    assert_allclose(maps["chi2_desc-group2"], [8 / 3, 6, 8 / 3, 1 / 6, 1 / 6])
    assert_array_equal(np.sign(maps["z_desc-group2"]), [-1, 1, -1, 1, 1])
    for value in ("z", "chi2", "p", "logp"):
        assert_array_equal(maps[f"{value}_desc-group1"], maps[f"{value}_desc-uniformity"])


def test_mkda_chi2__prior() -> None:
    selected = np.array([[True], [False]])
    unselected = np.array([[True], [False], [False], [False]])
    maps = mkda_chi2(selected, unselected, prior=0.25)
    # 0.25 * 1/2 + 0.75 * 1/4 = 5/16, and (1/8) / (5/16) = 2/5.
    assert_allclose(maps["prob_desc-AgF_prior"], [5 / 16])
    assert_allclose(maps["prob_desc-FgA_prior"], [2 / 5])


def test_mkda_chi2__counts_equal_column_sums_of_kernel_maps() -> None:
    mask = np.ones((1, 1, 4), dtype=bool)
    selected = mkda_maps([[[0, 0, 0]], [[0, 0, 1]]], mask, (2, 2, 2), 2)
    unselected = mkda_maps([[[0, 0, 3]]], mask, (2, 2, 2), 2)
    maps = mkda_chi2(selected, unselected)
    assert_allclose(maps["prob_desc-AgF"], [1, 1, 1 / 2, 0])
    assert_allclose(maps["prob_desc-AgU"], [0, 0, 1, 1])


def test_mkda_chi2__empty_group_raises() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        mkda_chi2(np.empty((0, 2), dtype=bool), np.ones((1, 2), dtype=bool))


# pvalues


@pytest.mark.parametrize(
    ("p", "one", "two"),
    [
        (0.05, 1.6448536, 1.9599640),
        (0.001, 3.0902323, 3.2905267),
        (1e-10, 6.3613409, 6.4669511),
        (1e-300, 37.0470963, 37.0657879),
    ],
)
def test_p_to_z__golden(p: float, one: float, two: float) -> None:
    assert_allclose(p_to_z(p, "one"), one, atol=6e-8, rtol=0)
    assert_allclose(p_to_z(p, "two"), two, atol=6e-8, rtol=0)


def test_p_to_z__limits() -> None:
    assert_array_equal(p_to_z([0.5, 0.7, 1.0], "one"), [0, 0, 0])
    assert_allclose(p_to_z([1.0], "two"), [0], atol=1e-15)
    assert np.all(p_to_z([1.0, 0.9], "two") >= 0)
    assert_allclose(p_to_z(5e-324, "one"), 38.4, atol=0.1)
    assert_array_equal(p_to_z(0.0, "two"), p_to_z(5e-324, "two"))
    assert np.isnan(p_to_z(np.nan, "two"))


def test_p_to_z__golden_off_cluster() -> None:
    p = 1 - 1 / 5000
    assert p_to_z(p, "one") == 0
    assert_allclose(p_to_z(p, "two"), 2.51e-4, atol=5e-7)
    assert_allclose(-np.log10(p), 8.69e-5, atol=5e-8)


@pytest.mark.parametrize(
    ("t", "dof", "z"),
    [(1, 10, 0.9524020), (3, 20, 2.6932509), (8, 15, 4.9209860), (40, 30, 10.8840915)],
)
def test_nlogp_to_z__golden_t_values(t: float, dof: int, z: float) -> None:
    assert_allclose(nlogp_to_z(stats.t.logsf(t, dof), "one"), z, atol=6e-8, rtol=0)


@pytest.mark.parametrize("tail", ["one", "two"])
@pytest.mark.parametrize("nlogp", [-0.702, -0.8, -5.0, -50.0, -700.0, -1e3, -1e5, -1e8])
def test_nlogp_to_z__mpmath(nlogp: float, tail: Tail) -> None:
    z = float(nlogp_to_z(nlogp, tail))
    with mpmath.workdps(60):
        area = mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2))
        log_p = mpmath.log(area / 2 if tail == "one" else area)
        # d(log p)/dz = -density / area, so this is the error of z to first order.
        density = mpmath.exp(-(mpmath.mpf(z) ** 2) / 2) / mpmath.sqrt(2 * mpmath.pi)
        error = abs((log_p - mpmath.mpf(nlogp)) * (area / 2) / density)
    assert error <= 1e-12 * z


@pytest.mark.parametrize("p", [0.999999, 0.99995, 0.995, 0.99, 0.9])
def test_nlogp_to_z__mpmath_near_one(p: float) -> None:
    with mpmath.workdps(40):
        exact = mpmath.sqrt(2) * mpmath.erfinv(1 - mpmath.exp(mpmath.mpf(math.log(p))))
    assert_allclose(p_to_z(p, "two"), float(exact), rtol=1e-12 if p <= 0.99 else 0, atol=1e-15)


def test_nlogp_to_z__positive_raises() -> None:
    with pytest.raises(ValueError, match="positive"):
        nlogp_to_z([0.05], "two")


def test_chi2_to_nlogp__golden() -> None:
    assert_allclose(chi2_to_nlogp(10.827566170662733), math.log(0.001), rtol=1e-14)


def test_chi2_to_nlogp__hand_computed() -> None:
    # A chi-square of z^2 has the two-tailed p of z: 0.05 at z = 1.959963984540054.
    nlogp = chi2_to_nlogp([0.0, 1.959963984540054**2, np.nan])
    assert_allclose(nlogp, [0, math.log(0.05), np.nan], rtol=1e-14)


@pytest.mark.parametrize(
    "chi2", [1e-12, 1e-6, 0.1, 0.49, 0.51, 2.0, 100.0, 799.0, 801.0, 1500.0, 1e4, 1e6, 1e8]
)
def test_chi2_to_nlogp__mpmath(chi2: float) -> None:
    with mpmath.workdps(60):
        exact = float(mpmath.log(mpmath.erfc(mpmath.sqrt(mpmath.mpf(chi2) / 2))))
    assert_allclose(chi2_to_nlogp(chi2), exact, rtol=1e-13)


def test_chi2_to_nlogp__z_is_the_square_root() -> None:
    chi2 = np.array([0.5, 2.0, 30.0, 2000.0, 1e5])
    assert_allclose(nlogp_to_z(chi2_to_nlogp(chi2), "two"), np.sqrt(chi2), rtol=1e-12)


def test_chi2_to_nlogp__negative_raises() -> None:
    with pytest.raises(ValueError, match="negative"):
        chi2_to_nlogp([-1.0])


def test_fdr__hand_computed_indep() -> None:
    # Sorted .01 .02 .03 .5, n = 4: .04 .04 .04 .5.
    corrected = np.exp(fdr(np.log([0.03, 0.5, 0.01, 0.02]), "indep"))
    assert_allclose(corrected, [0.04, 0.5, 0.04, 0.04])


def test_fdr__hand_computed_negcorr() -> None:
    # The same times 1 + 1/2 + 1/3 + 1/4 = 25/12, at most 1.
    corrected = np.exp(fdr(np.log([0.03, 0.5, 0.01, 0.02]), "negcorr"))
    assert_allclose(corrected, [1 / 12, 1, 1 / 12, 1 / 12])


def test_fdr__matches_scipy() -> None:
    p = np.random.default_rng(0).uniform(size=200) ** 3
    p[10:20] = p[0]
    assert_allclose(np.exp(fdr(np.log(p), "indep")), stats.false_discovery_control(p))
    by = stats.false_discovery_control(p, method="by")
    assert_allclose(np.exp(fdr(np.log(p), "negcorr")), by)


def test_fdr__nan_is_not_a_test() -> None:
    nlogp = np.log([0.03, np.nan, 0.5, 0.01, np.nan, 0.02])
    expected = np.log([0.04, np.nan, 0.5, 0.04, np.nan, 0.04])
    assert_allclose(fdr(nlogp, "indep"), expected)


def test_fdr__tail_past_float64() -> None:
    assert_allclose(fdr([-5000.0, -1.0], "indep"), [-5000 + math.log(2), -1])


def test_fdr__all_nan_stays_nan() -> None:
    assert np.isnan(fdr([np.nan, np.nan], "negcorr")).all()


def test_bonferroni__hand_computed() -> None:
    corrected = bonferroni([math.log(0.01), math.log(0.5), np.nan, -5000.0])
    assert_allclose(corrected, [math.log(0.03), 0, np.nan, -5000 + math.log(3)])


@pytest.mark.parametrize("method", ["indep", "negcorr"])
def test_fdr__plain_p_values_raise(method: Method) -> None:
    with pytest.raises(ValueError, match="positive"):
        fdr([0.05, 0.5], method)


def test_bonferroni__plain_p_values_raise() -> None:
    with pytest.raises(ValueError, match="positive"):
        bonferroni([0.05, 0.5])


def test_corrected_z__hand_computed() -> None:
    nlogp = [math.log(0.05), math.log(0.05), math.log(0.05), 0.0, np.nan]
    z = corrected_z(nlogp, [3.0, -0.1, 0.0, 1.0, 1.0])
    assert_allclose(z, [1.9599640, -1.9599640, 0, 0, np.nan], atol=6e-8)
