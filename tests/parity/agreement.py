"""How far one-sample maps may be from the peer's by rounding, and checks that hold them to it.

No tolerance is chosen: each is worked out from what either side rounds (README.md has the list).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.activation import activation_maps
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.kda import KDA
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.estimators.prepared import Prepared
from nimare_dask.estimators.scale import SCALE
from nimare_dask.space import Space
from nimare_dask.stats import pz
from tests.parity.peer import ONE_FLOAT32, assert_corrected_within
from tests.parity.peer_cbma import Arrays, Iterations, peer_module

Estimator = ALE | MKDADensity | KDA | SCALE

#: The peer's root of the product of float32 zooms is off by this share of it (of 8 mm3), and so is
#: its sigma; where it gets a fwhm, that is rounded to float32 as well.
_SIGMA_ERROR = abs(float(np.sqrt(np.float32(8))) / np.sqrt(8.0) - 1.0)

#: dK / K is (r2 / sigma2 - 3) dsigma / sigma; a kernel ends at 4 sigma (and half a voxel) on each
#: axis, so its corners are at 48 sigma2 or a little more.
_FARTHEST = 54.0


def n_active(estimator: Estimator, corpus: xr.Dataset, space: Space) -> NDArray[np.int64]:
    """Number of analyses whose activation is not 0, (voxel,)."""
    active = activation_maps(corpus, estimator.kernel, space, analysis_chunk=64) > 0
    count: NDArray[np.int64] = active.sum("analysis").values
    return count


def stat_error(
    estimator: Estimator, corpus: xr.Dataset, space: Space, stat: Any, active: Any
) -> NDArray[np.float64]:
    """How far a statistic may be from the peer's, of the shape of `stat`.

    Ours adds up whole numbers, each of which is off by at most a half of 1 / scale; the peer adds
    float32 logarithms (ALE); each side stores its statistic as float32. Counts are exact.

    Parameters
    ----------
    estimator, corpus, space
        What was fitted.
    stat
        The peer's.
    active
        How many analyses are active where it was found, at most.
    """
    prepared = Prepared(estimator, corpus, space)
    stat = np.asarray(stat, np.float64)
    if prepared.statistic.scale == 1.0:
        return np.zeros(stat.shape)
    error: NDArray[np.float64] = np.asarray(active) / 2 / prepared.statistic.scale
    error = error + ONE_FLOAT32 * stat
    if not isinstance(estimator, ALE | SCALE):
        return error
    sigma = _SIGMA_ERROR + (ONE_FLOAT32 / 2 if estimator.kernel.fwhm is not None else 0.0)
    highest = float(prepared.study.values[-1])
    # The peak moves by 3 sigma errors, no other place by more; in the tails the share does.
    kernel = np.minimum(_FARTHEST * stat, 3 * highest * np.asarray(active)) * sigma
    return np.asarray(error + ONE_FLOAT32 * stat + kernel, np.float64)


# the uncorrected maps and their null


def assert_fits_agree(
    ours: xr.Dataset,
    theirs: Mapping[str, Any],
    nulls: Arrays,
    error: Any,
    *,
    most: int,
    smallest_weight: float = 1.0,
) -> NDArray[np.bool_]:
    """Hold maps of ``fit`` and their null histogram to the peer's.

    A voxel must have the p, z and logp of its bin or, where its statistic is within `error` of the
    edge of a bin, of the bin on the other side; at most so many voxels may be in the other one.

    Parameters
    ----------
    ours
        What ``fit`` gave.
    theirs, nulls
        What ``peer_fit`` gave.
    error
        See :func:`stat_error`, (voxel,).
    most
        Voxels that may be in the neighbouring bin.
    smallest_weight
        Of an analysis (MKDA).

    Returns
    -------
    other
        Which voxels are in the neighbouring bin, (voxel,).
    """
    assert set(theirs) == {"stat", "p", "z", "logp"} == {k.name for k in results.map_keys(ours)}
    assert all(ours[name].dtype == theirs[name].dtype == np.float32 for name in theirs)
    stat = np.asarray(theirs["stat"], np.float64)
    assert_within("stat", ours["stat"].values, stat, error)
    bins = nulls["histogram_bins"].astype(np.float64)
    assert_array_equal(ours["bin_center"].values, bins, err_msg="bin_center")
    weights = histogram_of(nulls).astype(np.float64)
    off = _histogram_error(nulls, smallest_weight)
    if not histogram_is_counted(nulls):
        assert_within("null_weight", ours["null_weight"].values, weights, off * weights + 1e-300)
    low, high = nearest_bin(stat - error, bins), nearest_bin(stat + error, bins)
    assert (high - low).max() <= 1
    other = np.zeros(len(stat), bool)
    for name, (table, allowed) in _tables(weights, bins, off).items():
        values, peers = ours[name].values.astype(np.float64), theirs[name].astype(np.float64)
        fits = np.abs(values - table[low]) <= allowed[low]
        fits |= np.abs(values - table[high]) <= allowed[high]
        assert fits.all(), f"{name}: Not equal to tolerance at {(~fits).sum()} voxels"
        other |= np.abs(values - peers) > np.maximum(allowed[low], allowed[high])
    assert not (other & (low == high)).any()
    assert other.sum() <= most, f"{other.sum()} voxels are in a neighbouring bin"
    return other


def assert_within(name: str, ours: Any, theirs: Any, error: Any) -> None:
    """Hold values to an absolute error of each."""
    excess = np.abs(np.asarray(ours, np.float64) - theirs) - error
    worst = int(np.argmax(excess))
    assert excess[worst] <= 0, (
        f"{name}: Not equal to tolerance at {(excess > 0).sum()} of {excess.size}, worst at "
        f"{worst}: {ours[worst]} and {theirs[worst]}, {excess[worst]} too far"
    )


def histogram_is_counted(nulls: Arrays) -> bool:
    """Whether the uncorrected null comes from iterations."""
    return "histweights_corr-none_method-montecarlo" in nulls


def histogram_of(nulls: Arrays) -> NDArray[Any]:
    """The histogram of the peer's uncorrected null."""
    method = "montecarlo" if histogram_is_counted(nulls) else "approximate"
    return nulls[f"histweights_corr-none_method-{method}"].ravel()


