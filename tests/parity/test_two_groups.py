"""Chi-square and ALE subtraction under shuffled labels against NiMARE 0.22.1, of the same shuffles.

Ours draws, and the peer gets its draws; see peer_two_groups.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy import stats
from scipy.stats import distributions

from nimare_dask.contrasts import conjunction, contrast
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.ale_subtraction import ALESubtraction
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.footprint import MKDAKernel
from nimare_dask.fwe import correct_fwe
from nimare_dask.nulls.jobs import below, raw_numbers
from nimare_dask.nulls.label_permutation import label_permutation_null, random_foci_null
from nimare_dask.nulls.redraw import Redraw
from nimare_dask.nulls.stored import job_of
from tests.parity.agreement import assert_within, generic_error, maps_of
from tests.parity.cases import SIZE_20, ale, space
from tests.parity.peer import ONE_FLOAT32, assert_corrected_within, assert_maps_agree
from tests.parity.peer_two_groups import (
    EFFECTS,
    Compared,
    chosen_by_nimare,
    nimare_shuffle,
    peer_chi2,
    peer_chi2_of_foci,
    peer_contrast,
    peer_subtraction,
    shuffles_of,
)
from tests.parity.two_group_agreement import (
    DIFFERENCE,
    assert_capped_alike,
    assert_chi2_maxima_agree,
    assert_counts_agree,
    assert_fwe_agrees,
    assert_subtraction_maxima_agree,
    assert_tested_alike,
    difference_error,
    maxima_of,
    near_maxima,
    near_of_difference,
    same_divisions,
)
from tests.parity.two_group_cases import Name, Pair, groups, neurosynth

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

N_ITERS = 12
#: Chi-square of so few analyses has no voxels beyond the usual threshold.
THRESH = 0.05

SUBTRACTIONS: dict[str, tuple[Name, dict[str, Any]]] = {
    "pain": ("pain", {}),
    "pain few": ("pain few", {}),
    "pain of 8 mm": ("pain", {"fwhm": 8.0}),
    "nback part": ("nback part", SIZE_20),
}
CHI2: dict[str, tuple[Name, float]] = {"pain": ("pain", 10), "nback part": ("nback part", 6)}


def named(*names: str, fast: str) -> list[Any]:
    """Cases to test; all but one are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name != fast)) for name in names]


@dataclass(frozen=True)
class Both:
    """The same shuffles by both."""

    pair: Pair
    shuffles: NDArray[np.int64]
    null: xr.Dataset
    maps: xr.Dataset
    theirs: Compared


def drawn(null: xr.Dataset) -> list[NDArray[np.integer]]:
    """Positions of group 1 in the sorted ids of both groups, in each iteration."""
    job: Any = job_of(null)
    return [np.sort(job.chosen(iteration)) for iteration in range(null.sizes["iteration"])]


# ALE subtraction


@dataclass(frozen=True)
class Subtracted(Both):
    """ALE subtraction, which the peer does twice: `theirs` is unrounded."""

    error: NDArray[np.float64]  # of a difference, (voxel,)
    same: NDArray[np.bool_]  # see same_divisions, (iteration, voxel)

    def other_counts(self, null: xr.Dataset | None = None) -> NDArray[np.bool_]:
        """Voxels where counts differ by rounding, (voxel,)."""
        null = self.null if null is None else null
        return assert_counts_agree(null, self.theirs, self.error, self.same, most=0.1)


def subtract(pair: Pair, kernel: dict[str, Any], n_iters: int = N_ITERS) -> Subtracted:
    estimator = ALESubtraction(kernel=ale(**kernel).kernel)
    settings: dict[str, Any] = {"space": space(), "n_iters": n_iters, "random_state": 0}
    args = (estimator, pair.first, pair.second)
    chosen = drawn(label_permutation_null(*args, **settings, voxel_thresh=None))
    shuffles = shuffles_of(chosen, pair.first, pair.second)
    theirs = peer_subtraction(pair.studysets, space(), shuffles=shuffles, rounded=False, **kernel)
    # Ours takes the threshold from iterations of its own.
    thresh = float(theirs.nulls["summary_stat_thresh_level-voxel_corr-fwe_method-montecarlo"])
    null = label_permutation_null(*args, **settings, stat_thresh=thresh)
    maps = estimator.fit(pair.first, pair.second, space=space(), null=null)
    error = difference_error(ale(**kernel), pair, space())
    same = same_divisions(ale(**kernel), pair, space(), chosen)
    return Subtracted(pair, shuffles, null, maps, theirs, error, same)


