"""Places that coactivation is asked for: points, grids and parcels, and all that can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import nimare_dask as nd
from nimare_dask.errors import CorpusWarning, SelectionError, SettingsError, SourceFormatError
from nimare_dask.space import voxel_to_mm
from nimare_dask.targets import as_targets
from tests.builders import small_space

SPACE = small_space()  # 8 mm


def atlas_image(values: Any, affine: Any = SPACE.affine) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(values), np.asarray(affine, np.float64))


def halves() -> np.ndarray[Any, Any]:
    """Parcels 2 and 5, left and right of the middle, and none at the bottom."""
    values = np.zeros(SPACE.shape, np.int16)
    values[:6], values[6:] = 2, 5
    values[:, :, :4] = 0
    return values


# voxels


def test_voxel_targets__are_the_voxels_that_points_lie_in() -> None:
    targets = nd.voxel_targets([[0, 0, 0], [-9, 16.5, 7]], SPACE)
    assert targets.names == ["x=0 y=0 z=0", "x=-9 y=16.5 z=7"]
    assert targets.n_voxels.tolist() == [1, 1]
    assert_allclose(targets.centre, [[0, 0, 0], [-8, 16, 8]])
    where = [int(np.flatnonzero(targets.of_voxel == target)[0]) for target in (0, 1)]
    assert SPACE.voxel_ijk[where].tolist() == [[6, 7, 5], [5, 9, 6]]


def test_voxel_targets__one_point_and_names() -> None:
    assert nd.voxel_targets((0, 0, 0), SPACE, names=["here"]).names == ["here"]
    with pytest.raises(SettingsError, match=r"2 names for 1 points"):
        nd.voxel_targets((0, 0, 0), SPACE, names=["a", "b"])


def test_voxel_targets__outside_and_doubled_are_said() -> None:
    points = [[0, 0, 0], [300, 0, 0], [1, 1, 1], [8, 0, 0]]
    with pytest.warns(CorpusWarning) as warned:
        targets = nd.voxel_targets(points, SPACE)
    said = [str(one.message) for one in warned]
    assert "1 of 4 targets lie outside small and are left out (x=300 y=0 z=0)." in said
    assert "1 of 4 targets lie in the voxel of another one and are left out (x=1 y=1 z=1)." in said
    assert targets.names == ["x=0 y=0 z=0", "x=8 y=0 z=0"]
    assert targets.n_dropped == 2
    assert {Path(one.filename).name for one in warned} == {"test_targets.py"}


def test_voxel_targets__all_outside() -> None:
    with pytest.raises(SelectionError, match=r"None of 1 target points .*x=300.*mm in MNI"):
        nd.voxel_targets([300, 0, 0], SPACE)


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([[0, 0]], r"shape \(1, 2\); expected \(target, 3\)"),
        ([], r"shape \(0,\)"),
        ([[0, np.nan, 0]], "not finite"),
        ([["a", "b", "c"]], "is a list; expected points in mm"),
        (7, r"shape \(\)"),
        (None, "NoneType|not finite|shape"),
    ],
)
def test_voxel_targets__points_that_are_none(points: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        nd.voxel_targets(points, SPACE)


def test_targets__names_are_unique() -> None:
    with pytest.raises(SettingsError, match=r"1 names are given to several targets \(a\)"):
        nd.voxel_targets([[0, 0, 0], [8, 0, 0]], SPACE, names=["a", "a"])


# grids


def test_grid_targets__are_every_second_voxel() -> None:
    targets = nd.grid_targets(SPACE, step=16)
    chosen = SPACE.voxel_ijk[targets.of_voxel >= 0]
    assert (chosen % 2 == 1).all()
    assert len(targets.names) == int(SPACE.mask[1::2, 1::2, 1::2].sum())
    assert (nd.grid_targets(SPACE, step=8).of_voxel == np.arange(SPACE.n_voxels)).all()


@pytest.mark.parametrize("step", [0, -8, 12, 4, np.nan, np.inf])
def test_grid_targets__step_that_is_no_multiple(step: float) -> None:
    with pytest.raises(SettingsError, match=r"expected a multiple of the edges .* 8 x 8 x 8 mm"):
        nd.grid_targets(SPACE, step=step)


def test_grid_targets__too_coarse() -> None:
    with pytest.raises(SelectionError, match="use a smaller one"):
        nd.grid_targets(SPACE, step=8000)


# parcels


def test_parcel_targets__of_an_image_on_the_grid_of_the_mask() -> None:
    targets = nd.parcel_targets(atlas_image(halves()), SPACE)
    assert targets.names == ["parcel 2", "parcel 5"]
    values = halves()[SPACE.mask]
    assert_array_equal(targets.of_voxel, np.select([values == 2, values == 5], [0, 1], -1))
    assert targets.n_voxels.tolist() == [(values == 2).sum(), (values == 5).sum()]
    wanted = voxel_to_mm(SPACE.voxel_ijk[values == 5], SPACE.affine).mean(axis=0)
    assert_allclose(targets.centre[1], wanted)


def test_parcel_targets__on_another_grid_by_the_nearest_voxel(tmp_path: Path) -> None:
    # 3 mm voxels, the first axis the other way round, shifted, and not as wide as the mask.
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = (41.0, -61.0, -43.0)
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (27, 30, 26)).astype(np.float32)
    path = tmp_path / "atlas.nii.gz"
    atlas_image(values, affine).to_filename(path)
    found = nd.parcel_targets(path, SPACE)
    expected = []
    for ijk in SPACE.voxel_ijk:
        xyz = SPACE.affine[:3, :3] @ ijk + SPACE.affine[:3, 3]
        at = [round((xyz[axis] - affine[axis, 3]) / affine[axis, axis]) for axis in range(3)]
        inside = all(0 <= place < size for place, size in zip(at, values.shape, strict=True))
        expected.append(int(values[tuple(at)]) - 1 if inside else -1)
    assert_array_equal(found.of_voxel, expected)
    assert (found.of_voxel == -1).any()


def test_parcel_targets__without_a_voxel_in_the_mask_are_said() -> None:
    values = halves()
    values[0, 0, 0] = 9  # a corner, outside the mask
    with pytest.warns(CorpusWarning, match=r"1 of 3 targets have no voxel in small .*\(corner\)"):
        targets = nd.parcel_targets(atlas_image(values), SPACE, labels=["l", "r", "corner"])
    assert targets.names == ["l", "r"]
    assert targets.n_dropped == 1
    away = SPACE.affine.copy()
    away[:3, 3] += 1000
    with pytest.raises(SelectionError, match=r"No voxel of .* is in a parcel of the atlas"):
        nd.parcel_targets(atlas_image(values, away), SPACE)


@pytest.mark.parametrize(
    "labels",
    [
        ["left", "right"],
        ["Background", "left", "right"],
        {5: "right", 2: "left", 7: "else"},
        "names.tsv",
        "names.csv",
    ],
)
def test_parcel_targets__names(labels: Any, tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text("index\tname\n5\tright\n2\tleft\n", encoding="utf-8-sig")
    (tmp_path / "names.csv").write_text("Label,Value,color\nleft,2.0,red\nright,5,blue\n")
    given = tmp_path / labels if isinstance(labels, str) else labels
    assert nd.parcel_targets(atlas_image(halves()), SPACE, labels=given).names == ["left", "right"]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["a"], "1 labels for 2 parcels"),
        (["a", "b", "c"], "3 labels for 2 parcels"),
        ({2: "a"}, r"1 of 2 parcels have no label \(5\)"),
        (["a", "a"], "several targets"),
    ],
)
def test_parcel_targets__names_that_do_not_fit(labels: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        nd.parcel_targets(atlas_image(halves()), SPACE, labels=labels)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the columns none"),
        ("a\tb\n1\t2\n", "has the columns a, b; expected one of index"),
        ("index\tname\nx\tleft\n", "index that is not a number"),
        ("index\tname\n\n5", "not a number|no label|columns"),
        (b"\xff\xfe\x00", "could not be read as a table"),
    ],
)
def test_parcel_targets__table_that_is_none(text: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((SourceFormatError, SettingsError), match=says):
        nd.parcel_targets(atlas_image(halves()), SPACE, labels=path)


def test_parcel_targets__table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match="could not be read as a table"):
        nd.parcel_targets(atlas_image(halves()), SPACE, labels=tmp_path / "no.tsv")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((3, 3, 3), np.int16), "no parcel"),
        (-np.ones((3, 3, 3), np.int16), "values below 0"),
        (np.full((3, 3, 3), 0.5, np.float32), "not whole numbers"),
        (np.full((3, 3, 3), np.inf, np.float32), "not whole numbers"),
        (np.ones((3, 3, 3, 2), np.int16), r"shape \(3, 3, 3, 2\); expected labels of three"),
    ],
)
def test_parcel_targets__image_that_is_no_atlas(values: Any, says: str) -> None:
    with pytest.raises(SourceFormatError, match=says):
        nd.parcel_targets(atlas_image(values), SPACE)


def test_parcel_targets__file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    for path in (tmp_path / "a.nii.gz", tmp_path / "none.nii.gz", tmp_path):
        with pytest.raises(SourceFormatError, match="could not be read as an image"):
            nd.parcel_targets(path, SPACE)
    with pytest.raises(SettingsError, match="is a list; expected the path of a label image"):
        nd.parcel_targets([1, 2], SPACE)


# whatever is given


def test_as_targets__takes_each_kind(tmp_path: Path) -> None:
    image = atlas_image(halves())
    image.to_filename(tmp_path / "atlas.nii")
    for given in (image, tmp_path / "atlas.nii", str(tmp_path / "atlas.nii")):
        assert as_targets(given, SPACE, ["l", "r"]).names == ["l", "r"]
    assert as_targets([[0, 0, 0]], SPACE, ["here"]).names == ["here"]
    made = nd.grid_targets(SPACE, step=16)
    assert as_targets(made, SPACE, None) is made
    with pytest.raises(SettingsError, match="labels are for an atlas"):
        as_targets(made, SPACE, ["l"])
    with pytest.raises(SettingsError, match="a list of names"):
        as_targets([[0, 0, 0]], SPACE, {1: "here"})


def test_as_targets__of_another_space() -> None:
    made = nd.voxel_targets([0, 0, 0], "mni152_2mm")
    with pytest.raises(SettingsError, match=r"voxels of <Space mni152_2mm.*make them with the sam"):
        as_targets(made, SPACE, None)
