"""Histograms, clusters and scores of sums of whole numbers against numpy, scipy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import tally
from tests.reference.nulls import cluster_measures, tfce

HIGHEST = 2**31 - 1
Shape = tuple[int, int, int]


# bins


def check_steps(edges: Any, sums: Any, kind: Any = np.int32) -> None:
    """Bins and their counts against a search in all edges."""
    edges, sums = np.asarray(edges), np.asarray(sums).astype(kind)
    steps = tally.steps_at(edges)
    expected = np.searchsorted(edges, sums.astype(np.int64), side="right") - 1
    found = tally.bins_of(sums, steps)
    assert found.dtype == np.int32
    assert_array_equal(found, expected)
    counts = np.full(len(edges), 5, np.int64)
    tally.tally(sums, steps, counts)
    assert_array_equal(counts, 5 + np.bincount(expected, minlength=len(edges)))


def around(edges: Any, highest: int = HIGHEST) -> NDArray[np.int64]:
    """Every edge and its neighbours, and the ends of the type."""
    values = np.concatenate([np.asarray(edges) + offset for offset in (-1, 0, 1)])
    return np.unique(np.clip([*values, 0, 1, highest - 1, highest], 0, highest))


def test_bins_of__hand_computed() -> None:
    steps = tally.steps_at(np.array([0, 2, 2, 5]))
    sums = np.array([0, 1, 2, 4, 5, 99], np.int32)
    assert_array_equal(tally.bins_of(sums, steps), [0, 0, 2, 2, 3, 3])


@pytest.mark.parametrize(
    "edges",
    [
        [0],
        [0, 0, 0],
        [0, 1],
        [0, 0, 1, 1, 1, 9, 9],
        [0, HIGHEST],
        [0, HIGHEST, HIGHEST, HIGHEST],
        [0, 1, 2, 3, HIGHEST - 1, HIGHEST],
        [0, 2**20 - 1, 2**20, 2**20 + 1],
        [0, 2**21 + 1, 2**22, 2**30, 2**30 + 1],
        [0, 1000, 2000, 3000, 4096],
        range(5000),
        [0, *range(2**30, 2**30 + 2000)],
    ],
)
def test_bins_of__equals_a_search(edges: Any) -> None:
    check_steps(list(edges), around(list(edges)))


@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_bins_of__sums_of_either_type(kind: type) -> None:
    highest = int(np.iinfo(kind).max)
    edges = np.append(0, np.sort(np.random.default_rng(0).integers(0, 2 * highest, 300)))
    check_steps(edges, around(edges, highest), kind)


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(
        st.integers(0, 40) | st.integers(0, 10**5) | st.integers(0, HIGHEST), max_size=40
    ).map(lambda rest: [0, *sorted(rest)]),
    sums=st.lists(st.integers(0, 50) | st.integers(0, HIGHEST), max_size=20),
)
def test_bins_of__drawn(edges: list[int], sums: list[int]) -> None:
    check_steps(edges, [*sums, *around(edges).tolist()])


def test_steps_at__table_stays_small_where_edges_are_close_and_high() -> None:
    steps = tally.steps_at(np.array([0, 1, 2, HIGHEST - 1, HIGHEST]))
    assert len(steps.start) <= 1 << 20
    assert len(tally.steps_at(np.arange(100) * 4096).start) < 200  # one bucket for a wide bin


# iterations that reach the observed map


@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_count_reaching__adds_where_at_least(kind: type) -> None:
    sums = np.array([3, 4, 5, 0], kind)
    counts = np.array([1, 1, 1, 7], np.int32)
    tally.count_reaching(sums, np.array([4, 4, 4, 0], np.int32), counts)
    assert_array_equal(counts, [1, 2, 2, 8])


# clusters


def check_clusters(volume: NDArray[np.float64], mask: NDArray[np.bool_], threshold: float) -> None:
    """The largest clusters of one map against labels of scipy."""
    neighbours = tally.neighbours_of(mask)
    label = np.zeros(neighbours.size, np.int32)
    stat = volume[mask]
    voxels = np.flatnonzero(stat > threshold)
    found = tally.largest_clusters(voxels, stat[voxels] - threshold, neighbours, label)
    size, mass = cluster_measures(np.where(mask, volume, 0.0), threshold)[1]
    assert found[0] == size
    assert_allclose(found[1], mass, rtol=1e-12)
    assert not label.any()


def draw_volume(seed: int, shape: Shape, holes: float) -> tuple[Any, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    mask = rng.uniform(size=shape) >= holes
    mask[tuple(rng.integers(shape))] = True
    return rng.uniform(size=shape), mask


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 1, 40), (9, 1, 9), (3, 20, 2), (12, 12, 12)])
def test_largest_clusters__equals_scipy(shape: Shape, threshold: float) -> None:
    for seed, holes in enumerate((0.0, 0.2, 0.6)):
        check_clusters(*draw_volume(seed, shape, holes), threshold)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    holes=st.sampled_from([0.0, 0.3, 0.7]),
    threshold=st.floats(0, 1),
)
def test_largest_clusters__drawn(seed: int, shape: Shape, holes: float, threshold: float) -> None:
    check_clusters(*draw_volume(seed, shape, holes), threshold)


def test_largest_clusters__size_and_mass_of_different_clusters() -> None:
    volume = np.array([[[1.0, 1, 1, 0, 9, 0, 2, 2]]])
    neighbours = tally.neighbours_of(np.ones(volume.shape, bool))
    label = np.zeros(neighbours.size, np.int32)
    voxels = np.flatnonzero(volume.ravel() > 0.5)
    excess = volume.ravel()[voxels] - 0.5
    assert tally.largest_clusters(voxels, excess, neighbours, label) == (3, 8.5)


def test_largest_clusters__nothing_above() -> None:
    neighbours = tally.neighbours_of(np.ones((2, 3, 4), bool))
    label = np.zeros(neighbours.size, np.int32)
    none = np.empty(0, np.int64)
    assert tally.largest_clusters(none, np.empty(0), neighbours, label) == (0, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "size"),
    [
        ((0, 0, 3), (0, 1, 0), 1),  # the end of a line and the beginning of the next
        ((0, 2, 1), (1, 0, 1), 1),  # and of a plane
        ((0, 2, 3), (1, 0, 0), 1),
        ((0, 0, 1), (0, 1, 2), 1),  # edges and corners do not connect
        ((0, 0, 1), (1, 1, 1), 1),
        ((0, 0, 0), (1, 1, 1), 1),
        ((0, 0, 3), (0, 0, 2), 2),
        ((0, 2, 3), (0, 1, 3), 2),
        ((1, 2, 3), (0, 2, 3), 2),
    ],
)
@pytest.mark.parametrize("full", [True, False])
def test_clusters__only_faces_connect(one: Shape, other: Shape, size: int, full: bool) -> None:
    mask = np.full((2, 3, 4), full)
    mask[one] = mask[other] = True
    volume = np.zeros(mask.shape)
    volume[one] = volume[other] = 1.0
    neighbours = tally.neighbours_of(mask)
    label = np.zeros(neighbours.size, np.int32)
    voxels = np.flatnonzero(volume[mask])
    assert tally.largest_clusters(voxels, np.ones(2), neighbours, label) == (size, float(size))
    level = volume[mask].astype(np.int32)
    powers = np.arange(25.0)
    assert (
        tally.largest_enhanced(level, np.array([0.0, 10]), powers, neighbours, label) == 10 * size
    )


# threshold-free cluster enhancement


def check_enhanced(
    level: NDArray[np.int32], mask: NDArray[np.bool_], E: float, H: float, step: float
) -> None:
    """The largest score against that of the slow reference."""
    neighbours = tally.neighbours_of(mask)
    label = np.zeros(neighbours.size, np.int32)
    height = (step * np.arange(level.max(initial=0) + 3)) ** H * step
    powers = np.arange(mask.sum() + 1.0) ** E
    found = tally.largest_enhanced(level[mask], height, powers, neighbours, label)
    expected = tfce(np.where(mask, level, 0) * step, E, H, step).max()
    assert_allclose(found, expected, rtol=1e-12)
    assert not label.any()


@pytest.mark.parametrize(("E", "H", "step"), [(0.5, 2.0, 0.1), (1.0, 1.0, 1.0), (0.3, 3.0, 0.25)])
@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 1, 40), (9, 1, 9), (10, 10, 10)])
def test_largest_enhanced__equals_reference(shape: Shape, E: float, H: float, step: float) -> None:
    for seed, holes in enumerate((0.0, 0.2, 0.6)):
        rng = np.random.default_rng(seed)
        mask = draw_volume(seed, shape, holes)[1]
        level = rng.poisson(rng.choice([0.3, 2.0, 6.0]), size=shape).astype(np.int32)
        check_enhanced(level, mask, E, H, step)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    holes=st.sampled_from([0.0, 0.3, 0.7]),
    highest=st.sampled_from([0, 1, 2, 5, 40]),
)
def test_largest_enhanced__drawn(seed: int, shape: Shape, holes: float, highest: int) -> None:
    mask = draw_volume(seed, shape, holes)[1]
    level = np.random.default_rng(seed).integers(0, highest, size=shape, endpoint=True)
    check_enhanced(level.astype(np.int32), mask, 0.5, 2.0, 0.1)


def test_largest_enhanced__peaks_that_merge_keep_the_better_one() -> None:
    # With E = 1 and H = 2: 9 + 4 + 4 * 1 for the peak on the left, 2 * 4 + 4 * 1 on the right.
    level = np.array([3, 1, 2, 2], np.int32)
    neighbours = tally.neighbours_of(np.ones((1, 1, 4), bool))
    label = np.zeros(neighbours.size, np.int32)
    height = np.arange(4.0) ** 2
    found = tally.largest_enhanced(level, height, np.arange(5.0), neighbours, label)
    assert found == 17
    other = np.array([2, 2, 1, 2, 2], np.int32)
    neighbours = tally.neighbours_of(np.ones((1, 1, 5), bool))
    label = np.zeros(neighbours.size, np.int32)
    assert tally.largest_enhanced(other, height, np.arange(6.0), neighbours, label) == 13