@cache
def subtracted(name: str) -> Subtracted:
    studyset, kernel = SUBTRACTIONS[name]
    return subtract(groups(studyset), kernel)


def check_subtraction(both: Subtracted) -> None:
    """Maps of the fit: statistics, counts, and p, z and logp."""
    ours, theirs = maps_of(both.maps), both.theirs.maps
    assert set(ours) == set(theirs) and len(ours) == 12
    for name in (f"stat_desc-{DIFFERENCE}", "stat_desc-group1", "stat_desc-group2"):
        assert ours[name].dtype == theirs[name].dtype == np.float32
        assert_within(name, ours[name], theirs[name].astype(np.float64), both.error)
    other = both.other_counts()
    assert_tested_alike(ours, theirs, both.null.sizes["iteration"], ~other)
    for name in ("p_desc-group1", "p_desc-group2"):
        # The same as those of ALE, where test_cbma.py looks at each voxel.
        differs = np.abs(ours[name] - theirs[name]) > 1e-6 * theirs[name]
        assert differs.sum() <= 10, f"{name}: {differs.sum()} voxels are in another bin"


def check_subtraction_fwe(both: Subtracted, most: int = 5) -> None:
    n = both.null.sizes["iteration"]
    ours = maps_of(correct_fwe(both.maps, both.null), without=both.maps)
    assert len(both.theirs.corrected) == 9
    near = near_of_difference(both.theirs, both.maps, both.null, both.error)
    # z has the sign of the uncorrected z, which counts decide; where p is 1 here that is 0, and of
    # 1 - 1 / n there it is the side with more.
    sign = np.sign(both.maps["z"].values[0]) == sign_of(both.theirs)
    assert (sign | both.other_counts() | (both.maps["p"].values[0] == 1)).all()
    peers = {
        name: np.where(sign, values, ours[name]) if name.startswith("z_") else values
        for name, values in both.theirs.corrected.items()
    }
    assert_fwe_agrees(ours, peers, n, near, most=most)


def sign_of(theirs: Compared) -> NDArray[np.float32]:
    """Of the peer's uncorrected z."""
    signs: NDArray[np.float32] = np.sign(theirs.maps[f"z_desc-{DIFFERENCE}"])
    return signs


@pytest.mark.parametrize("name", named(*SUBTRACTIONS, fast="pain"))
def test_subtraction__maps(name: str) -> None:
    check_subtraction(subtracted(name))


@pytest.mark.parametrize("name", named(*SUBTRACTIONS, fast="pain"))
def test_subtraction__maxima_of_every_iteration(name: str) -> None:
    both = subtracted(name)
    assert_subtraction_maxima_agree(both.null, both.theirs, both.error)
    assert (maxima_of(both.theirs.nulls)["size"] > 0).all()


@pytest.mark.parametrize("name", named(*SUBTRACTIONS, fast="pain"))
def test_subtraction__correct_fwe(name: str) -> None:
    # Of six analyses a shuffle has the observed division, and so its masses.
    check_subtraction_fwe(subtracted(name), most=60 if name == "pain few" else 5)


def test_subtraction__peer_decides_ties_by_rounding() -> None:
    # It rounds the ALE of both groups to float32 before it compares their difference with those of
    # iterations, which it does not round. Where few analyses are active most iterations have the
    # same difference, and whether they count is chance: p is 1 / n where all that are as high are
    # a little lower. Ours compares whole numbers.
    both = subtracted("pain")
    rounded = peer_subtraction(both.pair.studysets, space(), shuffles=both.shuffles, vfwe_only=True)
    assert rounded.observed.dtype == np.float32
    assert_array_equal(rounded.differences, both.theirs.differences)
    exact = both.theirs.maps[f"p_desc-{DIFFERENCE}"]
    p = rounded.maps[f"p_desc-{DIFFERENCE}"]
    differs = p != exact
    distance = np.abs(both.theirs.differences - both.theirs.observed).min(axis=0)
    assert not differs[distance > np.abs(rounded.observed - both.theirs.observed)].any()
    assert (distance[differs] == 0).mean() > 0.99
    assert 50_000 < differs.sum() < 100_000
    smallest = 1.01 / N_ITERS
    assert (p < smallest).sum() > 2 * (exact < smallest).sum()


