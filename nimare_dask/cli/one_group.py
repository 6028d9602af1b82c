"""What the verbs ale, mkda, kda and scale do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nimare_dask.cli.options import Correct, Job, ZarrPath
from nimare_dask.cli.outcome import (
    correct,
    refuse_to_prepare,
    say_plan,
    told_where_to_go_on,
    write_or_say,
)

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.estimators.prepared import OneSample
    from nimare_dask.space import Space


def run(
    make: Callable[[xr.Dataset, Space], OneSample],
    job: Job,
    *,
    narrow: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> None:
    """Choose analyses, fit, correct and write; `make` gives the estimator for corpus and space.

    With `narrow` the analyses are those that it leaves of the chosen ones.
    """
    from nimare_dask.cli.conditions import choose
    from nimare_dask.corpus import open_corpus
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.space import load_space

    if job.prepare:
        refuse_to_prepare(job, montecarlo=job.null == "montecarlo" and job.voxel_thresh is not None)
    if not job.plan:
        refuse_existing(job.result, kind=RESULT_KIND, overwrite=job.force)
    space = load_space(job.mask)
    with job.started():
        whole = open_corpus(job.corpus)
        estimator = make(whole, space)
        chosen = choose(whole, job.select or [])
        if narrow is not None:
            chosen = narrow(chosen)
        if job.plan:
            _say_plan(estimator, chosen, space, job)
            return
        with told_where_to_go_on(job.null_store, job.fit_store):
            maps = _compute(estimator, chosen, space, job)
    write_or_say(maps, job)


def _null_settings(job: Job) -> dict[str, Any]:
    from nimare_dask.nulls.relocation import Enhancement

    return {
        "n_iters": job.n_iters,
        "voxel_thresh": job.voxel_thresh,
        "coverage": job.coverage,
        "random_state": job.seed,
        "tfce": Enhancement() if job.tfce else None,
        "stop_after": job.stop_after,
    }


def _compute(estimator: OneSample, corpus: xr.Dataset, space: Space, job: Job) -> xr.Dataset | None:
    """Fit and correct; None when there are only preparations to be made."""
    from nimare_dask.cli.console import progress, say
    from nimare_dask.nulls.monte_carlo import monte_carlo_null
    from nimare_dask.parallel.places import make_folder

    fit: Any = estimator.fit  # type: ignore[attr-defined]
    settings = _null_settings(job)

    def iterate(store: ZarrPath, label: str, **others: Any) -> xr.Dataset:
        say(f"{label} iterations are kept in {store}.")
        make_folder(store.parent)
        with progress(label, "iterations") as report:
            return monte_carlo_null(
                estimator,
                corpus,
                space=space,
                store=store,
                report=report,
                compute=not job.prepare,
                **settings | others,
            )

    if job.voxel_thresh is None:  # SCALE: one null gives every voxel its p, and its maxima
        null = iterate(job.null_store, "Null")
        if job.prepare:
            return None
        maps = fit(corpus, space=space, null=null)
    elif job.null == "montecarlo":
        only = {"voxel_thresh": None, "tfce": None, "stop_after": None, "purpose": "fit"}
        fitted = iterate(job.fit_store, "Fitting", **only)
        maps = fit(corpus, space=space, null_method="montecarlo", null=fitted)
    else:
        maps = fit(corpus, space=space, null_method=job.null)
    if job.correct == Correct.fwe and job.voxel_thresh is not None:
        null = iterate(job.null_store, "Null", maps=maps)
    if job.prepare:
        return None
    return correct(maps, job, null if job.correct == Correct.fwe else None)


def _say_plan(estimator: OneSample, corpus: xr.Dataset, space: Space, job: Job) -> None:
    from nimare_dask.cli.console import say
    from nimare_dask.nulls.monte_carlo import plan_null

    if job.correct != Correct.fwe and job.null != "montecarlo":
        say("Plan: no null iterations; a few seconds.")
        return
    settings = {name: value for name, value in _null_settings(job).items() if name != "stop_after"}
    planned = plan_null(estimator, corpus, space=space, **settings)
    say_plan(planned)
