"""The client of NeuroStore against a local server that speaks its answers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nimare_dask as nd
from nimare_dask.io.neurostore import checked_id
from tests.web import Answer, Asked, Web, listed, serving

STUDYSET_ID, ANNOTATION_ID = "zvE8LEQHAJxV", "76PyNqoTNEsE"
STUDIES = [{"id": f"study{number:07}", "name": f"Study {number}"} for number in range(25)]
STUDYSET = {
    "id": STUDYSET_ID,
    "name": "Fear",
    "studies": [{"id": "s", "analyses": [{"id": "a", "points": [], "z": 1.50}]}],
}
ANNOTATION = {"id": ANNOTATION_ID, "note_keys": {"x": "number"}, "notes": [{"analysis": "a"}]}
RELEASES = "/api/neurostore-studyset-releases/"
TABLES = {"studyset.json": b"{}", "studies.parquet": b"PAR1" * 5_000}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server of this test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as server:
        server.routes["/api/studies/"] = listed(STUDIES)
        server.routes[f"/api/studysets/{STUDYSET_ID}"] = Answer(STUDYSET)
        server.routes[f"/api/annotations/{ANNOTATION_ID}"] = Answer(ANNOTATION)
        yield server


@pytest.fixture
def store(web: Web) -> Iterator[nd.NeuroStore]:
    """A client of it."""
    with at(web) as client:
        yield client


def at(web: Web, **settings: Any) -> nd.NeuroStore:
    """A client that does not wait for long."""
    quick = {"timeout": 2.0, "retries": 2, "backoff": 0.001, "patience": 0.2}
    return nd.NeuroStore(base_url=f"{web.url}/api", **(quick | settings))


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def publish(web: Web, *releases: dict[str, Any]) -> dict[str, bytes]:
    """Publish releases; what is not said of them is made. Gives their archives by version."""
    archives, manifests = {}, []
    for number, given in enumerate(releases):
        facts = {"release_type": "monthly", "built_at": f"2026-0{number + 1}-01T00:00", **given}
        version = str(facts["version"])
        files = facts.pop("files", {f"release-{version}/{k}": v for k, v in TABLES.items()})
        archives[version] = packed(files)
        facts.setdefault("archive_checksum", hashlib.sha256(archives[version]).hexdigest())
        manifests.append({name: value for name, value in facts.items() if value is not None})
        web.routes[f"{RELEASES}{version}/download"] = Answer(archives[version])
    web.routes[RELEASES] = Answer(
        {"metadata": {"total_count": len(manifests)}, "results": manifests}
    )
    return archives


def names_in(folder: Path) -> list[str]:
    """Relative paths of the files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_studies__come_page_by_page(web: Web, store: nd.NeuroStore) -> None:
    found = store.studies(search="working memory", page_size=10, source="pubmed", desc=True)
    assert web.asked == []
    assert len(found) == found.total == 25
    assert len(web.asked) == 1
    records = iter(found)
    assert [next(records)["name"] for _ in range(10)] == [f"Study {n}" for n in range(10)]
    assert len(web.asked) == 1
    assert next(records) == STUDIES[10]
    assert len(web.asked) == 2
    assert list(found) == STUDIES
    query = {"search": "working memory", "page_size": "10", "source": "pubmed", "desc": "true"}
    assert web.asked[0].query == {**query, "page": "1"}
    assert [asked.query["page"] for asked in web.asked] == ["1", "2", "2", "3"]


