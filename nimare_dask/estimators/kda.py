"""Kernel density analysis (KDA): how many foci lie within reach of a voxel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import LocatedFoci
from nimare_dask.estimators import one_sample
from nimare_dask.estimators.prepared import NullMethod, check_kernel
from nimare_dask.footprint import KDAKernel
from nimare_dask.kernels.overlay import pack_footprints
from nimare_dask.nulls import approximate
from nimare_dask.space import Space
from nimare_dask.statistic import Statistic, StudyValues, whole_numbers


@dataclass(frozen=True, kw_only=True)
class KDA:
    """Where more foci lie within reach than if they fell anywhere.

    Parameters
    ----------
    kernel
        What a focus reaches.

    Notes
    -----
    Foci count one by one, so an analysis with many foci counts much; MKDA was made to mend that.
    All inference is one-sided.

    References
    ----------
    Wager TD et al. (2003), doi:10.1016/S1053-8119(03)00078-8.
    Wager TD et al. (2004), doi:10.1016/j.neuroimage.2004.03.052.
    """

    kernel: KDAKernel = field(default_factory=KDAKernel)

    references: ClassVar[tuple[str, ...]] = ("wager2003", "wager2004", "lancaster2007")
    fit = one_sample.fit

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, KDAKernel, "KDA counts foci")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"estimator": type(self).__name__, **self.kernel.settings()}

    def statistic(
        self, corpus: xr.Dataset, foci: LocatedFoci, space: Space, study: StudyValues
    ) -> Statistic:
        """Number of foci within reach."""
        dense, footprint_of = self.kernel.footprints(corpus, space)
        whole, scale, wide = whole_numbers(dense, footprint_of[foci.owner])
        return Statistic(
            footprints=pack_footprints(whole),
            footprint_of=footprint_of,
            union=False,
            scale=scale,
            wide=wide,
            probability=False,
            bins=np.arange(len(foci.ijk) + 2.0),
        )

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """Law of the number of foci within reach, (bin,)."""
        return approximate.sum_fold(study, len(statistic.bins))
