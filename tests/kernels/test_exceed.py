"""Chi-square above a threshold: against the exact fractions of the reference, and to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats

from nimare_dask.kernels import chi2, exceed
from tests.group_pairs import CHI2_ERROR, mass_error, n_at_the_edge
from tests.reference import two_groups as reference

THRESHOLDS = [0.5, 1.0, 2.7, 3.84, 6.6, 10.8, 15.1, 30.0, 100.0]
HALF_UNIT = 0.5 / exceed.MASS_SCALE


@dataclass(frozen=True)
class Counted:
    """Active analyses of a group and of all, (voxel,)."""

    group: NDArray[np.int64]
    n_active: NDArray[np.int64]
    n_selected: int
    n: int

    def association(self) -> NDArray[np.float64]:
        """What a fitted map holds: the square of z in float32."""
        counts = np.column_stack([self.group, self.n_active]).astype(np.int32)
        z = chi2.association_z(counts, np.array([self.n_selected]), self.n, np.float32)
        squares: NDArray[np.float64] = z[0].astype(np.float64) ** 2
        return squares

    def uniformity(self) -> NDArray[np.float64]:
        counts = self.group[:, None].astype(np.int32)
        n = np.array([self.n_selected])
        z = chi2.uniformity_z(counts, counts.mean(axis=0), n, np.float32)
        squares: NDArray[np.float64] = z[0].astype(np.float64) ** 2
        return squares

    def association_above(self, threshold: float, kind: Any = np.int32) -> Any:
        """Voxels, their excess and the largest value."""
        margins = exceed.margins_of(self.n_active.astype(kind), self.n)
        room = exceed.room_for(len(self.group))
        counts, n_selected = self.group.astype(kind), self.n_selected
        n_above, largest = exceed.association_above(counts, margins, n_selected, threshold, room)
        return room.voxels[:n_above].copy(), room.excess[:n_above].copy(), largest

    def uniformity_above(self, threshold: float, kind: Any = np.int32) -> Any:
        room = exceed.room_for(len(self.group))
        counts = self.group.astype(kind)
        expected = counts.sum(dtype=np.int64) / len(counts)
        args = expected, np.float64(self.n_selected), threshold, room
        n_above, largest = exceed.uniformity_above(counts, *args)
        return room.voxels[:n_above].copy(), room.excess[:n_above].copy(), largest


def assert_exact(found: Any, values: NDArray[np.float64], threshold: float) -> None:
    """The list has every voxel whose value is above, in order, and by how much, to the bit."""
    voxels, excess, largest = found
    above = np.flatnonzero(values > threshold)
    assert_array_equal(voxels, above)
    assert_array_equal(excess, np.rint((values[above] - threshold) * exceed.MASS_SCALE))
    assert largest == values.max()


def draw(rng: np.random.Generator, n: int, n_selected: int, n_voxels: int) -> Counted:
    """Any number of active analyses at each voxel, some of them in the group."""
    n_active = rng.integers(0, n, n_voxels, endpoint=True)
    low, high = np.maximum(0, n_active - (n - n_selected)), np.minimum(n_active, n_selected)
    return Counted(rng.integers(low, high, endpoint=True), n_active, n_selected, n)


def every_table(n: int, n_selected: int) -> Counted:
    """All 2 x 2 tables of a group of n_selected of n."""
    a, b = np.indices((n_selected + 1, n - n_selected + 1)).reshape(2, -1)
    return Counted(a, a + b, n_selected, n)


# association


@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_association_above__every_table(threshold: float, kind: Any) -> None:
    for n in (2, 3, 12, 31):
        for n_selected in range(1, n):
            counted = every_table(n, n_selected)
            found = counted.association_above(threshold, kind)
            assert_exact(found, counted.association(), threshold)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_association_above__equals_reference(threshold: float) -> None:
    rng, n_edges = np.random.default_rng(5), 0
    for n in (12, 40, 500, 14_371):
        for _ in range(4):
            counted = draw(rng, n, int(rng.integers(1, n)), 300)
            others = counted.n_active - counted.group, n - counted.n_selected
            wanted, _ = reference.association_chi2(
                counted.group, others[0], counted.n_selected, others[1], degenerate=0.0
            )
            voxels, excess, largest = counted.association_above(threshold)
            edge = np.abs(wanted - threshold) <= CHI2_ERROR * threshold
            n_edges += int(edge.sum())
            listed = np.zeros(len(wanted), bool)
            listed[voxels] = True
            assert_array_equal(listed[~edge], (wanted > threshold)[~edge])
            error = CHI2_ERROR * wanted[voxels] + HALF_UNIT
            off = np.abs(excess / exceed.MASS_SCALE - (wanted[voxels] - threshold))
            assert (off <= error).all()
            assert_allclose(largest, wanted.max(), rtol=CHI2_ERROR, atol=0)
    assert n_edges == 0, "the case must have no voxel within rounding of the threshold"


@pytest.mark.parametrize("threshold", [1e-6, 0.5, 10.8])
def test_association_above__nothing_or_everything_active(threshold: float) -> None:
    for n_active in (0, 20):
        whole = np.full(9, n_active)
        counted = Counted(whole * 7 // 20, whole, 7, 20)
        voxels, excess, largest = counted.association_above(threshold)
        assert voxels.size == excess.size == 0 and largest == 0
        # The share is defined elsewhere: one voxel with a table, the others without.
        some = Counted(np.append(counted.group, 5), np.append(whole, 6), 7, 20)
        assert_exact(some.association_above(threshold), some.association(), threshold)


@pytest.mark.parametrize("n_voxels", [1, 7, 8, 9, 63, 64, 65])
def test_association_above__any_number_of_voxels(n_voxels: int) -> None:
    rng = np.random.default_rng(n_voxels)
    for _ in range(20):
        counted = draw(rng, 30, 11, n_voxels)
        assert_exact(counted.association_above(4.0), counted.association(), 4.0)


def test_association_above__largest_below_the_threshold_is_exact() -> None:
    counted = draw(np.random.default_rng(3), 60, 25, 200)
    values = counted.association()
    assert 0 < values.max() < 61
    voxels, _, largest = counted.association_above(61.0)
    assert voxels.size == 0 and largest == values.max()


def test_association_above__room_is_used_again() -> None:
    rng = np.random.default_rng(4)
    room = exceed.room_for(77)
    for n, threshold in [(30, 2.0), (30, 50.0), (300, 10.0), (12, 0.5)]:
        counted = draw(rng, n, n // 3, 77)
        margins = exceed.margins_of(counted.n_active, n)
        args = counted.group.astype(np.int16), margins, n // 3, threshold, room
        n_above, largest = exceed.association_above(*args)
        found = room.voxels[:n_above], room.excess[:n_above], largest
        assert_exact(found, counted.association(), threshold)


def near(threshold: float, n: int, n_selected: int, n_active: NDArray[np.int64]) -> Counted:
    """Counts on either side of where chi-square crosses the threshold, high and low."""
    expected = n_active * (n_selected / n)
    variance = n_active * (n - n_active) * (n_selected * (n - n_selected) / n)
    distance = np.sqrt(threshold * variance) / n
    low, high = np.maximum(0, n_active - (n - n_selected)), np.minimum(n_active, n_selected)
    counts = [
        np.clip(np.floor(expected + sign * distance) + step, low, high).astype(np.int64)
        for sign in (1, -1)
        for step in (-1, 0, 1, 2)
    ]
    return Counted(np.concatenate(counts), np.tile(n_active, len(counts)), n_selected, n)


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_association_above__nothing_is_missed_near_the_threshold(data: st.DataObject) -> None:
    """The float32 that looks first must not leave out what float64 has above.

    An error of its own is up to 2 ** -23 of the expected count, which is below the hundredth of an
    analysis that it allows for up to 83,886 analyses.
    """
    n = data.draw(st.integers(2, 80_000) | st.integers(2, 60), "n")
    ends = st.integers(1, n - 1) | st.integers(1, min(40, n - 1))
    n_selected = data.draw(ends | ends.map(lambda few: n - few), "n_selected")
    n_active = data.draw(
        st.lists(ends | ends.map(lambda few: n - few), min_size=1, max_size=12), "n_active"
    )
    threshold = data.draw(st.floats(0.5, 100), "threshold")
    counted = near(threshold, n, n_selected, np.array(n_active))
    values = counted.association()
    assert_exact(counted.association_above(threshold), values, threshold)
    # A threshold that is a value of the map, and its neighbours: strictly above is above.
    place = data.draw(st.integers(0, len(values) - 1), "place")
    for exactly in (np.nextafter(values[place], 0), values[place], np.nextafter(values[place], 99)):
        if exactly > 0:
            assert_exact(counted.association_above(float(exactly)), values, float(exactly))


def test_association_above__nothing_is_missed_among_200_000_analyses() -> None:
    counted = Counted(np.array([148_500]), np.array([199_989]), 148_503, 200_000)
    values = counted.association()
    assert 12.69 < values[0] < 12.7
    threshold = float(np.nextafter(values[0], 0))
    assert_exact(counted.association_above(threshold), values, threshold)


# uniformity


@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_uniformity_above__equals_reference(threshold: float, kind: Any) -> None:
    rng, n_edges = np.random.default_rng(6), 0
    for n in (1, 2, 12, 500, 14_371):
        for share in (0.02, 0.3, 0.95):
            group = np.append(rng.binomial(n, share, 250), rng.integers(0, n, 5, endpoint=True))
            counted = Counted(group, group, n, n)
            found = counted.uniformity_above(threshold, kind)
            assert_exact(found, counted.uniformity(), threshold)
            wanted, _ = reference.uniformity_chi2(group, n)
            edge = np.abs(wanted - threshold) <= CHI2_ERROR * threshold
            n_edges += int(edge.sum())
            assert_array_equal(found[0], np.flatnonzero(wanted > threshold))
            assert_allclose(found[2], wanted.max(), rtol=CHI2_ERROR, atol=0)
    assert n_edges == 0, "the case must have no voxel within rounding of the threshold"


@pytest.mark.parametrize("count", [0, 3, 8])
def test_uniformity_above__the_same_everywhere(count: int) -> None:
    group = np.full(50, count)
    voxels, excess, largest = Counted(group, group, 8, 20).uniformity_above(0.5)
    assert voxels.size == excess.size == 0 and largest == 0


def test_uniformity_above__largest_may_be_the_smallest_count() -> None:
    group = np.array([0, *[7] * 60])
    counted = Counted(group, group, 8, 20)
    found = counted.uniformity_above(5.0)
    assert_exact(found, counted.uniformity(), 5.0)
    assert_array_equal(found[0], [0])


@settings(max_examples=150, deadline=None)
@given(
    group=st.lists(st.integers(0, 30) | st.integers(0, 3), min_size=1, max_size=60),
    n=st.integers(30, 5000),
    threshold=st.floats(0.5, 100),
)
def test_uniformity_above__drawn(group: list[int], n: int, threshold: float) -> None:
    counted = Counted(np.array(group), np.array(group), n, n)
    assert_exact(counted.uniformity_above(threshold), counted.uniformity(), threshold)


# maxima of a map


@pytest.mark.parametrize("with_clusters", [True, False])
@pytest.mark.parametrize("p", [0.3, 0.05, 0.001, 1e-9])
def test_measure__equals_reference(p: float, with_clusters: bool) -> None:
    rng = np.random.default_rng(8)
    mask = rng.uniform(size=(7, 8, 9)) < 0.8
    rooms, n_voxels = exceed.rooms_for(mask), int(mask.sum())
    threshold = float(stats.chi2.isf(p, 1))
    for n, n_selected in [(15, 4), (40, 33), (700, 350)]:
        share = rng.beta(1, 3, n_voxels)  # group 1 is more often active at some voxels
        ones = rng.binomial(n_selected, share)
        twos = rng.binomial(n - n_selected, np.where(rng.uniform(size=n_voxels) < 0.5, share, 0.2))
        assert n_at_the_edge(ones, twos, n_selected, n - n_selected, threshold) == 0
        margins = exceed.margins_of(ones + twos, n)
        wanted = reference.chi2_maxima(
            ones, twos, n_selected, n - n_selected, mask, p, degenerate=0.0
        )
        for effect in range(3):
            maxima = np.full(3 if with_clusters else 1, -1.0)
            args = ones.astype(np.int16), twos.astype(np.int16), margins, n_selected, effect
            exceed.measure(*args, threshold, with_clusters, rooms, maxima)
            largest, size, mass = wanted[effect]
            assert_allclose(maxima[0], largest, rtol=CHI2_ERROR, atol=0)
            if with_clusters:
                assert maxima[1] == size
                assert abs(maxima[2] - mass) <= mass_error(mass, size, threshold)


def test_measure__effects_are_those_of_the_reference() -> None:
    assert exceed.EFFECTS == reference.EFFECTS


def test_margins_of__degenerate_voxels() -> None:
    margins = exceed.margins_of(np.array([0, 3, 10], np.int16), 10)
    assert_array_equal(margins.scale, [0, np.sqrt(10 / 21), 0])
    assert_array_equal(margins.spread, np.array([np.inf, np.sqrt(21), np.inf], np.float32))
    assert margins.n_active.dtype == np.int32 and margins.n == 10