@pytest.mark.parametrize("number", [0, 1, 9, 10, 11, 20])
def test_studies__end_where_they_end(web: Web, store: nd.NeuroStore, number: int) -> None:
    web.routes["/api/studies/"] = listed(STUDIES[:number])
    with warnings.catch_warnings(action="error"):
        assert list(store.studies(page_size=10)) == STUDIES[:number]
    assert len(web.asked) == max(1, -(-number // 10))


def test_studies__say_when_the_list_changes_meanwhile(web: Web, store: nd.NeuroStore) -> None:
    def moving(asked: Asked) -> Answer:
        # A new study is put before the others while pages are read.
        pages = {"1": STUDIES[:2], "2": STUDIES[1:3]}
        total = {"total_count": 4 if asked.query["page"] == "1" else 5}
        return Answer({"metadata": total, "results": pages.get(asked.query["page"], [])})

    web.routes["/api/studies/"] = moving
    with pytest.warns(nd.CorpusWarning, match="announced 5 studies and gave 4, 1 of them twice"):
        assert list(store.studies(page_size=2)) == STUDIES[:3]


def test_studysets_and_annotations__are_lists_too(web: Web, store: nd.NeuroStore) -> None:
    web.routes["/api/studysets/"] = listed([{"id": STUDYSET_ID}])
    web.routes["/api/annotations/"] = listed([{"id": ANNOTATION_ID}])
    assert list(store.studysets(search="fear")) == [{"id": STUDYSET_ID}]
    assert list(store.annotations(STUDYSET_ID)) == [{"id": ANNOTATION_ID}]
    assert web.asked[-1].query["studyset_id"] == STUDYSET_ID


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"results": []},
        {"metadata": {"total_count": "3"}, "results": []},
        {"metadata": {"total_count": -1}, "results": []},
        {"metadata": {"total_count": True}, "results": []},
        {"metadata": {"total_count": 3}, "results": {}},
        {"metadata": {"total_count": 3}, "results": ["abc"]},
        None,
    ],
)
def test_studies__refuse_another_shape(web: Web, store: nd.NeuroStore, body: Any) -> None:
    web.routes["/api/studies/"] = Answer(body)
    with pytest.raises(nd.DownloadError, match=r'expected \{"metadata": \{"total_count": n\}'):
        list(store.studies())


def test_studies__say_what_the_server_says(web: Web, store: nd.NeuroStore) -> None:
    web.routes["/api/studies/"] = Answer({"detail": "Extra query parameter 'foo'"}, 422)
    with pytest.raises(nd.DownloadError, match="Extra query parameter 'foo'"):
        list(store.studies(foo=1))


def test_studies__refuse_parameters_of_the_client(store: nd.NeuroStore) -> None:
    with pytest.raises(nd.SettingsError, match="page_size is 0"):
        store.studies(page_size=0)
    with pytest.raises(nd.SettingsError, match="page is not for you to give"):
        store.studies(page=3)


def test_studyset__is_nested_and_written_as_it_came(
    web: Web, store: nd.NeuroStore, tmp_path: Path
) -> None:
    raw = json.dumps(STUDYSET, indent=1).replace("1.5", "1.50").encode()
    web.routes[f"/api/studysets/{STUDYSET_ID}"] = Answer(raw)
    assert store.studyset(STUDYSET_ID) == STUDYSET
    assert web.asked[-1].query == {"nested": "true"}
    store.studyset(STUDYSET_ID, path=tmp_path / "new" / "set.json")
    store.studyset(STUDYSET_ID, path=tmp_path / "new" / "set.json.gz")
    assert (tmp_path / "new" / "set.json").read_bytes() == raw
    assert gzip.decompress((tmp_path / "new" / "set.json.gz").read_bytes()) == raw
    assert names_in(tmp_path) == ["new/set.json", "new/set.json.gz"]


def test_annotation__has_notes(web: Web, store: nd.NeuroStore, tmp_path: Path) -> None:
    assert store.annotation(ANNOTATION_ID, path=tmp_path / "a.json") == ANNOTATION
    assert json.loads((tmp_path / "a.json").read_bytes()) == ANNOTATION
    web.routes[f"/api/annotations/{ANNOTATION_ID}"] = Answer({"id": ANNOTATION_ID})
    with pytest.raises(nd.DownloadError, match='expected an object with an "id" and, as "notes"'):
        store.annotation(ANNOTATION_ID)


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"detail": "gone"}, 404),
        Answer(STUDYSET, break_at=20),
        Answer(b"<html>log in</html>"),
        Answer({**STUDYSET, "studies": ["not", "nested"]}),
        Answer([STUDYSET]),
        Answer(STUDYSET, seconds=0.3),
    ],
    ids=["404", "broken_off", "page", "not_nested", "list", "slow"],
)
def test_studyset__failure_leaves_no_file(web: Web, tmp_path: Path, answer: Answer) -> None:
    web.routes[f"/api/studysets/{STUDYSET_ID}"] = answer
    with at(web, timeout=0.1, retries=1) as store, pytest.raises(nd.DownloadError):
        store.studyset(STUDYSET_ID, path=tmp_path / "set.json")
    assert names_in(tmp_path) == []


