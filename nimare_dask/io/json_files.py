"""JSON files: read whole, with the place of what is wrong, and written whole or not at all."""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import orjson

from nimare_dask.io.problems import Problems, show
from nimare_dask.io.text_files import read_bytes
from nimare_dask.kernels.text import keys_and_depth, look_over

#: Objects and lists in each other; libraries that write JSON end at 254.
_DEEPEST = 200
#: Escapes of JSON of which the last kind is half a character: a surrogate without its other half.
_ESCAPES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep Python from looking for cycles, which millions of new objects make it do all the time.

    Reading a studyset of 700,000 points is four times as fast.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_json(path: Path, problems: Problems) -> Any:
    """The content of a JSON file, plain or compressed; None, and a problem, when it has none.

    NaN and Infinity, which Python writes and JSON forbids, are read. Where an object has a key
    twice the last one counts, and that is a warning; so is half a character (a lone surrogate, as
    texts that were cut off have), which is read as U+FFFD.
    """
    data = read_bytes(path, problems, "JSON")
    if data is None:
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data[:100].strip() and not data.strip():
        problems.error("", "it is empty; expected JSON.")
        return None
    if data[:100].strip() == b"null":
        problems.error("", "found null; there is nothing in it.")
        return None
    # Looking over the text needs no interpreter, so it goes on beside reading.
    with ThreadPoolExecutor(1) as beside, without_collection():
        begun = Event()
        looked = beside.submit(_look_over, data, begun)
        begun.wait()  # else reading would keep the interpreter from it until the end
        try:
            document = orjson.loads(data)
        except ValueError:
            document = None
        repeated, n_keys, depth = looked.result()
        if depth > _DEEPEST:
            problems.error(
                "", f"its objects lie in each other too deeply ({depth:,}); expected a few levels."
            )
            return None
        if document is None:
            return _load_leniently(data, problems)
        if repeated == "unsure":  # then a key less in what was read tells
            repeated = "no" if keys_and_depth(orjson.dumps(document))[0] == n_keys else "yes"
        return document if repeated == "no" else _load_leniently(data, problems)


def _look_over(data: bytes, begun: Event) -> tuple[str, int, int]:
    """Whether a key is there twice in an object, the number of keys, and the depth."""
    begun.set()
    return look_over(data)


def _load_leniently(data: bytes, problems: Problems) -> Any:
    """Read what is not quite JSON, slowly, and say what is wrong."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.error(
            f"byte {error.start}", f"{error.reason}; expected text in UTF-8: save it as such."
        )
        return None
    twice: Counter[str] = Counter()

    def merge(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice.update({key: n - 1 for key, n in Counter(key for key, _ in pairs).items()})
        return made

    try:
        document = json.loads(_without_halves(text, problems), object_pairs_hook=merge)
    except json.JSONDecodeError as error:
        problems.error(
            f"line {error.lineno}, column {error.colno}",
            f"{error.msg}; expected JSON: is the file whole?",
        )
        return None
    except ValueError as error:  # a number of thousands of digits
        problems.error("", f"{error}; expected JSON with numbers that a computer holds.")
        return None
    for key, times in twice.items():
        if times:
            problems.warn(
                "",
                f"the key {show(key)} is there more than once in an object ({times:,} times too "
                "often in all); the last one counts.",
            )
    return document


def _without_halves(text: str, problems: Problems) -> str:
    """The same JSON without halves of characters, which no file can hold."""
    first = next((each for each in _ESCAPES.finditer(text) if each[1]), None)
    if first is None:
        return text
    count = sum(bool(each[1]) for each in _ESCAPES.finditer(text))
    problems.warn(
        f"line {text.count(chr(10), 0, first.start()) + 1}",
        f"{first[1]} is half a character; {count:,} are like this and are read as U+FFFD.",
    )
    return _ESCAPES.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
