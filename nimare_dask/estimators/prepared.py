"""What a null and a fit ask of an estimator, and a corpus that it is about to be applied to."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import activation, schema
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SelectionError, SettingsError
from nimare_dask.footprint import Kernel
from nimare_dask.kernels import overlay
from nimare_dask.selection import select
from nimare_dask.space import Space
from nimare_dask.statistic import Statistic, StudyValues

NullMethod = Literal["approximate", "fold", "fft", "montecarlo"]


class OneSample(Protocol):
    """What a null and a fit ask of the settings of an estimator."""

    @property
    def kernel(self) -> Kernel:
        """What a focus stands for."""
        ...

    def statistic(
        self, corpus: xr.Dataset, foci: LocatedFoci, space: Space, study: StudyValues
    ) -> Statistic:
        """The statistic of these analyses."""
        ...

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """Its histogram when foci fall anywhere, (bin,)."""
        ...

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        ...


class Prepared:
    """A corpus that an estimator is about to be applied to.

    Attributes
    ----------
    corpus
        The analyses that have foci.
    foci
        Where they lie in the space.
    study
        What each analysis activates.
    statistic
        See :class:`~nimare_dask.statistic.Statistic`.
    """

    def __init__(self, estimator: OneSample, corpus: xr.Dataset, space: Space) -> None:
        schema.check(corpus, ["analysis_n_foci"], made_by="read_neurosynth() or simulate_corpus()")
        some = corpus["analysis_n_foci"].values > 0
        if not some.any():
            raise SelectionError(
                f"The corpus has no focus at all ({some.size:,} analyses); choose other analyses."
            )
        self.corpus = corpus if some.all() else select(corpus, some)
        self.foci = activation.locate([self.corpus], space)
        self.study = activation.study_values(estimator.kernel, self.corpus, self.foci, space)
        self.statistic = estimator.statistic(self.corpus, self.foci, space, self.study)

    def observed_sums(self, space: Space) -> NDArray[np.signedinteger]:
        """Sums of the reported foci, (voxel,)."""
        return self.statistic.sums(
            self.foci.ijk.astype(np.int32), self.foci.owner, overlay.place_of(space.mask)
        )

    def facts(self, corpus: xr.Dataset, space: Space) -> dict[str, Any]:
        """What a provenance keeps of the input."""
        return {
            "corpus_digests": [_corpus.digest(corpus)],
            "space_digest": space.digest,
            "n_analyses": self.foci.n_analyses,
            "n_analyses_without_foci": corpus.sizes["analysis"] - self.foci.n_analyses,
            **self.foci.report(),
        }


def check_kernel(estimator: object, kernel: object, expected: type, why: str) -> None:
    """Raise SettingsError unless an estimator has the kernel that its statistic is defined for."""
    if not isinstance(kernel, expected):
        raise SettingsError(
            f"kernel of {type(estimator).__name__} is a {type(kernel).__name__}; {why}, so "
            f"expected {expected.__name__}."
        )
