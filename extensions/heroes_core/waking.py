"""Who waits for news is woken by a commit: LISTEN on PostgreSQL, the watched `data_version` on SQLite.

A wake-up is a hint, never a message: whoever is woken reads the tables. Missing one costs the scan interval at most.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

_LOOK_S = 0.1
_RECONNECT_S = 1.0


class Waker:
    """Counts commits in a thread of its own; `wait` returns when the count moves on."""

    def __init__(self, watch: Callable[[Waker], None]) -> None:
        self._count = 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=watch, args=(self,), name="waker", daemon=True)
        self._seen = threading.local()
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for a commit after this thread's last call; False when `seconds` passed without one."""
        with self._changed:
            before = getattr(self._seen, "count", self._count)
            moved = self._changed.wait_for(lambda: self._count != before, seconds)
            self._seen.count = self._count
            return moved

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener`, from the waker's thread, at each commit."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Somebody has committed."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()
        for listener in self._listeners:
            listener()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(5)

    @property
    def stopping(self) -> threading.Event:
        """Set once the thread is to end."""
        return self._stopped


def waker_for(url: sa.URL, dialect: str) -> Waker:
    """The waker of a database."""
    if dialect == "postgresql":
        return Waker(lambda waker: _listen(waker, url))
    return Waker(lambda waker: _look(waker, url.database or ""))


def _look(waker: Waker, path: str) -> None:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        before = _version(connection)
        while not waker.stopping.wait(_LOOK_S):
            now = _version(connection)
            if now != before:
                before = now
                waker.wake()
    finally:
        connection.close()


def _version(connection: sqlite3.Connection) -> Any:
    return connection.execute("PRAGMA data_version").fetchone()[0]


def _listen(waker: Waker, url: sa.URL) -> None:
    import psycopg

    target = url.set(drivername="postgresql").render_as_string(hide_password=False)
    while not waker.stopping.is_set():
        try:
            with psycopg.connect(target, autocommit=True) as connection:
                connection.execute("LISTEN heroes")
                waker.wake()  # what was committed before we listened
                while not waker.stopping.is_set():
                    for _ in connection.notifies(timeout=_LOOK_S, stop_after=1):
                        waker.wake()
        except psycopg.OperationalError:
            time.sleep(_RECONNECT_S)
