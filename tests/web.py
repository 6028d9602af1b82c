"""A local server whose answers are given by a test; it also plays the faults of real ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """A question that came."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What to send: `break_at` bytes of it only, after `seconds`, or of unannounced length."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    break_at: int | None = None
    seconds: float = 0.0
    announced: bool = True

    @property
    def sent(self) -> bytes:
        """The body in bytes; anything but bytes is JSON."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Route = Answer | list[Answer] | Callable[[Asked], Answer]


class Handler(BaseHTTPRequestHandler):
    """Answers as the routes of the server say; 404 elsewhere."""

    server: Web

    def do_GET(self) -> None:
        """One question."""
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(parts.path, dict(parse_qsl(parts.query)), headers)
        self.server.asked.append(asked)
        route = self.server.routes.get(parts.path, Answer({"detail": "Not found."}, 404))
        if isinstance(route, list):
            # The last answer of a list stays.
            answer = route.pop(0) if len(route) > 1 else route[0]
        else:
            answer = route if isinstance(route, Answer) else route(asked)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        body = b"" if answer.status == 304 else answer.sent
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json"}
        if answer.announced:
            headers["Content-Length"] = str(len(body))
        for name, value in (headers | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if answer.seconds:
            self.wfile.flush()
            time.sleep(answer.seconds)
        self.wfile.write(body[: answer.break_at])

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Web(ThreadingHTTPServer):
    """A server on this machine: `routes` by path, and all that was `asked`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when a client has gone."""


@contextmanager
def serving() -> Iterator[Web]:
    """A server in a thread, that ends with the block."""
    with Web() as web:
        thread = Thread(target=partial(web.serve_forever, poll_interval=0.005), daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.shutdown()
            thread.join(5.0)


def listed(records: list[Any], **metadata: Any) -> Callable[[Asked], Answer]:
    """A list of NeuroStore, in pages."""

    def answer(asked: Asked) -> Answer:
        size = int(asked.query.get("page_size", len(records) or 1))
        start = (int(asked.query.get("page", 1)) - 1) * size
        total = {"total_count": len(records), **metadata}
        return Answer({"metadata": total, "results": records[start : start + size]})

    return answer
