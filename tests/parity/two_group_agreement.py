"""How far comparisons of two groups may be from the peer's by rounding, and checks of that.

As in agreement.py no tolerance is chosen: each is worked out from what either side rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.activation import activation_maps
from nimare_dask.estimators.ale import ALE
from nimare_dask.kernels import difference, exceed
from nimare_dask.nulls.observed import difference_measures
from nimare_dask.nulls.stored import job_of
from nimare_dask.nulls.subtraction import Subtraction
from nimare_dask.space import Space
from nimare_dask.stats import pz
from tests.parity.agreement import assert_within, n_active, stat_error
from tests.parity.peer import ONE_FLOAT32
from tests.parity.peer_cbma import Arrays
from tests.parity.peer_two_groups import EFFECTS, Compared
from tests.parity.two_group_cases import Pair

DIFFERENCE = "group1MinusGroup2"

#: Ends of the names of the peer's null maxima.
_LEVELS = {
    "voxel": "_level-voxel_corr-fwe_method-montecarlo",
    "size": "size_level-cluster_corr-fwe_method-montecarlo",
    "mass": "mass_level-cluster_corr-fwe_method-montecarlo",
}


# ALE subtraction


def difference_error(ale: ALE, pair: Pair, space: Space) -> NDArray[np.float64]:
    """How far a difference of any division of the analyses may be from the peer's, (voxel,).

    ALE of a group is at most its sum of -ln(1 - activation), so those of any division add up to at
    most that of all analyses; the errors of both groups likewise.
    """
    whole = ale.fit(pair.pooled, space=space)["stat"].values.astype(np.float64)
    summed = -np.log1p(-np.minimum(whole, 1 - ONE_FLOAT32)) * (1 + ONE_FLOAT32)
    return stat_error(ale, pair.pooled, space, summed, n_active(ale, pair.pooled, space))


def same_divisions(ale: ALE, pair: Pair, space: Space, chosen: Any) -> NDArray[np.bool_]:
    """Where an iteration has every active analysis in the group that it is in, (iteration, voxel).

    Parameters
    ----------
    ale, pair, space
        What is compared.
    chosen
        Positions of group 1 in the sorted ids of both groups, (iteration, analysis of group 1).
    """
    active = activation_maps(pair.pooled, ale.kernel, space, analysis_chunk=64).values > 0
    ids = pair.pooled["analysis_id"].values
    in_first = np.isin(ids, pair.first["analysis_id"].values)
    found = []
    for one in chosen:
        moved = in_first.copy()
        moved[one] = ~moved[one]
        found.append(~active[moved].any(axis=0))
    return np.stack(found)


def assert_counts_agree(
    null: xr.Dataset,
    theirs: Compared,
    error: NDArray[np.float64],
    same: NDArray[np.bool_],
    *,
    most: float,
) -> NDArray[np.bool_]:
    """Hold the counts of iterations to the peer's, and give the voxels where they differ.

    An iteration with the same active analyses on either side counts as one with the observed
    difference; others are compared by what each side rounds of the two.

    Parameters
    ----------
    null
        Ours.
    theirs
        The peer's, unrounded, of the same shuffles.
    error
        See :func:`difference_error`, (voxel,).
    same
        See :func:`same_divisions`, (iteration, voxel).
    most
        Share of voxels where they may differ.
    """
    assert theirs.observed.dtype == theirs.differences.dtype == np.float64
    other = np.zeros(len(error), bool)
    for name, sign in (("up", 1), ("low", -1)):
        ours = null[f"null_{name}"].values.astype(np.int64)
        above = sign * (theirs.differences - theirs.observed)
        too_few = ours < (same | (above > 2 * error)).sum(axis=0)
        assert not too_few.any(), f"{name}: {too_few.sum()} are too few"
        too_many = ours > (same | (above >= -2 * error)).sum(axis=0)
        assert not too_many.any(), f"{name}: {too_many.sum()} are too many"
        other |= ours != (above >= 0).sum(axis=0)
    assert other.mean() <= most, f"{other.sum()} of {other.size} voxels differ"
    return other


def assert_tested_alike(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], n: int, where: NDArray[np.bool_]
) -> None:
    """Hold p, z and logp of the difference, of the same counts; the peer's p is at most 1 - 1 / n.

    Parameters
    ----------
    ours, theirs
        Maps by name.
    n
        Iterations.
    where
        Voxels whose counts are the same.
    """
    names = {kind: f"{kind}_desc-{DIFFERENCE}" for kind in ("p", "z", "logp")}
    assert_capped_alike(
        {kind: ours[name][where] for kind, name in names.items()},
        {kind: theirs[name][where] for kind, name in names.items()},
        n,
    )


def assert_capped_alike(ours: Mapping[str, Any], theirs: Mapping[str, Any], n: int) -> None:
    """Hold two-sided p, z and logp of the same counts: where p is 1 here, it is 1 - 1 / n there."""
    cap = 1 - 1 / n
    assert all(values.dtype == np.float32 for values in (*ours.values(), *theirs.values()))
    p = np.minimum(ours["p"].astype(np.float64), cap)
    assert_allclose(p, theirs["p"], rtol=ONE_FLOAT32, atol=0, err_msg="p")
    logp = np.maximum(ours["logp"].astype(np.float64), -np.log10(cap))
    # The peer takes it from a float32 p where that is of a cluster, and so does z.
    assert_within("logp", logp, theirs["logp"], ONE_FLOAT32 * (np.abs(logp) + 1 / np.log(10)))
    below = ours["p"] < 1
    z, peers = ours["z"].astype(np.float64), theirs["z"].astype(np.float64)
    error = ONE_FLOAT32 * (np.abs(z) + 1.2533142)
    assert_within("z", z[below], peers[below], error[below])
    assert (z[~below] == 0).all()
    highest = float(pz.nlogp_to_z(np.log(np.array([cap])), "two")[0])
    assert np.abs(peers[~below]).max(initial=0) <= highest * (1 + ONE_FLOAT32) + ONE_FLOAT32


# maxima


def maxima_of(nulls: Arrays, effect: str | None = None) -> dict[str, NDArray[np.float64]]:
    """The peer's null maxima by what they compare, of an effect of chi-square or the difference."""
    start = f"values_desc-{EFFECTS[effect]}" if effect else "values"
    names = dict(_LEVELS)
    if effect is None:
        names |= {kind: f"_desc-{end}" for kind, end in _LEVELS.items() if kind != "voxel"}
    return {
        kind: nulls[start + end].astype(np.float64)
        for kind, end in names.items()
        if start + end in nulls
    }


