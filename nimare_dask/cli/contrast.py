"""The verb contrast: two groups of analyses."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nimare_dask.cli.options import (
    Correct,
    CoverageChoice,
    Fwhm,
    Job,
    NullChoice,
    Radius,
    SampleSize,
    ZarrPath,
    verb,
)
from nimare_dask.cli.outcome import (
    correct,
    refuse_to_prepare,
    say_plan,
    told_where_to_go_on,
    write_or_say,
)

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.estimators.ale_subtraction import ALESubtraction
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.space import Space


#: Radius of the MKDA kernel in mm.
DEFAULT_RADIUS = 10.0


class Method(StrEnum):
    """What compares the groups."""

    chi2 = "chi2"
    ale = "ale"


class Permute(StrEnum):
    """What is left to chance in the iterations."""

    labels = "labels"
    foci = "foci"


@verb(
    fixed={
        "select": None,
        "null": NullChoice.montecarlo,
        "tfce": False,
        "stop_after": None,
    }
)
def contrast(
    job: Job,
    *,
    group1: Annotated[
        str,
        typer.Option(
            help="Analyses with a weight of a feature, such as 'pain>=0.1'; or an expression."
        ),
    ],
    group2: Annotated[
        str, typer.Option(help="Analyses to compare with, such as 'reward>=0.1'; or rest.")
    ] = "rest",
    method: Annotated[
        Method,
        typer.Option(help="chi2: MKDA chi-square (association); ale: difference of ALE."),
    ] = Method.chi2,
    r: Radius = DEFAULT_RADIUS,
    sample_size: SampleSize = None,
    fwhm: Fwhm = None,
    drop_shared: Annotated[
        bool, typer.Option("--drop-shared", help="Leave out analyses that are in both groups.")
    ] = False,
    main_effects: Annotated[
        bool,
        typer.Option(
            "--main-effects",
            help="Compare only where the main effect of a group is significant by itself, "
            "corrected by --correct; adds main effects and their conjunction.",
        ),
    ] = False,
    alpha: Annotated[
        float, typer.Option(help="With --main-effects: the largest p of main effects and contrast.")
    ] = 0.05,
    permute: Annotated[
        Permute,
        typer.Option(
            help="Family-wise null of chi2: labels shuffled among analyses, or foci that fall "
            "anywhere (see --coverage)."
        ),
    ] = Permute.labels,
) -> None:
    """Compare two groups of analyses: where one reports activation more often than the other."""
    from nimare_dask.cli.conditions import two_groups
    from nimare_dask.corpus import open_corpus
    from nimare_dask.errors import SettingsError
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.space import load_space

    if method == Method.chi2 and (sample_size is not None or fwhm is not None):
        raise SettingsError("--sample-size and --fwhm are for --method ale; chi2 has --r.")
    if method == Method.ale and r != DEFAULT_RADIUS:
        raise SettingsError("--r is for --method chi2; ale has --sample-size and --fwhm.")
    if method == Method.ale and permute == Permute.foci:
        raise SettingsError("--permute foci is for --method chi2; ale shuffles labels.")
    if permute == Permute.foci and (main_effects or job.correct != Correct.fwe):
        raise SettingsError("--permute foci is the null of --correct fwe without --main-effects.")
    if permute == Permute.labels and job.coverage != CoverageChoice.brain:
        raise SettingsError("--coverage is for --permute foci; labels have no place.")
    if job.prepare:
        refuse_to_prepare(job, main_effects=main_effects)
    if not job.plan:
        refuse_existing(job.result, kind=RESULT_KIND, overwrite=job.force)
    estimator = _estimator(method, r, sample_size, fwhm)
    space = load_space(job.mask)
    with job.started():
        groups = two_groups(open_corpus(job.corpus), group1, group2, drop_shared=drop_shared)
        if job.plan:
            say_plan_of_groups(estimator, *groups, space, job, permute)
            return
        with told_where_to_go_on(*_stores(job, main_effects=main_effects)):
            maps: xr.Dataset | None
            if main_effects:
                maps = _by_main_effects(estimator, *groups, space, job, alpha)
            else:
                maps = compare(estimator, *groups, space, job, permute)
    write_or_say(maps, job)


def _stores(job: Job, *, main_effects: bool) -> list[ZarrPath]:
    """Where the iterations go: one store, or a folder of the stores of three nulls."""
    return [job.null_store.with_suffix("") if main_effects else job.null_store]


def _estimator(
    method: Method, r: float, sample_size: float | None, fwhm: float | None
) -> ALESubtraction | MKDAChi2:
    from nimare_dask.estimators.ale_subtraction import ALESubtraction
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.footprint import ALEKernel, MKDAKernel

    if method == Method.ale:
        return ALESubtraction(kernel=ALEKernel(fwhm=fwhm, sample_size=sample_size))
    return MKDAChi2(kernel=MKDAKernel(r=r))


def _iterates(estimator: ALESubtraction | MKDAChi2, job: Job) -> bool:
    """Whether there are null iterations: the shuffles of ALE give uncorrected p values too."""
    from nimare_dask.estimators.ale_subtraction import ALESubtraction

    return isinstance(estimator, ALESubtraction) or job.correct == Correct.fwe


def compare(
    estimator: ALESubtraction | MKDAChi2,
    group1: xr.Dataset,
    group2: xr.Dataset,
    space: Space,
    job: Job,
    permute: Permute,
) -> xr.Dataset | None:
    """Fit and correct; None when there are only preparations to be made."""
    from nimare_dask.cli.console import progress, say
    from nimare_dask.estimators.ale_subtraction import ALESubtraction
    from nimare_dask.nulls.label_permutation import label_permutation_null, random_foci_null
    from nimare_dask.parallel.places import make_folder

    is_ale = isinstance(estimator, ALESubtraction)
    null = None
    if _iterates(estimator, job):
        say(f"Null iterations are kept in {job.null_store}.")
        make_folder(job.null_store.parent)
        settings: dict[str, Any] = {
            "space": space,
            "n_iters": job.n_iters,
            "voxel_thresh": job.voxel_thresh,
            "random_state": job.seed,
            "store": job.null_store,
            "compute": not job.prepare,
        }
        with progress("Null", "iterations") as report:
            if permute == Permute.labels:
                null = label_permutation_null(estimator, group1, group2, report=report, **settings)
            elif not isinstance(estimator, ALESubtraction):
                null = random_foci_null(
                    estimator,
                    group1,
                    group2,
                    coverage="gm" if job.coverage == CoverageChoice.gm else "brain",
                    report=report,
                    **settings,
                )
    if job.prepare:
        return None
    if null is not None and permute == Permute.labels and not is_ale:
        say(
            "Shuffled labels test the difference, association; for uniformity of the groups use "
            "--permute foci."
        )
    if isinstance(estimator, ALESubtraction):
        maps = estimator.fit(group1, group2, space=space, null=null)
    else:
        maps = estimator.fit(group1, group2, space=space)
    return correct(maps, job, null)


def _by_main_effects(
    estimator: ALESubtraction | MKDAChi2,
    group1: xr.Dataset,
    group2: xr.Dataset,
    space: Space,
    job: Job,
    alpha: float,
) -> xr.Dataset:
    from nimare_dask.cli.console import progress, say
    from nimare_dask.contrasts import contrast as compare_by_main_effects
    from nimare_dask.errors import SettingsError
    from nimare_dask.parallel.places import make_folder

    if job.correct == Correct.none:
        raise SettingsError(
            "--main-effects needs a correction; use --correct fwe, fdr or bonferroni."
        )
    (stores,) = _stores(job, main_effects=True)
    if _iterates(estimator, job):
        say(f"Null iterations are kept in the folder {stores}.")
        make_folder(stores)
    with progress("Null", "iterations") as report:
        return compare_by_main_effects(
            group1,
            group2,
            pairwise=estimator,
            correct=job.correct.value,  # type: ignore[arg-type]
            alpha=alpha,
            space=space,
            n_iters=job.n_iters,
            voxel_thresh=job.voxel_thresh,
            random_state=job.seed,
            store=stores,
            report=report,
        )


def say_plan_of_groups(
    estimator: ALESubtraction | MKDAChi2,
    group1: xr.Dataset,
    group2: xr.Dataset,
    space: Space,
    job: Job,
    permute: Permute,
) -> None:
    """Say what the iterations of two groups would cost."""
    from nimare_dask.cli.console import say
    from nimare_dask.nulls.label_permutation import plan_permutation

    if not _iterates(estimator, job):
        say("Plan: no null iterations; a few seconds.")
        return
    say_plan(
        plan_permutation(
            estimator,
            group1,
            group2,
            space=space,
            n_iters=job.n_iters,
            voxel_thresh=job.voxel_thresh,
            relocate=permute == Permute.foci,
        )
    )
