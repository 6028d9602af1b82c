"""What every variable is: dimensions, kind of values, unit and one sentence.

A variable is declared here once, and :func:`check` holds a dataset to it where it is used.
Names are ``<entity>_<what>``; statistical maps keep the names that NiMARE gives them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nimare_dask.errors import SchemaError

CORPUS_VERSION = 2
RESULT_VERSION = 1
NULL_VERSION = 1

CORPUS_KIND = "nimare_dask.corpus"
RESULT_KIND = "nimare_dask.result"
NULL_KIND = "nimare_dask.null"

#: numpy kind letters behind each word used below.
KINDS = {"integer": "iu", "float": "f", "text": "UOT", "boolean": "b"}


@dataclass(frozen=True)
class Variable:
    """Declaration of one variable."""

    dims: tuple[str, ...]
    kind: str
    unit: str
    text: str
    #: further dimensions that may stand before `dims` (an effect or a feature of a map).
    leading: tuple[str, ...] = ()


_MAP = ("probability", "effect", "feature", "inference")


def _map(text: str, unit: str = "1") -> Variable:
    return Variable(("voxel",), "float", unit, text, leading=_MAP)


VARIABLES: dict[str, Variable] = {
    # the corpus
    "study": Variable(("study",), "text", "", "the papers"),
    "analysis_id": Variable(("analysis",), "text", "", "study id, a hyphen, contrast id"),
    "study_id": Variable(("analysis",), "text", "", "the paper that an analysis is from"),
    "analysis_study": Variable(("analysis",), "integer", "", "position of its paper in `study`"),
    "analysis_contrast": Variable(
        ("analysis",), "text", "", "what an analysis is called within its paper"
    ),
    "analysis_n_foci": Variable(
        ("analysis",),
        "integer",
        "1",
        "foci of each analysis; they lie one analysis after the other",
    ),
    "analysis_sample_size": Variable(
        ("analysis",), "float", "1", "mean number of subjects; NaN is unknown"
    ),
    "focus_xyz": Variable(("focus", "axis"), "float", "mm", "coordinates as reported"),
    "focus_space": Variable(
        ("focus",), "integer", "", "code into the list `spaces`: the space a focus was reported in"
    ),
    "feature": Variable(("feature",), "text", "", "term, topic or label of an annotation"),
    "feature_n_weights": Variable(
        ("feature",),
        "integer",
        "1",
        "weights of each feature; they lie one feature after the other",
    ),
    "weight_analysis": Variable(("weight",), "integer", "", "position of the analysis of a weight"),
    "weight_value": Variable(("weight",), "float", "1", "how much of the feature an analysis has"),
    "feature_annotation": Variable(
        ("feature",), "integer", "", "position in the list `annotations` of where it is from"
    ),
    "feature_label": Variable(("feature",), "text", "", "what its annotation calls a feature"),
    "feature_kind": Variable(("feature",), "text", "", "number or boolean"),
    "analysis_n_images": Variable(
        ("analysis",),
        "integer",
        "1",
        "images of each analysis; they lie one analysis after the other",
    ),
    "image_type": Variable(("image",), "text", "", "what an image is, as its source says"),
    "image_path": Variable(("image",), "text", "", "file or address of an image"),
    "image_space": Variable(("image",), "text", "", "space of an image, empty if not said"),
    "field": Variable(("field",), "text", "", "what else is known, by its place in the source"),
    "field_n_facts": Variable(
        ("field",), "integer", "1", "facts of each field; they lie one field after the other"
    ),
    "fact_row": Variable(
        ("fact",), "integer", "", "position of the study, analysis, focus or image of a fact"
    ),
    "fact_number": Variable(("fact",), "float", "1", "the fact, NaN where it is a text"),
    "fact_text": Variable(
        ("fact",), "integer", "", "position of its text, -1 where it is a number"
    ),
    "text_value": Variable(("text",), "text", "", "the distinct texts of all facts"),
    "text_is_json": Variable(("text",), "boolean", "", "whether a text is JSON, not words"),
    "axis": Variable(("axis",), "text", "", "x, y and z"),
    "truth_xyz": Variable(("truth", "axis"), "float", "mm", "where a simulation planted an effect"),
    "truth_feature": Variable(("truth",), "integer", "", "position of the feature of that effect"),
    # results
    "voxel_i": Variable(("voxel",), "integer", "", "index of the voxel on the first axis"),
    "voxel_j": Variable(("voxel",), "integer", "", "index of the voxel on the second axis"),
    "voxel_k": Variable(("voxel",), "integer", "", "index of the voxel on the third axis"),
    "stat": _map("the statistic itself"),
    "z": _map("z score"),
    "p": _map("p value, at least the smallest float32"),
    "logp": _map("-log10 of the p value"),
    "chi2": _map("chi-square with one degree of freedom"),
    "prob": _map("probability"),
    **{
        f"{name}_fdr_{method}": _map(f"{text}, corrected for the false discovery rate ({long})")
        for method, long in (("indep", "Benjamini-Hochberg"), ("negcorr", "Benjamini-Yekutieli"))
        for name, text in (("z", "z score"), ("p", "p value"), ("logp", "-log10 of the p value"))
    },
    **{
        f"{name}_bonferroni": _map(f"{text}, corrected for the family of all voxels (Bonferroni)")
        for name, text in (("z", "z score"), ("p", "p value"), ("logp", "-log10 of the p value"))
    },
    **{
        f"{name}_fwe": _map(f"{text}, corrected for the family of all voxels by null iterations")
        for name, text in (("z", "z score"), ("p", "p value"), ("logp", "-log10 of the p value"))
    },
    "inference": Variable(
        ("inference",), "text", "", "what is compared: voxel, cluster size, cluster mass or tfce"
    ),
    "bin_center": Variable(("bin",), "float", "1", "statistic in the middle of a bin of its null"),
    "null_weight": Variable(
        ("bin",), "float", "1", "share (or number) of voxels in each bin under the null"
    ),
    "null_histogram": Variable(
        ("bin",), "integer", "voxel", "voxels in each bin over all null iterations"
    ),
    "null_max": Variable(
        ("iteration", "inference"),
        "float",
        "1",
        "largest statistic, cluster size, cluster mass and score of each null iteration",
    ),
    "null_reaching": Variable(
        ("voxel",), "integer", "iteration", "null iterations at least as high as the observed map"
    ),
    "null_up": Variable(
        ("voxel",), "integer", "iteration", "null iterations at least as high as the observed map"
    ),
    "null_low": Variable(
        ("voxel",), "integer", "iteration", "null iterations at most as high as the observed map"
    ),
    "null_surviving": Variable(
        ("voxel",), "integer", "subset", "subsets in which a voxel is in a cluster that survives"
    ),
    "size": Variable(("size",), "integer", "analysis", "analyses that have the label"),
    "effect": Variable(("effect",), "text", "", "which chi-square"),
    "probability": Variable(("probability",), "text", "", "of what, A activation, F the feature"),
    "n_active": Variable(
        ("voxel",), "integer", "analysis", "analyses, selected or not, active at a voxel"
    ),
    "n_both": Variable(
        ("voxel",), "integer", "analysis", "analyses active at target and voxel", ("feature",)
    ),
    "target_n_voxels": Variable(("feature",), "integer", "voxel", "voxels of a target in the mask"),
    **{
        f"target_{axis}": Variable(("feature",), "float", "mm", f"{axis} of the centre of a target")
        for axis in "xyz"
    },
    "n_selected": Variable((), "integer", "analysis", "analyses in the selection", ("feature",)),
}


def check(dataset: xr.Dataset, names: Iterable[str], *, made_by: str) -> None:
    """Raise SchemaError unless `dataset` has each of `names` as declared.

    Parameters
    ----------
    dataset
        The dataset to look at; nothing is computed.
    names
        Names of declared variables.
    made_by
        What makes such a dataset, for the message.
    """
    for name in names:
        declared = VARIABLES[name]
        if name not in dataset.variables:
            have = ", ".join(map(str, dataset.variables)) or "none"
            raise SchemaError(
                f"{name} {declared.dims} is missing ({declared.text}); the dataset has {have}. "
                f"Build it with {made_by}."
            )
        found = dataset[name]
        depth = len(declared.dims)
        core, before = found.dims[found.ndim - depth :], found.dims[: found.ndim - depth]
        if core != declared.dims or not set(before) <= set(declared.leading):
            raise SchemaError(
                f"{name} has dims {found.dims}; expected {declared.dims}"
                f"{f' in {declared.unit}' if declared.unit not in ('', '1') else ''}. "
                f"Build it with {made_by}."
            )
        if np.dtype(found.dtype).kind not in KINDS[declared.kind]:
            raise SchemaError(
                f"{name} has values of type {found.dtype}; expected {declared.kind}. "
                f"Build it with {made_by}."
            )


def describe(dataset: xr.Dataset) -> xr.Dataset:
    """Give each declared variable its unit and sentence as attributes (a shallow copy)."""
    described = dataset.copy()
    for name in described.variables:
        declared = VARIABLES.get(str(name))
        if declared is not None:
            described[name].attrs.setdefault("long_name", declared.text)
            if declared.unit:
                described[name].attrs.setdefault("units", declared.unit)
    return described
