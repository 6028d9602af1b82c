"""Find or download the Neurosynth version 7 database, verified by checksum."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nimare_dask.errors import DownloadError
from nimare_dask.io.http import BUSY, open_client, say_cause

if TYPE_CHECKING:
    import httpx

# A commit, not a branch: the bytes behind the address, and so the checksums, never change.
NEUROSYNTH_URL = (
    "https://raw.githubusercontent.com/neurosynth/neurosynth-data/"
    "209c33cd009d0b069398a802198b41b9c488b9b7"
)
NEUROSYNTH_LICENCE = (
    "Open Database License 1.0 (https://opendatacommons.org/licenses/odbl/1-0/); "
    "attribute Neurosynth in anything public"
)
_STEM = "data-neurosynth_version-7"
NEUROSYNTH_NAMES: Mapping[str, str] = {
    "coordinates": f"{_STEM}_coordinates.tsv.gz",
    "metadata": f"{_STEM}_metadata.tsv.gz",
    "features": f"{_STEM}_vocab-LDA50_source-abstract_type-weight_features.npz",
    "vocabulary": f"{_STEM}_vocab-LDA50_vocabulary.txt",
}
NEUROSYNTH_SHA256: Mapping[str, str] = {
    "coordinates": "17135be3e08a0ab045896c77217e8463086543a0817d52a6a88c8e32c1161616",
    "metadata": "8acde7de2a14ee2a12b406e50a8805e83288b0bc78924ddb36879d496dfb757b",
    "features": "dff7606079404b8496be4baca35c0d261e91d4ac6ff5c5595e1ef519e598a571",
    "vocabulary": "57a5fba4d3ee97cfcbf73a13d0631a1d9709a53c5a1fdf6d173f04ac8bb8f302",
}

_ADVICE = "check address, network and proxy and run again, or copy the file there by hand."
Progress = Callable[[str, int, int | None], None]
_Report = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class NeurosynthFiles:
    """Paths of the four files that make up the database."""

    coordinates: Path
    metadata: Path
    features: Path
    vocabulary: Path


def describe_download(base_url: str = NEUROSYNTH_URL) -> str:
    """Text that says what :func:`fetch_neurosynth` gets: address, checksums, licence."""
    files = [
        f"file     {name}\nsha256   {NEUROSYNTH_SHA256[kind]}"
        for kind, name in NEUROSYNTH_NAMES.items()
    ]
    head = f"Neurosynth version 7, 7.5 MB in four files\naddress  {base_url}"
    return "\n".join([head, *files, f"licence  {NEUROSYNTH_LICENCE}"])


def find_neurosynth(folder: Path) -> NeurosynthFiles | None:
    """Find the database in ``folder`` or ``folder/neurosynth``; None when a file is absent.

    Looks at names alone; :func:`fetch_neurosynth` also verifies the checksums.
    """
    found = {kind: _locate(folder, name) for kind, name in NEUROSYNTH_NAMES.items()}
    present = {kind: path for kind, path in found.items() if path is not None}
    return NeurosynthFiles(**present) if len(present) == len(found) else None


def fetch_neurosynth(
    folder: Path,
    *,
    base_url: str = NEUROSYNTH_URL,
    on_progress: Progress | None = None,
    timeout: float = 20.0,
    retries: int = 3,
) -> NeurosynthFiles:
    """Download what is missing of the database into ``folder``, and verify all of it.

    Parameters
    ----------
    folder
        Where the files go; those in it, or in its subfolder ``neurosynth``, are kept.
    base_url
        Address to which the names of the files are added.
    on_progress, timeout, retries
        As for :func:`download`, which also says what is raised.
    """
    get = partial(download, on_progress=on_progress, timeout=timeout, retries=retries)
    paths = {
        kind: get(
            f"{base_url.rstrip('/')}/{name}",
            _locate(folder, name) or folder / name,
            sha256=NEUROSYNTH_SHA256[kind],
        )
        for kind, name in NEUROSYNTH_NAMES.items()
    }
    return NeurosynthFiles(**paths)


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None,
    on_progress: Progress | None = None,
    timeout: float = 20.0,
    retries: int = 3,
    backoff: float = 0.5,
) -> Path:
    """Download one file by way of ``<name>.part``, so that ``path`` is whole or absent.

    Parameters
    ----------
    url, path
        From where to where. A ``.part`` that an earlier run left is resumed.
    sha256
        Checksum in hexadecimal. A file that exists with it is not downloaded again. With None a
        file that exists is kept unseen, nothing is resumed, and the server must say how long the
        file is.
    on_progress
        Called with the file's name, the bytes there so far, and the bytes in all or None.
    timeout
        Seconds to wait for a connection, and for each next piece of the body.
    retries
        Further attempts after a failed connection, a busy server, or a broken body.
    backoff
        Seconds between attempts, doubling.

    Raises
    ------
    DownloadError
        When the server cannot be reached or refuses, the body keeps breaking off, the
        checksum differs, or another process is downloading the same file.
    """
    if path.exists():
        if sha256 is None or (found := _digest(path)) == sha256:
            return path
        raise DownloadError(
            f"{path} exists with sha256 {found}, expected {sha256}: move it away and run again."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    report = partial(on_progress or (lambda *_: None), path.name)
    with _claimed(part) as handle:
        # A run stopped between the last byte and the rename left nothing to ask the server for.
        if _digest(part) != sha256:
            source = _Source(url, timeout, retries, backoff, resumes=sha256 is not None)
            _fill(handle, source, report)
        handle.flush()
        os.fsync(handle.fileno())
        if sha256 is not None and (found := _digest(part)) != sha256:
            handle.truncate(0)
            raise DownloadError(
                f"{url} gave a file with sha256 {found}, expected {sha256}: it was deleted; "
                "run again, and check the address and the proxy if it repeats."
            )
    try:
        part.replace(path)
    except FileNotFoundError:
        # Another process may have verified and renamed the same .part first.
        if not path.is_file():
            raise
    return path


@dataclass(frozen=True)
class _Source:
    """From where a file comes, and how stubbornly it is asked for."""

    url: str
    timeout: float
    retries: int
    backoff: float
    resumes: bool


def _fill(handle: BinaryIO, source: _Source, report: _Report) -> None:
    """Bring ``handle`` to the server's last byte; a body that breaks off is resumed."""
    # Here, not above: importing the package should not cost an HTTP stack.
    import httpx

    url, retries = source.url, source.retries
    with open_client(timeout=source.timeout) as client:
        for tries in count(1):
            if not source.resumes:
                handle.truncate(0)
            try:
                _append_body(handle, client, source, report)
                return
            except _BrokenBodyError as error:
                if tries > retries:
                    times = "once" if tries == 1 else f"{tries} times"
                    raise DownloadError(
                        f"Tried {url} and the file broke off, {times} "
                        f"({error}): run again{' to go on from where it stopped' * source.resumes}."
                    ) from error
            except _BusyError as error:
                if tries > retries:
                    raise DownloadError(
                        f"Tried {url}, the server answered {error}: {_ADVICE}"
                    ) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                hopeless = (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL)
                if tries > retries or isinstance(error, hopeless):
                    raise DownloadError(
                        f"Tried {url}, no answer ({say_cause(error)}): {_ADVICE}"
                    ) from error
            # A server may ask to be left alone for hours; a readable error beats a silent wait.
            time.sleep(source.backoff * 2 ** (tries - 1))


