"""Runs of voxels by analysis against the slow reference, and all kernels of groups without JIT."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.errors import NimareDaskError
from nimare_dask.kernels import coverage, rows
from tests.foci import Case, Shape, draw_case

Zooms = tuple[float, float, float]
KINDS = [np.int16, np.int32]


def dense(found: rows.Rows, n_analyses: int, n_voxels: int) -> NDArray[np.bool_]:
    """The runs as activation (analysis, voxel), read off one by one."""
    assert found.start.dtype == np.int64 and found.run.dtype == np.uint32
    assert len(found.start) == n_analyses + 1
    assert found.start[0] == 0 and found.start[-1] == len(found.run)
    active = np.zeros((n_analyses, n_voxels), bool)
    for analysis in range(n_analyses):
        last = 0
        for run in found.run[found.start[analysis] : found.start[analysis + 1]].tolist():
            first, length = run >> 8, run & 255
            assert length > 0 and last <= first and first + length <= n_voxels
            active[analysis, first : first + length] = True
            last = first + length
    return active


def counted(
    found: rows.Rows, chosen: Any, n_voxels: int, kind: Any = np.int32
) -> tuple[NDArray[Any], int]:
    """Active analyses of a group, (voxel,), and their sum."""
    change, counts = np.zeros(n_voxels + 1, kind), np.full(n_voxels, -1, kind)
    rows.add_rows(found, np.asarray(chosen, np.int32), change)
    total = rows.running_sum(change, counts)
    assert change.sum() == 0, "whatever begins ends"
    return counts, int(total)


def check(case: Case) -> None:
    """Runs, and the counts of every group, of either type, in one go and in two."""
    index, lines, expected = case.index, case.lines, case.expected
    found, n_voxels = rows.list_rows(index, lines), int(case.mask.sum())
    active = dense(found, case.n_analyses, n_voxels)
    assert_array_equal(active, expected)
    assert_array_equal(active, coverage.dense_activation(index, lines))
    wanted = coverage.count_active(index, lines, *case.groups)
    for group in range(wanted.shape[1]):
        chosen = np.flatnonzero(case.member[:, group])
        for kind in KINDS:
            counts, total = counted(found, chosen, n_voxels, kind)
            assert counts.dtype == kind
            assert_array_equal(counts, wanted[:, group])
            assert total == wanted[:, group].sum()
        change, half = np.zeros(n_voxels + 1, np.int32), len(chosen) // 2
        for part in (chosen[half:], chosen[:half]):
            rows.add_rows(found, part.astype(np.int32), change)
        again = np.empty(n_voxels, np.int32)
        rows.running_sum(change, again)
        assert_array_equal(again, wanted[:, group])


def test_list_rows__hand_computed() -> None:
    # Five voxels with a hole in the middle, which counts as none: the run of the first is 0 1 3.
    mask = np.array([[[True, True, False, True, True]]])
    case = Case(
        ijk=np.array([[0, 0, 1], [0, 0, 2], [0, 0, 4], [0, 0, 9]], np.int32),
        owner=np.array([0, 0, 1, 2], np.int32),
        n_analyses=3,
        mask=mask,
        zooms=(2.0, 2.0, 2.0),
        r=2.0,
        member=np.ones((3, 1), bool),
    )
    found = rows.list_rows(case.index, case.lines)
    assert_array_equal(found.start, [0, 1, 2, 2])
    assert_array_equal(found.run, [(0 << 8) | 3, (2 << 8) | 2])
    counts, total = counted(found, [0, 1, 2], 4)
    assert_array_equal(counts, [1, 1, 2, 1])
    assert total == 5


def test_list_rows__runs_in_holes_of_the_mask_are_left_out() -> None:
    mask = np.array([[[True, False, False, False, True]]])
    case = Case(
        ijk=np.array([[0, 0, 2], [0, 0, 0]], np.int32),
        owner=np.array([0, 1], np.int32),
        n_analyses=2,
        mask=mask,
        zooms=(2.0, 2.0, 2.0),
        r=2.0,
        member=np.ones((2, 1), bool),
    )
    found = rows.list_rows(case.index, case.lines)
    assert_array_equal(found.start, [0, 0, 1])
    assert_array_equal(found.run, [(0 << 8) | 1])


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("length", [5, 63, 64, 65, 91, 130, 255])
def test_rows__any_length_of_line(length: int, holes: float) -> None:
    check(draw_case(length, (4, 5, length), holes=holes))


@pytest.mark.parametrize("zooms", [(3.0, 2.0, 4.0), (1.5, 2.5, 1.0), (4.0, 4.0, 0.8)])
def test_rows__anisotropic(zooms: Zooms) -> None:
    check(draw_case(1, (5, 4, 66), zooms, r=5.0))


def test_rows__one_voxel_one_line_and_footprints_larger_than_the_volume() -> None:
    check(draw_case(2, (4, 4, 64), holes=1.0))
    check(draw_case(3, (1, 1, 64)))
    check(draw_case(4, (2, 3, 5), r=14.0))
    check(draw_case(5, (5, 5, 66), r=1.0, n_foci=300))


def test_rows__no_foci_and_foci_out_of_reach() -> None:
    check(draw_case(6, (3, 3, 6), n_foci=0))
    case = draw_case(7, (3, 3, 6))
    far = Case(**{**vars(case), "ijk": case.ijk + np.int32(1000)})
    assert not far.expected.any()
    check(far)


def test_rows__nobody_and_everybody_chosen() -> None:
    case = draw_case(8, (4, 4, 20), n_groups=2)
    case.member[:, 0], case.member[:, 1] = False, True
    check(case)


def test_rows__order_of_the_chosen_does_not_matter() -> None:
    case = draw_case(9, (5, 5, 20))
    found, n_voxels = rows.list_rows(case.index, case.lines), int(case.mask.sum())
    one = counted(found, [0, 3, 5, 7], n_voxels)[0]
    assert_array_equal(counted(found, [7, 0, 5, 3], n_voxels)[0], one)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 9, 64, 65])),
    zooms=st.tuples(*[st.sampled_from([1.0, 1.7, 2.0, 3.0])] * 3),
    r=st.sampled_from([0.9, 2.0, 4.0, 5.5]),
    n_foci=st.integers(0, 25),
    holes=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_rows__drawn(
    seed: int, shape: Shape, zooms: Zooms, r: float, n_foci: int, holes: float
) -> None:
    check(draw_case(seed, shape, zooms, r=r, n_foci=n_foci, n_analyses=6, holes=holes))


# how long runs and how many voxels there can be


def whole_line(length: int) -> Case:
    """One analysis that is active along a whole line, between two that are at its ends."""
    middle = np.arange(0, length, 4)
    k = np.concatenate([[0], middle, [length - 1]])
    owner = np.concatenate([[0], np.ones(len(middle)), [2]])
    return Case(
        ijk=np.column_stack([np.zeros((len(k), 2)), k]).astype(np.int32),
        owner=owner.astype(np.int32),
        n_analyses=3,
        mask=np.ones((1, 1, length), bool),
        zooms=(2.0, 2.0, 2.0),
        r=8.0,
        member=np.ones((3, 1), bool),
    )


@pytest.mark.parametrize("length", [254, rows.LONGEST_RUN])
def test_rows__longest_run(length: int) -> None:
    case = whole_line(length)
    assert case.expected[1].all()
    check(case)


@pytest.mark.parametrize("length", [256, 300])
def test_rows__run_that_is_too_long_is_split_or_refused(length: int) -> None:
    case = whole_line(length)
    try:
        found = rows.list_rows(case.index, case.lines)
    except (NimareDaskError, ValueError):
        return
    active = np.zeros((3, length), bool)
    for analysis in range(3):
        for run in found.run[found.start[analysis] : found.start[analysis + 1]].tolist():
            active[analysis, run >> 8 : (run >> 8) + (run & 255)] = True
    assert_array_equal(active, case.expected)


def test_rows__voxels_up_to_the_last_number() -> None:
    # Two lines at the very end of as many voxels as there can be; nothing before is looked at.
    n_voxels = rows.MOST_VOXELS
    start = np.array([n_voxels - 10, n_voxels - 6, n_voxels], np.int64)
    k = np.zeros(n_voxels, np.int32)
    k[-10:] = [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    lines = coverage.VoxelLines(ij=np.array([[0, 0], [0, 1]], np.int32), start=start, k=k)
    runs = coverage.Runs(
        start=np.array([0, 1, 3]),
        analysis=np.array([1, 1, 0], np.uint16),
        begin=np.array([1, 4, 0], np.int16),
        end=np.array([6, 6, 1], np.int16),
    )
    found = rows._rows_of(runs, lines, 6, 2)
    assert_array_equal(found.start, [0, 1, 3])
    first, length = found.run >> np.uint32(8), found.run & np.uint32(255)
    assert_array_equal(first, [n_voxels - 6, n_voxels - 9, n_voxels - 2])
    assert_array_equal(length, [1, 3, 2])


# without JIT

_SCRIPT = """
import sys
import numpy as np
from nimare_dask.kernels import clusters, difference, exceed, prefixes, rows
from tests.foci import draw_case

