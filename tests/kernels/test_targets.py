"""Who activates which targets, and counts from a table, against the slow reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import coverage, rows, targets
from tests.foci import Case, draw_case

CASES = {
    "small": draw_case(0, (6, 7, 8)),
    "long lines": draw_case(1, (3, 3, 300), r=9.0, n_analyses=20, n_foci=120),
    "no holes": draw_case(2, (5, 5, 9), holes=0.0),
    "sparse mask": draw_case(3, (7, 5, 70), holes=0.8, r=14.0),
    "other zooms": draw_case(4, (6, 7, 8), (2.0, 3.0, 1.5)),
}


def reached(case: Case, target: NDArray[Any], needed: Any) -> NDArray[np.bool_]:
    """Who activates what, (analysis, target); targets of all voxels, -1 for none."""
    ijk = np.argwhere(case.mask).astype(np.int16)[target >= 0]
    found = rows.list_rows(case.index, coverage.group_lines(ijk))
    inside = target[target >= 0].astype(np.int32)
    start, places = targets.reached_targets(found, inside, np.asarray(needed, np.int64))
    table = np.zeros((case.n_analyses, len(needed)), int)
    for analysis in range(case.n_analyses):
        np.add.at(table[analysis], places[start[analysis] : start[analysis + 1]], 1)
    assert table.max(initial=0) <= 1, "each target once"
    return table.astype(bool)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["parcels", "scattered", "some voxels", "one"])
@pytest.mark.parametrize("least", [1, 3])
def test_reached_targets__equals_reference(name: str, kind: str, least: int) -> None:
    case = CASES[name]
    active, n_voxels = case.expected, int(case.mask.sum())
    rng = np.random.default_rng(5)
    target = {
        "parcels": np.arange(n_voxels) * 4 // n_voxels,
        "scattered": rng.integers(-1, 5, n_voxels),
        "some voxels": np.where(np.arange(n_voxels) % 3 == 1, np.arange(n_voxels) // 3, -1),
        "one": np.where(np.arange(n_voxels) == n_voxels // 2, 0, -1),
    }[kind]
    n_targets = int(target.max()) + 1
    needed = np.full(n_targets, least)
    expected = np.zeros((case.n_analyses, n_targets), bool)
    for own in range(n_targets):
        expected[:, own] = active[:, target == own].sum(axis=1) >= least
    assert_array_equal(reached(case, target, needed), expected)
    if name == "small" and kind == "parcels" and least == 1:
        assert expected.any() and not expected.all()


def test_reached_targets__none_is_active() -> None:
    case = draw_case(0, (4, 4, 4), n_foci=0)
    target = np.zeros(int(case.mask.sum()), int)
    assert not reached(case, target, [1]).any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("more", [0, 1])
def test_count_table__equals_count_active(name: str, more: int) -> None:
    case = CASES[name]
    runs = coverage.list_runs(case.index, case.lines)
    n_groups = case.member.shape[1]
    found = targets.count_table(runs, case.lines, case.mask.shape[2], case.member, n_groups + more)
    assert found.shape == (case.mask.sum(), n_groups + more)
    assert found.dtype == np.int32
    assert_array_equal(
        found[:, :n_groups], coverage.count_active(case.index, case.lines, *case.groups)
    )
    assert_array_equal(found[:, :n_groups], case.expected.astype(int).T @ case.member)


@pytest.mark.parametrize("n_analyses", [65_535, 65_536])
def test_count_table__number_of_analyses_past_16_bits(n_analyses: int) -> None:
    # Everybody reports the same voxel, so the count is as large as it can be.
    ijk = np.zeros((n_analyses, 3), np.int32)
    owner = np.arange(n_analyses, dtype=np.int32)
    index = coverage.index_foci(ijk, owner, np.array([[0, 0, 0]], np.int32), (1, 1, 2), n_analyses)
    lines = coverage.group_lines(np.array([[0, 0, 0], [0, 0, 1]], np.int16))
    runs = coverage.list_runs(index, lines)
    member = np.ones((n_analyses, 2), bool)
    member[7, 1] = False
    found = targets.count_table(runs, lines, 2, member, 2)
    assert found.tolist() == [[n_analyses, n_analyses - 1], [0, 0]]


@pytest.mark.parametrize("n_voxels", [1, 63, 64, 200])
def test_turn_counts__leaves_out_the_last(n_voxels: int) -> None:
    counts = np.random.default_rng(0).integers(0, 99, (n_voxels, 5)).astype(np.int32)
    found = targets.turn_counts(counts)
    assert found.flags.c_contiguous
    assert_array_equal(found, counts[:, :4].T)
