"""Answers operations over HTTP: caller, request, the function in a thread, answer."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import re
import time
import types
import typing
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError

from heroes.api.errors import HeroesError, InvalidSpec, NotFound, Refused, Unavailable, to_body
from heroes.api.ids import new_ulid
from heroes.api.model import Model
from heroes.api.registry import ANYBODY, Operation, parse
from heroes_core.logs import labels
from heroes_core.metrics import ERRORS, REQUEST_SECONDS
from heroes_core.module import Bound, Call, admit, perform
from heroes_core.runtime import Runtime
from heroes_core.tokens import Known

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Fields of requests that say what a request is about, and the label of a log line that each becomes.
_LABELLED = {
    "project": "project",
    "workflow_instance_id": "workflow",
    "instance": "workflow",
    "template": "template",
    "step": "step",
    "key": "job",
    "cluster_id": "cluster",
}


@dataclass(frozen=True)
class Download:
    """What a download sends: its bytes in parts, how the browser names and shows it, its size where known."""

    parts: Iterator[bytes]
    name: str = ""
    content_type: str = "application/octet-stream"
    size: int | None = None


class OperationHandler(JupyterHandler):
    """Answers the operations of one path."""

    bound: typing.ClassVar[dict[str, Bound]] = {}
    runtime: typing.ClassVar[Runtime]
    heroes_refusal: HeroesError | None = None

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        """Find the operation and the caller before a body is read."""
        self._began = time.perf_counter()
        sent = self.request.headers.get("X-Request-Id", "")
        self.request_id = sent if _REQUEST_ID.fullmatch(sent) else new_ulid()
        self.set_header("X-Request-Id", self.request_id)
        self.one = self.bound.get(self.request.method or "")
        if self.one is None:
            raise web.HTTPError(405)
        await super().prepare()
        if self.heroes_refusal is not None and ANYBODY not in self.one.operation.rights:
            raise self.heroes_refusal
        user = self.current_user
        self.caller = admit(self.one.operation, user.caller if isinstance(user, Known) else None)

    def check_xsrf_cookie(self) -> None:
        """No cookie identifies anybody here."""

    def compute_etag(self) -> str | None:
        """None: answers are read afresh, and hashing them costs."""
        return None

    @allow_unauthenticated
    async def get(self, **path: str) -> None:
        """Answer the GET operation."""
        await self._answer(path)

    @allow_unauthenticated
    async def post(self, **path: str) -> None:
        """Answer the POST operation."""
        await self._answer(path)

    @allow_unauthenticated
    async def patch(self, **path: str) -> None:
        """Answer the PATCH operation."""
        await self._answer(path)

    @allow_unauthenticated
    async def delete(self, **path: str) -> None:
        """Answer the DELETE operation."""
        await self._answer(path)

    async def _answer(self, path: dict[str, str]) -> None:
        assert self.one is not None
        request = self._request(self.one.operation, path)
        call = self._call()
        self._about = self._labels(self.one.operation, request)
        with labels(**self._about):
            if self.one.waits:
                answer = await self._wait(call, request)
            else:
                key = self.request.headers.get("Idempotency-Key", "")
                answer = await self._in_pool(perform, self.one, call, request, key)
            if self.one.operation.download:
                await self._send(answer)
            else:
                self.set_header("Content-Type", "application/json")
                self.finish(answer.model_dump_json())

    def _call(self) -> Call:
        return Call(self.caller, self.runtime.database, self.runtime.services, self.request_id)

    def _labels(self, operation: Operation, request: Model) -> dict[str, str]:
        about = {
            label: str(getattr(request, name))
            for name, label in _LABELLED.items()
            if name in type(request).model_fields and getattr(request, name)
        }
        who = {"user": self.caller.user, "organisation": self.caller.organisation}
        return {"request": self.request_id, "operation": operation.name, **who, **about}

    def _request(self, operation: Operation, path: dict[str, str]) -> Any:
        if not operation.in_body:
            return parse(operation.request, {**self._query(operation), **path})
        try:
            body = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise InvalidSpec(f"The body is not JSON: {error}.", hint="Send a JSON object.") from None
        if not isinstance(body, dict):
            raise InvalidSpec("The body is not a JSON object.", hint="Send a JSON object.")
        return parse(operation.request, {**body, **path})

    def _query(self, operation: Operation) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name in self.request.query_arguments:
            given = self.get_query_arguments(name, strip=False)
            field = operation.request.model_fields.get(name)
            values[name] = given if field is not None and _is_list(field.annotation) else given[-1]
        return values

    async def _in_pool(self, function: Any, *arguments: Any) -> Any:
        return await self._in(self.runtime.pool, function, *arguments)

    async def _in_streams(self, function: Any, *arguments: Any) -> Any:
        """In a thread that may be held for as long as the other side takes."""
        return await self._in(self.runtime.streams, function, *arguments)

    async def _in(self, pool: Executor, function: Any, *arguments: Any) -> Any:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(function, *arguments))

    async def _wait(self, call: Call, request: Any) -> Any:
        """Ask again after each commit, without holding a thread, until there is an answer or the time is over."""
        assert self.one is not None
        deadline = time.monotonic() + float(getattr(request, "wait", 0))
        while True:
            changed = self.runtime.news.next()
            left = deadline - time.monotonic()
            call.final = left <= 0
            answer = await self._in_pool(perform, self.one, call, request)
            if answer is not None:
                return answer
            try:
                await asyncio.wait_for(changed.wait(), max(left, 0.001))
                await asyncio.sleep(0.05)  # several commits in a burst are one reason to look
            except TimeoutError:
                continue
            if self.request.connection.stream.closed():  # type: ignore[union-attr]
                raise StreamClosedError

    async def _send(self, parts: Any) -> None:
        """Send the bytes of a download as they come. The function may give (name, type, bytes…) by a `Download`."""
        download = parts if isinstance(parts, Download) else Download(parts)
        self.set_header("Content-Type", download.content_type)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'")
        if download.name:
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(download.name, safe='')}")
        if download.size is not None:
            self.set_header("Content-Length", str(download.size))
        chunks = iter(download.parts)
        while (part := await self._in_streams(next, chunks, None)) is not None:
            self.write(part)
            await self.flush()
        self.finish()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error has the one shape of the contract."""
        error, status = _as_heroes((kwargs.get("exc_info") or (None, None, None))[1], self.request)
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        if isinstance(error, Unavailable):
            self.set_header("Retry-After", str(max(1, round(error.retry_after))))
        ERRORS.labels(type(error).__name__).inc()
        self.finish(json.dumps(to_body(error), default=str))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """A refusal is an answer, not an accident."""
        if isinstance(value, (HeroesError, web.HTTPError, StreamClosedError)):
            log.debug("%s %s: %s", self.request.method, self.request.path, value)
        else:
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def on_finish(self) -> None:
        """Count it and log it."""
        took = time.perf_counter() - getattr(self, "_began", time.perf_counter())
        one = getattr(self, "one", None)
        name = one.operation.name if one else "none"
        REQUEST_SECONDS.labels(name, str(self.get_status())).observe(took)
        caller = getattr(self, "caller", None)
        who = {"user": caller.user, "organisation": caller.organisation} if caller else {}
        told = {"request": getattr(self, "request_id", ""), "operation": name, **who, **getattr(self, "_about", {})}
        with labels(**told):
            log.info("%s %s %d %.1f ms", self.request.method, self.request.path[:200], self.get_status(), took * 1e3)


class NothingHere(OperationHandler):
    """Answers every path that the contract does not declare."""

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        """404, whoever asks."""
        self._began = time.perf_counter()
        self.request_id = new_ulid()
        raise NotFound(
            f"There is no {self.request.method} {self.request.path[:200]} here.",
            hint="GET /reference lists what there is.",
        )


def _as_heroes(error: BaseException | None, request: Any) -> tuple[HeroesError, int]:
    """What the body tells, and the status."""
    if isinstance(error, HeroesError):
        return error, error.status
    if isinstance(error, web.HTTPError) and error.status_code < 500:
        told = error.log_message or error.reason or f"{request.method} {request.path[:200]} is refused"
        return Refused(told, hint="GET /reference lists what there is."), error.status_code
    failed = HeroesError("Something went wrong here.", hint="Try again; an operator finds the request in the logs.")
    return failed, failed.status


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_is_list(each) for each in typing.get_args(annotation))
    return origin in (list, tuple, set, frozenset)
