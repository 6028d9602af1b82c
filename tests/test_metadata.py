"""What is known of analyses: looked up, compared, and the order of sample sizes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from nimare_dask.draft import Draft
from nimare_dask.errors import SettingsError, UnknownLabelError
from nimare_dask.metadata import (
    get_metadata,
    has_images,
    has_sample_size,
    image_type,
    mean_of,
    mean_sample_sizes,
    where_metadata,
)
from nimare_dask.selection import select
from nimare_dask.simulate import simulate_corpus
from nimare_dask.subset import take
from tests.builders import tiny_corpus
from tests.studies_made import corpus_with

#: Where sample sizes are looked up, first to last, with what each says here.
SIZES = {
    "analysis.metadata.sample_sizes": [10, 12],
    "analysis.metadata.sample_size": 20,
    "study.metadata.sample_sizes": [30, 34],
    "study.metadata.sample_size": 40,
}
MEANS = [11.0, 20.0, 32.0, 40.0]


def with_facts() -> Draft:
    """Two studies, the first of two analyses, with a focus each."""
    draft = Draft()
    for name, contrasts in (("a", ("1", "2")), ("b", ("1",))):
        study = draft.add_study(name)
        for contrast in contrasts:
            draft.add_focus(draft.add_analysis(study, contrast), (0, 0, 0), "MNI")
    return draft


def marked(corpus: xr.Dataset, op: str, value: Any = None, field: str = "x") -> list[bool]:
    mask = where_metadata(corpus, field, op, value)
    assert mask.dims == ("analysis",) and mask.dtype == bool
    assert mask["analysis_id"].values.tolist() == corpus["analysis_id"].values.tolist()
    return list(mask.values.tolist())


# what is looked up, and where


def test_get_metadata__nearest_place_counts() -> None:
    draft = with_facts()
    places = ("analysis.metadata.year", "analysis.year", "study.metadata.year", "study.year")
    for number, place in reversed(list(enumerate(places))):
        draft.facts.add(place, 0, number)
        assert get_metadata(draft.build(), "year").values[0] == number
    corpus = draft.build()
    assert get_metadata(corpus, "year").values.tolist()[:2] == [0, 2]  # of its study
    assert np.isnan(get_metadata(corpus, "year").values[2])
    for number, place in enumerate(places):
        assert get_metadata(corpus, place).values[0] == number


def test_get_metadata__a_text_near_hides_a_number_far() -> None:
    draft = with_facts()
    draft.facts.add("study.year", 0, 1999)
    draft.facts.add("analysis.metadata.year", 1, "in press")
    corpus = draft.build()
    assert get_metadata(corpus, "year").values.tolist() == ["1999", "in press", ""]
    assert marked(corpus, "==", 1999, "year") == [True, False, False]
    assert marked(corpus, "exists", field="year") == [True, True, False]


def test_get_metadata__numbers_texts_and_lists() -> None:
    values = [3.2, "x", 2010, [1, "é"], True, None, 2**60, 1e300, ""]
    found = get_metadata(corpus_with(values), "x").values.tolist()
    assert found == [
        *("3.2", "x", "2010", '[1,"é"]', "true", "", str(2**60), "1e+300", ""),
    ]
    plain = get_metadata(corpus_with([0.1, None, 5]), "x")
    assert plain.dtype == float and plain.values.tolist()[::2] == [0.1, 5]
    assert np.isnan(plain.values[1])


def test_get_metadata__no_such_field() -> None:
    with pytest.raises(UnknownLabelError, match=r"No field is called 'nme'. Did you mean name"):
        get_metadata(tiny_corpus(), "nme")
    with pytest.raises(UnknownLabelError, match="has no fields"):
        get_metadata(simulate_corpus(3, n_foci=5), "name")


def test_get_metadata__fields_of_foci_are_refused() -> None:
    draft = with_facts()
    draft.facts.add("focus.kind", 0, "peak")
    corpus = draft.build()
    with pytest.raises(SettingsError, match="is a field of each focus"):
        get_metadata(corpus, "focus.kind")


# what is compared


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("==", 2010, [1, 1, 0, 0, 0, 0]),
        ("==", "2010", [1, 1, 0, 0, 0, 0]),
        ("!=", 2010, [0, 0, 1, 1, 1, 0]),
        ("<", 2010, [0, 0, 1, 0, 1, 0]),
        (">=", 2005.5, [1, 1, 0, 0, 1, 0]),
        (">", np.int64(2005), [1, 1, 0, 0, 1, 0]),
        (">", np.float32(2005), [1, 1, 0, 0, 1, 0]),
        ("in", [2010, "soon"], [1, 1, 0, 1, 0, 0]),
        ("in", (n for n in [1999, 2000]), [0, 0, 1, 0, 1, 0]),
        ("in", np.array([1999, 2000]), [0, 0, 1, 0, 1, 0]),
        ("in", [], [0, 0, 0, 0, 0, 0]),
        ("not in", {2010}, [0, 0, 1, 1, 1, 0]),
        ("not in", [], [1, 1, 1, 1, 1, 0]),
        ("contains", "01", [1, 1, 0, 0, 1, 0]),
        ("contains", 10, [1, 1, 0, 0, 0, 0]),
        ("contains", "10.0", [0, 0, 0, 0, 0, 0]),
        ("contains", "OO", [0, 0, 0, 1, 0, 0]),
        ("contains", ", ", [0, 0, 0, 0, 0, 0]),
        ("exists", None, [1, 1, 1, 1, 1, 0]),
    ],
)
def test_where_metadata__each_operator(op: str, value: Any, expected: list[int]) -> None:
    corpus = corpus_with([2010, "2010", 1999, "soon", [2000, 2015, 2016], None])
    assert marked(corpus, op, value) == [bool(each) for each in expected]


def test_where_metadata__text_is_compared_as_text() -> None:
    corpus = corpus_with(["abc", "ABD", "true", True, {"a": 1}])
    assert marked(corpus, "==", "abc") == [True, False, False, False, False]
    assert marked(corpus, "<", "abd") == [True, True, False, False, False]
    assert marked(corpus, "==", True) == [False, False, False, True, False]
    assert marked(corpus, "!=", 5) == [True] * 5


@pytest.mark.parametrize("op", ["==", "!=", "<", "contains"])
@pytest.mark.parametrize("value", [None, [1], np.array([1, 2]), {"a": 1}])
def test_where_metadata__value_that_cannot_be_compared(op: str, value: Any) -> None:
    with pytest.raises(SettingsError, match="must be a number or a text"):
        where_metadata(corpus_with([1]), "x", op, value)


def test_where_metadata__refusals() -> None:
    corpus = corpus_with([1])
    with pytest.raises(SettingsError, match=r"op is '=~'; expected one of ==, !="):
        where_metadata(corpus, "x", "=~", 1)
    for value in ("abc", 5, None):
        with pytest.raises(SettingsError, match="must be a list"):
            where_metadata(corpus, "x", "in", value)
    with pytest.raises(UnknownLabelError, match="'y'"):
        where_metadata(corpus, "y", "exists")


_VALUES = st.lists(
    st.none() | st.integers(-3, 3) | st.sampled_from([0.5, "1", "a", "B", ""]), min_size=1
)


@given(_VALUES, st.sampled_from(["==", "<", "<=", ">", ">="]), st.integers(-3, 3))
def test_where_metadata__as_python_compares(values: list[Any], op: str, wanted: int) -> None:
    if all(value is None for value in values):
        return

    def holds(value: Any) -> bool:
        if value in (None, "a", "B", ""):
            return False
        number = float(value)
        return bool(
            {
                "==": number == wanted,
                "<": number < wanted,
                "<=": number <= wanted,
                ">": number > wanted,
                ">=": number >= wanted,
            }[op]
        )

    assert marked(corpus_with(values), op, wanted) == [holds(value) for value in values]


# many analyses


@pytest.fixture(scope="module")
def many() -> xr.Dataset:
    """100,000 analyses of 40,000 studies with a focus, a year, a name and sample sizes."""
    n, n_studies = 100_000, 40_000
    draft = Draft()
    draft.studies = [f"s{row}" for row in range(n_studies)]
    draft.analysis_study = sorted(row % n_studies for row in range(n))
    draft.contrasts = [str(row) for row in range(n)]
    draft.add_foci(np.arange(n), np.zeros((n, 3)), ["MNI"] * n)
    rows = list(range(n_studies))
    draft.facts.extend("study.year", rows, [1990 + row % 35 for row in rows])
    draft.facts.extend("study.name", rows, [f"A study of {row}" for row in rows])
    rows = list(range(n))
    sizes = [[10 + row % 90] for row in rows]
    draft.facts.extend("analysis.metadata.sample_sizes", rows, sizes)
    return draft.build()


@pytest.mark.parametrize(
    ("field", "op", "value", "share"),
    [
        ("year", ">=", 2010, 15 / 35),
        ("name", "contains", "study of 1", None),
        ("sample_sizes", ">=", 55, 0.5),
        ("year", "in", [1990, 1991], 2 / 35),
    ],
)
def test_where_metadata__of_100_000_analyses_in_no_time(
    many: xr.Dataset, field: str, op: str, value: Any, share: float | None
) -> None:
    def once() -> float:
        began = time.perf_counter()
        mask = where_metadata(many, field, op, value)
        took = time.perf_counter() - began
        if share is not None:
            assert abs(float(mask.mean()) - share) < 0.01
        return took

    assert min(once() for _ in range(3)) < 0.2


def test_select__of_100_000_analyses_in_no_time(many: xr.Dataset) -> None:
    mask = where_metadata(many, "year", ">=", 2010)

    def once() -> float:
        began = time.perf_counter()
        chosen = select(many, mask)
        took = time.perf_counter() - began
        assert chosen.sizes["analysis"] == chosen.sizes["focus"] == int(mask.sum())
        return took

    assert min(once() for _ in range(3)) < 0.4


# images


def test_image_type__as_repositories_spell_it() -> None:
    spelled = {
        **{"T map": "t", "t": "t", " Z Map ": "z", "P map": "p", "variance": "varcope"},
        **{"univariate-beta map": "beta", "Standard Error": "se", "ROI/mask": "roi/mask"},
    }
    assert {spelling: image_type(spelling) for spelling in spelled} == spelled


def test_has_images__any_or_of_a_type() -> None:
    draft = with_facts()
    draft.add_image(2, "variance", "c.nii")
    draft.add_image(0, "T map", "a.nii")
    draft.add_image(0, "z", "b.nii")
    corpus = draft.build()
    assert has_images(corpus).values.tolist() == [True, False, True]
    assert has_images(corpus, "t").values.tolist() == [True, False, False]
    assert has_images(corpus, "T map").values.tolist() == [True, False, False]
    assert has_images(corpus, "varcope").values.tolist() == [False, False, True]
    assert not has_images(corpus, "beta").any()
    assert not has_images(tiny_corpus()).any()
    none_left = take(
        corpus, {"analysis": np.array([False, True, False]), "study": np.array([True, False]),
                 "focus": np.array([False, True, False]), "image": np.zeros(3, bool)}
    )  # fmt: skip
    assert not has_images(none_left, "t").any()


# sample sizes


@pytest.mark.parametrize("first", range(4))
def test_mean_sample_sizes__in_nimares_order(first: int) -> None:
    draft = with_facts()
    for place, value in list(SIZES.items())[first:]:
        draft.facts.add(place, 0, value)
    corpus = draft.build()
    of_study = MEANS[max(first, 2)]
    found = mean_sample_sizes(corpus)
    assert found[:2].tolist() == [MEANS[first], of_study] and np.isnan(found[2])
    assert corpus["analysis_sample_size"].values[:2].tolist() == found[:2].tolist()
    assert has_sample_size(corpus).values.tolist() == [True, True, False]
    assert has_sample_size(corpus, 30).values.tolist() == [MEANS[first] >= 30, True, False]


def test_mean_sample_sizes__as_nimare_has_them() -> None:
    pytest.importorskip("nimare", reason="NiMARE is not installed")
    from nimare.studyset import Studyset

    points = [{"coordinates": [0, 0, 0], "space": "MNI"}]
    places, studies = list(SIZES), []
    draft = Draft()
    for number in range(16):  # every combination of what is there
        there = [place for bit, place in enumerate(places) if number >> bit & 1]
        said: dict[str, dict[str, Any]] = {"analysis": {}, "study": {}}
        study = draft.add_study(f"s{number:02}")
        row = draft.add_analysis(study, "1")
        for place in there:
            said[place.partition(".")[0]][place.rpartition(".")[2]] = SIZES[place]
            draft.facts.add(place, study if place.startswith("study") else row, SIZES[place])
        studies.append(
            {"id": f"s{number:02}", "name": "", "metadata": said["study"], "analyses": [
                {"id": "1", "name": "", "metadata": said["analysis"], "points": points,
                 "conditions": [], "weights": [], "images": []}]}
        )  # fmt: skip
    theirs = Studyset({"id": "x", "name": "x", "studies": studies}, target=None).sample_sizes()
    np.testing.assert_array_equal(mean_sample_sizes(draft.build()), theirs)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (12, 12.0),
        ([10, 20], 15.0),
        ("12", 12.0),
        ("[10, 20]", 15.0),
        (["10", 20], 15.0),
        ([None, 4], 4.0),
        ([0, 5], 5.0),
        (0, None),
        (-3, None),
        (True, None),
        ([True], None),
        ([], None),
        ([[1]], None),
        ({"n": 5}, None),
        ("about 12", None),
        ("[" * 5000, None),
        ("1" * 5000, None),
        (1e300, None),
        ([1e300, 10**400], None),
        (float("inf"), None),
    ],
)
def test_mean_of__what_is_a_size_and_what_is_not(found: Any, expected: float | None) -> None:
    size = np.nan if expected is None else expected
    np.testing.assert_equal(mean_of(found), size)
    corpus = corpus_with([found, 7], "analysis.metadata.sample_sizes")
    np.testing.assert_equal(mean_sample_sizes(corpus).tolist(), [size, 7.0])


def test_has_sample_size__nothing_is_known() -> None:
    assert not has_sample_size(corpus_with([1])).any()


@settings(max_examples=25)
@given(
    st.lists(st.none() | st.integers(1, 50) | st.lists(st.integers(1, 50), min_size=1), min_size=1)
)
def test_mean_sample_sizes__one_by_one(sizes: list[Any]) -> None:
    found = mean_sample_sizes(corpus_with(sizes, "analysis.metadata.sample_sizes"))
    expected = [np.nan if size is None else np.mean(size) for size in sizes]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
