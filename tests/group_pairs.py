"""Two groups of analyses in a small space, their null iterations, and what the reference says.

No tolerance here is chosen: each is worked out from what is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats

import nimare_dask as nd
from nimare_dask.estimators.two_groups import Pooled, pool
from nimare_dask.kernels import difference, exceed
from nimare_dask.nulls.label_counts import LabelCounts
from nimare_dask.nulls.redraw import Redraw
from nimare_dask.nulls.subtraction import Subtraction
from tests import slow
from tests.foci import draw_foci, make_corpus
from tests.groups import SPACE, with_foci
from tests.reference import two_groups as reference
from tests.reference.kernel import mkda_maps

ZOOMS = SPACE.zooms.tolist()
R, FWHM = 15.0, 24.0
CHI2 = nd.MKDAChi2(kernel=nd.MKDAKernel(r=R))
ALE = nd.ALESubtraction(kernel=nd.ALEKernel(fwhm=FWHM))
#: Uncorrected p of the voxels of a cluster, and the chi-square that it is.
P = 0.05
CHI2_THRESH = float(stats.chi2.isf(P, 1))
#: Absolute difference of ALE that some voxels of each iteration are above, but not many.
ALE_THRESH = 0.03
EFFECTS, INFERENCES = reference.EFFECTS, reference.INFERENCES

#: Share of a chi-square that rounding takes: z is rounded to float32 by up to 2 ** -24 of it, twice
#: that in its square. What float64 adds before is a few of 2 ** -53, more where a count is near the
#: mean and the difference is small, but below 2 ** -40 wherever that is at least a thousandth of n.
CHI2_ERROR = 2.0**-23 + 2.0**-40


def mass_error(mass: Any, size: Any, threshold: float) -> Any:
    """How far the mass of clusters of chi-square may be off.

    Each voxel adds the error of its chi-square, which add up to mass + size * threshold, and half a
    unit of mass. Where another cluster is the largest, both are within that of each other.
    """
    return CHI2_ERROR * (mass + size * threshold) + size * 0.5 / exceed.MASS_SCALE


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups out of one corpus, whose analyses are in the order of their ids."""

    corpus: xr.Dataset
    in_first: NDArray[np.bool_]  # (analysis of the corpus,)

    @property
    def first(self) -> xr.Dataset:
        return nd.select(self.corpus, self.in_first)

    @property
    def second(self) -> xr.Dataset:
        return nd.select(self.corpus, ~self.in_first)

    @property
    def swapped(self) -> Pair:
        return Pair(self.corpus, ~self.in_first)

    @cached_property
    def some(self) -> xr.Dataset:
        """The analyses that count, as a shuffle has them."""
        return with_foci(self.corpus)

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Positions of group 1 in those, (member,)."""
        return np.flatnonzero(self.in_first[self.corpus["analysis_n_foci"].values > 0])

    @cached_property
    def active(self) -> NDArray[np.bool_]:
        """Activation by the slow reference, (analysis, voxel)."""
        return mkda_maps(slow.voxels_by_analysis(self.some, SPACE), SPACE.mask, ZOOMS, R)

    @cached_property
    def activation(self) -> NDArray[np.float32]:
        """The same in probabilities, for ALE."""
        volumes = slow.ale_volumes(self.some, SPACE, [FWHM] * self.some.sizes["analysis"])
        return np.stack([volume[SPACE.mask] for volume in volumes])

    @cached_property
    def pooled(self) -> Pooled:
        return pool(self.first, self.second, SPACE)

    def label_counts(self, p: float | None = P, seed: int = 5) -> LabelCounts:
        return CHI2.permutation_job(
            self.pooled, random_state=seed, voxel_thresh=p, stat_thresh=None
        )

    def subtraction(
        self, stat_thresh: float | None = ALE_THRESH, seed: int = 5, p: float | None = None
    ) -> Subtraction:
        return ALE.permutation_job(
            self.pooled, random_state=seed, voxel_thresh=p, stat_thresh=stat_thresh
        )

    def redraw(self, chi2_thresh: float | None = CHI2_THRESH, seed: int = 5) -> Redraw:
        return Redraw(
            n_foci=self.pooled.foci.n_foci,
            in_first=self.pooled.in_first,
            columns=CHI2.kernel.footprint(SPACE),
            pool=SPACE.pool("brain"),
            mask=SPACE.mask,
            chi2_thresh=chi2_thresh,
            random_state=seed,
        )


#: Places in mm that groups and features report, where they have an effect.
PLACES = np.array([[0, 0, 8], [-24, -24, 0], [24, 8, 16], [0, 24, -8], [16, -32, 8], [-16, 8, 24]])


def with_effects(
    foci: Sequence[NDArray[np.float64]], reports: NDArray[np.bool_], seed: int
) -> list[NDArray[np.float64]]:
    """Foci with one more near a place for each that an analysis `reports`, (analysis, place)."""
    rng = np.random.default_rng(seed + 100)
    near = [place + np.round(rng.normal(0, 5, (len(foci), 3))) for place in PLACES]
    return [
        np.concatenate([part, *(near[at][row : row + 1] for at in np.flatnonzero(reports[row]))])
        for row, part in enumerate(foci)
    ]


@cache
def pair(n: int = 18, n_first: int = 7, seed: int = 0, *, effect: bool = False) -> Pair:
    """Groups that lie mixed in their corpus; two further analyses, one in each, have no foci.

    With an effect the analyses of each group report a place of their own.
    """
    rng = np.random.default_rng(seed)
    foci = draw_foci(seed, SPACE, n + 2, 4, empty=[1, n])
    in_first = np.zeros(n + 2, bool)
    in_first[rng.permutation(np.delete(np.arange(n + 2), [1, n]))[:n_first]] = True
    in_first[1] = True
    sizes = rng.choice([12.0, 15.5, 20, 31], n + 2)
    if effect:
        some = np.array([len(part) > 0 for part in foci])
        foci = with_effects(foci, np.stack([in_first & some, ~in_first & some], axis=1), seed)
    return Pair(make_corpus(foci).assign(analysis_sample_size=("analysis", sizes)), in_first)


@cache
def featured(n: int = 18, seed: int = 0) -> xr.Dataset:
    """Analyses with features that 3, 3, 7, 9, 12 and 15 of those with foci have.

    Each feature has a place that analyses which have it report.
    """
    rng = np.random.default_rng(seed + 1)
    weights = np.zeros((n + 2, 6))
    inside = np.delete(np.arange(n + 2), [1, n])
    for feature, size in enumerate([3, 3, 7, 9, 12, 15]):
        weights[rng.permutation(inside)[:size], feature] = 1.0
    foci = with_effects(draw_foci(seed, SPACE, n + 2, 4, empty=[1, n]), weights > 0, seed)
    weights[1] = 1.0  # an analysis without foci has all of them, and does not count
    return make_corpus(foci, weights)


def of_feature(corpus: xr.Dataset, feature: int) -> Pair:
    """The analyses that have a feature, and the others."""
    name = str(corpus["feature"].values[feature])
    return Pair(corpus, np.asarray(nd.has_label(corpus, name).values))


# what the reference says


def n_at_the_edge(ones: Any, twos: Any, n_first: int, n_second: int, threshold: float) -> int:
    """Voxels whose chi-square, of any effect, is within rounding of a threshold."""
    maps = [
        reference.association_chi2(ones, twos, n_first, n_second, 0.0)[0],
        reference.uniformity_chi2(ones, n_first)[0],
        reference.uniformity_chi2(twos, n_second)[0],
    ]
    return int((np.abs(np.array(maps) - threshold) <= CHI2_ERROR * threshold).sum())


def assert_chi2_maxima(found: Any, wanted: Any, threshold: float) -> None:
    """Maxima (..., inference) against those of the reference; sizes are equal."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    assert_allclose(found[..., 0], wanted[..., 0], rtol=CHI2_ERROR, atol=0)
    assert_array_equal(found[..., 1], wanted[..., 1])
    off = np.abs(found[..., 2] - wanted[..., 2])
    assert (off <= mass_error(wanted[..., 2], wanted[..., 1], threshold)).all()


