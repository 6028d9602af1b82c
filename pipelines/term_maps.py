"""Maps of every feature of a database, with FDR: the same as three commands.

    nimare-dask import neurosynth COORDINATES METADATA OUT/corpus.zarr --features NPZ VOCABULARY
    nimare-dask associate OUT/corpus.zarr OUT/terms.zarr --threshold 0.1 --fdr
    nimare-dask export OUT/terms.zarr OUT/maps --feature NAME

Run it with

    python pipelines/term_maps.py COORDINATES METADATA NPZ VOCABULARY OUT --threshold 0.1 \
        --feature NAME

Only public names of nimare_dask are used, so it is a place to start a script of your own from. To
run it on a cluster, make a `dask.distributed.Client` first; nothing else changes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nimare_dask as nd


def term_maps(
    coordinates: Path,
    metadata: Path,
    features: list[tuple[Path, Path]],
    out: Path,
    *,
    threshold: float = 0.001,
    space: str = "mni152_2mm",
    export: list[str] | None = None,
) -> list[Path]:
    """Import a database, map every feature, correct, save, and export some of the maps.

    Returns the images that were written; `out` holds ``corpus.zarr`` and ``terms.zarr`` too.
    """
    corpus = nd.read_neurosynth(coordinates, metadata, features)
    nd.save_corpus(corpus, out / "corpus.zarr")
    corpus = nd.open_corpus(out / "corpus.zarr")

    # Nothing is computed here: this is a plan of what every map is made of.
    estimator = nd.MKDAChi2(kernel=nd.MKDAKernel(r=10), prior=0.5)
    terms = estimator.fit_features(corpus, threshold=threshold, space=space, chunks="feature")
    terms = nd.correct_fdr(terms, method="indep")

    # Now it is, a block of features at a time, and only what is kept.
    nd.save_result(terms[["z", "z_fdr_indep"]], out / "terms.zarr")
    terms = nd.open_result(out / "terms.zarr")
    return nd.to_nifti(terms, out / "maps", features=export or [])


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    for name in ("coordinates", "metadata", "npz", "vocabulary", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threshold", type=float, default=0.001)
    parser.add_argument("--space", default="mni152_2mm", help="a mask image, or mni152_2mm")
    parser.add_argument("--feature", action="append", help="export its maps; may be repeated")
    given = parser.parse_args()
    paths = term_maps(
        given.coordinates,
        given.metadata,
        [(given.npz, given.vocabulary)],
        given.out,
        threshold=given.threshold,
        space=given.space,
        export=given.feature,
    )
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
