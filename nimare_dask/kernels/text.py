"""Looking at text byte by byte."""

from __future__ import annotations

import numpy as np
from numba import njit

_QUOTE, _BACKSLASH, _COLON = 34, 92, 58
_OPEN, _CLOSE = (91, 123), (93, 125)  # [ { and ] }


@njit(nogil=True, cache=True)
def _look_over(text):  # type: ignore[no-untyped-def]
    count = level = deepest = 0
    inside = False
    at = 0
    while at < text.shape[0]:
        byte = text[at]
        if inside:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                inside = False
        elif byte == _QUOTE:
            inside = True
        elif byte == _COLON:
            count += 1
        elif byte in _OPEN:
            level += 1
            deepest = max(deepest, level)
        elif byte in _CLOSE:
            level -= 1
        at += 1
    return count, deepest


def keys_and_depth(data: bytes) -> tuple[int, int]:
    """Look over a JSON text without reading it.

    Returns
    -------
    n_keys
        Keys of all objects: the colons that are not in a string.
    depth
        How many objects and lists lie in each other: 1 for ``{}``, 0 for a number.
    """
    n_keys, depth = _look_over(np.frombuffer(data, np.uint8))
    return int(n_keys), int(depth)
