"""Writing plain tables: a row a focus, and all that is known as further columns."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import facts
from nimare_dask.errors import CorpusWarning, SettingsError, SourceFormatError, shorten
from nimare_dask.io.names import Taken
from nimare_dask.io.table_cells import encode
from nimare_dask.io.table_columns import is_field
from nimare_dask.io.whole import refuse_file, whole_file
from nimare_dask.metadata import mean_sample_sizes
from nimare_dask.wholeness import check

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_SHEET = ".xlsx"
#: Fields that people call by one word, as long as their values are plain.
_WORDS = {
    "study.name": "title",
    "study.authors": "authors",
    "study.publication": "journal",
    "study.year": "year",
    "study.doi": "doi",
    "study.pmid": "pmid",
}
_SIZES = "analysis.metadata.sample_sizes"
_VALUES = "focus.values"
_KINDS = {"z": "z_value", "t": "t"}
#: Longer texts stand in the first row of their study or analysis only.
_LONG = 256
_MOST_ROWS, _MOST_COLUMNS, _MOST_CHARACTERS = 1_048_576, 16_384, 32_767

Column = tuple[str, Sequence[Any]]


def write_table(corpus: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a corpus as a table with a row a focus, which :func:`read_table` reads again.

    Columns are ``study contrast x y z space n``, ``z_value`` and ``t`` where foci have such
    values, and one for each further field of studies, analyses and foci. An analysis without foci
    is a row without coordinates. Texts of more than 256 characters stand in the first row of their
    study or analysis only.

    Parameters
    ----------
    corpus
        A corpus.
    path
        File to write, .csv, .tsv, .txt (between tabs) or .xlsx; it appears when it is whole.
    overwrite
        Replace a file that is there.

    Returns
    -------
    path
        The file.

    Warns
    -----
    CorpusWarning
        With what is lost, and how much of it.

    Raises
    ------
    SettingsError
        For another ending of `path`, or a sheet that would be too large.
    SourceFormatError
        When the corpus has no focus.
    StoreExistsError
        When `path` exists and may not be replaced.
    """
    out = Path(path)
    suffix = out.suffix.lower()
    if suffix not in (*_DELIMITERS, _SHEET):
        raise SettingsError(
            f"{out} ends in {suffix or 'nothing'!r}; expected .csv, .tsv, .txt or .xlsx."
        )
    refuse_file(out, overwrite=overwrite)
    check(corpus)
    if corpus.sizes["focus"] == 0:
        raise SourceFormatError("The corpus has no focus; there is nothing to write as a table.")
    lost: list[str] = []
    columns = _columns(corpus, lost)
    _refuse_large(out, suffix, columns)
    with whole_file(out, overwrite=overwrite) as handle:
        if suffix == _SHEET:
            _write_sheet(handle, columns, lost)
        else:
            _write_delimited(handle, columns, _DELIMITERS[suffix])
    _add_losses(corpus, lost)
    if lost:
        warnings.warn(f"{out}: {'; '.join(lost)}.", CorpusWarning, stacklevel=2)
    return out


def _columns(corpus: xr.Dataset, lost: list[str]) -> list[Column]:
    """Names and cells of all columns; cells of numbers are numbers."""
    n_foci = corpus["analysis_n_foci"].values
    rows = np.maximum(n_foci, 1)
    analysis = np.repeat(np.arange(len(rows)), rows)
    focus = np.full(len(analysis), -1, np.int64)
    focus[(n_foci > 0)[analysis]] = np.arange(corpus.sizes["focus"])
    study = corpus["analysis_study"].values[analysis]
    row_of = {"study": study, "analysis": analysis, "focus": focus}
    studies, contrasts = _names(corpus, lost)
    columns: list[Column] = [
        ("study", [studies[at] for at in study.tolist()]),
        ("contrast", [contrasts[at] for at in analysis.tolist()]),
    ]
    places = corpus["focus_xyz"].values.tolist()
    for place, axis in enumerate("xyz"):
        columns.append((axis, [places[at][place] if at >= 0 else "" for at in focus.tolist()]))
    spaces = [str(name) for name in corpus.attrs["spaces"]]
    code = corpus["focus_space"].values.tolist()
    columns.append(("space", [spaces[code[at]] if at >= 0 else "" for at in focus.tolist()]))
    sizes, sizes_said = _sizes(corpus)
    columns.append(("n", [sizes[at] for at in analysis.tolist()]))
    said = {_SIZES} if sizes_said else set()
    if statistics := _statistics(corpus):
        said.add(_VALUES)
        for role, by_focus in statistics.items():
            columns.append((role, [by_focus.get(at, "") for at in focus.tolist()]))
    further = [name for name in facts.fields(corpus) if name not in said and is_field(name)]
    return columns + [_field(corpus, name, row_of[facts.level_of(name)]) for name in further]


