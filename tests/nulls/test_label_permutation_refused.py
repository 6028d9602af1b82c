"""Nulls of two groups and of all features: what is refused, and groups that are hardly groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.errors import NimareDaskError, SchemaError, SelectionError, SettingsError
from tests.foci import make_corpus
from tests.group_pairs import ALE, CHI2, KINDS, pair, run
from tests.groups import SPACE

NOTHING, FAR = make_corpus([[], []]), [[1000.0, 0, 0]]


@pytest.mark.parametrize("make", [nd.label_permutation_null, nd.random_foci_null])
def test_groups__that_cannot_be_compared(make: Any) -> None:
    groups = pair()
    given: dict[str, Any] = {"space": SPACE, "n_iters": 3}
    with pytest.raises(SelectionError, match=r"The selected analyses have no focus at all \(2 "):
        make(CHI2, NOTHING, groups.second, **given)
    with pytest.raises(SelectionError, match=r"The unselected analyses have no focus at all \(2 "):
        make(CHI2, groups.first, NOTHING, **given)
    with pytest.raises(SelectionError, match=r"7 analyses are in both groups \(study0"):
        make(CHI2, groups.corpus, groups.first, **given)
    with pytest.raises(SchemaError, match=r"analysis_n_foci .* is missing"):
        make(CHI2, xr.Dataset(), groups.first, **given)


def test_feature_null__without_any_focus_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"no focus at all \(2 analyses\)"):
        nd.feature_null(NOTHING, sizes=[1], space=SPACE)


@pytest.mark.parametrize("estimator", [CHI2, ALE])
def test_groups__of_one_analysis_each(estimator: Any) -> None:
    groups = pair(2, 1)
    null = nd.label_permutation_null(
        estimator, groups.first, groups.second, space=SPACE, n_iters=20, random_state=0
    )
    # There are two divisions, and both come up.
    assert len(np.unique(null["null_max"].values.reshape(20, -1), axis=0)) <= 2
    assert not np.isnan(null["null_max"]).any()


def test_groups__that_are_active_nowhere() -> None:
    first, second = make_corpus([FAR] * 3, prefix="far"), make_corpus([FAR] * 2, prefix="away")
    given: dict[str, Any] = {"space": SPACE, "n_iters": 4, "random_state": 0}
    chi2 = nd.label_permutation_null(CHI2, first, second, **given)
    ale = nd.label_permutation_null(ALE, first, second, **given)
    features = nd.feature_null(first, sizes=[1, 2], **given)
    for null in (chi2, ale, features):
        assert (null["null_max"] == 0).all()
    assert (ale["null_up"] == 4).all() and (ale["null_low"] == 4).all()
    assert ale.attrs["stat_thresh"] == 0


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *(
        (kind, {"n_iters": 0}, "n_iters is 0; expected a whole number of at least 1.")
        for kind in KINDS
    ),
    ("chi2", {"n_iters": 2.5}, "n_iters is 2.5; expected a whole number of at least 1."),
    ("chi2", {"batch": 0}, "batch is 0; expected a whole number of at least 1."),
    ("ale", {"voxel_thresh": 1}, "voxel_thresh is 1; expected a p value."),
    ("features", {"random_state": -1}, "random_state is -1; expected a whole number of at"),
    ("random foci", {"coverage": "grey"}, "coverage is 'grey'; expected 'brain' or 'gm'."),
    ("chi2", {"stat_thresh": 0}, "stat_thresh is 0; expected a statistic above 0."),
    ("ale", {"stat_thresh": float("nan")}, "stat_thresh is nan; expected a statistic above 0."),
    ("ale", {"stat_thresh": "high"}, "stat_thresh is 'high'; expected a statistic above 0."),
    ("features", {"estimator": ALE}, "estimator is a ALESubtraction; this null is that of MKDAChi"),
    ("features", {"sizes": [3, 0]}, "sizes has 0, and 18 analyses have foci; a feature has at le"),
    ("features", {"sizes": [3, 18]}, "sizes has 18, and 18 analyses have foci; a feature has at "),
    ("features", {"sizes": [99]}, "sizes has 99, and 18 analyses have foci; a feature has at lea"),
    ("features", {"sizes": [-1]}, "sizes has -1, and 18 analyses have foci; a feature has at lea"),
    ("features", {"sizes": []}, "sizes is '[]'; expected numbers of analyses, or what fit_featur"),
    ("features", {"sizes": [2.0]}, "sizes is '[2.0]'; expected numbers of analyses, or what fit_"),
    (
        "features",
        {"effects": ["association", "group3"]},
        "effects is ['association', 'group3']; expected some of uniformity, association, group2.",
    ),
    ("features", {"effects": []}, "effects is []; expected some of uniformity, association, gro"),
    ("features", {"effects": ["group2"] * 2}, "effects is ['group2', 'group2']; expected some of"),
]


@pytest.mark.parametrize(("kind", "settings", "sentence"), WRONG)
def test_settings__that_cannot_be_are_said(
    kind: str, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        run(kind, **settings)
    assert sentence in str(raised.value)


# what should be said, and is not


def test_label_permutation__estimator_of_one_group_is_refused() -> None:
    groups = pair()
    one_group: Any = nd.ALE()
    with pytest.raises(SettingsError, match="estimator is a ALE"):
        nd.label_permutation_null(one_group, groups.first, groups.second, space=SPACE, n_iters=2)


def test_feature_null__sizes_of_a_fit_of_two_groups_are_refused() -> None:
    groups = pair()
    maps = CHI2.fit(groups.first, groups.second, space=SPACE)
    with pytest.raises(NimareDaskError, match="fit_features"):
        run("features", sizes=maps)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_stat_thresh__may_be_a_number_of_numpy(kind: Any) -> None:
    def inputs(thresh: Any) -> xr.Dataset:
        return CHI2.permutation_job(
            pair().pooled, random_state=0, voxel_thresh=None, stat_thresh=thresh
        ).to_dataset()

    xr.testing.assert_identical(inputs(kind(3)), inputs(3.0))


def test_stat_thresh__of_ale_may_be_a_number_of_numpy(tmp_path: Path) -> None:
    thresh = np.float32(0.03125)
    wanted = run("ale", 3, stat_thresh=0.03125)
    found = run("ale", 3, stat_thresh=thresh, store=tmp_path / "null")
    assert_array_equal(found["null_max"], wanted["null_max"])
