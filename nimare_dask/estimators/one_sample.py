"""What fitting ALE, MKDA density and KDA has in common: a null histogram, and maps from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.prepared import NullMethod, OneSample, Prepared, source_of
from nimare_dask.kernels import tally
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.provenance import with_step
from nimare_dask.space import Space, load_space
from nimare_dask.stats import empirical, pz


def fit_one_sample(
    estimator: OneSample,
    corpus: xr.Dataset,
    *,
    references: tuple[str, ...],
    space: Space | str,
    null_method: NullMethod,
    null: xr.Dataset | None,
    **iterations: Any,
) -> xr.Dataset:
    """Maps ``stat p z logp`` of an estimator whose null is one histogram for all voxels.

    See :meth:`nimare_dask.ALE.fit`, whose arguments these are.
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
    prepared = Prepared(estimator, corpus, space)
    statistic = prepared.statistic
    if null_method == "montecarlo":
        if null is None:
            null = monte_carlo_null(
                estimator, corpus, space=space, voxel_thresh=None, purpose="fit", **iterations
            )
        prepared.refuse_other(estimator, space, source_of(null))
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
