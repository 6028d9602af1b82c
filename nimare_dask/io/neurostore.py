"""NeuroStore, the database behind Neurosynth Compose: search it, take studysets and releases.

Its lists are ``{"metadata": {"total_count": n}, "results": [...]}``, its ids have twelve letters
and digits, and ``nested=true`` gives a studyset with its studies, analyses and points inside: the
JSON of NIMADS, which ``read_nimads`` reads. A release is the whole database as parquet tables.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nimare_dask.errors import (
    DownloadError,
    SettingsError,
    SourceFormatError,
    UnknownLabelError,
    shorten,
)
from nimare_dask.io.archives import unpack_into
from nimare_dask.io.fetch import Progress, download
from nimare_dask.io.http import Connection, parse_json, wrong_shape
from nimare_dask.io.paging import Page, Record, Records, count_of, records_of
from nimare_dask.io.whole import refuse_file, refuse_folder, whole_file, whole_folder

NEUROSTORE_URL = "https://neurostore.org/api"
_LIST = '{"metadata": {"total_count": n}, "results": [...]}'
_RELEASES = "neurostore-studyset-releases/"
#: What a release is, beside its tables; written last.
_STAMP = "release.json"
_MANIFEST = "studyset.json"


@dataclass(frozen=True, kw_only=True)
class NeuroStore:
    """A NeuroStore server.

    .. code-block:: python

        with nd.NeuroStore() as store:
            for study in store.studies(search="working memory"):
                print(study["id"], study["name"])
            store.studyset("zvE8LEQHAJxV", path=Path("studyset.json"))

    The connection opens with the first question and closes with the ``with`` block, or when the
    object is no longer used.

    Parameters
    ----------
    base_url
        Address of the API.
    token
        Needed only for what is not public. Sent to this server alone.
    cache
        Folder that keeps answers; they are asked for again only when they have changed.
    timeout
        Seconds to wait for a connection, and for each next piece of an answer.
    retries
        Further attempts after a lost connection, a busy server, or a broken answer.
    backoff
        Seconds between two attempts, doubling.
    patience
        The longest to wait between two attempts, in seconds, also when the server asks for more.

    Raises
    ------
    SettingsError
        When a setting cannot work. Every method raises DownloadError, in one sentence, when the
        server cannot be reached, refuses, or answers with something else than it should.
    """

    base_url: str = NEUROSTORE_URL
    token: str | None = field(default=None, repr=False)
    cache: Path | None = None
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    patience: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_connection", Connection(**vars(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next question opens it again."""
        self._link.close()

    @property
    def _link(self) -> Connection:
        connection: Connection = vars(self)["_connection"]
        return connection

    def studies(
        self, *, search: str | None = None, page_size: int = 100, **filters: str | int | bool
    ) -> Records:
        """Studies, as a lazy list of records; ``len()`` is how many there are.

        Parameters
        ----------
        search
            Words to look for.
        page_size
            Records in one answer.
        **filters
            What else the server knows, such as ``name=``, ``doi=``, ``pmid=``, ``source=``,
            ``sort=``, ``desc=True``. The server refuses what it does not know.
        """
        return self._records("studies", search, page_size, filters)

    def studysets(
        self, *, search: str | None = None, page_size: int = 100, **filters: str | int | bool
    ) -> Records:
        """Studysets, as a lazy list of records; parameters as of :meth:`studies`."""
        return self._records("studysets", search, page_size, filters)

    def annotations(self, studyset_id: str, *, page_size: int = 100) -> Records:
        """Annotations of a studyset, as a lazy list of records."""
        filters = {"studyset_id": checked_id(studyset_id)}
        return self._records("annotations", None, page_size, filters)

    def studyset(
        self, studyset_id: str, *, path: Path | None = None, overwrite: bool = False
    ) -> dict[str, Any]:
        """One studyset with all that is in it, as NIMADS.

        Parameters
        ----------
        studyset_id
            Twelve letters and digits.
        path
            Also write the server's bytes there, whole or not at all; compressed for ``.gz``.
        overwrite
            Replace the file if it is there.

        Raises
        ------
        StoreExistsError
            When the file exists; before anything is asked for.
        """
        where = f"studysets/{checked_id(studyset_id)}"
        return self._document(where, {"nested": True}, "studies", path, overwrite)

    def annotation(
        self, annotation_id: str, *, path: Path | None = None, overwrite: bool = False
    ) -> dict[str, Any]:
        """One annotation with its notes, as NIMADS; parameters as of :meth:`studyset`."""
        where = f"annotations/{checked_id(annotation_id)}"
        return self._document(where, {}, "notes", path, overwrite)

    def releases(self) -> list[Record]:
        """Releases of the whole database that can be had, the newest first.

        Each has ``version`` (such as ``2026-09``, or ``nightly``), ``release_type``, ``built_at``,
        ``study_count`` and ``archive_checksum``.
        """
        found = list(self._records("releases", None, None, {}))
        return sorted(found, key=lambda release: str(release.get("built_at") or ""), reverse=True)

    def release(
        self,
        version: str = "latest",
        *,
        folder: Path,
        overwrite: bool = False,
        on_progress: Progress | None = None,
    ) -> Path:
        """Download a release into ``folder/VERSION``, and give the folder of its parquet tables.

        The archive is verified by the checksum of the list of releases; a download that was
        interrupted goes on where it stopped. A release that is there already with the same
        checksum is not downloaded again.

        Parameters
        ----------
        version
            One of :meth:`releases`; ``"latest"`` is the newest that is not the nightly build.
        folder
            Folder of releases; it is made.
        overwrite
            Replace another build of the version, such as yesterday's nightly one.
        on_progress
            Called with the file's name, the bytes there so far, and the bytes in all or None.

        Raises
        ------
        UnknownLabelError
            When there is no such version.
        DownloadError
            When the download does not end well or has another checksum.
        SourceFormatError
            When the archive holds what it should not, or no studyset.
        StoreExistsError
            When ``folder/VERSION`` is there and is something else.
        """
        chosen = _choose(self.releases(), version)
        name, checksum = _checked(chosen, self.base_url)
        target = folder / name
        if _is_there(target, checksum):
            return _tables(target)
        refuse_folder(target, overwrite=overwrite)
        # The checksum is part of the name: what is left of another build is not resumed.
        archive = download(
            f"{self.base_url.rstrip('/')}/{_RELEASES}{name}/download",
            folder / f"neurostore-studyset-{name}-{checksum[:8]}.tar.gz",
            sha256=checksum,
            on_progress=on_progress,
            timeout=self.timeout,
            retries=self.retries,
            backoff=self.backoff,
        )
        with whole_folder(target, overwrite=overwrite) as partial:
            unpack_into(archive, partial)
            _tables(partial)
            stamp = {**chosen, "base_url": self.base_url}
            (partial / _STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
        archive.unlink()
        return _tables(target)

    def _records(
        self,
        what: str,
        search: str | None,
        page_size: int | None,
        filters: Mapping[str, str | int | bool],
    ) -> Records:
        if page_size is not None and page_size < 1:
            raise SettingsError(f"page_size is {page_size}; expected 1 or more.")
        if "page" in filters:
            raise SettingsError("page is not for you to give: the list asks for page after page.")
        asked: dict[str, str | int | bool] = dict(filters)
        if search is not None:
            asked["search"] = search
        path = _RELEASES if what == "releases" else f"{what}/"
        place = f"{self.base_url.rstrip('/')}/{path}"

        def get(number: int) -> Page:
            if page_size is not None:
                asked.update(page=number, page_size=page_size)
            found = parse_json(self._link.get(path, asked), place)
            total, records = _list_of(found, place)
            return Page(
                total=total,
                records=records,
                next=None if page_size is None else lambda: get(number + 1),
            )

        return Records(first=lambda: get(1), what=what)

    def _document(
        self,
        where: str,
        parameters: Mapping[str, str | int | bool],
        holds: str,
        path: Path | None,
        overwrite: bool,
    ) -> dict[str, Any]:
        if path is not None:
            refuse_file(path, overwrite=overwrite)
        place = f"{self.base_url.rstrip('/')}/{where}"
        body = self._link.get(where, parameters)
        found = parse_json(body, place)
        inside = found.get(holds) if isinstance(found, dict) else None
        if records_of(inside) is None:
            expected = f'an object with an "id" and, as "{holds}", a list of objects'
            raise wrong_shape(found, expected, place)
        if path is not None:
            with whole_file(path, overwrite=overwrite) as handle:
                handle.write(gzip.compress(body, mtime=0) if path.suffix == ".gz" else body)
        document: dict[str, Any] = found
        return document


def checked_id(given: str) -> str:
    """An id of NeuroStore, as it may stand in an address.

    Raises
    ------
    SettingsError
        When it is not twelve letters and digits.
    """
    if not re.fullmatch(r"[A-Za-z0-9]{12}", str(given)):
        raise SettingsError(
            f"{given!r} is no id of NeuroStore; expected twelve letters and digits, such as "
            "zvE8LEQHAJxV. It stands at the end of the address of a studyset or annotation."
        )
    return given


def _list_of(found: Any, place: str) -> tuple[int, list[Record]]:
    """How many records there are, and those of this page."""
    known = found if isinstance(found, dict) else {}
    metadata = known.get("metadata")
    total = count_of(metadata.get("total_count")) if isinstance(metadata, dict) else None
    records = records_of(known.get("results"))
    if total is None or records is None:
        raise wrong_shape(found, _LIST, place)
    return total, records


def _choose(releases: list[Record], version: str) -> Record:
    """The newest release of a version; of all that are not nightly for ``latest``."""
    if version == "latest":
        dated = [found for found in releases if found.get("release_type") != "nightly"]
        fitting = dated or releases
    else:
        fitting = [found for found in releases if found.get("version") == version]
    if not fitting:
        known = [str(found.get("version")) for found in releases]
        raise UnknownLabelError(
            f"NeuroStore has no release {version!r}; it has {shorten(known) or 'none'}. Take one "
            "of them, or latest."
        )
    return fitting[0]


def _checked(release: Record, place: str) -> tuple[str, str]:
    """Version and checksum of a release, which become names of files."""
    version, checksum = release.get("version"), release.get("archive_checksum")
    if not isinstance(version, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", version, re.A):
        raise DownloadError(
            f"{place} has a release whose version is {str(version)[:60]!r}; expected something "
            "like 2026-09."
        )
    if not isinstance(checksum, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", checksum):
        raise DownloadError(
            f"{place} gives no sha256 as archive_checksum of its release {version}, so nobody can "
            "tell whether a download is whole: take another version."
        )
    return version, checksum.lower()


def _is_there(target: Path, checksum: str) -> bool:
    try:
        stamp = json.loads((target / _STAMP).read_bytes())
        return str(stamp["archive_checksum"]).lower() == checksum
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _tables(folder: Path) -> Path:
    """The folder with studyset.json: this one, or the only one in it that has it."""
    if (folder / _MANIFEST).is_file():
        return folder
    found = [path.parent for path in sorted(folder.glob(f"*/{_MANIFEST}"))]
    if len(found) != 1:
        raise SourceFormatError(
            f"The release has {len(found)} folders with a {_MANIFEST}; expected one. Take another "
            "version."
        )
    return found[0]
