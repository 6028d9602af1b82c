"""Coordinate transforms: Talairach <-> MNI, and millimetres -> voxel indices."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: MNI (mm) -> Talairach (mm), homogeneous, acting on column vectors (Lancaster 2007, icbm_other).
LANCASTER_MNI2TAL: FloatArray = np.array(
    [
        [0.9357, 0.0029, -0.0072, -1.0423],
        [-0.0065, 0.9396, -0.0726, -1.3940],
        [0.0103, 0.0752, 0.8967, 3.6475],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def _as_points(xyz: npt.ArrayLike) -> FloatArray:
    """Check that ``xyz`` is (point, 3) and return it as float64. Rows are points, always."""
    points = np.asarray(xyz, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"expected shape (n, 3), got {points.shape}")
    return points


def apply_affine(affine: npt.NDArray[Any], xyz: npt.ArrayLike) -> FloatArray:
    """Apply a (4, 4) homogeneous ``affine`` to each row of ``xyz`` (point, 3)."""
    points = _as_points(xyz)
    out = np.empty_like(points)
    for row, (x, y, z) in enumerate(points):
        out[row] = (affine @ np.array([x, y, z, 1.0]))[:3]
    return out


def lancaster_mni2tal(xyz: npt.ArrayLike) -> FloatArray:
    """MNI (point, 3) in mm -> Talairach (point, 3) in mm."""
    return apply_affine(LANCASTER_MNI2TAL, xyz)


def lancaster_tal2mni(xyz: npt.ArrayLike) -> FloatArray:
    """Talairach (point, 3) in mm -> MNI (point, 3) in mm."""
    return apply_affine(np.linalg.inv(LANCASTER_MNI2TAL), xyz)


def mm_to_voxel(xyz: npt.ArrayLike, affine: npt.ArrayLike) -> IntArray:
    """World mm (point, 3) -> voxel indices (point, 3), rounding exact ties to the even index.

    ``affine`` is the (4, 4) voxel-to-mm matrix. Indices may be negative or past the volume.
    Non-finite coordinates have no voxel and raise ``ValueError``.
    """
    points = _as_points(xyz)
    if not np.isfinite(points).all():
        raise ValueError("coordinates must be finite")
    inverse = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    continuous = apply_affine(inverse, points)
    ijk = np.empty(points.shape, dtype=np.int64)
    for row, voxel in enumerate(continuous):
        # The built-in round() rounds halves to even.
        ijk[row] = [round(float(index)) for index in voxel]
    return ijk
