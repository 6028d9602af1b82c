"""Answers of a server on disk, to be asked for again only when they have changed.

Every answer is asked for each time, with what identifies the copy (its ETag, or when it was last
modified); a server that knows says "304 Not Modified" and sends nothing. So nothing here is ever
out of date. A copy that is not whole counts as none. The folder can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nimare_dask.io.whole import whole_file

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One answer that is kept: its body, and the headers that ask whether it has changed."""

    body: bytes
    validators: Mapping[str, str]


def read_entry(folder: Path, url: str, token: str | None) -> Entry | None:
    """The copy of what this address gave to the holder of this token; None without a whole one."""
    try:
        head, _, body = _place(folder, url, token).read_bytes().partition(b"\n")
        facts = json.loads(head)
        same = facts["version"] == _VERSION and facts["url"] == url
        if not same or facts["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        validators = {str(name): str(value) for name, value in facts["validators"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return Entry(body=body, validators=validators)


def write_entry(
    folder: Path, url: str, token: str | None, body: bytes, headers: Mapping[str, str]
) -> None:
    """Keep an answer, when the server said how to ask whether it has changed."""
    asked = {
        "If-None-Match": headers.get("ETag"),
        "If-Modified-Since": headers.get("Last-Modified"),
    }
    validators = {name: value for name, value in asked.items() if value}
    if not validators or "no-store" in headers.get("Cache-Control", "").lower():
        return
    facts = {
        "version": _VERSION,
        "url": url,
        "sha256": hashlib.sha256(body).hexdigest(),
        "validators": validators,
    }
    with whole_file(_place(folder, url, token), overwrite=True) as handle:
        handle.write(json.dumps(facts).encode() + b"\n")
        handle.write(body)


def _place(folder: Path, url: str, token: str | None) -> Path:
    """One file for each address and token: two people may not see the same."""
    key = hashlib.sha256(json.dumps([url, token]).encode()).hexdigest()
    return folder / f"{key}.answer"
