"""Writing a corpus as a release of parquet tables, as NiMARE reads it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import csc_matrix

from nimare_dask import facts as _facts
from nimare_dask.corpus import (
    analysis_of_focus,
    analysis_of_image,
    annotations_of,
    studyset_of,
    weights_of,
)
from nimare_dask.errors import CorpusWarning, shorten
from nimare_dask.io.parquet_columns import (
    as_column,
    block,
    statistics,
    strings,
    truths,
    value_texts,
)
from nimare_dask.io.parquet_exact import FEATURE_PARTS
from nimare_dask.io.parquet_tables import (
    FACTS_TABLE,
    FORMAT,
    IDS,
    MANIFEST,
    MOST_CELLS,
    OWN,
    SAMPLE_SIZE,
    VERSION,
    pyarrow,
    value_column,
    value_kind,
)
from nimare_dask.io.whole import refuse_folder, whole_folder
from nimare_dask.wholeness import check

_STUDY_COLUMNS = ("name", "description", "authors", "publication")
#: Columns that a table has of its own.
_TAKEN = {
    "studies": ("study_id",),
    "analyses": (*IDS, SAMPLE_SIZE),
    "metadata": IDS,
    "texts": IDS,
    "annotations": IDS,
    "coordinates": (*IDS, "x", "y", "z", "space"),
}
#: The field of the statistics of foci.
_VALUES = "focus.values"
#: Variables that a release holds.
_HELD = {
    *("study", "analysis_id", "study_id", "analysis_study", "analysis_contrast", "axis"),
    *("analysis_n_foci", "analysis_sample_size", "focus_xyz", "focus_space"),
    *("feature", "feature_n_weights", "weight_analysis", "weight_value"),
    *("feature_annotation", "feature_label", "feature_kind"),
    *("analysis_n_images", "image_type", "image_path", "image_space"),
    *("field", *_facts.NAMES, *_facts.TEXTS),
}


def write_parquet(corpus: xr.Dataset, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a release that NiMARE and :func:`~nimare_dask.read_parquet` read.

    What NiMARE's tables have no place for (facts of several kinds in one field, further
    annotations, images of one type) stands in a table and in a part of the manifest that it leaves
    alone, so that reading gives the same corpus again.

    Parameters
    ----------
    corpus
        Any corpus.
    folder
        Folder to write; it appears when it is whole.
    overwrite
        Replace a release that is there.

    Returns
    -------
    folder
        Where it is.

    Raises
    ------
    StoreExistsError
        When `folder` is there and may not be replaced.
    SettingsError
        When pyarrow is not installed.
    """
    pyarrow()
    check(corpus)
    target = Path(folder)
    refuse_folder(target, marker=MANIFEST, overwrite=overwrite)
    lost = [str(name) for name in corpus.variables if name not in _HELD]
    if lost:
        warnings.warn(
            f"{target} holds no variable {shorten(lost)}; a release has no place for "
            f"{'it' if len(lost) == 1 else 'them'}. Keep the corpus with save_corpus too.",
            CorpusWarning,
            stacklevel=2,
        )
    with whole_folder(target, marker=MANIFEST, overwrite=overwrite) as partial:
        _Writer(corpus, partial).write()
    return target


