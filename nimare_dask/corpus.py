"""The corpus: what thousands of papers reported, as one ragged xarray Dataset.

Dimensions are ``study``, ``analysis``, ``focus``, ``image``, ``feature`` and ``weight``. Foci lie
one analysis after the other (a CF contiguous ragged array: ``analysis_n_foci`` says how many each
has), images too, and the weights of an annotation one feature after the other. Coordinates are kept
as they were reported, with their space; they are transformed when a
:class:`~nimare_dask.space.Space` is applied. All else that a source says is in
:mod:`~nimare_dask.facts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix

from nimare_dask import schema
from nimare_dask.errors import SchemaError, SourceFormatError, StoreAccessError
from nimare_dask.facts import Facts
from nimare_dask.parallel.places import AnyPath, place, reaching
from nimare_dask.parallel.stores import open_group, stamp, whole_or_nothing
from nimare_dask.provenance import digest_dataset, steps
from nimare_dask.wholeness import FEATURES, check, refuse_duplicates

#: Attributes that are content: names of spaces, and what annotations and the studyset are called.
_DIGESTED = ("spaces", "annotations", "studyset")


def build(
    *,
    analysis_id: ArrayLike,
    study_id: ArrayLike,
    n_foci: ArrayLike,
    xyz: ArrayLike,
    focus_space: ArrayLike,
    spaces: Sequence[str],
    study: ArrayLike | None = None,
    contrast: ArrayLike | None = None,
    feature: Sequence[str] = (),
    weights: csc_matrix | None = None,
    annotation: Annotation | None = None,
    images: Images | None = None,
    facts: Facts | None = None,
    sample_size: ArrayLike | None = None,
    studyset: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Put a corpus together.

    Parameters
    ----------
    analysis_id, study_id
        Unique name of each analysis and the paper that it is from, (analysis,).
    n_foci
        Foci of each analysis, (analysis,).
    xyz
        Coordinates as reported, in mm, (focus, 3), one analysis after the other.
    focus_space
        Code into `spaces` for each focus, (focus,).
    spaces
        The names of spaces as reported.
    study
        Names of all studies, (study,), where some have no analysis or their order matters; those of
        `study_id` in their order by default.
    contrast
        What each analysis is called within its study, (analysis,); ``"1"`` by default.
    feature
        Names of the features.
    weights
        Sparse matrix (analysis, feature); what is not stored is 0.
    annotation
        Which annotation each feature is from.
    images
        Images of analyses.
    facts
        All else.
    sample_size
        Mean number of subjects of each analysis, (analysis,); NaN is unknown.
    studyset
        What the source calls itself: ``id``, ``name`` and others.

    Returns
    -------
    corpus
        A Dataset that :func:`check` accepts.

    Raises
    ------
    SchemaError
        When the parts do not fit together.
    """
    papers = _text(study_id)
    names = _text(pd.unique(papers.astype(object)) if study is None else study)
    labels: dict[str, Any] = {
        "study": ("study", names),
        "analysis_id": ("analysis", _text(analysis_id)),
        "study_id": ("analysis", papers),
        "axis": ("axis", _text(["x", "y", "z"])),
    }
    variables = _focus_variables(n_foci, xyz, focus_space, len(spaces))
    variables["analysis_study"] = ("analysis", _positions(names, papers))
    called = ["1"] * len(papers) if contrast is None else contrast
    variables["analysis_contrast"] = ("analysis", _text(called))
    variables |= {} if images is None else images.variables()
    variables |= {} if facts is None else facts.variables()
    if sample_size is not None:
        sizes = np.asarray(sample_size, dtype=np.float64)
        variables["analysis_sample_size"] = ("analysis", sizes)
    if weights is not None or len(feature):
        variables |= _weight_variables(weights, len(labels["analysis_id"][1]), len(feature))
        labels["feature"] = ("feature", _text(np.asarray(feature, dtype=object)))
        variables |= {} if annotation is None else annotation.variables()
    labels |= {name: variables.pop(name) for name in ("field",) if name in variables}
    attributes: dict[str, Any] = {"spaces": list(spaces)}
    if annotation is not None:
        attributes["annotations"] = json.dumps(annotation.documents)
    if studyset:
        attributes["studyset"] = json.dumps(dict(studyset))
    try:
        corpus = xr.Dataset(variables, coords=labels, attrs=attributes)
    except ValueError as error:
        raise SchemaError(f"The parts of the corpus do not fit together: {error}.") from error
    corpus["analysis_n_foci"].attrs["sample_dimension"] = "focus"
    if weights is not None:
        corpus["feature_n_weights"].attrs["sample_dimension"] = "weight"
    check(corpus)
    return schema.describe(corpus)


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """Which annotation features are from.

    Attributes
    ----------
    documents
        One mapping for each annotation: ``id``, ``name``, ``note_keys`` and whatever else.
    of_feature
        Position of the annotation of each feature, (feature,).
    label
        What each feature is called in its annotation, (feature,).
    kind
        ``number`` or ``boolean`` for each feature, (feature,).
    """

    documents: Sequence[Mapping[str, Any]]
    of_feature: ArrayLike
    label: ArrayLike
    kind: ArrayLike

    def variables(self) -> dict[str, Any]:
        """Variables of a corpus."""
        return {
            "feature_annotation": ("feature", np.asarray(self.of_feature, np.int32)),
            "feature_label": ("feature", _text(self.label)),
            "feature_kind": ("feature", _text(self.kind)),
        }


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images of analyses, one analysis after the other.

    Attributes
    ----------
    n_images
        Images of each analysis, (analysis,).
    kind
        What each is, as its source says (``T map``, ``z``), (image,).
    path
        File or address of each, (image,).
    space
        Name of its space, empty where it is not said, (image,).
    """

    n_images: ArrayLike
    kind: ArrayLike
    path: ArrayLike
    space: ArrayLike

    def variables(self) -> dict[str, Any]:
        """Variables of a corpus."""
        counts = np.asarray(self.n_images, np.int32)
        return {
            "analysis_n_images": ("analysis", counts, {"sample_dimension": "image"}),
            "image_type": ("image", _text(self.kind)),
            "image_path": ("image", _text(self.path)),
            "image_space": ("image", _text(self.space)),
        }


def _positions(names: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int32]:
    """Position in `names` of each of `wanted`."""
    index = pd.Index(names.astype(object))
    if not index.is_unique:
        refuse_duplicates("study", names)
    found = index.get_indexer(pd.Index(wanted.astype(object)))
    if (found < 0).any():
        stranger = wanted[int(np.argmin(found))]
        raise SchemaError(f"study_id has {stranger}, which is not in `study`; name it there too.")
    return np.asarray(found, np.int32)


def _focus_variables(
    n_foci: ArrayLike, xyz: ArrayLike, focus_space: ArrayLike, n_spaces: int
) -> dict[str, Any]:
    coordinates = np.asarray(xyz, dtype=np.float64)
    if coordinates.size == 0:
        coordinates = coordinates.reshape(0, 3)
    if coordinates.ndim != 2 or coordinates.shape[1] != 3:
        raise SchemaError(f"xyz has shape {coordinates.shape}; expected (focus, 3) in mm.")
    sizes = np.asarray(n_foci)
    if sizes.size and not np.array_equal(sizes, sizes.astype(np.int32)):
        raise SchemaError("n_foci has values that are not whole numbers; expected counts.")
    codes = np.asarray(focus_space, np.int64)
    if codes.size and not (codes.min() >= 0 and codes.max() < min(n_spaces, 128)):
        raise SchemaError(
            f"focus_space has codes {codes.min()} to {codes.max()} but there are {n_spaces} "
            "names in `spaces`; each code must point at one, and there can be 128."
        )
    return {
        "analysis_n_foci": ("analysis", sizes.astype(np.int32)),
        "focus_xyz": (("focus", "axis"), coordinates),
        "focus_space": ("focus", codes.astype(np.int8)),
    }


def _weight_variables(
    weights: csc_matrix | None, n_analyses: int, n_features: int
) -> dict[str, Any]:
    if weights is None:
        raise SchemaError(f"There are {n_features:,} features and no weights; give both.")
    if weights.shape != (n_analyses, n_features):
        raise SchemaError(
            f"weights has shape {weights.shape}; expected (analysis, feature), which is "
            f"({n_analyses}, {n_features})."
        )
    columns = csc_matrix(weights)
    columns.sort_indices()
    return {
        "feature_n_weights": ("feature", np.diff(columns.indptr).astype(np.int64)),
        "weight_analysis": ("weight", columns.indices.astype(np.int32)),
        "weight_value": ("weight", columns.data),
    }


def _text(values: ArrayLike) -> NDArray[Any]:
    texts = [str(value) for value in np.asarray(values, dtype=object).ravel().tolist()]
    return np.array(texts, dtype=np.dtypes.StringDType())


def digest(corpus: xr.Dataset) -> str:
    """SHA-256 of the content of a corpus, however it is stored or chunked."""
    return digest_dataset(corpus, _DIGESTED)


def save_corpus(corpus: xr.Dataset, path: str | AnyPath, *, overwrite: bool = False) -> AnyPath:
    """Write a corpus as one zarr group with its schema version and a digest of its content.

    Parameters
    ----------
    corpus
        The corpus.
    path
        Folder or address to write, usually ending in ``.zarr``. It appears when it is whole.
    overwrite
        Replace a zarr group that is there.

    Raises
    ------
    StoreExistsError
        When `path` exists and may not be replaced.
    SourceFormatError
        When the corpus has no focus.
    """
    check(corpus)
    if corpus.sizes["focus"] == 0:
        raise SourceFormatError("The corpus has no focus; there is nothing to analyse in it.")
    target = place(path)
    facts = {"digest": digest_dataset(corpus, _DIGESTED)}
    stamped = stamp(corpus, kind=schema.CORPUS_KIND, version=schema.CORPUS_VERSION, facts=facts)
    encoding = {
        str(name): {"chunks": _chunks(stamped[name])}
        for name in stamped.variables
        if stamped[name].size
    }
    with whole_or_nothing(target, kind=schema.CORPUS_KIND, overwrite=overwrite) as partial:
        stamped.to_zarr(partial, zarr_format=3, consolidated=False, encoding=encoding)
    return target


def _chunks(variable: xr.DataArray) -> tuple[int, ...]:
    # Whole-database tables are a few MB: few chunks open fast, and a chunk stays under 8 MB.
    rows = max(1, min(variable.shape[0], 1 << 18)) if variable.ndim else 1
    return (rows, *variable.shape[1:]) if variable.ndim else ()


def open_corpus(path: str | AnyPath) -> xr.Dataset:
    """Open a corpus that :func:`save_corpus` wrote, and check that its content is unchanged.

    Raises
    ------
    SourceFormatError
        When it is not a corpus, is of another schema version or has no focus, or when its content
        is not that of its digest.
    """
    target = place(path)
    corpus = open_group(target, kind=schema.CORPUS_KIND, version=schema.CORPUS_VERSION)
    try:
        with reaching(target):
            corpus = corpus.load().drop_encoding()
        check(corpus)
        found = digest_dataset(corpus, _DIGESTED)
    except StoreAccessError:
        raise
    except Exception as error:
        raise SourceFormatError(
            f"{target} is damaged ({error}); make the corpus again from its source."
        ) from error
    if corpus.sizes["focus"] == 0:
        raise SourceFormatError(f"{target} has no focus; there is nothing to analyse in it.")
    # What was checked is not kept: the next step may change the content.
    if found != corpus.attrs.pop("digest", None):
        raise SourceFormatError(
            f"{target} has content that does not fit its digest, so something changed it after it "
            "was written; make the corpus again from its source."
        )
    return corpus


def analysis_of_focus(corpus: xr.Dataset) -> NDArray[np.int32]:
    """Position of the analysis of each focus, (focus,)."""
    n_foci = corpus["analysis_n_foci"].values
    return np.repeat(np.arange(len(n_foci), dtype=np.int32), n_foci)


def analysis_of_image(corpus: xr.Dataset) -> NDArray[np.int32]:
    """Position of the analysis of each image, (image,)."""
    n_images = corpus["analysis_n_images"].values
    return np.repeat(np.arange(len(n_images), dtype=np.int32), n_images)


def weights_of(corpus: xr.Dataset) -> csc_matrix:
    """Annotation weights as a sparse matrix (analysis, feature), without a copy."""
    schema.check(corpus, FEATURES, made_by="read_neurosynth(..., features=[(npz, vocabulary)])")
    start = np.append(0, np.cumsum(corpus["feature_n_weights"].values))
    parts = (corpus["weight_value"].values, corpus["weight_analysis"].values, start)
    return csc_matrix(parts, shape=(corpus.sizes["analysis"], corpus.sizes["feature"]))


def annotations_of(corpus: xr.Dataset) -> list[dict[str, Any]]:
    """What the annotations of a corpus call themselves: ``id``, ``name``, ``note_keys`` ..."""
    return list(json.loads(corpus.attrs.get("annotations", "[]")))


def studyset_of(corpus: xr.Dataset) -> dict[str, Any]:
    """What the source of a corpus calls itself: ``id``, ``name`` ..."""
    return dict(json.loads(corpus.attrs.get("studyset", "{}")))


def summary(corpus: xr.Dataset) -> dict[str, Any]:
    """What is in a corpus, for people: counts, foci by space, features, digest."""
    n_foci = corpus["analysis_n_foci"].values
    codes = np.bincount(corpus["focus_space"].values, minlength=len(corpus.attrs["spaces"]))
    facts: dict[str, Any] = {
        "analyses": corpus.sizes["analysis"],
        "studies": corpus.sizes["study"],
        "foci": corpus.sizes["focus"],
        "analyses without foci": int((n_foci == 0).sum()),
        "foci by reported space": dict(zip(corpus.attrs["spaces"], codes.tolist(), strict=True)),
        "features": corpus.sizes.get("feature", 0),
        "weights": corpus.sizes.get("weight", 0),
        "images": corpus.sizes.get("image", 0),
        "fields": corpus.sizes.get("field", 0),
        "digest": digest(corpus),
    }
    if done := steps(corpus):
        facts["made by"] = "; ".join(step["step"] for step in done)
    return facts
