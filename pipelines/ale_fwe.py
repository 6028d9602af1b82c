"""One ALE map with family-wise correction: the same as two commands.

    nimare-dask ale CORPUS OUT --select 'LABEL>=0.1' --sample-size 20 --n-iters 5000 --seed 0
    nimare-dask status OUT/null.zarr

Run it with

    python pipelines/ale_fwe.py CORPUS OUT --select LABEL --threshold 0.1 --sample-size 20

Only public names of nimare_dask are used, so it is a place to start a script of your own from. To
run it on a cluster, make a `dask.distributed.Client` first; nothing else changes. Run it again
after it was interrupted, and only what is missing is computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nimare_dask as nd


def ale_fwe(
    corpus: Path,
    out: Path,
    *,
    select: str | None = None,
    threshold: float = 0.001,
    sample_size: float | None = None,
    n_iters: int = 5000,
    random_state: int | None = None,
    space: str = "mni152_2mm",
) -> list[Path]:
    """Choose analyses, fit ALE, correct, save, and export every map.

    Returns the images that were written; `out` holds ``result.zarr`` and ``null.zarr`` too.
    """
    studies = nd.open_corpus(corpus)
    if select is not None:
        studies = nd.select(studies, nd.has_label(studies, select, threshold=threshold))

    # Without a sample size for all, each analysis has the Gaussian of its own.
    estimator = nd.ALE(kernel=nd.ALEKernel(sample_size=sample_size))
    maps = estimator.fit(studies, space=space)

    # Every batch of iterations is kept in the store as soon as it is done.
    null = nd.monte_carlo_null(
        estimator,
        studies,
        space=space,
        n_iters=n_iters,
        voxel_thresh=0.001,
        random_state=random_state,
        store=out / "null.zarr",
        maps=maps,
    )
    maps = nd.correct_fwe(maps, null)

    nd.save_result(maps, out / "result.zarr", overwrite=True)
    return nd.to_nifti(maps, out)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    for name in ("corpus", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--select", help="a feature that the analyses have; all by default")
    parser.add_argument("--threshold", type=float, default=0.001, help="smallest weight of it")
    parser.add_argument("--sample-size", type=float, help="subjects of every analysis")
    parser.add_argument("--n-iters", type=int, default=5000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--space", default="mni152_2mm", help="a mask image, or mni152_2mm")
    given = parser.parse_args()
    paths = ale_fwe(
        given.corpus,
        given.out,
        select=given.select,
        threshold=given.threshold,
        sample_size=given.sample_size,
        n_iters=given.n_iters,
        random_state=given.seed,
        space=given.space,
    )
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
