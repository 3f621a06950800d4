"""A TCP relay before a cluster's sshd that makes the network slow, silent or absent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.lab.cluster import LabCluster

CHUNK = 64 * 1024
#: Chunks on their way in one direction before the sender has to wait.
WINDOW = 256


@dataclass
class Weather:
    """How the network is now; every relayed chunk obeys it."""

    latency_s: float = 0.0  #: one way
    bytes_per_s: float = 0.0  #: of each connection and direction; 0 is unlimited


class Link:
    """A relay that runs. `cluster` is the cluster as reached through it: enrol that one."""

    def __init__(self, target: LabCluster, loop: asyncio.AbstractEventLoop) -> None:
        self.cluster = target
        self.weather = Weather()
        self.connections = 0  #: accepted so far
        self._target = target
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._close)

    def restore(self) -> None:
        """Accept connections again, on the same port; whatever was silent flows on."""
        self._do(self._open)
        self._loop.call_soon_threadsafe(self._flowing.set)

    def reset(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._do(self._abort)

    def silence(self) -> None:
        """Carry nothing any more, and close nothing: what a dropped route looks like."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def _do(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(step(), self._loop).result(30)

    async def _open(self) -> None:
        if self._server is None:
            port = 0 if self.cluster is self._target else self.cluster.port
            self._server = await asyncio.start_server(self._accept, self._target.host, port, reuse_address=True)
            self.cluster = replace(self._target, port=self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._abort()

    async def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """One direction of one connection: chunks wait in a queue until they are due."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WINDOW)
        deliver = asyncio.create_task(self._deliver(queue, sink))
        try:
            while data := await source.read(CHUNK):
                await queue.put((self._loop.time() + self.weather.latency_s, data))
            await queue.put((self._loop.time(), b""))
            await deliver
        except OSError:
            sink.transport.abort()
        finally:
            deliver.cancel()
            self._writers.discard(sink)

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - self._loop.time())
                await self._flowing.wait()
                if not data:
                    break
                if self.weather.bytes_per_s:
                    await asyncio.sleep(len(data) / self.weather.bytes_per_s)
                sink.write(data)
                await sink.drain()
        sink.close()


@contextlib.contextmanager
def relay(cluster: LabCluster) -> Iterator[Link]:
    """Run a relay before the cluster's sshd in a thread of its own; `link.cluster` is the way through it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"relay-{cluster.name}", daemon=True)
    thread.start()
    link = Link(cluster, loop)
    link.restore()
    try:
        yield link
    finally:
        link.cut()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
