"""Masks, grids and coordinates: published numbers, the slow reference, and every wrong image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.errors import SettingsError, SourceFormatError
from nimare_dask.space import Space, load_space, mm_to_voxel, mni2tal, tal2mni, voxel_to_mm
from tests.builders import small_space
from tests.reference import space as reference

MNI_2MM = np.array([[2.0, 0, 0, -90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1.0]])
ALE_2MM = np.array([[-2.0, 0, 0, 90], [0, 2.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1.0]])
OBLIQUE = np.array([[1.5, 0.5, 0, -30], [-0.5, 2.5, 0.1, -40], [0, -0.1, 3.0, -20], [0, 0, 0, 1]])
# NiMARE's test vectors for the transforms of Lancaster (2007).
POINTS = np.array([[-44.0, 31, 27], [20, -32, 14], [28, -76, 28]])
IN_MNI = np.array(
    [
        [-45.83997568, 35.97904559, 23.55194326],
        [22.69248975, -31.34145016, 13.91284087],
        [31.53113226, -76.61685748, 33.22105166],
    ]
)
IN_TALAIRACH = np.array(
    [[-42.3176, 26.0594, 29.7364], [17.4781, -32.6076, 14.0009], [24.7353, -75.0184, 23.3283]]
)
MASK = np.zeros((4, 5, 6), np.uint8)
MASK[1:3, 2:4, 3] = 1

axis = st.floats(-200, 200)
points = st.lists(st.tuples(axis, axis, axis), min_size=1, max_size=20).map(np.array)


def image(values: Any = MASK, affine: Any = OBLIQUE) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(values), affine)


def save(path: Path, values: Any = MASK) -> Path:
    image(values).to_filename(path)
    return path


# templates


def test_load_space__mni152_2mm() -> None:
    space = load_space("mni152_2mm")
    assert (space.name, space.reference, space.shape) == ("mni152_2mm", "MNI", (91, 109, 91))
    assert_array_equal(space.affine, MNI_2MM)
    assert_array_equal(space.zooms, [2, 2, 2])
    assert_array_equal(mm_to_voxel([[0, 0, 0]], space.affine), [[45, 63, 36]])
    assert space.mask[45, 63, 36]
    assert space.n_voxels == int(space.mask.sum())
    # A brain of two litres, with its edge of cerebrospinal fluid.
    assert 1.6e6 < space.n_voxels * 8 < 2.1e6
    border = space.mask.copy()
    border[1:-1, 1:-1, 1:-1] = False
    assert border.sum() < 0.01 * space.n_voxels


def test_load_space__mni152_2mm_is_the_template_at_the_voxel_centres() -> None:
    from nilearn.datasets import load_mni152_brain_mask

    template = load_mni152_brain_mask(resolution=1)
    inside = np.asarray(template.dataobj) > 0
    space = load_space("mni152_2mm")
    rng = np.random.default_rng(0)
    for voxel in rng.integers(space.shape, size=(300, 3)):
        mm = voxel_to_mm(voxel[None], space.affine)[0]
        at = np.linalg.inv(template.affine) @ np.append(mm, 1.0)
        at = at[:3].round().astype(int)
        within = bool(np.all((at >= 0) & (at < inside.shape)))
        assert space.mask[tuple(voxel)] == (within and bool(inside[tuple(at)]))


def test_load_space__voxels_are_in_c_order() -> None:
    space = load_space("mni152_2mm")
    flat = np.ravel_multi_index(tuple(space.voxel_ijk.T), space.shape)
    assert_array_equal(flat, np.flatnonzero(space.mask.ravel()))


@pytest.mark.slow
def test_load_space__mni152_1mm() -> None:
    space = load_space("mni152_1mm")
    assert space.shape == (182, 218, 182)
    assert_array_equal(space.affine[:3, 3], [-90, -126, -72])
    assert_array_equal(space.zooms, [1, 1, 1])
    coarse = load_space("mni152_2mm")
    assert_array_equal(space.mask[::2, ::2, ::2], coarse.mask)


# the digest


def test_digest__is_the_same_in_another_process() -> None:
    code = (
        "from nimare_dask.space import load_space;import sys;"
        "sys.stdout.write(load_space('mni152_2mm').digest)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == load_space("mni152_2mm").digest
    assert len(run.stdout) == 64


def test_digest__changes_with_mask_affine_and_reference_alone() -> None:
    base = small_space()
    mask, affine = base.mask.copy(), base.affine.copy()
    mask[0, 0, 0] ^= True
    affine[2, 3] += 0.5
    turned = Space("small", base.mask.transpose(1, 0, 2).copy(), base.affine)
    reshaped = Space("small", base.mask.reshape(14, 13, 12), base.affine)
    others = [
        Space("small", mask, base.affine),
        Space("small", base.mask, affine),
        Space("small", base.mask, base.affine, "TAL"),
        turned,
        reshaped,
    ]
    digests = {space.digest for space in (base, *others)}
    assert len(digests) == 6
    assert Space("another name", base.mask.copy(), base.affine.copy()).digest == base.digest
    assert Space("f", np.asfortranarray(base.mask), base.affine).digest == base.digest


def test_digest__does_not_depend_on_the_file(tmp_path: Path) -> None:
    plain, packed = save(tmp_path / "mask.nii"), save(tmp_path / "mask.nii.gz", MASK * 3.5)
    assert load_space(plain).digest == load_space(packed).digest


# images


@pytest.mark.parametrize("name", ["mask.nii", "mask.nii.gz"])
@pytest.mark.parametrize("kind", [str, Path])
def test_load_space__path(tmp_path: Path, name: str, kind: type[str] | type[Path]) -> None:
    space = load_space(kind(save(tmp_path / name)))
    assert space.name == name
    assert_array_equal(space.mask, MASK > 0)
    assert_allclose(space.affine, OBLIQUE, atol=1e-6)
    assert space.reference == "MNI"


def test_load_space__image_object() -> None:
    space = load_space(image(), reference="TAL")
    assert_array_equal(space.mask, MASK > 0)
    assert space.affine.dtype == np.float64
    assert space.reference == "TAL"
    assert space.n_voxels == 4


def test_load_space__space_is_handed_through() -> None:
    space = small_space()
    assert load_space(space) is space


def test_load_space__one_volume_of_four_dimensions() -> None:
    assert_array_equal(load_space(image(MASK[..., None])).mask, MASK > 0)


def test_load_space__what_is_not_zero_is_inside() -> None:
    values = np.zeros((2, 2, 2), np.float32)
    values[0, 0] = [np.nan, -1]
    values[1, 1] = [1e-20, 7]
    assert load_space(image(values)).voxel_ijk.tolist() == [[0, 0, 1], [1, 1, 0], [1, 1, 1]]


def test_load_space__repr_says_how_large_it_is() -> None:
    assert repr(small_space()) == (
        f"<Space small: {small_space().n_voxels} voxels of 8 x 8 x 8 mm in (13, 14, 12)>"
    )


# what is refused


@pytest.mark.parametrize("name", ["mni152_3mm", "/nowhere/mask.nii.gz", Path("mask.nii")])
def test_load_space__unknown_name_or_missing_file(name: str | Path) -> None:
    known = r"expected 'mni152_2mm' or 'mni152_1mm', or the path of a mask image \(.nii"
    with pytest.raises(SettingsError, match=known) as caught:
        load_space(name)
    assert str(caught.value).startswith(str(name))


@pytest.mark.parametrize("name", ["mask.txt", "mask.nii", "mask.nii.gz"])
def test_load_space__not_an_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not an image" * 100)
    with pytest.raises(SourceFormatError, match=rf"{name} could not be read .*NIfTI"):
        load_space(tmp_path / name)


def test_load_space__folder(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match="could not be read"):
        load_space(tmp_path)


def _cut(data: bytearray) -> bytearray:
    return data[: len(data) * 3 // 4]


def _cut_short(data: bytearray) -> bytearray:
    return data[:30]


def _flip(data: bytearray) -> bytearray:
    data[12] ^= 0xFF
    return data


@pytest.mark.parametrize("spoil", [_cut, _cut_short, _flip])
def test_load_space__spoilt_gzip(tmp_path: Path, spoil: Any) -> None:
    values = np.random.default_rng(0).random((40, 40, 40)) < 0.1
    path = save(tmp_path / "mask.nii.gz", values.astype(np.uint8))
    path.write_bytes(spoil(bytearray(path.read_bytes())))
    with pytest.raises(SourceFormatError, match=r"mask\.nii\.gz could not be read"):
        load_space(path)


def test_load_space__cut_image(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.nii")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SourceFormatError, match=r"mask\.nii could not be read"):
        load_space(path)


@pytest.mark.parametrize("shape", [(4, 5, 6, 2), (4, 5), (4, 5, 6, 1, 2)])
def test_load_space__other_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(SourceFormatError, match="expected a mask of three dimensions") as caught:
        load_space(image(np.ones(shape, np.uint8)))
    assert str(shape) in str(caught.value)


def test_load_space__empty_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.nii", np.zeros_like(MASK))
    with pytest.raises(SourceFormatError, match=r"mask\.nii has no voxel that is not zero"):
        load_space(path)
    with pytest.raises(SourceFormatError, match="no voxel"):
        load_space(image(np.full((3, 3, 3), np.nan)))


@pytest.mark.parametrize("value", [3, None, MASK])
def test_load_space__another_type(value: Any) -> None:
    with pytest.raises(SettingsError, match=rf"space is a {type(value).__name__}; .*'mni152_2mm'"):
        load_space(value)


def test_load_space__another_reference() -> None:
    with pytest.raises(SettingsError, match="reference is 'talairach'; expected 'MNI' or 'TAL'"):
        load_space(image(), reference="talairach")  # type: ignore[arg-type]


def test_load_space__reference_that_contradicts_the_space() -> None:
    for space in ("mni152_2mm", small_space()):
        with pytest.raises(SettingsError, match=r"reference is 'TAL', but .* is in MNI; leave it"):
            load_space(space, reference="TAL")
    assert load_space(small_space("TAL"), reference="TAL").reference == "TAL"


# coordinates


def test_tal2mni__published_vectors() -> None:
    assert_allclose(tal2mni(POINTS), IN_MNI, rtol=0, atol=5e-9)


def test_mni2tal__published_vectors() -> None:
    assert_allclose(mni2tal(POINTS), IN_TALAIRACH, rtol=0, atol=5.1e-5)


def test_tal2mni__three_points_are_rows() -> None:
    for point, expected in zip(POINTS, IN_MNI, strict=True):
        assert_allclose(tal2mni(point[None]), expected[None], rtol=0, atol=5e-9)


@given(xyz=points)
@settings(max_examples=50)
def test_transforms__equal_the_reference_and_invert_each_other(xyz: Any) -> None:
    assert_allclose(tal2mni(xyz), reference.lancaster_tal2mni(xyz), rtol=0, atol=1e-10)
    assert_allclose(mni2tal(xyz), reference.lancaster_mni2tal(xyz), rtol=0, atol=1e-10)
    assert_allclose(mni2tal(tal2mni(xyz)), xyz, rtol=0, atol=1e-9)


def test_mm_to_voxel__known_points() -> None:
    xyz = [[20, 20, 20], [0, 0, 0], [-90, -126, -72], [-92, 0, 400]]
    expected = [[55, 73, 46], [45, 63, 36], [0, 0, 0], [-1, 63, 236]]
    assert_array_equal(mm_to_voxel(xyz, MNI_2MM), expected)


def test_mm_to_voxel__ties_go_to_the_even_index() -> None:
    # Odd millimetres lie between two voxels of 2 mm.
    xyz = [[-44, 0, 0], [-45, 0, 0], [-43, 0, 0], [-91, 0, 0], [-93, 0, 0], [-89, 0, 0]]
    assert mm_to_voxel(xyz, MNI_2MM)[:, 0].tolist() == [23, 22, 24, 0, -2, 0]
    assert mm_to_voxel(xyz, ALE_2MM)[:, 0].tolist() == [67, 68, 66, 90, 92, 90]
    assert mm_to_voxel([[0, -125, -71], [0, -123, -69]], MNI_2MM).tolist() == [
        [45, 0, 0],
        [45, 2, 2],
    ]


def test_voxel_to_mm__known_points() -> None:
    assert_array_equal(
        voxel_to_mm([[55, 73, 46], [45, 63, 36]], MNI_2MM), [[20, 20, 20], [0, 0, 0]]
    )


@given(xyz=points, affine=st.sampled_from([MNI_2MM, ALE_2MM, OBLIQUE]))
@settings(max_examples=50)
def test_mm_to_voxel__equals_the_reference(xyz: Any, affine: Any) -> None:
    whole = np.rint(xyz)
    assert_array_equal(mm_to_voxel(whole, affine), reference.mm_to_voxel(whole, affine))
    assert_allclose(
        voxel_to_mm(xyz, affine), reference.apply_affine(affine, xyz), rtol=0, atol=1e-9
    )


@given(ijk=st.lists(st.tuples(*[st.integers(-50, 200)] * 3), min_size=1, max_size=20))
@settings(max_examples=50)
def test_mm_to_voxel__gives_back_voxel_centres(ijk: list[tuple[int, int, int]]) -> None:
    for affine in (MNI_2MM, ALE_2MM, OBLIQUE):
        assert_array_equal(mm_to_voxel(voxel_to_mm(ijk, affine), affine), ijk)
