"""NiMARE's ``Dataset`` files: JSON of studies, their contrasts, and the coordinates of these.

``{study: {metadata, contrasts: {contrast: {coords: {space, x, y, z}, images, metadata, labels,
text}}}}``. NiMARE replaced them by studysets; many are still around.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from nimare_dask.draft import FARTHEST, UNKNOWN_SPACE, Draft
from nimare_dask.errors import SchemaError
from nimare_dask.io.json_files import load_json
from nimare_dask.io.parquet_tables import value_kind
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.provenance import with_step

_AXES = ("x", "y", "z")
#: What NIMADS calls what is known of a study.
_FIELDS = {"title": "name", "journal": "publication"}
_BIBLIOGRAPHY = ("authors", "year", "doi", "pmid", *_FIELDS)
#: Beyond this a number is no float that a computer can reckon with.
_LARGEST = 1e300


def read_nimare_dataset(path: str | Path) -> xr.Dataset:
    """Read a NiMARE Dataset (JSON, plain or .gz).

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    corpus
        Labels are features (a label that a contrast does not have is no weight), statistics of foci
        (``z_stat``) are facts ``focus.values``. Foci without coordinates are counted and left out.

    Raises
    ------
    SourceFormatError
        Names the places of what is wrong.
    """
    problems = Problems(Path(path))
    corpus = parse(Path(path), problems)
    settle(problems)
    assert corpus is not None
    return with_step(corpus, "read_nimare_dataset", settings={"files": [Path(path).name]})


def parse(path: Path, problems: Problems) -> xr.Dataset | None:
    """Read what can be read; say all that is wrong."""
    document = load_json(path, problems)
    if document is None:
        return None
    if not isinstance(document, dict) or not any(
        isinstance(study, dict) and "contrasts" in study for study in document.values()
    ):
        found = list(document) if isinstance(document, dict) else document
        problems.error("", f"found {show(found)}; expected studies, each with `contrasts`.")
        return None
    reader = _Reader(problems)
    for name, study in document.items():
        reader.read_study(name, study)
    if problems.n_errors:
        return None
    try:
        return reader.draft.build()
    except SchemaError as error:
        problems.error("", str(error))
        return None


class _Reader:
    """Reads studies into a draft."""

    def __init__(self, problems: Problems) -> None:
        self.draft = Draft()
        self.problems = problems

    def _object(self, found: Any, place: str) -> dict[str, Any]:
        """An object; nothing, and a problem, where it is none. null is an empty one."""
        if found is None or isinstance(found, dict):
            return found or {}
        self.problems.error(place, f"found {show(found)}; expected an object.")
        return {}

    def _add_facts(self, level: str, row: int, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if not (isinstance(value, float) and math.isnan(value)):
                self.draft.facts.add(f"{level}.{key}", row, value)

    def read_study(self, name: str, found: Any) -> None:
        """Read one study."""
        study = self._object(found, name)
        if not name:
            self.problems.error(name, "the id of the study is empty; give it one.")
        row = self.draft.add_study(name)
        metadata = self._object(study.get("metadata"), f"{name}.metadata")
        known = {key: value for key, value in study.items() if key not in ("metadata", "contrasts")}
        known |= {
            key: metadata[key] for key in _BIBLIOGRAPHY if key in metadata and key not in known
        }
        self._add_facts("study", row, {_FIELDS.get(key, key): each for key, each in known.items()})
        rest = {key: each for key, each in metadata.items() if known.get(key, self) is not each}
        self._add_facts("study.metadata", row, rest)
        place = f"{name}.contrasts"
        if "contrasts" not in study:
            self.problems.error(place, "it is not there; each study has contrasts, or {}.")
        for contrast, content in self._object(study.get("contrasts"), place).items():
            at = f"{place}.{contrast}"
            if not contrast:
                self.problems.error(at, "the id of the contrast is empty; give it one.")
            self._read_contrast(row, contrast, self._object(content, at), at)

    def _read_contrast(self, study: int, name: str, contrast: dict[str, Any], place: str) -> None:
        row = self.draft.add_analysis(study, name)
        parts = {
            key: self._object(contrast.get(key), f"{place}.{key}")
            for key in ("coords", "images", "metadata", "labels", "text")
        }
        self._add_facts("analysis.metadata", row, parts["metadata"])
        self._add_facts("analysis.texts", row, parts["text"])
        rest = {key: each for key, each in contrast.items() if key not in parts}
        self._add_facts("analysis", row, rest)
        self._read_foci(row, parts["coords"], f"{place}.coords")
        self._read_images(row, parts["images"], f"{place}.images")
        self._read_labels(row, parts["labels"], f"{place}.labels")

    def _read_foci(self, row: int, coords: dict[str, Any], place: str) -> None:
        if not coords:
            return
        missing = [axis for axis in _AXES if not isinstance(coords.get(axis), list)]
        if missing:
            found = show({axis: coords.get(axis) for axis in missing})
            self.problems.error(place, f"found {found}; expected lists x, y and z in mm.")
            return
        lengths = [len(coords[axis]) for axis in _AXES]
        if len(set(lengths)) > 1:
            self.problems.error(
                place,
                f"x, y and z have {lengths[0]}, {lengths[1]} and {lengths[2]} values; each focus "
                "must have one of each.",
            )
            return
        space = coords.get("space")
        if space is None or space == "":
            space = UNKNOWN_SPACE
        elif not isinstance(space, str):
            self.problems.error(
                f"{place}.space", f"found {show(space)}; expected a name such as MNI."
            )
            return
        columns = self._columns(row, coords, lengths[0], place)
        foci = list(zip(*(coords[axis] for axis in _AXES), strict=True))
        kept = [at for at, xyz in enumerate(foci) if self._is_focus(xyz, f"{place}[{at}]")]
        first = self.draft.n_foci
        self.draft.add_foci([row] * len(kept), [foci[at] for at in kept], [space] * len(kept))
        for focus, at in enumerate(kept, start=first):
            self._add_said(focus, {key: each[at] for key, each in columns.items()})

    def _columns(
        self, row: int, coords: dict[str, Any], n: int, place: str
    ) -> dict[str, list[Any]]:
        """What else is said of each focus; what is said of all of them is of the analysis."""
        columns = {}
        for key, values in coords.items():
            if key in (*_AXES, "space"):
                continue
            if not isinstance(values, list):
                self._add_facts("analysis.coords", row, {key: values})
            elif len(values) != n:
                self.problems.error(
                    f"{place}.{key}", f"{len(values)} values of {n} foci; each must have one."
                )
                return {}
            else:
                columns[key] = values
        return columns

    def _is_focus(self, xyz: tuple[Any, ...], place: str) -> bool:
        """Whether there are three numbers; what is no number at all is an error."""
        without = [value is None or value != value for value in xyz]
        for axis, value, is_missing in zip(_AXES, xyz, without, strict=True):
            if not is_missing and (isinstance(value, bool) or not isinstance(value, int | float)):
                self.problems.error(
                    f"{place}.{axis}", f"found {show(value)}; expected a number in mm."
                )
                return False
        if any(without) or any(abs(value) > FARTHEST for value in xyz):
            self.problems.warn(
                place,
                f"found {show(list(xyz))}, which is no place in a head (mm); it is left out.",
            )
            return False
        return True

    def _add_said(self, focus: int, said: dict[str, Any]) -> None:
        values = []
        for key, value in said.items():
            kind = value_kind(key)
            if kind and isinstance(value, int | float) and not isinstance(value, bool):
                if value == value:  # not NaN
                    values.append({"kind": kind, "value": value})
            else:
                self._add_facts("focus", focus, {key: value})
        if values:
            self.draft.facts.add("focus.values", focus, values)

    def _read_images(self, row: int, images: dict[str, Any], place: str) -> None:
        space = images.get("space")
        for kind, path in images.items():
            if kind == "space" or path is None:
                continue
            if isinstance(path, str):
                self.draft.add_image(row, kind, path, space if isinstance(space, str) else "")
            else:
                self.problems.error(f"{place}.{kind}", f"found {show(path)}; expected a path.")

    def _read_labels(self, row: int, labels: dict[str, Any], place: str) -> None:
        if labels and not self.draft.annotations:
            self.draft.add_annotation({"id": "labels", "name": "labels"})
        for label, value in labels.items():
            if value is None or value != value:
                self.draft.add_feature(0, label)
            elif isinstance(value, str):
                self.draft.facts.add(f"note.0.note.{label}", row, value)
            elif isinstance(value, int | float) and abs(value) <= _LARGEST:
                kind = "boolean" if isinstance(value, bool) else "number"
                self.draft.add_weight(self.draft.add_feature(0, label, kind), row, float(value))
            else:
                self.problems.error(f"{place}.{label}", f"found {show(value)}; expected a number.")
