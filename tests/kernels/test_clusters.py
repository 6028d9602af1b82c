"""Clusters found on runs of voxels against the reference, which labels the volume with scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import clusters
from tests.reference.two_groups import clusters_above

Shape = tuple[int, int, int]
SHAPES: list[Shape] = [(6, 7, 8), (1, 1, 40), (9, 1, 9), (3, 20, 2), (40, 1, 1), (12, 12, 12)]


class Prepared:
    """A mask and its work space, which is used again and again."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.grid = clusters.grid_of(mask)
        self.room = clusters.room_for(self.grid)

    def check(self, chosen: NDArray[np.bool_], excess: NDArray[np.int64], kind: Any) -> None:
        """Both functions against labels of the volume; `chosen` and `excess` are (voxel,)."""
        voxels = np.flatnonzero(chosen).astype(kind)
        members = clusters_above(chosen.astype(float), self.mask, 0.5)
        wanted_size, wanted_mass = np.zeros((2, len(chosen)), np.int64)
        for member in members:
            wanted_size[member], wanted_mass[member] = len(member), excess[member].sum()
        found = clusters.largest_clusters(voxels, excess[chosen], self.grid, self.room)
        assert found == (wanted_size.max(initial=0), wanted_mass.max(initial=0))
        self.assert_clean()
        size, mass = np.full((2, len(voxels)), -1, np.int64)
        clusters.cluster_of_each(voxels, excess[chosen], self.grid, self.room, size, mass)
        assert_array_equal(size, wanted_size[chosen])
        assert_array_equal(mass, wanted_mass[chosen])
        self.assert_clean()

    def assert_clean(self) -> None:
        """Lines are empty again, and room is as large as it was."""
        assert not self.room.opened.any() and not self.room.closed.any()


def draw_mask(rng: np.random.Generator, shape: Shape, holes: float) -> NDArray[np.bool_]:
    mask = rng.uniform(size=shape) >= holes
    mask[tuple(rng.integers(shape))] = True
    return mask


