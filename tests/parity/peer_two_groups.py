"""The peer's comparisons of two groups as an oracle: chi-square, ALE subtraction, contrasts.

It keeps the analyses of group 1 in the order of their ids, then those of group 2. Our nulls pool
both in the order of ids, so `shuffles_of` says in its order which analyses ours chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.stats import distributions

from nimare_dask.space import Space
from tests.parity.peer import image_of, quiet
from tests.parity.peer_cbma import Arrays, Correction, null_distributions, peer_module

#: The peer's two studysets.
Groups = tuple[Any, Any]
Target = Literal["pairwise", "main-effects", "all"]

#: How the peer calls the null of each effect of chi-square, in its order; group 1 has the first.
EFFECTS = {"uniformity": "pAgF", "group2": "group2", "association": "pFgA"}


@dataclass(frozen=True)
class Compared:
    """What the peer finds.

    Attributes
    ----------
    maps
        Of the fit, by name.
    corrected
        What a correction adds, by name; empty without one.
    nulls
        Null distributions by name, after the correction.
    result
        The peer's own, of the fit.
    observed
        ALE subtraction: what it compares with iterations, (voxel,); else empty.
    differences
        What the fit finds in each iteration, float64 (iteration, voxel); else empty.
    """

    maps: Arrays
    corrected: Arrays
    nulls: Arrays
    result: Any
    observed: NDArray[np.floating] = field(default_factory=lambda: np.empty(0))
    differences: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))


# which analyses are in which group


def nimare_shuffle(iteration: int, n: int) -> NDArray[np.int64]:
    """Rows of both groups in the order that the peer draws without a seed: group 1 is first."""
    rows = np.arange(n)
    np.random.default_rng(iteration).shuffle(rows)
    return rows


def shuffles_of(chosen: ArrayLike, first: xr.Dataset, second: xr.Dataset) -> NDArray[np.int64]:
    """Rows of the peer in the order that puts chosen analyses first.

    Parameters
    ----------
    chosen
        Positions of group 1 in the sorted ids of both groups, (iteration, analysis of group 1).
    first, second
        The groups as ``corpus_of`` makes them.

    Returns
    -------
    shuffles
        Rows, (iteration, analysis).
    """
    chosen, row = np.asarray(chosen), _row_of(first, second)
    others = [np.setdiff1d(np.arange(len(row)), one) for one in chosen]
    return np.stack(
        [row[np.concatenate([one, rest])] for one, rest in zip(chosen, others, strict=True)]
    )


def chosen_by_nimare(n_iters: int, first: xr.Dataset, second: xr.Dataset) -> NDArray[np.int64]:
    """Which analyses the peer puts into group 1 without a seed, as `shuffles_of` takes them."""
    row = _row_of(first, second)
    position = np.argsort(row)
    n_first = first.sizes["analysis"]
    drawn = [nimare_shuffle(iteration, len(row))[:n_first] for iteration in range(n_iters)]
    return np.sort(position[np.stack(drawn)], axis=1)


def _row_of(first: xr.Dataset, second: xr.Dataset) -> NDArray[np.intp]:
    """The peer's row of each analysis in the sorted ids of both groups, (analysis,)."""
    ids = [corpus["analysis_id"].values.tolist() for corpus in (first, second)]
    assert all(names == sorted(names) for names in ids)
    return np.argsort(np.array(ids[0] + ids[1]), kind="stable")


@dataclass(frozen=True)
class Kept:
    """What ALE subtraction compared: one map for each fit, and one for each iteration."""

    observed: list[NDArray[Any]] = field(default_factory=list)
    differences: list[NDArray[Any]] = field(default_factory=list)


