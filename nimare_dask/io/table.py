"""Plain tables with a row a focus: csv, tsv and sheets of Excel, as people keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from nimare_dask.draft import UNKNOWN_SPACE, Draft
from nimare_dask.errors import shorten
from nimare_dask.io.names import Taken
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.io.table_cells import (
    Table,
    decode,
    has_decimal_commas,
    is_constant,
    load_table,
    numbers,
    refuse_columns,
    typed,
)
from nimare_dask.io.table_columns import AXES, ROLES, TEXT_FIELDS, is_field, refuse_doubles
from nimare_dask.io.text_files import is_place
from nimare_dask.provenance import with_step
from nimare_dask.space import SPELLINGS

#: A contrast that the table does not name, as Neurosynth has it.
_NO_CONTRAST = "1"
_MOST_SPACES = 120


def read_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    sheet: str | None = None,
    space: str | None = None,
) -> xr.Dataset:
    """Read a table with a row a focus.

    Columns are recognised by their usual names: a study (``Study``, ``study_id``, ``Author``,
    ``PMID``), a contrast (``Contrast``, ``Experiment``), coordinates (``x``, ``X (mm)``,
    ``MNI_x``), their space, the number of subjects (``n``, ``Subjects``, ``sample size``), and
    t or z values, which become ``focus.values``. ``title authors journal year doi pmid`` are of
    the study. Any other column becomes ``analysis.metadata.<name>`` where it is constant within
    each analysis, else ``focus.metadata.<name>``; one called by the whole name of a field becomes
    that field.

    A blank study means the study of the row above, a blank contrast or space that of the row above
    in the same study. A row without coordinates makes an analysis without a focus.

    Parameters
    ----------
    path
        A file .csv, .tsv or .txt (plain or .gz; fields between commas, tabs, semicolons or bars)
        or .xlsx.
    columns
        Names of columns that are not recognised, by role: ``study contrast x y z space n t
        z_value``.
    sheet
        Sheet of a workbook, the first by default.
    space
        Space of foci for which the table says none: ``"MNI"`` or ``"TAL"``.

    Returns
    -------
    corpus
        See :mod:`nimare_dask.corpus`.

    Raises
    ------
    SourceFormatError
        Names the lines or rows, what was found and what to do.
    SettingsError
        For a role in `columns` that is not known.
    """
    asked = refuse_columns(columns, ROLES)
    problems = Problems(Path(path))
    corpus = parse(Path(path), problems, columns=asked, sheet=sheet, space=space)
    settle(problems)
    assert corpus is not None  # there would have been an error
    kept = {"columns": asked, "sheet": sheet, "space": space}
    said = {name: value for name, value in kept.items() if value}
    return with_step(corpus, "read_table", settings={"files": [Path(path).name], **said})


def parse(
    path: Path,
    problems: Problems,
    *,
    columns: Mapping[str, str] | None = None,
    sheet: str | None = None,
    space: str | None = None,
) -> xr.Dataset | None:
    """The corpus of a table, or None; what is wrong is added to `problems`."""
    asked = columns or {}
    table = load_table(path, problems, asked=asked, sheet=sheet)
    if table is None or _lacks_columns(table, asked, problems):
        return None
    _refuse_long_rows(table, problems)
    rows = _Rows(table, problems)
    if rows.find_analyses():
        rows.find_foci(space)
    if problems.n_errors:
        return None
    if not rows.draft.focus_xyz:
        problems.error("", "it has no focus; expected rows with x, y and z in mm.")
        return None
    rows.add_facts()
    return rows.draft.build()


def _lacks_columns(table: Table, asked: Mapping[str, str], problems: Problems) -> bool:
    """Say which columns are missing, and how to name them."""
    found = table.found
    named = [name for name in found.names if name]
    there = f"found {shorten([show(name) for name in named], 20)}"
    for role, name in asked.items():
        if name.strip() not in named:
            problems.error(table.header_place, f"no column {show(name)} for {role}; {there}.")
    missing = [role for role in ("study", *AXES) if role not in found.role and role not in asked]
    if missing:
        example = missing[0]
        problems.error(
            table.header_place,
            f"no column is recognised as {', '.join(missing)}; {there}. Say which it is: "
            f'columns={{"{example}": "..."}} (--column {example}=NAME).',
        )
    refuse_doubles(found, table.header_place, problems)
    return problems.n_errors > 0


def _refuse_long_rows(table: Table, problems: Problems) -> None:
    width = len(table.found.names)
    for place, row in zip(table.place, table.cells, strict=True):
        if len(row) > width and any(map(str.strip, row[width:])):
            problems.error(
                place,
                f"the row has {len(row)} fields, but the header names {width} columns; is a "
                "delimiter within a field that is not in quotation marks?",
            )


class _Rows:
    """The rows of a table on their way into a draft."""

    def __init__(self, table: Table, problems: Problems) -> None:
        self.table, self.problems = table, problems
        self.role = table.found.role
        self.draft = Draft()
        #: row of the study, row of the analysis, and row of the focus (-1: none) of each row
        self.study: list[int] = []
        self.analysis: list[int] = []
        self.focus: list[int] = []

    def column(self, at: int) -> list[str]:
        """Texts of one column."""
        return [row[at] if at < len(row) else "" for row in self.table.cells]

    def texts(self, role: str) -> pd.Series[str]:
        """Texts of the column of a role without blanks around, NaN where blank."""
        stripped = [text.strip() for text in self.column(self.role[role])]
        column = pd.Series(stripped, dtype=object)
        return column.where(column != "", None)

    def find_analyses(self) -> bool:
        """Studies and contrasts of all rows, filled from above; whether there are such."""
        said = self.texts("study")
        study = said.ffill()
        if len(study) and study.isna().iloc[0]:
            self.problems.error(self.table.place[0], "the study is blank; expected its name.")
            return False
        if blank := int(said.isna().sum()):
            self.problems.warn(
                "", f"{blank:,} rows have a blank study; it is taken from the row above."
            )
        study = self._with_years(study)
        contrast = self._filled("contrast", study, _NO_CONTRAST)
        names, rows, analyses = Taken(), {}, {}
        for name, called in zip(study.tolist(), contrast.tolist(), strict=True):
            if name not in rows:
                rows[name] = self.draft.add_study(name)
            if (name, called) not in analyses:
                free = names.contrast(name, called)
                if free != called:
                    self.problems.warn(
                        "",
                        f"the id {show(f'{name}-{called}')} is taken; {show(called)} of "
                        f"{show(name)} is called {show(free)}.",
                    )
                analyses[name, called] = self.draft.add_analysis(rows[name], free)
            self.study.append(rows[name])
            self.analysis.append(analyses[name, called])
        return True

    def _with_years(self, study: pd.Series[str]) -> pd.Series[str]:
        """Studies that one name and several years tell apart: ``Smith, 2005``."""
        fields = self.table.found.fields
        at = next((at for at, name in fields.items() if name == "study.year"), None)
        if at is None or is_field(self.table.found.names[at]):
            return study
        year = pd.Series([text.strip() for text in self.column(at)], dtype=object)
        run = (study != study.shift()).cumsum()
        year = year.where(year != "", None).groupby(run).ffill()
        if not (year.groupby(study).nunique() > 1).any():
            return study
        self.problems.warn(
            "", "studies of one name have several years, so they are called by both: name, year."
        )
        return (study + ", " + year).where(year.notna(), study)

    def _filled(
        self, role: str, study: pd.Series[str], default: str, counted: Sequence[bool] | None = None
    ) -> pd.Series[str]:
        """A role from the row above within the same study where it is blank.

        Rows that are not `counted` do not need it.
        """
        if role not in self.role:
            return pd.Series([default] * len(study), dtype=object)
        said = self.texts(role)
        filled = said.groupby((study != study.shift()).cumsum()).ffill()
        needed = pd.Series([True] * len(said) if counted is None else list(counted), dtype=bool)
        above = int((needed & said.isna() & filled.notna()).sum())
        none = int((needed & filled.isna()).sum())
        if above:
            self.problems.warn(
                "", f"{above:,} rows have a blank {role}; it is taken from the row above."
            )
        if none:
            self.problems.warn("", f"{none:,} rows have a blank {role}; it is taken as {default}.")
        return filled.where(filled.notna(), default)

    def find_foci(self, space: str | None) -> None:
        """Foci with their spaces."""
        texts = [self.column(self.role[axis]) for axis in AXES]
        has_place = [any(map(str.strip, row)) for row in zip(*texts, strict=True)]
        spaces = self._spaces(space, has_place)
        commas = has_decimal_commas(texts)
        found = [numbers(column, decimal_comma=commas) for column in texts]
        bare = 0
        for at, xyz in enumerate(zip(*found, strict=True)):
            place, focus = self.table.place[at], -1
            there = [value for value in xyz if value is not None]
            if len(there) < len(AXES):
                axis = xyz.index(None)
                self.problems.error(
                    place, f"{AXES[axis]} is {show(texts[axis][at])}; expected a number in mm."
                )
            elif is_place(there):
                focus = self.draft.add_focus(self.analysis[at], there, spaces[at])
            elif not has_place[at]:
                bare += 1
            else:
                shown = show(" ".join(column[at] for column in texts))
                self.problems.warn(place, f"found {shown}, no place in mm; left out.")
            self.focus.append(focus)
        if bare:
            self.problems.warn(
                "", f"{bare:,} rows have no coordinates; their analyses are kept without a focus."
            )

    def _spaces(self, space: str | None, has_place: Sequence[bool]) -> list[str]:
        """Space of each row, MNI and TAL in one spelling."""
        default = space or self.table.found.space or UNKNOWN_SPACE
        if "space" not in self.role and default == UNKNOWN_SPACE:
            self.problems.warn(
                self.table.header_place,
                "no column says the space of the foci, so it is unknown; say it with space= "
                "(--space).",
            )
        study = pd.Series([self.draft.studies[row] for row in self.study], dtype=object)
        said = self._filled("space", study, default, has_place)
        meant = {spelling: _space(spelling) for spelling in said.unique()}
        for spelling, name in meant.items():
            if spelling != name:
                count = int((said == spelling).sum())
                self.problems.warn(
                    "", f"the space {show(spelling)} of {count:,} rows is read as {name}."
                )
        if len(meant) > _MOST_SPACES:
            self.problems.error(
                self.table.header_place,
                f"the column of spaces has {len(meant):,} different values; expected MNI and TAL.",
            )
        return [meant[each] for each in said.tolist()]

    def add_facts(self) -> None:
        """Everything that is not a place."""
        fields = self.table.found.fields
        given = set(fields.values())
        self._add_sizes(sizes_given="analysis.metadata.sample_sizes" in given)
        if "focus.values" not in given:
            self._add_statistics()
        for at, name in fields.items():
            texts = self.column(at)
            if any(text.strip() for text in texts):
                self._add_field(at, name, texts)

    def _add_sizes(self, *, sizes_given: bool) -> None:
        if "n" not in self.role or sizes_given:
            return
        texts = self.column(self.role["n"])
        sizes: dict[int, float] = {}
        other: set[int] = set()
        for at, size in enumerate(numbers(texts, decimal_comma=has_decimal_commas([texts]))):
            if size is None or not (math.isnan(size) or 0 < size < math.inf):
                self.problems.warn(
                    self.table.place[at],
                    f"n is {show(texts[at])}; expected a number above 0, so it is unknown.",
                )
            elif not math.isnan(size) and sizes.setdefault(self.analysis[at], size) != size:
                other.add(self.analysis[at])
        if other:
            self.problems.warn(
                "", f"{len(other):,} analyses have several values of n; the first counts."
            )
        for analysis, size in sizes.items():
            whole = int(size) if size.is_integer() else size
            self.draft.facts.add("analysis.metadata.sample_sizes", analysis, [whole])

    def _add_statistics(self) -> None:
        kinds = {"z_value": "z", "t": "t"}
        columns = {role: self.column(self.role[role]) for role in kinds if role in self.role}
        commas = has_decimal_commas(list(columns.values()))
        by_role = {role: numbers(texts, decimal_comma=commas) for role, texts in columns.items()}
        for at, focus in enumerate(self.focus):
            values = []
            for role, found in by_role.items():
                number = found[at]
                if number is not None and math.isfinite(number):
                    values.append({"kind": kinds[role], "value": number})
                elif number is None or math.isinf(number):
                    text = show(columns[role][at])
                    self.problems.warn(
                        self.table.place[at], f"{role} is {text}, no number; left out."
                    )
            if values and focus >= 0:
                self.draft.facts.add("focus.values", focus, values)

    def _add_field(self, at: int, name: str, texts: Sequence[str]) -> None:
        called = self.table.found.names[at]
        if is_field(called):
            values = [decode(text) for text in texts]
        elif name in TEXT_FIELDS:
            values = [text.strip() or None for text in texts]
        else:
            values = typed(texts)
        if not name:
            called = called or f"column_{at + 1}"
            level = "analysis" if is_constant(self.analysis, values) else "focus"
            name = f"{level}.metadata.{called}"
        level = name.partition(".")[0]
        rows = {"study": self.study, "analysis": self.analysis, "focus": self.focus}[level]
        self._add_values(name, rows, values, level)

    def _add_values(self, name: str, rows: Sequence[int], values: list[Any], level: str) -> None:
        first: dict[int, Any] = {}
        other = lost = 0
        for row, value in zip(rows, values, strict=True):
            if value is None:
                continue
            if row < 0:
                lost += 1
            elif row not in first:
                first[row] = value
            else:
                other += first[row] != value
        for row, value in first.items():
            self.draft.facts.add(name, row, value)
        if other:
            self.problems.warn(
                "", f"{name} differs within a {level} in {other:,} rows; the first counts."
            )
        if lost:
            self.problems.warn("", f"{name} of {lost:,} rows without a focus is left out.")


def _space(spelling: str) -> str:
    if spelling in SPELLINGS:
        return spelling
    plain = spelling.casefold()
    for begin, name in {"mni": "MNI", "tal": "TAL", "unknown": UNKNOWN_SPACE}.items():
        if plain.startswith(begin):
            return name
    return spelling
