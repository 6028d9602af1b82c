"""The verbs ale, mkda, kda and scale: one map of one group of analyses, corrected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nimare_dask.cli.one_group import run
from nimare_dask.cli.options import (
    CoverageChoice,
    Fwhm,
    Job,
    NullChoice,
    Radius,
    SampleSize,
    Weighting,
    verb,
)

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.estimators.scale import SCALE
    from nimare_dask.space import Space


@verb()
def ale(job: Job, *, sample_size: SampleSize = None, fwhm: Fwhm = None) -> None:
    """Activation likelihood estimation: where analyses agree more than by chance."""
    from nimare_dask.estimators.ale import ALE
    from nimare_dask.footprint import ALEKernel

    run(lambda _whole, _space: ALE(kernel=ALEKernel(fwhm=fwhm, sample_size=sample_size)), job)


@verb()
def mkda(
    job: Job,
    *,
    r: Radius = 10.0,
    weighting: Annotated[
        Weighting, typer.Option(help="Analyses count the same, or by the root of sample size.")
    ] = Weighting.uniform,
) -> None:
    """MKDA density: how many analyses have a focus within reach."""
    from nimare_dask.estimators.mkda_density import MKDADensity
    from nimare_dask.footprint import MKDAKernel

    by_size = weighting == Weighting.sample_size
    run(
        lambda _whole, _space: MKDADensity(
            kernel=MKDAKernel(r=r), weighting="sample_size" if by_size else None
        ),
        job,
    )


@verb()
def kda(job: Job, *, r: Radius = 10.0) -> None:
    """Kernel density analysis: how many foci lie within reach."""
    from nimare_dask.estimators.kda import KDA
    from nimare_dask.footprint import KDAKernel

    run(lambda _whole, _space: KDA(kernel=KDAKernel(r=r)), job)


# Every voxel has a null of its own, so there is no one threshold to make clusters with.
@verb(
    fixed={
        "voxel_thresh": None,
        "coverage": CoverageChoice.brain,
        "null": NullChoice.montecarlo,
        "tfce": False,
    }
)
def scale(
    job: Job,
    *,
    pool: Annotated[
        Path | None,
        typer.Option(help="Text file of x y z in mm that foci fall on; all foci of CORPUS else."),
    ] = None,
    sample_size: SampleSize = None,
    fwhm: Fwhm = None,
) -> None:
    """SCALE: ALE against where foci are reported at all, whatever the subject."""
    from nimare_dask.activation import foci_pool
    from nimare_dask.estimators.scale import SCALE
    from nimare_dask.footprint import ALEKernel

    def make(whole: xr.Dataset, space: Space) -> SCALE:
        points = foci_pool(whole, space) if pool is None else read_points(pool)
        return SCALE(xyz=points, kernel=ALEKernel(fwhm=fwhm, sample_size=sample_size))

    run(make, job)


def read_points(path: Path) -> Any:
    """Points of a text file, (point, 3)."""
    import numpy as np

    from nimare_dask.errors import SourceFormatError

    try:
        return np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise SourceFormatError(
            f"{path} could not be read as points ({error}); expected lines of x y z in mm."
        ) from error
