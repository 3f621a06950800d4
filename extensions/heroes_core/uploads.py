"""Answers uploads: the body goes to the function while it comes, at any size."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

from tornado import web

from heroes.api.errors import InvalidSpec, Unavailable
from heroes_core.http import OperationHandler
from heroes_core.module import perform

_JSON_LIMIT = 16 * 2**20
_UPLOAD_LIMIT = 5 * 2**40


@web.stream_request_body
class UploadHandler(OperationHandler):
    """Answers a path that takes uploads: the body goes to the function while it comes."""

    async def prepare(self, *, _redirect_to_login: bool = False) -> None:
        """Lift the limit of the body; begin the function."""
        self.request.connection.set_max_body_size(_UPLOAD_LIMIT)  # type: ignore[union-attr]
        self._chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=16)
        self._body = bytearray()
        self._task: asyncio.Future[Any] | None = None
        await super().prepare()
        assert self.one is not None
        if self.one.operation.upload:
            request = self._request(self.one.operation, {**self.path_kwargs})
            call = self._call()
            call.upload = self._parts()
            self._task = asyncio.ensure_future(self._in_pool(perform, self.one, call, request))

    async def data_received(self, chunk: bytes) -> None:
        """Hand over a chunk; slow the sender down when the function is slower."""
        if self._task is None:
            self._body += chunk
            if len(self._body) > _JSON_LIMIT:
                raise InvalidSpec("The body is too large.", hint=f"Send at most {_JSON_LIMIT} bytes.")
            return
        while not self._task.done():
            try:
                self._chunks.put_nowait(chunk)
            except queue.Full:
                await asyncio.sleep(0.005)
            else:
                return

    async def _answer(self, path: dict[str, str]) -> None:
        if self._task is None:
            self.request.body = bytes(self._body)
            await super()._answer(path)
            return
        while not self._task.done():
            try:
                self._chunks.put_nowait(None)
                break
            except queue.Full:
                await asyncio.sleep(0.005)
        answer = await self._task
        self.set_header("Content-Type", "application/json")
        self.finish(answer.model_dump_json())

    def _parts(self) -> Iterator[bytes]:
        while (part := self._chunks.get()) is not None:
            if part == _ABORTED:
                raise Unavailable("The upload was cut off.", hint="Send it again.")
            yield part

    def on_connection_close(self) -> None:
        """The sender went away: let the function fail, so that nothing half-sent becomes visible."""
        if self._task is not None and not self._task.done():
            while True:
                try:
                    self._chunks.put_nowait(_ABORTED)
                    return
                except queue.Full:
                    self._chunks.get_nowait()


_ABORTED = b"\x00heroes-upload-aborted\x00" * 2
