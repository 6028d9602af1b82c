"""A whole fit of one group of analyses by the slow reference: volumes, statistic, null and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from nimare_dask.space import Space
from nimare_dask.stats.pz import P_FLOOR
from tests.reference import gaussian, nulls, pvalues, summary
from tests.reference.space import lancaster_mni2tal, lancaster_tal2mni, mm_to_voxel

Volumes = list[NDArray[Any]]

#: A rounding to float32 or two.
FLOAT32 = 2.5e-7


@dataclass(frozen=True)
class Slow:
    """What a fit should give."""

    stat: NDArray[np.float64]  # (voxel,)
    null_weight: NDArray[np.float64]  # (bin,)
    bins: NDArray[np.float64]  # (bin,)

    def p(self, shift: float = 0.0) -> NDArray[np.float64]:
        """The p value of the statistic, or of one that is higher by `shift`."""
        return nulls.nullhist_to_p(self.stat + shift, self.null_weight, self.bins)

    def maps(self, shift: float = 0.0) -> dict[str, NDArray[np.float64]]:
        """Maps p, z and logp."""
        nlogp = np.log(self.p(shift))
        return {
            "p": np.maximum(np.exp(nlogp), P_FLOOR),
            "z": pvalues.nlogp_to_z(nlogp, "one"),
            "logp": -nlogp / np.log(10),
        }


def check(found: xr.Dataset, expected: Slow, *, near: float = 1e-8) -> None:
    """All that a fit gives; statistics within `near` of the edge of a bin may be on either side."""
    assert_allclose(found["stat"], expected.stat, rtol=FLOAT32, atol=near)
    assert_allclose(found["bin_center"], expected.bins, rtol=1e-12)
    assert_allclose(found["null_weight"], expected.null_weight, rtol=1e-11, atol=1e-300)
    low, high = expected.maps(-near), expected.maps(near)
    sure = low["p"] == high["p"]
    assert sure.mean() > 0.97
    for name, values in expected.maps().items():
        assert found[name].dtype == np.float32
        assert found[name].dims == ("voxel",)
        # z near 0 is a difference from 0.5.
        assert_allclose(found[name][sure], values[sure], rtol=FLOAT32, atol=1e-14, err_msg=name)
        ends = np.sort([low[name], high[name]], axis=0) * [[1 - FLOAT32], [1 + FLOAT32]]
        assert ((found[name] >= ends[0]) & (found[name] <= ends[1])).all()


def voxels_by_analysis(corpus: xr.Dataset, space: Space) -> list[NDArray[np.int64]]:
    """Voxel indices of the foci of each analysis; spaces are Talairach (`TAL`) or MNI."""
    xyz = corpus["focus_xyz"].values.copy()
    for code, name in enumerate(corpus.attrs["spaces"]):
        here = corpus["focus_space"].values == code
        if name == "TAL" and space.reference == "MNI":
            xyz[here] = lancaster_tal2mni(xyz[here])
        elif name != "TAL" and space.reference == "TAL":
            xyz[here] = lancaster_mni2tal(xyz[here])
    ijk = mm_to_voxel(xyz, space.affine)
    return np.split(ijk, np.cumsum(corpus["analysis_n_foci"].values)[:-1])


def ale_volumes(corpus: xr.Dataset, space: Space, widths: Sequence[float]) -> Volumes:
    """Gaussians of each analysis, of its width in mm."""
    zooms = space.zooms.tolist()
    return [
        gaussian.ale_modelled_activation(ijk, gaussian.ale_kernel(width, zooms), space.shape)
        for ijk, width in zip(voxels_by_analysis(corpus, space), widths, strict=True)
    ]


def mkda_volumes(corpus: xr.Dataset, space: Space, r: float) -> Volumes:
    """Unions of spheres."""
    return [
        summary.mkda_modelled_activation(ijk, space.shape, space.zooms.tolist(), r)
        for ijk in voxels_by_analysis(corpus, space)
    ]


def kda_volumes(corpus: xr.Dataset, space: Space, r: float) -> Volumes:
    """Sums of spheres."""
    return [
        summary.kda_modelled_activation(ijk, space.shape, space.zooms.tolist(), r)
        for ijk in voxels_by_analysis(corpus, space)
    ]


def _histograms(
    volumes: Volumes, space: Space, bins: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    return [nulls.study_histogram(volume[space.mask], space.n_voxels, bins) for volume in volumes]


def fit_ale(volumes: Volumes, ids: Sequence[str], space: Space) -> Slow:
    """ALE, whose null is folded in the order of sorted ids."""
    bins = nulls.ale_bins([volume[space.mask].max() for volume in volumes])
    histograms = _histograms(volumes, space, bins)
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    weights = nulls.ale_fold([histograms[place] for place in order], bins)
    return Slow(stat=summary.ale(volumes)[space.mask], null_weight=weights, bins=bins)


def fit_mkda(volumes: Volumes, space: Space) -> Slow:
    """MKDA density of equal weights."""
    q = [float(volume[space.mask].mean()) for volume in volumes]
    return Slow(
        stat=summary.mkda(volumes)[space.mask],
        null_weight=nulls.poisson_binomial(q),
        bins=np.arange(len(volumes) + 1.0),
    )


def fit_weighted_mkda(
    volumes: Volumes, weights: NDArray[np.float64], n_bins: int, space: Space
) -> Slow:
    """MKDA density of weights."""
    q = [float(volume[space.mask].mean()) for volume in volumes]
    bins = nulls.mkda_weighted_bins(weights, n_bins)
    return Slow(
        stat=summary.mkda(volumes, weights.tolist())[space.mask],
        null_weight=nulls.weighted_poisson_binomial(q, weights, bins),
        bins=bins,
    )


def fit_kda(volumes: Volumes, n_foci: int, space: Space) -> Slow:
    """KDA."""
    bins = nulls.kda_bins(1.0, n_foci)
    return Slow(
        stat=summary.kda(volumes)[space.mask],
        null_weight=nulls.kda_fold(_histograms(volumes, space, bins), bins),
        bins=bins,
    )
