"""Cells of tables: rows of text files and of sheets, and facts as cells and back."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nimare_dask.errors import SettingsError
from nimare_dask.io.problems import Problems, show
from nimare_dask.io.table_columns import AXES, Found, find_columns
from nimare_dask.io.text_files import Rows, read_text, split_rows, to_number

SHEETS = (".xlsx", ".xlsm")
_OLD_SHEETS = (".xls", ".ods", ".xlsb", ".numbers")
_EXPECTED = "a table with a row a focus and a header (study, contrast, x, y, z, space, n)"
_DELIMITERS = (",", "\t", ";", "|")
#: The header is one of the first rows that are not blank.
_HEADER_WITHIN = 20
#: A sheet has at most 16,384 columns.
_MOST_COLUMNS = 20_000
_JSON_BEGINS = frozenset('-0123456789[{"tfnNI')


class Table(NamedTuple):
    """A header and what stands below it."""

    found: Found
    header_place: str
    cells: list[list[str]]
    place: list[str]


def load_table(
    path: Path, problems: Problems, *, asked: Mapping[str, str], sheet: str | None
) -> Table | None:
    """Rows of a file of any kind, and which column is what; None, and a problem, without."""
    suffix = _suffix(path)
    if suffix in SHEETS:
        rows, unit = _read_sheet(path, problems, sheet), "row"
    elif suffix in _OLD_SHEETS:
        problems.error("", f"it is a {suffix} file; save it as .xlsx or .csv.")
        return None
    else:
        rows, unit = _read_delimited(path, problems, asked), "line"
    if rows is None:
        return None
    at = _best_header(rows.cells, asked)[1]
    if at is None:
        problems.error("", f"it is empty; expected {_EXPECTED}.")
        return None
    header = list(rows.cells[at])
    if suffix in SHEETS:  # a sheet has cells beside its header, too
        header += [""] * (max(map(len, rows.cells[at:])) - len(header))
    if len(header) > _MOST_COLUMNS:
        problems.error(
            f"{unit} {rows.place[at]}",
            f"the row has {len(header):,} columns; expected {_EXPECTED}.",
        )
        return None
    there = [n for n in range(at + 1, len(rows.cells)) if any(map(str.strip, rows.cells[n]))]
    return Table(
        found=find_columns(header, asked),
        header_place=f"{unit} {rows.place[at]}",
        cells=[rows.cells[n] for n in there],
        place=[f"{unit} {rows.place[n]}" for n in there],
    )


def _suffix(path: Path) -> str:
    named = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return named.suffix.lower()


def _best_header(
    cells: Sequence[Sequence[str]], asked: Mapping[str, str]
) -> tuple[tuple[int, int, int], int | None]:
    """How good the best row for a header is, and which: coordinates count most, then roles."""
    best: tuple[tuple[int, int, int], int | None] = ((-1, 0, 0), None)
    filled = (at for at, row in enumerate(cells) if any(map(str.strip, row)))
    for at in itertools.islice(filled, _HEADER_WITHIN):
        row = cells[at]
        if len(row) > _MOST_COLUMNS:
            best = max(best, ((0, 0, 0), at), key=lambda each: each[0])
            continue
        role = find_columns(row, asked).role
        # Without coordinates the first row is what is shown.
        has_axes = sum(axis in role for axis in AXES)
        score = (has_axes, len(role), len(row)) if has_axes else (0, 0, 0)
        best = max(best, (score, at), key=lambda each: each[0])
    return best


def _read_delimited(path: Path, problems: Problems, asked: Mapping[str, str]) -> Rows | None:
    text = read_text(path, problems, expected=_EXPECTED)
    if text is None:
        return None
    first = "\t" if _suffix(path) in (".tsv", ".tab") else ","
    choices = [first, *(each for each in _DELIMITERS if each != first)]
    lines = (found[0] for found in re.finditer("[^\r\n]+", text))
    head = list(itertools.islice(lines, _HEADER_WITHIN))
    scores = [_score(head, delimiter, asked) for delimiter in choices]
    return split_rows(text, choices[scores.index(max(scores))], problems)


def _score(head: Sequence[str], delimiter: str, asked: Mapping[str, str]) -> tuple[int, int, int]:
    try:
        rows = list(csv.reader([line[:100_000] for line in head], delimiter=delimiter))
    except csv.Error:
        return (-1, 0, 0)
    score = _best_header(rows, asked)[0]
    return score if score[0] > 0 else (score[0], 0, max(map(len, rows), default=0))


def _read_sheet(path: Path, problems: Problems, sheet: str | None) -> Rows | None:
    """Rows of one sheet of a workbook, as texts."""
    import openpyxl

    if not path.is_file():
        problems.error("", "it could not be read (no such file); expected an .xlsx workbook.")
        return None
    try:
        with warnings.catch_warnings():
            # Of styles and validations, which are not read.
            warnings.filterwarnings("ignore", module="openpyxl")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever its parts do
        problems.error(
            "", f"it could not be read as .xlsx ({_say(error)}); save it again as .xlsx or .csv."
        )
        return None
    try:
        names = book.sheetnames
        if sheet is not None and sheet not in names:
            problems.error("", f"it has no sheet {show(sheet)}; it has {', '.join(names)}.")
            return None
        if sheet is None and len(names) > 1:
            problems.warn(
                "",
                f"it has {len(names)} sheets; {show(names[0])} is read (choose with sheet=, "
                "--sheet).",
            )
        page = book[sheet or names[0]]
        page.reset_dimensions()
        cells = [[_cell(value) for value in row] for row in page.iter_rows(values_only=True)]
    except Exception as error:
        problems.error("", f"its sheet could not be read ({_say(error)}); save it again as .xlsx.")
        return None
    finally:
        book.close()
    return Rows(cells, list(range(1, len(cells) + 1)))


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200].replace("\n", " ")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def decode(cell: str) -> Any:
    """What a cell of a field stands for: JSON where it is JSON, else its text; None if blank."""
    if not cell.strip():
        return None
    if cell[0] not in _JSON_BEGINS:
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def encode(value: Any) -> str:
    """A cell that :func:`decode` makes the same value of."""
    if isinstance(value, str):
        odd = not value.isprintable()
        if not odd and value.strip() and decode(value) is value:
            return str(value)
        return json.dumps(value, ensure_ascii=odd)
    return json.dumps(value, ensure_ascii=True)


def refuse_columns(columns: Mapping[str, str] | None, roles: Sequence[str]) -> dict[str, str]:
    """The columns that were asked for, by role.

    Raises
    ------
    SettingsError
        For a role that is not known.
    """
    asked = dict(columns or {})
    for role, name in asked.items():
        if role not in roles or not isinstance(name, str):
            raise SettingsError(
                f"columns has {role!r}: {name!r}; expected names of columns for {', '.join(roles)}."
            )
    return asked


def has_decimal_commas(columns: Sequence[Sequence[str]]) -> bool:
    """Whether numbers have commas, and none a point."""
    texts = [text for column in columns for text in column]
    return any("," in text for text in texts) and not any("." in text for text in texts)


def numbers(texts: Sequence[str], *, decimal_comma: bool) -> list[float | None]:
    """The number of each text; None where it is none."""
    meant = {text: to_number(text, decimal_comma=decimal_comma) for text in set(texts)}
    return [meant[text] for text in texts]


def typed(texts: Sequence[str]) -> list[Any]:
    """Numbers where all are, else texts; None where blank. ``007`` is a text."""
    stripped = [text.strip() for text in texts]
    found: dict[str, Any] = {}
    for text in set(stripped):
        value = decode(text)
        found[text] = value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if text and not (is_number and math.isfinite(value)):
            return [each or None for each in stripped]
    return [found[text] for text in stripped]


def is_constant(rows: Sequence[int], values: Sequence[Any]) -> bool:
    """Whether all values of each row, None aside, are the same."""
    first: dict[int, Any] = {}
    return all(
        value is None or first.setdefault(row, value) == value
        for row, value in zip(rows, values, strict=True)
    )
