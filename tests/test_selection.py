"""Selecting analyses: masks against dense tables, and corpora that stay whole."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask import facts
from nimare_dask.errors import SchemaError, SelectionError, SettingsError, UnknownLabelError
from nimare_dask.metadata import get_metadata
from nimare_dask.provenance import steps
from nimare_dask.selection import has_label, is_analysis, is_study, select
from nimare_dask.simulate import simulate_corpus
from nimare_dask.wholeness import check
from tests.builders import Draft, drafts, foci_of, small_space, tiny_corpus, weights_by_name


def label_corpus(*features: str) -> xr.Dataset:
    """Five analyses; each feature has the weights 0, below, at and above 0.001, and 0.5."""
    column = np.array([0.0, np.nextafter(0.001, 0), 0.001, np.nextafter(0.001, 1), 0.5])
    matrix = sparse.csc_matrix(np.column_stack([np.roll(column, i) for i in range(len(features))]))
    return nd_corpus.build(
        analysis_id=list("abcde"),
        study_id=list("abcde"),
        n_foci=[1] * 5,
        xyz=np.zeros((5, 3)),
        focus_space=[0] * 5,
        spaces=["MNI"],
        feature=features,
        weights=matrix,
    )


# has_label


def test_has_label__threshold_is_inclusive() -> None:
    mask = has_label(label_corpus("pain"), "pain", 0.001)
    assert mask.values.tolist() == [False, False, True, True, True]
    assert mask.dims == ("analysis",)
    assert mask.dtype == bool


def test_has_label__default_threshold_is_that_of_nimare() -> None:
    corpus = label_corpus("pain")
    assert_array_equal(has_label(corpus, "pain"), has_label(corpus, "pain", 0.001))


def test_has_label__float32_weights_at_the_threshold() -> None:
    corpus = label_corpus("pain")
    single = corpus.assign(weight_value=corpus["weight_value"].astype(np.float32))
    assert has_label(single, "pain", 0.5).values.tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(("threshold", "n"), [(0.4, 1), (0.5, 1), (0.51, 0), (0.0, 5), (-1.0, 5)])
def test_has_label__other_thresholds(threshold: float, n: int) -> None:
    assert int(has_label(label_corpus("pain"), "pain", threshold).sum()) == n


def test_has_label__reads_the_weights_of_its_feature() -> None:
    corpus = label_corpus("first", "second", "third")
    assert has_label(corpus, "first").values.tolist() == [False, False, True, True, True]
    assert has_label(corpus, "second").values.tolist() == [True, False, False, True, True]
    assert has_label(corpus, "third").values.tolist() == [True, True, False, False, True]


def test_has_label__feature_without_weights() -> None:
    assert not has_label(tiny_corpus(), "terms_abstract__fear").any()


def test_has_label__names_the_analyses() -> None:
    mask = has_label(tiny_corpus(), "fear")
    assert mask["analysis_id"].values.tolist() == ["s1-1", "s1-2", "s2-1", "s3-1"]


def test_has_label__short_name() -> None:
    corpus = label_corpus("terms_abstract_tfidf__pain", "terms_abstract_tfidf__a__b")
    whole = has_label(corpus, "terms_abstract_tfidf__pain")
    assert_array_equal(has_label(corpus, "pain"), whole)
    assert_array_equal(has_label(corpus, "b"), has_label(corpus, "terms_abstract_tfidf__a__b"))


def test_has_label__whole_name_comes_before_short_names() -> None:
    corpus = label_corpus("terms__pain", "pain")
    assert_array_equal(has_label(corpus, "pain"), [True, False, False, True, True])


def test_has_label__several_features_end_so() -> None:
    corpus = label_corpus("terms__pain", "topics__pain", "terms__fear")
    with pytest.raises(
        UnknownLabelError, match=r"'pain' .* several features .*terms__pain, topics"
    ):
        has_label(corpus, "pain")
    assert has_label(corpus, "topics__pain").values.tolist() == [True, False, False, True, True]


def test_has_label__unknown_is_answered_with_a_suggestion() -> None:
    corpus = label_corpus("terms__pain", "terms__fear", "terms__working memory")
    with pytest.raises(UnknownLabelError, match=r"'memory'\. Did you mean .*terms__working memory"):
        has_label(corpus, "memory")
    with pytest.raises(UnknownLabelError, match=r"'terms__pian'\. Did you mean terms__pain"):
        has_label(corpus, "terms__pian")
    with pytest.raises(LookupError, match=r"No feature .*'qqq'\. There are 3: terms__pain, "):
        has_label(corpus, "qqq")


def test_has_label__misspelt_short_name_is_answered_with_a_suggestion() -> None:
    corpus = label_corpus("terms_abstract_tfidf__emotion", "terms_abstract_tfidf__language")
    with pytest.raises(UnknownLabelError, match=r"Did you mean terms_abstract_tfidf__language"):
        has_label(corpus, "langauge")


def test_has_label__corpus_without_features() -> None:
    bare = tiny_corpus().drop_dims(["feature", "weight"])
    with pytest.raises(UnknownLabelError, match=r"no features, so 'pain' .*--features"):
        has_label(bare, "pain")


@given(draft=drafts(), threshold=st.sampled_from([0.0005, 0.001, 0.4]))
@settings(max_examples=50)
def test_has_label__equals_the_dense_table(draft: Draft, threshold: float) -> None:
    assume(draft.features)
    corpus = draft.build()
    for place, feature in enumerate(draft.features):
        expected = [weight >= threshold for weight in draft.weights[:, place]]
        assert has_label(corpus, feature, threshold).values.tolist() == expected


# has_label of several


def test_has_label__all_or_any_of_several() -> None:
    corpus = label_corpus("terms__first", "terms__second", "terms__third")
    parts = [has_label(corpus, name, 0.4).values for name in ("first", "second", "third")]
    assert sum(part.sum() for part in parts) == 3
    several = ["first", "second", "third"]
    assert_array_equal(has_label(corpus, several, 0.4, match="any"), np.any(parts, axis=0))
    assert_array_equal(has_label(corpus, several, 0.4), np.all(parts, axis=0))
    assert_array_equal(has_label(corpus, several), [False, False, False, False, True])
    assert_array_equal(has_label(corpus, several, match="any"), [True, True, True, True, True])
    for names in (["first"], ("first",), np.array(["first"]), (name for name in ["first"])):
        xr.testing.assert_identical(has_label(corpus, names), has_label(corpus, "first"))


def test_has_label__of_several_refuses() -> None:
    corpus = label_corpus("terms__first", "terms__second")
    with pytest.raises(UnknownLabelError, match=r"No feature is called 'frist'. Did you mean"):
        has_label(corpus, ["second", "frist"], match="any")
    with pytest.raises(SettingsError, match="There is no label"):
        has_label(corpus, [])
    with pytest.raises(SettingsError, match="match is 'some'; expected 'all' or 'any'"):
        has_label(corpus, "first", match="some")  # type: ignore[arg-type]


# is_analysis, is_study


def test_is_analysis__marks_what_is_named() -> None:
    corpus = tiny_corpus()
    assert is_analysis(corpus, "s1-2").values.tolist() == [False, True, False, False]
    mask = is_analysis(corpus, ["s3-1", "s1-1", "s3-1"])
    assert mask.values.tolist() == [True, False, False, True]
    assert select(corpus, ~mask)["analysis_id"].values.tolist() == ["s1-2", "s2-1"]
    assert_array_equal(is_analysis(corpus, corpus["analysis_id"]), np.ones(4, bool))
    assert_array_equal(is_analysis(corpus, []), np.zeros(4, bool))


def test_is_study__marks_every_analysis_of_it() -> None:
    assert is_study(tiny_corpus(), "s1").values.tolist() == [True, True, False, False]
    assert is_study(tiny_corpus(), {"s3", "s2"}).values.tolist() == [False, False, True, True]


def test_is_study__a_number_is_its_digits() -> None:
    corpus = nd_corpus.build(
        analysis_id=["17-1", "4-1"],
        study_id=["17", "4"],
        n_foci=[1, 1],
        xyz=np.zeros((2, 3)),
        focus_space=[0, 0],
        spaces=["MNI"],
    )
    for ids in (17, [17], np.array([17]), np.int64(17)):
        assert is_study(corpus, ids).values.tolist() == [True, False]


def test_is_one_of__unknown_is_answered_with_a_suggestion() -> None:
    corpus = tiny_corpus()
    with pytest.raises(UnknownLabelError, match=r"No analysis has the id 's2'. Did you mean s2-1"):
        is_analysis(corpus, ["s1-1", "s2"])
    with pytest.raises(UnknownLabelError, match=r"No study has the id 's3-1'. Did you mean s3\?"):
        is_study(corpus, "s3-1")
    with pytest.raises(
        UnknownLabelError, match=r"the id 'x'\. There are 3: s1, s2, s3. 1 more are not"
    ):
        is_study(corpus, ["x", "s1", "y"])


def test_is_one_of__is_quick_also_where_it_fails() -> None:
    n = 50_000
    corpus = nd_corpus.build(
        analysis_id=[f"{10_000_000 + number}-1" for number in range(n)],
        study_id=[str(10_000_000 + number) for number in range(n)],
        n_foci=np.zeros(n, int),
        xyz=[],
        focus_space=[],
        spaces=["MNI"],
    )
    began = time.perf_counter()
    with pytest.raises(UnknownLabelError, match=r"Did you mean 10012345-1\?"):
        is_analysis(corpus, "10012345")
    assert is_study(corpus, [str(10_000_000 + number) for number in range(n)]).all()
    assert time.perf_counter() - began < 2


# combining


def test_masks__combine() -> None:
    corpus = label_corpus("first", "second")
    first, second = has_label(corpus, "first"), has_label(corpus, "second")
    assert (first & second).values.tolist() == [False, False, False, True, True]
    assert (first | second).values.tolist() == [True, False, True, True, True]
    assert (~first).values.tolist() == [True, True, False, False, False]
    chosen = select(corpus, second & ~first)
    assert chosen["analysis_id"].values.tolist() == ["a"]


def test_masks__a_label_and_not_that_label_part_the_corpus() -> None:
    corpus = label_corpus("pain")
    mask = has_label(corpus, "pain")
    parts = [select(corpus, each)["analysis_id"].values.tolist() for each in (mask, ~mask)]
    assert sorted(parts[0] + parts[1]) == list("abcde")


# select


def assert_is_part(part: xr.Dataset, whole: xr.Dataset, ids: list[str]) -> None:
    """`part` has the analyses `ids` of `whole`, with their foci, weights and texts."""
    check(part)
    assert part["analysis_id"].values.tolist() == ids
    foci = foci_of(whole)
    assert foci_of(part) == {name: foci[name] for name in ids}
    at = [whole["analysis_id"].values.tolist().index(name) for name in ids]
    assert part["study_id"].values.tolist() == whole["study_id"].values[at].tolist()
    for name in facts.fields(part):
        kept = get_metadata(whole, name).values[at].tolist()
        assert [str(each) for each in get_metadata(part, name).values] == [str(k) for k in kept]
    if "feature" in whole.dims:
        assert part["feature"].values.tolist() == whole["feature"].values.tolist()
        kept = {key: value for key, value in weights_by_name(whole).items() if key[0] in ids}
        assert weights_by_name(part) == kept
        dense = nd_corpus.weights_of(whole).toarray()[at]
        assert_array_equal(nd_corpus.weights_of(part).toarray(), dense)


@pytest.mark.parametrize("mask", [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]])
def test_select__keeps_foci_and_weights(mask: list[int]) -> None:
    corpus, chosen = tiny_corpus(), np.array(mask, bool)
    ids = corpus["analysis_id"].values[chosen].tolist()
    assert_is_part(select(corpus, chosen), corpus, ids)


@given(draft=drafts(min_foci=0), data=st.data())
@settings(max_examples=50)
def test_select__any_mask_equals_the_dense_table(draft: Draft, data: st.DataObject) -> None:
    corpus = draft.build()
    n = len(draft.ids)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    assume(mask.any())
    ids = [name for name, chosen in zip(draft.ids, mask, strict=True) if chosen]
    assert_is_part(select(corpus, mask), corpus, ids)


def test_select__of_a_selection() -> None:
    corpus = simulate_corpus(40, n_features=4, space=small_space(), random_state=3)
    first = np.arange(40) % 2 == 0
    second = np.arange(20) % 3 == 0
    twice = select(select(corpus, first), second)
    once = select(corpus, np.isin(np.arange(40), np.arange(0, 40, 6)))
    assert nd_corpus.digest(twice) == nd_corpus.digest(once)
    assert_is_part(twice, corpus, once["analysis_id"].values.tolist())


def test_select__everything_is_the_same_corpus() -> None:
    corpus = tiny_corpus()
    everything = select(corpus, np.ones(4, bool))
    xr.testing.assert_equal(everything, corpus)
    assert nd_corpus.digest(everything) == nd_corpus.digest(corpus)


def test_select__is_a_step_of_the_provenance() -> None:
    corpus = simulate_corpus(40, n_features=4, space=small_space())
    made, selected = steps(select(corpus, np.arange(40) < 7))
    assert (made["step"], selected["step"]) == ("simulate_corpus", "select")
    assert (selected["n_selected"], selected["n_before"]) == (7, 40)
    assert len(steps(corpus)) == 1


def test_select__leaves_the_corpus_alone() -> None:
    corpus = tiny_corpus().assign_attrs(digest="d")
    select(corpus, np.array([True, False, False, True]))
    xr.testing.assert_identical(corpus, tiny_corpus().assign_attrs(digest="d"))


def test_select__drops_the_digest_of_the_whole() -> None:
    corpus = tiny_corpus()
    known = corpus.assign_attrs(digest=nd_corpus.digest(corpus))
    mask = np.array([True, False, False, True])
    assert nd_corpus.digest(select(known, mask)) == nd_corpus.digest(select(corpus, mask))
    assert nd_corpus.digest(select(known, mask)) != nd_corpus.digest(corpus)


def test_select__corpus_without_features() -> None:
    bare = tiny_corpus().drop_dims(["feature", "weight"])
    assert_is_part(select(bare, np.array([False, True, True, False])), bare, ["s1-2", "s2-1"])


def test_select__masks_of_xarray_and_numpy_are_one() -> None:
    corpus = tiny_corpus()
    mask = has_label(corpus, "terms_abstract__pain")
    xr.testing.assert_identical(select(corpus, mask), select(corpus, mask.values))


def test_select__mask_of_another_corpus() -> None:
    corpus = simulate_corpus(40, n_features=4, space=small_space())
    first, second = select(corpus, np.arange(40) < 20), select(corpus, np.arange(40) >= 20)
    mask = has_label(first, "000")
    for wrong in (mask, ~mask, mask & has_label(first, "001")):
        with pytest.raises(SchemaError, match=r"made from another corpus.*again with has_label"):
            select(second, wrong)
    shuffled = corpus.isel(analysis=[1, 0, *range(2, 40)])
    with pytest.raises(SchemaError, match="another corpus"):
        select(corpus, has_label(shuffled, "000") | True)


def test_select__nothing() -> None:
    with pytest.raises(SelectionError, match=r"No analysis of 4 is selected; use a lower thresh"):
        select(tiny_corpus(), np.zeros(4, bool))
    with pytest.raises(SelectionError, match=r"No analysis of 4"):
        select(tiny_corpus(), has_label(tiny_corpus(), "fear"))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones(3, bool), r"type bool and shape \(3,\); expected boolean and \(4,\)"),
        (np.ones((4, 1), bool), r"shape \(4, 1\)"),
        (np.array(True), r"shape \(\)"),
        (np.ones(4, int), r"type int64"),
        (np.array([0.0, 1.0, 0.0, 1.0]), r"type float64"),
        (["s1-1", "s2-1"], r"type <U4"),
    ],
)
def test_select__mask_that_is_none(mask: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says + r".*has_label\(\)"):
        select(tiny_corpus(), mask)
