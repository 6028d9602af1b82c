"""Activation likelihood estimation (ALE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import LocatedFoci
from nimare_dask.estimators import one_sample
from nimare_dask.estimators.prepared import NullMethod, OneSample, check_kernel
from nimare_dask.footprint import ALEKernel
from nimare_dask.kernels.overlay import pack_footprints
from nimare_dask.nulls import approximate
from nimare_dask.space import Space
from nimare_dask.statistic import Statistic, StudyValues, whole_numbers

#: Analyses up to which the approximate null is folded in order, as NiMARE does it.
FOLD_LIMIT = 20_000


def ale_statistic(
    self: OneSample, corpus: xr.Dataset, foci: LocatedFoci, space: Space, study: StudyValues
) -> Statistic:
    """Sum of -ln(1 - activation) over analyses, which stands for the union."""
    dense, footprint_of = self.kernel.footprints(corpus, space)
    return union_statistic(dense, footprint_of, approximate.ale_bins(study.maxima()))


def union_statistic(
    dense: list[NDArray[np.float64]], footprint_of: NDArray[np.int32], bins: NDArray[np.float64]
) -> Statistic:
    """The probability that any analysis is active, from footprints of activation."""
    whole, scale, wide = whole_numbers([-np.log1p(-footprint) for footprint in dense], footprint_of)
    return Statistic(
        footprints=pack_footprints(whole),
        footprint_of=footprint_of,
        union=True,
        scale=scale,
        wide=wide,
        probability=True,
        bins=bins,
    )


@dataclass(frozen=True, kw_only=True)
class ALE:
    """Where more analyses report activation than if their foci fell anywhere.

    Parameters
    ----------
    kernel
        What a focus stands for: a Gaussian.

    Notes
    -----
    The statistic is the probability that at least one analysis is active at a voxel,
    ``1 - prod(1 - activation)``. All inference is one-sided: is it larger than by chance?

    References
    ----------
    Turkeltaub PE et al. (2002), doi:10.1006/nimg.2002.1131.
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    """

    kernel: ALEKernel = field(default_factory=ALEKernel)

    references: ClassVar[tuple[str, ...]] = ("turkeltaub2002", "eickhoff2012", "lancaster2007")
    fit = one_sample.fit
    statistic = ale_statistic

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, ALEKernel, "ALE unites probabilities")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"estimator": type(self).__name__, **self.kernel.settings()}

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """Histogram of ALE when foci fall anywhere, (bin,)."""
        many = corpus.sizes["analysis"] > FOLD_LIMIT
        if method == "fft" or (method == "approximate" and many):
            return approximate.ale_fft(study, statistic.bins)
        order = np.argsort(np.array(corpus["analysis_id"].values.tolist()), kind="stable")
        return approximate.ale_fold(study, statistic.bins, order)
