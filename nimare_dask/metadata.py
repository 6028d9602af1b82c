"""What is known of analyses beside their foci: to look at, and to choose by.

A question about ``year`` is answered by the analysis where it says so, and by its study else; each
place can be named in full too (``study.metadata.year``).
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import facts
from nimare_dask.corpus import analysis_of_image
from nimare_dask.errors import SettingsError, UnknownLabelError, suggest

#: Where a short name is looked up, nearest first.
_PLACES = ("analysis.metadata", "analysis", "study.metadata", "study")
_SIZES = ("sample_sizes", "sample_size")
#: There are not so many people; what says so is no sample size.
_MOST = 1e9

#: What NiMARE calls the types of images, by how repositories spell them (case and " map" aside).
IMAGE_TYPES = {
    "t": "t",
    "z": "z",
    "p": "p",
    "variance": "varcope",
    "varcope": "varcope",
    "univariate-beta": "beta",
    "multivariate-beta": "beta",
    "beta": "beta",
    "standard error": "se",
    "se": "se",
}

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
#: What :func:`where_metadata` can ask.
OPERATORS = (*_ORDER, "in", "not in", "contains", "exists")


def image_type(spelling: str) -> str:
    """NiMARE's name of a type of image: ``T map`` is ``t``; others stay as they are."""
    plain = spelling.strip().casefold().removesuffix(" map")
    return IMAGE_TYPES.get(plain, plain)


def _mask(corpus: xr.Dataset, values: NDArray[np.bool_]) -> xr.DataArray:
    # The names of the analyses go along, so that a mask cannot be used on another corpus.
    return xr.DataArray(
        values, dims="analysis", name="mask", coords={"analysis_id": corpus["analysis_id"]}
    )


def _by_analysis(
    corpus: xr.Dataset, name: str
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_]]:
    """Number, position of the text, and whether there is one, of one field, (analysis,)."""
    found = facts.column(corpus, name)
    level = facts.level_of(name)
    if level not in ("study", "analysis"):
        raise SettingsError(
            f"{name} is a field of each {level}, and analyses have several; fields of analyses and "
            "studies can be asked for."
        )
    number = np.full(corpus.sizes[level], np.nan)
    text = np.full(corpus.sizes[level], -1, np.int32)
    there = np.zeros(corpus.sizes[level], bool)
    number[found.row], text[found.row], there[found.row] = found.number, found.text, True
    if level == "study":
        study = corpus["analysis_study"].values
        return number[study], text[study], there[study]
    return number, text, there


def _look_up(
    corpus: xr.Dataset, name: str
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.bool_]]:
    """As :func:`_by_analysis`, of a field by its whole or short name."""
    known = facts.fields(corpus)
    places = [name] if name in known else [f"{place}.{name}" for place in _PLACES]
    places = [place for place in places if place in known]
    if not places:
        short = [field.removeprefix(f"{place}.") for field in known for place in _PLACES]
        raise UnknownLabelError(
            f"No field is called {name!r}. {suggest(name, sorted({*known, *short}))}"
            if known
            else f"The corpus has no fields, so {name!r} cannot be found."
        )
    number, text, there = _by_analysis(corpus, places[0])
    for place in places[1:]:
        further, words, has = _by_analysis(corpus, place)
        number = np.where(there, number, further)
        text = np.where(there, text, words)
        there = there | has
    return number, text, there


def get_metadata(corpus: xr.Dataset, field: str) -> xr.DataArray:
    """One field for every analysis.

    Parameters
    ----------
    corpus
        A corpus.
    field
        Short (``year``, ``name``, ``sample_sizes``), looked up in the metadata of the analysis, the
        analysis, the metadata of the study and the study; or in full (``study.name``).

    Returns
    -------
    values
        (analysis,). Numbers with NaN for what is not known, when all are numbers; otherwise texts,
        empty for what is not known, with lists and the like as JSON.

    Raises
    ------
    UnknownLabelError
        When no analysis has such a field.
    """
    number, text, there = _look_up(corpus, field)
    ids = {"analysis_id": corpus["analysis_id"]}
    if not (text >= 0).any():
        return xr.DataArray(number, dims="analysis", name=field, coords=ids)
    shown = np.full(len(number), "", dtype=object)
    shown[text >= 0] = corpus["text_value"].values[text[text >= 0]].astype(object)
    is_number = there & (text < 0)
    shown[is_number] = [str(facts.plain_number(value)) for value in number[is_number].tolist()]
    words = np.array(shown.tolist(), dtype=np.dtypes.StringDType())
    return xr.DataArray(words, dims="analysis", name=field, coords=ids)


