"""Family-wise correction finds something where there is nothing as often as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import nimare_dask as nd
from tests.builders import coarse_space
from tests.reference.nulls import poisson_binomial
from tests.studies import false_positives as study_of
from tests.studies.false_positives import ESTIMATORS, INFERENCE, Outcome

DESIGNS = (20, 50)
#: Corpora of each design, and iterations: p < 0.05 has probability 5 / 100.
REPEATS, N_ITERS = 60, 99


def assert_within(outcome: Outcome) -> None:
    """Hold the false positives of each inference to the 99 % interval around what is expected."""
    for row, name in enumerate(INFERENCE):
        count, (fewest, most) = outcome.counts()[row], outcome.intervals()[row]
        assert fewest <= count <= most, f"{name}: {count} of {outcome.n}, not {fewest} to {most}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name == "ALE" else []) for name in ESTIMATORS],
)
def test_correct_fwe__has_the_error_rate_that_it_says(name: str) -> None:
    outcomes = [
        study_of.study(name, n, coarse_space(), repeats=REPEATS, n_iters=N_ITERS) for n in DESIGNS
    ]
    for outcome in outcomes:
        assert_within(outcome)
        # Ties only ever make it stricter; continuous maxima have none.
        assert (outcome.expected <= 0.05 + 1e-12).all()
        if name == "ALE":
            np.testing.assert_allclose(outcome.expected[:, 0], 0.05)
    assert_within(
        Outcome(
            np.concatenate([outcome.found for outcome in outcomes]),
            np.concatenate([outcome.expected for outcome in outcomes]),
        )
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_correct_one__finds_what_is_there(name: str) -> None:
    space = coarse_space()
    corpus = nd.simulate_corpus(
        20, n_foci=200, n_features=1, features_per_analysis=1, foci_per_effect=2, space=space
    )
    found, expected = study_of.correct_one(ESTIMATORS[name], corpus, space, 39, 0)
    assert found.all()
    assert (expected <= 2 / 40).all()


def test_is_below__counts_ranks_and_ties() -> None:
    # Of 40 different maxima, those that at most one other reaches: 1 / 39 < 0.05 < 2 / 39.
    distinct = np.random.default_rng(0).permutation(40) + 1.0
    assert sorted(distinct[study_of.is_below(distinct)].tolist()) == [39.0, 40.0]
    # Three that tie reach each other: 2 / 39. Two: 1 / 39.
    tied = distinct.copy()
    tied[distinct >= 38] = 40.0
    assert not study_of.is_below(tied).any()
    tied[distinct == 38] = 38.0
    assert study_of.is_below(tied).sum() == 2
    assert not study_of.is_below(np.zeros(40)).any()  # no clusters


def test_null_corpus__draws_as_the_null_does() -> None:
    space = coarse_space()
    corpus = study_of.null_corpus(20, space, 3)
    n_foci = corpus["analysis_n_foci"].values
    assert n_foci.min() >= 8
    assert n_foci.max() <= 12
    located = nd.activation_maps(corpus, space=space)
    assert located.sizes["analysis"] == 20
    other = study_of.null_corpus(20, space, 4)
    assert not np.array_equal(corpus["focus_xyz"].values[:50], other["focus_xyz"].values[:50])


@pytest.mark.parametrize("p", [0.05, 0.02])
def test_expected_counts__are_binomial_where_all_are_equal(p: float) -> None:
    fewest, most = study_of.expected_counts(np.full(200, p))
    law = stats.binom(200, p)
    assert law.cdf(fewest - 1) <= 0.005 < law.cdf(fewest)
    assert law.cdf(most) >= 0.995 > law.cdf(most - 1)
    assert np.isclose(sum(poisson_binomial(np.full(200, p))), 1)


def test_main__writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "table.md"
    words = ["--repeats", "2", "--n-iters", "39", "--analyses", "20"]
    study_of.main([*words, "--estimators", "MKDADensity", "--out", str(out)])
    lines = out.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[2] for line in lines[2:5]] == list(INFERENCE)
    assert all(line.startswith("| MKDADensity | 20 |") for line in lines[2:5])
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")
