"""What a null and a fit ask of an estimator, and a corpus that it is about to be applied to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import activation, schema
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SchemaError, SelectionError, SettingsError
from nimare_dask.footprint import Kernel
from nimare_dask.kernels import overlay
from nimare_dask.provenance import steps
from nimare_dask.selection import select
from nimare_dask.space import Space
from nimare_dask.statistic import Statistic, StudyValues

NullMethod = Literal["approximate", "fold", "fft", "montecarlo"]


class OneSample(Protocol):
    """What a null and a fit ask of the settings of an estimator.

    Attributes
    ----------
    references
        Keys of :data:`nimare_dask.provenance.REFERENCES`, which a result names.
    """

    references: ClassVar[tuple[str, ...]]

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
    given
        The corpus as it was given.
    corpus
        The analyses of it that have foci.
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
        self.given = corpus
        self.corpus = corpus if some.all() else select(corpus, some)
        self.foci = activation.locate([self.corpus], space)
        self.study = activation.study_values(estimator.kernel, self.corpus, self.foci, space)
        self.statistic = estimator.statistic(self.corpus, self.foci, space, self.study)

    def observed_sums(self, space: Space) -> NDArray[np.signedinteger]:
        """Sums of the reported foci, (voxel,)."""
        return self.statistic.sums(
            self.foci.ijk.astype(np.int32), self.foci.owner, overlay.place_of(space.mask)
        )

    def refuse_other(self, estimator: OneSample, space: Space, found: Mapping[str, Any]) -> None:
        """Raise SchemaError when something was made of another estimator, corpus or mask.

        `found` is :func:`source_of` of it.
        """
        wanted = {
            **estimator.settings(),
            "corpus": [_corpus.digest(self.given)],
            "mask": space.digest,
        }
        refuse_difference(json.loads(json.dumps(wanted)), found)

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


def source_of(made: xr.Dataset) -> dict[str, Any]:
    """What maps or a null were made of: settings of the estimator, corpus and mask.

    Raises
    ------
    SchemaError
        When it is neither of one group of analyses.
    """
    step = next((step for step in steps(made)[::-1] if "corpus_digests" in step), None)
    if step is None or "estimator" not in step["settings"]:
        raise SchemaError(
            "Expected what fit() of ALE, MKDADensity, KDA or SCALE returned, or monte_carlo_null() "
            f"did; found a dataset of {', '.join(map(str, made.data_vars)) or 'nothing'}."
        )
    return {**step["settings"], "corpus": step["corpus_digests"], "mask": step["space_digest"]}


def refuse_difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise SchemaError when what was made of one thing is used with another, naming both."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise SchemaError(
                f"They do not belong together: one was made with {name} {str(value)[:60]}, the "
                f"other with {str(found.get(name))[:60]}. Make both from the same estimator, "
                "corpus and space."
            )
