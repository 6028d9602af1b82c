"""What is active together with a region (MACM), with family-wise correction: the same as

    nimare-dask macm CORPUS OUT --xyz X Y Z --r 6 --sample-size 20 --n-iters 5000 --seed 0
    nimare-dask macm CORPUS OUT/against_rest --xyz X Y Z --r 6 --method chi2 --correct fdr

Run it with

    python pipelines/macm.py CORPUS OUT --xyz X Y Z --sample-size 20
    python pipelines/macm.py CORPUS OUT --roi IMAGE --sample-size 20

Two questions are asked. ALE of the analyses that report in the region: where do they agree? And
their contrast with all other analyses: where are they active more often than the literature is at
that place anyway? The seed itself is found by both, since that is how analyses were chosen.

Only public names of nimare_dask are used, so it is a place to start a script of your own from. To
run it on a cluster, make a `dask.distributed.Client` first; nothing else changes. Run it again
after it was interrupted, and only what is missing is computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nimare_dask as nd


def macm(
    corpus: Path,
    out: Path,
    *,
    roi: Path | None = None,
    xyz: tuple[float, float, float] | None = None,
    r: float = 6.0,
    sample_size: float | None = None,
    n_iters: int = 5000,
    random_state: int | None = None,
    space: str = "mni152_2mm",
) -> list[Path]:
    """Choose the analyses of a region, fit ALE, correct, contrast with the rest, and export.

    Returns the images that were written; `out` holds ``result.zarr``, ``null.zarr`` and
    ``against_rest.zarr`` too.
    """
    studies = nd.open_corpus(corpus)
    if roi is not None:
        there = nd.has_focus_in(studies, roi)
    elif xyz is not None:
        there = nd.has_focus_near(studies, xyz, r=r)
    else:
        raise SystemExit("Give a region: --roi IMAGE or --xyz X Y Z.")
    chosen = nd.select(studies, there)

    # Without a sample size for all, each analysis has the Gaussian of its own.
    estimator = nd.ALE(kernel=nd.ALEKernel(sample_size=sample_size))
    maps = estimator.fit(chosen, space=space)

    # Every batch of iterations is kept in the store as soon as it is done.
    null = nd.monte_carlo_null(
        estimator,
        chosen,
        space=space,
        n_iters=n_iters,
        voxel_thresh=0.001,
        random_state=random_state,
        store=out / "null.zarr",
        maps=maps,
    )
    maps = nd.correct_fwe(maps, null)
    nd.save_result(maps, out / "result.zarr", overwrite=True)
    images = nd.to_nifti(maps, out)

    # Places that many analyses report whatever they study are no coactivation: the base rate goes.
    against_rest = nd.MKDAChi2().fit(chosen, nd.select(studies, ~there), space=space)
    against_rest = nd.correct_fdr(against_rest.sel(effect=["association"]))
    nd.save_result(against_rest, out / "against_rest.zarr", overwrite=True)
    names = ["z_desc-association", "z_desc-association_level-voxel_corr-FDR_method-indep"]
    return images + nd.to_nifti(against_rest, out / "against_rest", names=names)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    for name in ("corpus", "out"):
        parser.add_argument(name, type=Path)
    region = parser.add_mutually_exclusive_group(required=True)
    region.add_argument("--roi", type=Path, help="an image of the region")
    region.add_argument(
        "--xyz", type=float, nargs=3, metavar=("X", "Y", "Z"), help="a point in mm of MNI"
    )
    parser.add_argument("--r", type=float, default=6.0, help="with --xyz: distance in mm")
    parser.add_argument("--sample-size", type=float, help="subjects of every analysis")
    parser.add_argument("--n-iters", type=int, default=5000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--space", default="mni152_2mm", help="a mask image, or mni152_2mm")
    given = parser.parse_args()
    paths = macm(
        given.corpus,
        given.out,
        roi=given.roi,
        xyz=given.xyz and tuple(given.xyz),
        r=given.r,
        sample_size=given.sample_size,
        n_iters=given.n_iters,
        random_state=given.seed,
        space=given.space,
    )
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
