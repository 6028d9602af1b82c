"""Columns of the tables of a release, made from the weights and facts of a corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nimare_dask import facts as _facts
from nimare_dask.facts import Column, JsonText, dump
from nimare_dask.io.parquet_tables import pyarrow, value_column, value_kind

#: Numbers that a column holds as they are.
_LARGEST, _LARGEST_INTEGER = 1e300, 2**53


def strings(values: Any) -> Any:
    """A column of text."""
    arrow = pyarrow()
    return arrow.array([str(each) for each in np.asarray(values).tolist()], arrow.string())


def truths(matrix: csc_matrix, kinds: Sequence[str]) -> list[bool]:
    """Whether each feature is of nothing but truth values."""
    ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    return [
        kind == "boolean" and bool(np.isin(matrix.data[start:end], (0, 1)).all())
        for kind, (start, end) in zip(kinds, ends, strict=True)
    ]


def block(matrix: csc_matrix, names: Sequence[str], of_truth: Sequence[bool]) -> dict[str, Any]:
    """Some rows of the matrix of weights as columns; what is not stored is empty."""
    arrow = pyarrow()
    made = {}
    for place, (name, is_truth) in enumerate(zip(names, of_truth, strict=True)):
        part = slice(matrix.indptr[place], matrix.indptr[place + 1])
        values = np.zeros(matrix.shape[0], matrix.dtype)
        missing = np.ones(matrix.shape[0], bool)
        rows = matrix.indices[part]
        values[rows], missing[rows] = matrix.data[part], False
        made[name] = arrow.array(values != 0 if is_truth else values, mask=missing)
    return made


def statistics(
    corpus: xr.Dataset, codes: NDArray[np.int32]
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Values of NIMADS lists of values, by kind, in the order that most lists have them.

    Parameters
    ----------
    corpus
        The corpus.
    codes
        Positions of the lists among its texts, (list,); what is no list has no values.

    Returns
    -------
    values
        (list,) for each kind, NaN for none.
    whole
        Kinds of which all values are whole numbers, and are spelt so.
    """
    known: dict[str, NDArray[np.float64]] = {}
    places: dict[str, list[int]] = {}
    fractions: set[str] = set()
    is_list = (codes >= 0) & np.append(corpus["text_is_json"].values, False)[codes]
    texts = corpus["text_value"].values[codes[is_list]].tolist()
    for at, text in zip(np.flatnonzero(is_list).tolist(), texts, strict=True):
        found = json.loads(text)
        for place, each in enumerate(found if isinstance(found, list) else ()):
            kind = each.get("kind") if isinstance(each, dict) else None
            value = each.get("value") if isinstance(each, dict) else None
            if not (isinstance(kind, str) and kind) or isinstance(value, bool):
                continue
            if isinstance(value, int | float) and abs(value) <= _LARGEST:
                name = value_kind(value_column(kind)) or kind
                known.setdefault(name, np.full(len(codes), np.nan))[at] = value
                if isinstance(value, float) or abs(value) > _LARGEST_INTEGER:
                    fractions.add(name)
                if len(found) > 1:
                    places.setdefault(name, []).append(place)
    order = sorted(known, key=lambda name: (np.mean(places.get(name, [0])), name))
    return {name: known[name] for name in order}, [each for each in order if each not in fractions]


def value_texts(
    values: dict[str, NDArray[np.float64]], n: int, whole: Sequence[str]
) -> list[JsonText | None]:
    """The statistics of each focus as a NIMADS list in JSON, (focus,); None where there are none.

    Parameters
    ----------
    values
        For each kind the values, (focus,); NaN is none.
    n
        Number of foci.
    whole
        Kinds whose values are whole numbers, and are spelt so.
    """
    texts: list[JsonText | None] = [None] * n
    for kind, column in values.items():
        head = f'[{{"kind":{dump(kind)},"value":'
        rows = np.flatnonzero(np.isfinite(column))
        # Most values are there many times, and are spelt once.
        unique, place = np.unique(column[rows], return_inverse=True)
        shown = unique.astype(np.int64).tolist() if kind in whole else unique.tolist()
        alone = [JsonText(f"{head}{dump(value)}}}]") for value in shown]
        for row, at in zip(rows.tolist(), place.tolist(), strict=True):
            before = texts[row]
            texts[row] = alone[at] if before is None else _joined(before, alone[at])
    return texts


def _joined(first: str, second: str) -> JsonText:
    return JsonText(f"{first[:-1]},{second[1:]}")


def as_column(found: Column, n: int, text: Any, corpus: xr.Dataset) -> tuple[Any, bool]:
    """A field as a column of `n` rows, and whether reading it gives the same facts."""
    arrow = pyarrow()
    place = np.full(n, -1, np.int64)
    place[found.row] = np.arange(len(found.row))
    missing = place < 0
    is_single = int((~missing).sum()) == len(found.row)
    number = np.append(found.number, np.nan)[place]
    code = np.append(found.text, -1)[place]
    is_json = np.append(corpus["text_is_json"].values, False)[found.text]
    if (found.text < 0).all():
        whole = (found.number == np.trunc(found.number)) & ~_is_minus_zero(found.number)
        # Beyond 2**53 whole numbers are floats: not all of them are an int64.
        if (whole & (np.abs(found.number) <= 2**53)).all():
            number = np.where(missing, 0, number).astype(np.int64)
        return arrow.array(number, mask=missing), is_single
    if (found.text >= 0).all() and not is_json.any():
        return text.take(arrow.array(code, mask=missing)), is_single
    if (found.text >= 0).all() and is_json.all():
        made = _as_typed(code, corpus)
        if made is not None:
            return made, is_single
    shown = corpus["text_value"].values.astype(object)[code]
    shown[missing] = None
    numeric = ~missing & (code < 0)
    shown[numeric] = [f"{value:.17g}" for value in number[numeric].tolist()]
    return arrow.array(shown, arrow.string()), False


def _is_minus_zero(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray((values == 0) & np.signbit(values), bool)


def _as_typed(code: NDArray[np.int32], corpus: xr.Dataset) -> Any:
    """Truth values or lists of one type as a column; None where that would change them."""
    arrow = pyarrow()
    known = np.unique(code[code >= 0])
    texts = corpus["text_value"].values[known].tolist()
    meant = [json.loads(each) for each in texts]
    items = [item for each in meant if isinstance(each, list) for item in each]
    kinds, within = {*map(type, meant)}, {*map(type, items)}
    types = {bool: arrow.bool_(), int: arrow.int64(), float: arrow.float64(), str: arrow.string()}
    if kinds == {bool}:
        wanted = arrow.bool_()
    elif kinds == {list} and len(within) <= 1 and within <= types.keys():
        wanted = arrow.list_(types[within.pop()] if within else arrow.int64())
        if any(isinstance(each, int) and abs(each) > _LARGEST_INTEGER for each in items):
            return None
    else:
        return None
    if any(_facts.dump(each) != text for each, text in zip(meant, texts, strict=True)):
        return None
    place = np.where(code >= 0, np.searchsorted(known, code), len(meant))
    meant.append(None)
    return arrow.array([meant[at] for at in place.tolist()], wanted)
