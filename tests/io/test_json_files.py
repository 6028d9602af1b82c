"""JSON that is whole, and every way in which it is not."""

from __future__ import annotations

import gc
import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimare_dask.io.json_files import load_json, without_collection
from nimare_dask.io.problems import Problems

#: One character outside the basic plane, as JSON escapes it: two halves.
PAIR = r"\ud83d\ude00"
TEXTS = st.text(st.sampled_from(["a", '"', "\\", "é", "😀", "\ud83d", "\ude00", "\0"]), max_size=6)


def load(folder: Path, data: bytes) -> tuple[Any, Problems]:
    """What is in a file of these bytes."""
    path = folder / "x.json"
    path.write_bytes(data)
    problems = Problems(path)
    return load_json(path, problems), problems


def said(problems: Problems) -> list[tuple[str, str]]:
    return [(each.severity, str(each)) for each in problems.found]


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf", b" \n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_load_json__plain_compressed_with_a_mark(tmp_path: Path, begin: bytes, pack: Any) -> None:
    document = {"a": [1, 2.5, None, True, "Ärger: 痛み 😀"], "b:": {"": '":'}}
    data = begin + json.dumps(document, ensure_ascii=False).encode()
    found, problems = load(tmp_path, pack(data))
    assert found == document and problems.found == []


def test_load_json__nan_and_infinity_are_read(tmp_path: Path) -> None:
    found, problems = load(tmp_path, b'[NaN, Infinity, -Infinity, {"a": 1}]')
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf, {"a": 1}]
    assert problems.found == []


def test_load_json__the_last_of_a_key_counts(tmp_path: Path) -> None:
    found, problems = load(tmp_path, b'{"a": 1, "b": [{"c": 1, "c": 2, "c": 3}], "a": 4}')
    assert found == {"a": 4, "b": [{"c": 3}]}
    assert [severity for severity, _ in said(problems)] == ["warning", "warning"]
    assert "'c'" in said(problems)[0][1] and "2 times" in said(problems)[0][1]
    assert "'a'" in said(problems)[1][1] and "1 times" in said(problems)[1][1]


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (b"", "it is empty"),
        (b" \n\t", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b'{"a": [1,\n 2', "line 2, column 3: "),
        (b'{"a": 1}}', "line 1, column 9: Extra data"),
        (b'{"a": "b\xff"}', "byte 8: invalid start byte"),
        (b"\xff\xfe{\0}\0", "byte 0: "),
        (b"\x1f\x8b\x08\0", "it is not a whole gzip file"),
        (gzip.compress(b"[1, 2, 3]", mtime=0)[:-9], "it is not a whole gzip file"),
        (b'{"a": ' + b"1" * 5000 + b"}}", "Exceeds the limit"),
        (b"[" * 300 + b"]" * 300, "its objects lie in each other too deeply (300)"),
        (b'{"a":' * 100_000, "its objects lie in each other too deeply (100,000)"),
        (b" null\n", "found null"),
        (b"garbage", "line 1, column 1: "),
    ],
)
def test_load_json__what_is_wrong_and_where(tmp_path: Path, data: bytes, begins: str) -> None:
    found, problems = load(tmp_path, data)
    assert found is None
    ((severity, text),) = said(problems)
    assert severity == "error" and text.startswith(begins)


def test_load_json__no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        problems = Problems(path)
        assert load_json(path, problems) is None
        assert "it could not be read" in str(problems.found[0]) and problems.n_errors == 1


@pytest.mark.parametrize("depth", [1, 199, 200])
def test_load_json__as_deep_as_anybody_writes(tmp_path: Path, depth: int) -> None:
    found, problems = load(tmp_path, b'{"a":' * depth + b"NaN" + b"}" * depth)
    assert problems.found == [] and json.dumps(found)


def test_load_json__half_a_character(tmp_path: Path) -> None:
    data = (
        '{"whole": "' + PAIR + r'", "text": "\\ud83d",' + "\n"
        r'"cut": "a\ud83d", "other": "\uDE00b\ud83d\ud83d\ude00"}'
    )
    found, problems = load(tmp_path, data.encode())
    assert found["whole"] == "😀" and found["text"] == r"\ud83d"
    assert found["cut"] == "a\ufffd" and found["other"] == "\ufffdb\ufffd😀"
    ((severity, text),) = said(problems)
    assert severity == "warning"
    assert text.startswith(r"line 2: \ud83d is half a character; 3 are like this")


@given(st.lists(TEXTS | st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=4))
def test_load_json__any_text_can_be_stored(tmp_path_factory: Any, document: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    found, problems = load(folder, json.dumps(document).encode())
    assert problems.n_errors == 0
    json.dumps(found, ensure_ascii=False).encode()
    joined = json.loads(json.dumps(document))  # two halves that meet are one character
    texts = [
        text
        for each in joined
        for text in (each if isinstance(each, str) else [*each, *each.values()])
    ]
    if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
        assert problems.n_warnings >= 1
    else:
        assert found == joined and problems.found == []


def test_load_json__long_texts_take_no_long_time(tmp_path: Path) -> None:
    data = b'{"a": "' + rb"\\ud83d\ud83d" * 100_000 + b'", "a": ["' + b"x" * 10**6 + b'"]}'
    load(tmp_path, b'{"warm": 1}')
    began = time.perf_counter()
    found, problems = load(tmp_path, data)
    assert time.perf_counter() - began < 2.0
    assert found == {"a": ["x" * 10**6]} and problems.n_warnings == 2


def test_without_collection__is_as_before_afterwards() -> None:
    assert gc.isenabled()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collection():
        raise KeyError
    assert gc.isenabled()
