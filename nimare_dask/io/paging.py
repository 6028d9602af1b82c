"""Lists of a server, page by page, asked for when they are needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nimare_dask.errors import CorpusWarning

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: how many records there are in all, those of this page, and how to get the next."""

    total: int
    records: list[Record]
    next: Callable[[], Page] | None


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of a server's list; a page is asked for when its first record is needed.

    ``len(records)`` is what the server announces, and asks for the first page only. Each ``for``
    begins at the first record; the first page is asked for once.

    Parameters
    ----------
    first
        Gets the first page.
    what
        What the records are, for messages.
    """

    first: Callable[[], Page]
    what: str

    @cached_property
    def _first(self) -> Page:
        return self.first()

    @property
    def total(self) -> int:
        """How many records the server announces."""
        return self._first.total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Record]:
        page, came, seen = self._first, 0, set[str]()
        while True:
            for record in page.records:
                came += 1
                key = record.get("id")
                if key is None or str(key) not in seen:
                    yield record
                seen |= set() if key is None else {str(key)}
            if page.next is None or not page.records or came >= page.total:
                break
            page = page.next()
        twice = came - len(seen) if seen else 0
        if came < page.total or twice > 0:
            warnings.warn(
                f"The server announced {page.total:,} {self.what} and gave {came:,}, {twice:,} of "
                "them twice: the list may have changed meanwhile. Ask again where it matters.",
                CorpusWarning,
                stacklevel=2,
            )


def count_of(found: Any) -> int | None:
    """A number of records out of an answer; None when it is none."""
    good = isinstance(found, int) and not isinstance(found, bool) and found >= 0
    return found if good else None


def records_of(found: Any) -> list[Record] | None:
    """The records of an answer; None when it is no list of objects."""
    good = isinstance(found, list) and all(isinstance(record, dict) for record in found)
    return found if good else None
