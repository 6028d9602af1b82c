"""Fits of ALE, MKDA density and KDA against NiMARE 0.22.1; README.md says what is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.activation import activation_maps
from nimare_dask.correct import correct_bonferroni, correct_fdr
from nimare_dask.footprint import ALEKernel, KDAKernel, fwhm_of
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.space import Space
from tests.parity.agreement import (
    assert_fits_agree,
    assert_generic_agrees,
    maps_of,
)
from tests.parity.cases import (
    CASES,
    SIZE_20,
    Case,
    Fitted,
    ale,
    error_of,
    fitted,
    peer_mask,
    smallest_weight,
    space,
    studies,
)
from tests.parity.peer import (
    ONE_FLOAT32,
    Database,
    image_of,
    open_database,
    quiet,
    real_subset,
)
from tests.parity.peer_cbma import (
    corpus_of,
    peer_correct,
    peer_fit,
    peer_module,
    peer_threshold,
)

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

NBACK = {"nback ale", "nback mkda", "nback kda"}  # all 906 analyses
SLOW = {*NBACK, "pain mkda of weights", "pain kda of 4 mm", "laird mkda"}


def named(*names: str) -> list[Any]:
    """Cases to test; some are slow."""
    slow = [pytest.mark.slow]
    return [pytest.param(name, marks=slow * (name in SLOW)) for name in names]


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Database:
    folder = tmp_path_factory.mktemp("subset")
    topic = "32_pain_somatosensory_stimulation"
    return open_database(real_subset(folder, data_folder / "neurosynth", topic, 60, 40))


def check_fit(case: Case, corpus: xr.Dataset, fits: Fitted) -> None:
    weight = smallest_weight(case, corpus)
    args = (fits.ours, fits.maps, fits.nulls, fits.error)
    assert_fits_agree(*args, most=case.most, smallest_weight=weight)


def fit_both(case: Case, studyset: Any, corpus: xr.Dataset, where: Space) -> Fitted:
    ours = case.estimator.fit(corpus, space=where)
    maps, nulls, result = peer_fit(case.kind, studyset, where, **case.settings)
    return Fitted(ours, maps, nulls, result, error_of(case, corpus, maps["stat"], where))


# statistic, its null, p, z and logp


@pytest.mark.parametrize("name", named(*CASES))
def test_fit(name: str) -> None:
    check_fit(CASES[name], studies(CASES[name].studyset)[1], fitted(name))


@pytest.mark.parametrize("name", named(*CASES))
def test_cluster_forming_threshold(name: str) -> None:
    case, fits = CASES[name], fitted(name)
    corpus = studies(case.studyset)[1]
    for p in (0.05, 0.01, 0.001, 1e-5):
        null = monte_carlo_null(
            case.estimator,
            corpus,
            space=space(),
            n_iters=1,
            random_state=0,
            voxel_thresh=p,
            maps=fits.ours,
        )
        assert null.attrs["stat_thresh"] == peer_threshold(fits.result, p)


@pytest.mark.parametrize(
    "name", named("pain mkda", "pain mkda of 6 mm", "laird mkda", "nback mkda")
)
def test_fit__share_of_active_voxels_is_equal(name: str) -> None:
    # All that the null of MKDA comes from.
    case = CASES[name]
    active = activation_maps(studies(case.studyset)[1], case.estimator.kernel, space())
    share = active.sum("voxel").values / space().n_voxels
    assert_array_equal(share.astype(np.float32), fitted(name).nulls["histogram_means"])


@pytest.mark.parametrize("grid", ["mni152_2mm", "ale_2mm"])
def test_fit__masks_of_the_peer(grid: str) -> None:
    # ale_2mm has other voxels, and x runs from right to left.
    where = peer_mask(grid)
    assert (where.affine[0, 0] < 0) == (grid == "ale_2mm")
    for name in ("pain ale",) if grid == "ale_2mm" else ("pain ale", "pain mkda", "pain kda"):
        studyset, corpus = studies(CASES[name].studyset)
        check_fit(CASES[name], corpus, fit_both(CASES[name], studyset, corpus, where))


@pytest.mark.realdata
@pytest.mark.parametrize("kind", ["ale", "mkda", "kda"])
def test_fit__real_subset(subset: Database, kind: str) -> None:
    like = CASES[f"laird {kind}"]
    case = Case("", like.kind, like.estimator, like.kernel, most=20)
    corpus = subset.corpus
    assert corpus.sizes["analysis"] == 100
    assert len(corpus.attrs["spaces"]) > 1
    check_fit(case, corpus, fit_both(case, subset.studyset, corpus, space()))


def test_fit__order_of_analyses_does_not_matter() -> None:
    # The peer sorts them by their ids, and folds their histograms in that order.
    corpus = studies("pain")[1]
    owner = np.repeat(np.arange(21), corpus["analysis_n_foci"].values)
    reverse = corpus.isel(analysis=slice(None, None, -1), focus=np.argsort(-owner, kind="stable"))
    xr.testing.assert_equal(ale().fit(reverse, space=space()), fitted("pain ale").ours)


def test_fit__fractional_sample_sizes() -> None:
    # Means of more than one number of subjects: exact in the observed map of both.
    case = Case("pain fractions", "ale", ale(), most=5)
    studyset, corpus = studies(case.studyset)
    assert {12.5, 20 + 2 / 3} < set(corpus["analysis_sample_size"].values)
    check_fit(case, corpus, fit_both(case, studyset, corpus, space()))


# the comparison can fail


def test_fit__another_fwhm_does_not_agree() -> None:
    case, corpus = CASES["pain ale of 8 mm"], studies("pain")[1]
    fits = fitted("pain ale of 8 mm")
    wrong = ale(fwhm=8.00001).fit(corpus, space=space())
    with pytest.raises(AssertionError, match="stat: Not equal to tolerance"):
        check_fit(case, corpus, Fitted(wrong, *list(vars(fits).values())[1:]))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stat", lambda values: values + np.float32(1e-6)),
        ("p", lambda values: values * np.float32(1 - 1e-6)),
        ("z", lambda values: values * np.float32(1 + 1e-6)),
        ("logp", lambda values: values * np.float32(1 + 1e-6)),
        ("null_weight", lambda values: values * (1 + 1e-11)),
    ],
)
def test_fit__slightly_wrong_values_do_not_agree(name: str, wrong: Any) -> None:
    case, corpus, fits = CASES["pain ale"], studies("pain")[1], fitted("pain ale")
    off = fits.ours.assign({name: (fits.ours[name].dims, wrong(fits.ours[name].values))})
    with pytest.raises(AssertionError, match=f"{name}: Not equal to tolerance"):
        check_fit(case, corpus, Fitted(off, *list(vars(fits).values())[1:]))


# generic corrections


@pytest.mark.parametrize(
    "name", named("pain ale", "pain mkda by size", "laird kda", "nback part ale", *sorted(NBACK))
)
@pytest.mark.parametrize("correction", ["bonferroni", "indep", "negcorr"])
def test_generic_corrections(name: str, correction: Any) -> None:
    # Of the peer's p, z and logp, so that a voxel in a neighbouring bin is in the same for both.
    fits = fitted(name)
    same = fits.ours.assign({key: ("voxel", fits.maps[key]) for key in ("p", "z", "logp")})
    theirs, _ = peer_correct(fits.result, correction)
    corrected = (
        correct_bonferroni(same)
        if correction == "bonferroni"
        else correct_fdr(same, method=correction)
    )
    assert_generic_agrees(maps_of(corrected, without=same), theirs, fits.maps)


def test_generic_corrections__z_is_two_sided_as_in_the_peer() -> None:
    # Of a one-sided statistic: its own z of the same p is one-sided (reference, appendix C 4).
    theirs, _ = peer_correct(fitted("pain ale").result, "bonferroni")
    p, z = (theirs[f"{kind}_corr-FWE_method-bonferroni"] for kind in ("p", "z"))
    found = (p < 0.9) & (p > 0)
    two, one = (peer_module("transforms").p_to_z(p[found], tail=tail) for tail in ("two", "one"))
    assert_allclose(z[found], two, rtol=1e-6)
    assert (z[found] > one + 0.01).all()


# modelled activation


def peer_activation(kernel: Any, studyset: Any, where: Space) -> Any:
    with quiet():
        masker = peer_module("utils").get_masker(image_of(where))
        return kernel.transform(studyset, masker=masker, return_type="array")


@pytest.mark.parametrize("r", [4.0, 10.0])
def test_activation_maps__kda(r: float) -> None:
    kernel = peer_module("meta.kernel").KDAKernel(r=r)
    studyset, corpus = studies("laird")
    ours = activation_maps(corpus, KDAKernel(r=r), space()).values
    assert_array_equal(ours, peer_activation(kernel, studyset, space()))
    assert ours.max() > 1


@pytest.mark.parametrize("settings", [{"fwhm": 9.0}, SIZE_20])
def test_activation_maps__ale_of_the_peers_sigma(settings: dict[str, Any]) -> None:
    # The peer's sigma has float32 roundings; with it all values are equal but for one rounding.
    image = image_of(space())
    with quiet():
        sigma, _ = peer_module("meta.utils").get_ale_kernel(image, **settings)
    exact = settings.get("fwhm") or fwhm_of(settings["sample_size"])
    as_theirs = float(sigma) * 2 * np.sqrt(8 * np.log(2))
    assert 0 < abs(as_theirs / exact - 1) < 2**-24 + 2e-8
    studyset, corpus = studies("pain")
    kernel = peer_module("meta.kernel").ALEKernel(**settings)
    theirs = peer_activation(kernel, studyset, space())
    ours = activation_maps(corpus, ALEKernel(fwhm=as_theirs), space()).values
    assert_allclose(ours, theirs, rtol=ONE_FLOAT32, atol=0)


def test_activation_maps__ale() -> None:
    # At 4 sigma on every axis a value is off by 48 times the share that the peer's sigma is.
    studyset, corpus = studies("pain")
    kernel = peer_module("meta.kernel").ALEKernel()
    theirs = peer_activation(kernel, studyset, space())
    ours = activation_maps(corpus, ALEKernel(), space()).values
    assert_array_equal(ours > 0, theirs > 0)
    assert_allclose(ours, theirs, rtol=54 * 1.72e-8 + ONE_FLOAT32, atol=0)


# where foci fall


@pytest.mark.parametrize("grid", ["ours", pytest.param("theirs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("coverage", ["brain", "gm"])
def test_pool__has_the_voxels_of_mask_coverage(grid: str, coverage: Any) -> None:
    where = space() if grid == "ours" else peer_mask()
    null = monte_carlo_null(
        CASES["pain mkda"].estimator,
        studies("pain")[1],
        space=where,
        n_iters=1,
        random_state=0,
        coverage=coverage,
    )
    with quiet():
        utils = peer_module("utils")
        masker = utils.get_masker(image_of(where))
        theirs = utils._mask_coverage_to_null_ijk(masker, mask_coverage=coverage)
    assert_array_equal(null["pool_ijk"].values, theirs)
    expected = {"ours": {"brain": 235_375, "gm": 194_359}, "theirs": {"brain": 228_483}}
    assert len(theirs) == expected[grid].get(coverage, 186_779)


def test_corpus_of__has_what_the_peer_analyses() -> None:
    for name in ("pain", "laird", "nback_flanker"):
        studyset, corpus = studies(name)
        with quiet():
            foci = studyset.coordinates
        ids, counts = np.unique(foci["id"].to_numpy(str), return_counts=True)
        assert corpus["analysis_id"].values.tolist() == ids.tolist()
        assert_array_equal(corpus["analysis_n_foci"].values, counts)
    assert corpus.sizes["analysis"] == 906
    assert corpus_of(studyset).equals(corpus)
