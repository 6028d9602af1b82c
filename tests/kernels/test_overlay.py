"""Footprints laid over the brain against plain loops, with and without JIT."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import overlay
from tests.overlays import SIZES, Overlay, Shape, draw_overlay

KINDS = [np.int16, np.int32]
UNIONS = [True, False]


def check(case: Overlay) -> None:
    """Sums and counts, of unions and of all, against plain loops."""
    for union in UNIONS:
        maps = case.expected_maps(union)
        sums = case.sums(union)
        assert sums.dtype == case.dense[0].dtype
        assert_array_equal(sums, maps.sum(axis=0))
        highest = int(maps.max())
        for n_values in (highest + 3, max(1, highest)):
            counts = case.counts(union, n_values)
            assert_array_equal(counts, case.expected_counts(union, n_values))


def one_analysis(ijk: Any, footprint: NDArray[Any], mask: NDArray[np.bool_]) -> Overlay:
    points = np.asarray(ijk, np.int32).reshape(-1, 3)
    owner = np.zeros(len(points), np.int32)
    return Overlay(points, owner, np.zeros(1, np.int32), [footprint], mask)


# by hand


def test_sum_footprints__hand_computed() -> None:
    mask = np.ones((1, 1, 6), bool)
    mask[0, 0, 1] = False
    case = Overlay(
        ijk=np.array([[0, 0, 0], [0, 0, 2], [0, 0, -1], [0, 0, 6], [0, 0, 7]], np.int32),
        owner=np.array([0, 0, 1, 1, 1], np.int32),
        footprint_of=np.array([0, 1, 0], np.int32),
        dense=[np.array([[[2, 5, 1]]], np.int16), np.array([[[7, 9, 8]]], np.int16)],
        mask=mask,
    )
    # First: 5 1 0 0 0 0 and 0 2 5 1 0 0. Second: 8 0 0 0 0 0, 0 0 0 0 0 7, and one out of reach.
    assert_array_equal(case.sums(union=True), [13, 5, 1, 0, 7])
    assert_array_equal(case.sums(union=False), [13, 5, 1, 0, 7])
    counts = case.counts(union=True, n_values=6)
    assert_array_equal(counts, [[2, 1, 0, 0, 0, 2], [3, 0, 0, 0, 0, 2], [5, 0, 0, 0, 0, 0]])


def test_sum_footprints__overlap_counts_once_or_every_time() -> None:
    mask = np.ones((1, 1, 5), bool)
    ijk = [[0, 0, 1], [0, 0, 2], [0, 0, 2]]
    case = one_analysis(ijk, np.array([[[1, 4, 2]]], np.int32), mask)
    # 1 4 2 0 0 and twice 0 1 4 2 0.
    assert_array_equal(case.sums(union=True), [1, 4, 4, 2, 0])
    assert_array_equal(case.sums(union=False), [1, 6, 10, 4, 0])


def test_place_of__hand_computed() -> None:
    mask = np.zeros((3, 2, 5), bool)
    mask[0, 1] = [1, 1, 0, 0, 1]
    mask[2, 0] = [0, 1, 1, 1, 0]
    place = overlay.place_of(mask)
    assert_array_equal(place.shape, [3, 2, 5])
    assert_array_equal(place.run, [[1, 0, 2], [1, 4, 1], [0, 1, 3]])
    assert_array_equal(place.first_run, [0, 2, 2, 3])
    assert_array_equal(place.first_voxel, [0, 3, 3, 6])


# against plain loops


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 5, 15, 16, 17, 33, 64])
def test_sum_footprints__any_length_of_line(length: int, kind: type) -> None:
    for seed in range(3):
        check(draw_overlay(seed, (4, 5, length), kind=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(11, 3, 7), (3, 13, 9), (1, 1, 20), (9, 1, 1), (1, 9, 1)])
def test_sum_footprints__odd_volumes(shape: Shape, kind: type) -> None:
    check(draw_overlay(1, shape, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [*range(1, 36, 2), 71, 129])
def test_sum_footprints__rows_of_any_number_of_vectors(width: int, kind: type) -> None:
    # Rows begin at every place of a vector: one focus for each voxel along the line.
    rng = np.random.default_rng(width)
    footprint = rng.integers(1, 50, size=(1, 3, width)).astype(kind)
    mask = np.ones((2, 3, 40), bool)
    for at in range(-width // 2 - 1, 41 + width // 2):
        case = one_analysis([[0, 1, at], [1, 2, at + 1], [1, 1, at]], footprint, mask)
        for union in UNIONS:
            assert_array_equal(case.sums(union), case.expected_maps(union)[0], err_msg=f"{at}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(3, 3, 31), (3, 31, 3), (31, 3, 3), (41, 21, 61)])
def test_sum_footprints__footprints_wider_than_the_volume(size: Shape, kind: type) -> None:
    check(draw_overlay(2, (4, 5, 6), kind=kind, sizes=(size,), n_foci=15))
    check(draw_overlay(3, (4, 5, 6), kind=kind, sizes=(size, (3, 3, 3)), n_foci=15))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__foci_beyond_every_side(kind: type, axis: int) -> None:
    rng = np.random.default_rng(axis)
    footprint = rng.integers(1, 9, size=(5, 7, 9)).astype(kind)
    mask = np.ones((6, 5, 7), bool)
    for at in [*range(-7, 0), *range(5, 14), -32768, 32767]:
        focus = [2, 2, 3]
        focus[axis] = at
        for union in UNIONS:
            alone = one_analysis([focus], footprint, mask)
            assert_array_equal(alone.sums(union), alone.expected_maps(union)[0])
            inside = one_analysis([focus, [1, 1, 1], focus], footprint, mask)
            assert_array_equal(inside.sums(union), inside.expected_maps(union)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__foci_beyond_int16(kind: type) -> None:
    case = draw_overlay(4, (5, 4, 9), kind=kind)
    case.ijk[::4] += np.int32(2_000_000_000)
    case.ijk[1::4] -= np.int32(2_000_000_000)
    check(case)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__masks(kind: type) -> None:
    case = draw_overlay(5, (6, 7, 19), kind=kind)
    masks = [np.ones_like(case.mask) for _ in range(3)]
    masks[1][:, :, ::2] = False
    masks[2][2:4] = False
    for at in ([3, 6, 18], [0, 0, 0], [slice(None), 4], [5], [..., 18], [2, ..., 3]):
        masks.append(np.zeros_like(case.mask))
        masks[-1][tuple(at)] = True
    for mask in masks:
        check(replace(case, mask=mask))


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__single_foci_and_many(kind: type) -> None:
    single = draw_overlay(6, (5, 6, 9), kind=kind, n_foci=30)
    alone = np.arange(30, dtype=np.int32)
    check(replace(single, owner=alone, footprint_of=np.resize(single.footprint_of, 30)))
    check(draw_overlay(7, (5, 6, 9), kind=kind, n_analyses=3, n_foci=400, largest=20))


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__no_foci_and_zeros(kind: type) -> None:
    check(draw_overlay(8, (3, 4, 5), kind=kind, n_foci=0))
    case = draw_overlay(9, (3, 4, 5), kind=kind)
    check(replace(case, dense=[np.zeros_like(footprint) for footprint in case.dense]))
    hollow = [footprint.copy() for footprint in case.dense]
    for footprint in hollow:
        footprint[len(footprint) // 2] = 0  # a plane of zeros between others
    check(replace(case, dense=hollow))


# the base from which analyses count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, 1, 2, 100])
def test_sum_footprints__largest_close_to_the_limit_of_the_type(room: int, kind: type) -> None:
    # One analysis reaches the limit, and many planes and analyses share what each counts in.
    limit = int(np.iinfo(kind).max)
    case = draw_overlay(10, (9, 6, 11), kind=kind, sizes=((5, 5, 5),), n_analyses=1, n_foci=60)
    footprint = (case.dense[0] * 7).astype(kind)
    footprint[2, 2, 2] = limit - room
    high = replace(case, dense=[footprint], owner=np.zeros(60, np.int32))
    sums = high.sums(union=True)
    assert int(sums.max()) == limit - room
    assert_array_equal(sums, high.expected_maps(union=True)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [2, 3, 5, 6])
def test_sum_footprints__base_is_cleared_between_analyses(share: int, kind: type) -> None:
    largest, n_foci = int(np.iinfo(kind).max) // share, 16 * share
    for seed in range(4):
        case = draw_overlay(
            seed, (7, 6, 18), kind=kind, n_analyses=share, n_foci=n_foci, largest=largest
        )
        case = replace(case, owner=np.repeat(np.arange(share, dtype=np.int32), 16))
        sums = case.expected_maps(union=True).sum(axis=0)
        assert sums.max() > largest
        assert_array_equal(case.sums(union=True), sums)


def test_count_values__base_is_cleared_between_analyses() -> None:
    # Positions in a table of values: as many as int16 holds.
    case = draw_overlay(11, (6, 6, 9), sizes=((5, 5, 5), (3, 3, 3)), n_foci=60, largest=32766)
    counts = case.counts(union=True, n_values=32767)
    assert_array_equal(counts, case.expected_counts(union=True, n_values=32767))


# sums that need int64


@pytest.mark.parametrize("foci_of_each", [1, 2, 40])
@pytest.mark.parametrize("n_analyses", [1, 3, 40])
@pytest.mark.parametrize("share", [1, 2, 7, 100])
def test_sum_footprints__sums_beyond_int32(share: int, n_analyses: int, foci_of_each: int) -> None:
    # As many foci as surely fit are laid at a time, and analyses stay whole.
    largest, n_foci = int(np.iinfo(np.int32).max) // share, n_analyses * foci_of_each
    case = draw_overlay(
        share, (4, 5, 18), kind=np.int32, sizes=((5, 5, 9), (3, 3, 3)), largest=largest
    )
    rng = np.random.default_rng(share)
    case = replace(
        case,
        ijk=rng.integers(-1, [5, 6, 19], size=(n_foci, 3)).astype(np.int32),
        owner=np.repeat(np.arange(n_analyses, dtype=np.int32), foci_of_each),
        footprint_of=rng.integers(0, 2, n_analyses).astype(np.int32),
    )
    sums = case.expected_maps(union=True).sum(axis=0)
    if n_analyses == foci_of_each == 40 and share < 10:
        assert sums.max() > np.iinfo(np.int32).max
    assert_array_equal(case.sums(union=True, kind=np.int64), sums)


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__small_sums_in_int64_are_the_same(kind: type) -> None:
    case = draw_overlay(12, (5, 6, 19), kind=kind, n_foci=80)
    for union in UNIONS:
        assert_array_equal(case.sums(union, np.int64), case.expected_maps(union).sum(axis=0))


# drawn


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2, 9, 16, 31, 40])),
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
    n_analyses=st.integers(1, 8),
    n_foci=st.integers(0, 40),
    holes=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_kernels__drawn(
    seed: int,
    shape: Shape,
    kind: type,
    sizes: list[Shape],
    n_analyses: int,
    n_foci: int,
    holes: float,
) -> None:
    case = draw_overlay(
        seed,
        shape,
        kind=kind,
        sizes=tuple(sizes),
        n_analyses=n_analyses,
        n_foci=n_foci,
        largest=500,
        holes=holes,
    )
    check(case)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), union=st.booleans())
def test_sum_footprints__order_of_analyses_does_not_matter(
    seed: int, kind: type, union: bool
) -> None:
    largest = int(np.iinfo(kind).max) // 120
    case = draw_overlay(seed, (5, 4, 17), kind=kind, n_foci=100, largest=largest)
    order = np.random.default_rng(seed).permutation(case.n_analyses)
    foci = [np.flatnonzero(case.owner == analysis)[::-1] for analysis in order]
    mixed = replace(
        case,
        ijk=case.ijk[np.concatenate(foci)],
        owner=np.repeat(np.arange(len(order), dtype=np.int32), [len(part) for part in foci]),
        footprint_of=case.footprint_of[order],
    )
    assert_array_equal(case.sums(union), mixed.sums(union))
    assert_array_equal(case.counts(union, 50)[order], mixed.counts(union, 50))


# without JIT

_SCRIPT = """
import sys
import numpy as np
from nimare_dask.kernels import fold, tally
from tests.overlays import draw_overlay