class _Writer:
    """Writes the tables of one corpus."""

    def __init__(self, corpus: xr.Dataset, folder: Path) -> None:
        self.corpus = corpus
        self.folder = folder
        self.n = corpus.sizes["analysis"]
        self.text = strings(corpus["text_value"].values if "text" in corpus.dims else [])
        self.names = {name: level for name, level in _places(corpus)}
        #: Fields that stand exactly in the table of facts, and the columns that they make useless.
        self.exact: list[str] = []
        self.skip: dict[str, list[str]] = {}
        self.tables: dict[str, str] = {}
        ids = ("analysis_id", "study_id", "analysis_contrast")
        self.ids = {
            column: strings(corpus[name].values) for column, name in zip(IDS, ids, strict=True)
        }

    def write(self) -> None:
        """All tables, and the manifest last."""
        arrow = pyarrow()
        placed = {*self.names, _VALUES}
        self.exact += [name for name in _facts.fields(self.corpus) if name not in placed]
        study = {"study_id": strings(self.corpus["study"].values)}
        empty = arrow.nulls(self.corpus.sizes["study"], arrow.string())
        study |= dict.fromkeys(_STUDY_COLUMNS, empty) | self._columns("studies")
        self._put("studies", study)
        analyses = self.ids | {"name": arrow.nulls(self.n, arrow.string())}
        analyses |= self._columns("analyses")
        if "analysis_sample_size" in self.corpus:
            analyses[SAMPLE_SIZE] = arrow.array(self.corpus["analysis_sample_size"].values)
        self._put("analyses", analyses)
        self._put("metadata", self.ids | self._metadata())
        self._put("texts", self.ids | self._columns("texts"))
        self._put("coordinates", self._coordinates())
        if "image" in self.corpus.dims:
            self._put("images", self._images())
        features = self._write_annotations()
        if self.exact:
            self._put(FACTS_TABLE, self._exact())
        (self.folder / MANIFEST).write_text(
            json.dumps(self._manifest(features), indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )

    def _put(self, name: str, columns: Mapping[str, Any]) -> None:
        arrow = pyarrow()
        table = arrow.table(list(columns.values()), names=list(columns))
        pyarrow("pyarrow.parquet").write_table(table, self.folder / f"{name}.parquet")
        self.tables[name] = f"{name}.parquet"

    def _columns(self, table: str) -> dict[str, Any]:
        """Columns of the fields that have their place in a table."""
        made = {}
        for field, (where, column) in self.names.items():
            if where == table:
                made[column] = self._column(field, self._n_rows(table))
        return made

    def _n_rows(self, table: str) -> int:
        level = {"studies": "study", "coordinates": "focus"}.get(table, "analysis")
        return int(self.corpus.sizes[level])

    def _column(self, field: str, n: int) -> Any:
        """A field as a column; what it cannot say exactly is left to the table of facts."""
        found = _facts.column(self.corpus, field)
        values, is_exact = as_column(found, n, self.text, self.corpus)
        if not is_exact:
            self.exact.append(field)
            table, column = self.names[field]
            self.skip.setdefault(table, []).append(column)
        return values

    def _metadata(self) -> dict[str, Any]:
        """Metadata of analyses, and of their studies where NiMARE looks for them."""
        made = self._columns("metadata")
        owner = pyarrow().array(self.corpus["analysis_study"].values)
        known = {
            name: as_column(
                _facts.column(self.corpus, name), self.corpus.sizes["study"], self.text, self.corpus
            )[0]
            for name in _facts.fields(self.corpus)
            if name.startswith("study.metadata.")
        }
        for name, values in known.items():
            column = name.removeprefix("study.metadata.")
            if column not in made and column not in IDS:
                made[column] = values.take(owner)
                self.skip.setdefault("metadata", []).append(column)
        sizes = ("sample_sizes", "sample_size")
        if "analysis_sample_size" in self.corpus and not {*sizes} & {*made}:
            made["sample_size"] = pyarrow().array(
                self.corpus["analysis_sample_size"].values, from_pandas=True
            )
            self.skip.setdefault("metadata", []).append("sample_size")
        return made

    def _coordinates(self) -> dict[str, Any]:
        corpus = self.corpus
        owner = pyarrow().array(analysis_of_focus(corpus))
        spaces = strings(corpus.attrs["spaces"])
        made = {name: column.take(owner) for name, column in self.ids.items()}
        made |= {
            axis: pyarrow().array(np.ascontiguousarray(corpus["focus_xyz"].values[:, at]))
            for at, axis in enumerate("xyz")
        }
        made["space"] = spaces.take(pyarrow().array(corpus["focus_space"].values.astype(np.int32)))
        columns = self._columns("coordinates")
        for column, values in self._values().items():
            columns.setdefault(column, values)
        return made | columns

    def _values(self) -> dict[str, Any]:
        """Columns of the statistics of foci."""
        if _VALUES not in _facts.fields(self.corpus):
            return {}
        found = _facts.column(self.corpus, _VALUES)
        codes, place = np.unique(found.text, return_inverse=True)
        known, whole = statistics(self.corpus, codes)
        read = value_texts(known, len(codes), whole)
        texts = [*self.corpus["text_value"].values.tolist(), None]
        said = [texts[code] for code in codes.tolist()]
        taken = {column for table, column in self.names.values() if table == "coordinates"}
        if (
            read != said
            or (codes < 0).any()
            or not taken.isdisjoint(map(value_column, known))
            or len(np.unique(found.row)) < len(found.row)
        ):
            self.exact.append(_VALUES)
            self.skip.setdefault("coordinates", []).extend(map(value_column, known))
        made = {}
        for kind, values in known.items():
            spread = np.full(self.corpus.sizes["focus"], np.nan)
            spread[found.row] = values[place]
            missing = np.isnan(spread)
            if kind in whole:
                spread = np.where(missing, 0, spread).astype(np.int64)
            made[value_column(kind)] = pyarrow().array(spread, mask=missing)
        return made

    def _images(self) -> dict[str, Any]:
        """One row an image, so that an analysis may have several of one type."""
        arrow = pyarrow()
        owner = arrow.array(analysis_of_image(self.corpus))
        made = {name: column.take(owner) for name, column in self.ids.items()}
        space, paths, kinds = (
            self.corpus[name].values.astype(object)
            for name in ("image_space", "image_path", "image_type")
        )
        made["space"] = arrow.array([each or None for each in space], arrow.string())
        for kind in pd.unique(kinds):
            of_kind = [
                path if same else None for path, same in zip(paths, kinds == kind, strict=True)
            ]
            made[f"{kind}__source"] = arrow.array(of_kind, arrow.string())
        return made

    def _write_annotations(self) -> dict[str, Any] | None:
        """The table of labels, block by block of analyses; what the manifest says of features."""
        columns = self._columns("annotations")
        features = _features(self.corpus)
        arrow = pyarrow()
        names = features["column"] if features else []
        for document in annotations_of(self.corpus)[:1]:
            keys = document.get("note_keys")
            for label in keys if isinstance(keys, dict) else ():
                if label not in (*names, *IDS):
                    columns.setdefault(label, arrow.nulls(self.n, arrow.string()))
        if features is None and not columns:
            return None
        matrix = weights_of(self.corpus) if features else csc_matrix((self.n, 0))
        of_truth = truths(matrix, features["kind"] if features else [])
        by_row = matrix.tocsr()
        step = max(1, MOST_CELLS // max(1, len(names)))
        path = self.folder / "annotations.parquet"
        writer = None
        try:
            for start in range(0, max(self.n, 1), step):
                part = {name: each.slice(start, step) for name, each in self.ids.items()}
                part |= block(by_row[start : start + step].tocsc(), names, of_truth)
                part |= {name: each.slice(start, step) for name, each in columns.items()}
                table = arrow.table(list(part.values()), names=list(part))
                if writer is None:
                    writer = pyarrow("pyarrow.parquet").ParquetWriter(path, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        self.tables["annotations"] = path.name
        return features

    def _exact(self) -> dict[str, Any]:
        """Facts as the corpus has them, one field after the other."""
        arrow = pyarrow()
        found = [_facts.column(self.corpus, name) for name in self.exact]
        counts = [len(each.row) for each in found]
        joined = [np.concatenate([each[part] for each in found]) for part in range(3)]
        codes = arrow.array(joined[2], mask=joined[2] < 0)
        is_json = np.append(self.corpus["text_is_json"].values, False)[joined[2]]
        names = strings(self.exact).take(arrow.array(np.repeat(np.arange(len(found)), counts)))
        return {
            "field": names,
            "row": arrow.array(joined[0]),
            "number": arrow.array(joined[1], from_pandas=True),
            "text": self.text.take(codes),
            "is_json": arrow.array(is_json),
        }

    def _manifest(self, features: dict[str, Any] | None) -> dict[str, Any]:
        corpus, said = self.corpus, studyset_of(self.corpus)
        own = {
            "version": 1,
            "spaces": list(corpus.attrs["spaces"]),
            "studyset": said,
            "features": features,
            "is_annotated": "annotations" in corpus.attrs,
            "skip": self.skip,
            "rows": {
                level: int(corpus.sizes.get(size, 0)) for level, size in _facts.LEVELS.items()
            },
            "provenance": corpus.attrs.get("provenance"),
        }
        return {
            "format": FORMAT,
            "version": VERSION,
            "id": said.get("id"),
            "name": said.get("name") or "",
            "tables": self.tables,
            "annotations": annotations_of(corpus),
            OWN: own,
        }


def _places(corpus: xr.Dataset) -> Iterator[tuple[str, tuple[str, str]]]:
    """Table and column of each field that has a place in NiMARE's tables."""
    labels = set(_labels(corpus))
    for name in _facts.fields(corpus):
        level, _, rest = name.partition(".")
        outer, point, inner = rest.partition(".")
        table, column = {"study": "studies", "analysis": "analyses"}.get(level, ""), rest
        if level == "focus" and name != _VALUES and not (value_kind(rest) or rest == "metadata"):
            table = "coordinates"
        if point and outer in ("metadata", "texts"):
            table, column = (outer if level == "analysis" else ""), inner
        if name.startswith("note.0.note."):
            table, column = "annotations", name.removeprefix("note.0.note.")
            table = "" if column in labels else table
        if table and column and column not in _TAKEN[table]:
            yield name, (table, column)


def _labels(corpus: xr.Dataset) -> list[str]:
    """The column of each feature: its label where no other has it, else its whole name."""
    if "feature" not in corpus.dims:
        return []
    names = [str(name) for name in corpus["feature"].values]
    if "feature_label" not in corpus:
        labels = names
    else:
        labels = [str(label) for label in corpus["feature_label"].values]
    whole = labels if len(set(labels)) == len(labels) else names
    taken = {*whole, *IDS}
    columns = []
    for label in whole:
        column = label
        while column in IDS or (column != label and column in taken):
            column += "_"
        taken.add(column)
        columns.append(column)
    return columns


def _features(corpus: xr.Dataset) -> dict[str, Any] | None:
    """What the manifest says of features."""
    if "feature" not in corpus.dims:
        return None
    names = [str(name) for name in corpus["feature"].values]
    said: list[Any] = [[None] * len(names), names, ["number"] * len(names)]
    if "feature_annotation" in corpus:
        parts = ("feature_annotation", "feature_label", "feature_kind")
        said = [corpus[part].values.tolist() for part in parts]
    return dict(zip(FEATURE_PARTS, (_labels(corpus), names, *said), strict=True))