def nearest_bin(stat: Any, bins: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each statistic."""
    step = bins[1] - bins[0]
    found = np.floor(np.asarray(stat, np.float64) / step + 0.5).astype(np.int64)
    return found.clip(0, len(bins) - 1)


def _histogram_error(nulls: Arrays, smallest_weight: float) -> NDArray[np.float64]:
    """How far each bin of a null histogram may be from ours, as a share of it, (bin,)."""
    bins = nulls["histogram_bins"].astype(np.float64)
    summed = np.full(len(bins), 1e-12)  # float64, up to a thousand analyses
    if histogram_is_counted(nulls):
        return np.zeros(len(bins))
    if "histogram_means" not in nulls or nulls["histogram_means"].ndim != 1:
        return summed
    # MKDA: the peer rounds the share of voxels of each analysis, q, to float32, and 1 - q too when
    # weights are equal. A bin is a sum of products of q where an analysis is active, and of 1 - q
    # where it is not.
    share = nulls["histogram_means"].astype(np.float64)
    inactive = share / (1 - share) * ONE_FLOAT32 / 2
    if len(bins) == len(share) + 1:
        inactive += ONE_FLOAT32 / 4 / (1 - share)
    return summed + 1.01 * (bins / smallest_weight * ONE_FLOAT32 / 2 + inactive.sum())


def _tables(
    weights: NDArray[np.float64], bins: NDArray[np.float64], off: NDArray[np.float64]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The peer's p, z and logp of each bin, and how far ours may be from them, (bin,)."""
    p = peer_module("stats").nullhist_to_p(bins, weights, bins)
    z = peer_module("transforms").p_to_z(p, tail="one")
    logp = -np.log10(p)
    # The share that a tail may be off: the mean over its bins; past the last bin, as in that one.
    tail = np.cumsum(weights[::-1])[::-1]
    moved = np.cumsum((weights * off)[::-1])[::-1]
    share = moved / np.maximum(tail, np.finfo(np.float64).smallest_subnormal)
    share = np.maximum.accumulate(share) + share[0] + 1e-12  # of a tail, and of all
    return {
        "p": (p, (share + ONE_FLOAT32) * p + 2 * pz.P_FLOOR),
        "z": (z, ONE_FLOAT32 * z + share * np.minimum(1.2533142, 1 / np.maximum(z, 1e-9))),
        "logp": (logp, ONE_FLOAT32 * logp + share / np.log(10)),
    }


# null iterations


def assert_maxima_agree(null: xr.Dataset, theirs: Iterations, error: Any) -> None:
    """Hold the maxima of each iteration; `error` is that of the largest statistic, (iteration,)."""
    ours = null["null_max"].to_dataset("inference")
    assert_within("maximum", ours["voxel"].values, theirs.max_stat, error)
    if "size" in ours:
        assert_array_equal(ours["size"].values, theirs.max_size)
        # Each voxel of a cluster adds the error of its statistic (and 1e-12 of the sum).
        allowed = error * theirs.max_size + 1e-12 * theirs.max_mass
        assert_within("mass", ours["mass"].values, theirs.max_mass, allowed)


def assert_histograms_agree(null: xr.Dataset, nulls: Arrays, stat: Any, error: Any) -> None:
    """Hold the histogram of iterations: voxels near the edge of a bin may be beyond it.

    Parameters
    ----------
    null
        Our iterations.
    nulls
        The peer's null distributions, of ``null_method="montecarlo"``.
    stat
        The peer's statistic in each iteration, (iteration, voxel).
    error
        Of the same shape.
    """
    ours, theirs = null["null_histogram"].values, histogram_of(nulls)
    bins = nulls["histogram_bins"].astype(np.float64)
    assert_array_equal(null["bin_center"].values, bins)
    assert ours.sum() == theirs.sum() == stat.size
    stat = stat.astype(np.float64)
    low, high = nearest_bin(stat - error, bins), nearest_bin(stat + error, bins)
    near = low[low != high]  # between bin n and n + 1
    may_cross = np.bincount(near.ravel(), minlength=len(bins))
    assert (np.abs(np.cumsum(ours - theirs)) <= may_cross).all()


# corrected maps


def maps_of(result: xr.Dataset, *, without: xr.Dataset | None = None) -> dict[str, Any]:
    """Every map by the peer's name, leaving out those of another result."""
    known = set() if without is None else {key.name for key in results.map_keys(without)}
    keys = [key for key in results.map_keys(result) if key.name not in known]
    return {key.name: results.find_map(result, key.name) for key in keys}


def assert_fwe_agrees(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], nulls: Arrays, stat: Any, error: Any
) -> None:
    """Hold every map of Monte Carlo FWE to the peer's, which caps p at 1 - 1 / n.

    Ours has p maps too. Where the statistic of a voxel is within `error` of a null maximum, that
    one may count on one side only; clusters must have the same p.
    """
    assert set(theirs) == {name for name in ours if not name.startswith("p_")}
    assert {f"p{name[4:]}" for name in theirs if name.startswith("logp")} < set(ours)
    maxima = np.sort(nulls["values_level-voxel_corr-fwe_method-montecarlo"].astype(np.float64))
    n_below = [np.searchsorted(maxima, stat + sign * error) for sign in (-1, 1)]
    near = n_below[0] != n_below[1]
    for name, peers in theirs.items():
        values = ours[name]
        if name.startswith("logp"):
            values = np.maximum(values, np.float32(-np.log10(1 - 1 / len(maxima))))
        # p is a count over n; the peer stores it as float32 where it belongs to a cluster.
        differs = np.abs(values - peers) > ONE_FLOAT32 * (np.abs(peers) + 1)
        wrong = differs & ~near if "_level-voxel" in name else differs
        assert not wrong.any(), f"{name}: Not equal at {wrong.sum()} voxels"
        assert differs.sum() <= 2, f"{name}: {differs.sum()} voxels are on a maximum"