@contextmanager
def shuffled(shuffles: NDArray[np.integer] | None, kept: Kept | None = None) -> Iterator[None]:
    """While open, the peer's permutations without a seed are ours.

    Only its draw is replaced, which it makes from the number of the iteration. It fails when the
    peer asks for another number of analyses, or for an iteration that there is not.

    Parameters
    ----------
    shuffles
        Rows, (iteration, analysis), see :func:`shuffles_of`; None changes nothing.
    kept
        Gets what ALE subtraction compares.
    """
    pairwise = peer_module("meta.cbma.base").PairwiseCBMAEstimator
    subtraction = peer_module("meta.cbma.ale").ALESubtraction
    of_seed = pairwise._permute_pairwise_group_indices
    of_iteration, of_all = subtraction._run_permutation, subtraction._run_null_permutations

    def draw(n_total: int, n_group1: int, seed: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        if shuffles is None:
            drawn: tuple[NDArray[Any], NDArray[Any]] = of_seed(n_total, n_group1, seed)
            return drawn
        assert isinstance(seed, int), "NiMARE has a seed"
        assert seed < len(shuffles), f"NiMARE runs more than {len(shuffles)} iterations"
        rows = shuffles[seed]
        assert sorted(rows.tolist()) == list(range(n_total))
        return rows[:n_group1], rows[n_group1:]

    def run(self: Any, i_iter: int, ma_store: Any, seed: Any) -> tuple[int, NDArray[Any]]:
        iteration, difference = of_iteration(self, i_iter, ma_store, seed)
        if kept is not None:
            kept.differences.append(difference)
        return iteration, difference

    def run_all(self: Any, *args: Any, **settings: Any) -> Any:
        if kept is not None and "diff_ale_values" in settings:
            kept.observed.append(settings["diff_ale_values"])
        return of_all(self, *args, **settings)

    with (
        patch.object(pairwise, "_permute_pairwise_group_indices", staticmethod(draw)),
        patch.object(subtraction, "_run_permutation", run),
        patch.object(subtraction, "_run_null_permutations", run_all),
    ):
        yield


@contextmanager
def unrounded() -> Iterator[None]:
    """While open, ALE subtraction of the peer does not round what it observed to float32.

    As it is, it rounds the ALE of both groups and compares their difference with those of
    iterations, which are float64: where an iteration has the very same difference it is above or
    below by chance of that rounding. Here the observed ones come from the function that the
    iterations use.
    """
    subtraction = peer_module("meta.cbma.ale").ALESubtraction
    partition = peer_module("meta.cbma.pairwise_utils")._compute_partition_ale_summarystat

    def statistic(self: Any, ma_values: Any) -> NDArray[np.float64]:
        n = ma_values.shape[0]
        values: NDArray[np.float64] = partition(ma_values, ma_values[:0], np.arange(n), n)
        return values

    with patch.object(subtraction, "_compute_summarystat_est", statistic):
        yield


# comparisons


def peer_chi2(
    groups: Groups,
    space: Space,
    *,
    n_iters: int = 10,
    voxel_thresh: float | None = None,
    shuffles: NDArray[np.integer] | None = None,
    null_method: Literal["label-permutation", "random-foci"] = "label-permutation",
    random_state: int | None = None,
    r: float = 10,
) -> Compared:
    """Chi-square of the peer and its Monte Carlo FWE.

    Parameters
    ----------
    groups
        What the peer compares; it keeps the analyses that have foci.
    space
        Its mask, in the same order of voxels as ours.
    n_iters, voxel_thresh
        Of the correction; None is the peer's own default, 0.001.
    shuffles
        Rows of each iteration in place of the peer's draws, see :func:`shuffles_of`.
    null_method, random_state
        How iterations are made; without a seed iteration i has seed i.
    r
        Radius in mm.
    """
    settings = {"mask": image_of(space), "random_state": random_state, "kernel__r": r}
    with quiet():
        estimator = peer_module("meta.cbma.mkda").MKDAChi2(fwe_null_method=null_method, **settings)
        result = estimator.fit(*groups)
    n_iters = n_iters if shuffles is None else len(shuffles)
    with shuffled(shuffles):
        corrected, nulls = _monte_carlo(result, n_iters=n_iters, voxel_thresh=voxel_thresh)
    return Compared(dict(result.maps), corrected, nulls, result)


def peer_chi2_of_foci(
    compared: Compared,
    foci: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    voxel_thresh: float = 0.001,
) -> NDArray[np.float64]:
    """What the peer makes of relocated foci: the largest chi-square, cluster size and mass.

    Its own correction by random foci draws places in mm but keeps those in voxels, which its kernel
    prefers, so that nothing moves; here they are put where it looks.

    Parameters
    ----------
    compared
        What :func:`peer_chi2` returned.
    foci
        Voxel indices of both groups for each iteration, (focus, 3) each, in the order of ids.
    voxel_thresh
        Uncorrected p of voxels in clusters.

    Returns
    -------
    maxima
        (iteration, effect, inference), in the order of `EFFECTS`.
    """
    estimator = compared.result.estimator
    frames = [estimator.inputs_[f"coordinates{group}"] for group in (1, 2)]
    assert all(frame["id"].is_monotonic_increasing for frame in frames)
    fixed = {"conn": ndimage.generate_binary_structure(3, 1)}
    fixed |= {"voxel_thresh": distributions.chi2.isf(voxel_thresh, 1)}
    found = []
    for pair in foci:
        moved = [
            frame.assign(**dict(zip("ijk", ijk.T, strict=True)))
            for frame, ijk in zip(frames, pair, strict=True)
        ]
        xyz = [frame[["x", "y", "z"]].to_numpy() for frame in moved]
        with quiet():
            found.append(estimator._run_fwe_permutation(*xyz, *moved, **fixed))
    return np.array(found, np.float64).reshape(len(foci), len(EFFECTS), 3)


def peer_subtraction(
    groups: Groups,
    space: Space,
    *,
    n_iters: int = 10,
    voxel_thresh: float = 0.001,
    vfwe_only: bool = False,
    shuffles: NDArray[np.integer] | None = None,
    inference: tuple[NDArray[Any] | None, NDArray[Any] | None] = (None, None),
    restrict: bool = False,
    random_state: int | None = None,
    rounded: bool = True,
    target: Target | None = None,
    **kernel: Any,
) -> Compared:
    """ALE subtraction of the peer and its Monte Carlo FWE, of the same iterations.

    Parameters
    ----------
    groups, space, shuffles, random_state
        As for :func:`peer_chi2`.
    n_iters, voxel_thresh, vfwe_only
        Of the fit and of the correction, so that the peer runs them once.
    inference
        Maps of both groups: group 1 may be above where the first is, and below where the second is.
    restrict
        Iterations only where either map is above 0.
    rounded
        As it is; else :func:`unrounded`.
    target
        What is corrected; None is the peer's own default, the difference. Main effects are of
        random foci without a seed.
    **kernel
        `fwhm` or `sample_size` (an int).
    """
    settings: dict[str, Any] = {f"kernel__{name}": value for name, value in kernel.items()}
    settings |= {"mask": image_of(space), "random_state": random_state, "vfwe_only": vfwe_only}
    settings |= {"n_iters": n_iters if shuffles is None else len(shuffles)}
    settings |= {"voxel_thresh": voxel_thresh, "restrict_to_inference_mask": restrict}
    kept = Kept()
    maps1, maps2 = inference
    with quiet(), shuffled(shuffles, kept), nullcontext() if rounded else unrounded():
        estimator = peer_module("meta.cbma.ale").ALESubtraction(**settings)
        result = estimator.fit(*groups, inference_map1=maps1, inference_map2=maps2)
        corrected, nulls = _monte_carlo(
            result,
            n_iters=settings["n_iters"],
            voxel_thresh=voxel_thresh,
            vfwe_only=vfwe_only,
            target=target,
        )
    assert len(kept.differences) == settings["n_iters"], "NiMARE ran its iterations again"
    return Compared(
        dict(result.maps), corrected, nulls, result, kept.observed[0], np.stack(kept.differences)
    )


def peer_contrast(
    groups: Groups,
    space: Space,
    *,
    pairwise: Literal["alesubtraction", "mkdachi2"] = "alesubtraction",
    correction: Correction = "indep",
    alpha: float = 0.05,
    n_iters: int = 10,
    shuffles: NDArray[np.integer] | None = None,
    rounded: bool = True,
    **kernel: Any,
) -> tuple[Arrays, Compared]:
    """Differences of two groups where one of them has an effect: the peer's ContrastWorkflow.

    Parameters
    ----------
    groups, space, shuffles, rounded
        As for :func:`peer_subtraction`.
    pairwise
        Which comparison; the effect of each group is that of ALE, or of MKDA density.
    correction
        Of the effects of groups; Monte Carlo is of `n_iters` iterations of random foci.
    alpha
        What corrected p of an effect and uncorrected p of the comparison are at most.
    n_iters
        Iterations of ALE subtraction.
    **kernel
        Of both estimators: `r`; or `fwhm`, or `sample_size` (an int).

    Returns
    -------
    maps, compared
        The maps that the workflow adds, by name, and the pairwise comparison that it made.
    """
    correct, meta = peer_module("correct"), peer_module("meta")
    settings: dict[str, Any] = {f"kernel__{name}": value for name, value in kernel.items()}
    settings |= {"mask": image_of(space)}
    n_iters = n_iters if shuffles is None else len(shuffles)
    kept = Kept()
    with quiet(), shuffled(shuffles, kept), nullcontext() if rounded else unrounded():
        if correction == "montecarlo":
            corrector = correct.FWECorrector(method="montecarlo", n_iters=n_iters)
        elif correction == "bonferroni":
            corrector = correct.FWECorrector(method="bonferroni")
        else:
            corrector = correct.FDRCorrector(method=correction)
        if pairwise == "alesubtraction":
            main, pair = meta.ALE(**settings), meta.ALESubtraction(n_iters=n_iters, **settings)
        else:
            main, pair = meta.MKDADensity(**settings), meta.MKDAChi2(**settings)
        workflow = peer_module("workflows.cbma").ContrastWorkflow(
            main_estimator=main, pairwise_estimator=pair, corrector=corrector, alpha=alpha
        )
        result = workflow.fit(*groups)
    assert result.tables["contrast_tab-metadata"]["alpha"].tolist() == [alpha]
    added = {name for name in result.maps if name.endswith(ADDED_BY_CONTRAST)}
    maps = {name: values for name, values in result.maps.items() if name not in added}
    compared = Compared(maps, {}, null_distributions(result), result)
    if kept.observed:
        compared = replace(
            compared, observed=kept.observed[0], differences=np.stack(kept.differences)
        )
    return {name: result.maps[name] for name in sorted(added)}, compared


#: Ends of the names of the maps that ContrastWorkflow adds.
ADDED_BY_CONTRAST = ("MainEffect", "conjunction", "contrast")


def peer_balanced(
    groups: Groups,
    space: Space,
    *,
    states: Sequence[Any] | None = None,
    kernel: dict[str, Any] | None = None,
    **settings: Any,
) -> Compared:
    """Balanced ALE subtraction of the peer.

    Parameters
    ----------
    groups, space
        As for :func:`peer_chi2`.
    states
        What the peer draws from, in place of its ``RandomState``: one for the null and one for the
        subsets of each group (when they are drawn: where there are few they are all taken), and one
        for differences. They need ``permutation(n)``, ``choice(n, size=, replace=False)`` and
        ``randint(0, n, size=)``.
    kernel
        `fwhm` or `sample_size`, which the peer's null of random foci does not heed: there it takes
        the sample size of each analysis, and has none without.
    **settings
        Of the peer: target_n, n_subsamples, difference_iterations, n_iters, voxel_thresh,
        null_method, mask_coverage, alpha, random_state.
    """
    settings |= {f"kernel__{name}": value for name, value in (kernel or {}).items()}
    waiting = iter(states or ())
    replaced = patch("numpy.random.RandomState", lambda *_: next(waiting))
    with quiet(), nullcontext() if states is None else replaced:
        estimator = peer_module("meta.cbma.ale").BalancedALESubtraction(
            mask=image_of(space), **settings
        )
        result = estimator.fit(*groups)
    assert next(waiting, None) is None, f"NiMARE drew from fewer than {len(states or ())}"
    return Compared(dict(result.maps), {}, null_distributions(result), result)


def _monte_carlo(result: Any, **settings: Any) -> tuple[Arrays, Arrays]:
    """What Monte Carlo FWE adds, and all null distributions after it; None is the default."""
    with quiet():
        corrector = peer_module("correct").FWECorrector(method="montecarlo", n_cores=1, **settings)
        corrected = corrector.transform(result)
    added = {name: values for name, values in corrected.maps.items() if name not in result.maps}
    return added, null_distributions(corrected)
