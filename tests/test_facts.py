"""Facts: any value of JSON comes back as it was, of the row that it was of."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.corpus import check, digest, open_corpus, save_corpus
from nimare_dask.draft import Draft
from nimare_dask.errors import SchemaError
from nimare_dask.facts import Facts, JsonText
from tests.studies_made import JSON, WORDS, corpus_with

VALUES = st.one_of(JSON, st.lists(st.none() | JSON, max_size=2))


def same(found: Any, expected: Any) -> bool:
    """Equal as JSON, in which 2010 and 2010.0 are one number and True is none."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return found == expected
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and set(found) == set(expected)
            and all(same(found[key], expected[key]) for key in expected)
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(map(same, found, expected))
        )
    return type(found) is type(expected) and found == expected


def of_field(corpus: xr.Dataset, name: str = "analysis.metadata.x") -> dict[int, Any]:
    rows, values = facts.values(corpus, name)
    return dict(zip(rows.tolist(), values, strict=True))


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_facts__any_json_comes_back(values: list[Any]) -> None:
    found = of_field(corpus_with(values))
    assert list(found) == list(range(len(values)))
    assert all(map(same, found.values(), values))


@settings(max_examples=6)
@given(st.lists(st.none() | WORDS, min_size=1), st.lists(st.none() | VALUES, min_size=1))
def test_facts__stored_and_opened(tmp_path_factory: Any, names: list[Any], values: Any) -> None:
    draft = Draft()
    study = draft.add_study("s")
    for row in range(max(len(names), len(values))):
        draft.add_focus(draft.add_analysis(study, str(row)), (0, 0, 0), "MNI")
    draft.facts.add_column("analysis.name", names)
    for row, value in enumerate(values):
        draft.facts.add("analysis.metadata.x", row, value)
    corpus = draft.build()
    path = tmp_path_factory.getbasetemp() / "facts.zarr"
    stored = open_corpus(save_corpus(corpus, path, overwrite=True))
    assert digest(stored) == digest(corpus)
    there = {row: name for row, name in enumerate(names) if name is not None}
    assert of_field(stored, "analysis.name") == there
    found = of_field(stored)
    assert all(same(found.get(row), value) for row, value in enumerate(values))


@pytest.mark.parametrize(
    "values",
    [
        ["a", "a\0", "a\0b", "a\0c"],
        ["1", 1, True, "true", "[1]", [1], JsonText("[1]"), '"1"'],
        [2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**64, 10**300],
        [0.1, 1e-320, 1.7976931348623157e308, 5e-324, -0.5],
        [math.inf, -math.inf],
        ["", " ", "\n", "NaN", "null", "None"],
        ["😀", "痛み", "\u2028", "\ufeff"],
        [np.float32(0.5), np.int64(7), np.bool_(True)],
    ],
)
def test_facts__values_that_look_alike(values: list[Any]) -> None:
    found = list(of_field(corpus_with(values)).values())
    plain = [
        json.loads(each)
        if isinstance(each, JsonText)
        else each.item()
        if isinstance(each, np.generic)
        else each
        for each in values
    ]
    assert all(map(same, found, plain))
    assert len({json.dumps(each) for each in found}) == len({json.dumps(each) for each in plain})


def test_facts__whole_numbers_are_whole_again() -> None:
    found = of_field(corpus_with([2010, 2010.0, 0.5, 1e20]))
    assert [type(value) for value in found.values()] == [int, int, float, float]


def test_facts__none_and_nan_are_none() -> None:
    collected = Facts()
    collected.add("study.x", 0, None)
    assert not collected and collected.variables() == {}
    collected.add_column("study.x", [None, float("nan"), [1], "", None, False])
    assert collected._rows["study.x"] == [2, 3, 5]
    collected.add_column("study.y", ["a", None, "c"], rows=[7, 8, 9])
    assert collected._rows["study.y"] == [7, 9]
    collected.extend("study.z", [], [])
    assert "study.z" not in collected._rows


def test_facts__in_the_order_of_rows_whatever_the_order_of_adding() -> None:
    collected = Facts()
    for row in (3, 0, 2):
        collected.add("focus.kind", row, f"of {row}")
    collected.move("focus", np.array([3, 2, 1, 0]))
    collected.move("image", np.array([0]))
    draft = Draft()
    analysis = draft.add_analysis(draft.add_study("s"), "1")
    for x in range(4):
        draft.add_focus(analysis, (x, 0, 0), "MNI")
    draft.facts = collected
    assert of_field(draft.build(), "focus.kind") == {0: "of 3", 1: "of 2", 3: "of 0"}


