"""A corpus in the making: readers add studies, analyses, foci and images in any order of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix

from nimare_dask import corpus as _corpus
from nimare_dask import schema
from nimare_dask.corpus import Annotation, Images
from nimare_dask.facts import Facts
from nimare_dask.metadata import mean_sample_sizes

#: What a focus or a study whose space is not said is called.
UNKNOWN_SPACE = "UNKNOWN"
#: No coordinate is further out, in mm; what is was no coordinate.
FARTHEST = 10_000.0


@dataclass
class Draft:
    """Studies, their analyses, and the foci and images of these, as a reader finds them.

    Rows are numbered as they are added. Foci and images may come for any analysis at any time; they
    are put in the order of their analyses when the corpus is built.
    """

    studies: list[str] = field(default_factory=list)
    analysis_study: list[int] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=list)
    #: pieces of each column, of one focus or of many
    focus_analysis: list[ArrayLike] = field(default_factory=list)
    focus_xyz: list[ArrayLike] = field(default_factory=list)
    focus_space: list[ArrayLike] = field(default_factory=list)
    n_foci: int = 0
    spaces: dict[str, int] = field(default_factory=dict)
    image_analysis: list[int] = field(default_factory=list)
    image_kind: list[str] = field(default_factory=list)
    image_path: list[str] = field(default_factory=list)
    image_space: list[str] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    studyset: dict[str, Any] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    #: (annotation, label) -> position of the feature
    features: dict[tuple[int, str], int] = field(default_factory=dict)
    feature_kind: list[str] = field(default_factory=list)
    weight_feature: list[int] = field(default_factory=list)
    weight_analysis: list[int] = field(default_factory=list)
    weight_value: list[float] = field(default_factory=list)

    def add_study(self, name: str) -> int:
        """Add a study; its row."""
        self.studies.append(name)
        return len(self.studies) - 1

    def add_analysis(self, study: int, contrast: str) -> int:
        """Add an analysis of a study; its row."""
        self.analysis_study.append(study)
        self.contrasts.append(contrast)
        return len(self.contrasts) - 1

    def add_focus(self, analysis: int, xyz: Sequence[float], space: str) -> int:
        """Add a focus in mm; its row, as facts name it."""
        self.add_foci([analysis], [xyz], [space])
        return self.n_foci - 1

    def add_foci(
        self, analysis: Sequence[int] | NDArray[Any], xyz: ArrayLike, space: str | Sequence[str]
    ) -> None:
        """Add many foci: the analysis, (focus,), coordinates, (focus, 3), and space of each.

        A space by itself is that of all of them.
        """
        self.focus_analysis.append(analysis)
        self.focus_xyz.append(xyz)
        self.n_foci += len(analysis)
        if isinstance(space, str):
            code = self.spaces.setdefault(space, len(self.spaces))
            self.focus_space.append(np.full(len(analysis), code))
            return
        names = dict.fromkeys(space)
        codes = [self.spaces.setdefault(name, len(self.spaces)) for name in names]
        self.focus_space.append(
            np.full(len(space), codes[0]) if len(codes) == 1 else [self.spaces[n] for n in space]
        )

    def add_image(self, analysis: int, kind: str, path: str, space: str = "") -> int:
        """Add an image; its row, as facts name it."""
        self.image_analysis.append(analysis)
        self.image_kind.append(kind)
        self.image_path.append(path)
        self.image_space.append(space)
        return len(self.image_path) - 1

    def add_annotation(self, document: Mapping[str, Any]) -> int:
        """Add an annotation; its position."""
        self.annotations.append(dict(document))
        return len(self.annotations) - 1

    def add_feature(self, annotation: int, label: str, kind: str = "number") -> int:
        """Position of a feature of an annotation, which is added if it is new."""
        place = self.features.setdefault((annotation, label), len(self.features))
        if place == len(self.feature_kind):
            self.feature_kind.append(kind)
        return place

    def add_weight(self, feature: int, analysis: int, value: float) -> None:
        """Say how much of a feature an analysis has."""
        self.weight_feature.append(feature)
        self.weight_analysis.append(analysis)
        self.weight_value.append(value)

    def build(self) -> xr.Dataset:
        """The corpus; mean sample sizes are taken from the facts.

        Raises
        ------
        SchemaError
            When two analyses have one name.
        """
        study_id = [self.studies[place] for place in self.analysis_study]
        n = len(study_id)
        owner = _joined(self.focus_analysis, np.int64)
        focus_order = _in_order(self.facts, "focus", owner)
        image_order = _in_order(self.facts, "image", np.array(self.image_analysis, np.int64))
        images = Images(
            n_images=np.bincount(np.array(self.image_analysis, np.int64), minlength=n),
            kind=np.array(self.image_kind, object)[image_order],
            path=np.array(self.image_path, object)[image_order],
            space=np.array(self.image_space, object)[image_order],
        )
        made = _corpus.build(
            analysis_id=[f"{s}-{c}" for s, c in zip(study_id, self.contrasts, strict=True)],
            study_id=np.array(study_id, object),
            contrast=np.array(self.contrasts, object),
            study=np.array(self.studies, object),
            n_foci=np.bincount(owner, minlength=n),
            xyz=_joined(self.focus_xyz, np.float64).reshape(-1, 3)[focus_order],
            focus_space=_joined(self.focus_space, np.int64)[focus_order],
            spaces=list(self.spaces),
            images=images if self.image_path else None,
            facts=self.facts,
            studyset=self.studyset,
            **self._weights(n),
        )
        sizes = mean_sample_sizes(made)
        if np.isfinite(sizes).any():
            made = made.assign(analysis_sample_size=("analysis", sizes))
        return schema.describe(made)

    def _weights(self, n_analyses: int) -> dict[str, Any]:
        if not self.annotations:
            return {}
        labels = [label for _, label in self.features]
        places = (np.array(self.weight_analysis, np.int64), np.array(self.weight_feature, np.int64))
        shape = (n_analyses, len(labels))
        kept = {
            "annotation": Annotation(
                documents=self.annotations,
                of_feature=[annotation for annotation, _ in self.features],
                label=labels,
                kind=self.feature_kind,
            ),
            "feature": feature_names(self.features, self.annotations),
            "weights": csc_matrix((np.array(self.weight_value, np.float64), places), shape=shape),
        }
        return kept


def feature_names(
    features: Mapping[tuple[int, str], int], annotations: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Names of features: the label, after the annotation's id where several share it.

    Where that is not enough (two annotations of one id) a number follows: no two are the same.
    """
    labels = [label for _, label in features]
    if len(set(labels)) == len(labels):
        return labels
    shared = {label for label, times in Counter(labels).items() if times > 1}
    names: dict[str, None] = {}
    taken = set(labels) - shared
    for annotation, label in features:
        name = label
        if label in shared:
            whole = f"{annotations[annotation].get('id') or annotation}__{label}"
            others = (f"{whole}_{number}" for number in count(2))
            name = next(each for each in chain([whole], others) if each not in taken)
        taken.add(name)
        names[name] = None
    return list(names)


def _joined(pieces: Sequence[ArrayLike], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.asarray(piece, dtype) for piece in pieces] or [np.empty(0, dtype)])


def _in_order(facts: Facts, level: str, owner: NDArray[np.int64]) -> NDArray[np.intp]:
    """Order of rows by the analyses that own them; facts follow."""
    order = np.argsort(owner, kind="stable")
    if len(order) and (np.diff(owner) < 0).any():
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        facts.move(level, place)
    return order