@pytest.mark.parametrize("restrict", [False, True])
def test_subtraction__with_inference_maps(restrict: bool) -> None:
    # Restricted to them the peer finds the same p: only its maxima are of fewer voxels.
    both = subtracted("pain")
    active = [both.theirs.maps[f"z_desc-group{group}"] > 2.5 for group in (1, 2)]
    assert all(100 < mask.sum() < 20_000 for mask in active)
    maps = (active[0].astype(np.float32), active[1].astype(np.float32))
    theirs = peer_subtraction(
        both.pair.studysets,
        space(),
        shuffles=both.shuffles,
        inference=maps,
        restrict=restrict,
        vfwe_only=True,
        rounded=False,
    )
    fitted = ALESubtraction().fit(
        both.pair.first,
        both.pair.second,
        space=space(),
        null=both.null,
        inference_map1=maps[0],
        inference_map2=maps[1],
    )
    ours = maps_of(fitted)
    other = both.other_counts()
    tested = (active[0] & (both.theirs.observed > 0)) | (active[1] & (both.theirs.observed < 0))
    assert tested.sum() > 1_000
    assert other[tested].mean() < 0.02
    for kind in ("p", "z", "logp"):
        name = f"{kind}_desc-{DIFFERENCE}"
        values, peers = ours[name].astype(np.float64), theirs.maps[name].astype(np.float64)
        assert_within(
            name, values[~other], peers[~other], ONE_FLOAT32 * (np.abs(peers) + 1.3)[~other]
        )
    assert (ours[f"p_desc-{DIFFERENCE}"][~tested] == 1).all()
    assert (ours[f"z_desc-{DIFFERENCE}"][~tested] == 0).all()


# chi-square


def compare_chi2(pair: Pair, r: float, voxel_thresh: float, n_iters: int = 5) -> Both:
    estimator = MKDAChi2(kernel=MKDAKernel(r=r))
    args = (pair.first, pair.second)
    null = label_permutation_null(
        estimator,
        *args,
        space=space(),
        n_iters=n_iters,
        voxel_thresh=voxel_thresh,
        random_state=0,
    )
    shuffles = shuffles_of(drawn(null), pair.first, pair.second)
    theirs = peer_chi2(pair.studysets, space(), shuffles=shuffles, voxel_thresh=voxel_thresh, r=r)
    return Both(pair, shuffles, null, estimator.fit(*args, space=space()), theirs)


@cache
def compared(name: str) -> Both:
    studyset, r = CHI2[name]
    return compare_chi2(groups(studyset), r, THRESH)


def check_chi2_fwe(both: Both) -> None:
    ours = maps_of(correct_fwe(both.maps, both.null), without=both.maps)
    assert len(both.theirs.corrected) == 36
    near = {}
    for effect, key in [*zip(EFFECTS, EFFECTS, strict=True), ("group1", "uniformity")]:
        chi2 = both.theirs.maps[f"chi2_desc-{effect}"].astype(np.float64)
        # The peer compares float64 maxima with a float32 map, ours squares of float32.
        error = 1.5 * ONE_FLOAT32 * chi2
        near[effect, "voxel"] = near_maxima(chi2, maxima_of(both.theirs.nulls, key)["voxel"], error)
    n = both.null.sizes["iteration"]
    assert_fwe_agrees(ours, both.theirs.corrected, n, near, most=MOST_ON_A_MAXIMUM)


#: Chi-squares of counts are few different numbers, so iterations have the largest one again.
MOST_ON_A_MAXIMUM = 50


@pytest.mark.parametrize("name", named(*CHI2, fast="pain"))
def test_chi2__maps(name: str) -> None:
    assert_maps_agree(maps_of(compared(name).maps), compared(name).theirs.maps)


@pytest.mark.parametrize("name", named(*CHI2, fast="pain"))
def test_chi2__maxima_of_every_iteration(name: str) -> None:
    both = compared(name)
    for effect in EFFECTS:
        peers = maxima_of(both.theirs.nulls, effect)
        assert_chi2_maxima_agree(both.null, peers, effect, float(distributions.chi2.isf(THRESH, 1)))
        assert (peers["size"] > 0).all()


@pytest.mark.parametrize("name", named(*CHI2, fast="pain"))
def test_chi2__correct_fwe(name: str) -> None:
    check_chi2_fwe(compared(name))


