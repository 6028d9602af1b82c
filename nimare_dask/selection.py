"""Choosing analyses: masks over ``analysis`` that combine with ``&``, ``|`` and ``~``."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nimare_dask.errors import SchemaError, SelectionError, UnknownLabelError, find_label
from nimare_dask.provenance import with_step
from nimare_dask.subset import take_analyses

#: Where NiMARE draws the line between an analysis that has a feature and one that has not.
DEFAULT_THRESHOLD = 0.001


def find_feature(corpus: xr.Dataset, label: str) -> int:
    """Position of a feature, by its whole name or by what follows ``__`` when that is unique.

    Raises
    ------
    UnknownLabelError
        When no feature has that name, or several have.
    """
    if "feature" not in corpus.dims:
        raise UnknownLabelError(
            f"The corpus has no features, so {label!r} cannot be found; import it with its "
            "features (features=[(npz, vocabulary)], on the command line --features)."
        )
    return find_label([str(name) for name in corpus["feature"].values], label, "feature")


def has_label(corpus: xr.Dataset, label: str, threshold: float = DEFAULT_THRESHOLD) -> xr.DataArray:
    """Mark the analyses whose weight of a feature is at least `threshold`.

    Parameters
    ----------
    corpus
        A corpus with features.
    label
        Name of the feature; ``pain`` finds ``terms_abstract_tfidf__pain`` when it is the only one.
    threshold
        Smallest weight that counts, inclusive.

    Returns
    -------
    mask
        Boolean, (analysis,).
    """
    feature = find_feature(corpus, label)
    end = int(corpus["feature_n_weights"].values[: feature + 1].sum())
    start = end - int(corpus["feature_n_weights"].values[feature])
    enough = corpus["weight_value"].values[start:end] >= threshold
    mask = np.full(corpus.sizes["analysis"], threshold <= 0.0)
    mask[corpus["weight_analysis"].values[start:end]] = enough
    # The names of the analyses go along, so that a mask cannot be used on another corpus.
    return xr.DataArray(
        mask, dims="analysis", name="mask", coords={"analysis_id": corpus["analysis_id"]}
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
