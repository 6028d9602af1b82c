"""Text as people and programs write it: encodings, delimiters, numbers with odd signs."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nimare_dask.draft import FARTHEST
from nimare_dask.io.problems import Problems

_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
#: Signs that stand for minus and plus, and what has no width.
SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\u2796\ufe63\uff0d", "-"),
        "\uff0b": "+",
        "\u200b": "",
        "\ufeff": "",
    }
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
#: What people write where they have no number.
MISSING = frozenset({"", "na", "n/a", "n.a.", "nan", "none", "null", "-", "--", ".", "?", "nd"})
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_LONGEST_NUMBER = 400


def read_text(path: Path, problems: Problems, *, expected: str) -> str | None:
    """The text of a file in UTF-8, plain or compressed, without a byte order mark.

    Parameters
    ----------
    path
        The file.
    problems
        Where it is said why there is no text.
    expected
        What the file should be, for messages.

    Returns
    -------
    text
        None, and a problem, when it is no text.
    """
    data = read_bytes(path, problems, expected)
    if data is None:
        return None
    if data.startswith(_UTF16):
        problems.error(
            "byte 0", "it is text in UTF-16; expected UTF-8: save it as such (CSV UTF-8 in Excel)."
        )
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.error(
            f"byte {error.start} (line {line})",
            f"{error.reason}; expected text in UTF-8: save it as such.",
        )
        return None
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        problems.error(f"line {line}", f"it has a NUL character; expected {expected}.")
        return None
    if not text.strip():
        problems.error("", f"it is empty; expected {expected}.")
        return None
    return text


def read_bytes(path: Path, problems: Problems, expected: str) -> bytes | None:
    """The bytes of a file, plain or compressed; None, and a problem, when it cannot be read."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problems.error("", f"it is not a whole gzip file ({error}); get it again.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problems.error("", f"it could not be read ({reason}); expected {expected}.")
    return None


class Rows(NamedTuple):
    """Rows of a table, as texts, and where each stands."""

    cells: list[list[str]]
    place: list[int]


def split_rows(text: str, delimiter: str, problems: Problems) -> Rows | None:
    """Rows of delimited text, with the line on which each begins; None when quotes are open."""
    cells: list[list[str]] = []
    place: list[int] = []
    try:
        for line, row in _rows(text, delimiter):
            cells.append(row)
            place.append(line)
    except csv.Error as error:
        problems.error(
            f"line {place[-1] + 1 if place else 1}",
            f"the quotation marks do not pair up in this row ({error}); expected a field in "
            'quotation marks to end with one, and those inside to be doubled ("").',
        )
        return None
    return Rows(cells, place)


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with its first line; fields may be as long as the text."""
    before = csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = 1
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    finally:
        csv.field_size_limit(before)


def to_number(text: str, *, decimal_comma: bool = False) -> float | None:
    """The number that a text stands for; NaN where it says that there is none, None otherwise.

    Parameters
    ----------
    text
        ``-12``, ``1.5``, ``−12`` with any sign that looks like minus, ``n/a``.
    decimal_comma
        Read ``1,5`` as 1.5.
    """
    plain = text.strip().translate(SIGNS).strip()
    if decimal_comma:
        plain = plain.replace(",", ".", 1)
    if len(plain) <= _LONGEST_NUMBER:
        if _NUMBER.fullmatch(plain):
            return float(plain)
        if plain.casefold() in MISSING:
            return math.nan
        if _INFINITE.fullmatch(plain):
            return math.inf
    return None


def is_place(xyz: tuple[float, ...] | list[float]) -> bool:
    """Whether three numbers can be a place in the head, in mm."""
    return all(abs(value) <= FARTHEST for value in xyz)
