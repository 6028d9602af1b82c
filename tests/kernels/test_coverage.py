"""Activation kernels against the slow reference, with and without JIT."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels import coverage
from nimare_dask.kernels.footprints import sphere_columns
from tests.foci import Case, Shape, draw_case
from tests.reference.kernel import sphere_offsets

Zooms = tuple[float, float, float]
LENGTHS = [5, 63, 64, 65, 91, 130]
GOLDEN = [(2, 7), (4, 33), (6, 123), (8, 257), (10, 515), (12, 925), (14, 1419), (15, 1791)]


def check(case: Case) -> None:
    """Every kernel against the reference."""
    active = case.expected
    counts = (active[:, :, None] & case.member[:, None, :]).sum(axis=0)
    index, lines, groups = case.index, case.lines, case.groups
    assert_array_equal(coverage.dense_activation(index, lines), active)
    assert_array_equal(coverage.count_voxels(index, lines), active.sum(axis=1))
    assert_array_equal(coverage.count_active(index, lines, *groups), counts)
    runs = coverage.list_runs(index, lines)
    length = case.mask.shape[2]
    assert_array_equal(coverage.count_from_runs(runs, lines, length, *groups), counts)
    check_runs(runs, lines, active, length)


def check_runs(
    runs: coverage.Runs, lines: coverage.VoxelLines, active: NDArray[np.bool_], length: int
) -> None:
    """Runs do not touch, lie in the line, and cover exactly the active voxels of the mask."""
    found = np.zeros(active.shape, dtype=bool)
    assert len(runs.start) == len(lines.ij) + 1
    for line in range(len(lines.ij)):
        seen = set()
        voxels = np.arange(lines.start[line], lines.start[line + 1])
        for run in range(runs.start[line], runs.start[line + 1]):
            analysis, begin, end = runs.analysis[run], int(runs.begin[run]), int(runs.end[run])
            assert 0 <= begin < end <= length
            places = {(int(analysis), k) for k in range(begin, end + 1)}
            assert not places & seen
            seen |= places
            inside = (lines.k[voxels] >= begin) & (lines.k[voxels] < end)
            found[analysis, voxels[inside]] = True
    assert_array_equal(found, active)


# sphere_columns


@pytest.mark.parametrize(("r", "count"), GOLDEN)
def test_sphere_columns__golden_counts_2mm(r: int, count: int) -> None:
    columns = sphere_columns((2, 2, 2), r)
    assert int((2 * columns[:, 2] + 1).sum()) == count
    assert len({tuple(row) for row in columns[:, :2].tolist()}) == len(columns)


@pytest.mark.parametrize("r", [0.5, 1, 2, 2.9, 3, 4.47, 6, 7.5, 10, 15])
@pytest.mark.parametrize("zooms", [(2, 2, 2), (1, 1, 1), (3, 2, 4), (2.5, 0.7, 1.3), (4, 4, 1)])
def test_sphere_columns__equals_reference(zooms: Zooms, r: float) -> None:
    offsets = {
        (int(i), int(j), int(k))
        for i, j, half in sphere_columns(zooms, r)
        for k in range(-half, half + 1)
    }
    assert offsets == {tuple(row) for row in sphere_offsets(zooms, r).tolist()}


def test_sphere_columns__boundary_is_inside() -> None:
    # 3-4-5: 6 mm and 8 mm are 10 mm apart exactly.
    columns = {tuple(row[:2]): row[2] for row in sphere_columns((2, 2, 2), 10).tolist()}
    assert columns[3, 4] == 0
    assert columns[3, 0] == 4
    assert columns[0, 0] == 5


def test_sphere_columns__flipped_axis_is_the_same() -> None:
    assert_array_equal(sphere_columns((-2, 2, 2), 6), sphere_columns((2, 2, 2), 6))


# the kernels


def test_dense_activation__hand_computed() -> None:
    mask = np.ones((1, 1, 5), dtype=bool)
    mask[0, 0, 2] = False
    case = Case(
        ijk=np.array([[0, 0, 1], [0, 0, -1], [0, 0, 9]], np.int32),
        owner=np.array([0, 1, 1], np.int32),
        n_analyses=3,
        mask=mask,
        zooms=(2.0, 2.0, 2.0),
        r=2.0,
        member=np.array([[1, 0], [1, 1], [1, 1]], dtype=bool),
    )
    index, lines = case.index, case.lines
    expected = [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert_array_equal(coverage.dense_activation(index, lines), expected)
    counts = [[2, 1], [1, 0], [0, 0], [0, 0]]
    assert_array_equal(coverage.count_active(index, lines, *case.groups), counts)
    assert_array_equal(coverage.count_voxels(index, lines), [2, 1, 0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", LENGTHS)
def test_kernels__any_length_of_line(length: int, seed: int) -> None:
    check(draw_case(seed, (4, 5, length)))


@pytest.mark.parametrize("axis", [0, 1])
def test_kernels__other_axes_long(axis: int) -> None:
    shape = [3, 3, 4]
    shape[axis] = 70
    check(draw_case(axis, (shape[0], shape[1], shape[2])))


@pytest.mark.parametrize("length", [5, 64, 91])
@pytest.mark.parametrize("zooms", [(3.0, 2.0, 4.0), (1.5, 2.5, 1.0), (4.0, 4.0, 0.8)])
def test_kernels__anisotropic(zooms: Zooms, length: int) -> None:
    check(draw_case(length, (5, 4, length), zooms, r=5.0))


def test_kernels__footprint_larger_than_the_volume() -> None:
    check(draw_case(1, (2, 3, 5), r=14.0, n_foci=20))


def test_kernels__footprint_of_one_voxel() -> None:
    check(draw_case(2, (5, 5, 66), r=1.0, n_foci=300))


def test_kernels__full_mask_and_one_voxel() -> None:
    check(draw_case(3, (4, 4, 64), holes=0.0))
    check(draw_case(4, (4, 4, 64), holes=1.0))


def test_kernels__many_groups() -> None:
    check(draw_case(5, (4, 4, 65), n_groups=200))


def test_kernels__no_foci_at_all() -> None:
    check(draw_case(6, (3, 3, 6), n_foci=0))


def test_kernels__all_foci_out_of_reach() -> None:
    case = draw_case(7, (3, 3, 6))
    far = Case(**{**vars(case), "ijk": case.ijk + np.int32(1000)})
    assert not far.expected.any()
    check(far)
    check(Case(**{**vars(case), "ijk": case.ijk - np.int32(2_000_000_000)}))


def test_kernels__analyses_in_no_group_and_in_every_group() -> None:
    case = draw_case(8, (4, 4, 20), n_groups=3)
    case.member[::3] = False
    case.member[1::3] = True
    check(case)


def test_kernels__empty_group_counts_nothing() -> None:
    case = draw_case(9, (4, 4, 20), n_groups=3)
    case.member[:, 1] = False
    check(case)


def test_kernels__order_of_foci_does_not_matter() -> None:
    case = draw_case(10, (5, 5, 70))
    order = np.random.default_rng(0).permutation(len(case.ijk))
    mixed = Case(**{**vars(case), "ijk": case.ijk[order], "owner": case.owner[order]})
    assert_array_equal(
        coverage.count_active(case.index, case.lines, *case.groups),
        coverage.count_active(mixed.index, mixed.lines, *mixed.groups),
    )


def test_kernels__blocks_of_voxels_equal_the_whole() -> None:
    # Blocks begin and end within lines.
    case = draw_case(11, (5, 6, 66))
    whole = coverage.count_active(case.index, case.lines, *case.groups)
    extent = coverage.count_voxels(case.index, case.lines)
    voxel_ijk = np.argwhere(case.mask).astype(np.int16)
    blocks = [coverage.group_lines(voxel_ijk[at : at + 37]) for at in range(0, len(voxel_ijk), 37)]
    counts = [coverage.count_active(case.index, block, *case.groups) for block in blocks]
    assert_array_equal(np.concatenate(counts), whole)
    assert_array_equal(sum(coverage.count_voxels(case.index, block) for block in blocks), extent)


def test_list_runs__more_lines_than_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "_LINES_AT_ONCE", 7)
    check(draw_case(12, (6, 6, 20)))


def test_list_runs__more_lines_than_the_default_step() -> None:
    case = draw_case(13, (18, 17, 3), n_foci=60)
    assert len(case.lines.ij) > 256
    check(case)


@pytest.mark.parametrize(("n_analyses", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.int32)])
def test_list_runs__number_of_analyses_past_16_bits(n_analyses: int, dtype: type) -> None:
    mask = np.ones((1, 1, 4), dtype=bool)
    member = np.zeros((n_analyses, 2), dtype=bool)
    member[-1, 0] = member[0, 1] = True
    case = Case(
        ijk=np.array([[0, 0, 0], [0, 0, 3]], np.int32),
        owner=np.array([0, n_analyses - 1], np.int32),
        n_analyses=n_analyses,
        mask=mask,
        zooms=(2.0, 2.0, 2.0),
        r=2.0,
        member=member,
    )
    runs = coverage.list_runs(case.index, case.lines)
    assert runs.analysis.dtype == dtype
    expected = [[0, 1], [0, 1], [1, 0], [1, 0]]
    assert_array_equal(coverage.count_from_runs(runs, case.lines, 4, *case.groups), expected)
    assert_array_equal(coverage.count_active(case.index, case.lines, *case.groups), expected)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 9, 63, 64, 65])),
    zooms=st.tuples(*[st.sampled_from([1.0, 1.7, 2.0, 3.0])] * 3),
    r=st.sampled_from([0.9, 2.0, 4.0, 5.5]),
    n_foci=st.integers(0, 25),
    n_analyses=st.integers(1, 8),
    holes=st.sampled_from([0.0, 0.5, 0.95]),
)
def test_kernels__drawn(
    seed: int,
    shape: Shape,
    zooms: Zooms,
    r: float,
    n_foci: int,
    n_analyses: int,
    holes: float,
) -> None:
    check(draw_case(seed, shape, zooms, r=r, n_foci=n_foci, n_analyses=n_analyses, holes=holes))


# without JIT

_SCRIPT = """
import sys
import numpy as np
from nimare_dask.kernels import coverage, chi2, levels
from tests.foci import draw_case

