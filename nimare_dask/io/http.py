"""Ask a server for JSON: retries, timeouts, a cache, and one sentence when it does not work."""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimare_dask._version import __version__
from nimare_dask.errors import DownloadError, SettingsError
from nimare_dask.io.http_cache import read_entry, write_entry

if TYPE_CHECKING:
    import ssl

    import httpx

#: Answers after which it is worth asking again.
BUSY = (429, 500, 502, 503, 504)
#: A larger answer is no list or studyset but a mistake; all of NeuroStore is a tenth of it.
MOST_BYTES = 4 * 10**9
_LONGEST_SAID = 300
_ADVICE = {
    400: "check the words and filters that you asked with.",
    401: "give a valid token (token=... in Python, NEUROSTORE_TOKEN on the command line).",
    403: "your token does not allow to read this; ask its owner, or give another token.",
    404: "nothing is there; check the id and the address.",
    422: "check the words and filters that you asked with.",
    429: "it wants to be asked less often; run again later.",
}
Parameters = Mapping[str, str | int | float | bool]


def open_client(*, timeout: float, headers: Mapping[str, str] | None = None) -> httpx.Client:
    """Open a client that follows redirects; httpx sends a token to no other host.

    Raises
    ------
    DownloadError
        When the proxy or the certificates that the environment names cannot be used.
    """
    # Here, not above: importing the package should not cost an HTTP stack.
    import httpx

    named = {"User-Agent": f"nimare-dask/{__version__}", **(headers or {})}
    try:
        certificates = _certificates(
            os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        )
        return httpx.Client(
            timeout=timeout, follow_redirects=True, headers=named, verify=certificates
        )
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"No connection can be set up ({say_cause(error)}): check the variables HTTP_PROXY, "
            "HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
        ) from error


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Certificates that are trusted; to read them takes longer than a small answer."""
    import httpx

    return httpx.create_ssl_context()  # which looks at the two variables itself


def say_cause(error: BaseException) -> str:
    """What happened, in the words of the exception."""
    return str(error) or type(error).__name__


def check_retrying(*, timeout: float, retries: int) -> None:
    """Raise SettingsError for a timeout or a number of retries that cannot work."""
    if not 0 < timeout < float("inf"):
        raise SettingsError(f"timeout is {timeout!r}; expected seconds above 0.")
    if retries < 0:
        raise SettingsError(f"retries is {retries!r}; expected a whole number from 0.")


@dataclass(frozen=True, kw_only=True)
class Connection:
    """One server, asked for JSON.

    Parameters
    ----------
    base_url
        Address to which paths are added.
    token
        Sent as ``Authorization: Bearer`` to this server alone.
    cache
        Folder in which answers are kept that have an ETag or a date; None keeps none.
    timeout
        Seconds to wait for a connection, and for each next piece of an answer.
    retries
        Further attempts after a lost connection, a busy server, or a broken answer.
    backoff
        Seconds between attempts, doubling.
    patience
        The longest to wait between two attempts, in seconds, also when the server asks for more.
    """

    base_url: str
    token: str | None = field(default=None, repr=False)
    cache: Path | None = None
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    patience: float = 60.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", self.base_url, re.IGNORECASE):
            raise SettingsError(
                f"base_url is {self.base_url!r}; expected an address such as "
                "https://neurostore.org/api."
            )
        if self.token is not None and not re.fullmatch(r"[\x21-\x7e]+", self.token):
            raise SettingsError(
                "The token is empty or has spaces, line ends or other signs that no token has; "
                "copy it again."
            )
        check_retrying(timeout=self.timeout, retries=self.retries)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open sockets."""
        return {name: value for name, value in vars(self).items() if name != "_client"}

    @cached_property
    def _client(self) -> httpx.Client:
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        client = open_client(timeout=self.timeout, headers=headers)
        weakref.finalize(self, client.close)
        return client

    def close(self) -> None:
        """Close the sockets; the next question opens them again."""
        client = vars(self).pop("_client", None)
        if client is not None:
            client.close()

    def get(self, path: str, parameters: Parameters | None = None) -> bytes:
        """What the server has at a path, in bytes.

        Raises
        ------
        DownloadError
            When the server cannot be reached, refuses, or keeps breaking off.
        """
        import httpx

        url = f"{self.base_url.rstrip('/')}/{path.lstrip('/')}"
        try:
            asked = httpx.URL(url, params=dict(parameters)) if parameters else httpx.URL(url)
        except (httpx.InvalidURL, TypeError, ValueError) as error:
            raise SettingsError(f"{url} cannot be asked for ({say_cause(error)}).") from error
        for tries in range(1, self.retries + 2):
            last = tries > self.retries
            try:
                response, body, kept = self._ask(asked)
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
                raise _no_answer(asked, error, tries) from error
            except (httpx.HTTPError, httpx.StreamError) as error:
                if last:
                    raise _no_answer(asked, error, tries) from error
                wait = None
            else:
                if kept:
                    return body
                if response.status_code not in BUSY:
                    return self._accept(asked, response, body)
                wait = _asked_to_wait(response)
                if last or (wait or 0) > self.patience:
                    raise _refusal(asked, response, body, tries)
            time.sleep(min(max(self.backoff * 2 ** (tries - 1), wait or 0), self.patience))
        raise AssertionError("unreachable")

    def _ask(self, url: httpx.URL) -> tuple[httpx.Response, bytes, bool]:
        """One attempt: the answer, its whole body, and whether that is the unchanged kept one."""
        entry = read_entry(self.cache, str(url), self.token) if self.cache else None
        headers = dict(entry.validators) if entry else {}
        with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code == 304 and entry:
                return response, entry.body, True
            pieces, size = [], 0
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    raise DownloadError(
                        f"{url} gave more than {MOST_BYTES:,} bytes; expected a list or a studyset."
                    )
        return response, b"".join(pieces), False

    def _accept(self, url: httpx.URL, response: httpx.Response, body: bytes) -> bytes:
        if response.status_code != 200:
            raise _refusal(url, response, body, 1)
        if self.cache:
            write_entry(self.cache, str(url), self.token, body, response.headers)
        return body


