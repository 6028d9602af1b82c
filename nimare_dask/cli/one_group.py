"""What the verbs ale, mkda, kda and scale do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimare_dask.cli.options import Correct, Job

#: About the memory of a process that has loaded everything and does nothing.
PROCESS_BYTES = 300_000_000

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.estimators.prepared import OneSample
    from nimare_dask.space import Space


def run(make: Callable[[xr.Dataset, Space], OneSample], job: Job) -> None:
    """Choose analyses, fit, correct and write; `make` gives the estimator for corpus and space."""
    from nimare_dask.cli.console import say, sentences_for_warnings
    from nimare_dask.corpus import open_corpus
    from nimare_dask.parallel.execute import connected
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.space import load_space

    if not job.plan:
        refuse_existing(job.result, kind=RESULT_KIND, overwrite=job.force)
    space = load_space(job.mask)
    with sentences_for_warnings(), connected(job.scheduler):
        whole = open_corpus(job.corpus)
        estimator = make(whole, space)
        chosen = _choose(whole, job.select or [])
        if job.plan:
            _say_plan(estimator, chosen, space, job)
            return
        try:
            maps = _compute(estimator, chosen, space, job)
        except KeyboardInterrupt:
            if job.null_store.exists() or job.fit_store.exists():
                say(
                    f"Stopped; {job.null_store} keeps the iterations that are done. Run the same "
                    "command again to go on."
                )
            raise
    _write(maps, job)


def _choose(corpus: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Analyses that meet every condition such as ``pain>=0.1``."""
    from nimare_dask.cli.console import say
    from nimare_dask.errors import SettingsError
    from nimare_dask.selection import DEFAULT_THRESHOLD, has_label, select

    for condition in conditions:
        label, operator, number = condition.partition(">=")
        try:
            threshold = float(number) if operator else DEFAULT_THRESHOLD
        except ValueError:
            threshold = float("nan")
        if not label.strip() or threshold != threshold:
            raise SettingsError(
                f"--select is {condition!r}; expected LABEL>=NUMBER, such as 'pain>=0.1'."
            )
        corpus = select(corpus, has_label(corpus, label.strip(), threshold=threshold))
    say(f"{corpus.sizes['analysis']:,} analyses with {corpus.sizes['focus']:,} foci.")
    return corpus


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


def _compute(estimator: OneSample, corpus: xr.Dataset, space: Space, job: Job) -> xr.Dataset:
    """Fit and correct."""
    from nimare_dask.cli.console import progress, say
    from nimare_dask.correct import correct_bonferroni, correct_fdr
    from nimare_dask.fwe import correct_fwe
    from nimare_dask.nulls.monte_carlo import monte_carlo_null

    fit: Any = estimator.fit  # type: ignore[attr-defined]
    settings = _null_settings(job)

    def iterate(store: Path, label: str, **others: Any) -> xr.Dataset:
        say(f"{label} iterations are kept in {store}.")
        store.parent.mkdir(parents=True, exist_ok=True)
        with progress(label, "iterations") as report:
            return monte_carlo_null(
                estimator, corpus, space=space, store=store, report=report, **settings | others
            )

    if job.voxel_thresh is None:  # SCALE: one null gives every voxel its p, and its maxima
        null = iterate(job.null_store, "Null")
        maps = fit(corpus, space=space, null=null)
    elif job.null == "montecarlo":
        only = {"voxel_thresh": None, "tfce": None, "stop_after": None, "purpose": "fit"}
        fitted = iterate(job.fit_store, "Fitting", **only)
        maps = fit(corpus, space=space, null_method="montecarlo", null=fitted)
    else:
        maps = fit(corpus, space=space, null_method=job.null)
    if job.correct == Correct.fwe:
        if job.voxel_thresh is not None:
            null = iterate(job.null_store, "Null", maps=maps)
        return correct_fwe(maps, null)
    if job.correct == Correct.fdr:
        return correct_fdr(maps)
    return correct_bonferroni(maps) if job.correct == Correct.bonferroni else maps


def _say_plan(estimator: OneSample, corpus: xr.Dataset, space: Space, job: Job) -> None:
    from nimare_dask.cli.console import say
    from nimare_dask.nulls.monte_carlo import plan_null

    if job.correct != Correct.fwe and job.null != "montecarlo":
        say("Plan: no null iterations; a few seconds.")
        return
    settings = {name: value for name, value in _null_settings(job).items() if name != "stop_after"}
    planned = plan_null(estimator, corpus, space=space, **settings)
    threads = planned.n_workers
    say(
        f"{planned} A worker with {threads} threads needs about "
        f"{(PROCESS_BYTES + threads * planned.task_bytes) / 1e6:,.0f} MB in all."
    )


def _write(maps: xr.Dataset, job: Job) -> None:
    """Write the result, and images of it, and say what was found."""
    from nimare_dask.cli.console import peak_memory, say
    from nimare_dask.io.nifti import to_nifti
    from nimare_dask.io.results import save_result
    from nimare_dask.provenance import steps

    save_result(maps, job.result, overwrite=job.force)
    images = [] if job.out == job.result else to_nifti(maps, job.out)
    fit = next(step for step in steps(maps)[::-1] if "n_foci_outside_mask" in step)
    if fit["n_foci_outside_mask"]:
        say(
            f"{fit['n_foci_outside_mask']:,} of {fit['n_foci']:,} foci lie outside the mask "
            f"({fit['n_foci_outside_volume']:,} outside the volume); they count where their "
            "kernel reaches into it."
        )
    for sentence in _findings(maps):
        say(sentence)
    what = f"{job.result}" + (f" and {len(images)} images beside it" if images else "")
    say(f"Written: {what}; peak memory {peak_memory() / 1e9:.2f} GB.")


def _findings(maps: xr.Dataset) -> list[str]:
    """How many voxels are significant by each corrected map."""
    from nimare_dask.results import find_map, map_keys

    found = []
    for key in map_keys(maps):
        if key.name.startswith("z_") and "_corr-" in key.name:
            p = find_map(maps, key.name.replace("z_", "p_", 1))
            found.append(f"{key.name}: {int((p < 0.05).sum()):,} voxels with p < 0.05.")
    return found
