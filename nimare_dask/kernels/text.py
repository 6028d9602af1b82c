"""Looking at JSON text byte by byte, beside whoever reads it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit

_QUOTE, _BACKSLASH, _COLON, _OPEN, _CLOSE = 34, 92, 58, 123, 125
#: Keys of one object, and keys of all objects that are open at once, that are compared.
_MOST_KEYS, _MOST_OPEN, _DEEPEST = 64, 4096, 512
_NO, _YES, _UNSURE = 0, 1, 2
_ANSWERS: tuple[Literal["no"], Literal["yes"], Literal["unsure"]] = ("no", "yes", "unsure")
#: [ { and ] }
_OPENING, _CLOSING = (91, 123), (93, 125)


@njit(nogil=True, cache=True)
def _repeats_a_key(text):  # type: ignore[no-untyped-def]
    """Whether an object has two keys of the same bytes, by their hashes (FNV-1a)."""
    seen = np.empty(_MOST_OPEN, np.uint64)
    first = np.empty(_DEEPEST, np.int64)  # where the keys of each open object begin
    depth, n_seen = 0, 0
    at, end = 0, text.shape[0]
    while at < end:
        byte = text[at]
        at += 1
        if byte == _QUOTE:
            key = np.uint64(14695981039346656037)
            plain = True
            while at < end and text[at] != _QUOTE:
                if text[at] == _BACKSLASH:
                    plain = False
                    at += 1
                key = (key ^ np.uint64(text[at])) * np.uint64(1099511628211) if at < end else key
                at += 1
            at += 1
            after = at
            while after < end and text[after] in (32, 9, 10, 13):
                after += 1
            if after < end and text[after] == _COLON:
                # Two spellings of one key, or more keys than are compared, are for a slower look.
                if not plain or depth == 0 or n_seen - first[depth - 1] >= _MOST_KEYS:
                    return _UNSURE
                if n_seen == _MOST_OPEN:
                    return _UNSURE
                for other in range(first[depth - 1], n_seen):
                    if seen[other] == key:
                        return _YES
                seen[n_seen] = key
                n_seen += 1
        elif byte == _OPEN:
            if depth == _DEEPEST:
                return _UNSURE
            first[depth] = n_seen
            depth += 1
        elif byte == _CLOSE:
            if depth == 0:
                return _UNSURE
            depth -= 1
            n_seen = first[depth]
    return _NO


def repeats_a_key(data: bytes) -> Literal["no", "yes", "unsure"]:
    """Whether an object of a JSON text has a key twice, which most readers pass over.

    ``unsure`` where keys are escaped or objects are very large or deep.
    """
    return _ANSWERS[int(_repeats_a_key(np.frombuffer(data, np.uint8)))]


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
        elif byte in _OPENING:
            level += 1
            deepest = max(deepest, level)
        elif byte in _CLOSING:
            level -= 1
        at += 1
    return count, deepest


@njit(nogil=True, cache=True)
def _look_over_all(text):  # type: ignore[no-untyped-def]
    n_keys, depth = _look_over(text)
    return _repeats_a_key(text), n_keys, depth


def look_over(data: bytes) -> tuple[Literal["no", "yes", "unsure"], int, int]:
    """What :func:`repeats_a_key` and :func:`keys_and_depth` give, in one call of a kernel.

    One call, because between two the interpreter would be needed, which may be busy reading.
    """
    repeats, n_keys, depth = _look_over_all(np.frombuffer(data, np.uint8))
    return _ANSWERS[int(repeats)], int(n_keys), int(depth)


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
