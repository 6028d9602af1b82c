"""What only this package reads of a release: its part of the manifest, and a table of facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nimare_dask.facts import LEVELS, Facts, JsonText
from nimare_dask.io.parquet_tables import FACTS_TABLE, MANIFEST, OWN, open_table
from nimare_dask.io.problems import Problems, show

_COLUMNS = ("field", "row", "number", "text", "is_json")
#: What is written of each feature.
FEATURE_PARTS = ("column", "name", "annotation", "label", "kind")


def own_part(manifest: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """What the manifest says for this package alone; nothing where another program wrote it."""
    own = manifest.get(OWN)
    if own is None:
        return {}
    documents = manifest.get("annotations")
    n_documents = len(documents) if isinstance(documents, list) else 0
    if (
        isinstance(own, dict)
        and _all_text(own.get("spaces"))
        and isinstance(own.get("studyset"), dict)
        and isinstance(own.get("skip"), dict)
        and all(map(_all_text, own["skip"].values()))
        and isinstance(own.get("rows"), dict)
        and _are_steps(own.get("provenance"))
        and (own.get("features") is None or _are_features(own["features"], n_documents))
    ):
        return own
    problems.error(
        MANIFEST,
        f"{OWN} is not as write_parquet writes it; write the release again, or remove {OWN} from "
        "the manifest to read it without what other programs do not read.",
    )
    return {}


def _all_text(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _are_steps(found: Any) -> bool:
    try:
        return found is None or isinstance(json.loads(found), list)
    except (TypeError, ValueError, RecursionError):
        return False


def _are_features(found: Any, n_documents: int) -> bool:
    if not isinstance(found, dict):
        return False
    parts: list[Any] = [found.get(part) for part in FEATURE_PARTS]
    if not all(isinstance(part, list) and len(part) == len(parts[0] or ()) for part in parts):
        return False
    column, name, annotation, label, kind = parts
    places = {None, *range(n_documents)}
    return (
        all(map(_all_text, (column, name, kind)))
        and len({*column}) == len(column)
        and all(each is None or isinstance(each, str) for each in label)
        and all(each is None or type(each) is int for each in annotation)
        and {*annotation} <= places
    )


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
    numbers, (text_codes, words) = table.numbers("number"), table.codes("text")
    parsed = table.column("is_json").to_numpy().astype(bool)
    meant: list[list[Any]] = [words, [JsonText(word) for word in words]]
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
        values = [
            number if text < 0 else meant[is_json][text]
            for number, text, is_json in zip(
                numbers[at].tolist(), text_codes[at].tolist(), parsed[at].tolist(), strict=True
            )
        ]
        facts.extend(name, row[at].astype(int).tolist(), values)
