"""One corpus of several: every study once, in order, with all that is its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.corpus import annotations_of, check, digest
from nimare_dask.draft import Draft
from nimare_dask.errors import CorpusWarning, SelectionError
from nimare_dask.merging import merge
from nimare_dask.provenance import steps
from nimare_dask.simulate import simulate_corpus
from tests.builders import foci_of, tiny_corpus, weights_by_name
from tests.studies_made import full_corpora, images_of, said_of

#: What a study may be known by: name, PMID and DOI.
Paper = tuple[str, Any, Any]


def corpus_of(*papers: Paper, x: float = 0.0) -> xr.Dataset:
    """A study of one analysis and one focus, at x mm, for each paper."""
    draft = Draft()
    for name, pmid, doi in papers:
        study = draft.add_study(name)
        draft.facts.add("study.pmid", study, pmid)
        draft.facts.add("study.doi", study, doi)
        draft.add_focus(draft.add_analysis(study, "1"), (x, 0, 0), "MNI")
    return draft.build()


def merged(*corpora: xr.Dataset, doubled: Sequence[int] = ()) -> xr.Dataset:
    """Merge, and hold it to what it says of studies that are there already."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = merge(*corpora)
    check(made)
    told = [str(each.message) for each in caught if each.category is CorpusWarning]
    counts = ", ".join(map(str, doubled))
    assert told == (
        [
            f"{counts} studies of the further corpora are in an earlier one already (same PMID, "
            "DOI or name); each is taken once, from the first."
        ]
        if doubled
        else []
    )
    assert steps(made)[-1]["n_studies_doubled"] == (list(doubled) or [0] * (len(corpora) - 1))
    return made


# which studies are the same


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (("a", "12", None), ("b", "12", None), True),
        (("a", 12, None), ("b", "12", None), True),
        (("a", " 12 ", None), ("b", 12.0, None), True),
        (("a", "12.0", None), ("b", 12, None), True),
        (("a", "12", None), ("b", "13", None), False),
        (("a", None, "10.1/X"), ("b", None, "https://doi.org/10.1/x"), True),
        (("a", None, "doi:10.1/x"), ("b", None, "10.1/x "), True),
        (("a", None, "10.1/x"), ("b", None, "10.1/y"), False),
        (("a", "12", "10.1/x"), ("b", "13", "10.1/x"), True),
        (("a", None, None), ("a", None, None), True),
        (("a", "12", None), ("a", None, "10.1/x"), True),
        (("a", "12", None), ("a", None, None), True),
        (("a", "12", None), ("a", "13", None), False),
        (("a", None, "10.1/x"), ("a", None, "10.1/y"), False),
        (("a", "", ""), ("b", "", ""), False),
        (("a", None, "none"), ("b", None, "none"), False),
    ],
)
def test_merge__which_studies_are_the_same(first: Paper, second: Paper, same: bool) -> None:
    made = merged(corpus_of(first), corpus_of(second, x=1.0), doubled=[1] if same else [])
    xs = made["focus_xyz"].values[:, 0].tolist()
    assert xs == ([0.0] if same else [0.0, 1.0])
    name = second[0] if second[0] != first[0] else f"{first[0]}_2"
    assert made["study"].values.tolist() == ([first[0]] if same else [first[0], name])
    assert made["analysis_id"].values.tolist()[1:] == ([] if same else [f"{name}-1"])


def test_merge__a_new_name_is_no_name_that_is_taken() -> None:
    first = corpus_of(("a", 1, None), ("a_2", 2, None))
    second = corpus_of(("a", 3, None), ("a_3", 4, None), ("b", 5, None))
    made = merged(first, second)
    assert made["study"].values.tolist() == ["a", "a_2", "a_4", "a_3", "b"]
    rows, pmids = facts.values(made, "study.pmid")
    assert dict(zip(made["study"].values[rows].tolist(), pmids, strict=True)) == {
        "a": 1, "a_2": 2, "a_4": 3, "a_3": 4, "b": 5
    }  # fmt: skip


def test_merge__with_itself_is_itself() -> None:
    corpus = tiny_corpus()
    made = merged(corpus, corpus, doubled=[3])
    assert digest(made) == digest(corpus)
    assert digest(merged(corpus, corpus, corpus, doubled=[3, 3])) == digest(corpus)


def test_merge__refusals() -> None:
    for corpora in ((), (tiny_corpus(),)):
        with pytest.raises(SelectionError, match="expected two or more"):
            merge(*corpora)


# what is in it


