"""Questions that only the engine which holds a cluster can answer: the tail of a log.

One question a connection, one JSON object a line. The server greets with a nonce; the question carries an HMAC-SHA-256
of nonce and question under the shared secret, so that neither a stranger on the machine nor a replay is answered.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from heroes.api.errors import HeroesError, InvalidSpec, NotSignedIn, Unavailable, from_body, to_body
from heroes_spawners.site import Chunk

QUESTION_BYTES = 64 * 2**10
ANSWER_BYTES = 16 * 2**20
TIMEOUT_S = 30.0
Functions = Mapping[str, Callable[..., Any]]


class Server:
    """Answers questions while its block lasts. `address` is "unix:<path>", "tcp:<host>:<port>", or "" for none."""

    def __init__(self, address: str, secret: bytes, functions: Functions) -> None:
        self._address, self._secret, self._functions = address, secret, functions
        self._server: socketserver.BaseServer | None = None

    def __enter__(self) -> Server:
        if self._address:
            self._server = _listening(self._address)
            self._server.answer = self._answer  # type: ignore[attr-defined]
            threading.Thread(target=self._server.serve_forever, args=(0.1,), name="rpc", daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, nonce: str, line: bytes) -> dict[str, Any]:
        try:
            question = self._checked(nonce, line)
            function = self._functions.get(question["ask"])
            if function is None:
                raise InvalidSpec(f"the engine answers no {question['ask']!r}", hint="Upgrade the engine.")
            return {"answer": _plain(function(**question["arguments"]))}
        except HeroesError as error:
            return to_body(error) | {"status": error.status}

    def _checked(self, nonce: str, line: bytes) -> dict[str, Any]:
        try:
            told = json.loads(line)
            question, mac = told["question"], told["mac"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidSpec("the question is not a JSON object", hint="Upgrade whoever asks.") from error
        if not hmac.compare_digest(mac, _mac(self._secret, nonce, question)):
            raise NotSignedIn("the question is not signed with the engine's secret", hint="Give both the same secret.")
        found: dict[str, Any] = json.loads(question)
        return found


def _mac(secret: bytes, nonce: str, question: str) -> str:
    return hmac.new(secret, f"{nonce}\n{question}".encode(), "sha256").hexdigest()


def _plain(answer: Any) -> Any:
    if isinstance(answer, Chunk):
        return {"data": base64.b64encode(answer.data).decode(), "next_offset": answer.next_offset}
    if is_dataclass(answer) and not isinstance(answer, type):
        return asdict(answer)
    return answer


class _Handler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT_S

    def handle(self) -> None:
        nonce = secrets.token_hex(16)
        try:
            self.wfile.write(nonce.encode() + b"\n")
            line = self.rfile.readline(QUESTION_BYTES)
            answer = self.server.answer(nonce, line)  # type: ignore[attr-defined]
            self.wfile.write(json.dumps(answer).encode() + b"\n")
        except OSError:
            return  # whoever asked has gone


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def _listening(address: str) -> socketserver.BaseServer:
    kind, _, where = address.partition(":")
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return _Tcp((host, int(port)), _Handler)
    path = Path(where)
    path.unlink(missing_ok=True)
    server = _Unix(str(path), _Handler)
    path.chmod(0o600)
    return server


def ask(address: str, secret: bytes, function: str, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Any:
    """The answer to one question; raises what the engine raised, or Unavailable where it does not answer."""
    try:
        with _connected(address, timeout_s) as connection, connection.makefile("rwb") as stream:
            nonce = stream.readline(100).decode().strip()
            question = json.dumps({"ask": function, "arguments": arguments})
            told = {"question": question, "mac": _mac(secret, nonce, question)}
            stream.write(json.dumps(told).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.readline(ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise Unavailable(f"the engine does not answer ({error})", hint="Try again in a few seconds.") from error
    if "error" in answer:
        raise from_body(answer, answer.get("status", 500))
    return answer["answer"]


def _connected(address: str, timeout_s: float) -> socket.socket:
    kind, _, where = address.partition(":")
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return socket.create_connection((host, int(port)), timeout_s)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    connection.connect(where)
    return connection


class Engines:
    """What handlers ask: the engine that holds a cluster, at the address that its lease names."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def tail(self, address: str | None, cluster: str, key: str, stream: str, offset: int, limit: int) -> Chunk:
        """Part of a log of an attempt, as it stands at the cluster."""
        told = self._ask(address, "tail", cluster=cluster, key=key, stream=stream, offset=offset, limit=limit)
        return Chunk(base64.b64decode(told["data"]), told["next_offset"])

    def _ask(self, address: str | None, function: str, **arguments: Any) -> Any:
        if not address:
            raise Unavailable("no engine serves this cluster", hint="Start one: `heroes up`.")
        return ask(address, self._secret, function, **arguments)
