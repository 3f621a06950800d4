"""Requests to the API over HTTP, or HTTP over a Unix socket (`http+unix://%2Frun%2Fapi.sock/prefix`).

Only what may safely be sent twice is sent again: reads, and creations, which carry an idempotency key. Anything else is
repeated only when it certainly never left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from heroes.api.errors import HeroesError, InvalidSpec, Unavailable, from_body

TRIES = 4
#: A server that asks to be left alone for longer (s) is left alone: its answer is the caller's.
LONGEST_PAUSE = 3.0
CHUNK = 1 << 20


@dataclass(frozen=True)
class Sending:
    """One request: where and what. `repeatable`: it does no harm when it arrives twice."""

    method: str
    path: str
    query: list[tuple[str, str | int | float | bool | None]] = field(default_factory=list)
    body: Any = None
    content: Iterable[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = False


class Transport:
    """A connection to one API. Thread-safe; closes with `close()`."""

    def __init__(
        self, url: str, token: str = "", *, timeout: float = 30.0, pause: Callable[[float], None] = time.sleep
    ):
        base, transport = _address(url)
        self.url = url
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pause = pause
        self._client = httpx.Client(
            base_url=base,
            headers=headers,
            transport=transport,
            timeout=timeout,
            follow_redirects=False,
            trust_env=not _is_local(base),
            verify=base.startswith("https:"),  # else there is nothing to verify, and loading certificates costs 30 ms
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def send(self, sending: Sending, *, timeout: float | None = None) -> bytes:
        """The body of a good answer; the error that a bad one tells of."""
        with self.stream(sending, timeout=timeout) as response:
            return self._read(response)

    @contextmanager
    def stream(self, sending: Sending, *, timeout: float | None = None) -> Iterator[httpx.Response]:
        """A good answer, unread."""
        response = self._answer(sending, timeout)
        try:
            yield response
        except httpx.HTTPError as error:
            raise self._cut_off(error) from error
        finally:
            response.close()

    def _answer(self, sending: Sending, timeout: float | None) -> httpx.Response:
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(sending, timeout)
            except (Unavailable, httpx.TransportError) as error:
                wait = _wait(error, sending, attempt)
                if wait is None:
                    raise (error if isinstance(error, HeroesError) else self._unreachable(error)) from error
                self._pause(wait)
        raise AssertionError("the last try returns or raises")

    def _once(self, sending: Sending, timeout: float | None) -> httpx.Response:
        request = self._client.build_request(
            sending.method,
            sending.path.lstrip("/"),
            params=sending.query,
            json=sending.body,
            content=sending.content,
            headers=sending.headers,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        )
        response = self._client.send(request, stream=True)
        if response.is_success:
            return response
        try:
            raise _told(response)
        finally:
            response.close()

    def _read(self, response: httpx.Response) -> bytes:
        try:
            return response.read()
        except httpx.HTTPError as error:
            raise self._cut_off(error) from error

    def _unreachable(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"The platform at {self.url} cannot be reached: {error or type(error).__name__}.",
            hint="Is it running (`heroes status`), and is the address (HEROES_API_URL) right?",
        )

    def _cut_off(self, error: Exception) -> Unavailable:
        return Unavailable(f"The answer of {self.url} was cut off: {error or type(error).__name__}.", hint="Try again.")


def _wait(error: Exception, sending: Sending, attempt: int) -> float | None:
    """Seconds until the next try; None when there is none."""
    never_left = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    if attempt == TRIES or sending.content is not None or not (sending.repeatable or never_left):
        return None
    asked = error.retry_after if isinstance(error, Unavailable) else 0.2 * 2 ** (attempt - 1)
    return None if asked > LONGEST_PAUSE else asked * random.uniform(0.8, 1.2)  # noqa: S311


def _told(response: httpx.Response) -> HeroesError:
    try:
        body = httpx.Response(response.status_code, content=response.read()).json()
    except (ValueError, httpx.HTTPError):
        body = {}
    return from_body(body if isinstance(body, dict) else {}, response.status_code)


def _is_local(url: str) -> bool:
    """Whether a proxy of the environment has no business in between."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1", "heroes")


def _address(url: str) -> tuple[str, httpx.BaseTransport | None]:
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        socket = unquote(parts.netloc.removesuffix(":80"))
        return f"http://heroes{parts.path.rstrip('/')}/", httpx.HTTPTransport(uds=socket)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidSpec(
            f"{url!r} is not the address of an API.", hint="It begins with http://, https:// or http+unix://."
        )
    return f"{url.rstrip('/')}/", None
