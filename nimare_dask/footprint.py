"""Kernels: what modelled activation a reported focus stands for.

A kernel gives, for a corpus and a space, one or more dense footprints and which of them each
analysis uses; `union` says whether the largest counts where foci of one analysis overlap, or all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.errors import SchemaError, SettingsError, shorten
from nimare_dask.kernels.footprints import dense_sphere, gaussian, sphere_columns
from nimare_dask.space import Space

#: Footprints, and the one that each analysis uses, int32 (analysis,).
Footprints = tuple[list[NDArray[np.float64]], NDArray[np.int32]]

#: Full widths at half maximum in mm: of one subject's uncertainty, and of the template's
#: (Eickhoff et al. 2009: mean distances of 11.6 and 5.7 mm).
_SUBJECT_FWHM = 11.6 / (2.0 * np.sqrt(2.0 / np.pi)) * np.sqrt(8.0 * np.log(2.0))
_TEMPLATE_FWHM = 5.7 / (2.0 * np.sqrt(2.0 / np.pi)) * np.sqrt(8.0 * np.log(2.0))


class Kernel(Protocol):
    """What every kernel has."""

    @property
    def union(self) -> bool:
        """Whether the largest counts where foci of one analysis overlap; else all do."""
        ...

    def footprints(self, corpus: xr.Dataset, space: Space) -> Footprints:
        """Footprints on the grid of `space`, and which each analysis uses."""
        ...

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        ...


@dataclass(frozen=True, kw_only=True)
class MKDAKernel:
    """An analysis is active within `r` mm of any of its foci, boundary included.

    Parameters
    ----------
    r
        Radius in mm, from voxel centre to voxel centre; 515 voxels for 10 mm on a 2 mm grid.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    """

    r: float = 10.0
    union = True

    def __post_init__(self) -> None:
        _check_positive("r", self.r, "a radius in mm")

    def footprint(self, space: Space) -> NDArray[np.int32]:
        """Columns of the sphere on the grid of `space`, see kernels.footprints."""
        return sphere_columns(space.zooms, self.r)

    def footprints(self, corpus: xr.Dataset, space: Space) -> Footprints:
        """One sphere for all analyses."""
        return [dense_sphere(self.footprint(space))], np.zeros(corpus.sizes["analysis"], np.int32)

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"kernel": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class KDAKernel:
    """Every focus adds 1 within `r` mm of it, boundary included; overlaps add up.

    Parameters
    ----------
    r
        Radius in mm, from voxel centre to voxel centre.

    References
    ----------
    Wager TD et al. (2004), doi:10.1016/j.neuroimage.2004.03.052.
    """

    r: float = 10.0
    union = False

    def __post_init__(self) -> None:
        _check_positive("r", self.r, "a radius in mm")

    def footprints(self, corpus: xr.Dataset, space: Space) -> Footprints:
        """One sphere for all analyses."""
        return MKDAKernel(r=self.r).footprints(corpus, space)

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"kernel": type(self).__name__, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class ALEKernel:
    """A Gaussian around each focus; where foci of one analysis overlap, the largest value counts.

    The width is that of the uncertainty about where an activation is: of the template, and of the
    subjects, which shrinks with the square root of their number. Give `fwhm` or `sample_size`, or
    neither: then each analysis has the width of its own ``analysis_sample_size``.

    Parameters
    ----------
    fwhm
        Full width at half maximum in mm, the same for all analyses.
    sample_size
        Number of subjects, the same for all analyses.

    Notes
    -----
    On every grid the Gaussian has its width in mm on each axis. (NiMARE 0.22.1 takes a width in
    voxels that is right on 2 mm grids only, and cuts kernels at 31 voxels.)

    References
    ----------
    Eickhoff SB et al. (2009), doi:10.1002/hbm.20718.
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    """

    fwhm: float | None = None
    sample_size: float | None = None
    union = True

    def __post_init__(self) -> None:
        if self.fwhm is not None:
            _check_positive("fwhm", self.fwhm, "a width in mm")
        if self.sample_size is not None:
            _check_positive("sample_size", self.sample_size, "a number of subjects")
        if self.fwhm is not None and self.sample_size is not None:
            raise SettingsError(
                f"fwhm is {self.fwhm:g} and sample_size is {self.sample_size:g}; give one of them."
            )

    def footprints(self, corpus: xr.Dataset, space: Space) -> Footprints:
        """One Gaussian for each width, in float32 steps.

        Raises
        ------
        SchemaError
            When the width comes from sample sizes, and analyses have none.
        """
        widths = self.widths(corpus)
        distinct, which = np.unique(widths, return_inverse=True)
        dense = [gaussian(fwhm, space.zooms).astype(np.float32) for fwhm in distinct]
        for fwhm, values in zip(distinct, dense, strict=True):
            if values.max() >= 1.0:
                raise SettingsError(
                    f"A Gaussian of {fwhm:g} mm lies within one voxel of {space}; expected a fwhm "
                    "of about a voxel at least."
                )
        return [values.astype(np.float64) for values in dense], which.astype(np.int32)

    def widths(self, corpus: xr.Dataset) -> NDArray[np.float64]:
        """Full width at half maximum of each analysis in mm, (analysis,)."""
        n = corpus.sizes["analysis"]
        if self.fwhm is not None:
            return np.full(n, float(self.fwhm))
        if self.sample_size is not None:
            return np.full(n, fwhm_of(float(self.sample_size)))
        sizes = sample_sizes(corpus, "ALEKernel(sample_size=20) or ALEKernel(fwhm=10)")
        return np.array([fwhm_of(size) for size in sizes])

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"kernel": type(self).__name__, **asdict(self)}


def fwhm_of(sample_size: float) -> float:
    """Full width at half maximum in mm of the kernel of a number of subjects (9.24 for 20)."""
    return float(np.sqrt(_SUBJECT_FWHM**2 / sample_size + _TEMPLATE_FWHM**2))


def sample_sizes(corpus: xr.Dataset, way_out: str) -> NDArray[np.float64]:
    """Sample size of each analysis, (analysis,).

    Raises
    ------
    SchemaError
        When some have none, which are named.
    """
    ids = corpus["analysis_id"].values
    if "analysis_sample_size" in corpus:
        sizes = corpus["analysis_sample_size"].values.astype(np.float64)
    else:
        sizes = np.full(len(ids), np.nan)
    missing = ~(sizes > 0)
    if missing.any():
        raise SchemaError(
            f"{missing.sum():,} of {len(ids):,} analyses have no sample size "
            f"({shorten(ids[missing].tolist())}). Give one for all, {way_out} (on the command line "
            "--sample-size 20 or --fwhm 10), or leave those analyses out: nd.select(corpus, "
            'corpus["analysis_sample_size"] > 0).'
        )
    return sizes


def _check_positive(name: str, value: object, expected: str) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < float(value) < np.inf:  # type: ignore[arg-type]
        raise SettingsError(f"{name} is {value!r}; expected {expected} above 0.")
