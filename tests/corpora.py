"""Corpora of every kind that readers make, and whether two of them say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.draft import Draft
from tests.builders import NAME, TEXT

_FACT_VARIABLES = {*facts.NAMES, *facts.TEXTS}
_NUMBER = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, width=32))
_JSON = st.recursive(
    st.one_of(_NUMBER, TEXT, st.booleans(), st.integers(2**53 + 1, 2**70)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(TEXT, inner, min_size=1, max_size=2)
    ),
    max_leaves=4,
)
_VALUES = st.one_of(
    st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["z", "T", "t", "F", "other", "p"]),
                "value": st.one_of(_NUMBER, st.none()),
            }
        ),
        max_size=2,
    ),
    _JSON,
)
_KEYS = {
    "study": ["name", "year", "authors", "study_id", "metadata.name", "metadata.sample_sizes", "x"],
    "analysis": ["name", "id", "metadata.sample_sizes", "metadata.name", "metadata.id", "texts.a"],
    "focus": ["kind", "values", "p", "x", "label_id", "metadata.a"],
    "image": ["add_date", "url"],
    "note.0": ["note.label", "note.id", "is_empty"],
    "note.1": ["note.label"],
}
#: One kind of values for all rows, as real sources have them, or any.
_COLUMNS = [
    st.integers(0, 9999),
    st.floats(-9, 9),
    TEXT,
    st.booleans(),
    st.lists(st.integers(0, 99), max_size=3),
    st.lists(TEXT, max_size=2),
    _JSON,
]


@st.composite
def corpora(draw: st.DrawFn) -> xr.Dataset:
    """Studies without analyses, analyses without foci, images, two annotations, any facts."""
    made = Draft()
    made.studyset = draw(st.dictionaries(st.sampled_from(["id", "name", "user"]), TEXT))
    axis = st.floats(-120, 120)
    for name in draw(st.lists(NAME, max_size=3, unique=True)):
        study = made.add_study(name)
        for number in range(draw(st.integers(0, 2))):
            row = made.add_analysis(study, f"{number}-x")
            for xyz in draw(st.lists(st.tuples(axis, axis, axis), max_size=2)):
                made.add_focus(row, xyz, draw(st.sampled_from(["MNI", "TAL", "UNKNOWN"])))
            for kind in draw(st.lists(st.sampled_from(["z", "z", "T map", ""]), max_size=2)):
                made.add_image(row, kind, draw(TEXT), draw(st.sampled_from(["", "MNI"])))
    for number in range(draw(st.integers(0, 2))):
        made.add_annotation({"id": f"note{number}", "note_keys": {"label": "number"}})
        for label in draw(st.lists(st.sampled_from(["label", "id", "id_", "b"]), unique=True)):
            kind = draw(st.sampled_from(["number", "boolean"]))
            feature = made.add_feature(number, label, kind)
            value = st.sampled_from([0.0, 1.0]) if kind == "boolean" else st.floats(-9, 9)
            for row in range(len(made.contrasts)):
                if draw(st.booleans()):
                    made.add_weight(feature, row, draw(value))
    sizes = {"study": made.studies, "image": made.image_path, "focus": range(made.n_foci)}
    for level, keys in _KEYS.items():
        for key in draw(st.lists(st.sampled_from(keys), max_size=3, unique=True)):
            values = (
                _VALUES if (level, key) == ("focus", "values") else draw(st.sampled_from(_COLUMNS))
            )
            for row in range(len(sizes.get(level, made.contrasts))):
                if draw(st.booleans()):
                    made.facts.add(f"{level}.{key}", row, draw(values))
    return made.build()


def facts_of(corpus: xr.Dataset) -> dict[str, Any]:
    """All facts, with the types of their values."""
    found = {name: facts.values(corpus, name) for name in facts.fields(corpus)}
    return {name: (rows.tolist(), repr(values)) for name, (rows, values) in found.items()}


def assert_same_corpus(found: xr.Dataset, expected: xr.Dataset) -> None:
    """The same variables, names and facts; texts may be numbered otherwise."""
    assert facts_of(found) == facts_of(expected)
    wanted = {str(name) for name in expected.variables} - _FACT_VARIABLES
    assert {str(name) for name in found.variables} - _FACT_VARIABLES == wanted
    for name in sorted(wanted):
        first, second = found[name], expected[name]
        assert first.dims == second.dims, name
        assert first.dtype == second.dtype, name
        np.testing.assert_array_equal(first.values, second.values, err_msg=name)
    for name in ("spaces", "annotations", "studyset"):
        assert found.attrs.get(name) == expected.attrs.get(name), name
