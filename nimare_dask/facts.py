"""Facts: whatever else a source says of its studies, analyses, foci and images.

Titles, journals, sample sizes, contrasts, statistics of peaks: each is a *field*, named by where it
stands in a NIMADS document (``study.name``, ``analysis.metadata.sample_sizes``, ``focus.kind``).
Facts lie one field after the other, as weights of an annotation lie one feature after the other; a
fact is a number, or points at one of the distinct texts of the corpus. So a question about a field
reads that field only, and 700,000 foci that all say the same say it once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

#: Of what a field speaks, by the first word of its name, and the dimension of its rows.
LEVELS = {
    "study": "study",
    "analysis": "analysis",
    "note": "analysis",
    "focus": "focus",
    "image": "image",
}
NAMES = ("field", "field_n_facts", "fact_row", "fact_number", "fact_text")
TEXTS = ("text_value", "text_is_json")
#: As Python's json does it: keys in order, and nothing but what JSON knows.
_PLAIN = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
#: Whole numbers beyond this are not all float64; they are kept as text.
_EXACT = 2**53


class JsonText(str):
    """A value that is JSON already, as :func:`dump` writes it."""

    __slots__ = ()


def dump(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """JSON as facts hold it; `default` makes something of what JSON does not know."""
    try:
        text = orjson.dumps(value, default=default, option=_PLAIN)
        # NaN and infinity are null to orjson, and names of their own to Python.
        if b"null" not in text:
            return text.decode()
    except TypeError:  # whole numbers beyond 64 bits, keys that are no text, half characters
        pass
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, default=default, separators=(",", ":")
    )


def _dump_all(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Of each value which of the distinct texts it is; and these."""
    seen: dict[bytes, int] = {}
    try:
        which = [seen.setdefault(orjson.dumps(each, option=_PLAIN), len(seen)) for each in values]
        if not any(b"null" in text for text in seen):
            return which, [text.decode() for text in seen]
    except TypeError:
        pass
    texts: dict[str, int] = {}
    return [texts.setdefault(dump(each), len(texts)) for each in values], list(texts)


class Column(NamedTuple):
    """The facts of one field."""

    row: NDArray[np.int32]  # (fact): position of the study, analysis, focus or image
    number: NDArray[np.float64]  # (fact): NaN where it is a text
    text: NDArray[np.int32]  # (fact): position of the text, -1 where it is a number


@dataclass
class Facts:
    """Facts as they are collected, before they become variables of a corpus."""

    _rows: dict[str, list[Any]] = field(default_factory=dict)
    _values: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, name: str, row: int, value: Any) -> None:
        """Add one fact; None is none."""
        if value is None:
            return
        if name not in self._rows:
            self._rows[name], self._values[name] = [], []
        self._rows[name].append(row)
        self._values[name].append(value)

    def extend(self, name: str, rows: Sequence[int], values: Sequence[Any]) -> None:
        """Add facts of many rows, none of which is None."""
        if rows:
            self._rows.setdefault(name, []).extend(rows)
            self._values.setdefault(name, []).extend(values)

    def add_column(self, name: str, values: Iterable[Any], rows: ArrayLike | None = None) -> None:
        """Add one field of many rows; None and NaN are none.

        Parameters
        ----------
        name
            Name of the field.
        values
            One value a row.
        rows
            Positions, those of `values` by default.
        """
        column = pd.Series(values, dtype=object)
        there = np.flatnonzero(column.notna())
        places = there if rows is None else np.asarray(rows)[there]
        self._rows.setdefault(name, []).extend(places.tolist())
        self._values.setdefault(name, []).extend(column.iloc[there].tolist())

    def move(self, level: str, place: NDArray[np.int64]) -> None:
        """Give the facts of all rows of a level the positions in `place`, (row,)."""
        for name, rows in self._rows.items():
            if name.partition(".")[0] == level:
                self._rows[name] = place[np.asarray(rows)].tolist()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def variables(self) -> dict[str, Any]:
        """Variables of a corpus; facts of one field in the order of their rows."""
        names = sorted(name for name, rows in self._rows.items() if rows)
        if not names:
            return {}
        texts: dict[tuple[str, bool], int] = {}
        columns = [self._encode(name, texts) for name in names]
        return _variables(names, columns, list(texts))

    def _encode(self, name: str, texts: dict[tuple[str, bool], int]) -> Column:
        row = np.asarray(self._rows[name], np.int32)
        values = self._values[name]
        kinds = set(map(type, values))
        number = np.full(len(values), np.nan)
        text = np.full(len(values), -1, np.int32)
        if kinds in ({str}, {JsonText}):
            codes, unique = pd.factorize(np.asarray(values, dtype=object))
            is_json = kinds == {JsonText}
            places = [texts.setdefault((str(each), is_json), len(texts)) for each in unique]
            text = np.asarray(places, np.int32)[codes]
        elif kinds <= {list, dict}:
            which, distinct = _dump_all(values)
            places = [texts.setdefault((each, True), len(texts)) for each in distinct]
            text = np.asarray(places, np.int32)[which]
        elif kinds == {float} and np.isfinite(floats := np.asarray(values)).all():
            number = floats
        else:
            for place, value in enumerate(values):
                if _is_plain_number(value):
                    number[place] = value
                else:
                    text[place] = texts.setdefault(_as_text(value), len(texts))
        order = np.argsort(row, kind="stable")
        return Column(row[order], number[order], text[order])


def _is_plain_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return False
    if isinstance(value, int | np.integer):
        return abs(int(value)) <= _EXACT
    return math.isfinite(value)


