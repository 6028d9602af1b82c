"""What ALE, MKDA density, KDA and SCALE have in common: a statistic, its null, and maps."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import activation, results, schema
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SchemaError, SelectionError, SettingsError
from nimare_dask.footprint import Kernel
from nimare_dask.kernels import overlay, tally
from nimare_dask.provenance import with_step
from nimare_dask.selection import select
from nimare_dask.space import Space, load_space
from nimare_dask.statistic import Statistic, StudyValues
from nimare_dask.stats import empirical, pz

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


def fit_one_sample(
    estimator: OneSample,
    corpus: xr.Dataset,
    *,
    space: Space | str,
    null_method: NullMethod,
    null: xr.Dataset | None,
    references: tuple[str, ...],
) -> xr.Dataset:
    """Maps ``stat p z logp`` of an estimator whose null is one histogram for all voxels.

    `null` has the histogram of null iterations where the method is ``montecarlo``.
    """
    if null_method not in ("approximate", "fold", "fft", "montecarlo"):
        raise SettingsError(
            f"null_method is {null_method!r}; expected 'approximate' or 'montecarlo' (or 'fold' or "
            "'fft', which name the kind of approximate null)."
        )
    space = load_space(space)
    prepared = Prepared(estimator, corpus, space)
    statistic = prepared.statistic
    if null_method == "montecarlo":
        assert null is not None
        _check_null(null, statistic)
        weights = null["null_histogram"].values.astype(np.float64)
    else:
        weights = estimator.approximate_null(
            prepared.corpus, prepared.study, statistic, null_method
        )
    sums = prepared.observed_sums(space)
    maps = maps_of_bins(empirical.p_of_bins(weights), tally.bins_of(sums, statistic.steps))
    result = results.as_result(
        {
            "stat": ("voxel", statistic.values(sums)),
            **{name: ("voxel", values) for name, values in maps.items()},
            "null_weight": ("bin", weights),
        },
        space,
        {"bin_center": ("bin", statistic.bins)},
    )
    result.attrs["provenance"] = corpus.attrs.get("provenance", "[]")
    settings = {**estimator.settings(), "null_method": null_method}
    if null is not None:
        settings |= {name: null.attrs[name] for name in ("n_iters", "random_state", "coverage")}
    return with_step(
        result,
        type(estimator).__name__,
        settings=settings,
        references=references,
        **prepared.facts(corpus, space),
    )


def maps_of_bins(p: NDArray[np.float64], bins: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
    """Maps ``p z logp`` from the p value of each bin, (bin,), and the bin of each voxel."""
    nlogp = pz.p_to_nlogp(p)
    return {
        "p": pz.nlogp_to_p(nlogp).astype(np.float32)[bins],
        "z": pz.nlogp_to_z(nlogp, "one").astype(np.float32)[bins],
        "logp": pz.nlogp_to_logp(nlogp).astype(np.float32)[bins],
    }


def _check_null(null: xr.Dataset, statistic: Statistic) -> None:
    if null.sizes.get("bin") != len(statistic.bins):
        raise SchemaError(
            f"The null has {null.sizes.get('bin', 0):,} bins and this statistic "
            f"{len(statistic.bins):,}; make it with monte_carlo_null() from the same estimator and "
            "corpus."
        )


def check_kernel(estimator: object, kernel: object, expected: type, why: str) -> None:
    """Raise SettingsError unless an estimator has the kernel that its statistic is defined for."""
    if not isinstance(kernel, expected):
        raise SettingsError(
            f"kernel of {type(estimator).__name__} is a {type(kernel).__name__}; {why}, so "
            f"expected {expected.__name__}."
        )
