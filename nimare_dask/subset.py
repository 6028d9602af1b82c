"""Parts of a corpus: some of its analyses, foci or images, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import facts as _facts
from nimare_dask import schema
from nimare_dask.corpus import analysis_of_focus, analysis_of_image


def take_analyses(corpus: xr.Dataset, chosen: NDArray[np.bool_]) -> xr.Dataset:
    """Keep the `chosen` analyses, (analysis,), with their foci, images, weights, studies and facts.

    Every feature is kept, and so is every field that has a fact left.
    """
    studies = np.zeros(corpus.sizes["study"], bool)
    studies[corpus["analysis_study"].values[chosen]] = True
    kept = {
        "analysis": chosen,
        "study": studies,
        "focus": chosen[analysis_of_focus(corpus)],
    }
    if "image" in corpus.dims:
        kept["image"] = chosen[analysis_of_image(corpus)]
    return take(corpus, kept)


def take(corpus: xr.Dataset, kept: Mapping[str, NDArray[np.bool_]]) -> xr.Dataset:
    """Keep some rows of some dimensions, and let what points at them follow.

    Parameters
    ----------
    corpus
        A corpus.
    kept
        Boolean masks by dimension: ``analysis``, ``study``, ``focus``, ``image``. They must fit
        together: foci and images of analyses that go must go too.
    """
    sizes = {dim: corpus.sizes.get(dim, 0) for dim in ("study", "analysis", "focus", "image")}
    masks = {dim: kept.get(dim, np.ones(size, bool)) for dim, size in sizes.items()}
    place = {dim: np.where(mask, np.cumsum(mask) - 1, -1) for dim, mask in masks.items()}
    parts = {dim: np.flatnonzero(mask) for dim, mask in masks.items() if dim in corpus.dims}
    stays = masks["analysis"]
    if "feature" in corpus.dims:
        parts["weight"] = np.flatnonzero(stays[corpus["weight_analysis"].values])
    has_facts = "field" in corpus.dims
    facts = _facts.take(corpus, place) if has_facts else {}
    taken = corpus.drop_dims(["field", "fact", "text"]) if has_facts else corpus
    taken = taken.isel(parts)

    def replace(name: str, values: NDArray[Any]) -> None:
        taken[name] = taken[name].copy(data=values.astype(taken[name].dtype, copy=False))

    replace("analysis_study", place["study"][taken["analysis_study"].values])
    foci = np.bincount(analysis_of_focus(corpus)[masks["focus"]], minlength=sizes["analysis"])
    replace("analysis_n_foci", foci[stays])
    if "image" in corpus.dims:
        images = np.bincount(analysis_of_image(corpus)[masks["image"]], minlength=sizes["analysis"])
        replace("analysis_n_images", images[stays])
    if "feature" in corpus.dims:
        n_weights = corpus["feature_n_weights"].values
        feature = np.repeat(np.arange(len(n_weights)), n_weights)[parts["weight"]]
        replace("feature_n_weights", np.bincount(feature, minlength=len(n_weights)))
        replace("weight_analysis", place["analysis"][taken["weight_analysis"].values])
    return schema.describe(taken.assign(facts).set_coords([n for n in ("field",) if n in facts]))
