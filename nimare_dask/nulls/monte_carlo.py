"""The Monte Carlo null of ALE, MKDA density, KDA and SCALE: the same foci, fallen anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.prepared import OneSample, Prepared, source_of
from nimare_dask.nulls.cost import plan_iterations
from nimare_dask.nulls.jobs import STEPS
from nimare_dask.nulls.relocation import Enhancement, Relocation
from nimare_dask.nulls.scheme import check_asked, run, seed_of
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath
from nimare_dask.parallel.plan import Plan
from nimare_dask.provenance import plain
from nimare_dask.space import Coverage, Space, load_space
from nimare_dask.stats import empirical, pz


def monte_carlo_null(
    estimator: OneSample,
    corpus: xr.Dataset,
    *,
    space: Space | str = "mni152_2mm",
    n_iters: int = 5000,
    voxel_thresh: float | None = 0.001,
    coverage: Coverage = "brain",
    random_state: int | None = None,
    store: str | AnyPath | None = None,
    batch: int | None = None,
    maps: xr.Dataset | None = None,
    tfce: Enhancement | None = None,
    stop_after: int | None = None,
    purpose: Literal["null", "fit"] = "null",
    report: Report | None = None,
    compute: bool = True,
) -> xr.Dataset:
    """Compute what an estimator finds when foci fall anywhere in the brain.

    In each iteration every focus gets, independently and with replacement, a voxel; analyses keep
    their number of foci and their sample size. The statistic is computed of them, and its maximum,
    the size and the mass of its largest cluster are kept.

    Parameters
    ----------
    estimator
        ALE, MKDADensity, KDA or SCALE.
    corpus
        The analyses of the map that is to be corrected.
    space
        See :func:`~nimare_dask.space.load_space`.
    n_iters
        Iterations.
    voxel_thresh
        Uncorrected p that voxels of a cluster must be below; None leaves clusters out. Clusters
        are connected by faces, and made of voxels strictly above the threshold.
    coverage
        Where foci fall: ``"brain"``, the mask; ``"gm"``, those of its voxels where the grey matter
        probability of the MNI152 template is above 0.1. SCALE has a pool of its own.
    random_state
        Seed. Without one a seed is drawn, which the result keeps.
    store
        A zarr folder that grows with every batch. When it is there already, only what is missing is
        computed; when it is of another run, it is refused.
    batch
        Iterations of a batch. It changes nothing in the result.
    maps
        What ``estimator.fit(corpus)`` gave, whose null gives the cluster-forming threshold; without
        it the approximate null is computed for that.
    tfce
        Settings of threshold-free cluster enhancement of z, which is then a further inference.
    stop_after
        Stop at the first iteration by which, for every inference, this many null maxima have
        reached the largest of the observed map (Besag and Clifford 1991). None of its corrected p
        can then be small: each is at least ``stop_after / n_iters`` of what was done, with a
        relative standard error of at most ``1 / sqrt(stop_after)``.
    purpose
        ``"fit"`` draws from another stream, for a null that uncorrected p values come from.
    report
        Called with the number of iterations that are done and of all.
    compute
        False makes the store and does no iteration; :func:`run_batches` does them, on any number of
        machines, and :func:`open_null`, or this same call without it, opens what they did.

    Returns
    -------
    null
        ``null_max`` (iteration, inference), ``null_histogram`` (bin) with ``bin_center``, for SCALE
        ``null_reaching`` (voxel), and what :func:`extend_null` needs to go on.

    Raises
    ------
    SettingsError
        For settings that cannot be.
    StoreExistsError
        When the store is of another run.
    WorkerError
        When a cluster is lost; the store keeps what was done.

    Notes
    -----
    Iteration i draws from ``SeedSequence(random_state, spawn_key=(0, i))`` (1 for ``"fit"``) and
    everything that is compared is a whole number, so the same seed gives the same bits with any
    batch, number of threads or workers, after any number of interruptions.

    References
    ----------
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    Besag J, Clifford P (1991), doi:10.1093/biomet/78.2.301.
    """
    space = load_space(space)
    check_asked(
        n_iters=n_iters,
        voxel_thresh=voxel_thresh,
        random_state=random_state,
        batch=batch,
        stop_after=stop_after,
        coverage=coverage,
        purpose=purpose,
    )
    prepared = Prepared(estimator, corpus, space)
    job = relocate(
        estimator,
        prepared,
        space,
        random_state=seed_of(random_state, store),
        voxel_thresh=voxel_thresh,
        coverage=coverage,
        maps=maps,
        tfce=tfce,
        purpose=purpose,
    )
    observed = None
    if stop_after is not None:
        label = np.zeros(job.neighbours.size, np.int32)
        observed = np.array(job.measure(prepared.observed_sums(space), label))
    facts = plain(
        {
            "scheme": "monte_carlo_null",
            "estimator": type(estimator).__name__,
            "told": {
                "coverage": coverage,
                "voxel_thresh": voxel_thresh if job.stat_thresh is not None else None,
            },
            "stop_after": stop_after,
            "observed_max": None if observed is None else observed.tolist(),
            "space_digest": space.digest,
            "settings": estimator.settings(),
            "facts": prepared.facts(corpus, space),
            "corpus_provenance": corpus.attrs.get("provenance", "[]"),
        }
    )
    return run(
        job, facts, n_iters=n_iters, batch=batch, store=store, report=report, compute=compute
    )


def plan_null(
    estimator: OneSample,
    corpus: xr.Dataset,
    *,
    space: Space | str = "mni152_2mm",
    n_iters: int = 5000,
    voxel_thresh: float | None = 0.001,
    coverage: Coverage = "brain",
    random_state: int | None = None,
    maps: xr.Dataset | None = None,
    tfce: Enhancement | None = None,
) -> Plan:
    """Say what :func:`monte_carlo_null` with the same arguments would cost.

    Some iterations are done here and now; the approximate null that gives the cluster-forming
    threshold is computed too when there are no `maps`.
    """
    space = load_space(space)
    check_asked(
        n_iters=n_iters, voxel_thresh=voxel_thresh, random_state=random_state, coverage=coverage
    )
    job = relocate(
        estimator,
        Prepared(estimator, corpus, space),
        space,
        random_state=random_state or 0,
        voxel_thresh=voxel_thresh,
        coverage=coverage,
        maps=maps,
        tfce=tfce,
    )
    return plan_iterations(job, n_iters)


def relocate(
    estimator: OneSample,
    prepared: Prepared,
    space: Space,
    *,
    random_state: int,
    voxel_thresh: float | None,
    coverage: Coverage,
    maps: xr.Dataset | None,
    tfce: Enhancement | None,
    purpose: Literal["null", "fit"] = "null",
) -> Relocation:
    """Put together everything that iterations need; arguments are those of `monte_carlo_null`."""
    if tfce is not None and not isinstance(tfce, Enhancement):
        raise SettingsError(f"tfce is {tfce!r}; expected Enhancement(E=0.5, H=2, step=0.1).")
    own_pool: Callable[[Space], NDArray[np.int32]] | None = getattr(estimator, "pool", None)
    job = Relocation(
        statistic=prepared.statistic,
        n_foci=prepared.foci.n_foci,
        pool=space.pool(coverage) if own_pool is None else own_pool(space),
        mask=space.mask,
        random_state=int(random_state),
        step=STEPS[purpose],
    )
    if own_pool is not None:
        # Every voxel has a null of its own, so there is no one threshold to make clusters with.
        if tfce is not None:
            raise SettingsError(
                f"{type(estimator).__name__} has a null for every voxel and no map of z to enhance "
                "in its iterations; leave tfce out."
            )
        return replace(job, observed=prepared.observed_sums(space).astype(np.int64))
    if voxel_thresh is None and tfce is None:
        return job
    if maps is not None:
        prepared.refuse_other(estimator, space, source_of(maps))
    weights = _null_weights(estimator, prepared, maps)
    if voxel_thresh is not None:
        place = empirical.threshold_bin(weights, voxel_thresh)
        job = replace(job, stat_thresh=float(prepared.statistic.bins[place]))
    if tfce is not None:
        job = replace(job, enhancement=tfce, heights=_heights(weights, prepared, tfce.step))
    return job


def _null_weights(
    estimator: OneSample, prepared: Prepared, maps: xr.Dataset | None
) -> NDArray[np.float64]:
    if maps is None:
        return estimator.approximate_null(
            prepared.corpus, prepared.study, prepared.statistic, "approximate"
        )
    if "null_weight" not in maps or maps.sizes["bin"] != len(prepared.statistic.bins):
        raise SchemaError(
            "maps has no null histogram of this estimator and corpus (null_weight); give what "
            "estimator.fit(corpus) returned, or leave maps out."
        )
    weights: NDArray[np.float64] = maps["null_weight"].values.astype(np.float64)
    return weights


def _heights(weights: NDArray[np.float64], prepared: Prepared, step: float) -> NDArray[np.float64]:
    """The smallest statistic whose z is at least each multiple of `step`, (height,)."""
    z = pz.nlogp_to_z(pz.p_to_nlogp(empirical.p_of_bins(weights)), "one").astype(np.float32)
    n_heights = int(np.floor(float(z.max()) / step + 1e-9))
    bins = prepared.statistic.bins
    first = np.searchsorted(z, step * np.arange(1, n_heights + 1) * (1 - 1e-6))
    heights: NDArray[np.float64] = bins[first] - (bins[1] - bins[0]) / 2
    return heights
