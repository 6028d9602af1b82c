"""Facts that stand exactly as a corpus has them, in a table that only this package reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimare_dask.facts import LEVELS, Facts, JsonText
from nimare_dask.io.parquet_tables import FACTS_TABLE, open_table
from nimare_dask.io.problems import Problems, show

_COLUMNS = ("field", "row", "number", "text", "is_json")


def read_exact(
    folder: Path, written: Any, found: Mapping[str, int], facts: Facts, problems: Problems
) -> None:
    """Add the facts that the other tables have no place for.

    Parameters
    ----------
    folder
        The release.
    written
        Rows of each level when it was written.
    found
        Rows of each level now; where another program changed them, facts belong to none.
    facts
        Takes the facts.
    problems
        Takes what is wrong.
    """
    table = open_table(folder, FACTS_TABLE, _COLUMNS, problems)
    if table is None:
        return
    codes, named = table.codes("field")
    row = table.numbers("row")
    numbers, texts = table.numbers("number"), table.texts("text")
    parsed = table.column("is_json").to_pylist()
    for code, name in enumerate(named):
        level = name.partition(".")[0]
        at = np.flatnonzero(codes == code)
        same = isinstance(written, dict) and written.get(level) == found.get(level)
        fits = same and level in LEVELS and ((row[at] >= 0) & (row[at] < found[level])).all()
        if not fits:
            problems.warn(
                f"{table.name}, field {show(name)}",
                f"the release has other rows than when it was written, so {len(at):,} facts cannot "
                "be given to any and are left out.",
            )
            continue
        values: list[Any] = []
        for place in at.tolist():
            text = texts[place]
            if text is None:
                values.append(float(numbers[place]))
            else:
                values.append(JsonText(text) if parsed[place] else text)
        facts.extend(name, row[at].astype(int).tolist(), values)