class _BrokenBodyError(Exception):
    """The server stopped sending before the end."""


class _BusyError(Exception):
    """The server may answer later."""


def _append_body(handle: BinaryIO, client: httpx.Client, source: _Source, report: _Report) -> None:
    """Ask for the bytes that ``handle`` lacks and append them, or write all of them anew."""
    import httpx

    done = handle.seek(0, os.SEEK_END)
    # Not compressed in transfer: a Range counts other bytes than the file's otherwise.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with client.stream("GET", source.url, headers=headers) as response:
        status = response.status_code
        span = re.match(r"bytes (\d+)-\d+/(\d*)", response.headers.get("Content-Range", ""))
        if status == 206 and span is not None and int(span[1]) == done:
            size = span[2]
        elif status == 200:
            done = handle.truncate(0)
            size = response.headers.get("Content-Length", "")
        elif done and status in (206, 416):
            handle.truncate(0)  # so the next request has no Range, and cannot end here
            _append_body(handle, client, source, report)
            return
        else:
            answer = f"{status} {response.reason_phrase}"
            if status in BUSY:
                raise _BusyError(answer)
            raise DownloadError(f"Tried {source.url}, the server answered {answer}: {_ADVICE}")
        total = int(size) if size.isdecimal() else None
        if total is None and not source.resumes and "Transfer-Encoding" not in response.headers:
            raise DownloadError(
                f"{source.url} has neither a length nor a checksum, so nobody can tell whether it "
                "is whole: copy it by hand."
            )
        report(done, total)
        try:
            for chunk in response.iter_raw():
                done += handle.write(chunk)
                report(done, total)
        except httpx.HTTPError as error:
            raise _BrokenBodyError(say_cause(error)) from error


@contextmanager
def _claimed(part: Path) -> Iterator[BinaryIO]:
    """Open a .part for appending, by this process alone; an empty one is not left behind."""
    with part.open("a+b") as handle:
        if not _lock(handle, part):
            raise DownloadError(f"Another process is downloading {part}: run again after it.")
        try:
            yield handle
        finally:
            empty = handle.seek(0, os.SEEK_END) == 0
            handle.close()
            if empty:
                part.unlink(missing_ok=True)


def _lock(handle: BinaryIO, part: Path) -> bool:
    """Keep others from the .part until it is closed: two writers would mix their bytes."""
    if sys.platform != "win32":  # where nobody can rename what another process has open
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The owner may have renamed it since: this handle would write into the final file.
            return os.path.samestat(os.fstat(handle.fileno()), part.stat())
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:
            pass  # a file system without locks; the checksum still guards the result
    return True


def _locate(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / "neurosynth" / name)
    return next((path for path in candidates if path.is_file()), None)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
