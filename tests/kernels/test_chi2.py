"""Chi-square kernels against exact rational arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels.chi2 import association_z, uniformity_z
from nimare_dask.stats import chi2 as maps
from tests.reference.chi2 import one_way, two_way
from tests.reference.pvalues import chi2_to_nlogp

#: One rounding to float32.
ONE_FLOAT32 = float(np.finfo(np.float32).eps)


def drawn_counts(
    seed: int, n_voxels: int, n_groups: int, n_total: int = 900
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Counts (voxel, group + 1) that can be: no group has more active than all have."""
    rng = np.random.default_rng(seed)
    n_selected = rng.integers(1, n_total, size=n_groups)
    active = rng.integers(0, n_total + 1, size=n_voxels)
    active[:2] = 0, n_total
    low = np.maximum(0, active[:, None] - (n_total - n_selected))
    high = np.minimum(active[:, None], n_selected)
    counts = np.column_stack([rng.integers(low, high + 1), active])
    return counts.astype(np.int32), n_selected


def signed_two_way(
    counts: NDArray[np.int32], n_selected: NDArray[np.int64], n_total: int
) -> NDArray[np.float64]:
    """z by the reference, (group, voxel)."""
    rows = []
    for group, size in enumerate(n_selected.tolist()):
        a, b = counts[:, group], counts[:, -1] - counts[:, group]
        excess = a.astype(object) * (n_total - size) - b.astype(object) * size
        sign = np.sign(excess.astype(np.float64))
        rows.append(np.sqrt(two_way(a, b, size, n_total - size)) * sign)
    return np.array(rows)


# association_z


def test_association_z__golden() -> None:
    counts = np.array([[30, 90], [5, 50]], np.int32)
    z = association_z(counts, np.array([100]), 1000)
    assert_allclose(z, [[math.sqrt(59.8290598290598), 0]], rtol=1e-14)


def test_association_z__hand_computed() -> None:
    # a = 2 of 2, b = 1 of 3: 5 * (2 * 3 - 1 * 2)^2 / (3 * 2 * 2 * 3) = 80 / 36.
    # a = 0 of 2, b = 2 of 3: 5 * (0 - 2 * 2)^2 / (2 * 3 * 2 * 3) = 80 / 36, to the other side.
    counts = np.array([[2, 3], [0, 2], [0, 0], [2, 5]], np.int32)
    root = math.sqrt(80 / 36)
    assert_allclose(association_z(counts, np.array([2]), 5), [[root, -root, 0, 0]], rtol=1e-15)


@pytest.mark.parametrize(
    ("n_voxels", "n_groups"), [(2, 1), (63, 64), (64, 65), (65, 63), (130, 200), (200, 1)]
)
def test_association_z__equals_reference_in_any_tile(n_voxels: int, n_groups: int) -> None:
    counts, n_selected = drawn_counts(n_voxels, n_voxels, n_groups)
    expected = signed_two_way(counts, n_selected, 900)
    assert_allclose(association_z(counts, n_selected, 900), expected, rtol=1e-13)
    stored = association_z(counts, n_selected, 900, np.float32)
    assert stored.dtype == np.float32
    assert_allclose(stored, expected, rtol=ONE_FLOAT32)


def test_association_z__large_counts_do_not_overflow() -> None:
    # Perfect association: chi-square is the number of all, and its margins are 2^120.
    n = 2**30
    counts = np.array([[n, n], [0, n]], np.int32)
    assert_allclose(
        association_z(counts, np.array([n]), 2 * n), [[2**15.5, -(2**15.5)]], rtol=1e-15
    )


def test_association_z__group_of_none_and_of_all_is_zero() -> None:
    counts = np.array([[0, 3, 3], [0, 5, 5]], np.int32)
    assert_array_equal(association_z(counts, np.array([0, 7]), 7), np.zeros((2, 2)))