def check_drawn(seed: int, shape: Shape, holes: float, densities: Any, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    prepared = Prepared(draw_mask(rng, shape, holes))
    n_voxels = int(prepared.mask.sum())
    for density in densities:
        chosen = rng.uniform(size=n_voxels) < density
        prepared.check(chosen, rng.integers(0, 2**30, n_voxels), kind)


def line(*values: int) -> tuple[Prepared, NDArray[np.int32], NDArray[np.int64]]:
    """A line of voxels, those that are not 0, and their values."""
    excess = np.array(values, np.int64)
    prepared = Prepared(np.ones((1, 1, len(values)), bool))
    return prepared, np.flatnonzero(excess).astype(np.int32), excess[excess > 0]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("holes", [0.0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("shape", SHAPES)
def test_clusters__equal_reference(shape: Shape, holes: float, kind: Any) -> None:
    # Densities up and down: what one leaves behind must not matter to the next.
    check_drawn(1, shape, holes, [0.0, 0.5, 1.0, 0.1, 0.3, 0.02, 0.7, 0.9], kind)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    holes=st.sampled_from([0.0, 0.3, 0.7]),
    densities=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_clusters__drawn(seed: int, shape: Shape, holes: float, densities: list[float]) -> None:
    check_drawn(seed, shape, holes, densities, np.int32)


def test_largest_clusters__size_and_mass_of_different_clusters() -> None:
    prepared, voxels, excess = line(1, 1, 1, 0, 9, 0, 2, 2)
    found = clusters.largest_clusters(voxels, excess, prepared.grid, prepared.room)
    assert found == (3, 9)


def test_cluster_of_each__hand_computed() -> None:
    prepared, voxels, excess = line(1, 1, 1, 0, 9, 0, 2, 2)
    size, mass = np.empty((2, 6), np.int64)
    clusters.cluster_of_each(voxels, excess, prepared.grid, prepared.room, size, mass)
    assert_array_equal(size, [3, 3, 3, 1, 2, 2])
    assert_array_equal(mass, [3, 3, 3, 9, 4, 4])


def test_clusters__nothing_above() -> None:
    prepared = Prepared(np.ones((2, 3, 4), bool))
    prepared.check(np.zeros(24, bool), np.ones(24, np.int64), np.int32)
    none = np.empty(0, np.int32), np.empty(0, np.int64)
    assert clusters.largest_clusters(*none, prepared.grid, prepared.room) == (0, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_clusters__whole_mask(shape: Shape) -> None:
    prepared = Prepared(np.ones(shape, bool))
    n_voxels = int(np.prod(shape))
    everything = np.ones(n_voxels, bool)
    prepared.check(everything, np.full(n_voxels, 3, np.int64), np.int32)
    voxels, excess = np.arange(n_voxels, dtype=np.int32), np.full(n_voxels, 3, np.int64)
    found = clusters.largest_clusters(voxels, excess, prepared.grid, prepared.room)
    assert found == (n_voxels, 3 * n_voxels)


def test_clusters__pieces_of_the_mask_do_not_touch() -> None:
    # All voxels: pieces are apart by a plane, by a line, by a voxel within a line, and by corners.
    mask = np.zeros((5, 5, 6), bool)
    mask[0] = True
    mask[2, :2] = True
    mask[2, 3, :3] = mask[2, 3, 4:] = True
    mask[3, 4, 3] = mask[4, 3, 3] = mask[4, 4, 4] = True
    prepared = Prepared(mask)
    n_voxels = int(mask.sum())
    prepared.check(np.ones(n_voxels, bool), np.arange(n_voxels), np.int32)
    size, mass = np.empty((2, n_voxels), np.int64)
    voxels = np.arange(n_voxels, dtype=np.int32)
    args = (voxels, voxels.astype(np.int64), prepared.grid, prepared.room)
    clusters.cluster_of_each(*args, size, mass)
    assert_array_equal(size, np.repeat([30, 12, 3, 2, 1, 1, 1], [30, 12, 3, 2, 1, 1, 1]))


def test_clusters__one_voxel() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[2, 2, 2] = True
    Prepared(mask).check(np.array([True]), np.array([7]), np.int32)


@pytest.mark.parametrize(
    ("one", "other", "size"),
    [
        ((0, 0, 3), (0, 1, 0), 1),  # the end of a line and the beginning of the next
        ((0, 2, 1), (1, 0, 1), 1),  # and of a plane
        ((0, 2, 3), (1, 0, 0), 1),
        ((0, 0, 1), (0, 1, 2), 1),  # edges and corners do not connect
        ((0, 0, 1), (1, 1, 1), 1),
        ((0, 0, 0), (1, 1, 1), 1),
        ((0, 0, 1), (0, 0, 3), 1),
        ((0, 0, 3), (0, 0, 2), 2),
        ((0, 2, 3), (0, 1, 3), 2),
        ((1, 2, 3), (0, 2, 3), 2),
    ],
)
@pytest.mark.parametrize("full", [True, False])
def test_clusters__only_faces_connect(one: Shape, other: Shape, size: int, full: bool) -> None:
    mask = np.full((2, 3, 4), full)
    mask[one] = mask[other] = True
    chosen = np.zeros(mask.shape, bool)
    chosen[one] = chosen[other] = True
    prepared = Prepared(mask)
    voxels = np.flatnonzero(chosen[mask]).astype(np.int32)
    ones = np.ones(2, np.int64)
    found = clusters.largest_clusters(voxels, ones, prepared.grid, prepared.room)
    assert found == (size, size)


def test_clusters__branches_that_meet_late() -> None:
    # Teeth of a comb that are joined by its back, at either end of each axis, and a spiral.
    for axis in range(3):
        for back in (0, -1):
            volume = np.zeros((9, 9, 9), bool)
            volume[::2, :, ::2] = True
            volume = np.moveaxis(volume, 1, axis)
            place: list[Any] = [slice(None)] * 3
            place[axis] = back
            volume[tuple(place)] = True
            check_volume(volume)
    spiral = np.zeros((1, 11, 11), bool)
    for turn in range(0, 6, 2):
        spiral[0, turn, turn : 11 - turn] = spiral[0, 10 - turn, turn : 11 - turn] = True
        spiral[0, turn : 11 - turn, 10 - turn] = True
        spiral[0, turn + 2 : 11 - turn, turn] = True
        spiral[0, turn + 2, turn : turn + 2] = True
    for turned in (spiral, spiral[:, ::-1], spiral[:, :, ::-1], spiral.transpose(1, 0, 2)):
        check_volume(turned)
    checkers = np.indices((5, 6, 7)).sum(axis=0) % 2 == 0  # as many runs as there can be
    check_volume(checkers)
    check_volume(~checkers)


def check_volume(volume: NDArray[np.bool_]) -> None:
    prepared = Prepared(np.ones(volume.shape, bool))
    rng = np.random.default_rng(0)
    prepared.check(volume.ravel(), rng.integers(0, 100, volume.size), np.int32)


@pytest.mark.parametrize("length", range(1, 8))
def test_room_for__is_enough_for_every_second_voxel(length: int) -> None:
    # Lines of segments of each length, with all of their voxels that begin a run each.
    mask = np.zeros((2, 3, 3 * (length + 1)), bool)
    for first in range(0, mask.shape[2], length + 1):
        mask[:, :, first : first + length] = True
    prepared = Prepared(mask)
    within = np.arange(mask.shape[2]) % (length + 1)
    every_second = np.broadcast_to(within % 2 == 0, mask.shape)[mask]
    assert every_second.sum() <= len(prepared.room.begin)
    prepared.check(every_second, np.ones(len(every_second), np.int64), np.int32)


def test_clusters__masses_beyond_32_bits() -> None:
    prepared, voxels, _ = line(*[1] * 100)
    excess = np.full(100, 2**50, np.int64)
    found = clusters.largest_clusters(voxels, excess, prepared.grid, prepared.room)
    assert found == (100, 100 * 2**50)


def test_clusters__mass_of_zero_is_a_cluster() -> None:
    # What is above the threshold by less than half a unit of mass.
    prepared, voxels, _ = line(1, 1, 1)
    none = np.zeros(3, np.int64)
    assert clusters.largest_clusters(voxels, none, prepared.grid, prepared.room) == (3, 0)
