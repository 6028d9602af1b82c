"""Family-wise correction by the maxima of null iterations."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.prepared import refuse_difference, source_of
from nimare_dask.nulls.jobs import Job
from nimare_dask.nulls.label_counts import LabelCounts
from nimare_dask.nulls.observed import chi2_measures, difference_measures, observed_measures
from nimare_dask.nulls.redraw import Redraw
from nimare_dask.nulls.relocation import Relocation
from nimare_dask.nulls.stored import job_of
from nimare_dask.nulls.subtraction import Subtraction
from nimare_dask.parallel import shapes
from nimare_dask.provenance import steps, with_step
from nimare_dask.schema import describe
from nimare_dask.stats import empirical, pz

Tail = Literal["empirical", "pareto"]
#: Dims and values of each corrected map.
Corrected = dict[str, tuple[tuple[Any, ...], Any]]

_OUTPUTS = ("p", "z", "logp")
_REFERENCES = {
    Relocation: ("eickhoff2012", "eickhoff2016"),
    Subtraction: ("laird2005",),
    LabelCounts: ("wager2007",),
    Redraw: ("wager2007",),
}


def correct_fwe(maps: xr.Dataset, null: xr.Dataset, *, tail: Tail = "empirical") -> xr.Dataset:
    """Control the family-wise error rate by the maxima of null iterations.

    Parameters
    ----------
    maps
        What ``fit`` of ALE, MKDADensity, KDA, SCALE, MKDAChi2 or ALESubtraction gave, or
        ``fit_features`` of MKDAChi2.
    null
        For the same estimator and corpora: what
        :func:`~nimare_dask.monte_carlo_null` gave for one group of analyses,
        :func:`~nimare_dask.label_permutation_null` or :func:`~nimare_dask.random_foci_null` for
        two, :func:`~nimare_dask.feature_null` for all features.
    tail
        ``"empirical"``: p is the share of maxima that are at least as large, and at least one of
        them. ``"pareto"``: where fewer than ten are, p comes from a generalised Pareto law fitted
        to the largest tenth, so that it can be below 1 / n_iters; see
        :func:`nimare_dask.stats.empirical.p_of_maxima_with_tail` for its error.

    Returns
    -------
    maps
        With ``p_fwe``, ``z_fwe`` and ``logp_fwe`` (inference, ..., voxel), float32, lazy where
        `maps` is: by the statistic of the voxel (``voxel``), by the ``size`` and the ``mass`` of
        its cluster, and by ``tfce`` where the null has it. Clusters are connected by faces and made
        of voxels strictly above the threshold of the null; voxels in none have p = 1. For one group
        z is one-sided, at least 0; for two it is two-sided with the sign of the uncorrected z.
        Effects that the null does not test are NaN, and have no corrected map.

    Raises
    ------
    SchemaError
        When maps and null are not of the same analyses, estimator and space.
    SettingsError
        For a tail that is not known.

    References
    ----------
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    Eickhoff SB et al. (2016), doi:10.1016/j.neuroimage.2016.04.072.
    """
    if tail not in ("empirical", "pareto"):
        raise SettingsError(f"tail is {tail!r}; expected 'empirical' or 'pareto'.")
    results.check(maps)
    job = job_of(null)
    tested: list[str] | None = None
    _refuse_other_null(maps, null, job)
    if isinstance(job, Relocation):
        corrected = _one_group(maps, null, job, tail)
    elif isinstance(job, Subtraction):
        corrected, tested = _difference(maps, null, job, tail)
    elif isinstance(job, LabelCounts | Redraw):
        corrected, tested = _chi2(maps, null, job, tail)
    else:
        raise SchemaError(
            f"The null is of {null.attrs['run']['estimator']}, whose fit() uses it itself; there "
            "are no maps to correct by it."
        )
    result = maps.assign(corrected).assign_coords(inference=null["inference"])
    if tested is not None:
        for name in corrected:
            result[name].attrs["effects"] = tested
    return with_step(
        describe(result),
        "correct_fwe",
        settings={"tail": tail, **steps(null)[-1]["settings"]},
        makes=list(corrected),
        references=_REFERENCES[type(job)],
    )


def _refuse_other_null(maps: xr.Dataset, null: xr.Dataset, job: Job) -> None:
    """Raise SchemaError unless a null is of these maps."""
    needed = "stat" if isinstance(job, Relocation | Subtraction) else "z"
    effects = isinstance(job, Relocation) == ("effect" not in maps.dims)
    if needed not in maps or not effects:
        raise SchemaError(
            f"The null is one of {null.attrs['run']['estimator']}, and the result has no map "
            f"{needed} of that; give what its fit() returned."
        )
    # A prior changes probabilities only.
    settings = [name for name in null.attrs["run"]["settings"] if name != "prior"]
    of_null = source_of(null)
    shared = {name: of_null[name] for name in ("corpus", "mask", *settings)}
    refuse_difference(shared, source_of(maps))


def _corrected(
    values: NDArray[np.float64],
    maxima: NDArray[np.float64],
    tail: Tail,
    name: str,
    sign: NDArray[Any] | None = None,
) -> NDArray[np.float32]:
    """One corrected map, (voxel,), of what is compared and its null maxima, (iteration,).

    p is 1 for values that every maximum reaches, and for 0; the others are few and repeat. z is
    two-sided where there is a sign, and else one-sided.
    """
    look_up = empirical.p_of_maxima if tail == "empirical" else empirical.p_of_maxima_with_tail
    out = np.full(len(values), 1 if name == "p" else 0, np.float32)
    inside = np.flatnonzero((values > 0) & (values >= maxima.min()))
    distinct, which = np.unique(values[inside], return_inverse=True)
    nlogp = pz.p_to_nlogp(look_up(distinct, maxima))
    if name == "z":
        found = pz.nlogp_to_z(nlogp, "one" if sign is None else "two")
    else:
        found = pz.nlogp_to_p(nlogp) if name == "p" else pz.nlogp_to_logp(nlogp)
    out[inside] = found[which]
    if name == "z" and sign is not None:
        out *= sign.astype(np.float32)
    return out


def _one_group(maps: xr.Dataset, null: xr.Dataset, job: Relocation, tail: Tail) -> Corrected:
    observed = observed_measures(job, maps)
    maxima = null["null_max"].values
    return {
        f"{output}_fwe": (
            ("inference", "voxel"),
            np.stack(
                [
                    _corrected(observed[name], maxima[:, row], tail, output)
                    for row, name in enumerate(null["inference"].values.tolist())
                ]
            ),
        )
        for output in _OUTPUTS
    }


def _difference(
    maps: xr.Dataset, null: xr.Dataset, job: Subtraction, tail: Tail
) -> tuple[Corrected, list[str]]:
    """Only the difference has a null of shuffles; the maps of the two groups have not."""
    effects = maps["effect"].values.tolist()
    tested = "group1MinusGroup2"
    row = effects.index(tested)
    observed = difference_measures(job, maps["stat"].values[row])
    sign = np.sign(maps["z"].values[row])
    names = null["inference"].values.tolist()
    corrected: Corrected = {}
    for output in _OUTPUTS:
        values = np.full((len(names), len(effects), len(sign)), np.nan, np.float32)
        for place, name in enumerate(names):
            maxima = null["null_max"].values[:, place]
            values[place, row] = _corrected(observed[name], maxima, tail, output, sign)
        corrected[f"{output}_fwe"] = (("inference", "effect", "voxel"), values)
    return corrected, [tested]


def _chi2(
    maps: xr.Dataset, null: xr.Dataset, job: LabelCounts | Redraw, tail: Tail
) -> tuple[Corrected, list[str]]:
    z = maps["z"]
    # group1 is the other name of uniformity.
    column = {name: name for name in null["effect"].values.tolist()}
    if "uniformity" in column:
        column["group1"] = "uniformity"
    tested = [name for name in z["effect"].values.tolist() if name in column]
    if not tested:
        raise SchemaError(
            f"The null tests {', '.join(column)}, and the result has "
            f"{', '.join(z['effect'].values.tolist())}; keep one of the former, or make a null "
            "with effects= of the latter."
        )
    which = _size_of_each(maps, null)
    names = null["inference"].values.tolist()
    # (effect, size, iteration, inference)
    maxima = null["null_max"] if "size" in null.dims else null["null_max"].expand_dims("size")
    maxima = maxima.transpose("effect", "size", "iteration", "inference")
    corrected: Corrected = {}
    for output in _OUTPUTS:
        correct = partial(_correct_chi2, job, names, output, tail)
        rows = [
            [
                correct(z.sel(effect=effect).data, which, place, maxima.sel(effect=column[effect]))
                if effect in tested
                else shapes.filled_like(z.sel(effect=effect).data, np.nan)
                for effect in z["effect"].values.tolist()
            ]
            for place in range(len(names))
        ]
        values = shapes.stack([shapes.stack(row) for row in rows])
        corrected[f"{output}_fwe"] = (("inference", *z.dims), values)
    return corrected, tested


def _size_of_each(maps: xr.Dataset, null: xr.Dataset) -> NDArray[np.intp]:
    """Which size of the null each feature has, (feature,); one for two groups."""
    if "size" not in null.dims:
        return np.zeros(1, np.intp)
    sizes, n_selected = null["size"].values, np.atleast_1d(maps["n_selected"].values)
    place = np.searchsorted(sizes, n_selected).clip(max=len(sizes) - 1)
    missing = np.unique(n_selected[sizes[place] != n_selected])
    if missing.size:
        raise SchemaError(
            f"The null has no groups of {missing[0]:,} analyses (and {missing.size - 1:,} other "
            "sizes that features have); make it with feature_null(corpus, sizes=maps)."
        )
    return place


def _correct_chi2(
    job: LabelCounts | Redraw,
    names: list[str],
    output: str,
    tail: Tail,
    z: Any,
    which: NDArray[np.intp],
    place: int,
    maxima: xr.DataArray,
) -> Any:
    """One corrected map for each map of z (..., voxel)."""
    index = which if z.ndim == 1 else which[:, None]
    return shapes.apply_to_whole_maps(
        _correct_block,
        index,
        z,
        shared={"maxima": maxima.values[..., place], "mask": job.mask},
        threshold=job.chi2_thresh,
        inference=names[place],
        output=output,
        tail=tail,
    )


def _correct_block(
    which: NDArray[np.intp],
    z: NDArray[np.float32],
    *,
    maxima: NDArray[np.float64],
    mask: NDArray[np.bool_],
    threshold: float | None,
    inference: str,
    output: str,
    tail: Tail,
) -> NDArray[np.float32]:
    """Correct maps (..., voxel); `maxima` are (size, iteration)."""
    measure = chi2_measures(mask, threshold, inference)
    out = np.empty(z.shape, np.float32)
    which = np.broadcast_to(which, (*z.shape[:-1], 1))
    for at in np.ndindex(z.shape[:-1]):
        null = maxima[int(which[at][0])]
        out[at] = _corrected(measure(z[at]), null, tail, output, np.sign(z[at]))
    return out