def test_studyset__keeps_a_file_that_is_there(
    web: Web, store: nd.NeuroStore, tmp_path: Path
) -> None:
    (tmp_path / "set.json").write_text("mine")
    for path in (tmp_path / "set.json", tmp_path):
        with pytest.raises(nd.StoreExistsError):
            store.studyset(STUDYSET_ID, path=path)
    assert web.asked == []
    assert (tmp_path / "set.json").read_text() == "mine"
    store.studyset(STUDYSET_ID, path=tmp_path / "set.json", overwrite=True)
    assert json.loads((tmp_path / "set.json").read_bytes()) == STUDYSET


BAD_IDS = ["", "short", "../../../etc", "zvE8LEQHAJx/", "zvE8LEQHAJx?", "zvE8LEQHAJx%", "é" * 12]


@pytest.mark.parametrize("bad", [*BAD_IDS, f"{STUDYSET_ID}\n", f"{STUDYSET_ID}a", "zvE8LEQHAJx."])
def test_ids__cannot_leave_their_place(web: Web, store: nd.NeuroStore, bad: str) -> None:
    for ask in (store.studyset, store.annotation, store.annotations, checked_id):
        with pytest.raises(nd.SettingsError, match="expected twelve letters and digits"):
            ask(bad)
    assert web.asked == []


def test_token__goes_with_questions_and_not_with_releases(web: Web, tmp_path: Path) -> None:
    publish(web, {"version": "2026-01"})
    store = at(web, token="secret")
    store.studyset(STUDYSET_ID)
    store.release(folder=tmp_path)
    sent = {asked.path: asked.headers.get("authorization") for asked in web.asked}
    assert sent[f"/api/studysets/{STUDYSET_ID}"] == "Bearer secret"
    assert sent[f"{RELEASES}2026-01/download"] is None
    assert "secret" not in repr(store)
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.rglob("*.json"))


def test_neurostore__is_a_value(web: Web) -> None:
    store = at(web)
    assert store == at(web)
    assert store != at(web, token="x")
    store.studyset(STUDYSET_ID)
    assert pickle.loads(pickle.dumps(store)).studyset(STUDYSET_ID) == STUDYSET
    with pytest.raises(AttributeError):
        store.token = "other"  # type: ignore[misc]
    with pytest.raises(nd.SettingsError, match="base_url"):
        nd.NeuroStore(base_url="neurostore.org")


def test_releases__newest_first(web: Web, store: nd.NeuroStore) -> None:
    publish(web, {"version": "2026-01"}, {"version": "2026-02"}, {"version": "nightly"})
    assert [found["version"] for found in store.releases()] == ["nightly", "2026-02", "2026-01"]


@pytest.mark.parametrize(
    ("asked", "given"), [("latest", "2026-02"), ("2026-01", "2026-01"), ("nightly", "nightly")]
)
def test_release__is_downloaded_and_unpacked(
    web: Web, store: nd.NeuroStore, tmp_path: Path, asked: str, given: str
) -> None:
    nightly = {"version": "nightly", "release_type": "nightly"}
    archives = publish(web, {"version": "2026-01"}, {"version": "2026-02"}, nightly)
    calls: list[tuple[str, int, int | None]] = []
    path = store.release(asked, folder=tmp_path, on_progress=lambda *call: calls.append(call))
    assert path == tmp_path / given / f"release-{given}"
    assert {name: (path / name).read_bytes() for name in TABLES} == TABLES
    assert set(names_in(tmp_path)) == {
        f"{given}/release.json",
        *(f"{given}/release-{given}/{name}" for name in TABLES),
    }
    stamp = json.loads((tmp_path / given / "release.json").read_bytes())
    assert (stamp["version"], stamp["base_url"]) == (given, store.base_url)
    size = len(archives[given])
    assert calls[-1][1:] == (size, size)
    before = len(web.asked)
    assert store.release(asked, folder=tmp_path) == path
    assert len(web.asked) == before + 1  # the list of releases alone


def test_release__without_a_folder_in_the_archive(
    web: Web, store: nd.NeuroStore, tmp_path: Path
) -> None:
    publish(web, {"version": "2026-01", "files": TABLES})
    assert store.release(folder=tmp_path) == tmp_path / "2026-01"
    assert store.release(folder=tmp_path) == tmp_path / "2026-01"


def test_release__latest_is_nightly_when_there_is_no_other(
    web: Web, store: nd.NeuroStore, tmp_path: Path
) -> None:
    publish(web, {"version": "nightly", "release_type": "nightly"})
    assert store.release(folder=tmp_path).parent == tmp_path / "nightly"


