"""Nulls of two groups: labels that are shuffled, and foci of both that fall anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from nimare_dask import activation
from nimare_dask import corpus as _corpus
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.estimators.two_groups import Pooled, Settings, TwoGroups, pool, with_foci
from nimare_dask.kernels.exceed import EFFECTS
from nimare_dask.nulls.cost import plan_iterations
from nimare_dask.nulls.label_counts import LabelCounts, chi2_threshold
from nimare_dask.nulls.redraw import Redraw
from nimare_dask.nulls.scheme import check_asked, run, seed_of
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath
from nimare_dask.parallel.plan import Plan
from nimare_dask.provenance import plain
from nimare_dask.space import Coverage, Space, load_space


def label_permutation_null(
    estimator: TwoGroups,
    selected: xr.Dataset,
    unselected: xr.Dataset,
    *,
    space: Space | str = "mni152_2mm",
    n_iters: int = 5000,
    voxel_thresh: float | None = 0.001,
    stat_thresh: float | None = None,
    random_state: int | None = None,
    store: str | AnyPath | None = None,
    batch: int | None = None,
    report: Report | None = None,
    compute: bool = True,
) -> xr.Dataset:
    """Compute what an estimator finds when it is chance which analyses are in which group.

    In each iteration as many analyses as are selected are drawn from both groups together, and the
    groups are compared again. Foci stay where they are.

    Parameters
    ----------
    estimator
        MKDAChi2 or ALESubtraction.
    selected, unselected
        The two groups, as they were given to ``fit``; in ALESubtraction group 1 and group 2.
    space
        See :func:`~nimare_dask.space.load_space`.
    n_iters
        Iterations.
    voxel_thresh
        Uncorrected p that voxels of a cluster must be below; None leaves clusters out. Clusters
        are connected by faces, and made of voxels strictly above the threshold.
    stat_thresh
        The same as a statistic, in place of `voxel_thresh`: a chi-square, or the absolute
        difference of ALE.
    random_state
        Seed. Without one a seed is drawn, which the result keeps.
    store
        A zarr folder that grows with every batch. When it is there already, only what is missing is
        computed; when it is of another run, it is refused.
    batch
        Iterations of a batch. It changes nothing in the result.
    report
        Called with the number of iterations that are done and of all.
    compute
        False makes the store and does no iteration; :func:`run_batches` does them, on any number of
        machines, and :func:`open_null`, or this same call without it, opens what they did.

    Returns
    -------
    null
        For MKDAChi2 ``null_max`` (iteration, effect, inference), chi-squares for ``voxel``. For
        ALESubtraction ``null_max`` (iteration, inference), absolute differences for ``voxel``, and
        ``null_up`` and ``null_low`` (voxel), the iterations in which the difference is at least and
        at most that observed. With what :func:`~nimare_dask.extend_null` needs to go on.

    Raises
    ------
    SelectionError
        When a group has no foci, or the groups share an analysis.
    SettingsError
        For settings that cannot be.
    StoreExistsError
        When the store is of another run.
    WorkerError
        When a cluster is lost; the store keeps what was done.

    Notes
    -----
    Under this null the two groups are alike, so it tests their difference: ``association`` of
    MKDAChi2. Where foci lie does not change, so the null of ``uniformity`` and ``group2`` is not
    that of foci that fall anywhere; :func:`random_foci_null` is. All three are here, as in NiMARE.

    Iteration i draws from ``SeedSequence(random_state, spawn_key=(0, i))`` and everything that is
    compared is a whole number or made of whole numbers, so the same seed gives the same bits with
    any batch, number of threads or workers, after any number of interruptions.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    Laird AR et al. (2005), doi:10.1002/hbm.20136.
    """
    space = load_space(space)
    check_asked(n_iters=n_iters, voxel_thresh=voxel_thresh, random_state=random_state, batch=batch)
    _check_threshold(stat_thresh)
    if not isinstance(estimator, TwoGroups):
        raise SettingsError(
            f"estimator is a {type(estimator).__name__}; labels are shuffled for MKDAChi2 and "
            "ALESubtraction (for one group of analyses use monte_carlo_null)."
        )
    pooled = pool(selected, unselected, space)
    job = estimator.permutation_job(
        pooled,
        random_state=seed_of(random_state, store),
        voxel_thresh=voxel_thresh,
        stat_thresh=stat_thresh,
    )
    facts = facts_of(
        "label_permutation_null",
        estimator,
        pooled.facts(),
        selected,
        voxel_thresh=None if stat_thresh is not None else voxel_thresh,
    )
    return run(
        job, facts, n_iters=n_iters, batch=batch, store=store, report=report, compute=compute
    )


def random_foci_null(
    estimator: MKDAChi2,
    selected: xr.Dataset,
    unselected: xr.Dataset,
    *,
    space: Space | str = "mni152_2mm",
    n_iters: int = 1000,
    voxel_thresh: float | None = 0.001,
    coverage: Coverage = "brain",
    random_state: int | None = None,
    store: str | AnyPath | None = None,
    batch: int | None = None,
    report: Report | None = None,
    compute: bool = True,
) -> xr.Dataset:
    """Compute what chi-square finds when the foci of both groups fall anywhere.

    In each iteration every focus gets, independently and with replacement, a voxel; analyses keep
    their group and their number of foci.

    Parameters
    ----------
    estimator
        MKDAChi2.
    coverage
        Where foci fall: ``"brain"``, the mask; ``"gm"``, those of its voxels where the grey matter
        probability of the MNI152 template is above 0.1.
    selected, unselected, space, n_iters, voxel_thresh, random_state, store, batch, report, compute
        See :func:`label_permutation_null`.

    Returns
    -------
    null
        ``null_max`` (iteration, effect, inference).

    Raises
    ------
    SelectionError, SettingsError, StoreExistsError, WorkerError
        As :func:`label_permutation_null`.
    """
    space = load_space(space)
    check_asked(
        n_iters=n_iters,
        voxel_thresh=voxel_thresh,
        random_state=random_state,
        batch=batch,
        coverage=coverage,
    )
    pooled = pool(selected, unselected, space)
    job = _redraw(estimator, pooled, seed_of(random_state, store), voxel_thresh, coverage)
    facts = facts_of(
        "random_foci_null",
        estimator,
        pooled.facts(),
        selected,
        voxel_thresh=voxel_thresh,
        coverage=coverage,
    )
    return run(
        job, facts, n_iters=n_iters, batch=batch, store=store, report=report, compute=compute
    )


def plan_permutation(
    estimator: TwoGroups,
    selected: xr.Dataset,
    unselected: xr.Dataset,
    *,
    space: Space | str = "mni152_2mm",
    n_iters: int = 5000,
    voxel_thresh: float | None = 0.001,
    relocate: bool = False,
) -> Plan:
    """Say what :func:`label_permutation_null` would cost, or with `relocate` random_foci_null.

    Some iterations are done here and now.
    """
    check_asked(n_iters=n_iters, voxel_thresh=voxel_thresh, random_state=None)
    pooled = pool(selected, unselected, load_space(space))
    if relocate:
        return plan_iterations(_redraw(estimator, pooled, 0, voxel_thresh, "brain"), n_iters)
    job = estimator.permutation_job(
        pooled, random_state=0, voxel_thresh=voxel_thresh, stat_thresh=None
    )
    return plan_iterations(job, n_iters)


def _redraw(
    estimator: object,
    pooled: Pooled,
    random_state: int,
    voxel_thresh: float | None,
    coverage: Coverage,
) -> Redraw:
    return Redraw(
        n_foci=pooled.foci.n_foci,
        in_first=pooled.in_first,
        columns=_chi2(estimator).kernel.footprint(pooled.space),
        pool=pooled.space.pool(coverage),
        mask=pooled.space.mask,
        chi2_thresh=chi2_threshold(voxel_thresh),
        random_state=random_state,
    )


def feature_null(
    corpus: xr.Dataset,
    *,
    sizes: ArrayLike | xr.Dataset,
    n_iters: int = 5000,
    estimator: MKDAChi2 | None = None,
    effects: Sequence[str] = ("association",),
    space: Space | str = "mni152_2mm",
    voxel_thresh: float | None = 0.001,
    random_state: int | None = None,
    store: str | AnyPath | None = None,
    batch: int | None = None,
    report: Report | None = None,
    compute: bool = True,
) -> xr.Dataset:
    """Compute one label-permutation null for all features of a corpus.

    What shuffled labels give depends on how many analyses have the label, and on nothing else of a
    feature: each group of that size is as likely as any other. So features of the same size have
    the same null, and one shuffle serves all sizes, since its first 10 analyses are a random group
    of 10, its first 500 one of 500, and so on. Nothing is interpolated: each size that is there has
    a null of its own, exactly that of :func:`label_permutation_null` with the same seed.

    Parameters
    ----------
    corpus
        The corpus that was given to ``fit_features``.
    sizes
        Analyses that have each feature, in any order and as often as they come; or what
        ``fit_features`` returned, whose ``n_selected`` is taken.
    estimator
        MKDAChi2, as it was fitted; with its defaults when not given.
    effects
        Which chi-squares, of ``association``, ``uniformity`` and ``group2``. The null of the other
        two is that of shuffled labels too, see :func:`label_permutation_null`.
    space, n_iters, voxel_thresh, random_state, store, batch, report, compute
        See :func:`label_permutation_null`.

    Returns
    -------
    null
        ``null_max`` (iteration, size, effect, inference), with every size once, ascending.

    Raises
    ------
    SelectionError
        When there is no focus at all.
    SettingsError
        For sizes that no group of these analyses can have, and as :func:`label_permutation_null`.
    StoreExistsError, WorkerError
        As :func:`label_permutation_null`.

    Notes
    -----
    Features share shuffles, so their errors are not independent of each other; the error of each
    one is controlled as it is with a null of its own.
    """
    space = load_space(space)
    check_asked(n_iters=n_iters, voxel_thresh=voxel_thresh, random_state=random_state, batch=batch)
    estimator = _chi2(estimator or MKDAChi2())
    whole = with_foci(corpus, "given")
    ids = np.array(whole["analysis_id"].values.tolist())
    foci = activation.locate([whole], space).take(np.argsort(ids, kind="stable"))
    job = LabelCounts(
        ijk=foci.ijk,
        n_foci=foci.n_foci,
        columns=estimator.kernel.footprint(space),
        mask=space.mask,
        sizes=_sizes(sizes, foci.n_analyses),
        effects=_effects(effects),
        chi2_thresh=chi2_threshold(voxel_thresh),
        random_state=seed_of(random_state, store),
        by_size=True,
    )
    whole_facts = {
        "corpus_digests": [_corpus.digest(corpus)],
        "space_digest": space.digest,
        "n_analyses": foci.n_analyses,
        "n_analyses_without_foci": corpus.sizes["analysis"] - foci.n_analyses,
        **foci.report(),
    }
    facts = facts_of("feature_null", estimator, whole_facts, corpus, voxel_thresh=voxel_thresh)
    return run(
        job, facts, n_iters=n_iters, batch=batch, store=store, report=report, compute=compute
    )


def facts_of(
    scheme: str, estimator: Settings, facts: dict[str, Any], corpus: xr.Dataset, **told: Any
) -> dict[str, Any]:
    """What a null keeps of how it was made."""
    kept: dict[str, Any] = plain(
        {
            "scheme": scheme,
            "estimator": type(estimator).__name__,
            "told": told,
            "stop_after": None,
            "observed_max": None,
            "space_digest": facts["space_digest"],
            "settings": estimator.settings(),
            "facts": facts,
            "corpus_provenance": corpus.attrs.get("provenance", "[]"),
        }
    )
    return kept


def _check_threshold(stat_thresh: float | None) -> None:
    number = isinstance(stat_thresh, int | float | np.number) and not isinstance(stat_thresh, bool)
    if stat_thresh is not None and not (number and 0 < float(stat_thresh) < np.inf):
        raise SettingsError(f"stat_thresh is {stat_thresh!r}; expected a statistic above 0.")


def _chi2(estimator: object) -> MKDAChi2:
    if not isinstance(estimator, MKDAChi2):
        raise SettingsError(
            f"estimator is a {type(estimator).__name__}; this null is that of MKDAChi2."
        )
    return estimator


def _sizes(sizes: ArrayLike | xr.Dataset, n: int) -> NDArray[np.int64]:
    """Every size once, ascending."""
    if isinstance(sizes, xr.Dataset):
        given = np.asarray(sizes["n_selected"] if "n_selected" in sizes.coords else [])
    else:
        given = np.asarray(sizes)
    if given.size == 0 or given.dtype.kind not in "iu":
        told = "a dataset without n_selected" if isinstance(sizes, xr.Dataset) else str(sizes)
        raise SettingsError(
            f"sizes is {told[:60]!r}; expected numbers of analyses, or what fit_features() "
            "returned."
        )
    distinct = np.unique(given).astype(np.int64)
    if distinct[0] < 1 or distinct[-1] >= n:
        wrong = distinct[0] if distinct[0] < 1 else distinct[-1]
        raise SettingsError(
            f"sizes has {wrong:,}, and {n:,} analyses have foci; a feature has at least one of "
            "them and leaves at least one."
        )
    return distinct


def _effects(effects: Sequence[str]) -> tuple[str, ...]:
    given = (effects,) if isinstance(effects, str) else tuple(effects or ())
    wrong = [name for name in given if name not in EFFECTS]
    if wrong or not given or len(set(given)) != len(given):
        raise SettingsError(f"effects is {effects!r}; expected some of {', '.join(EFFECTS)}.")
    return given
