"""Downloads end whole or not at all, whatever the server does; one local server plays its parts."""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from nimare_dask.errors import DownloadError, NimareDaskError
from nimare_dask.io import fetch
from nimare_dask.io.fetch import (
    NEUROSYNTH_LICENCE,
    NEUROSYNTH_NAMES,
    NEUROSYNTH_SHA256,
    NEUROSYNTH_URL,
    describe_download,
    download,
    fetch_neurosynth,
    find_neurosynth,
)

BODY = bytes(range(256)) * 2_000
SHA256 = hashlib.sha256(BODY).hexdigest()
quick = partial(download, sha256=SHA256, timeout=2.0, retries=2, backoff=0.001)


class Handler(BaseHTTPRequestHandler):
    """Answers from the files of its server, spoilt as its server says."""

    server: LocalServer

    def do_GET(self) -> None:
        """Serve a file, or the part of it that a Range asks for."""
        server = self.server
        server.requests.append((self.path.lstrip("/"), self.headers.get("Range")))
        if server.statuses:
            self.answer(server.statuses.pop(0), b"")
            return
        body = server.files.get(self.path.lstrip("/"))
        if body is None:
            self.answer(404, b"")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not server.ranges:
            self.answer(200, body)
        elif int(asked[1]) >= len(body):
            self.answer(416, b"")
        else:
            start = int(asked[1]) + server.range_shift
            self.answer(206, body[start:], f"bytes {start}-{len(body) - 1}/{len(body)}")

    def answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        """Send one answer, closing early when the server is told to."""
        self.send_response(status)
        if self.server.announces_length:
            self.send_header("Content-Length", str(len(body)))
        if content_range is not None:
            self.send_header("Content-Range", content_range)
        for name, value in self.server.extra_headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.early_closes and status < 300:
            self.server.early_closes -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class LocalServer(ThreadingHTTPServer):
    """A server whose faults are set by attributes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"data.bin": BODY}
        self.requests: list[tuple[str, str | None]] = []
        self.statuses: list[int] = []
        self.extra_headers: dict[str, str] = {}
        self.ranges = True
        self.range_shift = 0
        self.early_closes = 0
        self.announces_length = True

    @property
    def url(self) -> str:
        """Address of the folder that is served."""
        return f"http://127.0.0.1:{self.server_port}"


@dataclass
class Progress:
    """Keeps what it is told."""

    calls: list[tuple[str, int, int | None]] = field(default_factory=list)

    def __call__(self, name: str, done: int, total: int | None) -> None:
        self.calls.append((name, done, total))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A server in a thread, that ends with the test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalServer() as local:
        thread = Thread(target=partial(local.serve_forever, poll_interval=0.005), daemon=True)
        thread.start()
        yield local
        local.shutdown()
        thread.join(5.0)


@pytest.fixture
def small_database(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small files under the published names, served, with checksums to match."""
    files = {name: name.encode() * 10 for name in NEUROSYNTH_NAMES.values()}
    sums = {k: hashlib.sha256(files[name]).hexdigest() for k, name in NEUROSYNTH_NAMES.items()}
    monkeypatch.setattr(fetch, "NEUROSYNTH_SHA256", sums)
    server.files = dict(files)
    return files


