"""Tables of a parquet release: how they are opened, and what their columns are called.

A release is a folder with the tables ``studies``, ``analyses``, ``coordinates``, ``images``,
``metadata``, ``texts`` and ``annotations`` and a manifest. What they have no place for stands in a
further table, ``nimare_dask_facts``, which other programs leave alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nimare_dask.errors import SettingsError
from nimare_dask.io.problems import Problems, show

FORMAT = "nimare-studyset-parquet"
VERSION = 1
MANIFEST = "studyset.json"
#: What the manifest says of our own.
OWN = "nimare_dask"
FACTS_TABLE = "nimare_dask_facts"
IDS = ("id", "study_id", "contrast_id")
#: The number of subjects of an analysis, where no metadata says it.
SAMPLE_SIZE = "nimare_dask_sample_size"
#: Column of coordinates -> kind of the value of a point; other kinds are ``value_<kind>``.
_STATISTICS = {"z_stat": "z", "t_stat": "t", "p": "p", "beta": "beta"}
_VALUE = "value_"
#: Cells that are held at once while wide tables are read or written.
MOST_CELLS = 1 << 23


def pyarrow(name: str = "pyarrow") -> Any:
    """A module of pyarrow.

    Raises
    ------
    SettingsError
        When it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingsError(
            f"Parquet needs pyarrow, which could not be imported ({error}); install it with "
            "`pip install 'nimare-dask[parquet]'`."
        ) from error


def value_kind(column: str) -> str | None:
    """Kind of the value of a point that a column of coordinates holds; None for other columns."""
    if column.startswith(_VALUE) and column != _VALUE:
        return column.removeprefix(_VALUE)
    return _STATISTICS.get(column)


def value_column(kind: str) -> str:
    """Column of coordinates for the values of a kind, whatever its case."""
    plain = kind.casefold()
    return {kind: column for column, kind in _STATISTICS.items()}.get(plain, _VALUE + kind)


class Table:
    """A parquet file whose columns are read when they are asked for."""

    def __init__(self, path: Path, file: Any, problems: Problems) -> None:
        self.name = path.name
        self.problems = problems
        self._file = file
        self.n_rows = int(file.metadata.num_rows)
        fields = file.schema_arrow  # parsed anew each time that it is asked for
        self.columns: list[str] = list(fields.names)
        self._kinds = dict(zip(fields.names, fields.types, strict=True))
        self._held: dict[str, Any] = {}

    def kind(self, column: str) -> Any:
        """Type of a column, in the words of pyarrow."""
        found = self._kinds[column]
        types = pyarrow("pyarrow.types")
        return found.value_type if types.is_dictionary(found) else found

    def load(self, columns: Sequence[str]) -> None:
        """Read some columns at once; those that are held already are let go.

        Raises
        ------
        pyarrow.ArrowException, OSError
            When the file is damaged.
        """
        self._held = {}
        if columns:
            read = self._file.read(columns=list(columns))
            self._held = {name: read.column(name) for name in columns}

    def column(self, name: str) -> Any:
        """A column, as pyarrow holds it; categories are spelt out."""
        if name not in self._held:
            self._held[name] = self._file.read(columns=[name]).column(name)
        found = self._held[name]
        if pyarrow("pyarrow.types").is_dictionary(found.type):
            found = found.cast(found.type.value_type)
        return found

    def batches(self, columns: Sequence[str]) -> Iterator[str]:
        """The names of columns, so many of which are read together as memory has room for."""
        step = max(1, MOST_CELLS // max(1, self.n_rows))
        for start in range(0, len(columns), step):
            self.load(columns[start : start + step])
            yield from columns[start : start + step]
        self.load([])

    def codes(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """A column of names as codes, -1 for none, and what they stand for."""
        types = pyarrow("pyarrow.types")
        found = self.column(name)
        if types.is_null(found.type):
            return np.full(self.n_rows, -1, np.int64), []
        if not (is_text(found.type) or types.is_integer(found.type)):
            self.problems.error(
                f"{self.name}, column {name}", f"found {found.type}; expected text or whole numbers"
            )
            return np.full(self.n_rows, -1, np.int64), []
        encoded = found.combine_chunks().dictionary_encode()
        encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
        return (
            encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64),
            [str(each) for each in encoded.dictionary.to_pylist()],
        )

    def texts(self, name: str) -> list[str | None]:
        """A column of names, None for none."""
        codes, named = self.codes(name)
        with_none = [*named, None]
        return [with_none[code] for code in codes.tolist()]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column of numbers, NaN for none."""
        found = self.column(name)
        if not is_number(found.type) and not pyarrow("pyarrow.types").is_null(found.type):
            self.problems.error(
                f"{self.name}, column {name}", f"found {found.type}; expected numbers."
            )
            return np.full(self.n_rows, np.nan)
        wide = found.cast("float64", safe=False)
        return np.asarray(wide.to_numpy(), np.float64)


def is_text(kind: Any) -> bool:
    """Whether a type of pyarrow is text."""
    types = pyarrow("pyarrow.types")
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or getattr(types, "is_string_view", lambda _: False)(kind)
    )


def is_number(kind: Any) -> bool:
    """Whether a type of pyarrow is numbers."""
    types = pyarrow("pyarrow.types")
    return bool(types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind))


def is_fraction(kind: Any) -> bool:
    """Whether a type of pyarrow is numbers that need not be whole."""
    return is_number(kind) and not pyarrow("pyarrow.types").is_integer(kind)


def open_table(folder: Path, name: str, needed: Sequence[str], problems: Problems) -> Table | None:
    """Open a table and look at its columns; None when it is not there, or not a table."""
    path = folder / f"{name}.parquet"
    if not path.is_file():
        return None
    arrow = pyarrow()
    try:
        table = Table(path, pyarrow("pyarrow.parquet").ParquetFile(path), problems)
    except (arrow.ArrowException, OSError, ValueError) as error:
        refuse_damaged(path.name, error, problems)
        return None
    missing = [column for column in needed if column not in table.columns]
    if missing:
        problems.error(
            path.name,
            f"no column {', '.join(missing)}; found {show(', '.join(table.columns), 200)}. "
            "Expected a table of a NiMARE or NeuroStore release.",
        )
        return None
    if len(set(table.columns)) < len(table.columns):
        twice = next(each for each in table.columns if table.columns.count(each) > 1)
        problems.error(path.name, f"the column {show(twice)} is there twice; rename one.")
        return None
    return table


def refuse_damaged(name: str, error: Exception, problems: Problems) -> None:
    """Say that a file is no parquet table, or a broken one."""
    reason = str(error).strip().partition("\n")[0]
    problems.error(
        name, f"it could not be read as a parquet table ({reason[:200]}); get the release again."
    )
