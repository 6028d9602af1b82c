"""NeuroVault, the repository of unthresholded maps: the images of a collection.

Its lists are ``{"count": n, "next": url or null, "results": [...]}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from nimare_dask.errors import DownloadError, SettingsError
from nimare_dask.io.fetch import Progress, download
from nimare_dask.io.http import Connection, parse_json, wrong_shape
from nimare_dask.io.paging import Page, Record, Records, count_of, records_of

NEUROVAULT_URL = "https://neurovault.org/api"
_LIST = '{"count": n, "next": an address or null, "results": [...]}'

#: NeuroVault's names of kinds of maps, in lower case, and NiMARE's.
MAP_TYPES: Mapping[str, str] = {
    "t map": "t",
    "variance": "varcope",
    "univariate-beta map": "beta",
    "multivariate-beta map": "beta",
    "z map": "z",
    "p map": "p",
    "p map (given null hypothesis)": "p",
}


def image_type(map_type: str) -> str:
    """NiMARE's name of a kind of map (t, varcope, beta, z, p); NeuroVault's where it has none."""
    return MAP_TYPES.get(map_type.strip().lower(), map_type)


@dataclass(frozen=True, kw_only=True)
class NeuroVaultImage:
    """One image of a collection.

    Parameters
    ----------
    id, collection_id
        Numbers of NeuroVault.
    name
        What its authors call it, such as the contrast.
    url
        Address of its file.
    map_type
        What it shows, in NeuroVault's words.
    image_type
        The same in NiMARE's: t, varcope, beta, z or p; NeuroVault's words for all others.
    analysis_level
        ``group``, ``single-subject``, ``meta-analysis``, or another; None when it is not said.
    sample_size
        How many people; None when it is not said.
    record
        Everything that NeuroVault says of it.
    """

    id: int
    collection_id: int
    name: str
    url: str
    map_type: str
    image_type: str
    analysis_level: str | None
    sample_size: int | None
    record: Record = field(repr=False, compare=False)

    @property
    def filename(self) -> str:
        """A name for its file, that no other image has: ``collection-8836_id-1_zstat.nii.gz``."""
        last = unquote(urlsplit(self.url).path).rpartition("/")[2]
        safe = re.sub(r"[^\w.+-]", "_", last).lstrip(".")[-120:]
        return f"collection-{self.collection_id}_id-{self.id}_{safe}"


@dataclass(frozen=True, kw_only=True)
class NeuroVaultImages:
    """Images of a collection; ``len()`` is how many it announces, pages come as they are needed."""

    collection_id: int
    records: Records

    def __len__(self) -> int:
        return self.records.total

    def __iter__(self) -> Iterator[NeuroVaultImage]:
        for record in self.records:
            yield _image(record, self.collection_id)


@dataclass(frozen=True, kw_only=True)
class NeuroVault:
    """A NeuroVault server.

    .. code-block:: python

        with nd.NeuroVault() as vault:
            maps = [image for image in vault.images(8836) if image.image_type == "t"]
            paths = vault.download(maps, Path("maps"))

    Parameters
    ----------
    base_url
        Address of the API.
    cache, timeout, retries, backoff, patience
        As of :class:`~nimare_dask.NeuroStore`.
    """

    base_url: str = NEUROVAULT_URL
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

    def images(self, collection_id: int, *, page_size: int = 100) -> NeuroVaultImages:
        """Images of a collection, lazily.

        Raises
        ------
        SettingsError
            When the id is not a positive whole number.
        DownloadError
            When the server cannot be reached, has no such collection, keeps it private, or sends
            to another server for the next page.
        """
        if not re.fullmatch(r"[1-9][0-9]{0,9}", str(collection_id)):
            raise SettingsError(
                f"{collection_id!r} is no id of a collection; expected a number such as 8836, as "
                "in neurovault.org/collections/8836."
            )
        if page_size < 1:
            raise SettingsError(f"page_size is {page_size}; expected 1 or more.")
        path = f"collections/{collection_id}/images/"
        first = {"format": "json", "limit": str(page_size)}
        records = Records(first=lambda: self._page(path, first), what="images")
        return NeuroVaultImages(collection_id=int(collection_id), records=records)

    def download(
        self,
        images: Iterable[NeuroVaultImage],
        folder: Path,
        *,
        on_progress: Progress | None = None,
    ) -> list[Path]:
        """Download images into a folder; give their paths in the order of the images.

        An image whose file is there is kept. NeuroVault has no checksums: a file counts as whole
        when it has the length that the server announced.

        Raises
        ------
        DownloadError
            When a download does not end well. What came before it is kept.
        """
        return [
            download(
                image.url,
                folder / image.filename,
                sha256=None,
                on_progress=on_progress,
                timeout=self.timeout,
                retries=self.retries,
                backoff=self.backoff,
            )
            for image in images
        ]

    def _page(self, path: str, parameters: Mapping[str, str]) -> Page:
        place = f"{self.base_url.rstrip('/')}/{path}"
        found = parse_json(self._link.get(path, parameters), place)
        known = found if isinstance(found, dict) else {}
        total, after = count_of(known.get("count")), known.get("next")
        records = records_of(known.get("results"))
        if total is None or records is None or not isinstance(after, str | None):
            raise wrong_shape(found, _LIST, place)
        if not after:
            return Page(total=total, records=records, next=None)
        asked = dict(parse_qsl(_same_place(after, place)))
        if asked == dict(parameters):
            raise DownloadError(f"{place} gives the same page as its next: ask again later.")
        return Page(total=total, records=records, next=lambda: self._page(path, asked))


def _same_place(link: str, place: str) -> str:
    """The question in the address of the next page, which must be at the place of the first."""
    try:
        there, here = urlsplit(link), urlsplit(place)
        same = (there.hostname, there.port, there.path.rstrip("/")) == (
            here.hostname,
            here.port,
            here.path.rstrip("/"),
        )
    except ValueError:
        same = False
    if not same:
        raise DownloadError(
            f"{place} sends to {link[:200]!r} for its next page; expected the same server and "
            "path. It was not asked: check the address."
        )
    return there.query


def _image(record: Record, collection_id: int) -> NeuroVaultImage:
    """What an image is, out of its record."""
    number, url, size = record.get("id"), record.get("file"), record.get("number_of_subjects")
    http = isinstance(url, str) and re.match(r"https?://[^/]", url, re.IGNORECASE)
    if isinstance(number, bool) or not isinstance(number, int) or not http:
        raise wrong_shape(
            record,
            'images with a number as "id" and an address as "file"',
            f"Collection {collection_id} of NeuroVault",
        )
    map_type = str(record.get("map_type") or "")
    level: Any = record.get("analysis_level")
    size = int(size) if isinstance(size, float) and size.is_integer() else size
    return NeuroVaultImage(
        id=number,
        collection_id=collection_id,
        name=str(record.get("name") or ""),
        url=str(url),
        map_type=map_type,
        image_type=image_type(map_type),
        analysis_level=None if level is None else str(level),
        sample_size=count_of(size) or None,
        record=record,
    )
