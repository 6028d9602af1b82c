"""Chi-square maps of many groups of analyses out of one corpus, each against the rest; lazy.

A group is who has a feature, or who activates a target; who that is, is a sparse table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from nimare_dask import results
from nimare_dask.counting import Counting
from nimare_dask.kernels.targets import turn_counts
from nimare_dask.parallel import shapes
from nimare_dask.stats import chi2

#: Features of a block when a task holds whole maps; three arrays of 32 maps at 2 mm are 90 MB.
FEATURE_CHUNK = 32


def maps_of_features(
    job: Counting,
    names: Sequence[str],
    membership: csr_matrix,
    *,
    prior: float | None,
    whole_maps: bool,
    with_counts: bool = False,
    coords: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Lay out the maps of groups that are compared with the rest.

    Parameters
    ----------
    job
        Counts active analyses.
    names
        A name for each group, (feature,).
    membership
        Who is in which, boolean and sparse, (analysis, feature).
    prior
        Prior probability of a group, or None.
    whole_maps
        Blocks of groups with all voxels in each; else blocks of voxels with all groups in each.
    with_counts
        Add ``n_both``, the active analyses of each group, int32 (feature, voxel).
    coords
        Further coordinates.

    Returns
    -------
    maps
        What :meth:`~nimare_dask.estimators.mkda_chi2.MKDAChi2.fit_features` returns.
    """
    n_voxels, n = job.space.n_voxels, job.foci.n_analyses
    n_selected = np.asarray(membership.sum(axis=0)).ravel().astype(np.int64)
    step = _feature_chunk(len(names)) if whole_maps else len(names)
    chunk = shapes.voxel_chunk(n_voxels, 8 * len(names))
    counts, blocks, both = [], [], []
    for start in range(0, len(names), step):
        part = slice(start, start + step)
        members = membership[:, part]
        counts.append(job.by_group(members) if whole_maps else job.by_voxel(members, chunk))
        expected = job.expected(members)
        blocks.append(_lazy_maps(counts[-1], expected, n_selected[part], n, prior))
        both.append([shapes.counts_to_maps(turn_counts, counts[-1], dtype=np.int32)])
    arrays = {
        name: shapes.assemble([block[name] for block in blocks]) for name in (*chi2.MAPS, "prob")
    }
    variables: dict[str, Any] = {
        **{name: (("effect", "feature", "voxel"), arrays[name]) for name in chi2.MAPS},
        "prob": (("probability", "feature", "voxel"), arrays["prob"]),
    }
    if with_counts:
        variables["n_both"] = (("feature", "voxel"), shapes.assemble(both)[0])
    return results.as_result(
        variables,
        job.space,
        {
            "n_active": ("voxel", counts[0][:, -1]),
            "n_selected": ("feature", n_selected),
            "effect": labels("effect", ["uniformity", "association"]),
            "probability": labels("probability", list(chi2.probability_names(prior))),
            "feature": labels("feature", names),
            **(coords or {}),
        },
    )


def labels(dim: str, names: Sequence[str]) -> tuple[str, NDArray[Any]]:
    """Text labels along a dimension."""
    return dim, np.array(list(names), dtype=np.dtypes.StringDType())


def _lazy_maps(
    counts: Any, expected: Any, n_selected: NDArray[np.int64], n: int, prior: float | None
) -> dict[str, list[Any]]:
    """Lazy maps (feature, voxel) of one block of features: one for each effect or probability."""
    maps: dict[str, list[Any]] = {}
    for name in chi2.MAPS:
        first = partial(chi2.uniformity, n_selected=n_selected, name=name)
        second = partial(chi2.association, n_selected=n_selected, n=n, name=name)
        maps[name] = [
            shapes.counts_to_maps(first, counts, expected=expected),
            shapes.counts_to_maps(second, counts),
        ]
    maps["prob"] = [
        shapes.counts_to_maps(
            partial(chi2.probability, n_selected=n_selected, n=n, prior=prior, name=name), counts
        )
        for name in chi2.probability_names(prior)
    ]
    return maps


def _feature_chunk(n_features: int) -> int:
    """Features of a block, in whole chunks of a saved result; fewer where there are few features.

    It does not depend on the workers, so that maps are gone on with on any number of them.
    """
    return min(FEATURE_CHUNK, max(16, -(-n_features // (8 * 16)) * 16))