def test_chi2__random_foci() -> None:
    both = compared("pain")
    estimator, thresh = MKDAChi2(), 0.001
    null = random_foci_null(
        estimator, both.pair.first, both.pair.second, space=space(), n_iters=2, random_state=0
    )
    peers = peer_chi2_of_foci(both.theirs, foci_of(null), thresh)
    for row, effect in enumerate(EFFECTS):
        named_maxima = dict(zip(("voxel", "size", "mass"), peers[:, row].T, strict=True))
        assert_chi2_maxima_agree(
            null, named_maxima, effect, float(distributions.chi2.isf(thresh, 1))
        )


def foci_of(null: xr.Dataset) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Where foci of both groups fell in each iteration of ours."""
    job = job_of(null)
    assert isinstance(job, Redraw)
    found = []
    for iteration in range(null.sizes["iteration"]):
        raw = raw_numbers(job, iteration, int(job.n_foci.sum()))
        ijk = job.pool[below(raw, np.uint64(len(job.pool))).astype(np.intp)]
        of_first = np.repeat(job.in_first, job.n_foci)
        found.append((ijk[of_first], ijk[~of_first]))
    return found


@pytest.mark.slow
def test_chi2__random_foci_of_the_peer_move_nothing() -> None:
    # Appendix C 15: every iteration finds the reported foci again.
    both = compared("pain")
    theirs = peer_chi2(
        both.pair.studysets, space(), n_iters=3, null_method="random-foci", random_state=0
    )
    for effect in EFFECTS:
        found = maxima_of(theirs.nulls, effect)["voxel"]
        chi2 = theirs.maps[f"chi2_desc-{effect}"]
        np.testing.assert_allclose(found, chi2.max(), rtol=ONE_FLOAT32)


# contrasts: where a group has an effect


CONTRASTS: dict[str, tuple[ALESubtraction | MKDAChi2, ALE | MKDADensity, str, float]] = {
    "alesubtraction": (ALESubtraction(), ALE(), DIFFERENCE, 0.1),
    "mkdachi2": (MKDAChi2(), MKDADensity(), "association", 0.1),
}


@pytest.mark.parametrize("pairwise", ["alesubtraction", "mkdachi2"])
def test_contrast(pairwise: Literal["alesubtraction", "mkdachi2"]) -> None:
    both = subtracted("pain")
    estimator, main, effect, alpha = CONTRASTS[pairwise]
    args = (both.pair.first, both.pair.second)
    settings: dict[str, Any] = {"space": space(), "n_iters": N_ITERS, "random_state": 0}
    ours = maps_of(contrast(*args, pairwise=estimator, alpha=alpha, **settings))
    theirs, peers = peer_contrast(
        both.pair.studysets,
        space(),
        pairwise=pairwise,
        shuffles=both.shuffles,
        alpha=alpha,
        rounded=False,
    )
    assert set(ours) == set(theirs) | set(peers.maps)
    assert len(theirs) == 6
    mains = [f"z_desc-group{group}MainEffect" for group in (1, 2)]
    errors = []
    for name, corpus in zip(mains, args, strict=True):
        fit = main.fit(corpus, space=space())
        errors.append(generic_error(fit["logp"].values, fit["p"].values))
        assert_array_equal(ours[name] > 0, theirs[name] > 0, err_msg=name)
        assert 100 < (theirs[name] > 0).sum() < 10_000
        assert_corrected_within("z", ours[name], theirs[name], errors[-1])
    both_main = (ours[mains[0]] > 0) & (ours[mains[1]] > 0)
    assert_array_equal(ours["z_desc-conjunction"] > 0, both_main)
    assert_corrected_within(
        "z", ours["z_desc-conjunction"], theirs["z_desc-conjunction"], np.maximum(*errors)
    )
    # Where counts of shuffles are the same; chi-square has none.
    agree = ~both.other_counts() if pairwise == "alesubtraction" else np.ones(len(both_main), bool)
    found = theirs["z_desc-contrast"] != 0
    assert found.sum() > 50
    assert (found & ~agree).sum() < 0.01 * found.sum()
    assert_array_equal((ours["z_desc-contrast"] != 0)[agree], found[agree])
    for kind in ("p", "z", "logp"):
        for name in (f"{kind}_desc-contrast", f"{kind}_desc-{effect}"):
            values = ({**theirs, **peers.maps})[name].astype(np.float64)
            error = ONE_FLOAT32 * (np.abs(values) + (0 if kind == "p" else 1.3))
            assert_within(name, ours[name][agree], values[agree], error[agree])


def test_conjunction() -> None:
    both = subtracted("pain")
    fits = [ALE().fit(part, space=space()) for part in (both.pair.first, both.pair.second)]
    found = conjunction(fits[0], fits[1])
    peers = np.minimum(*(both.theirs.maps[f"z_desc-group{group}"] for group in (1, 2)))
    values = maps_of(found)["z_desc-conjunction"]
    np.testing.assert_allclose(values, peers, rtol=ONE_FLOAT32, atol=0)


# part of Neurosynth


@pytest.mark.slow
@pytest.mark.realdata
def test_neurosynth(tmp_path: Path, data_folder: Path) -> None:
    pair = neurosynth(tmp_path / "subset", data_folder / "neurosynth", 60, 40)
    assert pair.sizes == (60, 40)
    difference = subtract(pair, SIZE_20)
    check_subtraction(difference)
    assert_subtraction_maxima_agree(difference.null, difference.theirs, difference.error)
    check_subtraction_fwe(difference)
    chi2 = compare_chi2(pair, 10, 0.001)
    assert_maps_agree(maps_of(chi2.maps), chi2.theirs.maps)
    for effect in EFFECTS:
        peers = maxima_of(chi2.theirs.nulls, effect)
        assert_chi2_maxima_agree(chi2.null, peers, effect, float(distributions.chi2.isf(0.001, 1)))
    check_chi2_fwe(chi2)


# each with its own random numbers


@pytest.mark.slow
@pytest.mark.long
def test_null_distributions__of_own_random_numbers() -> None:
    pair, n = groups("pain"), 60
    args = (pair.first, pair.second)
    settings: dict[str, Any] = {"space": space(), "n_iters": n, "random_state": 0}
    theirs = peer_subtraction(pair.studysets, space(), n_iters=n)
    ours = label_permutation_null(ALESubtraction(), *args, **settings)
    for inference, peers in maxima_of(theirs.nulls).items():
        mine = ours["null_max"].sel(inference=inference).values
        assert stats.ks_2samp(mine, peers).pvalue > 0.001, inference


# the oracle


def test_peer__draws_without_a_seed_what_nimare_shuffle_says() -> None:
    pair = groups("pain few")
    n = pair.pooled.sizes["analysis"]
    settings: dict[str, Any] = {"vfwe_only": True, **SIZE_20}
    rows = np.stack([nimare_shuffle(iteration, n) for iteration in range(5)])
    own = peer_subtraction(pair.studysets, space(), n_iters=5, **settings)
    told = peer_subtraction(pair.studysets, space(), shuffles=rows, **settings)
    assert_array_equal(own.differences, told.differences)
    assert nimare_shuffle(0, 6).tolist() == [3, 2, 5, 4, 0, 1]  # reference, Appendix B
    chosen = chosen_by_nimare(5, pair.first, pair.second)
    again = shuffles_of(chosen, pair.first, pair.second)
    n_first = pair.sizes[0]
    assert_array_equal(np.sort(again[:, :n_first]), np.sort(rows[:, :n_first]))


# the comparison can fail


def test_subtraction__other_shuffles_do_not_agree() -> None:
    both = subtracted("pain")
    other = label_permutation_null(
        ALESubtraction(),
        both.pair.first,
        both.pair.second,
        space=space(),
        n_iters=N_ITERS,
        stat_thresh=both.null.attrs["stat_thresh"],
        random_state=1,
    )
    with pytest.raises(AssertionError, match="too few"):
        both.other_counts(other)
    with pytest.raises(AssertionError):
        assert_subtraction_maxima_agree(other, both.theirs, both.error)


@pytest.mark.parametrize("inference", ["voxel", "size", "mass"])
def test_maxima__slightly_wrong_ones_do_not_agree(inference: str) -> None:
    both = subtracted("pain")
    maxima = both.null["null_max"].copy(deep=True)
    maxima.loc[{"inference": inference}] += {"voxel": 1e-7, "size": 1.0, "mass": 1e-5}[inference]
    with pytest.raises(AssertionError):
        assert_subtraction_maxima_agree(both.null.assign(null_max=maxima), both.theirs, both.error)


def test_correct_fwe__one_iteration_more_does_not_agree() -> None:
    p = np.array([3 / N_ITERS], np.float32)
    wrong = {"p": p + np.float32(1 / N_ITERS), "z": p, "logp": p}
    with pytest.raises(AssertionError):
        assert_capped_alike(wrong, {"p": p, "z": p, "logp": p}, N_ITERS)