found = {}
for kind in (np.int16, np.int32):
    for union in (True, False):
        case = draw_overlay(1, (4, 3, 17), kind=kind, n_foci=14, n_analyses=4)
        sums = case.sums(union)
        name = f"{np.dtype(kind)}{union}"
        found[f"sums{name}"] = sums
        found[f"counts{name}"] = case.counts(union, 40)
        steps = tally.steps_at(np.array([0, 3, 3, 50, 51, 200]))
        found[f"bins{name}"] = tally.bins_of(sums, steps)
        found[f"tally{name}"] = np.zeros(6, np.int64)
        tally.tally(sums, steps, found[f"tally{name}"])
        found[f"reaching{name}"] = np.zeros(len(sums), np.int32)
        tally.count_reaching(sums, sums[::-1].copy(), found[f"reaching{name}"])
        neighbours = tally.neighbours_of(case.mask)
        label = np.zeros(neighbours.size, np.int32)
        members = np.flatnonzero(sums > 150)
        largest = tally.largest_clusters(members, sums[members] - 150.0, neighbours, label)
        found[f"clusters{name}"] = np.array(largest)
        powers = np.sqrt(np.arange(len(sums) + 1))
        score = tally.largest_enhanced(
            found[f"bins{name}"], np.arange(6.0), powers, neighbours, label
        )
        found[f"enhanced{name}"] = np.array([score, label.any()])
