"""Answers uploads: the body goes to the function while it comes, at any size."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

from tornado import web

from heroes.api.errors import HeroesError, InvalidSpec, Unavailable
from heroes_core.http import OperationHandler
from heroes_core.module import perform

_JSON_LIMIT = 16 * 2**20
_UPLOAD_LIMIT = 5 * 2**40
#: What is read and thrown away of an upload that is refused: who is still sending would see a cut connection instead of
#: the refusal.
_DRAIN_LIMIT = 2**28


class _Cut:
    """Stands in the queue where the sender went away."""


@web.stream_request_body
class UploadHandler(OperationHandler):
    """Answers a path that takes uploads: the body goes to the function while it comes."""

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        """Lift the limit of the body; begin the function. A refusal waits until the body has been read."""
        self.request.connection.set_max_body_size(_UPLOAD_LIMIT)  # type: ignore[union-attr]
        self._chunks: queue.Queue[bytes | _Cut | None] = queue.Queue(maxsize=16)
        self._body = bytearray()
        self._drained = 0
        self._task: asyncio.Future[Any] | None = None
        self._refusal: HeroesError | web.HTTPError | None = None
        try:
            await super().prepare()
            self._begin()
        except (HeroesError, web.HTTPError) as refusal:
            self._refusal = refusal

    def _begin(self) -> None:
        assert self.one is not None
        if self.one.operation.upload:
            request = self._request(self.one.operation, {**self.path_kwargs})
            call = self._call()
            call.upload = self._parts()
            self._task = asyncio.ensure_future(self._in_streams(perform, self.one, call, request))

    async def data_received(self, chunk: bytes) -> None:
        """Hand over a chunk; slow the sender down when the function is slower."""
        if self._refusal is not None:
            self._drain(chunk)
        elif self._task is not None:
            if not await self._hand_over(chunk):
                self._drain(chunk)
        else:
            self._body += chunk
            if len(self._body) > _JSON_LIMIT:
                self._refusal = InvalidSpec("The body is too large.", hint=f"Send at most {_JSON_LIMIT} bytes.")

    def _drain(self, chunk: bytes) -> None:
        self._drained += len(chunk)
        if self._drained > _DRAIN_LIMIT:
            raise self._refusal or Unavailable("The upload was refused.", hint="Send it again.")

    async def _hand_over(self, chunk: bytes | _Cut | None) -> bool:
        """Whether the function still took it."""
        assert self._task is not None
        while not self._task.done():
            try:
                self._chunks.put_nowait(chunk)
            except queue.Full:
                await asyncio.sleep(0.005)
            else:
                return True
        return False

    async def _answer(self, path: dict[str, str]) -> None:
        if self._refusal is not None:
            raise self._refusal
        if self._task is None:
            self.request.body = bytes(self._body)
            await super()._answer(path)
            return
        await self._hand_over(None)
        answer = await self._task
        self.set_header("Content-Type", "application/json")
        self.finish(answer.model_dump_json())

    def _parts(self) -> Iterator[bytes]:
        while (part := self._chunks.get()) is not None:
            if isinstance(part, _Cut):
                raise Unavailable("The upload was cut off.", hint="Send it again.")
            yield part

    def on_connection_close(self) -> None:
        """The sender went away: let the function fail, so that nothing half-sent becomes visible."""
        if self._task is not None and not self._task.done():
            asyncio.ensure_future(self._hand_over(_Cut()))  # noqa: RUF006 - ends with the task that it waits for
