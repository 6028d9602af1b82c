"""Conditions of --select, --group1 and --group2: labels as ever, and whole expressions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask.cli.conditions import choose, mark, two_groups
from nimare_dask.errors import SettingsError, UnknownLabelError
from nimare_dask.expressions import expression
from nimare_dask.selection import has_label

FEATURES = ["t__emotion", "t__pain", "t__R&D", "t__a>=1", "t__don't (do) it", "t__rest"]
WEIGHTS = np.random.default_rng(0).choice([0.0, 0.0005, 0.1, 0.3], (30, len(FEATURES)))


@pytest.fixture(scope="module")
def corpus() -> xr.Dataset:
    ids = [str(number) for number in range(30)]
    return nd_corpus.build(
        analysis_id=ids,
        study_id=ids,
        n_foci=np.ones(30, int),
        xyz=np.zeros((30, 3)),
        focus_space=np.zeros(30, int),
        spaces=["MNI"],
        feature=FEATURES,
        weights=sparse.csc_matrix(WEIGHTS),
    )


@pytest.mark.parametrize(
    ("condition", "label", "threshold"),
    [
        ("pain", "t__pain", 0.001),
        ("pain>=0.1", "t__pain", 0.1),
        (" t__pain >= 0.0005 ", "t__pain", 0.0005),
        ("R&D>=0.3", "t__R&D", 0.3),
        ("R&D", "t__R&D", 0.001),
        ("don't (do) it>=0.1", "t__don't (do) it", 0.1),
    ],
)
def test_mark__a_label_is_what_it_was(
    corpus: xr.Dataset, condition: str, label: str, threshold: float
) -> None:
    found = mark(corpus, condition, option="--select")
    xr.testing.assert_identical(found, has_label(corpus, label, threshold))
    assert 0 < int(found.sum()) < 30


@pytest.mark.parametrize(
    "condition",
    ["emo* &~ pain", "~pain", "pain < 0.2", "pain>=0.2 & emotion>=0.2", "(pain|emotion)>=0.2"],
)
def test_mark__anything_else_is_an_expression(corpus: xr.Dataset, condition: str) -> None:
    found = mark(corpus, condition, option="--select")
    xr.testing.assert_identical(found, expression(corpus, condition))
    assert 0 < int(found.sum()) < 30


@pytest.mark.parametrize(
    ("condition", "error", "says"),
    [
        ("pain>=x", SettingsError, "--select is 'pain>=x'; expected LABEL>=NUMBER"),
        (">=1", SettingsError, "--select is '>=1'; expected LABEL>=NUMBER"),
        ("pian>=1", UnknownLabelError, "No feature is called 'pian'. Did you mean t__pain"),
        ("pain & pian", UnknownLabelError, "No feature is called 'pian'. Did you mean t__pain"),
        ("pain &", SettingsError, "goes wrong at character 7: it ends"),
    ],
)
def test_choose__wrong_conditions_are_sentences(
    corpus: xr.Dataset, condition: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        choose(corpus, [condition])
    assert says in str(caught.value)


def test_choose__every_condition_must_hold(corpus: xr.Dataset) -> None:
    found = choose(corpus, ["emo*", "~pain < 0.2", "R&D"])["analysis_id"].values.tolist()
    mask = expression(corpus, "emo* & ~(pain < 0.2) & 'R&D'")
    assert found == corpus["analysis_id"].values[mask.values].tolist()


def test_two_groups__take_expressions(corpus: xr.Dataset) -> None:
    first, second = two_groups(corpus, "emo* &~ pain", "rest", drop_shared=False)
    mask = expression(corpus, "emo* &~ pain")
    assert first.sizes["analysis"] == int(mask.sum())
    assert second.sizes["analysis"] == int((~mask).sum())
