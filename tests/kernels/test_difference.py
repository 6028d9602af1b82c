"""Differences of ALE under shuffles: counts and clusters against plain loops and the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import clusters, difference
from tests.reference import two_groups as reference

HALF_UNIT = 0.5 / difference.MASS_SCALE
#: A rounding to float32, as a share.
FLOAT32 = 2.0**-24


def differences(first: Any, total: Any, scale: float) -> NDArray[np.float32]:
    """What the kernel gives."""
    out = np.full(len(first), np.nan, np.float32)
    difference.differences(np.asarray(first), np.asarray(total), scale, out)
    return out


# from sums to differences


def test_differences__hand_computed() -> None:
    # Sums of -ln(1/2) and -ln(1/4): probabilities of a half and of three quarters.
    scale = 2.0**30
    half, quarter = (round(-math.log(share) * scale) for share in (0.5, 0.25))
    first = np.array([half, quarter, 0, half, 0], np.int64)
    total = np.array([half + quarter, half + quarter, half, 2 * half, 0], np.int64)
    found = differences(first, total, scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [-0.25, 0.25, -0.5, 0, 0], rtol=0, atol=2e-8)
    assert_array_equal(found[3:], 0)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_differences__equals_probabilities(kind: Any) -> None:
    rng = np.random.default_rng(0)
    for scale in (2.0**20, 2.0**26):
        total = rng.integers(0, 2**30, 300).astype(kind)
        first = (total * rng.uniform(size=300)).astype(kind)
        found = differences(first, total, scale)
        for value, one, both in zip(found, first.tolist(), total.tolist(), strict=True):
            wanted = math.exp(-(both - one) / scale) - math.exp(-one / scale)
            assert abs(float(value) - wanted) <= FLOAT32 * abs(wanted) + 4 * 2.0**-53


@settings(max_examples=100, deadline=None)
@given(total=st.integers(0, 2**31 - 1), shares=st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_differences__rise_with_the_sum_and_change_sign_with_the_groups(
    total: int, shares: list[float]
) -> None:
    first = np.sort([int(share * total) for share in shares])
    whole = np.full(len(first), total)
    found = differences(first, whole, 2.0**26)
    assert (np.diff(found) >= 0).all()
    assert_array_equal(differences(whole - first, whole, 2.0**26), -found)


# limits


def smallest_beyond(total: int, threshold: float, scale: float) -> int | None:
    """The smallest distance of the sums of both groups that is above the threshold."""
    near = 2 * scale * math.asinh(threshold * math.exp(total / (2 * scale)) / 2)
    some = 20 + int(2e-6 * near)
    first = max(0, int(near) - some)
    first += (total - first) % 2  # a distance is odd where the total is
    distance = np.arange(first, min(total, first + 2 * some) + 1, 2)
    found = differences((total + distance) // 2, np.full(len(distance), total), scale)
    beyond = np.flatnonzero(found.astype(np.float64) > threshold)
    if beyond.size == 0:
        assert first + 2 * some > total, "all distances are looked at"
        return None
    assert beyond[0] > 0 or first < 2
    return int(distance[beyond[0]])


@settings(max_examples=250, deadline=None)
@given(
    bits=st.sampled_from([18, 20, 24, 28, 31, 36]),
    share=st.floats(0, 1),
    threshold=st.floats(1e-9, 0.999) | st.floats(1e-6, 0.05) | st.just(0.0),
)
def test_limits_of__never_miss(bits: int, share: float, threshold: float) -> None:
    """Totals are those of a union up to 1 - exp(-20), beyond which float64 has no differences."""
    scale = 2.0**bits
    total = int(share * min(20 * scale, 2.0**33))
    limit = int(difference.limits_of(np.array([total]), threshold, scale)[0])
    smallest = smallest_beyond(total, threshold, scale)
    if smallest is None:  # the threshold is nowhere reached, so it does not matter
        return
    assert smallest > limit
    # And few are listed in vain: a millionth, some units, and what float32 cannot tell apart.
    assert smallest - limit <= 8 + 2e-6 * smallest
    # A threshold that is itself a difference, and the one before it.
    exact = float(differences([(total + smallest) // 2], [total], scale)[0])
    for near in (float(np.nextafter(exact, 0)), exact):
        again = smallest_beyond(total, near, scale)
        limits = difference.limits_of(np.array([total]), near, scale)
        assert again is None or again > int(limits[0])


def test_limits_of__thresholds_that_nothing_is_above() -> None:
    totals = np.array([0, 1, 1000, 2**20, 2**28])
    assert (difference.limits_of(totals, 1.0, 2.0**26) >= totals).all()
    assert (difference.limits_of(totals, 1e300, 2.0**26) >= totals).all()


def test_limits_of__zero_lists_everything_that_differs() -> None:
    limits = difference.limits_of(np.array([0, 7, 2**30]), 0.0, 2.0**26)
    assert (limits < 0).all()
    assert limits.dtype == np.int64


# shuffles of a block


class Block:
    """Some analyses, of which one is active nowhere."""

    def __init__(self, seed: int, n: int, n_voxels: int, kind: Any = np.int32) -> None:
        rng = np.random.default_rng(seed)
        self.table = (rng.integers(0, 50, (n, n_voxels)) * rng.integers(0, 2, n_voxels)).astype(
            kind
        )
        self.table[n // 2] = 0
        self.total = self.table.sum(axis=0, dtype=kind)
        self.observed = self.table[: n // 3].sum(axis=0, dtype=kind)
        self.limits = rng.integers(-4, 60, n_voxels)
        self.orders = np.stack([rng.permutation(n)[: n // 3] for _ in range(7)]).astype(np.int32)
        self.rng, self.n_voxels, self.kind = rng, n_voxels, kind

    def run(self, takes_rest: bool, room_for: int, length: int = difference.BLOCK) -> Any:
        """Counts, the list and how many are listed, after counts of before."""
        up, low = np.full((2, self.n_voxels), 5, np.uint32)
        found = difference.Found(
            np.full(room_for, -1, np.int32), np.full(room_for, -1, np.int32), np.full(room_for, -1)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(difference, "BLOCK", length)
            table = difference.table_of(self.table, self.n_voxels)
        assert table is not None and table.place.shape == (
            -(-self.n_voxels // length),
            len(self.table),
        )
        assert (table.place[:, len(self.table) // 2] == -1).all() or self.table.all()
        n_listed = difference.shuffle_table(
            table,
            self.orders,
            takes_rest,
            self.total,
            self.observed,
            self.limits,
            up,
            low,
            found,
        )
        return up, low, found, n_listed

    def expected(self, takes_rest: bool) -> Any:
        """The same by plain loops."""
        up, low = np.full((2, self.n_voxels), 5)
        listed = []
        for iteration, order in enumerate(self.orders):
            for voxel in range(self.n_voxels):
                total = int(self.total[voxel])
                first = sum(int(self.table[analysis, voxel]) for analysis in order)
                first = total - first if takes_rest else first
                up[voxel] += first >= self.observed[voxel]
                low[voxel] += first <= self.observed[voxel]
                if abs(first - (total - first)) > self.limits[voxel]:
                    listed.append((iteration, voxel, first))
        return up, low, listed


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("takes_rest", [False, True])
@pytest.mark.parametrize("n_voxels", [1, 7, 8, 9, 64, 131])
def test_shuffle_table__equals_plain_loops(n_voxels: int, takes_rest: bool, kind: Any) -> None:
    block = Block(n_voxels, 10, n_voxels, kind)
    wanted_up, wanted_low, listed = block.expected(takes_rest)
    for length in (difference.BLOCK, 13, 8, 1):
        up, low, found, n_found = block.run(takes_rest, 2000, length)
        assert_array_equal(up, wanted_up)
        assert_array_equal(low, wanted_low)
        assert n_found == len(listed) > 0
        entries = list(zip(*(part[:n_found].tolist() for part in found), strict=True))
        assert sorted(entries) == listed
        # In order of blocks, and in them of iterations.
        assert entries == sorted(entries, key=lambda entry: entry[1] // length)
        assert all((part[n_found:] == -1).all() for part in found)


def test_shuffle_table__counts_beyond_its_room() -> None:
    block = Block(2, 9, 50)
    wanted_up, wanted_low, listed = block.expected(True)
    for room_for in (0, 1, len(listed) - 1, len(listed)):
        up, low, found, n_found = block.run(True, room_for)
        assert n_found == len(listed) > 50
        assert_array_equal(up, wanted_up)
        assert_array_equal(low, wanted_low)
        assert found.voxel.tolist() == [voxel for _, voxel, _ in listed[:room_for]]


def test_shuffle_table__sums_that_fill_32_bits() -> None:
    # Twice a sum does not fit, and is compared all the same.
    block = Block(3, 3, 9)
    block.table = np.full((3, 9), 2**31 // 3, np.int32)
    block.total = block.table.sum(axis=0, dtype=np.int32)
    block.observed = block.table[0].copy()
    block.limits = np.full(9, 2**31 // 3 - 1)
    block.orders = np.array([[0, 1], [2, 0]], np.int32)
    wanted_up, wanted_low, listed = block.expected(False)
    up, low, _, n_found = block.run(False, 100)
    assert n_found == len(listed) == 18
    assert_array_equal(up, wanted_up)
    assert_array_equal(low, wanted_low)


def test_sum_analyses__nobody_one_and_all() -> None:
    block = Block(4, 8, 13)
    sums = np.full(13, 77, np.int32)
    for members in ([], [3], [5, 2], range(8)):
        chosen = np.array(list(members), np.int32)
        table = difference.table_of(block.table, 13)
        difference.sum_analyses(table, chosen, sums)
        assert_array_equal(sums, block.table[chosen].sum(axis=0))


def test_table_of__is_none_where_it_would_be_too_large() -> None:
    rows = Block(5, 8, 40).table
    size = 7 * difference.BLOCK * 4  # one analysis has no piece
    assert difference.table_of(rows, 40, size) is not None
    assert difference.table_of(rows, 40, size - 1) is None


# maxima of a map


class Measured:
    """A mask, and maps that are measured by the kernel and by the reference."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask, self.grid = mask, clusters.grid_of(mask)
        self.room, self.n_voxels = clusters.room_for(self.grid), int(mask.sum())
        empty = np.empty(self.n_voxels, np.int32), np.empty(self.n_voxels, np.int64)
        self.members = difference.Members(*empty)

    def measure(self, values: Any, threshold: float, listed: Any = None) -> Any:
        """The maxima of a map, of which some voxels are listed."""
        voxel = np.arange(self.n_voxels) if listed is None else np.flatnonzero(listed)
        some = np.asarray(values, np.float32)[voxel]
        args = voxel.astype(np.int32), some, threshold, self.grid, self.room, self.members
        return difference.measure(*args)

    def check(self, values: NDArray[np.float32], threshold: float) -> None:
        (wanted,) = reference.subtraction_maxima(values[None], self.mask, threshold)
        largest, size, mass = self.measure(values, threshold)
        if size == 0:
            assert (largest, mass) == (0, 0) and wanted[1:].tolist() == [0, 0]
            return
        assert largest == wanted[0]
        assert size == wanted[1]
        assert abs(mass - wanted[2]) <= HALF_UNIT * size + 2.0**-50 * wanted[2]
        # Only what is beyond the threshold has to be listed, and what else is does not matter.
        rng = np.random.default_rng(int(size))
        listed = (np.abs(values.astype(float)) > threshold) | (rng.uniform(size=len(values)) < 0.3)
        assert self.measure(values, threshold, listed) == (largest, size, mass)


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999, 1.0])
def test_measure__equals_reference(threshold: float) -> None:
    rng = np.random.default_rng(11)
    for shape in [(6, 7, 8), (1, 1, 40), (9, 1, 9), (12, 12, 12)]:
        measured = Measured(rng.uniform(size=shape) < 0.8)
        for power in (1, 3):
            values = rng.uniform(-1, 1, measured.n_voxels) ** power
            values[rng.uniform(size=len(values)) < 0.1] = 0
            measured.check(values.astype(np.float32), threshold)


def test_measure__higher_and_lower_do_not_touch() -> None:
    measured = Measured(np.ones((1, 1, 7), bool))
    values = np.array([0.5, 0.5, -0.75, -0.75, -0.75, 0.25, 0.125])
    assert measured.measure(values, 0.25) == (0.75, 3, 1.5)
    assert measured.measure(-values, 0.25) == (0.75, 3, 1.5)
    # The size of one cluster, the mass of another, and the voxel of a third.
    values = np.array([0.375, 0.375, 0.375, -1.0, 0.0, 0.75, 0.75])
    assert measured.measure(values, 0.25) == (1, 3, 1.0)


def test_measure__nothing_beyond() -> None:
    measured = Measured(np.ones((2, 3, 4), bool))
    assert measured.measure(np.full(24, -0.25), 0.25) == (0, 0, 0)
    assert measured.measure(np.zeros(24), 0.0) == (0, 0, 0)
    assert measured.measure(np.ones(24), 0.5, np.zeros(24, bool)) == (0, 0, 0)
