"""Null iterations, Monte Carlo FWE and SCALE against NiMARE 0.22.1, of the same relocated foci."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats

from nimare_dask.activation import foci_pool
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.kda import KDA
from nimare_dask.estimators.scale import SCALE
from nimare_dask.footprint import ALEKernel
from nimare_dask.fwe import correct_fwe
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.nulls.relocation import from_dataset
from tests.parity.agreement import (
    assert_fits_agree,
    assert_fwe_agrees,
    assert_histograms_agree,
    assert_maxima_agree,
    histogram_of,
    maps_of,
    n_active,
    stat_error,
)
from tests.parity.cases import CASES, Case, ale, fitted, peer_mask, space, studies
from tests.parity.peer import ONE_FLOAT32, quiet
from tests.parity.peer_cbma import (
    Arrays,
    Iterations,
    corpus_of,
    peer_correct,
    peer_fit,
    peer_iterations,
    peer_module,
    peer_threshold,
)

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

N_ITERS = 15
FAST = ["pain ale", "pain mkda", "pain mkda by size", "pain kda"]
SLOW_NAMES = ["pain ale of 8 mm", "pain mkda discounted", "laird ale", "laird mkda", "laird kda"]
SLOW_NAMES += ["nback part ale", "nback mkda", "nback kda"]
NAMES = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NAMES)]
LEVELS = {
    "voxel": "level-voxel",
    "size": "desc-size_level-cluster",
    "mass": "desc-mass_level-cluster",
}


@dataclass(frozen=True)
class Iterated:
    """The same relocations by both."""

    null: xr.Dataset
    foci: list[NDArray[Any]]
    theirs: Iterations
    corpus: xr.Dataset

    def error(self, case: Case, stat: Any) -> NDArray[np.float64]:
        """Of a statistic of relocated foci."""
        n = self.corpus.sizes["analysis"]
        return stat_error(case.estimator, self.corpus, space(), stat, n)


@cache
def iterated(name: str) -> Iterated:
    case, fits = CASES[name], fitted(name)
    studyset, corpus = studies(case.studyset)
    null = monte_carlo_null(
        case.estimator, corpus, space=space(), n_iters=N_ITERS, random_state=0, maps=fits.ours
    )
    foci = drawn(null)
    threshold = peer_threshold(fits.result)
    assert null.attrs["stat_thresh"] == threshold
    theirs = peer_iterations(case.kind, studyset, space(), foci, threshold, **case.settings)
    return Iterated(null, foci, theirs, corpus)


@cache
def corrected(name: str) -> tuple[Arrays, Arrays]:
    """The peer's Monte Carlo FWE of the same relocations, and its maxima."""
    return peer_correct(fitted(name).result, "montecarlo", ijk=iterated(name).foci)


def drawn(null: xr.Dataset) -> list[NDArray[Any]]:
    """Where foci fell in each iteration of ours."""
    job = from_dataset(null)
    return [job.draw(iteration) for iteration in range(null.sizes["iteration"])]


# iterations


@pytest.mark.parametrize("name", NAMES)
def test_maxima_of_every_iteration(name: str) -> None:
    both = iterated(name)
    assert_maxima_agree(both.null, both.theirs, both.error(CASES[name], both.theirs.max_stat))
    if name != "laird kda":  # whose threshold is nearly never reached
        assert (both.theirs.max_size > 0).sum() > 2


@pytest.mark.parametrize("name", NAMES)
def test_fit__null_of_iterations(name: str) -> None:
    case, both = CASES[name], iterated(name)
    studyset, corpus = studies(case.studyset)
    maps, nulls, result = peer_fit(
        case.kind, studyset, space(), null_method="montecarlo", ijk=both.foci, **case.settings
    )
    stat = both.theirs.stat
    assert_histograms_agree(both.null, nulls, stat, both.error(case, stat))
    if case.estimator.kernel.union and "ale" not in name:
        assert_array_equal(both.null["null_histogram"].values, histogram_of(nulls))
    # p of the same histogram: the peer's.
    weights = both.null["null_histogram"].copy(data=histogram_of(nulls))
    same = both.null.assign(null_histogram=weights)
    ours = case.estimator.fit(corpus, space=space(), null_method="montecarlo", null=same)
    assert_fits_agree(ours, maps, nulls, fitted(name).error, most=case.most)
    if not np.any(fitted(name).error):
        check_voxel_fwe_of_bins(ours, both.null, result)


def check_voxel_fwe_of_bins(ours: xr.Dataset, null: xr.Dataset, result: Any) -> None:
    """The peer's short cut keeps the bins of maxima, and so has no p below that of the last one.

    Of counts bins are exact, so that is the only difference.
    """
    theirs, nulls = peer_correct(result, "montecarlo", vfwe_only=True)
    counts = nulls["histweights_level-voxel_corr-fwe_method-montecarlo"]
    last = counts[counts > 0][-1] / N_ITERS
    p = correct_fwe(ours, null)["p_fwe"].sel(inference="voxel").values
    floored = np.maximum(p, np.float32(last))
    found = theirs["logp_level-voxel_corr-FWE_method-montecarlo"]
    assert np.abs(-np.log10(floored) - found).max() < 2 * ONE_FLOAT32
    assert (p < floored).any() == (last > 1 / N_ITERS)


