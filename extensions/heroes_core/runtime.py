"""What the API answers with: database, identity, services, modules, threads; and news of commits for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from heroes_core import ports
from heroes_core.module import Module, Services
from heroes_core.work import Database


@dataclass
class Runtime:
    """What the server answers with."""

    database: Database
    identity: ports.IdentityProvider
    services: Services
    modules: Sequence[Module]
    threads: int = 8

    def __post_init__(self) -> None:
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="api")
        self.streams = ThreadPoolExecutor(4 * self.threads, thread_name_prefix="stream")
        self.news = _News(self.database)


class _News:
    """Commits, for coroutines that wait: one event, replaced at each commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """An event that is set at the next commit."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._database.waker.listen(self._call)
        return self._event

    def _call(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        before, self._event = self._event, asyncio.Event()
        before.set()