def assert_subtraction_maxima_agree(
    null: xr.Dataset, theirs: Compared, error: NDArray[np.float64]
) -> None:
    """Hold the maxima of each iteration of the difference, which the peer stores as float32."""
    ours = null["null_max"].to_dataset("inference")
    peers = maxima_of(theirs.nulls)
    largest = np.abs(theirs.differences).argmax(axis=1)
    of_voxel = error[largest] + ONE_FLOAT32 * peers["voxel"]
    assert_within("maximum", ours["voxel"].values, peers["voxel"], of_voxel)
    if "size" not in peers:
        assert set(ours) == {"voxel"}
        return
    assert_array_equal(ours["size"].values, peers["size"])
    # Each voxel of a cluster adds the error of its difference, two roundings to float32 and that
    # to a unit of mass.
    each = error.max() + ONE_FLOAT32 * peers["voxel"] + 1 / difference.MASS_SCALE
    assert_within("mass", ours["mass"].values, peers["mass"], each * peers["size"])


def assert_chi2_maxima_agree(
    null: xr.Dataset, peers: Mapping[str, NDArray[np.float64]], effect: str, thresh: float
) -> None:
    """Hold the maxima of each iteration of an effect.

    Ours are squares of z rounded to float32; the peer's are float64, but it looks for clusters in
    maps rounded to float32.
    """
    ours = null["null_max"].sel(effect=effect).to_dataset("inference")
    assert_allclose(ours["voxel"].values, peers["voxel"], rtol=ONE_FLOAT32, atol=0)
    assert_array_equal(ours["size"].values, peers["size"])
    summed = peers["mass"] + peers["size"] * thresh  # chi-square of all voxels of the cluster
    error = 1.5 * ONE_FLOAT32 * summed + peers["size"] / 2 / exceed.MASS_SCALE
    assert_within("mass", ours["mass"].values, peers["mass"], error)