case, found = draw_case(3, (3, 4, 9), n_foci=30, n_analyses=9), {}
table, n_voxels = rows.list_rows(case.index, case.lines), int(case.mask.sum())
found["start"], found["run"] = table
raw = np.random.PCG64(0).random_raw(4)
order = np.arange(9, dtype=np.int32)
prefixes.shuffle(raw, order)
found["order"] = order
n_active = case.expected.sum(axis=0).astype(np.int32)
margins = exceed.margins_of(n_active, 9)
groups = prefixes.prefixes_of(np.array([2, 4, 7]), 9)
rooms, room = exceed.rooms_for(case.mask), np.empty((3, n_voxels + 1), np.int16)
for threshold in (0.4, 30.0):
    maxima = np.zeros((3, 3, 3))
    prefixes.measure_prefixes(
        table, order, groups, np.arange(3), margins, threshold, True, rooms, room, maxima
    )
    found[f"maxima{threshold}"] = maxima
voxels = np.arange(0, n_voxels, dtype=np.int32)[::2]
size, mass = np.empty((2, len(voxels)), np.int64)
clusters.cluster_of_each(voxels, voxels.astype(np.int64), rooms.grid, rooms.clusters, size, mass)
found["size"], found["mass"] = size, mass
ints = np.random.default_rng(0).integers(0, 2**20, (9, n_voxels)).astype(np.int32)
total, observed = ints.sum(axis=0, dtype=np.int32), ints[:4].sum(axis=0, dtype=np.int32)
up, low = np.zeros((2, n_voxels), np.uint32)
listed = difference.Found(*(np.zeros(200, kind) for kind in (np.int32, np.int32, np.int64)))
limits = difference.limits_of(total, 0.05, 2.0**22)
table = difference.table_of(ints, n_voxels)
n = difference.shuffle_table(
    table, np.array([order[:4], order[4:8]]), True, total, observed, limits, up, low, listed
)
found["survival"] = np.zeros(n_voxels)
difference.add_survival(table, np.array([order[:4], order[4:8]]), 2.0**22, found["survival"])
found["up"], found["low"], found["n"] = up, low, np.array(n)
out = np.empty(n_voxels, np.float32)
difference.differences(observed, total, 2.0**22, out)
found["differences"] = out
members = difference.Members(np.empty(n_voxels, np.int32), np.empty(n_voxels, np.int64))
everywhere = np.arange(n_voxels, dtype=np.int32)
args = (everywhere, out, 0.01, rooms.grid, rooms.clusters, members)
found["measure"] = np.array(difference.measure(*args))
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
        assert values.dtype == found["1"][name].dtype
        if name == "survival":  # exponentials of numba and of numpy differ in the last bit
            np.testing.assert_allclose(values, found["1"][name], rtol=1e-15)
        else:
            assert_array_equal(values, found["1"][name], err_msg=name)
    assert found["0"]["maxima0.4"].all(), "the case must find clusters"
    assert 0 < found["0"]["n"] <= 200
