"""Tables of a release with one row an analysis, and how their columns become facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nimare_dask.facts import Facts, JsonText, dump
from nimare_dask.io.parquet_tables import IDS, Table, is_number, is_text, pyarrow


@dataclass(frozen=True)
class Wide:
    """A table whose rows belong to rows of a corpus.

    Attributes
    ----------
    table
        The table.
    take
        Rows of the table that count, in the order of `rows`; None is all of them.
    rows
        The row of the corpus that each of them belongs to, ascending.
    columns
        Columns that say something.
    """

    table: Table
    take: NDArray[np.intp] | None
    rows: NDArray[np.int64]
    columns: Sequence[str]
    #: Rows of the corpus.
    n_analyses: int = 0

    @classmethod
    def whole(cls, table: Table) -> Wide:
        """A table that has a row for each row of the corpus, in the same order."""
        return cls(table, None, np.arange(table.n_rows), table.columns)

    @classmethod
    def matched(
        cls, table: Table, rows: NDArray[np.int64], n_analyses: int, skip: Sequence[str]
    ) -> Wide:
        """A table whose row i belongs to row ``rows[i]``, or to none (-1); the last of several."""
        take: NDArray[np.intp] | None = None
        if (rows < 0).any() or (np.diff(rows) <= 0).any():
            take = np.argsort(rows, kind="stable")
            take = take[rows[take] >= 0]
            last = np.append(np.diff(rows[take]) > 0, True)[: len(take)]
            if not last.all():
                repeated = int(take[int(np.argmin(last))])
                table.problems.warn(
                    f"{table.name}, row {repeated + 1}",
                    f"its analysis has a further row; of several rows the last counts "
                    f"({(~last).sum():,} are left out).",
                )
            take = take[last]
            rows = rows[take]
        taken = {*IDS, *skip}
        columns = [each for each in table.columns if each not in taken]
        return cls(table, take, rows, columns, n_analyses)

    def column(self, name: str) -> tuple[NDArray[np.int64], Any]:
        """Rows that have something in a column, and what, as pyarrow holds it."""
        found = self.table.column(name)
        if self.take is not None:
            found = found.take(pyarrow().array(self.take))
        if found.null_count == 0:
            return self.rows, found
        there = found.is_valid().to_numpy()
        return self.rows[there], found.drop_null()


def facts_of(facts: Facts, field: str, wide: Wide, column: str) -> None:
    """Add what a column says as the facts of a field; NaN says nothing."""
    rows, found = wide.column(column)
    if len(rows) == 0:
        return
    types = pyarrow("pyarrow.types")
    kind = found.type
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        wide.table.problems.warn(
            f"{wide.table.name}, column {column}", f"{kind} is neither text nor number; left out."
        )
        return
    if is_number(kind) and not types.is_integer(kind):
        numbers = found.cast("float64", safe=False).to_numpy()
        there = ~np.isnan(numbers)
        facts.extend(field, rows[there].tolist(), numbers[there].tolist())
        return
    values = found.to_pylist()
    if types.is_nested(kind):
        # Only what JSON knows: dates and the like become text.
        values = _as_json(values, kind)
    elif not (is_text(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        values = [str(each) for each in values]
    facts.extend(field, rows.tolist(), values)


def _as_json(values: list[Any], kind: Any) -> list[JsonText]:
    """Lists and objects as JSON; equal lists are spelt once, for most are there many times."""
    types = pyarrow("pyarrow.types")
    is_list = types.is_list(kind) or types.is_large_list(kind)
    if not (is_list and (types.is_integer(kind.value_type) or is_text(kind.value_type))):
        return [JsonText(dump(each, default=str)) for each in values]
    known: dict[tuple[Any, ...], JsonText] = {}
    for each in map(tuple, values):
        if each not in known:
            known[each] = JsonText(dump(each))
    return [known[tuple(each)] for each in values]
