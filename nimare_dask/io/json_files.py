"""JSON files: read whole, with the place of what is wrong, and written whole or not at all."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from nimare_dask.io.problems import Problems, show
from nimare_dask.io.text_files import read_bytes
from nimare_dask.kernels.text import repeats_a_key


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
    twice the last one counts, and that is a warning.
    """
    data = read_bytes(path, problems, "JSON")
    if data is None:
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data[:100].strip() and not data.strip():
        problems.error("", "it is empty; expected JSON.")
        return None
    # Looking for keys that are there twice needs no interpreter, so it goes on beside reading.
    with ThreadPoolExecutor(1) as beside, without_collection():
        repeated = beside.submit(repeats_a_key, data)
        try:
            document = orjson.loads(data)
        except ValueError:
            return _load_leniently(data, problems)
        return document if repeated.result() == "no" else _load_leniently(data, problems)


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
        document = json.loads(text, object_pairs_hook=merge)
    except json.JSONDecodeError as error:
        problems.error(
            f"line {error.lineno}, column {error.colno}",
            f"{error.msg}; expected JSON: is the file whole?",
        )
        return None
    except RecursionError:
        problems.error("", "its objects lie in each other too deeply; expected a few levels.")
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
