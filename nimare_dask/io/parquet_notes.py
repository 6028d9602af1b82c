"""The annotations of a release: a wide table with one column a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nimare_dask.corpus import Annotation
from nimare_dask.facts import Facts
from nimare_dask.io.parquet_tables import Table, is_number, pyarrow
from nimare_dask.io.parquet_wide import Wide, facts_of
from nimare_dask.io.problems import Problems

#: What the annotation of a release that names none is called, as NiMARE calls it.
_UNNAMED = "release"
#: What is written of each feature.
FEATURE_PARTS = ("column", "name", "annotation", "label", "kind")


def read_annotations(
    wide: Wide | None,
    manifest: Mapping[str, Any],
    own: Mapping[str, Any],
    facts: Facts,
    problems: Problems,
) -> dict[str, Any]:
    """Read the features of a release; its texts become facts.

    Parameters
    ----------
    wide
        The table; None when there is none.
    manifest, own
        The manifest, and what in it is ours.
    facts
        Takes what is text.
    problems
        Takes what is wrong.

    Returns
    -------
    parts
        Arguments of :func:`nimare_dask.corpus.build`.
    """
    listed = manifest.get("annotations")
    listed = listed if isinstance(listed, list) else []
    documents = [each for each in listed if isinstance(each, dict)]
    if wide is None:
        return {}
    kinds = {column: _kind(wide.table, column) for column in wide.columns}
    known = _features(own.get("features"), kinds) if own else None
    if not own:
        documents = documents[:1] or [{"id": _UNNAMED}]
        documents[0] = documents[0] | {"note_keys": kinds}
        known = {
            column: (column, 0, column, kind) for column, kind in kinds.items() if kind != "string"
        }
    found: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = {}
    n_lost = 0
    for column in wide.table.batches(wide.columns):
        if known is None or column not in known:
            facts_of(facts, f"note.0.note.{column}", wide, column)
            continue
        rows, values = wide.column(column)
        if not pyarrow("pyarrow.types").is_floating(values.type):
            values = values.cast("int8" if kinds[column] == "boolean" else "float64")
            values = values.cast("float64")
        weights = values.to_numpy()
        finite = np.isfinite(weights)
        n_lost += int(np.isinf(weights).sum())
        found[column] = (rows[finite].astype(np.int32), weights[finite])
    if n_lost:
        problems.warn(wide.table.name, f"{n_lost:,} infinite values are left out.")
    if known is None:
        return {}
    parts = _weights(wide, [found[column] for column in known])
    parts["feature"] = [each[0] for each in known.values()]
    if not own or (documents and own.get("is_annotated")):
        parts["annotation"] = Annotation(
            documents=documents,
            of_feature=[each[1] for each in known.values()],
            label=[each[2] for each in known.values()],
            kind=[each[3] for each in known.values()],
        )
    return parts


def _weights(
    wide: Wide, columns: Sequence[tuple[NDArray[np.int32], NDArray[Any]]]
) -> dict[str, Any]:
    start = np.append(0, np.cumsum([len(rows) for rows, _ in columns], dtype=np.int64))
    rows = np.concatenate([each for each, _ in columns] or [np.empty(0, np.int32)])
    values = np.concatenate([each for _, each in columns] or [np.empty(0)])
    shape = (wide.n_analyses, len(columns))
    return {"weights": csc_matrix((values, rows, start), shape=shape)}


def _kind(table: Table, column: str) -> str:
    """What NIMADS calls the values of a column: number, boolean or string."""
    kind = table.kind(column)
    if pyarrow("pyarrow.types").is_boolean(kind):
        return "boolean"
    return "number" if is_number(kind) else "string"


def _features(listed: Any, kinds: Mapping[str, str]) -> dict[str, tuple[Any, ...]] | None:
    """What we wrote of each feature: column -> name, annotation, label, kind."""
    if not isinstance(listed, dict):
        return None
    parts = [listed.get(part) for part in FEATURE_PARTS]
    columns = parts[0]
    if not all(isinstance(part, list) and len(part) == len(columns or ()) for part in parts):
        return None
    rows = zip(*(part or [] for part in parts), strict=True)
    return {
        str(column): tuple(more)
        for column, *more in rows
        if kinds.get(column, "string") != "string"
    }