def where_metadata(corpus: xr.Dataset, field: str, op: str, value: Any = None) -> xr.DataArray:
    """Mark the analyses of which something is known.

    Parameters
    ----------
    corpus
        A corpus.
    field
        As for :func:`get_metadata`.
    op
        ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``; ``in`` and ``not in`` a list; ``contains`` a
        text (whatever its case); ``exists``. A field that is a list holds when one of its items
        does. Numbers that are written as text compare as numbers. What is not known never holds.
    value
        A number, text or truth value to compare with; several of them for ``in`` and ``not in``.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    UnknownLabelError
        When no analysis has such a field.
    SettingsError
        For an `op` that is not known, or a `value` that it cannot compare with.
    """
    if op not in OPERATORS:
        raise SettingsError(f"op is {op!r}; expected one of {', '.join(OPERATORS)}.")
    wanted = None if op == "exists" else _wanted(op, value)
    number, text, there = _look_up(corpus, field)
    if op == "exists":
        return _mask(corpus, there)
    holds = np.zeros(len(there), bool)
    for codes, what in ((text[text >= 0], "text"), (number[there & (text < 0)], "number")):
        unique, place = np.unique(codes, return_inverse=True)
        words = unique.astype(np.int32)
        meant = (
            _meanings(corpus, words)
            if what == "text"
            else [facts.plain_number(each) for each in unique.tolist()]
        )
        answer = np.array([_holds(each, op, wanted) for each in meant], bool)
        holds[text >= 0 if what == "text" else there & (text < 0)] = answer[place]
    return _mask(corpus, holds)


def _wanted(op: str, value: Any) -> Any:
    """What to compare with, as plain values of Python."""
    if op in ("in", "not in"):
        if isinstance(value, str) or not np.iterable(value):
            raise SettingsError(f"value is {value!r}; with {op!r} it must be a list of values.")
        return [_wanted("==", each) for each in value]
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float):
        raise SettingsError(
            f"value is {value!r}; with {op!r} it must be a number or a text ('in' takes several, "
            "'exists' none)."
        )
    return plain


def _meanings(corpus: xr.Dataset, codes: NDArray[np.int32]) -> list[Any]:
    words = corpus["text_value"].values[codes].tolist()
    parsed = corpus["text_is_json"].values[codes].tolist()
    return [json.loads(w) if is_json else w for w, is_json in zip(words, parsed, strict=True)]


def _holds(found: Any, op: str, value: Any) -> bool:
    if isinstance(found, list):
        return any(_holds(item, op, value) for item in found)
    if op == "contains":
        return str(value).casefold() in str(found).casefold()
    if op in ("in", "not in"):
        return any(_compare(found, "==", each) for each in value) == (op == "in")
    return _compare(found, op, value)


def _compare(found: Any, op: str, value: Any) -> bool:
    if isinstance(value, int | float) and isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            return op == "!="
    elif isinstance(found, int | float) and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return op == "!="
    try:
        return bool(_ORDER[op](found, value))
    except TypeError:
        return False


def has_images(corpus: xr.Dataset, kind: str | None = None) -> xr.DataArray:
    """Mark the analyses that have an image, or one of a type.

    Parameters
    ----------
    corpus
        A corpus.
    kind
        ``z``, ``t``, ``beta``, ``varcope``, ``se``, ``p``, or as its source spells it (``T map``);
        any by default.

    Returns
    -------
    mask
        Boolean, (analysis,).
    """
    marked = np.zeros(corpus.sizes["analysis"], bool)
    if "image" in corpus.dims:
        kinds, place = np.unique(corpus["image_type"].values.astype(object), return_inverse=True)
        wanted = None if kind is None else image_type(kind)
        fits = np.array([wanted is None or image_type(str(each)) == wanted for each in kinds], bool)
        marked[analysis_of_image(corpus)[fits[place]]] = True
    return _mask(corpus, marked)


def has_sample_size(corpus: xr.Dataset, at_least: float = 1) -> xr.DataArray:
    """Mark the analyses whose number of subjects is known and not below `at_least`, (analysis,)."""
    if "analysis_sample_size" not in corpus:
        return _mask(corpus, np.zeros(corpus.sizes["analysis"], bool))
    return _mask(corpus, corpus["analysis_sample_size"].values >= at_least)


def mean_sample_sizes(corpus: xr.Dataset) -> NDArray[np.float64]:
    """Mean number of subjects of each analysis from its facts, (analysis,); NaN is unknown.

    NiMARE's order: ``sample_sizes`` (a list, of which the mean counts) of the analysis, its
    ``sample_size``, then the same of its study.
    """
    size = np.full(corpus.sizes["analysis"], np.nan)
    names = [f"{level}.metadata.{name}" for level in ("analysis", "study") for name in _SIZES]
    for name in names:
        if name not in facts.fields(corpus):
            continue
        number, text, _ = _by_analysis(corpus, name)
        codes, place = np.unique(text[text >= 0], return_inverse=True)
        means = np.array([mean_of(meant) for meant in _meanings(corpus, codes)], np.float64)
        number[text >= 0] = means[place]
        number[~((number > 0) & (number < _MOST))] = np.nan
        size = np.where(np.isnan(size), number, size)
    return size


def mean_of(found: Any) -> float:
    """Mean of what stands for sample sizes: a number, a list of them, or a text of either."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return math.nan
    parts: Sequence[Any] = found if isinstance(found, list) else [found]
    sizes = [size for size in map(_as_size, parts) if size > 0]
    return sum(sizes) / len(sizes) if sizes else math.nan


def _as_size(value: Any) -> float:
    """A number of subjects; NaN for what is none."""
    try:
        size = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return size if size < _MOST else math.nan