@settings(max_examples=12)
@given(full_corpora(prefix="a"), full_corpora(prefix="b"))
def test_merge__keeps_every_study_once_and_in_order(first: xr.Dataset, second: xr.Dataset) -> None:
    made = said_of(merged(first, second))
    one, other = said_of(first), said_of(second)
    for kind in ("studies", "analyses", "foci", "images", "weights"):
        assert made[kind] == one[kind] | other[kind]
        if kind != "weights":
            assert list(made[kind]) == [*one[kind], *other[kind]]
    for field in {*one, *other}:
        if field.startswith("note."):
            continue
        assert made[field] == one.get(field, {}) | other.get(field, {})
    # Notes go along with their annotation, which comes after those of the first.
    task = "note.{}.note.task"
    assert made.get(task.format(0), {}) == one.get(task.format(0), {})
    assert made.get(task.format(1), {}) == other.get(task.format(0), {})


@settings(max_examples=5)
@given(full_corpora(prefix="a"), full_corpora(prefix="b"), full_corpora(prefix="c"))
def test_merge__is_associative_where_nothing_is_doubled(
    first: xr.Dataset, second: xr.Dataset, third: xr.Dataset
) -> None:
    at_once = merge(first, second, third)
    left = merge(merge(first, second), third)
    right = merge(first, merge(second, third))
    assert said_of(at_once) == said_of(left) == said_of(right)
    assert annotations_of(at_once) == annotations_of(left) == annotations_of(right)


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), min_size=2))
def test_merge__each_name_once_from_the_first_that_has_it(sets: list[list[str]]) -> None:
    corpora = [
        corpus_of(*((name, None, None) for name in names), x=float(number))
        for number, names in enumerate(sets)
    ]
    expected: dict[str, float] = {}
    for number, names in enumerate(sets):
        for name in names:
            expected.setdefault(name, float(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        made = merge(*corpora)
    xs = made["focus_xyz"].values[:, 0].tolist()
    assert dict(zip(made["study"].values.tolist(), xs, strict=True)) == expected
    assert made["study"].values.tolist() == list(expected)


def test_merge__features_by_name() -> None:
    plain = simulate_corpus(3, n_foci=6, n_features=2, effects_per_feature=1)
    made = merged(tiny_corpus(), plain)
    assert made["feature"].values.tolist() == [
        *tiny_corpus()["feature"].values.tolist(), *plain["feature"].values.tolist()
    ]  # fmt: skip
    assert weights_by_name(made) == weights_by_name(tiny_corpus()) | weights_by_name(plain)
    without = merged(corpus_of(("z", None, None)), tiny_corpus())
    assert weights_by_name(without) == weights_by_name(tiny_corpus())


def test_merge__a_feature_of_both_is_one() -> None:
    made_of = []
    for name, weight in (("a", 0.5), ("b", 0.0)):
        draft = Draft()
        row = draft.add_analysis(draft.add_study(name), "1")
        draft.add_focus(row, (0, 0, 0), "MNI")
        feature = draft.add_feature(draft.add_annotation({"id": f"of {name}"}), "pain")
        draft.add_weight(feature, row, weight)
        made_of.append(draft.build())
    made = merged(*made_of)
    assert weights_by_name(made) == {("a-1", "pain"): 0.5, ("b-1", "pain"): 0.0}
    assert [each["id"] for each in annotations_of(made)] == ["of a", "of b"]


def test_merge__sample_sizes_spaces_and_images() -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("x"), "1")
    draft.add_focus(row, (0, 0, 0), "TAL")
    draft.add_image(row, "T map", "x.nii", "MNI")
    draft.facts.add("analysis.metadata.sample_sizes", row, [12])
    other = draft.build()
    made = merged(corpus_of(("a", 1, None)), other)
    np.testing.assert_array_equal(made["analysis_sample_size"].values, [np.nan, 12.0])
    assert [focus[3] for foci in foci_of(made).values() for focus in foci] == ["MNI", "TAL"]
    assert images_of(made) == [("x-1", "T map", "x.nii", "MNI")]
    made = merged(other, corpus_of(("a", 1, None)))
    np.testing.assert_array_equal(made["analysis_sample_size"].values, [12.0, np.nan])
    assert images_of(made) == [("x-1", "T map", "x.nii", "MNI")]


def test_merge__sources_are_as_they_were() -> None:
    first, second = tiny_corpus(), corpus_of(("s1", 1, None), ("z", 2, None))
    before = digest(first), digest(second)
    merged(first, second, doubled=[1])
    assert (digest(first), digest(second)) == before
