"""Activation likelihood estimation (ALE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import LocatedFoci
from nimare_dask.estimators.one_sample import fit_one_sample
from nimare_dask.estimators.prepared import NullMethod, check_kernel
from nimare_dask.footprint import ALEKernel
from nimare_dask.kernels.overlay import pack_footprints
from nimare_dask.nulls import approximate
from nimare_dask.space import Coverage, Space
from nimare_dask.statistic import Statistic, StudyValues, whole_numbers

#: Analyses up to which the approximate null is folded in order, as NiMARE does it.
FOLD_LIMIT = 20_000

REFERENCES = ("turkeltaub2002", "eickhoff2012", "lancaster2007")


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

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, ALEKernel, "ALE unites probabilities")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"estimator": type(self).__name__, **self.kernel.settings()}

    def fit(
        self,
        corpus: xr.Dataset,
        *,
        space: Space | str = "mni152_2mm",
        null_method: NullMethod = "approximate",
        n_iters: int = 5000,
        random_state: int | None = None,
        coverage: Coverage = "brain",
        null: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """Fit one group of analyses, now.

        Parameters
        ----------
        corpus
            A corpus; analyses without foci do not count.
        space
            See :func:`~nimare_dask.space.load_space`.
        null_method
            ``"approximate"``: from the histograms of all analyses, folded in order of ids up to
            20,000 analyses and by ``"fft"`` beyond. ``"fold"`` and ``"fft"`` choose one of them.
            ``"montecarlo"``: from `n_iters` iterations in which foci fall anywhere.
        n_iters, random_state, coverage, null
            Of the iterations of ``"montecarlo"``, see
            :func:`~nimare_dask.nulls.monte_carlo.monte_carlo_null`; or the null that it gave.

        Returns
        -------
        maps
            ``stat p z logp`` (voxel), float32; ``null_weight`` (bin) with ``bin_center``.

        Raises
        ------
        SchemaError
            When the kernel needs sample sizes that analyses do not have.
        SelectionError
            When there is no focus at all.
        """
        return fit_one_sample(
            self,
            corpus,
            references=REFERENCES,
            space=space,
            null_method=null_method,
            null=null,
            n_iters=n_iters,
            random_state=random_state,
            coverage=coverage,
        )

    def statistic(
        self, corpus: xr.Dataset, foci: LocatedFoci, space: Space, study: StudyValues
    ) -> Statistic:
        """Sum of -ln(1 - activation) over analyses, which stands for the union."""
        return ale_statistic(self.kernel, corpus, space, study)

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """Histogram of ALE when foci fall anywhere, (bin,)."""
        many = corpus.sizes["analysis"] > FOLD_LIMIT
        if method == "fft" or (method == "approximate" and many):
            return approximate.ale_fft(study, statistic.bins)
        order = np.argsort(np.array(corpus["analysis_id"].values.tolist()), kind="stable")
        return approximate.ale_fold(study, statistic.bins, order)


def ale_statistic(
    kernel: ALEKernel, corpus: xr.Dataset, space: Space, study: StudyValues
) -> Statistic:
    """The statistic of ALE and of SCALE."""
    dense, footprint_of = kernel.footprints(corpus, space)
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