@pytest.mark.parametrize("name", NAMES)
def test_correct_fwe(name: str) -> None:
    both, fits = iterated(name), fitted(name)
    theirs, nulls = corrected(name)
    ours = maps_of(correct_fwe(fits.ours, both.null), without=fits.ours)
    assert len(theirs) == 6 and len(ours) == 9
    assert_fwe_agrees(ours, theirs, nulls, fits.maps["stat"], fits.error)
    levels = len(np.unique(theirs["logp_level-voxel_corr-FWE_method-montecarlo"]))
    assert levels > 1
    for inference, end in LEVELS.items():
        # The peer stores them as float32.
        kept = nulls[f"values_{end}_corr-fwe_method-montecarlo"]
        assert_array_equal(kept, getattr(both.theirs, _MEASURES[inference]).astype(np.float32))


_MEASURES = {"voxel": "max_stat", "size": "max_size", "mass": "max_mass"}


@pytest.mark.slow
def test_correct_fwe__other_settings() -> None:
    # Another cluster-forming threshold, in grey matter, in the peer's mask.
    where, case = peer_mask(), CASES["pain mkda"]
    studyset, corpus = studies("pain")
    ours = case.estimator.fit(corpus, space=where)
    null = monte_carlo_null(
        case.estimator,
        corpus,
        space=where,
        n_iters=N_ITERS,
        random_state=1,
        voxel_thresh=0.01,
        coverage="gm",
        maps=ours,
    )
    maps, _, result = peer_fit(case.kind, studyset, where, mask_coverage="gm")
    theirs, nulls = peer_correct(result, "montecarlo", voxel_thresh=0.01, ijk=drawn(null))
    found = maps_of(correct_fwe(ours, null), without=ours)
    assert_fwe_agrees(found, theirs, nulls, maps["stat"], np.zeros(where.n_voxels))


def test_correct_fwe__voxels_in_no_cluster_have_p_of_1_here_only() -> None:
    both, fits = iterated("pain ale"), fitted("pain ale")
    theirs, _ = corrected("pain ale")
    outside = fits.ours["stat"].values <= both.null.attrs["stat_thresh"]
    ours = correct_fwe(fits.ours, both.null)
    for inference in ("size", "mass"):
        assert (ours["logp_fwe"].sel(inference=inference).values[outside] == 0).all()
        peers = theirs[f"logp_{LEVELS[inference]}_corr-FWE_method-montecarlo"]
        assert_allclose(peers[outside], -np.log10(1 - 1 / N_ITERS), rtol=1e-5)


# the comparison can fail


@pytest.mark.parametrize("inference", ["voxel", "size", "mass"])
def test_maxima__slightly_wrong_ones_do_not_agree(inference: str) -> None:
    case, both = CASES["pain ale"], iterated("pain ale")
    maxima = both.null["null_max"].copy(deep=True)
    maxima.loc[{"inference": inference}] += {"voxel": 1e-7, "size": 1.0, "mass": 1e-5}[inference]
    with pytest.raises(AssertionError):
        assert_maxima_agree(
            both.null.assign(null_max=maxima),
            both.theirs,
            both.error(case, both.theirs.max_stat),
        )


def test_correct_fwe__another_iteration_does_not_agree() -> None:
    case, both, fits = CASES["pain mkda"], iterated("pain mkda"), fitted("pain mkda")
    theirs, nulls = corrected("pain mkda")
    other = monte_carlo_null(
        case.estimator,
        both.corpus,
        space=space(),
        n_iters=N_ITERS,
        random_state=5,
        maps=fits.ours,
    )
    ours = maps_of(correct_fwe(fits.ours, other), without=fits.ours)
    with pytest.raises(AssertionError, match="Not equal at"):
        assert_fwe_agrees(ours, theirs, nulls, fits.maps["stat"], fits.error)


# SCALE


