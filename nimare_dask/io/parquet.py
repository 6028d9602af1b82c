"""NiMARE's and NeuroStore's releases of studysets: a folder of parquet tables and a manifest.

Whole columns become variables of the corpus; no row is looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import corpus as _corpus
from nimare_dask import schema
from nimare_dask.corpus import Images
from nimare_dask.draft import FARTHEST, UNKNOWN_SPACE
from nimare_dask.errors import SchemaError
from nimare_dask.facts import Facts, JsonText, dump
from nimare_dask.io.json_files import load_json
from nimare_dask.io.parquet_exact import read_exact
from nimare_dask.io.parquet_notes import read_annotations
from nimare_dask.io.parquet_tables import (
    FACTS_TABLE,
    FORMAT,
    IDS,
    MANIFEST,
    OWN,
    SAMPLE_SIZE,
    VERSION,
    Table,
    is_number,
    is_text,
    open_table,
    pyarrow,
    refuse_damaged,
    value_kind,
)
from nimare_dask.io.parquet_wide import Wide, facts_of
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.metadata import mean_sample_sizes
from nimare_dask.provenance import with_step

_AXES = ("x", "y", "z")
_SOURCE, _RELATIVE = "__source", "__relative"


def read_parquet(folder: str | Path) -> xr.Dataset:
    """Read a release of NeuroStore, or what NiMARE's ``Studyset.to_parquet`` wrote.

    Parameters
    ----------
    folder
        Holds ``studies.parquet``, ``analyses.parquet`` and, as far as there are any, the tables
        ``coordinates``, ``images``, ``metadata``, ``texts`` and ``annotations``.

    Returns
    -------
    corpus
        Coordinates in mm with their space as reported. Numbers and booleans of the annotation are
        features (an empty cell is no weight, a 0 is one), its texts are facts
        (``note.0.note.<label>``).

    Raises
    ------
    SourceFormatError
        Names the table and column of what is wrong.
    SettingsError
        When pyarrow is not installed.
    """
    path = Path(folder)
    problems = Problems(path)
    corpus = parse(path, problems)
    settle(problems)
    assert corpus is not None
    return with_step(corpus, "read_parquet", settings={"files": [path.name]})


def parse(path: Path, problems: Problems) -> xr.Dataset | None:
    """Read what can be read; say all that is wrong."""
    pyarrow()
    if not path.is_dir():
        found = "is a file" if path.exists() else "is not there"
        problems.error("", f"it {found}; expected a folder with studies.parquet and others.")
        return None
    reader = _Reader(path, problems, _read_manifest(path, problems))
    corpus = None
    try:
        corpus = reader.read()
    except SchemaError as error:
        problems.error("", str(error))
    return None if problems.n_errors else corpus


def _read_manifest(folder: Path, problems: Problems) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    found = load_json(path, problems)
    if not isinstance(found, dict) or found.get("format", FORMAT) != FORMAT:
        if found is not None:
            problems.error(MANIFEST, f"found {show(found)}; expected the manifest of a release.")
        return {}
    if found.get("version", VERSION) != VERSION:
        problems.warn(
            MANIFEST, f"version {show(found['version'])}; it is read as version {VERSION}."
        )
    return found


class _Reader:
    """Reads the tables of one release, one after the other."""

    def __init__(self, folder: Path, problems: Problems, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.problems = problems
        self.manifest = manifest
        own = manifest.get(OWN)
        self.own: dict[str, Any] = own if isinstance(own, dict) else {}
        self.facts = Facts()
        self.ids: pd.Index[Any] = pd.Index([], dtype=object)

    def read(self) -> xr.Dataset | None:
        """The corpus."""
        parts: dict[str, Any] = {}
        with self._reading("studies"), self._reading("analyses"):
            parts |= self._read_analyses()
        if not parts:
            return None
        with self._reading("coordinates"):
            parts |= self._read_foci()
        with self._reading("images"):
            parts["images"] = self._read_images()
        for name in ("metadata", "texts"):
            with self._reading(name):
                self._read_wide(name)
        with self._reading("annotations"):
            parts |= read_annotations(
                self._wide("annotations"), self.manifest, self.own, self.facts, self.problems
            )
        if self.problems.n_errors:
            return None
        if self.own:
            images = parts["images"]
            n_images = 0 if images is None else len(images.path)
            n = {"study": len(parts["study"]), "analysis": len(self.ids), "note": len(self.ids)}
            n |= {"focus": len(parts["xyz"]), "image": n_images}
            with self._reading(FACTS_TABLE):
                read_exact(self.folder, self.own.get("rows"), n, self.facts, self.problems)
        size = parts.pop("sample_size")
        kept = ("format", "version", "tables", "annotations", OWN)
        parts["studyset"] = self.own.get("studyset") or {
            key: value for key, value in self.manifest.items() if key not in kept and value
        }
        made = _corpus.build(**parts, facts=self.facts)
        if size is None and not self.own:
            size = mean_sample_sizes(made)
            size = size if np.isfinite(size).any() else None
        if size is not None:
            made = made.assign(analysis_sample_size=("analysis", size))
        if isinstance(self.own.get("provenance"), str):
            made = made.assign_attrs(provenance=self.own["provenance"])
        return schema.describe(made)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn what pyarrow raises for a damaged table into a problem."""
        try:
            yield
        except (pyarrow().ArrowException, OSError, UnicodeDecodeError) as error:
            refuse_damaged(f"{name}.parquet", error, self.problems)

    def _skips(self, table: str) -> Sequence[str]:
        """Columns whose content stands in the table of facts, exactly."""
        found = self.own.get("skip")
        return found.get(table, ()) if isinstance(found, dict) else ()

    def _read_analyses(self) -> dict[str, Any]:
        studies = open_table(self.folder, "studies", ["study_id"], self.problems)
        analyses = open_table(self.folder, "analyses", IDS, self.problems)
        for name, table in (("studies", studies), ("analyses", analyses)):
            if table is None and not (self.folder / f"{name}.parquet").is_file():
                self.problems.error(f"{name}.parquet", "it is not there; every release has one.")
        if studies is None or analyses is None:
            return {}
        study = self._names(studies, "study_id", unique=True)
        ids = self._names(analyses, "id", unique=True)
        owner = self._names(analyses, "study_id", unique=False)
        contrast = self._names(analyses, "contrast_id", unique=False)
        if self.problems.n_errors:
            return {}
        known_studies = set(study)
        strangers = [each for each in dict.fromkeys(owner) if each not in known_studies]
        if strangers:
            self.problems.warn(
                "analyses.parquet, column study_id",
                f"{len(strangers):,} studies ({show(strangers[0])} and others) are not in "
                "studies.parquet; they are kept, and nothing more is known of them.",
            )
        self.ids = pd.Index(ids, dtype=object)
        for table, level, taken in (
            (studies, "study", ("study_id", *self._skips("studies"))),
            (analyses, "analysis", (*IDS, SAMPLE_SIZE, *self._skips("analyses"))),
        ):
            wide = Wide.whole(table)
            for column in table.batches([each for each in table.columns if each not in taken]):
                facts_of(self.facts, f"{level}.{column}", wide, column)
        known = SAMPLE_SIZE in analyses.columns
        return {
            "analysis_id": np.array(ids, object),
            "study_id": np.array(owner, object),
            "study": np.array([*study, *strangers], object),
            "contrast": np.array(contrast, object),
            "sample_size": analyses.numbers(SAMPLE_SIZE) if known else None,
            "n_foci": np.zeros(len(ids), np.int64),
            "xyz": np.empty((0, 3)),
            "focus_space": [],
            "spaces": [],
        }

    def _names(self, table: Table, column: str, *, unique: bool) -> list[str]:
        codes, named = table.codes(column)
        place = f"{table.name}, column {column}"
        without = np.flatnonzero(codes < 0)
        if len(without):
            self.problems.error(
                place, f"{len(without):,} rows (the first is {without[0] + 1}) have no id."
            )
        if unique and len(named) + len(without) < table.n_rows:
            counts = np.bincount(codes[codes >= 0], minlength=len(named))
            twice = named[int(np.argmax(counts))]
            self.problems.error(
                place, f"{show(twice)} is there {counts.max():,} times; each id must be there once."
            )
        with_none = [*named, ""]
        return [with_none[code] for code in codes.tolist()]

    def _rows(self, table: Table) -> NDArray[np.int64]:
        """Position of the analysis of each row, -1 for none, which is said."""
        codes, named = table.codes("id")
        place = np.append(self.ids.get_indexer(pd.Index(named, dtype=object)), -1)
        rows = np.asarray(place[codes], np.int64)
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            code = codes[lost[0]]
            self.problems.warn(
                f"{table.name}, row {lost[0] + 1}",
                f"{show(named[code]) if code >= 0 else 'nothing'} is no analysis of "
                f"analyses.parquet; {len(lost):,} rows are like this and are left out.",
            )
        return rows

    def _wide(self, name: str) -> Wide | None:
        """A table with one row an analysis, in the order of the analyses."""
        table = open_table(self.folder, name, ["id"], self.problems)
        if table is None:
            return None
        return Wide.matched(table, self._rows(table), len(self.ids), self._skips(name))

    def _read_wide(self, name: str) -> None:
        wide = self._wide(name)
        if wide is not None:
            for column in wide.table.batches(wide.columns):
                facts_of(self.facts, f"analysis.{name}.{column}", wide, column)

    def _read_foci(self) -> dict[str, Any]:
        table = open_table(self.folder, "coordinates", ["id", *_AXES], self.problems)
        if table is None:
            if not (self.folder / "coordinates.parquet").is_file():
                self.problems.warn("coordinates.parquet", "it is not there; there are no foci.")
            return {}
        rows = self._rows(table)
        xyz = np.stack([table.numbers(axis) for axis in _AXES], axis=1)
        finite = (np.abs(xyz) <= FARTHEST).all(axis=1)
        nowhere = np.flatnonzero(~finite & (rows >= 0))
        if len(nowhere):
            self.problems.warn(
                f"{table.name}, row {nowhere[0] + 1}",
                f"found {show(xyz[nowhere[0]].tolist())}, which is no place in a head (mm); "
                f"{len(nowhere):,} rows are like this and are no foci.",
            )
        kept = np.flatnonzero(finite & (rows >= 0))
        if (np.diff(rows[kept]) < 0).any():
            kept = kept[np.argsort(rows[kept], kind="stable")]
        codes, spaces = self._spaces(table)
        self._read_values(table, kept)
        return {
            "n_foci": np.bincount(rows[kept], minlength=len(self.ids)),
            "xyz": xyz[kept],
            "focus_space": codes[kept],
            "spaces": spaces,
        }

    def _spaces(self, table: Table) -> tuple[NDArray[np.int64], list[str]]:
        """Codes of the spaces of all rows, and the names of spaces."""
        codes = np.full(table.n_rows, -1, np.int64)
        named: list[str] = []
        if "space" in table.columns:
            codes, named = table.codes("space")
        known = self.own.get("spaces")
        spaces = list(map(str, known)) if isinstance(known, list) else []
        place = {name: number for number, name in enumerate(spaces)}
        called = [name if name not in ("", "None") else UNKNOWN_SPACE for name in named]
        used = sorted(set(codes.tolist()))
        for code in [*(each for each in used if each >= 0), *(each for each in used if each < 0)]:
            place.setdefault(called[code] if code >= 0 else UNKNOWN_SPACE, len(place))
        ours = [place.get(name, 0) for name in called] + [place.get(UNKNOWN_SPACE, 0)]
        return np.array(ours, np.int64)[codes], list(place)

    def _read_values(self, table: Table, kept: NDArray[np.intp]) -> None:
        """Statistics and whatever else the table says of foci."""
        taken = {*IDS, *_AXES, "space", *self._skips("coordinates")}
        columns = [each for each in table.columns if each not in taken]
        values = {
            kind: table.numbers(column)[kept]
            for column in columns
            if (kind := value_kind(column)) and is_number(table.kind(column))
        }
        everyone = Wide(table, kept, np.arange(len(kept)), columns)
        for column in columns:
            if value_kind(column) not in values:
                facts_of(self.facts, f"focus.{column}", everyone, column)
        if not values:
            return
        texts = value_texts(values, len(kept))
        rows = [row for row, text in enumerate(texts) if text is not None]
        self.facts.extend("focus.values", rows, [texts[row] for row in rows])

    def _read_images(self) -> Images | None:
        table = open_table(self.folder, "images", ["id"], self.problems)
        if table is None:
            return None
        rows = self._rows(table)
        space = table.texts("space") if "space" in table.columns else [None] * table.n_rows
        found: list[tuple[int, int, int, str, str]] = []
        for number, column in enumerate(_image_columns(table)):
            if not is_text(table.kind(column)):
                continue
            kind = column.removesuffix(_SOURCE)
            paths = table.column(column)
            there = np.flatnonzero(paths.is_valid().to_numpy(zero_copy_only=False) & (rows >= 0))
            found += [(int(rows[at]), int(at), number, kind, paths[at].as_py()) for at in there]
        if not found:
            return None
        found.sort()
        return Images(
            n_images=np.bincount([each[0] for each in found], minlength=len(self.ids)),
            kind=np.array([each[3] for each in found], object),
            path=np.array([each[4] for each in found], object),
            space=np.array([space[each[1]] or "" for each in found], object),
        )


