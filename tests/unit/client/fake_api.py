"""An HTTP server that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel

from heroes.api.errors import HeroesError, to_body


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Answer = BaseModel | HeroesError | bytes | dict[str, Any] | None


@dataclass
class FakeApi:
    """Answers by (method, path): a value, or a function of the request. A path it does not know is 404."""

    url: str = ""
    answers: dict[tuple[str, str], Answer | Callable[[Asked], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Answer | Callable[[Asked], Answer]) -> None:
        """Answer so from now on."""
        self.answers[method, path] = answer

    def reply(self, asked: Asked) -> tuple[int, bytes, bool]:
        """Status, body, and whether to hang up instead."""
        self.asked.append(asked)
        answer = self.answers.get((asked.method, asked.path), {"error": {"type": "NotFound", "message": asked.path}})
        status = 404 if (asked.method, asked.path) not in self.answers else 200
        if callable(answer):
            answer = answer(asked)
        if isinstance(answer, HeroesError):
            return answer.status, json.dumps(to_body(answer)).encode(), False
        if isinstance(answer, BaseModel):
            return status, answer.model_dump_json().encode(), False
        if isinstance(answer, bytes):
            return status, answer, False
        return status, json.dumps(answer).encode(), answer is None


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self._body()
            asked = Asked(self.command, unquote(parts.path), parse_qs(parts.query), body, dict(self.headers.items()))
            status, content, hang_up = api.reply(asked)
            if hang_up:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing is printed."""

    return Handler


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind without looking up a name."""
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "unix", 0

    def get_request(self) -> tuple[Any, Any]:
        """A Unix socket's peers have no address."""
        connection, _ = super().get_request()
        return connection, ("unix", 0)


@contextmanager
def serving(socket_path: Path | None = None) -> Iterator[FakeApi]:
    """A server on a free port, or on a Unix socket."""
    api = FakeApi()
    if socket_path is None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
        api.url = f"http://127.0.0.1:{server.server_port}"
    else:
        server = _UnixServer(str(socket_path), _handler(api))  # type: ignore[arg-type]
        api.url = f"http+unix://{str(socket_path).replace('/', '%2F')}"
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