@pytest.fixture(scope="module")
def pool() -> NDArray[np.float64]:
    return foci_pool(studies("laird")[1], space())


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"sample_size": 20}, marks=pytest.mark.slow)]
)
def test_scale(settings: dict[str, Any], pool: NDArray[np.float64]) -> None:
    studyset, corpus = studies("pain")
    estimator = SCALE(xyz=pool, kernel=ALEKernel(**settings))
    null = monte_carlo_null(estimator, corpus, space=space(), n_iters=N_ITERS, random_state=0)
    assert_array_equal(null["pool_ijk"].values, peer_module("utils").mm2vox(pool, space().affine))
    foci = drawn(null)
    maps, _, result = peer_fit("scale", studyset, space(), ijk=foci, **settings)
    theirs = peer_iterations("scale", studyset, space(), foci, 0.0, **settings)
    ours = estimator.fit(corpus, space=space(), null=null)
    error = stat_error(
        estimator, corpus, space(), maps["stat"], n_active(estimator, corpus, space())
    )
    assert (np.abs(ours["stat"].values.astype(np.float64) - maps["stat"]) <= error).all()
    assert_maxima_agree(null, theirs, stat_error(estimator, corpus, space(), theirs.max_stat, 21))
    differs = check_reaching(null, theirs.stat, maps["stat"], error, estimator, corpus)
    # Ours is 0 below half of its unit, which a kernel is at the corners of its box.
    assert 0 < differs.mean() < 0.01
    assert (differs & (maps["stat"] > 1e-9)).sum() < 100
    assert set(maps) == {"stat", "logp", "z"} == {key for key in maps_of(ours)} - {"p"}
    logp = np.maximum(ours["logp"].values, np.float32(-np.log10(1 - 1 / N_ITERS)))
    for values, peers in ((logp, maps["logp"]), (ours["z"].values, maps["z"])):
        assert (np.abs(values - peers) <= ONE_FLOAT32 * (np.abs(peers) + 1))[~differs].all()
    fwe, nulls = peer_correct(result, "montecarlo", ijk=foci)
    assert len(fwe) == 2
    found = maps_of(correct_fwe(ours, null), without=ours)
    assert_fwe_agrees(found, fwe, nulls, maps["stat"], error)


def check_reaching(
    null: xr.Dataset,
    iterations: Any,
    stat: Any,
    error: Any,
    estimator: SCALE,
    corpus: xr.Dataset,
) -> NDArray[np.bool_]:
    """Which voxels another number of iterations reach: by no more than are within rounding."""
    reaching = null["null_reaching"].values - (iterations >= stat).sum(axis=0)
    both = error + stat_error(estimator, corpus, space(), iterations, 21)
    near = (np.abs(iterations.astype(np.float64) - stat) <= both).sum(axis=0)
    assert (np.abs(reaching) <= near).all()
    differs: NDArray[np.bool_] = reaching != 0
    return differs


# each with its own random numbers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pain ale", "pain mkda", "pain kda"])
def test_null_distributions__of_own_random_numbers(name: str) -> None:
    case = CASES[name]
    whole, _ = studies(case.studyset)
    with quiet():
        studyset = whole.slice(whole.ids[:20].tolist())
    corpus = corpus_of(studyset)
    _, _, result = peer_fit(case.kind, studyset, space(), random_state=0)
    _, theirs = peer_correct(result, "montecarlo", n_iters=300)
    ours = monte_carlo_null(case.estimator, corpus, space=space(), n_iters=300, random_state=0)
    for inference, end in LEVELS.items():
        mine = ours["null_max"].sel(inference=inference).values
        peers = theirs[f"values_{end}_corr-fwe_method-montecarlo"]
        assert stats.ks_2samp(mine.astype(np.float32), peers).pvalue > 0.001


# where the two differ on purpose


def test_iterations__fractional_sample_sizes_are_exact_here_and_rounded_there() -> None:
    studyset, corpus = studies("pain fractions")
    null = monte_carlo_null(
        ale(), corpus, space=space(), n_iters=5, random_state=0, voxel_thresh=None
    )
    theirs = peer_iterations("ale", studyset, space(), drawn(null), 0.01)
    sizes = corpus["analysis_sample_size"]
    rounded = corpus.assign(analysis_sample_size=sizes.copy(data=np.round(sizes.values)))
    as_theirs = monte_carlo_null(
        ale(), rounded, space=space(), n_iters=5, random_state=0, voxel_thresh=None
    )
    error = stat_error(ale(), corpus, space(), theirs.max_stat, 21)
    assert_maxima_agree(as_theirs, theirs, error)
    differs = np.abs(null["null_max"].values[:, 0] - theirs.max_stat)
    assert (differs > 1000 * error).any()


def test_iterations__a_refit_of_the_peer_keeps_the_plan_of_other_analyses() -> None:
    # Appendix C 16: the plan is known by the number of foci alone. Ours has no state.
    studyset, changed = studies("pain")[0], studies("pain fractions")[0]
    fits, both = fitted("pain ale"), iterated("pain ale")
    with quiet():
        estimator = peer_module("meta.cbma.ale").ALE(mask=fits.result.estimator.masker)
        stats_of = []
        for one in (changed, studyset):
            estimator.fit(one)
            frame = estimator.inputs_["coordinates"].drop(columns=["x", "y", "z"])
            stats_of.append(estimator._compute_permutation_summarystat(both.foci[0], frame))
    assert_array_equal(stats_of[0], stats_of[1])
    assert np.abs(stats_of[1] - both.theirs.stat[0]).max() > 1e-5


def test_estimators__with_the_kernel_of_another_are_refused_here_only() -> None:
    # Appendix C 17: the peer fits, and its iterations have the statistic of the kernel.
    with pytest.raises(SettingsError, match="kernel of KDA is a ALEKernel"):
        KDA(kernel=ALEKernel())  # type: ignore[arg-type]
    with quiet():
        kernel = peer_module("meta.kernel").ALEKernel
        peer_module("meta.cbma.mkda").KDA(kernel_transformer=kernel)