def parse_json(body: bytes, place: str) -> Any:
    """Read JSON that came from a place, or say in one sentence what came instead."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        start = _printable(body[:60].decode("utf-8", "replace"))
        what = f"{start!r}" if start else "nothing"
        raise DownloadError(
            f"{place} gave no JSON ({say_cause(error)}), but {what}: check the address, and "
            "whether a proxy answers in place of the server."
        ) from error


def wrong_shape(found: Any, expected: str, place: str) -> DownloadError:
    """An error that says what came, and what was expected."""
    if isinstance(found, dict):
        shown = ", ".join(_printable(str(name))[:30] for name in list(found)[:6])
        what = f"an object with {shown or 'nothing in it'}"
    elif isinstance(found, list):
        what = f"a list of {len(found):,}"
    else:
        what = _printable(repr(found))[:60]
    return DownloadError(
        f"{place} gave {what}; expected {expected}. Check the address, or whether the server "
        "has changed."
    )


def _no_answer(url: httpx.URL, error: Exception, tries: int) -> DownloadError:
    times = f" {tries} times" if tries > 1 else ""
    return DownloadError(
        f"Tried {url}{times}, no whole answer ({say_cause(error)}): check address, network and "
        "proxy and run again."
    )


def _refusal(url: httpx.URL, response: httpx.Response, body: bytes, tries: int) -> DownloadError:
    """What a server answered instead of what was asked for, with its own words where it has any."""
    status = response.status_code
    said = _said(body)
    times = f" {tries} times" if tries > 1 else ""
    wait = _asked_to_wait(response)
    asks = f" and asks to wait {wait:,.0f} s" if wait and status in BUSY else ""
    advice = _ADVICE.get(status) or (
        "the server is in trouble; run again later." if status >= 500 else "check the address."
    )
    quoted = f" ({said})" if said else ""
    return DownloadError(
        f"{url} answered {status} {response.reason_phrase}{times}{asks}{quoted}: {advice}"
    )


def _said(body: bytes) -> str:
    """The server's own message in the body of a refusal; nothing where there is none."""
    try:
        text = _printable("; ".join(_messages(json.loads(body))))
    except (ValueError, RecursionError):
        return ""
    return text if len(text) <= _LONGEST_SAID else f"{text[:_LONGEST_SAID]}..."


def _messages(found: Any) -> list[str]:
    """Messages of a refusal: {detail, errors: [{field, error}]}, {detail: [{loc, msg}]}, a text."""
    if isinstance(found, str):
        return [found]
    if isinstance(found, list):
        return [text for item in found[:5] for text in _messages(item)]
    if not isinstance(found, dict):
        return []
    named = ("detail", "message", "msg", "error", "title")
    texts = next((_messages(found[name]) for name in named if found.get(name)), [])
    place = found.get("field") or found.get("loc")
    if place and texts:
        where = ".".join(map(str, place)) if isinstance(place, list) else str(place)
        texts[0] = f"{where}: {texts[0]}"
    return texts + (_messages(found["errors"]) if isinstance(found.get("errors"), list) else [])


def _printable(text: str) -> str:
    """Text of a stranger for a terminal: no control characters, no line ends."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _asked_to_wait(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After, which is a number or a date; None without a readable one."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked)
    except (ValueError, TypeError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
