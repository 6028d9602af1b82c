"""Groups of analyses with sample sizes in a small space, all from a seed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nimare_dask.selection import select
from nimare_dask.space import voxel_to_mm
from tests.builders import small_space
from tests.foci import draw_foci, make_corpus

#: About 600 voxels of 8 mm. Gaussians have to be wide there: the histogram of ALE has a bin for
#: each 1e-5 of activation, and the slow reference combines bin by bin.
SPACE = small_space()
#: Analyses of a group that have no foci.
EMPTY = (3, 6)


def group(seed: int = 0, n: int = 9) -> xr.Dataset:
    """Analyses of foci in two spaces, in and around the volume, some without any."""
    foci = draw_foci(seed, SPACE, n, 4, empty=[place for place in EMPTY if place < n])
    rng = np.random.default_rng(seed)
    codes = np.repeat(rng.integers(0, 2, n), [len(part) for part in foci])
    corpus = make_corpus(foci, spaces=["MNI", "TAL"], codes=codes.tolist())
    return corpus.assign(
        analysis_sample_size=("analysis", rng.choice([12.0, 15.5, 20, 31], n)),
        analysis_inference=("analysis", np.resize(["random", "Fixed", "FFX", ""], n)),
    )


def anywhere(seed: int, n: int = 20) -> xr.Dataset:
    """Analyses whose foci fall anywhere in the mask, as the nulls take them."""
    rng = np.random.default_rng(seed)
    foci = []
    for n_foci in rng.integers(1, 5, n):
        places = SPACE.voxel_ijk[rng.integers(0, SPACE.n_voxels, n_foci)]
        foci.append(voxel_to_mm(places, SPACE.affine))
    sizes = rng.choice([12.0, 15.5, 20, 31], n)
    return make_corpus(foci).assign(analysis_sample_size=("analysis", sizes))


def with_foci(corpus: xr.Dataset) -> xr.Dataset:
    """The analyses that count."""
    return select(corpus, corpus["analysis_n_foci"].values > 0)
