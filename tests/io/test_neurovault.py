"""The client of NeuroVault against a local server that speaks its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nimare_dask as nd
from nimare_dask.io.neurovault import MAP_TYPES, image_type
from tests.web import Answer, Asked, Web, serving

PATH = "/api/collections/8836/images/"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server with a collection of 25 images."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as server:
        server.routes[PATH] = collection(server, 25)
        yield server


@pytest.fixture
def vault(web: Web) -> Iterator[nd.NeuroVault]:
    """A client of it that does not wait for long."""
    with nd.NeuroVault(
        base_url=f"{web.url}/api", timeout=2.0, retries=1, backoff=0.001, patience=0.2
    ) as client:
        yield client


def record(web: Web, number: int, **changes: Any) -> dict[str, Any]:
    """One image as NeuroVault tells of it."""
    return {
        "id": number,
        "name": f"contrast {number}",
        "file": f"{web.url}/media/images/8836/zstat{number}.nii.gz",
        "map_type": "Z map",
        "analysis_level": "group",
        "number_of_subjects": 20,
        **changes,
    }


def collection(web: Web, count: int) -> Any:
    """Images in pages of limit and offset, with the address of the next page."""

    def answer(asked: Asked) -> Answer:
        start, limit = int(asked.query.get("offset", 0)), int(asked.query["limit"])
        stop = min(start + limit, count)
        after = f"{web.url}{PATH}?format=json&limit={limit}&offset={stop}"
        records = [record(web, number) for number in range(1, count + 1)][start:stop]
        more = after if stop < count else None
        return Answer({"count": count, "next": more, "previous": None, "results": records})

    return answer


def one(web: Web, **changes: Any) -> Answer:
    """A collection of one image."""
    return Answer({"count": 1, "next": None, "results": [record(web, 1, **changes)]})


def test_images__come_page_by_page(web: Web, vault: nd.NeuroVault) -> None:
    images = vault.images(8836, page_size=10)
    assert web.asked == []
    assert len(images) == 25
    assert len(web.asked) == 1
    assert [image.id for image in images] == list(range(1, 26))
    assert [asked.query.get("offset") for asked in web.asked] == [None, "10", "20"]
    assert all(asked.query["format"] == "json" for asked in web.asked)
    first = next(iter(images))
    assert (first.name, first.collection_id, first.sample_size) == ("contrast 1", 8836, 20)
    assert (first.image_type, first.analysis_level) == ("z", "group")
    assert first.record == record(web, 1)


@pytest.mark.parametrize(
    ("map_type", "expected"),
    [
        ("T map", "t"),
        ("variance", "varcope"),
        ("univariate-beta map", "beta"),
        ("multivariate-beta map", "beta"),
        ("Z map", "z"),
        ("P map (given null hypothesis)", "p"),
        ("F map", "F map"),
        ("ROI/mask", "ROI/mask"),
        (None, ""),
    ],
)
def test_images__have_nimares_types(
    web: Web, vault: nd.NeuroVault, map_type: str | None, expected: str
) -> None:
    web.routes[PATH] = one(web, map_type=map_type)
    (image,) = vault.images(8836)
    assert image.image_type == expected
    assert image.map_type == (map_type or "")


def test_image_type__is_nimares() -> None:
    peer = pytest.importorskip("nimare.io").DEFAULT_MAP_TYPE_CONVERSION
    assert {name: image_type(name) for name in peer} == peer
    assert set(MAP_TYPES.values()) == set(peer.values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [(20, 20), (20.0, 20), (20.5, None), (0, None), (None, None), ("9", None)],
)
def test_images__have_a_sample_size_where_it_is_one(
    web: Web, vault: nd.NeuroVault, given: object, expected: int | None
) -> None:
    web.routes[PATH] = one(web, number_of_subjects=given, analysis_level=None)
    (image,) = vault.images(8836)
    assert image.sample_size == expected
    assert image.analysis_level is None


def test_images__no_next_page_of_another_server(web: Web, vault: nd.NeuroVault) -> None:
    with serving() as other:
        for link in (
            f"{other.url}{PATH}?offset=1",
            f"{web.url}/elsewhere/?offset=1",
            "http://[broken",
            "file:///etc/passwd",
            "?offset=1",
        ):
            body = {"count": 2, "next": link, "results": [record(web, 1)]}
            web.routes[PATH] = Answer(body)
            with pytest.raises(nd.DownloadError, match="expected the same server and path"):
                list(vault.images(8836))
        assert other.asked == []


def test_images__may_say_http_where_https_was_asked(web: Web, vault: nd.NeuroVault) -> None:
    # Django behind a proxy does; the scheme of the question stays.
    def answer(asked: Asked) -> Answer:
        last = asked.query.get("offset") == "1"
        link = None if last else f"https://127.0.0.1:{web.server_port}{PATH}?offset=1"
        return Answer({"count": 2, "next": link, "results": [record(web, 2 if last else 1)]})

    web.routes[PATH] = answer
    assert [image.id for image in vault.images(8836)] == [1, 2]


def test_images__next_that_is_the_same_page(web: Web, vault: nd.NeuroVault) -> None:
    link = f"{web.url}{PATH}?format=json&limit=1"
    web.routes[PATH] = Answer({"count": 9, "next": link, "results": [record(web, 1)]})
    with pytest.raises(nd.DownloadError, match="the same page as its next"):
        list(vault.images(8836, page_size=1))


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"results": []},
        {"count": "1", "next": None, "results": []},
        {"count": 1, "next": 5, "results": []},
        {"count": 1, "next": None, "results": [1]},
    ],
)
def test_images__refuse_another_shape(web: Web, vault: nd.NeuroVault, body: Any) -> None:
    web.routes[PATH] = Answer(body)
    with pytest.raises(nd.DownloadError, match=r'expected \{"count": n'):
        list(vault.images(8836))


@pytest.mark.parametrize(
    "changes", [{"id": "1"}, {"id": None}, {"file": None}, {"file": "file:///etc/passwd"}]
)
def test_images__refuse_a_record_without_id_or_file(
    web: Web, vault: nd.NeuroVault, changes: dict[str, Any]
) -> None:
    web.routes[PATH] = one(web, **changes)
    with pytest.raises(nd.DownloadError, match='a number as "id" and an address as "file"'):
        list(vault.images(8836))


@pytest.mark.parametrize("bad", [0, -1, "8836/../1", "", "1e3", True, 10**12])
def test_images__refuse_what_is_no_id(web: Web, vault: nd.NeuroVault, bad: Any) -> None:
    with pytest.raises(nd.SettingsError, match="no id of a collection"):
        vault.images(bad)
    assert web.asked == []


def test_images__unknown_or_private_collection(web: Web, vault: nd.NeuroVault) -> None:
    with pytest.raises(nd.DownloadError, match=r"404 Not Found \(Not found\.\)"):
        len(vault.images(1))


def test_download__whole_and_once(web: Web, vault: nd.NeuroVault, tmp_path: Path) -> None:
    for number in (1, 2):
        web.routes[f"/media/images/8836/zstat{number}.nii.gz"] = Answer(b"map %d" % number)
    images = [image for image in vault.images(8836) if image.id < 3]
    paths = vault.download(images, tmp_path / "maps")
    assert [path.read_bytes() for path in paths] == [b"map 1", b"map 2"]
    assert paths[0] == tmp_path / "maps" / "collection-8836_id-1_zstat1.nii.gz"
    before = len(web.asked)
    assert vault.download(images, tmp_path / "maps") == paths
    assert len(web.asked) == before


@pytest.mark.parametrize("last", ["%2e%2e%2f%2e%2e%2fout", "..", "a%5cb:c%00", "é.nii", "x" * 300])
def test_download__names_stay_in_the_folder(
    web: Web, vault: nd.NeuroVault, tmp_path: Path, last: str
) -> None:
    web.routes[PATH] = one(web, file=f"{web.url}/media/{last}")
    (image,) = vault.images(8836)
    assert "/" not in image.filename
    assert "\\" not in image.filename
    assert image.filename.startswith("collection-8836_id-1_")
    assert (tmp_path / image.filename).parent == tmp_path
    assert len(image.filename) < 200


def test_download__is_never_half_there(web: Web, vault: nd.NeuroVault, tmp_path: Path) -> None:
    where = "/media/images/8836/zstat1.nii.gz"
    images = [next(iter(vault.images(8836)))]
    web.routes[where] = Answer(b"a whole map", break_at=4)
    with pytest.raises(nd.DownloadError, match="broke off, 2 times"):
        vault.download(images, tmp_path)
    assert not list(tmp_path.glob("*.nii.gz"))
    # What was left is not gone on with: nobody can tell that it is of the same file.
    web.routes[where] = [Answer(b"another", break_at=4), Answer(b"another map")]
    (path,) = vault.download(images, tmp_path)
    assert path.read_bytes() == b"another map"
    assert all("range" not in asked.headers for asked in web.asked)
    assert list(tmp_path.iterdir()) == [path]


def test_download__refuses_a_file_of_unknown_length(
    web: Web, vault: nd.NeuroVault, tmp_path: Path
) -> None:
    web.routes["/media/images/8836/zstat1.nii.gz"] = Answer(b"a map", announced=False)
    with pytest.raises(nd.DownloadError, match="neither a length nor a checksum"):
        vault.download([next(iter(vault.images(8836)))], tmp_path)
    assert list(tmp_path.iterdir()) == []
