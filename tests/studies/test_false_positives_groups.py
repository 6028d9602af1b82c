"""Correction of two groups finds a difference that chance made as often as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from tests.builders import coarse_space
from tests.studies import false_positives_groups as study_of
from tests.studies.false_positives import INFERENCE
from tests.studies.false_positives_groups import EFFECT, ESTIMATORS, REAL, SMALL, Annotated, Row

#: Groups of each size that the small corpus is divided into.
GROUPS = 60


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def annotated() -> xr.Dataset:
    """Simulated analyses with features that are chance: as many of each size of `SMALL`."""
    sizes = np.repeat(SMALL.sizes, GROUPS).tolist()
    return study_of.annotate(study_of.small_corpus(), sizes, 0)


@pytest.fixture(scope="module")
def null(annotated: xr.Dataset) -> xr.Dataset:
    """The null that all of them share."""
    return nd.feature_null(
        annotated, sizes=SMALL.sizes, n_iters=499, space=coarse_space(), random_state=0
    )


@pytest.fixture(scope="module")
def maps(annotated: xr.Dataset) -> xr.Dataset:
    return study_of.feature_maps(annotated, coarse_space()).compute()


def assert_within(rows: list[Row]) -> None:
    wrong = [f"{row.what}, {row.sizes}, {row.inference}: {row.count}" for row in rows]
    assert all(row.within for row in rows), [
        f"{word} of {row.n}, not {row.fewest} to {row.most}"
        for word, row in zip(wrong, rows, strict=True)
        if not row.within
    ]


def test_one_null__has_about_the_error_rate_that_it_says() -> None:
    rows = study_of.one_null(
        study_of.small_corpus(), SMALL.sizes, coarse_space(), groups=GROUPS, n_iters=499, seed=1
    )
    found = list(rows)
    assert [row.inference for row in found] == list(INFERENCE) * len(SMALL.sizes)
    assert_within(found)
    assert all(row.expected <= 0.05 for row in found)
    assert sum(row.count for row in found) > 0


def test_features_found__null_of_groups_of_another_size_is_noticed(
    maps: xr.Dataset, null: xr.Dataset
) -> None:
    shares = {}
    for name, of_null in (("own", null), ("other", null.isel(size=[1, 0]))):
        of_size = of_null.assign_coords(size=null["size"])
        found = study_of.features_found(maps, of_size).reshape(len(SMALL.sizes), GROUPS, -1)
        shares[name] = found.mean(axis=1)
    assert (shares["own"] < 0.15).all()
    # Few analyses have larger chi-squares than many: with the null of many nearly all are found.
    assert (shares["other"][0] > 0.9).all()
    assert (shares["other"][1] == 0).all()


def test_features_found__p_that_is_not_corrected_is_noticed(maps: xr.Dataset) -> None:
    # z of 1.96 is p = 0.05 of a voxel.
    assert (np.abs(maps["z"].sel(effect=EFFECT).values) > 1.96).any(axis=1).all()


def test_one_null__is_that_of_each_pair_of_groups(annotated: xr.Dataset, maps: xr.Dataset) -> None:
    space, chi2 = coarse_space(), ESTIMATORS["MKDAChi2"]
    told: dict[str, Any] = {"n_iters": 39, "space": space, "random_state": 4}
    of_all = nd.feature_null(annotated, sizes=SMALL.sizes, **told)
    corrected = nd.correct_fwe(maps, of_all)["p_fwe"].sel(effect=EFFECT)
    for feature in (0, GROUPS - 1, GROUPS):
        has = nd.has_label(annotated, f"random__{feature:05d}")
        groups = nd.select(annotated, has), nd.select(annotated, ~has)
        of_pair = nd.label_permutation_null(chi2, *groups, **told)
        alone = nd.correct_fwe(chi2.fit(*groups, space=space), of_pair)["p_fwe"]
        assert_array_equal(alone.sel(effect=EFFECT), corrected.isel(feature=feature))


def test_measured_groups__are_what_fits_have(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(fits: int) -> list[Row]:
        rows = study_of.measured_groups(
            study_of.small_corpus(),
            (30, 200),
            coarse_space(),
            groups=500,
            n_iters=500,
            seed=2,
            fits=fits,
        )
        return list(rows)

    assert_within(measure(fits=3))

    def twice_as_much(job: Any, drawn: Any) -> Any:
        return honest(job, drawn) * 2

    honest = study_of._measure
    monkeypatch.setattr(study_of, "_measure", twice_as_much)
    with pytest.raises(AssertionError, match="other maxima than an iteration"):
        measure(fits=1)
    assert not any(row.within for row in measure(fits=0))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_correct_pair__finds_what_is_there(name: str) -> None:
    space = coarse_space()
    corpus = nd.simulate_corpus(
        40, n_foci=400, n_features=2, features_per_analysis=1, foci_per_effect=3, space=space
    )
    # Who has the one topic and not the other, and the other way round.
    one, two = (nd.has_label(corpus, f"simulated__00{place}") for place in (0, 1))
    groups = nd.select(corpus, one & ~two), nd.select(corpus, two & ~one)
    found, expected = study_of.correct_pair(ESTIMATORS[name], *groups, space, 39, 0)
    assert found.all()
    assert (expected <= 2 / 40).all()


def test_below__is_the_rank_of_what_is_observed() -> None:
    maxima = np.random.default_rng(0).permutation(np.arange(1.0, 40.0))[:, None]
    for observed, found in ((38.5, True), (37.5, False)):
        # Of 40 different maxima two have p < 0.05.
        rate = study_of.below(np.array([observed]), maxima, np.array([found]))
        assert_array_equal(rate, 2 / 40)
        with pytest.raises(AssertionError, match="p_fwe is not the rank"):
            study_of.below(np.array([observed]), maxima, np.array([not found]))


def test_random_groups__are_drawn_from_the_corpus() -> None:
    corpus = study_of.small_corpus()
    first, second = study_of.random_pair(corpus, (5, 7), 3)
    names = [set(part["analysis_id"].values.tolist()) for part in (first, second)]
    assert [len(part) for part in names] == [5, 7]
    assert not names[0] & names[1]
    assert names[0] | names[1] <= set(corpus["analysis_id"].values.tolist())
    other, _ = study_of.random_pair(corpus, (5, 7), 4)
    assert set(other["analysis_id"].values.tolist()) != names[0]

    sizes = [3, 250, 20]
    annotated = study_of.annotate(corpus, sizes, 3)
    for name in ("analysis_id", "analysis_n_foci", "focus_xyz", "focus_space"):
        assert_array_equal(annotated[name], corpus[name])
    assert annotated["feature_n_weights"].values.tolist() == sizes
    with pytest.warns(nd.CorpusWarning, match="1 of 3 features are dropped"):
        maps = nd.MKDAChi2().fit_features(annotated, space=coarse_space(), min_analyses=4)
    assert maps["n_selected"].values.tolist() == [250, 20]


def outcome_of(found: Any) -> Annotated:
    """Annotations of 10 features with a probability of 5 % each, (annotation, feature)."""
    both = np.repeat(np.asarray(found, bool)[..., None], len(INFERENCE), axis=-1)
    return Annotated(both, np.full(both.shape, 0.05))


def test_pooled_rows__scatter_as_annotations_do() -> None:
    rng = np.random.default_rng(0)
    alone = rng.uniform(size=(400, 10)) < 0.05
    together = np.repeat(rng.uniform(size=(400, 1)) < 0.05, 10, axis=1)
    rows = [next(study_of.pooled_rows(outcome_of(found))) for found in (alone, together)]
    assert_within(rows)
    assert all(row.low < 0.05 < row.high and row.n == 4000 for row in rows)
    # 10 features that are one have 10 times the variance.
    wide, narrow = (row.most - row.fewest for row in rows[::-1])
    assert 2.5 < wide / narrow < 4
    much = next(study_of.pooled_rows(outcome_of(rng.uniform(size=(400, 10)) < 0.08)))
    assert not much.within
    assert much.low > 0.05
    none = next(study_of.pooled_rows(outcome_of(np.zeros((20, 10)))))
    assert none.low == 0 < none.high < 0.05


def test_features_outside__finds_the_one_that_is_too_often() -> None:
    rng = np.random.default_rng(0)
    found = rng.uniform(size=(100, 10)) < 0.05
    assert study_of.features_outside(outcome_of(found)) == []
    found[:, 6] = rng.uniform(size=100) < 0.3
    assert study_of.features_outside(outcome_of(found)) == [(6, place) for place in range(3)]
    lines = list(study_of.feature_table(range(10), outcome_of(found)))
    assert [line.startswith("| 6 |") for line in lines if "NO" in line] == [True]


def test_main__writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "table.md"
    few = ["--groups", "5", "--chi2-pairs", "2", "--ale-pairs", "2", "--annotations", "2"]
    few += ["--measured", "39"]
    study_of.main(["--simulated", *few, "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    cells = [line.split(" | ") for line in text.splitlines() if " | " in line]
    kinds = len(SMALL.sizes) + 2 + 1 + 1
    assert [row[2] for row in cells[1 : 1 + 3 * kinds]] == list(INFERENCE) * kinds
    assert len(cells) == 1 + 3 * kinds + 1 + len(SMALL.features)
    assert "300 analyses" in text
    assert "499 iterations" in text


@pytest.fixture(scope="module")
def real(data_folder: Path) -> xr.Dataset:
    return study_of.real_corpus(data_folder)


unknown_spaces = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")


@pytest.mark.slow
@pytest.mark.realdata
@unknown_spaces
def test_one_null__has_the_error_rate_that_it_says(real: xr.Dataset) -> None:
    rows = list(
        study_of.one_null(real, REAL.sizes, coarse_space(), groups=500, n_iters=5000, seed=0)
    )
    assert_within(rows)
    # k of n: never above 5 %, and close to it where maxima seldom tie.
    assert all(row.expected <= 0.05 for row in rows)
    assert all(row.expected > 0.045 for row in rows if row.inference == "mass")


@pytest.mark.slow
@pytest.mark.realdata
@unknown_spaces
@pytest.mark.parametrize(
    ("name", "sizes", "n_iters"),
    [
        ("MKDAChi2", (50, 450), 99),
        pytest.param("ALESubtraction", (20, 20), 199, marks=pytest.mark.long),
    ],
)
def test_correct_pair__has_the_error_rate_that_it_says(
    real: xr.Dataset, name: str, sizes: tuple[int, int], n_iters: int
) -> None:
    outcome = study_of.pair_study(name, real, sizes, coarse_space(), repeats=80, n_iters=n_iters)
    assert_within(list(study_of.pair_rows(name, sizes, outcome)))
    assert (outcome.expected <= 0.05 + 1e-12).all()


@pytest.mark.slow
@pytest.mark.realdata
@unknown_spaces
def test_feature_null__has_the_error_rate_that_it_says_for_each_feature(real: xr.Dataset) -> None:
    outcome = study_of.annotation_study(real, REAL.features, coarse_space(), repeats=30, n_iters=99)
    assert_within(list(study_of.pooled_rows(outcome)))
    assert study_of.features_outside(outcome) == []
    assert (outcome.expected <= 0.05 + 1e-12).all()