@given(
    n_selected=st.integers(1, 50),
    n_others=st.integers(1, 50),
    share_selected=st.floats(0, 1),
    share_others=st.floats(0, 1),
)
def test_association_z__drawn_and_antisymmetric(
    n_selected: int, n_others: int, share_selected: float, share_others: float
) -> None:
    a, b = round(n_selected * share_selected), round(n_others * share_others)
    n = n_selected + n_others
    z = association_z(np.array([[a, a + b]], np.int32), np.array([n_selected]), n)[0, 0]
    back = association_z(np.array([[b, a + b]], np.int32), np.array([n_others]), n)[0, 0]
    assert z == -back
    if 0 < a + b < n:
        assert_allclose(z**2, two_way([a], [b], n_selected, n_others)[0], rtol=1e-13)
        assert np.sign(z) == np.sign(a * n_others - b * n_selected)
    else:
        assert z == 0


# uniformity_z


def test_uniformity_z__golden() -> None:
    counts = np.array([[3, 0, 1, 7, 2, 2]], np.int32).T
    z = uniformity_z(counts, counts.mean(axis=0), np.array([21]))
    expected = [0.1135135, 2.8378378, 1.0216216, 9.1945946, 0.1135135, 0.1135135]
    assert_allclose(z[0] ** 2, expected, atol=5e-8)
    assert_array_equal(np.sign(z[0]), [1, -1, -1, 1, -1, -1])


@pytest.mark.parametrize(("n_voxels", "n_groups"), [(2, 1), (63, 65), (64, 64), (200, 70)])
def test_uniformity_z__equals_reference_in_any_tile(n_voxels: int, n_groups: int) -> None:
    rng = np.random.default_rng(n_voxels)
    n = rng.integers(1, 500, size=n_groups)
    counts = rng.integers(0, n + 1, size=(n_voxels, n_groups)).astype(np.int32)
    mean = counts.mean(axis=0)
    expected = np.array(
        [
            np.sqrt(one_way(counts[:, group], int(size))) * np.sign(counts[:, group] - mean[group])
            for group, size in enumerate(n)
        ]
    )
    z = uniformity_z(counts, mean, n)
    # Where a count is near its mean, the mean's own rounding is what is left of the difference.
    assert_allclose(z, expected, rtol=1e-12, atol=1e-13)
    assert_allclose(uniformity_z(counts, mean, n, np.float32), expected, rtol=ONE_FLOAT32)


def test_uniformity_z__active_nowhere_or_everywhere_is_zero() -> None:
    counts = np.array([[0, 4], [0, 4]], np.int32)
    z = uniformity_z(counts, counts.mean(axis=0), np.array([4, 4]))
    assert_array_equal(z, np.zeros((2, 2)))


# the maps made of them (stats.chi2)


@pytest.mark.parametrize("name", ["chi2", "p", "logp"])
def test_association_maps__empty_margin_has_chi2_two(name: maps.Map) -> None:
    counts = np.array([[0, 0], [2, 5], [1, 2]], np.int32)
    sizes = np.array([2])
    found = maps.association(counts, n_selected=sizes, n=5, name=name)[0]
    expected = {"chi2": 2.0, "p": 0.15729920705028513, "logp": 0.8032734213297}[name]
    assert_allclose(found[:2], expected, rtol=ONE_FLOAT32)
    assert_array_equal(maps.association(counts, n_selected=sizes, n=5, name="z")[0, :2], [0, 0])


def test_association_maps__past_the_smallest_p() -> None:
    # chi-square is 2,000: p is e-437, which logp keeps and p does not.
    counts = np.array([[1000, 1000]], np.int32)
    sizes = np.array([1000])
    p = maps.association(counts, n_selected=sizes, n=2000, name="p")
    logp = maps.association(counts, n_selected=sizes, n=2000, name="logp")
    assert p == np.finfo(np.float32).smallest_subnormal
    assert_allclose(logp, -chi2_to_nlogp(2000.0) / math.log(10), rtol=ONE_FLOAT32)
    assert logp > 436


def test_probability__nothing_active_is_nan() -> None:
    counts = np.array([[0, 0]], np.int32)
    for name in maps.probability_names(0.5):
        value = maps.probability(counts, n_selected=np.array([2]), n=5, prior=0.5, name=name)
        assert value.shape == (1, 1)
        assert value.dtype == np.float32
        assert np.isnan(value[0, 0]) == name.startswith("FgA"), name


def test_probability_names__without_prior() -> None:
    assert maps.probability_names(None) == ("A", "AgF", "AgU", "FgA")
