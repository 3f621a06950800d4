"""The real API server in a thread of the test's process, on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from heroes_core.runtime import Runtime
from heroes_core.server import make_server


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    runtime: Runtime


@contextmanager
def serve(runtime: Runtime) -> Iterator[Served]:
    """Run the API until the block ends."""
    ready, stop = threading.Event(), []
    port: list[int] = []

    def run() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = make_server(runtime)
        stop.append(lambda: server.io_loop.add_callback(server.stop))

        def tell() -> None:
            port.append(server.bound_port)
            ready.set()

        server.io_loop.add_callback(tell)
        server.start()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    assert ready.wait(30), "the server did not start"
    try:
        yield Served(f"http://127.0.0.1:{port[0]}", runtime)
    finally:
        stop[0]()
        thread.join(30)
