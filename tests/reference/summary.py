"""Summary statistics over studies of whole modelled activation volumes (x, y, z), in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .kernel import mkda_map

FloatArray = npt.NDArray[np.float64]


def _as_volumes(volumes: Sequence[npt.NDArray[Any]]) -> list[FloatArray]:
    """Check that there is a volume, and that all have one shape; return them in float64."""
    if len(volumes) == 0:
        raise ValueError("need at least one volume")
    converted = [np.asarray(volume).astype(np.float64) for volume in volumes]
    if any(volume.shape != converted[0].shape for volume in converted):
        raise ValueError("volumes must have the same shape")
    return converted


def mkda_modelled_activation(
    ijk: npt.ArrayLike, shape: Sequence[int], zooms: Sequence[float], r: float, value: float = 1.0
) -> FloatArray:
    """Sphere union (x, y, z): ``value`` within ``r`` mm of any focus of ``ijk`` (focus, 3)."""
    everywhere = np.ones(tuple(shape), dtype=bool)
    active = mkda_map(ijk, everywhere, zooms, r).reshape(tuple(shape))
    return np.where(active, float(value), 0.0)


def kda_modelled_activation(
    ijk: npt.ArrayLike, shape: Sequence[int], zooms: Sequence[float], r: float, value: float = 1.0
) -> FloatArray:
    """Sphere sum (x, y, z): ``value`` times the foci of ``ijk`` (focus, 3) within ``r`` mm.

    A focus listed twice counts twice.
    """
    volume = np.zeros(tuple(shape))
    for focus in np.asarray(ijk):
        volume += mkda_modelled_activation([focus], shape, zooms, r, value)
    return volume


def ale(volumes: Sequence[npt.NDArray[Any]]) -> FloatArray:
    """1 - prod(1 - M) (x, y, z) over the modelled activation ``volumes`` M, each in [0, 1].

    The union is built one study at a time as 1 - (1 - a)(1 - m) = a + m (1 - a), the form with
    no cancellation, so that small values keep their relative accuracy.
    """
    studies = _as_volumes(volumes)
    union = np.zeros_like(studies[0])
    for activation in studies:
        if activation.min() < 0 or activation.max() > 1:
            raise ValueError("modelled activations must be in [0, 1]")
        union = union + activation * (1.0 - union)
    return union


def mkda(volumes: Sequence[npt.NDArray[Any]], weights: Sequence[float] | None = None) -> FloatArray:
    """Sum over studies (x, y, z) of weight times modelled activation; no ``weights`` are all 1."""
    studies = _as_volumes(volumes)
    factors = [1.0] * len(studies) if weights is None else [float(weight) for weight in weights]
    total = np.zeros_like(studies[0])
    for factor, activation in zip(factors, studies, strict=True):
        total = total + factor * activation
    return total


def kda(volumes: Sequence[npt.NDArray[Any]]) -> FloatArray:
    """Sum over studies (x, y, z) of the modelled activations, which are sphere sums."""
    return mkda(volumes)