# corrected maps


def assert_fwe_agrees(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    n: int,
    near: Mapping[tuple[str, str], NDArray[np.bool_]],
    *,
    most: int,
) -> None:
    """Hold every two-sided map of Monte Carlo FWE to the peer's, by name.

    Parameters
    ----------
    ours, theirs
        What a correction adds.
    n
        Iterations.
    near
        For an effect and what is compared, voxels where that is within rounding of a null maximum,
        or of the threshold of clusters.
    most
        Voxels that may differ for it, in a map.
    """
    assert set(ours) == set(theirs)
    names = [name for name in theirs if name.startswith("p_")]
    assert 3 * len(names) == len(theirs)
    for name in names:
        kinds = {kind: f"{kind}{name[1:]}" for kind in ("p", "z", "logp")}
        effect = name.removeprefix("p_desc-").partition("_")[0]
        stem = effect.removesuffix("Size").removesuffix("Mass")
        inference = effect.removeprefix(stem).lower() or "voxel"
        p = np.minimum(ours[name].astype(np.float64), 1 - 1 / n)
        differs = np.abs(p - theirs[name]) > ONE_FLOAT32
        wrong = differs & ~near.get((stem, inference), np.zeros(len(p), bool))
        assert not wrong.any(), f"{name}: Not equal at {wrong.sum()} voxels"
        assert differs.sum() <= most, f"{name}: {differs.sum()} voxels are on a maximum"
        assert_capped_alike(
            {kind: ours[key][~differs] for kind, key in kinds.items()},
            {kind: theirs[key][~differs] for kind, key in kinds.items()},
            n,
        )


def near_of_difference(
    theirs: Compared, maps: xr.Dataset, null: xr.Dataset, error: NDArray[np.float64]
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Voxels where the peer's corrected p of the difference may be another by rounding.

    Where a shuffle is the very division that was observed its masses are those of the observed
    clusters, but the peer adds these up in float32 and those in float64.
    """
    maxima = maxima_of(theirs.nulls)
    stat, thresh = np.abs(theirs.observed), float(null.attrs["stat_thresh"])
    at_edge = np.abs(stat - thresh) <= error
    job = job_of(null)
    assert isinstance(job, Subtraction)
    measures = difference_measures(job, maps["stat"].values[0])
    of_mass = (error + ONE_FLOAT32 * stat.max()) * measures["size"] + ONE_FLOAT32 * measures["mass"]
    return {
        (DIFFERENCE, "voxel"): near_maxima(stat, maxima["voxel"], error),
        (DIFFERENCE, "size"): at_edge,
        (DIFFERENCE, "mass"): at_edge | near_maxima(measures["mass"], maxima["mass"], of_mass),
    }


def near_maxima(stat: Any, maxima: Any, error: Any) -> NDArray[np.bool_]:
    """Voxels whose statistic is within an error of any maximum, (voxel,)."""
    sorted_maxima = np.sort(np.asarray(maxima, np.float64))
    stat = np.asarray(stat, np.float64)
    low, high = (np.searchsorted(sorted_maxima, stat + sign * error) for sign in (-1, 1))
    return np.asarray(low != high)
