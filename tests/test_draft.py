"""A corpus in the making: rows in any order, each fact with its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.corpus import check
from nimare_dask.draft import Draft, feature_names
from nimare_dask.errors import SchemaError
from tests.builders import foci_of, weights_by_name
from tests.studies_made import images_of


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3)))
def test_draft__foci_and_images_go_to_their_analyses(foci: list[int], images: list[int]) -> None:
    draft = Draft()
    for contrast in range(4):
        draft.add_analysis(draft.add_study(f"s{contrast}"), "1")
    for number, analysis in enumerate(foci):
        assert draft.add_focus(analysis, (number, 0, 0), ["MNI", "TAL"][number % 2]) == number
        draft.facts.add("focus.number", number, number)
    for number, analysis in enumerate(images):
        assert draft.add_image(analysis, "z", f"{number}") == number
        draft.facts.add("image.number", number, f"{number}")
    corpus = draft.build()
    check(corpus)
    for row, each in enumerate(foci_of(corpus).values()):
        mine = [number for number, analysis in enumerate(foci) if analysis == row]
        assert each == [(number, 0.0, 0.0, ["MNI", "TAL"][number % 2]) for number in mine]
    rows, numbers = facts.values(corpus, "focus.number")
    assert corpus["focus_xyz"].values[rows, 0].tolist() == numbers
    if images:
        rows, numbers = facts.values(corpus, "image.number")
        assert [images_of(corpus)[row][2] for row in rows] == numbers


def test_draft__many_foci_at_once_are_as_one_by_one() -> None:
    one, many = Draft(), Draft()
    for draft in (one, many):
        for contrast in "12":
            draft.add_analysis(0 if draft.studies else draft.add_study("s"), contrast)
    for analysis, x in ((1, 5.0), (0, 6.0), (1, 7.0)):
        one.add_focus(analysis, (x, 0, 0), "MNI")
    many.add_foci(np.array([1, 0, 1]), np.array([[5, 0, 0], [6, 0, 0], [7, 0, 0]]), ["MNI"] * 3)
    assert foci_of(one.build()) == foci_of(many.build())
    assert many.n_foci == 3


def test_draft__nothing_in_it() -> None:
    corpus = Draft().build()
    check(corpus)
    assert corpus.sizes["analysis"] == corpus.sizes["focus"] == corpus.sizes["study"] == 0


def test_draft__two_analyses_of_one_name() -> None:
    draft = Draft()
    draft.add_analysis(draft.add_study("a-b"), "c")
    draft.add_analysis(draft.add_study("a"), "b-c")
    with pytest.raises(SchemaError, match=r"analysis_id has 1 names more than once \(a-b-c\)"):
        draft.build()


def test_draft__features_of_several_annotations() -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "1")
    first, second = (draft.add_annotation({"id": name}) for name in ("one", "two"))
    places = [
        draft.add_feature(first, "pain"),
        draft.add_feature(second, "pain", "boolean"),
        draft.add_feature(second, "fear"),
    ]
    assert places == [0, 1, 2] and draft.add_feature(second, "pain") == 1
    for place in places:
        draft.add_weight(place, row, place / 4)
    corpus = draft.build()
    assert corpus["feature"].values.tolist() == ["one__pain", "two__pain", "fear"]
    assert corpus["feature_label"].values.tolist() == ["pain", "pain", "fear"]
    assert corpus["feature_kind"].values.tolist() == ["number", "boolean", "number"]
    assert weights_by_name(corpus) == {
        ("s-1", "one__pain"): 0.0, ("s-1", "two__pain"): 0.25, ("s-1", "fear"): 0.5
    }  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        ([(0, "pain"), (1, "pain")], ["x", "x"]),
        ([(0, "pain"), (1, "pain"), (0, "y__pain")], ["x", "y"]),
        ([(0, "pain"), (1, "pain")], [None, None]),
        ([(0, "pain"), (1, "pain")], ["1", None]),
    ],
)
def test_feature_names__are_never_the_same(
    labels: list[tuple[int, str]], ids: list[str | None]
) -> None:
    features = {label: place for place, label in enumerate(labels)}
    names = feature_names(features, [{"id": each} for each in ids])
    assert len(set(names)) == len(labels)
