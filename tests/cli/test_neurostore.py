"""The verbs about NeuroStore, against a local server."""

from __future__ import annotations

import contextlib
import gzip
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import Done
from tests.command import run as run_any
from tests.io.test_neurostore import (
    ANNOTATION,
    ANNOTATION_ID,
    RELEASES,
    STUDIES,
    STUDYSET,
    STUDYSET_ID,
    names_in,
    publish,
)
from tests.web import Answer, Web, listed, serving


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server of this test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("NEUROSTORE_TOKEN", raising=False)
    with serving() as server:
        server.routes["/api/studies/"] = listed(STUDIES)
        server.routes[f"/api/studysets/{STUDYSET_ID}"] = Answer(STUDYSET)
        server.routes[f"/api/annotations/{ANNOTATION_ID}"] = Answer(ANNOTATION)
        yield server


def run(web: Web, *words: object, code: int = 0) -> Done:
    """Run `nimare-dask neurostore ...` against the server."""
    return run_any("neurostore", *words, "--base-url", f"{web.url}/api", code=code)


def test_search__prints_a_line_for_each(web: Web) -> None:
    done = run(web, "search", "working", "memory", "--limit", "3")
    assert done.stdout == "".join(f"study000000{n}\t\tStudy {n}\n" for n in range(3))
    assert done.stderr == "3 of 25 studies.\n"
    (asked,) = web.asked
    assert asked.query == {"search": "working memory", "page": "1", "page_size": "3"}


def test_search__as_json_and_of_studysets(web: Web, tmp_path: Path) -> None:
    name = "two\nlines \x1b[31m"
    web.routes["/api/studysets/"] = listed([{"id": STUDYSET_ID, "name": name, "year": 2020}])
    done = run(web, "search", "fear", "--studysets", "--cache", tmp_path)
    assert done.stdout == f"{STUDYSET_ID}\t2020\ttwo lines [31m\n"
    done = run(web, "search", "fear", "--studysets", "--json")
    assert json.loads(done.stdout)["name"] == name


def test_get__writes_a_studyset_and_its_annotations(web: Web, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    done = run(web, "get", STUDYSET_ID, out, "--annotation", ANNOTATION_ID)
    beside = tmp_path / f"set_annotation-{ANNOTATION_ID}.json"
    assert json.loads(out.read_bytes()) == STUDYSET
    assert json.loads(beside.read_bytes()) == ANNOTATION
    assert done.stderr.splitlines() == [
        f"1 studies with 1 analyses in {out}",
        f"1 notes in {beside}",
    ]
    done = run(web, "get", STUDYSET_ID, out, code=1)
    assert "exists already" in done.error
    run(web, "get", STUDYSET_ID, out, "--force")
    run(web, "get", STUDYSET_ID, tmp_path / "set.json.gz", "--annotation", ANNOTATION_ID)
    zipped = tmp_path / f"set_annotation-{ANNOTATION_ID}.json.gz"
    assert json.loads(gzip.decompress(zipped.read_bytes())) == ANNOTATION


def test_get__refuses_before_it_asks(web: Web, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    beside = tmp_path / f"set_annotation-{ANNOTATION_ID}.json"
    beside.write_text("mine")
    assert "is no id" in run(web, "get", "../x", out, code=1).error
    assert "is no id" in run(web, "get", STUDYSET_ID, out, "--annotation", "x", code=1).error
    done = run(web, "get", STUDYSET_ID, out, "--annotation", ANNOTATION_ID, code=1)
    assert "exists already" in done.error
    assert web.asked == []
    assert names_in(tmp_path) == [beside.name]


def test_get__all_files_or_none(web: Web, tmp_path: Path) -> None:
    absent = "aaaaaaaaaaaa"
    words = ("get", STUDYSET_ID, tmp_path / "new" / "set.json", "--annotation")
    run(web, *words, ANNOTATION_ID, "--annotation", absent, code=1)
    assert list((tmp_path / "new").iterdir()) == []


def test_get__missing_studyset_is_one_sentence(web: Web, tmp_path: Path) -> None:
    done = run(web, "get", "aaaaaaaaaaaa", tmp_path / "set.json", code=1)
    assert done.stderr.count("\n") == 1
    assert "404 Not Found (Not found.): nothing is there" in done.error


def test_token__comes_from_the_environment(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROSTORE_TOKEN", "secret")
    done = run(web, "search", "x")
    assert web.asked[0].headers["authorization"] == "Bearer secret"
    assert "secret" not in done.stdout + done.stderr
    monkeypatch.setenv("NEUROSTORE_TOKEN", "")
    run(web, "search", "x")
    assert "authorization" not in web.asked[1].headers


def test_readme__shows_commands_that_work(web: Web, tmp_path: Path) -> None:
    web.routes["/api/studysets/"] = listed([{"id": STUDYSET_ID, "name": "Fear"}])
    publish(web, {"version": "2026-01"})
    text = Path(__file__).resolve().parents[2].joinpath("README.md").read_text(encoding="utf-8")
    shown = [
        shlex.split(line.removeprefix("$ nimare-dask neurostore "))
        for line in text.splitlines()
        if line.startswith("$ nimare-dask neurostore ")
    ]
    assert [words[0] for words in shown] == ["search", "get", "release"]
    with contextlib.chdir(tmp_path):
        for words in shown:
            run(web, *words)
    annotation = f"studyset_annotation-{ANNOTATION_ID}.json"
    assert {"studyset.json", annotation} < set(names_in(tmp_path))
    assert (tmp_path / "releases" / "2026-01").is_dir()


def test_release__downloads_and_lists(web: Web, tmp_path: Path) -> None:
    publish(web, {"version": "2026-01", "study_count": 5}, {"version": "2026-02"})
    done = run(web, "release", "--list")
    assert done.stdout == "2026-02\t2026-02-01T00:00\t\n2026-01\t2026-01-01T00:00\t5\n"
    done = run(web, "release", tmp_path, "--version", "2026-01")
    assert done.stdout == f"{tmp_path / '2026-01' / 'release-2026-01'}\n"
    assert "Download: " in done.stderr
    assert (tmp_path / "2026-01" / "release-2026-01" / "studyset.json").is_file()
    assert "expected" not in run(web, "release", tmp_path, "--version", "2026-01").stderr
    assert "no release '1'" in run(web, "release", tmp_path, "--version", "1", code=1).error
    assert "give FOLDER" in run(web, "release", code=2).stderr
    assert sum(asked.path.startswith(f"{RELEASES}2026-01") for asked in web.asked) == 1