def generic_error(logp: NDArray[np.float32], p: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far ln of a generically corrected p may be from the peer's, (voxel,).

    Ours comes from the float32 logp map, the peer's from its float32 p map or, where that is at its
    floor, from its logp map. A corrected value moves by at most the largest error of its own p and
    of larger ones.
    """
    nlogp = np.log(10) * logp.astype(np.float64)
    floored = p <= np.finfo(np.float32).smallest_subnormal
    wide = p.astype(np.float64)
    rounding = np.maximum(ONE_FLOAT32, np.spacing(p).astype(np.float64) / wide)
    with np.errstate(divide="ignore"):  # a share of 1 is at the floor, where it is not used
        error = np.where(floored, ONE_FLOAT32 * nlogp, -np.log1p(-rounding))
    error = error + ONE_FLOAT32 * nlogp + 1e-12
    order = np.argsort(logp, kind="stable")
    error[order] = np.maximum.accumulate(error[order])
    return error


def assert_generic_agrees(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], uncorrected: Mapping[str, Any]
) -> None:
    """Hold every map of Bonferroni or an FDR to the peer's."""
    assert set(ours) == set(theirs)
    error = generic_error(uncorrected["logp"], uncorrected["p"])
    for name, values in ours.items():
        assert_corrected_within(name, values, np.asarray(theirs[name]), error)
