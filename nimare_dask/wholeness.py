"""Whether a corpus is whole: what must be there, fit together and be unique."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import facts as _facts
from nimare_dask import schema
from nimare_dask.errors import SchemaError, shorten

MADE_BY = "a reader such as read_nimads(), simulate_corpus() or corpus.build()"
CORE = (
    *("study", "analysis_id", "study_id", "analysis_study", "analysis_contrast"),
    *("analysis_n_foci", "focus_xyz", "focus_space"),
)
FEATURES = ("feature", "feature_n_weights", "weight_analysis", "weight_value")
IMAGES = ("analysis_n_images", "image_type", "image_path", "image_space")


def check(corpus: xr.Dataset) -> None:
    """Raise SchemaError unless `corpus` is whole: variables, sizes, codes and unique names."""
    names = CORE + (FEATURES if "feature" in corpus.dims else ())
    schema.check(corpus, names, made_by=MADE_BY)
    n_foci = corpus["analysis_n_foci"].values
    if n_foci.min(initial=0) < 0 or n_foci.sum() != corpus.sizes["focus"]:
        raise SchemaError(
            f"analysis_n_foci adds up to {n_foci.sum():,} but focus_xyz has "
            f"{corpus.sizes['focus']:,} foci; they must agree."
        )
    codes, spaces = corpus["focus_space"].values, corpus.attrs.get("spaces", [])
    if codes.size and (codes.min() < 0 or codes.max() >= len(spaces)):
        raise SchemaError(
            f"focus_space has codes {codes.min()} to {codes.max()} but there are {len(spaces)} "
            "names in the attribute `spaces`; each code must point at one."
        )
    if not np.isfinite(corpus["focus_xyz"].values).all():
        raise SchemaError("focus_xyz has values that are not finite; remove those foci.")
    refuse_duplicates("analysis_id", corpus["analysis_id"].values)
    refuse_duplicates("study", corpus["study"].values)
    _check_studies(corpus)
    if "image" in corpus.dims:
        schema.check(corpus, IMAGES, made_by=MADE_BY)
        if corpus["analysis_n_images"].values.sum() != corpus.sizes["image"]:
            raise SchemaError("analysis_n_images does not add up to the number of images.")
    if "field" in corpus.dims:
        schema.check(corpus, (*_facts.NAMES, *_facts.TEXTS), made_by=MADE_BY)
        _check_facts(corpus)
    if "feature" in corpus.dims:
        refuse_duplicates("feature", corpus["feature"].values)
        n_weights = corpus["feature_n_weights"].values
        if n_weights.min(initial=0) < 0 or n_weights.sum() != corpus.sizes["weight"]:
            raise SchemaError(
                f"feature_n_weights adds up to {n_weights.sum():,} but "
                f"there are {corpus.sizes['weight']:,} weights; they must agree."
            )
        if not np.isfinite(corpus["weight_value"].values).all():
            raise SchemaError("weight_value has values that are not finite; remove those weights.")
        rows = corpus["weight_analysis"].values
        if rows.size and (rows.min() < 0 or rows.max() >= corpus.sizes["analysis"]):
            raise SchemaError("weight_analysis points at an analysis that is not there.")


def _check_studies(corpus: xr.Dataset) -> None:
    place, study = corpus["analysis_study"].values, corpus["study"].values
    if place.size and (place.min() < 0 or place.max() >= len(study)):
        raise SchemaError("analysis_study points at a study that is not there.")
    if not np.array_equal(study[place], corpus["study_id"].values):
        raise SchemaError("analysis_study and study_id do not name the same studies.")


def _check_facts(corpus: xr.Dataset) -> None:
    if corpus["field_n_facts"].values.sum() != corpus.sizes["fact"]:
        raise SchemaError("field_n_facts does not add up to the number of facts.")
    code = corpus["fact_text"].values
    if code.max(initial=-1) >= corpus.sizes["text"]:
        raise SchemaError("fact_text points at a text that is not there.")
    for name, column in _facts.iterate(corpus):
        if name.partition(".")[0] not in _facts.LEVELS:
            raise SchemaError(
                f"The field {name} does not say of what it is; its name must begin with "
                f"{', '.join(_facts.LEVELS)} and a point."
            )
        row, size = column.row, corpus.sizes.get(_facts.level_of(name), 0)
        if row.size and (row.min() < 0 or row.max() >= size):
            raise SchemaError(f"The field {name} has facts of a row that is not there.")


def refuse_duplicates(name: str, values: NDArray[Any]) -> None:
    """Raise SchemaError where one of `values` is there twice."""
    # Not np.unique: numpy 2.4 dies (SIGSEGV) sorting long texts of two arrays put together.
    twice = sorted(text for text, count in Counter(values.tolist()).items() if count > 1)
    if twice:
        raise SchemaError(
            f"{name} has {len(twice):,} names more than once ({shorten(twice)}); each must be "
            "unique."
        )