def _names(corpus: xr.Dataset, lost: list[str]) -> tuple[list[str], list[str]]:
    """Names of studies and contrasts that are not blank and have no blanks around them."""
    taken, changed = Taken(), 0
    studies = []
    for name in corpus["study"].values.tolist():
        studies.append(taken.free(_plain(name) or "unnamed"))
        changed += studies[-1] != name
    names, contrasts = Taken(), []
    place = corpus["analysis_study"].values.tolist()
    for at, name in zip(place, corpus["analysis_contrast"].values.tolist(), strict=True):
        contrasts.append(names.contrast(studies[at], _plain(name) or "1"))
        changed += contrasts[-1] != name
    if changed:
        lost.append(f"{changed:,} names are changed, since they were blank or had blanks around")
    return studies, contrasts


def _plain(name: str) -> str:
    return "".join(c if c.isprintable() else " " for c in name).strip()


def _sizes(corpus: xr.Dataset) -> tuple[list[Any], bool]:
    """Subjects of each analysis, and whether they are all that its facts say of it."""
    known = "analysis_sample_size" in corpus
    sizes = corpus["analysis_sample_size"].values if known else mean_sample_sizes(corpus)
    shown = ["" if not np.isfinite(size) else _number(size) for size in sizes.tolist()]
    rows, found = facts.values(corpus, _SIZES)
    said = all(value == [shown[at]] for at, value in zip(rows.tolist(), found, strict=True))
    return shown, said


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _statistics(corpus: xr.Dataset) -> dict[str, dict[int, float]]:
    """Z and t of foci by role; empty where foci have other values too."""
    made: dict[str, dict[int, float]] = {}
    rows, found = facts.values(corpus, _VALUES)
    for row, values in zip(rows.tolist(), found, strict=True):
        if not isinstance(values, list) or not values:
            return {}
        kinds = [each.get("kind") if isinstance(each, dict) else None for each in values]
        if kinds not in (["z"], ["t"], ["z", "t"]):
            return {}
        for each in values:
            if set(each) != {"kind", "value"} or type(each["value"]) not in (int, float):
                return {}
            made.setdefault(_KINDS[each["kind"]], {})[row] = each["value"]
    return made


def _field(corpus: xr.Dataset, name: str, row_of: NDArray[np.integer[Any]]) -> Column:
    """One further field as a column."""
    rows, found = facts.values(corpus, name)
    is_word = name in _WORDS and all(_is_word(name, value) for value in found)
    meant = [str(value) if is_word else encode(value) for value in found]
    cell = dict(zip(rows.tolist(), meant, strict=True))
    wanted = row_of.tolist()
    if max(map(len, meant), default=0) > _LONG:
        first = np.unique(row_of, return_index=True)[1]
        at_first = np.isin(np.arange(len(row_of)), first)
        wanted = np.where(at_first, row_of, -1).tolist()
    return (_WORDS[name] if is_word else name), [cell.get(at, "") for at in wanted]


def _is_word(name: str, value: Any) -> bool:
    """Whether a value is read as it is from a column that is called by one word."""
    if name == "study.year":
        return type(value) is int
    return isinstance(value, str) and bool(value) and value == _plain(value)


def _refuse_large(path: Path, suffix: str, columns: Sequence[Column]) -> None:
    n_rows = len(columns[0][1]) + 1
    if suffix == _SHEET and (n_rows > _MOST_ROWS or len(columns) > _MOST_COLUMNS):
        raise SettingsError(
            f"{path} would have {n_rows:,} rows and {len(columns):,} columns, and a sheet has at "
            f"most {_MOST_ROWS:,} and {_MOST_COLUMNS:,}; write .csv."
        )


def _write_delimited(handle: BinaryIO, columns: Sequence[Column], delimiter: str) -> None:
    text = io.TextIOWrapper(handle, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    writer.writerows(zip(*(cells for _, cells in columns), strict=True))
    text.detach()


def _write_sheet(handle: BinaryIO, columns: Sequence[Column], lost: list[str]) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    page = book.create_sheet("foci")
    cut = rounded = 0

    def cell(value: Any) -> Any:
        nonlocal cut, rounded
        if not isinstance(value, str):
            rounded += float(f"{value:.16g}") != value
            return value
        if not value:
            return None
        cut += len(value) > _MOST_CHARACTERS
        made = WriteOnlyCell(page, value[:_MOST_CHARACTERS])
        made.data_type = "s"  # never a formula
        return made

    page.append([cell(name) for name, _ in columns])
    for row in zip(*(cells for _, cells in columns), strict=True):
        page.append([cell(value) for value in row])
    book.save(handle)
    if cut:
        lost.append(f"{cut:,} texts are cut at {_MOST_CHARACTERS:,} characters, a cell's most")
    if rounded:
        lost.append(f"{rounded:,} numbers are rounded to the 16 digits of a sheet")


def _add_losses(corpus: xr.Dataset, lost: list[str]) -> None:
    bare = corpus.sizes["study"] - len(np.unique(corpus["analysis_study"].values))
    for count, what in (
        (bare, "studies without analyses"),
        (corpus.sizes.get("feature", 0), "features"),
        (corpus.sizes.get("image", 0), "images"),
    ):
        if count:
            lost.append(f"{count:,} {what} are left out")
    further = [name for name in facts.fields(corpus) if not is_field(name)]
    if further:
        lost.append(f"{len(further):,} fields are left out ({shorten(further)})")