def sum_error(job: Subtraction, activation: NDArray[Any]) -> NDArray[np.float64]:
    """How far a difference of ALE may be off before it is rounded to float32, (voxel,).

    -ln(1 - activation) of each active analysis is rounded to half a unit, and ALE is at most as far
    off as the sum; the reference rounds float64 a few times for each analysis.
    """
    n_active = (activation > 0).sum(axis=0)
    of_float64 = 4 * len(activation) * 2.0**-53
    error: NDArray[np.float64] = 0.5 * n_active / job.statistic.scale + of_float64
    return error


def difference_error(job: Subtraction, activation: NDArray[Any]) -> NDArray[np.float64]:
    """The same of a difference in float32, (voxel,), which is never above ALE of all."""
    whole = reference.ale_of(activation, np.arange(len(activation)))
    error: NDArray[np.float64] = sum_error(job, activation) + 2.0**-24 * whole
    return error


def assert_difference_maxima(found: Any, wanted: Any, error: NDArray[np.float64]) -> None:
    """Maxima (iteration, inference) against those of the reference; sizes are equal."""
    found, wanted, most = np.asarray(found), np.asarray(wanted), float(error.max())
    assert found.shape == wanted.shape
    assert (np.abs(found[:, 0] - wanted[:, 0]) <= most).all()
    if found.shape[1] > 1:
        assert_array_equal(found[:, 1], wanted[:, 1])
        each = most + 0.5 / difference.MASS_SCALE
        assert (np.abs(found[:, 2] - wanted[:, 2]) <= each * wanted[:, 1]).all()