def _image_columns(table: Table) -> list[str]:
    """Columns of paths: ``z__source``, or ``z`` as NiMARE writes it (with ``z__relative``)."""
    sources = [name for name in table.columns if name.endswith(_SOURCE)]
    plain = [
        name
        for name in table.columns
        if name not in (*IDS, "space")
        and not name.endswith((_SOURCE, _RELATIVE))
        and f"{name}{_SOURCE}" not in sources
    ]
    return sources + plain


def value_texts(values: dict[str, NDArray[np.float64]], n: int) -> list[JsonText | None]:
    """The statistics of each focus as a NIMADS list in JSON, (focus,); None where there are none.

    Parameters
    ----------
    values
        For each kind the values, (focus,); NaN is none.
    n
        Number of foci.
    """
    texts: list[JsonText | None] = [None] * n
    for kind, column in values.items():
        head = f'[{{"kind": {dump(kind)}, "value": '
        rows = np.flatnonzero(np.isfinite(column)).tolist()
        for row, value in zip(rows, column[rows].tolist(), strict=True):
            before = texts[row]
            shown = int(value) if value.is_integer() else value
            start = head if before is None else f"{before[:-1]}, {head[1:]}"
            texts[row] = JsonText(f"{start}{shown!r}}}]")
    return texts