def _as_text(value: Any) -> tuple[str, bool]:
    """A text, and whether it is JSON of something that is no text."""
    if isinstance(value, JsonText):
        return str(value), True
    if isinstance(value, str):
        return value, False
    plain = value.item() if isinstance(value, np.generic) else value
    return dump(plain), True


def _variables(
    names: Sequence[str], columns: Sequence[Column], texts: Sequence[tuple[str, bool]]
) -> dict[str, Any]:
    values = np.array([text for text, _ in texts], dtype=np.dtypes.StringDType())
    counts = np.array([len(column.row) for column in columns], np.int64)
    joined = [np.concatenate([column[part] for column in columns]) for part in range(3)]
    return {
        "field": ("field", np.array(list(names), dtype=np.dtypes.StringDType())),
        "field_n_facts": ("field", counts, {"sample_dimension": "fact"}),
        "fact_row": ("fact", joined[0].astype(np.int32)),
        "fact_number": ("fact", joined[1].astype(np.float64)),
        "fact_text": ("fact", joined[2].astype(np.int32)),
        "text_value": ("text", values),
        "text_is_json": ("text", np.array([is_json for _, is_json in texts], bool)),
    }


def fields(corpus: xr.Dataset) -> list[str]:
    """Names of the fields of a corpus, sorted."""
    return [str(name) for name in corpus["field"].values] if "field" in corpus.dims else []


def level_of(name: str) -> str:
    """Dimension that a field speaks of."""
    return LEVELS[name.partition(".")[0]]


def column(corpus: xr.Dataset, name: str) -> Column:
    """The facts of one field; none where the corpus has no such field."""
    for place, known in enumerate(fields(corpus)):
        if known == name:
            n_facts = corpus["field_n_facts"].values
            start = int(n_facts[:place].sum())
            return _part(_columns(corpus), slice(start, start + int(n_facts[place])))
    return Column(np.empty(0, np.int32), np.empty(0), np.empty(0, np.int32))


def _columns(corpus: xr.Dataset) -> Column:
    """The facts of all fields."""
    return Column(*(corpus[which].values for which in NAMES[2:]))


def _part(columns: Column, part: slice) -> Column:
    return Column(columns.row[part], columns.number[part], columns.text[part])


def _texts(corpus: xr.Dataset, codes: NDArray[np.int32]) -> list[Any]:
    """What the texts of `codes` stand for."""
    is_json = corpus["text_is_json"].values[codes].tolist()
    values = corpus["text_value"].values[codes].tolist()
    return [
        json.loads(value) if parsed else value
        for value, parsed in zip(values, is_json, strict=True)
    ]


def plain_number(value: float) -> int | float:
    """A number as a source writes it: 2010, not 2010.0."""
    return int(value) if value.is_integer() and abs(value) <= _EXACT else value


def values(corpus: xr.Dataset, name: str) -> tuple[NDArray[np.int32], list[Any]]:
    """Rows and values of one field, as its source had them."""
    return meanings(corpus, column(corpus, name))


def meanings(corpus: xr.Dataset, found: Column) -> tuple[NDArray[np.int32], list[Any]]:
    """Rows and values of a column, as its source had them."""
    is_text = found.text >= 0
    meant: list[Any] = (
        [plain_number(value) for value in found.number.tolist()]
        if not is_text.all()
        else [None] * len(found.row)
    )
    if is_text.any():
        codes, place = np.unique(found.text[is_text], return_inverse=True)
        unique = _texts(corpus, codes)
        for at, code in zip(np.flatnonzero(is_text).tolist(), place.tolist(), strict=True):
            meant[at] = unique[code]
    return found.row, meant


def records(corpus: xr.Dataset, prefix: str, n_rows: int) -> list[dict[str, Any]]:
    """The facts whose names begin with ``prefix.``, as one mapping for each row."""
    made: list[dict[str, Any]] = [{} for _ in range(n_rows)]
    for name, facts in iterate(corpus):
        if name.startswith(f"{prefix}."):
            key = name[len(prefix) + 1 :]
            rows, found = meanings(corpus, facts)
            for row, value in zip(rows.tolist(), found, strict=True):
                made[row][key] = value
    return made


def iterate(corpus: xr.Dataset) -> Iterator[tuple[str, Column]]:
    """Names and facts of all fields."""
    names = fields(corpus)
    if not names:
        return
    columns = _columns(corpus)
    start = 0
    for name, n in zip(names, corpus["field_n_facts"].values.tolist(), strict=True):
        yield name, _part(columns, slice(start, start + n))
        start += n


def take(corpus: xr.Dataset, places: Mapping[str, NDArray[np.integer[Any]]]) -> dict[str, Any]:
    """Variables of the facts whose rows are kept.

    Parameters
    ----------
    corpus
        A corpus.
    places
        For each dimension the new position of every row, -1 for those that go.

    Returns
    -------
    variables
        As :meth:`Facts.variables` gives them; texts that nothing points at are left out.
    """
    names, kept = [], []
    for name, found in iterate(corpus):
        row = places[level_of(name)][found.row].astype(np.int32)
        there = row >= 0
        if there.any():
            names.append(name)
            kept.append(Column(row[there], found.number[there], found.text[there]))
    if not names:
        return {}
    used = np.zeros(corpus.sizes["text"], bool)
    for part in kept:
        used[part.text[part.text >= 0]] = True
    code = np.append(np.cumsum(used, dtype=np.int32) - 1, -1).astype(np.int32)
    kept = [Column(part.row, part.number, code[part.text]) for part in kept]
    texts = list(
        zip(
            corpus["text_value"].values[used].tolist(),
            corpus["text_is_json"].values[used].tolist(),
            strict=True,
        )
    )
    return _variables(names, kept, texts)
