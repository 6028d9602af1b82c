"""Questions to a server: retries, waits, the cache, the token, and what is said when it fails."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nimare_dask.errors import DownloadError, SettingsError
from nimare_dask.io import http
from nimare_dask.io.http import Connection, parse_json
from tests.web import Answer, Asked, Web, serving

quick = partial(Connection, timeout=2.0, retries=2, backoff=0.001, patience=0.2)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server of this test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as server:
        yield server


def failing(connection: Connection, path: str = "x") -> str:
    """The sentence of a question that fails."""
    with pytest.raises(DownloadError) as caught:
        connection.get(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_get__asks_with_parameters_and_token(web: Web) -> None:
    web.routes["/api/x/"] = Answer({"a": 1})
    with_token = quick(base_url=f"{web.url}/api/", token="secret")
    assert with_token.get("x/", {"nested": True, "search": "a b&c", "page": 2}) == b'{"a": 1}'
    (asked,) = web.asked
    assert asked.query == {"nested": "true", "search": "a b&c", "page": "2"}
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["user-agent"].startswith("nimare-dask/")
    assert "secret" not in repr(with_token)


@pytest.mark.parametrize("status", http.BUSY)
def test_get__asks_again_while_the_server_is_busy(web: Web, status: int) -> None:
    web.routes["/x"] = [Answer({}, status), Answer({}, status), Answer("fine")]
    assert quick(base_url=web.url).get("x") == b'"fine"'
    assert len(web.asked) == 3


def test_get__gives_up_after_the_retries(web: Web) -> None:
    web.routes["/x"] = Answer({"detail": "slow down"}, 429)
    assert failing(quick(base_url=web.url)) == (
        f"{web.url}/x answered 429 Too Many Requests 3 times (slow down): it wants to be asked "
        "less often; run again later."
    )
    assert len(web.asked) == 3


def test_get__waits_as_long_as_it_is_asked_to(web: Web) -> None:
    web.routes["/x"] = [Answer({}, 429, {"Retry-After": "1"}), Answer("fine")]
    start = time.perf_counter()
    assert quick(base_url=web.url, patience=5.0).get("x") == b'"fine"'
    assert 1.0 <= time.perf_counter() - start < 3.0


@pytest.mark.parametrize(
    "asked",
    ["3600", "Fri, 31 Dec 9999 23:59:59 GMT", "9" * 400],
    ids=["seconds", "date", "huge"],
)
def test_get__does_not_wait_longer_than_its_patience(web: Web, asked: str) -> None:
    web.routes["/x"] = Answer({}, 503, {"Retry-After": asked})
    assert "503 Service Unavailable and asks to wait" in failing(quick(base_url=web.url))
    assert len(web.asked) == 1


@pytest.mark.parametrize("asked", ["soon", "", "-5", "Fri, 31 Dec 1999 23:59:59 GMT", "1e5"])
def test_get__ignores_a_wait_that_is_none(web: Web, asked: str) -> None:
    web.routes["/x"] = [Answer({}, 503, {"Retry-After": asked}), Answer("fine")]
    assert quick(base_url=web.url).get("x") == b'"fine"'


@pytest.mark.parametrize(
    ("status", "body", "said", "advice"),
    [
        (401, {"detail": "No authorization token provided"}, "No authorization", "valid token"),
        (403, {"detail": "not yours"}, "(not yours)", "does not allow"),
        (404, {"detail": "Not found."}, "(Not found.)", "check the id"),
        (404, b"<html><h1>Not here</h1></html>", "404 Not Found: nothing", "check the id"),
        (
            422,
            {"detail": "Validation failed", "errors": [{"field": "sort", "error": "unknown"}]},
            "(Validation failed; sort: unknown)",
            "check the words and filters",
        ),
        (
            422,
            {"detail": [{"loc": ["query", "page_size"], "msg": "must be less than 30000"}]},
            "(query.page_size: must be less than 30000)",
            "check the words and filters",
        ),
        (400, "bad words", "(bad words)", "check the words"),
        (418, {"odd": 1}, "answered 418 I'm a Teapot: check the address.", ""),
        (501, [[]], "the server is in trouble", "later"),
    ],
)
def test_get__says_what_a_refusal_means(
    web: Web, status: int, body: Any, said: str, advice: str
) -> None:
    web.routes["/x"] = Answer(body, status)
    message = failing(quick(base_url=web.url))
    assert f"answered {status} " in message
    assert said in message
    assert advice in message
    assert len(web.asked) == 1


def test_get__shows_no_control_characters_and_no_novel(web: Web) -> None:
    web.routes["/x"] = Answer({"detail": "\x1b[31mred\nline " + "long " * 200}, 404)
    message = failing(quick(base_url=web.url))
    assert "[31mred line long" in message
    assert "\x1b" not in message
    assert len(message) < 450


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"detail":' * 400 + b"1" + b"}" * 400],
    ids=["open_list", "nested_object"],
)
def test_get__survives_a_deep_refusal(web: Web, body: bytes) -> None:
    web.routes["/x"] = Answer(body, 404)
    assert "404 Not Found" in failing(quick(base_url=web.url))


def test_get__asks_again_when_the_body_breaks_off(web: Web) -> None:
    whole = Answer(list(range(1_000)))
    web.routes["/x"] = [Answer(whole.body, break_at=100), whole]
    assert quick(base_url=web.url).get("x") == whole.sent
    web.routes["/x"] = Answer(whole.body, break_at=100)
    message = failing(quick(base_url=web.url))
    assert message.startswith(f"Tried {web.url}/x 3 times, no whole answer (")
    assert "check address, network and proxy" in message


def test_get__does_not_wait_for_a_slow_body(web: Web) -> None:
    web.routes["/x"] = Answer("late", seconds=0.5)
    assert "timed out" in failing(quick(base_url=web.url, timeout=0.05, retries=1))
    assert len(web.asked) == 2


def test_get__connection_refused(web: Web) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = failing(quick(base_url=url))
    assert message.startswith(f"Tried {url}/x 3 times, no whole answer (")
    assert "refused" in message


def test_get__says_that_a_proxy_cannot_be_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    assert "check the variables HTTP_PROXY" in failing(quick(base_url=web.url))


def test_get__says_that_certificates_cannot_be_used(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "absent.pem")
    message = failing(quick(base_url=web.url))
    assert "No connection can be set up" in message
    assert "SSL_CERT_FILE" in message


def test_get__takes_the_token_to_no_other_server(web: Web) -> None:
    with serving() as other:
        web.routes["/x"] = Answer({}, 302, {"Location": f"{other.url}/y"})
        other.routes["/y"] = Answer("fine")
        assert quick(base_url=web.url, token="secret").get("x") == b'"fine"'
        assert web.asked[0].headers["authorization"] == "Bearer secret"
        assert "authorization" not in other.asked[0].headers


def test_get__ends_when_it_is_sent_in_circles(web: Web) -> None:
    web.routes["/x"] = Answer({}, 302, {"Location": "/x"})
    assert "redirect" in failing(quick(base_url=web.url))


def test_get__refuses_an_answer_without_end(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 1_000)
    web.routes["/x"] = Answer(b"x" * 2_000)
    assert "more than 1,000 bytes" in failing(quick(base_url=web.url))
    assert len(web.asked) == 1


def tagged(asked: Asked) -> Answer:
    """An answer with an ETag, that is not sent again to who has it."""
    known = asked.headers.get("if-none-match") == '"v1"'
    return Answer("one", 304 if known else 200, {"ETag": '"v1"'})


def test_cache__is_used_while_nothing_changed(web: Web, tmp_path: Path) -> None:
    web.routes["/x"] = tagged
    for _ in range(2):  # the second connection knows the folder only
        assert quick(base_url=web.url, cache=tmp_path / "cache").get("x", {"a": 1}) == b'"one"'
    assert [asked.headers.get("if-none-match") for asked in web.asked] == [None, '"v1"']
    web.routes["/x"] = Answer("two", headers={"ETag": '"v2"'})
    cached = quick(base_url=web.url, cache=tmp_path / "cache")
    assert cached.get("x", {"a": 1}) == b'"two"'
    assert web.asked[-1].headers["if-none-match"] == '"v1"'
    cached.get("x", {"a": 1})
    assert web.asked[-1].headers["if-none-match"] == '"v2"'
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_cache__knows_dates_and_leaves_the_rest(web: Web, tmp_path: Path) -> None:
    date = "Fri, 31 Dec 1999 23:59:59 GMT"
    web.routes["/dated"] = Answer("d", headers={"Last-Modified": date})
    web.routes["/plain"] = Answer("p")
    web.routes["/private"] = Answer("s", headers={"ETag": '"v"', "Cache-Control": "No-Store"})
    cached = quick(base_url=web.url, cache=tmp_path)
    for path in ("dated", "plain", "private") * 2:
        cached.get(path)
    asked = [question.headers for question in web.asked[3:]]
    assert asked[0]["if-modified-since"] == date
    assert not any({"if-none-match", "if-modified-since"} & set(headers) for headers in asked[1:])
    assert len(list(tmp_path.iterdir())) == 1


def test_cache__keeps_people_and_questions_apart(web: Web, tmp_path: Path) -> None:
    web.routes["/x"] = tagged
    for token in (None, "a", "b"):
        for number in (1, 2):
            quick(base_url=web.url, cache=tmp_path, token=token).get("x", {"page": number})
    assert all("if-none-match" not in asked.headers for asked in web.asked)
    assert not any(b"Bearer" in path.read_bytes() for path in tmp_path.iterdir())


def test_cache__asks_anew_when_the_copy_is_not_whole(web: Web, tmp_path: Path) -> None:
    web.routes["/x"] = tagged
    cached = quick(base_url=web.url, cache=tmp_path)
    cached.get("x")
    (copy,) = tmp_path.iterdir()
    whole = copy.read_bytes()
    spoilt = [whole[:-1], whole + b"x", b"", b"\n", b"[]\n", b"{}\n", b"\xff\n", whole[:20]]
    for content in [*spoilt, whole.replace(b'"one"', b'"two"'), b"[" * 99_999]:
        copy.write_bytes(content)
        assert cached.get("x") == b'"one"'
        assert "if-none-match" not in web.asked[-1].headers
        assert copy.read_bytes() == whole


def test_cache__304_for_no_reason_is_an_error(web: Web, tmp_path: Path) -> None:
    web.routes["/x"] = Answer(status=304)
    assert "304 Not Modified" in failing(quick(base_url=web.url))
    assert "304 Not Modified" in failing(quick(base_url=web.url, cache=tmp_path))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>log in</html>", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000, b"1" * 9_999],
    ids=["nothing", "page", "cut", "no_text", "deep", "huge_number"],
)
def test_parse_json__says_what_came_instead(body: bytes) -> None:
    with pytest.raises(DownloadError, match="somewhere gave no JSON") as caught:
        parse_json(body, "somewhere")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "neurostore.org/api"}, "expected an address"),
        ({"base_url": "ftp://neurostore.org"}, "expected an address"),
        ({"base_url": "https://user:word@neurostore.org"}, "expected an address"),
        ({"base_url": "https://neurostore.org/api?x=1"}, "expected an address"),
        ({"token": "two\nlines"}, "copy it again"),
        ({"token": ""}, "copy it again"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_connection__refuses_settings_that_cannot_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        Connection(**{"base_url": "https://neurostore.org/api", **settings})
    assert "lines" not in str(caught.value) or "line ends" in str(caught.value)


def test_connection__can_be_closed_and_sent_to_workers(web: Web) -> None:
    web.routes["/x"] = Answer("fine")
    connection = quick(base_url=web.url)
    connection.close()
    connection.get("x")
    copy = pickle.loads(pickle.dumps(connection))
    assert copy == connection
    connection.close()
    assert connection.get("x") == copy.get("x") == b'"fine"'