def test_facts__texts_are_there_once() -> None:
    corpus = corpus_with(["same"] * 50 + [[1, 2]] * 50)
    assert corpus.sizes["text"] == 2 and corpus.sizes["fact"] == 100


def test_records__one_mapping_a_row() -> None:
    draft = Draft()
    study = draft.add_study("s")
    for row in range(3):
        draft.add_focus(draft.add_analysis(study, str(row)), (0, 0, 0), "MNI")
    draft.facts.add("analysis.metadata.a", 0, 1)
    draft.facts.add("analysis.metadata.a.b", 2, [None])
    draft.facts.add("analysis.metadatax", 1, "not this")
    corpus = draft.build()
    assert facts.records(corpus, "analysis.metadata", 3) == [{"a": 1}, {}, {"a.b": [None]}]
    assert facts.fields(corpus) == sorted(facts.fields(corpus))
    assert facts.values(corpus, "analysis.none")[1] == []


def test_facts__none_at_all() -> None:
    corpus = corpus_with([None, None])
    assert "field" not in corpus.dims and facts.fields(corpus) == []
    assert facts.values(corpus, "study.name")[1] == [] and list(facts.iterate(corpus)) == []
    assert facts.records(corpus, "study", 1) == [{}]


@pytest.mark.parametrize(
    ("field", "row"), [("analysis.x", 2), ("study.x", 1), ("focus.x", 2), ("image.x", 0)]
)
def test_facts__of_a_row_that_is_not_there(field: str, row: int) -> None:
    draft = Draft()
    for contrast in "12":
        study = draft.studies.index("s") if draft.studies else draft.add_study("s")
        draft.add_focus(draft.add_analysis(study, contrast), (0, 0, 0), "MNI")
    draft.facts.add(field, row, "x")
    with pytest.raises(SchemaError, match="row that is not there"):
        draft.build()


def test_facts__of_what_is_unknown() -> None:
    with pytest.raises(SchemaError, match="does not say of what it is"):
        corpus_with(["x"], "paper.name")


@given(st.lists(VALUES, min_size=1, max_size=5), st.data())
def test_take__facts_of_the_rows_that_stay(values: list[Any], data: st.DataObject) -> None:
    corpus = corpus_with(values)
    n = len(values)
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    place = np.where(kept, np.cumsum(kept) - 1, -1)
    made = facts.take(corpus, {"analysis": place, "study": np.zeros(1, np.int64)})
    stay = [value for value, stays in zip(values, kept, strict=True) if stays]
    if not stay:
        assert made == {}
        return
    taken = corpus.drop_dims(["field", "fact", "text"]).assign(made)
    found = of_field(taken)
    assert list(found) == list(range(len(stay))) and all(map(same, found.values(), stay))
    used = taken["fact_text"].values
    assert set(used[used >= 0].tolist()) == set(range(taken.sizes["text"]))


def test_check__counts_that_do_not_add_up() -> None:
    corpus = corpus_with([1, "a"])
    wrong = corpus.assign(field_n_facts=corpus["field_n_facts"] + 1)
    with pytest.raises(SchemaError, match="field_n_facts"):
        check(wrong)
    wrong = corpus.assign(fact_text=corpus["fact_text"] + 1)
    with pytest.raises(SchemaError, match="a text that is not there"):
        check(wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": [1, 2.5], "a": "é"}, '{"a":"é","b":[1,2.5]}'),
        ([None, True], "[null,true]"),
        ([float("nan"), float("-inf")], "[NaN,-Infinity]"),
        ([2**70], f"[{2**70}]"),
        ({2: "x"}, '{"2":"x"}'),
        (["\ud800"], '["\ud800"]'),
    ],
    ids=["plain", "null", "not finite", "long", "key", "half"],
)
def test_dump__is_compact_and_what_python_reads(value: Any, text: str) -> None:
    assert facts.dump(value) == text
    assert repr(json.loads(text)) == repr(
        {str(key): value[key] for key in sorted(value)} if isinstance(value, dict) else value
    )
