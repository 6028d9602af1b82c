"""Values of NIMADS documents: what stands for none, ids, and what becomes a fact."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from nimare_dask.draft import Draft

#: The text that NIMADS documents have where a value is missing.
MISSING = "None"
#: Objects within objects whose items are fields of their own.
NESTED = ("metadata", "texts")
#: Points that are no foci: their places in the list, and what they say.
UNPLACED = "points_without_place"


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: null, NaN or the text "None"."""
    return value is None or value == MISSING or (isinstance(value, float) and math.isnan(value))


def read_id(value: Any) -> str | None:
    """An id as text; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    return str(value)


def without_nothing(values: Mapping[str, Any], taken: Collection[str] = ()) -> dict[str, Any]:
    """The items that say something, beside those `taken`, in the order of their keys."""
    return {
        key: values[key]
        for key in sorted(values)
        if key not in taken and not is_missing(values[key]) and values[key] not in ("", [], {})
    }


def literal(key: str) -> str:
    """A key as part of the name of a field: after a point where it would read as nested."""
    return f".{key}" if key.startswith((".", *(f"{nested}." for nested in NESTED))) else key


def add_facts(
    draft: Draft, level: str, row: int, values: Mapping[str, Any], taken: Collection[str] = ()
) -> None:
    """Add what an object says beside what was `taken` of it; empty lists say nothing."""
    add = draft.facts.add
    for key, value in values.items():
        kind = type(value)
        if key in taken or (kind is not str and kind is not int and is_missing(value)):
            continue
        if value == MISSING or value == []:
            continue
        if key in NESTED and isinstance(value, Mapping):
            for inner, content in value.items():
                if not is_missing(content):
                    add(f"{level}.{key}.{inner}", row, content)
        else:
            add(_field(level, key), row, value)


@lru_cache(4096)
def _field(level: str, key: str) -> str:
    """Name of the field of a key; documents have a hundred thousand times the same few."""
    return f"{level}.{literal(key)}"
