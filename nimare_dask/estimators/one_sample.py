"""What fitting ALE, MKDA density and KDA has in common: a null histogram, and maps from it.

Each assigns :func:`fit` in its class body, so that it is a method of theirs.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.prepared import NullMethod, OneSample, Prepared, source_of
from nimare_dask.kernels import tally
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.provenance import with_step
from nimare_dask.space import Coverage, Space, load_space
from nimare_dask.stats import empirical, pz


def fit(
    self: OneSample,
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
        ``"approximate"``: from what each analysis activates, as if its foci fell anywhere. For ALE
        the histograms of all analyses, folded in order of ids up to 20,000 analyses and by
        ``"fft"`` beyond; ``"fold"`` and ``"fft"`` choose one of them. For MKDADensity the exact law
        of a sum of independent activations (Poisson-binomial), with weights rounded to bins where
        they differ; for KDA that of a sum of independent numbers of foci.
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
        When the kernel or weights need sample sizes that analyses do not have, or the null is of
        another estimator, corpus or space.
    SelectionError
        When there is no focus at all.
    SettingsError
        For a `null_method` or space that cannot be, or a null without ``"montecarlo"``.
    """
    if null_method not in ("approximate", "fold", "fft", "montecarlo"):
        raise SettingsError(
            f"null_method is {null_method!r}; expected 'approximate' or 'montecarlo' (or 'fold' or "
            "'fft', which name the kind of approximate null)."
        )
    if null is not None and null_method != "montecarlo":
        raise SettingsError(
            f"A null is given and null_method is {null_method!r}; expected 'montecarlo'."
        )
    space = load_space(space)
    prepared = Prepared(self, corpus, space)
    statistic = prepared.statistic
    if null_method == "montecarlo":
        if null is None:
            null = monte_carlo_null(
                self,
                corpus,
                space=space,
                n_iters=n_iters,
                voxel_thresh=None,
                coverage=coverage,
                random_state=random_state,
                purpose="fit",
            )
        prepared.refuse_other(self, space, source_of(null))
        weights = null["null_histogram"].values.astype(np.float64)
    else:
        weights = self.approximate_null(prepared.corpus, prepared.study, statistic, null_method)
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
    settings = {**self.settings(), "null_method": null_method}
    if null is not None:
        settings |= {name: null.attrs[name] for name in ("n_iters", "random_state", "coverage")}
    return with_step(
        result,
        type(self).__name__,
        settings=settings,
        references=self.references,
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
