"""Family-wise corrected maps of every feature of a database: the same as two commands.

    nimare-dask import neurosynth COORDINATES METADATA OUT/corpus.zarr --features NPZ VOCABULARY
    nimare-dask associate OUT/corpus.zarr OUT/features.zarr --threshold 0.1 --fdr --fwe --seed 0

Run it with

    python pipelines/neurosynth_wide.py COORDINATES METADATA NPZ VOCABULARY OUT --threshold 0.1

All features share one null of shuffled labels (see `nimare_dask.feature_null` for why that is
exact). Its iterations are kept in OUT/null.zarr as they are done: run the same line again after an
interruption, on any machine, and only what is missing is computed. With --cluster the iterations
and maps are computed by the workers of a cluster, with the same bits.

Only public names of nimare_dask are used, so it is a place to start a script of your own from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nimare_dask as nd


def neurosynth_wide(
    coordinates: Path,
    metadata: Path,
    features: list[tuple[Path, Path]],
    out: Path,
    *,
    threshold: float = 0.001,
    min_analyses: int = 20,
    n_iters: int = 5000,
    voxel_thresh: float = 0.001,
    random_state: int = 0,
    space: str = "mni152_2mm",
    export: list[str] | None = None,
) -> list[Path]:
    """Import a database, map every feature, correct by FDR and FWE, save, and export some maps.

    Returns the images that were written; `out` holds ``corpus.zarr``, ``null.zarr`` and
    ``features.zarr`` too.
    """
    corpus = nd.read_neurosynth(coordinates, metadata, features)
    nd.save_corpus(corpus, out / "corpus.zarr", overwrite=True)
    corpus = nd.open_corpus(out / "corpus.zarr")

    # Nothing is computed here: this is a plan of what every map is made of.
    estimator = nd.MKDAChi2(kernel=nd.MKDAKernel(r=10))
    maps = estimator.fit_features(
        corpus, threshold=threshold, min_analyses=min_analyses, space=space, chunks="feature"
    )
    maps = maps.sel(effect=["association"])

    # One null for all features; every batch of iterations is kept as soon as it is done.
    null = nd.feature_null(
        corpus,
        sizes=maps,
        estimator=estimator,
        n_iters=n_iters,
        space=space,
        voxel_thresh=voxel_thresh,
        random_state=random_state,
        store=out / "null.zarr",
    )
    maps = nd.correct_fwe(nd.correct_fdr(maps, method="indep"), null)

    # Now maps are computed, a block of features at a time, and only what is kept.
    nd.save_result(maps[["z", "z_fdr_indep", "z_fwe"]], out / "features.zarr", overwrite=True)
    maps = nd.open_result(out / "features.zarr")
    return nd.to_nifti(maps, out / "maps", features=export or [])


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    for name in ("coordinates", "metadata", "npz", "vocabulary", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threshold", type=float, default=0.001, help="smallest weight")
    parser.add_argument("--min-analyses", type=int, default=20, help="drop smaller features")
    parser.add_argument("--n-iters", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--space", default="mni152_2mm", help="a mask image, or mni152_2mm")
    parser.add_argument("--feature", action="append", help="export its maps; may be repeated")
    parser.add_argument("--cluster", help="local, slurm, ..., or the address of a Dask scheduler")
    parser.add_argument("--workers", type=int, help="with --cluster: worker processes")
    parser.add_argument("--cluster-config", type=Path, help="with --cluster: settings (.yaml)")
    given = parser.parse_args()
    with nd.cluster(given.cluster, n_workers=given.workers, config=given.cluster_config):
        paths = neurosynth_wide(
            given.coordinates,
            given.metadata,
            [(given.npz, given.vocabulary)],
            given.out,
            threshold=given.threshold,
            min_analyses=given.min_analyses,
            n_iters=given.n_iters,
            random_state=given.seed,
            space=given.space,
            export=given.feature,
        )
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
