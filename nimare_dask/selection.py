"""Choosing analyses: masks over ``analysis`` that combine with ``&``, ``|`` and ``~``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.errors import (
    SchemaError,
    SelectionError,
    SettingsError,
    UnknownLabelError,
    find_label,
    suggest,
)
from nimare_dask.provenance import with_step
from nimare_dask.subset import take_analyses

#: Where NiMARE draws the line between an analysis that has a feature and one that has not.
DEFAULT_THRESHOLD = 0.001

#: One name or several; numbers are their digits.
Ids = str | int | Iterable[str | int] | NDArray[Any] | xr.DataArray

#: Names that an unknown one is compared with, letter by letter.
_MOST_ALIKE = 1000
_LONGEST_START = 40


def find_feature(corpus: xr.Dataset, label: str) -> int:
    """Position of a feature, by its whole name or by what follows ``__`` when that is unique.

    Raises
    ------
    UnknownLabelError
        When no feature has that name, or several have.
    """
    return find_label(feature_names(corpus, label), label, "feature")


def feature_names(corpus: xr.Dataset, wanted: str) -> list[str]:
    """Names of all features; without any, UnknownLabelError says that `wanted` is not there."""
    if "feature" not in corpus.dims:
        raise UnknownLabelError(
            f"The corpus has no features, so {wanted[:80]!r} cannot be found; import it "
            "with its features (features=[(npz, vocabulary)], on the command line --features)."
        )
    return [str(name) for name in corpus["feature"].values.tolist()]


def has_label(
    corpus: xr.Dataset,
    label: str | Iterable[str],
    threshold: float = DEFAULT_THRESHOLD,
    *,
    match: Literal["all", "any"] = "all",
) -> xr.DataArray:
    """Mark the analyses whose weight of a feature is at least `threshold`.

    Parameters
    ----------
    corpus
        A corpus with features.
    label
        Name of the feature, or several names; ``pain`` finds ``terms_abstract_tfidf__pain`` when it
        is the only one.
    threshold
        Smallest weight that counts, inclusive.
    match
        Whether an analysis must have ``"all"`` of several features, or ``"any"`` of them.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    UnknownLabelError
        When no feature has a name, or several have.
    SettingsError
        For no label at all, or another `match`.
    """
    if match not in ("all", "any"):
        raise SettingsError(f"match is {match!r}; expected 'all' or 'any'.")
    labels = _listed(label)
    if not labels:
        raise SettingsError("There is no label; expected one or more.")
    places = [find_feature(corpus, name) for name in labels]
    ends = np.cumsum(corpus["feature_n_weights"].values)
    mask = np.full(corpus.sizes["analysis"], match == "all")
    for place in places:
        weights = slice(ends[place] - corpus["feature_n_weights"].values[place], ends[place])
        has = np.full(len(mask), threshold <= 0.0)
        has[corpus["weight_analysis"].values[weights]] = (
            corpus["weight_value"].values[weights] >= threshold
        )
        mask = mask & has if match == "all" else mask | has
    return as_mask(corpus, mask)


def is_analysis(corpus: xr.Dataset, ids: Ids) -> xr.DataArray:
    """Mark analyses by their ids; ``~is_analysis(corpus, ids)`` leaves them out.

    Parameters
    ----------
    corpus
        Any corpus.
    ids
        One id or several, such as ``"27041076-1"``.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    UnknownLabelError
        When an id is none of this corpus.
    """
    return _is_one_of(corpus, "analysis_id", "analysis", ids)


def is_study(corpus: xr.Dataset, ids: Ids) -> xr.DataArray:
    """Mark all analyses of some studies, by the ids of the studies.

    Parameters
    ----------
    corpus
        Any corpus.
    ids
        One id or several, such as ``"27041076"``; a number is its digits.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    UnknownLabelError
        When an id is none of this corpus.
    """
    return _is_one_of(corpus, "study_id", "study", ids)


def _is_one_of(corpus: xr.Dataset, variable: str, what: str, ids: Ids) -> xr.DataArray:
    known = corpus[variable].values.tolist()
    asked = _listed(ids)
    wanted, there = set(asked), set(known)
    mask = np.fromiter((name in wanted for name in known), bool, len(known))
    unknown = list(dict.fromkeys(name for name in asked if name not in there))
    if unknown:
        others = f" {len(unknown) - 1:,} more are not known either." if len(unknown) > 1 else ""
        name = unknown[0][:80]
        raise UnknownLabelError(
            f"No {what} has the id {name!r}. {suggest(name, _alike(name, known))}{others}"
        )
    return as_mask(corpus, mask)


def _alike(name: str, known: list[str]) -> list[str]:
    """Some known names that begin as `name` does, or begin it; all of them would take seconds."""
    names = list(dict.fromkeys(known))
    for length in range(min(len(name), _LONGEST_START), 0, -1):
        alike = [each for each in names if each.startswith(name[:length])]
        if alike:
            return alike[:_MOST_ALIKE]
    return names[:_MOST_ALIKE]


def _listed(names: Ids) -> list[str]:
    """One name or several as a list of plain strings."""
    if hasattr(names, "__array__"):
        return [str(name) for name in np.asarray(names).ravel().tolist()]
    several = [names] if isinstance(names, str | int) else names
    return [str(name) for name in several]


def as_mask(corpus: xr.Dataset, marked: NDArray[np.bool_]) -> xr.DataArray:
    """A mask over the analyses of a corpus, with their names, from booleans, (analysis,)."""
    # The names of the analyses go along, so that a mask cannot be used on another corpus.
    return xr.DataArray(
        marked, dims="analysis", name="mask", coords={"analysis_id": corpus["analysis_id"]}
    )


def select(corpus: xr.Dataset, mask: xr.DataArray | np.ndarray) -> xr.Dataset:
    """Keep the analyses that `mask` marks, with their foci and weights.

    Parameters
    ----------
    corpus
        Any corpus.
    mask
        Boolean, (analysis,).

    Returns
    -------
    corpus
        Analyses in the same order; every feature is kept.

    Raises
    ------
    SchemaError
        When the mask is not boolean or has another length.
    SelectionError
        When it marks no analysis.
    """
    chosen = np.asarray(mask)
    ids = mask.coords.get("analysis_id") if isinstance(mask, xr.DataArray) else None
    if ids is not None and not np.array_equal(ids.values, corpus["analysis_id"].values):
        raise SchemaError(
            "The mask was made from another corpus: its analyses are not those of this one. Make "
            "it again with has_label() from this corpus."
        )
    if chosen.dtype != bool or chosen.shape != (corpus.sizes["analysis"],):
        raise SchemaError(
            f"The mask has values of type {chosen.dtype} and shape {chosen.shape}; expected "
            f"boolean and ({corpus.sizes['analysis']},). Make it with has_label()."
        )
    if not chosen.any():
        raise SelectionError(
            f"No analysis of {len(chosen):,} is selected; use a lower threshold or another label."
        )
    selected = take_analyses(corpus, chosen)
    return with_step(selected, "select", n_selected=int(chosen.sum()), n_before=len(chosen))
