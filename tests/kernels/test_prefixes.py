"""Groups of every size from one shuffle: the shuffle itself, and each group against its own map."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from numpy.random import PCG64
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats

from nimare_dask.kernels import exceed, prefixes, rows
from tests.foci import Case, draw_case
from tests.group_pairs import (
    CHI2_ERROR,
    assert_chi2_maxima,
    fisher_yates,
    n_at_the_edge,
)
from tests.reference import two_groups as reference

MOST = 2**64 - 1


def shuffled(raw: Any, n: int) -> list[int]:
    """All of the order after a shuffle of some steps."""
    order = np.arange(n, dtype=np.int32)
    prefixes.shuffle(np.asarray(raw, np.uint64), order)
    return [int(place) for place in order]


# the shuffle


def test_shuffle__equals_whole_numbers_of_python() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 18, 1000, 14_371, 300_000):
        count = min(n, 500)
        raw = PCG64(int(rng.integers(2**31))).random_raw(count)
        found = shuffled(raw, n)
        assert found[:count] == fisher_yates(raw.tolist(), n)
        assert sorted(found) == list(range(n))


def test_shuffle__smallest_and_largest_numbers() -> None:
    for n in (1, 2, 5, 32_767, 100_000):
        assert shuffled([0] * min(n, 50), n) == list(range(n))
        found = shuffled([MOST] * min(n, 50), n)
        assert found[0] == n - 1 and sorted(found) == list(range(n))
    # The last number of a step, and the first of the next: 2 ** 64 / 3 is not whole.
    third = (2**64 + 2) // 3
    assert [shuffled([raw], 3)[0] for raw in (third - 1, third)] == [0, 1]


def test_shuffle__no_steps_leave_the_order() -> None:
    assert shuffled([], 4) == [0, 1, 2, 3]


def test_shuffle__first_analyses_do_not_depend_on_later_ones() -> None:
    raw = PCG64(1).random_raw(18)
    whole = shuffled(raw, 18)
    for count in range(18):
        assert shuffled(raw[:count], 18)[:count] == whole[:count]


@pytest.mark.parametrize(("n", "count"), [(5, 2), (5, 3), (5, 5), (4, 4), (6, 1), (7, 2)])
def test_shuffle__every_order_is_as_likely(n: int, count: int) -> None:
    possible = {order: place for place, order in enumerate(permutations(range(n), count))}
    raw = PCG64(n * 100 + count).random_raw(count * 400 * len(possible)).reshape(-1, count)
    found = [possible[tuple(shuffled(row, n)[:count])] for row in raw]
    counts = np.bincount(found, minlength=len(possible))
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999


@pytest.mark.parametrize("count", [2, 3])
def test_shuffle__every_group_of_five_is_as_likely(count: int) -> None:
    groups = {group: place for place, group in enumerate(combinations(range(5), count))}
    assert len(groups) == 10
    raw = PCG64(count).random_raw(count * 20_000).reshape(-1, count)
    found = [groups[tuple(sorted(shuffled(row, 5)[:count]))] for row in raw]
    counts = np.bincount(found, minlength=10)
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999


def test_shuffle__everybody_is_as_often_in_a_large_group() -> None:
    n, count, n_iters = 101, 40, 3000
    raw = PCG64(9).random_raw(count * n_iters).reshape(n_iters, count)
    found = np.bincount(np.concatenate([shuffled(row, n)[:count] for row in raw]), minlength=n)
    # Draws without replacement vary less than a multinomial does, by (n - count) / (n - 1).
    deviation = ((found - found.mean()) ** 2 / found.mean()).sum() * (n - 1) / (n - count)
    assert 0.001 < stats.chi2.sf(deviation, n - 1) < 0.999


# groups of a shuffle


def test_prefixes_of__hand_computed() -> None:
    found = prefixes.prefixes_of(np.array([2, 3, 5, 6, 8]), 10)
    # 5 is half of all, so it is still counted itself; 6 is all but 4, 8 is all but 2.
    assert_array_equal(found.length, [2, 2, 3, 4, 5])
    assert_array_equal(found.is_rest, [False, True, False, True, False])
    assert_array_equal(found.place, [0, 4, 1, 3, 2])
    assert found.length.dtype == found.place.dtype == np.int64


@pytest.mark.parametrize("n", [2, 3, 9, 10])
def test_prefixes_of__every_size(n: int) -> None:
    sizes = np.arange(1, n)
    found = prefixes.prefixes_of(sizes, n)
    taken = np.where(found.is_rest, n - found.length, found.length)
    assert_array_equal(taken, sizes[found.place])
    assert_array_equal(found.length, np.sort(found.length))
    assert (2 * found.length <= n).all() and (found.length >= 1).all()


class Measured:
    """A case whose groups can be measured."""

    def __init__(self, case: Case, threshold: float) -> None:
        self.case, self.threshold, self.n = case, threshold, case.n_analyses
        self.rows = rows.list_rows(case.index, case.lines)
        self.active = case.expected
        self.n_active = self.active.sum(axis=0).astype(np.int32)
        self.margins = exceed.margins_of(self.n_active, self.n)
        self.rooms = exceed.rooms_for(case.mask)

    def measure(
        self,
        order: NDArray[np.int32],
        sizes: NDArray[np.int64],
        effects: list[int],
        kind: Any = np.int32,
        with_clusters: bool = True,
    ) -> NDArray[np.float64]:
        """Maxima (size, effect, inference) of all groups of one order."""
        room = np.full((3, len(self.n_active) + 1), 77, kind)
        maxima = np.full((len(sizes), len(effects), 3 if with_clusters else 1), -1.0)
        prefixes.measure_prefixes(
            self.rows,
            order,
            prefixes.prefixes_of(sizes, self.n),
            np.array(effects),
            self.margins,
            self.threshold,
            with_clusters,
            self.rooms,
            room,
            maxima,
        )
        return maxima

    def group(self, order: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
        """Which analyses a group has, (analysis,): the first of the order, or all but the first."""
        inside = np.zeros(self.n, bool)
        if 2 * size <= self.n:
            inside[order[:size]] = True
        else:
            inside[:] = True
            inside[order[: self.n - size]] = False
        assert inside.sum() == size
        return inside

    def alone(self, inside: NDArray[np.bool_], effect: int) -> NDArray[np.float64]:
        """The same of one group, whose map is counted by itself."""
        ones = self.active[inside].sum(axis=0).astype(np.int32)
        maxima = np.empty(3)
        args = ones, self.n_active - ones, self.margins, int(inside.sum()), effect
        exceed.measure(*args, self.threshold, True, self.rooms, maxima)
        return maxima


@pytest.fixture(scope="module", params=[(3, 11), (4, 12)])
def measured(request: pytest.FixtureRequest) -> Measured:
    seed, n = request.param
    return Measured(draw_case(seed, (6, 7, 9), n_analyses=n, n_foci=60, r=4.0), 1.3)


def drawn_order(n: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).permutation(n).astype(np.int32)


@pytest.mark.parametrize("kind", [np.int16, np.int32])
def test_measure_prefixes__every_size_equals_each_group_alone(
    measured: Measured, kind: Any
) -> None:
    sizes = np.arange(1, measured.n)
    for seed in range(6):
        order = drawn_order(measured.n, seed)
        found = measured.measure(order, sizes, [0, 1, 2], kind)
        for size in sizes.tolist():
            inside = measured.group(order, size)
            for effect in range(3):
                assert_array_equal(found[size - 1, effect], measured.alone(inside, effect))


def test_measure_prefixes__equals_reference(measured: Measured) -> None:
    p = float(stats.chi2.sf(measured.threshold, 1))
    active, sizes, n_edges = measured.active, np.arange(1, measured.n), 0
    order = drawn_order(measured.n, 7)
    found = measured.measure(order, sizes, [0, 1, 2])
    assert (found[..., 1] > 1).mean() > 0.5, "the case must find clusters"
    for size in sizes.tolist():
        inside = measured.group(order, size)
        ones, twos = active[inside].sum(axis=0), active[~inside].sum(axis=0)
        n_edges += n_at_the_edge(ones, twos, size, measured.n - size, measured.threshold)
        wanted = reference.chi2_maxima(
            ones, twos, size, measured.n - size, measured.case.mask, p, degenerate=0.0
        )
        assert_chi2_maxima(found[size - 1], wanted, measured.threshold)
    assert n_edges == 0


def test_measure_prefixes__sizes_do_not_depend_on_each_other(measured: Measured) -> None:
    order = drawn_order(measured.n)
    whole = measured.measure(order, np.arange(1, measured.n), [1])
    for some in ([1], [measured.n - 1], [2, 3], [3, measured.n - 3], [5, 6, 9], [1, 10]):
        sizes = np.array(some)
        needed = int(np.minimum(sizes, measured.n - sizes).max())
        # The order is known as far as the groups need it.
        found = measured.measure(order[:needed].copy(), sizes, [1])
        assert_array_equal(found, whole[sizes - 1])


def test_measure_prefixes__effects_in_any_order(measured: Measured) -> None:
    order, sizes = drawn_order(measured.n), np.array([3, 8])
    whole = measured.measure(order, sizes, [0, 1, 2])
    for effects in ([1], [2, 0], [2, 1, 0]):
        assert_array_equal(measured.measure(order, sizes, effects), whole[:, effects])


def test_measure_prefixes__without_clusters(measured: Measured) -> None:
    order, sizes = drawn_order(measured.n), np.array([1, 4, 7])
    whole = measured.measure(order, sizes, [0, 1, 2])
    found = measured.measure(order, sizes, [0, 1, 2], with_clusters=False)
    assert_array_equal(found, whole[..., :1])


def test_measure_prefixes__a_group_and_the_rest_of_the_same_order(measured: Measured) -> None:
    # Association is the same for a group and the others; uniformity of the one is group2 of theirs.
    order = drawn_order(measured.n)
    sizes = np.array([2, measured.n - 2])
    few, many = measured.measure(order, sizes, [0, 1, 2])
    assert_array_equal(few[0], many[2])
    assert_array_equal(few[2], many[0])
    # z has the other sign, of other roundings of float64.
    assert_allclose(few[1, 0], many[1, 0], rtol=CHI2_ERROR)
    assert few[1, 1] == many[1, 1]
