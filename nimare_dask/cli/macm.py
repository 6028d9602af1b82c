"""The verb macm: what is active together with a region."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nimare_dask.cli.contrast import DEFAULT_RADIUS, Permute, compare, say_plan_of_groups
from nimare_dask.cli.one_group import run
from nimare_dask.cli.options import (
    Correct,
    CoverageChoice,
    Fwhm,
    Job,
    NullChoice,
    SampleSize,
    Weighting,
    verb,
)
from nimare_dask.cli.outcome import refuse_to_prepare, told_where_to_go_on, write_or_say

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.estimators.prepared import OneSample
    from nimare_dask.space import Space

#: Within so many mm a focus is near a point.
DEFAULT_DISTANCE = 6.0

Point = tuple[float, float, float]


class MacmMethod(StrEnum):
    """What the analyses of a region are given to."""

    ale = "ale"
    mkda = "mkda"
    chi2 = "chi2"


@verb()
def macm(
    job: Job,
    *,
    roi: Annotated[
        Path | None,
        typer.Option(help="Image of the region: analyses with a focus on a voxel that is not 0."),
    ] = None,
    xyz: Annotated[
        Point | None,
        typer.Option(metavar="X Y Z", help="Point in mm of MNI: analyses with a focus within --r."),
    ] = None,
    r: Annotated[
        float, typer.Option("--r", help="With --xyz: largest distance in mm.")
    ] = DEFAULT_DISTANCE,
    method: Annotated[
        MacmMethod,
        typer.Option(
            help="ale or mkda of the analyses of the region; chi2: those against the rest."
        ),
    ] = MacmMethod.ale,
    kernel_r: Annotated[
        float, typer.Option(help="With --method mkda or chi2: radius of the sphere in mm.")
    ] = DEFAULT_RADIUS,
    sample_size: SampleSize = None,
    fwhm: Fwhm = None,
    weighting: Annotated[
        Weighting,
        typer.Option(help="With --method mkda: analyses count the same, or by sample size."),
    ] = Weighting.uniform,
) -> None:
    """Meta-analytic coactivation: a map of the analyses that report in a region."""
    _check_region(roi, xyz, r)
    _check_options(method, kernel_r, sample_size, fwhm, weighting, job)
    in_region = _mask_of(roi, xyz, r)
    if method == MacmMethod.chi2:
        _against_rest(in_region, kernel_r, job)
        return

    def make(_whole: xr.Dataset, _space: Space) -> OneSample:
        from nimare_dask.estimators.ale import ALE
        from nimare_dask.estimators.mkda_density import MKDADensity
        from nimare_dask.footprint import ALEKernel, MKDAKernel

        if method == MacmMethod.ale:
            return ALE(kernel=ALEKernel(fwhm=fwhm, sample_size=sample_size))
        by_size = weighting == Weighting.sample_size
        return MKDADensity(
            kernel=MKDAKernel(r=kernel_r), weighting="sample_size" if by_size else None
        )

    def narrow(corpus: xr.Dataset) -> xr.Dataset:
        from nimare_dask.selection import select

        return select(corpus, in_region(corpus))

    run(make, job, narrow=narrow)


def _check_region(roi: Path | None, xyz: Point | None, r: float) -> None:
    from nimare_dask.errors import SettingsError

    if (roi is None) == (xyz is None):
        raise SettingsError(
            "Expected a region: either --roi IMAGE or --xyz X Y Z, "
            f"{'and neither is' if roi is None else 'but both are'} given."
        )
    if roi is not None and r != DEFAULT_DISTANCE:
        raise SettingsError("--r is for --xyz; a region of an image has no distance.")


def _check_options(
    method: MacmMethod,
    kernel_r: float,
    sample_size: float | None,
    fwhm: float | None,
    weighting: Weighting,
    job: Job,
) -> None:
    """Refuse options that a method does not have."""
    from nimare_dask.errors import SettingsError

    ale, mkda, chi2 = MacmMethod.ale, MacmMethod.mkda, MacmMethod.chi2
    given = (
        ("--sample-size", sample_size is not None, {ale}),
        ("--fwhm", fwhm is not None, {ale}),
        ("--kernel-r", kernel_r != DEFAULT_RADIUS, {mkda, chi2}),
        ("--weighting", weighting != Weighting.uniform, {mkda}),
        ("--null", job.null != NullChoice.approximate, {ale, mkda}),
        ("--coverage", job.coverage != CoverageChoice.brain, {ale, mkda}),
        ("--tfce", job.tfce, {ale, mkda}),
        ("--stop-after", job.stop_after is not None, {ale, mkda}),
    )
    for option, is_given, known in given:
        if is_given and method not in known:
            allowed = " or ".join(each.value for each in MacmMethod if each in known)
            raise SettingsError(f"{option} is for --method {allowed}; --method is {method.value}.")


def _mask_of(roi: Path | None, xyz: Point | None, r: float) -> Callable[[xr.Dataset], xr.DataArray]:
    """What marks the analyses that report in the region; it says how many they are."""

    def in_region(corpus: xr.Dataset) -> xr.DataArray:
        from nimare_dask.cli.console import say
        from nimare_dask.errors import SelectionError
        from nimare_dask.nearby import has_focus_in, has_focus_near

        if xyz is not None:
            mask, where = has_focus_near(corpus, xyz, r), f"within {r:g} mm of {_shown(xyz)}"
        else:
            mask, where = has_focus_in(corpus, roi or ""), f"in {roi}"
        n, of = int(mask.sum()), corpus.sizes["analysis"]
        if n == 0:
            raise SelectionError(
                f"None of {of:,} analyses reports a focus {where}; use "
                f"{'a larger --r' if xyz is not None else 'another region'}."
            )
        say(f"{n:,} of {of:,} analyses report {where}.")
        return mask

    return in_region


def _shown(xyz: Point) -> str:
    return " ".join(f"{value:g}" for value in xyz)


def _against_rest(
    in_region: Callable[[xr.Dataset], xr.DataArray], kernel_r: float, job: Job
) -> None:
    """Compare the analyses of the region with those that do not report there, and write."""
    from nimare_dask.cli.conditions import choose
    from nimare_dask.corpus import open_corpus
    from nimare_dask.errors import SelectionError
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.footprint import MKDAKernel
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.selection import select
    from nimare_dask.space import load_space

    if job.prepare:
        refuse_to_prepare(job)
    if not job.plan:
        refuse_existing(job.result, kind=RESULT_KIND, overwrite=job.force)
    estimator, space = MKDAChi2(kernel=MKDAKernel(r=kernel_r)), load_space(job.mask)
    with job.started():
        chosen = choose(open_corpus(job.corpus), job.select or [])
        mask = in_region(chosen)
        if mask.all():
            raise SelectionError(
                "All of these analyses report in the region, so there are none to compare with; "
                "use a smaller one, or --method ale."
            )
        groups = select(chosen, mask), select(chosen, ~mask)
        if job.plan:
            say_plan_of_groups(estimator, *groups, space, job, Permute.labels)
            return
        stores = [job.null_store] if job.correct == Correct.fwe else []
        with told_where_to_go_on(*stores):
            maps = compare(estimator, *groups, space, job, Permute.labels)
    write_or_say(maps, job)
