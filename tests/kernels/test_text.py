"""Keys and depth of JSON texts, counted byte by byte and by Python."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimare_dask.kernels.text import _look_over, keys_and_depth

SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a:"\\{}[]é'))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def counted(value: Any) -> tuple[int, int]:
    """Keys and depth of a value, by recursion."""
    if isinstance(value, dict):
        inner = [counted(each) for each in value.values()]
        own = len(value)
    elif isinstance(value, list):
        inner, own = [counted(each) for each in value], 0
    else:
        return 0, 0
    return own + sum(n for n, _ in inner), 1 + max((depth for _, depth in inner), default=0)


@given(VALUES, st.booleans())
def test_keys_and_depth__as_python_counts_them(value: Any, ascii_only: bool) -> None:
    assert keys_and_depth(json.dumps(value, ensure_ascii=ascii_only).encode()) == counted(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", (0, 0)),
        (b"1", (0, 0)),
        (b'{"a:b": ":"}', (1, 1)),
        (rb'{"a\":": "\\", "b": [[{}]]}', (2, 4)),
        (b'{"cut": "off:', (1, 1)),
        (b'"ends in \\', (0, 0)),
        (b"]]][", (0, 0)),
    ],
)
def test_keys_and_depth__by_hand(text: bytes, expected: tuple[int, int]) -> None:
    assert keys_and_depth(text) == expected
    assert _look_over.py_func(np.frombuffer(text, np.uint8)) == expected
