"""The verb associate: maps of every feature."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from nimare_dask.cli.options import Place, Prepare, ZarrPath, path, verb

if TYPE_CHECKING:
    import xarray as xr


class Effect(StrEnum):
    """Which chi-square."""

    uniformity = "uniformity"
    association = "association"


class Fdr(StrEnum):
    """How the false discovery rate is controlled."""

    indep = "indep"
    negcorr = "negcorr"


@verb(of=Place)
def associate(
    place: Place,
    *,
    corpus: Annotated[ZarrPath, typer.Argument(help="A corpus with features.", parser=path)],
    out: Annotated[
        ZarrPath, typer.Argument(help="Result to write, such as terms.zarr.", parser=path)
    ],
    threshold: Annotated[
        float,
        typer.Option(
            help="Smallest weight with which an analysis has a feature: 0.001 suits tf-idf terms, "
            "0.1 topics."
        ),
    ] = 0.001,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="A feature (what follows __ will do); may be repeated. All by default."),
    ] = None,
    effect: Annotated[
        list[Effect] | None, typer.Option(help="Which maps; may be repeated. Both by default.")
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
    fwe: Annotated[
        bool,
        typer.Option(
            "--fwe",
            help="Add z corrected for the family of all voxels: by voxel, by size and by mass of "
            "clusters. One null of shuffled labels serves all features; it tests association.",
        ),
    ] = False,
    n_iters: Annotated[int, typer.Option(min=1, help="With --fwe: null iterations.")] = 5000,
    seed: Annotated[
        int | None,
        typer.Option(help="With --fwe: seed of the iterations; drawn and kept when not given."),
    ] = None,
    voxel_thresh: Annotated[
        float, typer.Option(help="With --fwe: uncorrected p that voxels of clusters are below.")
    ] = 0.001,
    store: Annotated[
        ZarrPath | None,
        typer.Option(
            help="With --fwe: where null iterations are kept as they are done (.zarr), to go on "
            "from; beside the result by default.",
            parser=path,
        ),
    ] = None,
    min_analyses: Annotated[int, typer.Option(help="Drop features that fewer analyses have.")] = 1,
    prepare: Prepare = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Compare, for every feature, the analyses that have it with the rest (MKDA chi-square)."""
    import time

    from nimare_dask.cli.batches import prepared
    from nimare_dask.cli.console import peak_memory, progress, say
    from nimare_dask.cli.outcome import told_where_to_go_on
    from nimare_dask.corpus import open_corpus
    from nimare_dask.errors import SettingsError
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.footprint import MKDAKernel
    from nimare_dask.nulls.label_permutation import feature_null
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import RESULT_KIND
    from nimare_dask.space import load_space

    start = time.perf_counter()
    if prepare and not fwe:
        raise SettingsError("--prepare is for null iterations, which --fwe makes.")
    refuse_existing(out, kind=RESULT_KIND, overwrite=force)
    estimator = MKDAChi2(kernel=MKDAKernel(r=r))
    space = load_space(mask)
    store = store or out.with_name(f"{out.stem}.null.zarr")
    studies = open_corpus(corpus)
    with place.started():
        maps = estimator.fit_features(
            studies,
            threshold=threshold,
            features=feature,
            space=space,
            min_analyses=min_analyses,
            chunks="feature" if fdr or fwe else "voxel",
        )
        maps = maps.sel(effect=[str(name) for name in effect or Effect])
        null = None
        if fwe:
            say(f"Null iterations are kept in {store}.")
            with told_where_to_go_on(store), progress("Null", "iterations") as report:
                null = feature_null(
                    studies,
                    sizes=maps,
                    estimator=estimator,
                    effects=[str(name) for name in effect or [Effect.association]],
                    space=space,
                    n_iters=n_iters,
                    voxel_thresh=voxel_thresh,
                    random_state=seed,
                    store=store,
                    report=report,
                    compute=not prepare,
                )
            if prepare:
                prepared(store)
                return
        maps = save_features(
            maps, out, fdr_method=str(fdr_method) if fdr else None, null=null, force=force
        )
    say_foci_outside(maps)
    sizes = maps["n_selected"].values
    say(
        f"{len(sizes):,} features of {sizes.min():,} to {sizes.max():,} analyses in {out} after "
        f"{time.perf_counter() - start:.0f} s; peak memory {peak_memory() / 1e9:.1f} GB."
    )


def say_foci_outside(maps: xr.Dataset) -> None:
    """Say how many foci lie outside the mask."""
    from nimare_dask.cli.console import say
    from nimare_dask.provenance import steps

    fit = next(step for step in steps(maps) if "n_foci_outside_mask" in step)
    if fit["n_foci_outside_mask"]:
        say(
            f"{fit['n_foci_outside_mask']:,} of {fit['n_foci']:,} foci lie outside the mask "
            f"({fit['n_foci_outside_volume']:,} outside the volume); they count where their sphere "
            "reaches into it."
        )


def save_features(
    maps: xr.Dataset,
    out: ZarrPath,
    *,
    fdr_method: str | None = None,
    null: xr.Dataset | None = None,
    also: Sequence[str] = (),
    force: bool,
) -> xr.Dataset:
    """Correct, plan, compute and write the z maps of features; give the saved result.

    The maps that `also` names are written too.
    """
    import dask.array as da

    from nimare_dask.cli.console import progress, say
    from nimare_dask.cli.outcome import told_where_to_go_on
    from nimare_dask.correct import correct_fdr
    from nimare_dask.fwe import correct_fwe
    from nimare_dask.io.results import open_result, save_result
    from nimare_dask.parallel.plan import plan

    keep = [*also, "z"]
    if fdr_method is not None:
        maps = correct_fdr(maps, method="indep" if fdr_method == "indep" else "negcorr")
        keep.append(f"z_fdr_{fdr_method}")
    if null is not None:
        maps = correct_fwe(maps, null)
        keep.append("z_fwe")
    maps = maps[keep]
    lazy = {name: maps[name].data for name in keep if isinstance(maps[name].data, da.Array)}
    _warm_up(fdr=fdr_method is not None, fwe=null is not None)
    say(f"{maps.sizes['feature']:,} features x {maps.sizes['voxel']:,} voxels. {plan(lazy)}")
    with told_where_to_go_on(out=out), progress("Computing") as report:
        save_result(maps, out, overwrite=force, report=report)
    return open_result(out)


def _warm_up(*, fdr: bool, fwe: bool) -> None:
    """Run the kernels once on next to nothing, so that compiling them is not in the plan."""
    import warnings

    import numpy as np

    from nimare_dask.correct import correct_fdr
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.fwe import correct_fwe
    from nimare_dask.nulls.label_permutation import feature_null
    from nimare_dask.simulate import simulate_corpus
    from nimare_dask.space import Space

    tiny = Space("tiny", np.ones((4, 4, 4), bool), np.diag([2.0, 2.0, 2.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corpus = simulate_corpus(20, n_foci=40, n_features=2, effects_per_feature=1, space=tiny)
        maps = MKDAChi2().fit_features(
            corpus, threshold=0.01, space=tiny, chunks="feature" if fdr or fwe else "voxel"
        )
        (correct_fdr(maps)["z_fdr_indep"] if fdr else maps["z"]).compute(scheduler="synchronous")
        if fwe:
            null = feature_null(corpus, sizes=maps, n_iters=1, space=tiny)
            correct_fwe(maps, null)["z_fwe"].compute(scheduler="synchronous")
