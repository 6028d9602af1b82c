"""The verb coactivation: maps of what is active together with each of many places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nimare_dask.cli.associate import Effect, Fdr, save_features, say_foci_outside
from nimare_dask.cli.options import Place, ZarrPath, path, verb

if TYPE_CHECKING:
    from nimare_dask.space import Space
    from nimare_dask.targets import Targets


@verb(of=Place)
def coactivation(
    place: Place,
    *,
    corpus: Annotated[ZarrPath, typer.Argument(help="A corpus.", parser=path)],
    out: Annotated[
        ZarrPath, typer.Argument(help="Result to write, such as coactivation.zarr.", parser=path)
    ],
    atlas: Annotated[
        Path | None,
        typer.Option(help="Targets are the parcels of this label image (0 is no parcel)."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="With --atlas: table of names (.tsv, .csv), columns index and name."),
    ] = None,
    grid: Annotated[
        float | None,
        typer.Option(
            metavar="MM", help="Targets are voxels so many mm apart, such as 8; see --mask."
        ),
    ] = None,
    xyz: Annotated[
        Path | None,
        typer.Option(help="Targets are the voxels at the points of this text file, x y z in mm."),
    ] = None,
    min_overlap: Annotated[
        str,
        typer.Option(
            help="Active voxels of a parcel that make it active: a number such as 1, or a share "
            "such as 0.5."
        ),
    ] = "1",
    effect: Annotated[
        list[Effect] | None,
        typer.Option(help="Which maps; may be repeated. Association by default."),
    ] = None,
    mask: Annotated[
        str, typer.Option(help="A mask image, or mni152_2mm or mni152_1mm.")
    ] = "mni152_2mm",
    r: Annotated[float, typer.Option("--r", help="Radius of the MKDA kernel in mm.")] = 10.0,
    fdr: Annotated[
        bool, typer.Option("--fdr", help="Add z corrected for the false discovery rate.")
    ] = False,
    fdr_method: Annotated[
        Fdr,
        typer.Option(help="With --fdr. indep: Benjamini-Hochberg; negcorr: Benjamini-Yekutieli."),
    ] = Fdr.indep,
    min_analyses: Annotated[
        int, typer.Option(help="Drop targets that fewer analyses activate.")
    ] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Compare, for every target, the analyses that activate it with the rest (MKDA chi-square)."""
    import time

    from nimare_dask.cli.console import peak_memory, say
    from nimare_dask.coactivations import coactivation as coactivate
    from nimare_dask.corpus import open_corpus
    from nimare_dask.footprint import MKDAKernel
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.space import load_space

    start = time.perf_counter()
    refuse_existing(out, kind=RESULT_KIND, overwrite=force)
    space, overlap = load_space(mask), _overlap(min_overlap)
    with place.started():
        maps = coactivate(
            open_corpus(corpus),
            _targets(atlas, labels, grid, xyz, space),
            kernel=MKDAKernel(r=r),
            space=space,
            min_overlap=overlap,
            min_analyses=min_analyses,
        )
        maps = maps.sel(effect=[str(name) for name in effect or [Effect.association]])
        maps = save_features(
            maps,
            out,
            fdr_method=str(fdr_method) if fdr else None,
            also=["n_both"],
            force=force,
        )
    say_foci_outside(maps)
    sizes = maps["n_selected"].values
    say(
        f"{len(sizes):,} targets, each activated by {sizes.min():,} to {sizes.max():,} analyses, "
        f"in {out} after {time.perf_counter() - start:.0f} s; peak memory "
        f"{peak_memory() / 1e9:.1f} GB."
    )


def _targets(
    atlas: Path | None,
    labels: Path | None,
    grid: float | None,
    xyz: Path | None,
    space: Space,
) -> Targets:
    from nimare_dask.cli.meta import read_points
    from nimare_dask.errors import SettingsError
    from nimare_dask.targets import grid_targets, parcel_targets, voxel_targets

    given = [
        name
        for name, value in (("--atlas", atlas), ("--grid", grid), ("--xyz", xyz))
        if value is not None
    ]
    if len(given) != 1:
        raise SettingsError(
            "Expected targets: one of --atlas IMAGE, --grid MM and --xyz FILE; "
            f"{' and '.join(given) or 'none'} {'are' if given else 'is'} given."
        )
    if labels is not None and atlas is None:
        raise SettingsError("--labels is for --atlas.")
    if atlas is not None:
        return parcel_targets(atlas, space, labels=labels)
    if grid is not None:
        return grid_targets(space, step=grid)
    return voxel_targets(read_points(cast(Path, xyz)), space)


def _overlap(text: str) -> float:
    """A whole number of voxels, or a share: what has a point is a share."""
    from nimare_dask.errors import SettingsError

    try:
        return int(text) if text.strip().isdecimal() else float(text)
    except ValueError as error:
        raise SettingsError(
            f"--min-overlap is {text!r}; expected a number of voxels such as 1, or a share such as "
            "0.5."
        ) from error
