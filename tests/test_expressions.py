"""Neurosynth's expressions, against sets and dictionaries of plain Python."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask.errors import CorpusWarning, NimareDaskError, SettingsError, UnknownLabelError
from nimare_dask.expressions import expression
from nimare_dask.selection import has_label, select

#: Weights of five studies; the columns are those of FEATURES.
WEIGHTS = np.array(
    [
        [0.05, 0.0, 0.01, 0.0, 0.3],
        [0.0, 0.0, 0.02, 0.0005, 0.0],
        [0.002, 0.0, 0.0, 0.0, 0.001],
        [0.03, 0.03, 0.0, 0.2, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
FEATURES = ["t__emotion", "t__emotional faces", "t__pain", "t__reward", "u__R&D"]


def table_corpus(weights: Any = WEIGHTS, features: Any = FEATURES) -> xr.Dataset:
    """One study a row, named a, b, c..., each with one focus."""
    n = len(weights)
    ids = [chr(ord("a") + row) for row in range(n)]
    return nd_corpus.build(
        analysis_id=ids,
        study_id=ids,
        n_foci=[1] * n,
        xyz=np.zeros((n, 3)),
        focus_space=[0] * n,
        spaces=["MNI"],
        feature=features,
        weights=sparse.csc_matrix(np.asarray(weights)),
    )


CORPUS = table_corpus()


def chosen(text: str, corpus: xr.Dataset = CORPUS, **settings: Any) -> str:
    """Names of the analyses that an expression selects, as one text."""
    return "".join(select_ids(corpus, expression(corpus, text, **settings)))


def select_ids(corpus: xr.Dataset, mask: xr.DataArray) -> list[str]:
    ids: list[str] = corpus["analysis_id"].values[mask.values].tolist()
    return ids


# what an expression means


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pain", "ab"),
        ("t__pain", "ab"),
        (" pain\n", "ab"),
        ("(pain)", "ab"),
        ("((pain))", "ab"),
        ("emotional faces", "d"),
        ("emotional \t faces", "d"),
        ('"emotional faces"', "d"),
        ("'u__R&D'", "ac"),
        (r'"R\&D"', "ac"),
        ("emo*", "acd"),
        ("emo* &~ (reward* | pain*)", "c"),
        ("emo* &~ (reward* | pain*) < 0.05", "cd"),
        ("*", "abcd"),
        ("?ain", "ab"),
        ("t__p???", "ab"),
        ("*__*ar*", "d"),
        ("~pain", "cde"),
        ("~~pain", "ab"),
        ("~(pain | reward)", "ce"),
        ("pain | reward", "abd"),
        ("emotion & pain", "a"),
        ("emotion & ~pain", "cd"),
        ("emotion &~ pain", "cd"),
        ("pain < 0.02", "a"),
        ("pain <= 0.02", "ab"),
        ("pain > 0.01", "b"),
        ("pain >= 0.01", "ab"),
        ("pain>=1e-2", "ab"),
        ("pain > .005 < 0.02", "a"),
        ("~pain < 0.02", "bcde"),
        ("reward", "d"),
        ("reward >= 0.0005", "bd"),
        ("reward > 0.0005", "d"),
        ("(reward) >= 0.0005", "d"),
        ("pain >= 0", "abcde"),
        ("pain > 0", "ab"),
        ("pain < 0", ""),
        ("(emotion | pain) < 0.05", "bcd"),
        ("(emotion & pain) >= 0.06", "a"),
        ("(emotion &~ reward) >= 0.05", "a"),
        ("(~pain) <= 0", "cde"),
        ("(emotion | reward) > 0.1 < 0.3", "d"),
    ],
)
def test_expression__hand_computed(text: str, expected: str) -> None:
    assert chosen(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a: emotion .05 pain .01; c: emotion .002; d: emotion .03 faces .03
        (("emo* >= 0.03", "sum"), "ad"),
        (("emo* >= 0.03", "mean"), "d"),
        (("emo* >= 0.03", "max"), "ad"),
        (("emo* >= 0.04", "max"), "a"),
        (("emo* >= 0.06", "sum"), "d"),
        (("(emotion | pain) >= 0.03", "mean"), "a"),
        (("(emotion | pain) >= 0.015", "mean"), "ad"),
        (("(emotion | pain) >= 0.05", "max"), "a"),
        (("emotion", "mean"), "acd"),
    ],
)
def test_expression__func_puts_weights_together(text: Any, expected: str) -> None:
    assert chosen(text[0], func=text[1]) == expected


def test_expression__max_of_negative_weights() -> None:
    corpus = table_corpus([[-1.0, -2.0], [-1.0, 0.0], [0.5, -1.0]], ["x1", "x2"])
    assert chosen("x* > -0.5", corpus, func="max") == "bc"
    assert chosen("x* > -1.5", corpus, func="max") == "abc"


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.0, "abcde"), (0.02, "b"), (0.0201, ""), (-1, "abcde")]
)
def test_expression__threshold_is_inclusive(threshold: float, expected: str) -> None:
    assert chosen("pain", threshold=threshold) == expected


def test_expression__float32_weights_equal_the_numbers_that_people_write() -> None:
    single = CORPUS.assign(weight_value=CORPUS["weight_value"].astype(np.float32))
    for text in ("pain >= 0.02", "~(pain < 0.02)", "(pain) >= 0.02", "(pain) <= 0.01"):
        assert chosen(text, single) == chosen(text)
    assert chosen("emotion", single, threshold=0.03) == chosen("emotion", threshold=0.03) == "ad"


def test_expression__is_has_label_for_one_feature() -> None:
    for name in FEATURES:
        for threshold in (0.001, 0.02, 0.0):
            mask = expression(CORPUS, f'"{name}"', threshold=threshold)
            xr.testing.assert_identical(mask, has_label(CORPUS, name, threshold))


def test_expression__is_a_mask_of_its_corpus() -> None:
    mask = expression(CORPUS, "emo*") & ~has_label(CORPUS, "pain")
    assert select(CORPUS, mask)["analysis_id"].values.tolist() == ["c", "d"]


# grouping, as in Neurosynth


@pytest.mark.parametrize(
    ("text", "same", "at"),
    [
        ("pain & emotion | reward", "pain & (emotion | reward)", 6),
        ("emo* &~ pain & reward", "emo* &~ (pain & reward)", 6),
        ("emo* &~ pain | reward", "emo* &~ (pain | reward)", 6),
        ("emo* &~ pain &~ reward", "emo* &~ (pain &~ reward)", 6),
        ("(pain & reward | emo*)", "pain & (reward | emo*)", 7),
        ("reward | (~pain & emo* | pain)", "reward | (~pain & (emo* | pain))", 17),
    ],
)
def test_expression__operators_take_all_that_follows(text: str, same: str, at: int) -> None:
    with pytest.warns(CorpusWarning, match=f"at character {at} takes all that follows") as told:
        found = chosen(text)
    assert len(told) == 1
    _, line, caret = str(told[0].message).splitlines()
    assert line.strip() == text
    assert line.index(text) + at - 1 == caret.index("^")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(same) == found


@pytest.mark.parametrize(
    "text",
    [
        "pain | emo* & reward",
        "pain & reward &~ emo*",
        "pain | reward | emo*",
        "pain & ~emo* & pain",
    ],
)
def test_expression__no_warning_where_every_reading_is_the_same(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expression(CORPUS, text)


def test_expression__warns_at_the_line_of_the_caller() -> None:
    with pytest.warns(CorpusWarning) as told:
        expression(CORPUS, "pain & reward | emo*")
    assert [warning.filename for warning in told] == [__file__]


# errors


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("pain &~ (emo*", 14, r"it ends; expected '\)'"),
        ("pain )", 6, r"'\)' closes nothing that is open"),
        ("& pain", 1, r"there is '&'; expected a feature, '\(' or '~'"),
        ("pain <", 7, "it ends; expected a number"),
        ("pain < emo*", 8, r"there is 'emo\*'; expected a number"),
        ("pain < 0.1.2", 11, r"there is '.2'; expected one of & \| &~"),
        ("pain == 3", 6, "there is '='"),
        ("pain & 'emotion", 8, "the quote ' has no end"),
        ("pain & (", 9, "it ends; expected a feature"),
        ("()", 2, r"there is '\)'; expected a feature"),
        ("'(' | pain)", 11, r"'\)' closes nothing"),
        ("pain ~ emo*", 6, "there is '~'"),
        ("pain\n\t& |", 9, r"there is '\|'"),
        ("pain 'emotion'", 6, "there is \"'emotion'\""),
        ("痛み & & pain", 6, "there is '&'"),
    ],
)
def test_expression__points_at_the_character(text: str, at: int, says: str) -> None:
    with pytest.raises(SettingsError, match=f"at character {at}: {says}") as caught:
        expression(CORPUS, text)
    _, line, caret = str(caught.value).splitlines()
    assert line.strip() == re.sub(r"\s", " ", text)
    wide = sum(char > "ÿ" for char in text[: at - 1])
    assert caret == " " * (4 + at - 1 + wide) + "^"


def test_expression__points_within_a_long_line() -> None:
    text = "pain | " * 50 + "& pain" + " | pain" * 50
    with pytest.raises(SettingsError, match="at character 351") as caught:
        expression(CORPUS, text)
    _, line, caret = str(caught.value).splitlines()
    assert len(line) < 100
    assert line[len(caret) - 1] == "&"
    assert line.strip().startswith("…")
    assert line.endswith("…")


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("pain | emotoin", 8, r"No feature is called 'emotoin'\. Did you mean t__emotion"),
        ("pain & paim*", 8, r"No feature matches 'paim\*'\. Did you mean t__pain"),
        ("pain emotion", 1, "No feature is called 'pain emotion'"),
        ("'pa*'", 1, r"No feature is called 'pa\*'"),
        ("[pr]ain", 1, "No feature is called"),
        ("[pr]ai*", 1, "No feature matches"),
        ("PAIN", 1, "Did you mean t__pain"),
    ],
)
def test_expression__names_that_are_not_there(text: str, at: int, says: str) -> None:
    with pytest.raises(UnknownLabelError, match=says) as caught:
        expression(CORPUS, text)
    assert str(caught.value).splitlines()[2] == " " * (4 + at - 1) + "^"


def test_expression__several_features_have_the_name() -> None:
    corpus = table_corpus(WEIGHTS[:, :2], ["t__pain", "u__pain"])
    with pytest.raises(UnknownLabelError, match="several features end in: t__pain, u__pain"):
        expression(corpus, "pain")
    assert chosen("*__pain", corpus) == "acd"


@pytest.mark.parametrize("text", ["", " \n", None, "5"])
def test_expression__refuses_what_is_none(text: Any) -> None:
    with pytest.raises(NimareDaskError):
        expression(CORPUS, text)


def test_expression__refuses_other_settings() -> None:
    with pytest.raises(SettingsError, match="func is 'median'; expected one of sum, mean, max"):
        expression(CORPUS, "pain", func="median")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="threshold is not a number"):
        expression(CORPUS, "pain", threshold=float("nan"))
    with pytest.raises(UnknownLabelError, match="no features"):
        expression(CORPUS.drop_dims(["feature", "weight"]), "pain")


# sizes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(" * 10_000 + "pain" + ")" * 10_000, "ab"),
        ("(" * 10_000 + "pain" + ")" * 9_999, SettingsError),
        ("(pain&" * 5_000 + "pain" + ")" * 5_000, "ab"),
        ("(" * 3_000 + "pain" + "|reward)" * 3_000, "abd"),
        ("~" * 10_001 + "pain", "cde"),
        ("pain|" * 9_000 + "reward", "abd"),
        ("pain" * 250_000, SettingsError),
        ("(" * 1_000_000, SettingsError),
        ("p*" * 20_000, UnknownLabelError),
        ("*a" * 200 + "b", UnknownLabelError),
        ("x" * 45_000, UnknownLabelError),
        ("'" + "\\" * 49_000, SettingsError),
        ("'" * 49_000, SettingsError),
        ("pain > 1" + "0" * 45_000, ""),
        ("pain " * 9_000, UnknownLabelError),
    ],
    ids=range(15),
)
def test_expression__any_size_gives_a_result_or_an_error(text: str, says: Any) -> None:
    began = time.perf_counter()
    if isinstance(says, str):
        assert chosen(text) == says
    else:
        with pytest.raises(says) as caught:
            expression(CORPUS, text)
        assert len(str(caught.value)) < 1000
    assert time.perf_counter() - began < 10


# drawn expressions


@dataclass(frozen=True)
class Drawn:
    """An expression as text, and a slow way to what it means: values by analysis."""

    text: str
    meaning: Callable[[Callable[..., float]], dict[str, float]]


def leaf_meaning(pattern: str, threshold: float) -> Callable[..., dict[str, float]]:
    regex = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."))

    def meaning(func: Callable[..., float]) -> dict[str, float]:
        columns = [
            place
            for place, name in enumerate(FEATURES)
            if regex.fullmatch(name) or regex.fullmatch(name.split("__")[-1])
        ]
        values = {
            name: func([float(WEIGHTS[row, column]) for column in columns])
            for row, name in enumerate("abcde")
        }
        return {name: value for name, value in values.items() if value >= threshold}

    return meaning


COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
THRESHOLD = 0.0015
NUMBERS = st.sampled_from(["0", "0.002", "0.013", "0.04", "0.27"])
SPACE = st.sampled_from(["", " ", "  ", "\n"])


@st.composite
def leaves(draw: st.DrawFn) -> Drawn:
    pattern = draw(st.sampled_from(["pain", "emo*", "t__*", "*", "?ain", "reward", "emotion"]))
    return Drawn(pattern, leaf_meaning(pattern, THRESHOLD))


def negated(inner: Drawn) -> Drawn:
    def meaning(func: Any) -> dict[str, float]:
        inside = inner.meaning(func)
        return {name: 0.0 for name in "abcde" if name not in inside}

    return Drawn(f"~({inner.text})", meaning)


def compared(inner: Drawn, operator: str, number: str) -> Drawn:
    def meaning(func: Any) -> dict[str, float]:
        keep = COMPARE[operator]
        return {k: v for k, v in inner.meaning(func).items() if keep(v, float(number))}

    return Drawn(f"({inner.text}){operator}{number}", meaning)


def combined(left: Drawn, operator: str, right: Drawn, space: str) -> Drawn:
    def meaning(func: Any) -> dict[str, float]:
        one, two = left.meaning(func), right.meaning(func)
        if operator == "&~":
            return {name: value for name, value in one.items() if name not in two}
        names = set(one) & set(two) if operator == "&" else set(one) | set(two)
        return {name: func([one.get(name, 0.0), two.get(name, 0.0)]) for name in names}

    # What stands left is held together; what follows an operator belongs to it.
    return Drawn(f"({left.text}){space}{operator}{space}{right.text}", meaning)


def larger(inner: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.one_of(
        st.builds(negated, inner),
        st.builds(compared, inner, st.sampled_from(list(COMPARE)), NUMBERS),
        st.builds(combined, inner, st.sampled_from(["&", "|", "&~"]), inner, SPACE),
    )


FUNCS: dict[str, Callable[..., float]] = {
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "max": max,
}


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
@given(drawn=st.recursive(leaves(), larger, max_leaves=12), func=st.sampled_from(list(FUNCS)))
@settings(max_examples=300)
def test_expression__equals_sets_of_python(drawn: Drawn, func: Any) -> None:
    expected = drawn.meaning(FUNCS[func])
    assert chosen(drawn.text, func=func, threshold=THRESHOLD) == "".join(sorted(expected))


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
@given(text=st.text(st.sampled_from(list("pain*?()&|~<>=.0 '\"\\é\n")), max_size=30))
@settings(max_examples=300)
def test_expression__any_text_gives_a_result_or_an_error(text: str) -> None:
    try:
        assert expression(CORPUS, text).dtype == bool
    except NimareDaskError as error:
        assert str(error)
