"""ALE Gaussian kernel: width from sample size, kernel array and modelled activation map."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]

#: sqrt(8 ln 2): full width at half maximum of a Gaussian of standard deviation 1.
FWHM_OF_SIGMA = math.sqrt(8.0 * math.log(2.0))
#: Mean Euclidean distances in mm: between subjects, and between templates.
SUBJECT_DISTANCE = 11.6
TEMPLATE_DISTANCE = 5.7
#: Voxels along each edge of the volume in which the kernel is made on a 2 mm grid.
BOX = 31
#: Planes of the box with no value above this are cropped off.
CROP = 2.0**-52


def ale_fwhm(sample_size: float) -> float:
    """FWHM in mm of the ALE kernel of an experiment with ``sample_size`` (may be fractional)."""
    if not (math.isfinite(sample_size) and sample_size > 0):
        raise ValueError(f"sample size must be positive, got {sample_size}")
    scale = FWHM_OF_SIGMA / (2.0 * math.sqrt(2.0 / math.pi))
    subject = SUBJECT_DISTANCE * scale / math.sqrt(sample_size)
    template = TEMPLATE_DISTANCE * scale
    return math.sqrt(subject**2 + template**2)


def ale_sigma(fwhm: float, zooms: Sequence[float]) -> tuple[float, float, float]:
    """Standard deviation in voxels along each axis of a ``fwhm`` mm kernel on ``zooms`` mm voxels.

    On a 2 mm grid this is NiMARE's expression, which holds for no other voxel size.
    """
    if len(zooms) != 3 or min(zooms) <= 0 or fwhm <= 0:
        raise ValueError("need three positive zooms and a positive fwhm")
    if all(zoom == 2.0 for zoom in zooms):
        sigma = fwhm / math.sqrt(math.prod(zooms)) * math.sqrt(2.0) / FWHM_OF_SIGMA
        return sigma, sigma, sigma
    x, y, z = (fwhm / (zoom * FWHM_OF_SIGMA) for zoom in zooms)
    return x, y, z


def ale_kernel(fwhm: float, zooms: Sequence[float]) -> FloatArray:
    """Kernel (i, j, k), odd along every axis, its centre at index ``shape // 2``.

    A blurred delta, so it sums to 1 when the blur fits in the box. On a 2 mm grid the box is 31
    voxels wide, as NiMARE's is, so a standard deviation past 3.8 voxels is cut off; on any other
    grid the box is as large as the blur. Each axis is cropped to its own extent.
    """
    sigma = ale_sigma(fwhm, zooms)
    whole_blur = 2 * int(4.0 * max(sigma) + 0.5) + 3  # a plane of zeros on each side, at least
    edge = BOX if all(zoom == 2.0 for zoom in zooms) else whole_blur
    delta = np.zeros((edge, edge, edge))
    delta[edge // 2, edge // 2, edge // 2] = 1.0
    blurred: FloatArray = ndimage.gaussian_filter(delta, sigma, mode="constant", truncate=4.0)

    kept = np.argwhere(blurred > CROP)
    (i0, j0, k0), (i1, j1, k1) = kept.min(axis=0), kept.max(axis=0)
    return blurred[i0 : i1 + 1, j0 : j1 + 1, k0 : k1 + 1]


def ale_modelled_activation(
    ijk: npt.ArrayLike, kernel: npt.NDArray[np.float64], shape: Sequence[int]
) -> Float32Array:
    """Modelled activation volume (``shape``) of ONE experiment: the largest value of any focus.

    ``ijk`` (focus, 3) are integer voxel indices and may lie outside the volume: the kernel
    (i, j, k), in float32, is centred on the focus as it is, and what falls outside is dropped.
    """
    foci = np.asarray(ijk)
    if foci.size == 0:
        foci = np.empty((0, 3), dtype=np.int64)
    if foci.ndim != 2 or foci.shape[1] != 3 or not np.issubdtype(foci.dtype, np.integer):
        raise ValueError("ijk must be integers of shape (n, 3)")

    values = np.asarray(kernel).astype(np.float32)
    volume = np.zeros(tuple(shape), dtype=np.float32)
    for focus in foci:
        voxels = []  # for each axis, the volume index under each kernel index
        inside = []  # and whether the volume has it
        for axis in range(3):
            index = int(focus[axis]) - values.shape[axis] // 2 + np.arange(values.shape[axis])
            voxels.append(index)
            inside.append((index >= 0) & (index < shape[axis]))
        target = np.ix_(*(index[ok] for index, ok in zip(voxels, inside, strict=True)))
        source = np.ix_(*(np.flatnonzero(ok) for ok in inside))
        volume[target] = np.maximum(volume[target], values[source])
    return volume