def fisher_yates(raw: Sequence[int], n: int) -> list[int]:
    """The first places of a shuffle, by whole numbers of Python."""
    order = list(range(n))
    for at, number in enumerate(raw):
        other = at + ((int(number) * (n - at)) >> 64)
        order[at], order[other] = order[other], order[at]
    return order[: len(raw)]


# the four nulls, through the functions that people call

KINDS = ["chi2", "random foci", "features", "ale"]
FEATURE_SIZES = [3, 7, 9, 12, 15]


def run(kind: str, n_iters: int = 30, **settings: Any) -> xr.Dataset:
    """One of the four nulls of the small pair."""
    given: dict[str, Any] = {"space": SPACE, "n_iters": n_iters, "random_state": 5}
    given |= {"voxel_thresh": P, **settings}
    groups = pair().first, pair().second
    makers: dict[str, Callable[[], xr.Dataset]] = {
        "chi2": lambda: nd.label_permutation_null(CHI2, *groups, **given),
        "random foci": lambda: nd.random_foci_null(CHI2, *groups, **given),
        "features": lambda: nd.feature_null(
            featured(), **{"sizes": FEATURE_SIZES, "estimator": CHI2, **given}
        ),
        "ale": lambda: nd.label_permutation_null(ALE, *groups, **given),
    }
    return makers[kind]()


def null_names(null: xr.Dataset) -> list[str]:
    return [str(name) for name in null.data_vars if str(name).startswith("null_")]


def assert_same_null(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Everything that iterations leave behind, bit by bit."""
    names = null_names(expected)
    assert "null_max" in names and null_names(found) == names
    for name in names:
        one, other = found[name], expected[name]
        assert one.dtype == other.dtype and one.dims == other.dims
        assert one.dtype.itemsize == 8
        assert_array_equal(one.values.view(np.int64), other.values.view(np.int64), err_msg=name)
        for dim in set(one.dims) & set(expected.coords):
            assert_array_equal(found[dim].values, expected[dim].values)
