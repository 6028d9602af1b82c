"""The volume that maps are made in: its mask, its grid, and the way from mm to voxels."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nimare_dask.errors import SettingsError, SourceFormatError

if TYPE_CHECKING:
    import nibabel as nib

Reference = Literal["MNI", "TAL"]
#: Where foci fall under a null: the mask, or grey matter of it.
Coverage = Literal["brain", "gm"]

#: Best-fit transform from MNI to Talairach coordinates, homogeneous, for column vectors in mm.
#: Lancaster JL et al. (2007), Human Brain Mapping 28(11):1194-1205, doi:10.1002/hbm.20345.
MNI_TO_TALAIRACH = np.array(
    [
        [0.9357, 0.0029, -0.0072, -1.0423],
        [-0.0065, 0.9396, -0.0726, -1.3940],
        [0.0103, 0.0752, 0.8967, 3.6475],
        [0.0, 0.0, 0.0, 1.0],
    ]
)

#: How spaces are spelt in sources, and what they are; any other spelling is unknown.
SPELLINGS: dict[str, Reference] = {"MNI": "MNI", "TAL": "TAL", "Talairach": "TAL"}

_GRIDS = {"mni152_2mm": ((91, 109, 91), 2.0), "mni152_1mm": ((182, 218, 182), 1.0)}
_ORIGIN = (-90.0, -126.0, -72.0)


@dataclass(frozen=True, eq=False)
class Space:
    """A mask on a grid.

    Attributes
    ----------
    name
        What results call it.
    mask
        True for voxels inside, shape of the volume.
    affine
        From voxel indices to mm, (4, 4).
    reference
        The space that its millimetres are in: ``MNI`` or ``TAL``.
    """

    name: str
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    reference: Reference = "MNI"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the volume."""
        i, j, k = self.mask.shape
        return i, j, k

    @cached_property
    def zooms(self) -> NDArray[np.float64]:
        """Edge lengths of a voxel in mm, (3,)."""
        zooms: NDArray[np.float64] = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return zooms

    @cached_property
    def voxel_ijk(self) -> NDArray[np.int16]:
        """Indices of the voxels inside the mask in C order of the volume, (voxel, 3)."""
        return np.argwhere(self.mask).astype(np.int16)

    @property
    def n_voxels(self) -> int:
        """Number of voxels inside the mask."""
        return len(self.voxel_ijk)

    def pool(self, coverage: Coverage) -> NDArray[np.int32]:
        """Voxel indices that foci fall on under a null, (place, axis).

        ``"brain"`` is the mask, ``"gm"`` those of its voxels that are in :attr:`grey_matter`.
        """
        mask = self.mask if coverage == "brain" else self.mask & self.grey_matter
        pool = np.ascontiguousarray(np.argwhere(mask), np.int32)
        if len(pool) == 0:
            raise SettingsError(f"No voxel of {self} is in grey matter; use coverage='brain'.")
        return pool

    @cached_property
    def grey_matter(self) -> NDArray[np.bool_]:
        """Where the grey matter probability of the MNI152 template is above 0.1, of its shape.

        The template of nilearn's package at 2 mm, interpolated onto the grid.
        """
        from nilearn.datasets import load_mni152_gm_template
        from nilearn.image import resample_img
        from nilearn.image.resampling import BoundingBoxError

        try:
            probability = resample_img(
                load_mni152_gm_template(resolution=2),
                target_affine=self.affine,
                target_shape=self.shape,
                interpolation="continuous",
                copy_header=True,
                force_resample=True,
            )
        except BoundingBoxError as error:
            raise SettingsError(
                f"{self} does not overlap the MNI152 template, so its grey matter is not known; "
                "use coverage='brain'."
            ) from error
        grey: NDArray[np.bool_] = np.asarray(probability.dataobj) > 0.1
        return grey

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the mask, the affine and the reference."""
        parts = (str(self.shape), self.reference, self.affine.tobytes(), np.packbits(self.mask))
        hasher = hashlib.sha256()
        for part in parts:
            hasher.update(part.encode() if isinstance(part, str) else bytes(part))
        return hasher.hexdigest()

    def __repr__(self) -> str:
        zooms = " x ".join(f"{zoom:g}" for zoom in self.zooms)
        return f"<Space {self.name}: {self.n_voxels:,} voxels of {zooms} mm in {self.shape}>"


def load_space(
    space: str | Path | nib.Nifti1Image | Space, *, reference: Reference | None = None
) -> Space:
    """Load a mask.

    Parameters
    ----------
    space
        ``"mni152_2mm"`` (91 x 109 x 91) or ``"mni152_1mm"`` (182 x 218 x 182): the MNI152 brain
        mask of the template in nilearn's package, taken at the voxel centres of the FSL grid; or
        the path of a mask image; or an image object. Voxels that are not zero are inside.
    reference
        The space of the millimetres of an image: ``"MNI"`` (the default) or ``"TAL"``.

    Returns
    -------
    Space
        Its voxels are in C order of the volume.

    Raises
    ------
    SettingsError
        For a name that is not known, or a reference that contradicts the space.
    SourceFormatError
        For an image that is not a mask of three dimensions.
    """
    if isinstance(space, str) and space in _GRIDS:
        space = _template_space(space)
    if isinstance(space, Space):
        if reference not in (None, space.reference):
            raise SettingsError(
                f"reference is {reference!r}, but {space.name} is in {space.reference}; leave it "
                "out."
            )
        return space
    reference = reference or "MNI"
    if isinstance(space, str | Path):
        return _image_space(*_read_image(Path(space)), reference)
    return _image_space(space, "mask image", reference)


@cache
def _template_space(name: str) -> Space:
    from nilearn.datasets import load_mni152_brain_mask

    shape, zoom = _GRIDS[name]
    template = load_mni152_brain_mask(resolution=1)
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = _ORIGIN
    # Both grids have their voxel centres at whole millimetres, so the template is read off, not
    # interpolated: the mask is the same on every machine.
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * zoom + _ORIGIN
    index = mm_to_voxel(centres.reshape(-1, 3), template.affine)
    inside = np.all((index >= 0) & (index < template.shape), axis=1)
    mask = np.zeros(len(index), bool)
    mask[inside] = np.asarray(template.dataobj)[tuple(index[inside].T)] > 0
    return Space(name, mask.reshape(shape), affine)


def _read_image(path: Path) -> tuple[Any, str]:
    import nibabel as nib

    known = " or ".join(f"'{name}'" for name in _GRIDS)
    if not path.exists():
        raise SettingsError(
            f"{path} is neither the path of an image nor a space that is known; expected {known}, "
            "or the path of a mask image (.nii, .nii.gz)."
        )
    try:
        return nib.load(path), str(path)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, zlib.error) as error:
        raise SourceFormatError(
            f"{path} could not be read as an image ({error}); expected a mask in NIfTI format."
        ) from error


def _image_space(image: Any, name: str, reference: Reference) -> Space:
    if reference not in ("MNI", "TAL"):
        raise SettingsError(f"reference is {reference!r}; expected 'MNI' or 'TAL'.")
    if not hasattr(image, "affine") or not hasattr(image, "dataobj"):
        raise SettingsError(
            f"space is a {type(image).__name__}; expected a name such as 'mni152_2mm', the path of "
            "a mask image or an image object."
        )
    try:
        values = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise SourceFormatError(f"{name} could not be read whole: {error}.") from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise SourceFormatError(
            f"{name} has shape {values.shape}; expected a mask of three dimensions."
        )
    mask = np.nan_to_num(values) != 0
    if not mask.any():
        raise SourceFormatError(f"{name} has no voxel that is not zero; expected a mask.")
    return Space(Path(name).name, mask, np.asarray(image.affine, dtype=np.float64), reference)


def mm_to_voxel(xyz: ArrayLike, affine: ArrayLike) -> NDArray[np.int64]:
    """Voxel indices of points in mm, rounded half to even; they may lie outside the volume.

    Parameters
    ----------
    xyz
        Points in mm, (point, 3).
    affine
        From voxel indices to mm, (4, 4).
    """
    inverse = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    return np.rint(_apply(inverse, xyz)).astype(np.int64)


def voxel_to_mm(ijk: ArrayLike, affine: ArrayLike) -> NDArray[np.float64]:
    """Centres in mm, (voxel, 3), of voxel indices."""
    return _apply(np.asarray(affine, dtype=np.float64), ijk)


def mni2tal(xyz: ArrayLike) -> NDArray[np.float64]:
    """Turn MNI into Talairach coordinates, (point, 3) in mm (Lancaster 2007)."""
    return _apply(MNI_TO_TALAIRACH, xyz)


def tal2mni(xyz: ArrayLike) -> NDArray[np.float64]:
    """Turn Talairach into MNI coordinates, (point, 3) in mm (Lancaster 2007)."""
    return _apply(np.linalg.inv(MNI_TO_TALAIRACH), xyz)


def _apply(matrix: NDArray[np.float64], points: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(points, dtype=np.float64)
    return values @ matrix[:3, :3].T + matrix[:3, 3]