def names_in(folder: Path) -> list[str]:
    """Names of the files in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_download__whole(server: LocalServer, tmp_path: Path) -> None:
    progress = Progress()
    path = tmp_path / "made" / "data.bin"
    assert quick(f"{server.url}/data.bin", path, on_progress=progress) == path
    assert path.read_bytes() == BODY
    assert names_in(path.parent) == ["data.bin"]
    assert progress.calls[0] == ("data.bin", 0, len(BODY))
    assert progress.calls[-1] == ("data.bin", len(BODY), len(BODY))
    done = [call[1] for call in progress.calls]
    assert done == sorted(done)


def test_download__resumes_a_part(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(BODY[:1000])
    progress = Progress()
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin", on_progress=progress)
    assert path.read_bytes() == BODY
    assert server.requests == [("data.bin", "bytes=1000-")]
    assert progress.calls[0] == ("data.bin", 1000, len(BODY))
    assert progress.calls[-1] == ("data.bin", len(BODY), len(BODY))
    assert names_in(tmp_path) == ["data.bin"]


def test_download__complete_part_needs_no_server(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(BODY)
    quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert server.requests == []
    assert names_in(tmp_path) == ["data.bin"]


def _ignores(server: LocalServer) -> None:
    server.ranges = False


def _shifts(server: LocalServer) -> None:
    server.range_shift = 3


@pytest.mark.parametrize(
    ("spoil", "kept", "n_requests"),
    [
        pytest.param(_ignores, BODY[:1000], 1, id="200_instead_of_206"),
        pytest.param(_shifts, BODY[:1000], 2, id="206_from_elsewhere"),
        pytest.param(lambda server: None, BODY + b"more", 2, id="416_part_too_long"),
    ],
)
@pytest.mark.parametrize("retries", [0, 2])
def test_download__restarts_from_zero(
    server: LocalServer,
    tmp_path: Path,
    spoil: Callable[[LocalServer], None],
    kept: bytes,
    n_requests: int,
    retries: int,
) -> None:
    spoil(server)
    (tmp_path / "data.bin.part").write_bytes(kept)
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin", retries=retries)
    assert path.read_bytes() == BODY
    assert len(server.requests) == n_requests
    assert names_in(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("kept", [b"", b"of another file"])
def test_download__wrong_checksum_leaves_nothing(
    server: LocalServer, tmp_path: Path, kept: bytes
) -> None:
    server.files["data.bin"] = b"<html>please log in</html>"
    (tmp_path / "data.bin.part").write_bytes(kept)
    with pytest.raises(DownloadError, match=rf"sha256 [0-9a-f]{{64}}, expected {SHA256}.*deleted"):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert names_in(tmp_path) == []


def test_download__404(server: LocalServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        quick(f"{server.url}/absent.bin", tmp_path / "absent.bin")
    assert str(caught.value) == (
        f"Tried {server.url}/absent.bin, the server answered 404 Not Found: "
        "check address, network and proxy and run again, or copy the file there by hand."
    )
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, NimareDaskError)
    assert len(server.requests) == 1
    assert names_in(tmp_path) == []


def test_download__404_keeps_a_part(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "absent.bin.part").write_bytes(b"half")
    with pytest.raises(DownloadError, match="404"):
        quick(f"{server.url}/absent.bin", tmp_path / "absent.bin")
    assert (tmp_path / "absent.bin.part").read_bytes() == b"half"


@pytest.mark.parametrize("status", [429, 503])
def test_download__busy_twice_then_fine(server: LocalServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    # Waiting for as long as it asks would hang this test.
    server.extra_headers = {"Retry-After": "3600"}
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert path.read_bytes() == BODY
    assert len(server.requests) == 3


def test_download__busy_for_ever(server: LocalServer, tmp_path: Path) -> None:
    server.statuses = [503] * 10
    with pytest.raises(DownloadError, match="the server answered 503 Service Unavailable: check"):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert len(server.requests) == 3
    assert names_in(tmp_path) == []


def test_download__connection_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        # Bound and not listening: nobody else can take the port while the test runs.
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.bin"
        with pytest.raises(DownloadError) as caught:
            quick(url, tmp_path / "data.bin")
    message = str(caught.value)
    assert message.startswith(f"Tried {url}, no answer (")
    assert "refused" in message
    assert "Max retries" not in message
    assert message.endswith("or copy the file there by hand.")
    assert names_in(tmp_path) == []


def test_download__server_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.bin"
        with pytest.raises(DownloadError, match="timed out"):
            quick(url, tmp_path / "data.bin", timeout=0.05, retries=1)


def test_download__address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="missing an 'http://' or 'https://' protocol"):
        quick("not-an-address", tmp_path / "data.bin")


def test_download__truncated_body_is_resumed(server: LocalServer, tmp_path: Path) -> None:
    server.early_closes = 1
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert path.read_bytes() == BODY
    assert server.requests == [("data.bin", None), ("data.bin", f"bytes={len(BODY) // 2}-")]


def test_download__truncated_body_each_time(server: LocalServer, tmp_path: Path) -> None:
    server.early_closes = 3
    with pytest.raises(DownloadError, match=r"broke off, 3 times \(.*\): run again to go on"):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert len(server.requests) == 3
    assert names_in(tmp_path) == ["data.bin.part"]
    # And it goes on from there: what came is a true beginning of the file.
    kept = (tmp_path / "data.bin.part").read_bytes()
    assert BODY.startswith(kept)
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert path.read_bytes() == BODY
    assert server.requests[-1] == ("data.bin", f"bytes={len(kept)}-")


def test_download__truncated_body_of_unannounced_length(
    server: LocalServer, tmp_path: Path
) -> None:
    server.announces_length = False
    server.early_closes = 1
    with pytest.raises(DownloadError, match="expected"):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert names_in(tmp_path) == []
    progress = Progress()
    path = quick(f"{server.url}/data.bin", tmp_path / "data.bin", on_progress=progress)
    assert path.read_bytes() == BODY
    assert progress.calls[-1] == ("data.bin", len(BODY), None)


def test_download__keeps_a_gz_as_it_is(server: LocalServer, tmp_path: Path) -> None:
    # Some servers call a .gz a compressed transfer; unpacking it would break the checksum.
    packed = gzip.compress(BODY)
    server.files["data.tsv.gz"] = packed
    server.extra_headers = {"Content-Encoding": "gzip"}
    sha256 = hashlib.sha256(packed).hexdigest()
    path = quick(f"{server.url}/data.tsv.gz", tmp_path / "data.tsv.gz", sha256=sha256)
    assert path.read_bytes() == packed


def test_download__existing_file_is_not_downloaded(server: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(BODY)
    quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert server.requests == []


def test_download__existing_file_of_other_content_is_kept(
    server: LocalServer, tmp_path: Path
) -> None:
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"exists with sha256 .* move it away"):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == b"mine"
    assert server.requests == []


def test_download__two_at_once(server: LocalServer, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "data.bin.part").open("a+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(BODY[:10])
        other.flush()
        with pytest.raises(DownloadError, match="Another process is downloading"):
            quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert server.requests == []
    quick(f"{server.url}/data.bin", tmp_path / "data.bin")
    assert server.requests == [("data.bin", "bytes=10-")]


def test_download__interrupted_run_keeps_the_part(server: LocalServer, tmp_path: Path) -> None:
    def interrupt(name: str, done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(f"{server.url}/data.bin", tmp_path / "data.bin", on_progress=interrupt)
    kept = (tmp_path / "data.bin.part").read_bytes()
    assert kept
    assert BODY.startswith(kept)
    assert names_in(tmp_path) == ["data.bin.part"]


def test_fetch_neurosynth__gets_what_is_missing(
    server: LocalServer, small_database: dict[str, bytes], tmp_path: Path
) -> None:
    here = NEUROSYNTH_NAMES["metadata"]
    below = NEUROSYNTH_NAMES["vocabulary"]
    (tmp_path / here).write_bytes(small_database[here])
    (tmp_path / "neurosynth").mkdir()
    (tmp_path / "neurosynth" / below).write_bytes(small_database[below])
    progress = Progress()

    files = fetch_neurosynth(tmp_path, base_url=f"{server.url}/", on_progress=progress)

    wanted = [NEUROSYNTH_NAMES["coordinates"], NEUROSYNTH_NAMES["features"]]
    assert [name for name, _ in server.requests] == wanted
    assert {name for name, _, _ in progress.calls} == set(wanted)
    assert files.vocabulary == tmp_path / "neurosynth" / below
    for path in (files.coordinates, files.metadata, files.features, files.vocabulary):
        assert path.read_bytes() == small_database[path.name]
    assert find_neurosynth(tmp_path) == files

    server.requests.clear()
    assert fetch_neurosynth(tmp_path, base_url=server.url) == files
    assert server.requests == []


def test_fetch_neurosynth__failure_keeps_what_came(
    server: LocalServer, small_database: dict[str, bytes], tmp_path: Path
) -> None:
    del server.files[NEUROSYNTH_NAMES["metadata"]]
    with pytest.raises(DownloadError, match="404"):
        fetch_neurosynth(tmp_path / "new", base_url=server.url)
    assert names_in(tmp_path / "new") == [NEUROSYNTH_NAMES["coordinates"]]
    assert find_neurosynth(tmp_path / "new") is None


@pytest.mark.parametrize("subfolder", ["", "neurosynth"])
def test_find_neurosynth__in_folder_and_subfolder(tmp_path: Path, subfolder: str) -> None:
    folder = tmp_path / subfolder
    folder.mkdir(exist_ok=True)
    for name in NEUROSYNTH_NAMES.values():
        assert find_neurosynth(tmp_path) is None
        (folder / name).touch()
    files = find_neurosynth(tmp_path)
    assert files is not None
    assert files.features == folder / NEUROSYNTH_NAMES["features"]
    assert files.coordinates == folder / NEUROSYNTH_NAMES["coordinates"]


def test_find_neurosynth__folder_that_is_not_there(tmp_path: Path) -> None:
    assert find_neurosynth(tmp_path / "absent") is None


def test_describe_download__names_address_checksums_and_licence() -> None:
    text = describe_download()
    for part in (NEUROSYNTH_URL, NEUROSYNTH_LICENCE, *NEUROSYNTH_NAMES.values()):
        assert part in text
    for sha256 in NEUROSYNTH_SHA256.values():
        assert re.search(rf"\b{sha256}$", text, re.MULTILINE)
    assert "http://here" in describe_download("http://here")