wide = draw_overlay(3, (4, 3, 9), kind=np.int32, n_foci=20, largest=2**30)
found["wide"] = wide.sums(True, np.int64)
limit = draw_overlay(2, (5, 3, 9), n_foci=20, n_analyses=2, sizes=((3, 3, 3),), largest=16383)
found["limit"] = limit.sums(True)
shares = np.random.default_rng(0).dirichlet(np.ones(6), 3)
found["fold"] = fold.fold_histograms(shares, np.arange(25) * 0.04)
np.savez(sys.argv[1], **found)
"""


def test_kernels__same_without_jit(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("jit")
    found = {}
    for disabled in ("0", "1"):
        path = folder / f"{disabled}.npz"
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", "-c", _SCRIPT, str(path)],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        found[disabled] = dict(np.load(path))
    assert list(found["0"]) == list(found["1"])
    for name, values in found["0"].items():
        assert values.dtype == found["1"][name].dtype, name
        if name == "fold":  # the compiler may fuse a product and a sum
            np.testing.assert_allclose(values, found["1"][name], rtol=1e-13)
        else:
            assert_array_equal(values, found["1"][name], err_msg=name)
    case = draw_overlay(1, (4, 3, 17), kind=np.int16, n_foci=14, n_analyses=4)
    assert_array_equal(found["1"]["sumsint16True"], case.expected_maps(True).sum(axis=0))