def test_release__goes_on_where_it_stopped(web: Web, store: nd.NeuroStore, tmp_path: Path) -> None:
    archive = publish(web, {"version": "2026-01"})["2026-01"]
    where = f"{RELEASES}2026-01/download"
    half = len(archive) // 2

    def ranged(asked: Asked) -> Answer:
        if "range" not in asked.headers:
            return Answer(archive, break_at=half)
        assert asked.headers["range"] == f"bytes={half}-"
        span = {"Content-Range": f"bytes {half}-{len(archive) - 1}/{len(archive)}"}
        return Answer(archive[half:], 206, span)

    web.routes[where] = ranged
    with pytest.raises(nd.DownloadError, match="broke off, once"):
        at(web, retries=0).release(folder=tmp_path)
    (part,) = tmp_path.iterdir()
    assert part.read_bytes() == archive[:half]
    assert (store.release(folder=tmp_path) / "studyset.json").is_file()
    assert sum(asked.path == where for asked in web.asked) == 2


def test_release__of_another_build_is_not_mixed_in(
    web: Web, store: nd.NeuroStore, tmp_path: Path
) -> None:
    nightly = {"version": "nightly", "release_type": "nightly"}
    publish(web, nightly)
    old = store.release("nightly", folder=tmp_path)
    publish(web, {**nightly, "files": {**TABLES, "new.parquet": b"new"}})
    with pytest.raises(nd.StoreExistsError, match="exists already"):
        store.release("nightly", folder=tmp_path)
    assert not (old.parent / "new.parquet").exists()
    new = store.release("nightly", folder=tmp_path, overwrite=True)
    assert (new / "new.parquet").read_bytes() == b"new"
    assert not old.exists()


@pytest.mark.parametrize("spoil", ["checksum", "slip", "no_studyset", "no_archive", "page"])
def test_release__failure_leaves_no_folder(
    web: Web, store: nd.NeuroStore, tmp_path: Path, spoil: str
) -> None:
    release: dict[str, Any] = {"version": "2026-01"}
    if spoil == "checksum":
        release["archive_checksum"] = "0" * 64
    elif spoil == "slip":
        release["files"] = {**TABLES, "../../out": b"x"}
    elif spoil == "no_studyset":
        release["files"] = {"a/studies.parquet": b"x"}
    publish(web, release)
    if spoil == "no_archive":
        del web.routes[f"{RELEASES}2026-01/download"]
    elif spoil == "page":
        web.routes[f"{RELEASES}2026-01/download"] = Answer(b"<html>log in</html>")
    expected = {
        "checksum": r"sha256 [0-9a-f]{64}, expected 0{64}",
        "slip": "leads out of the folder",
        "no_studyset": "has 0 folders with a studyset.json",
        "no_archive": "404 Not Found",
        "page": "sha256",
    }
    with pytest.raises(nd.NimareDaskError, match=expected[spoil]):
        store.release(folder=tmp_path / "in" / "releases")
    left = names_in(tmp_path)
    assert all(name.startswith("in/releases/neurostore-studyset-2026-01-") for name in left)
    assert list((tmp_path / "in" / "releases").glob("2026-01")) == []


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ({"version": "../up"}, "whose version is '../up'"),
        ({"version": "a/b"}, "whose version is 'a/b'"),
        ({"version": ".hidden"}, "whose version is '.hidden'"),
        ({"version": 2026}, "whose version is '2026'"),
        ({"version": "2026-01", "archive_checksum": None}, "gives no sha256"),
        ({"version": "2026-01", "archive_checksum": "../" * 21 + "a"}, "gives no sha256"),
    ],
)
def test_release__names_of_the_server_are_checked(
    web: Web, store: nd.NeuroStore, tmp_path: Path, release: dict[str, Any], said: str
) -> None:
    checksum = release.get("archive_checksum", "0" * 64)
    record = {**release, "archive_checksum": checksum}
    web.routes[RELEASES] = Answer({"metadata": {"total_count": 1}, "results": [record]})
    with pytest.raises(nd.DownloadError, match=said):
        store.release(folder=tmp_path)
    assert len(web.asked) == 1
    assert names_in(tmp_path) == []


def test_release__unknown_version(web: Web, store: nd.NeuroStore, tmp_path: Path) -> None:
    publish(web, {"version": "2026-01"})
    with pytest.raises(nd.UnknownLabelError, match="no release '1999-01'; it has 2026-01"):
        store.release("1999-01", folder=tmp_path)
    web.routes[RELEASES] = listed([])
    with pytest.raises(nd.UnknownLabelError, match="it has none"):
        store.release(folder=tmp_path)