found = {}
for length in (5, 64, 65):
    case = draw_case(length, (3, 4, length), n_foci=15, n_groups=3)
    index, lines, groups = case.index, case.lines, case.groups
    runs = coverage.list_runs(index, lines)
    counts = coverage.count_active(index, lines, *groups)
    found[f"counts{length}"] = counts
    found[f"from_runs{length}"] = coverage.count_from_runs(runs, lines, length, *groups)
    found[f"voxels{length}"] = coverage.count_voxels(index, lines)
    found[f"dense{length}"] = coverage.dense_activation(index, lines)
    for name, part in zip(("start", "analysis", "begin", "end"), runs):
        found[f"{name}{length}"] = part
    sizes = case.member.sum(axis=0)
    found[f"association{length}"] = chi2.association_z(counts, sizes[:-1], case.n_analyses)
    expected = counts.mean(axis=0)
    found[f"uniformity{length}"] = chi2.uniformity_z(counts, expected, sizes, np.float32)
out = np.empty(5, np.float32)
values = np.array([0, 2.5, np.nan, 1e30, 3], np.float32)
steps = np.array([0, 2.5, 1e30], np.float32)
levels.look_up(values, steps, np.array([1, 2, 3], np.float32), out)
found["levels"] = out
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
        assert_array_equal(values, found["1"][name], err_msg=name)
    assert_array_equal(found["0"]["levels"], np.array([1, 2, np.nan, 3, np.nan], np.float32))
