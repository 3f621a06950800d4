"""A pool of SSH connections, each shared by a few channels, opened at a bounded rate."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import paramiko

from heroes.api.errors import LinkDown

CHANNELS = 8
CONNECTIONS_PER_SECOND = 4


@dataclass(eq=False)
class Connection:
    """An open connection and how many channels use it; a retired one gets no further channels."""

    transport: paramiko.Transport
    uses: int = 0
    retired: bool = False
    #: Held while a channel is opened.
    opening: threading.Lock = field(default_factory=threading.Lock)

    @property
    def free(self) -> bool:
        """Whether it takes one more channel."""
        return not self.retired and self.uses < CHANNELS and self.transport.is_active()


@dataclass(eq=False)
class Pool:
    """Hands out connections. `connect(until)` opens one; at most `size` are open or being opened."""

    connect: Callable[[float], Connection]
    size: int
    _open: list[Connection] = field(default_factory=list)
    _opening: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=CONNECTIONS_PER_SECOND))
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def lease(self, until: float) -> Connection:
        """A connection with a channel to spare. `LinkDown` when none comes free before `until` (monotonic)."""
        with self._changed:
            while True:
                self._drop_dead()
                free = min((one for one in self._open if one.free), key=lambda one: one.uses, default=None)
                if free is not None:
                    free.uses += 1
                    return free
                if len(self._open) + self._opening < self.size:
                    self._opening += 1
                    break
                if not self._changed.wait(until - time.monotonic()):
                    raise LinkDown("all channels to the cluster are busy", hint="Try again in a moment.")
        return self._add(until)

    def _add(self, until: float) -> Connection:
        connection = None
        try:
            self._pace()
            connection = self.connect(until)
            connection.uses = 1
            return connection
        finally:
            with self._changed:
                self._opening -= 1
                if connection is not None:
                    self._open.append(connection)
                self._changed.notify_all()

    def _pace(self) -> None:
        """Wait until a new connection keeps within the rate."""
        with self._changed:
            now = time.monotonic()
            full = len(self._recent) == CONNECTIONS_PER_SECOND
            at = max(now, self._recent[0] + 1.0) if full else now
            self._recent.append(at)
        time.sleep(at - now)

    def release(self, connection: Connection) -> None:
        """Give a channel back."""
        with self._changed:
            connection.uses -= 1
            self._drop_dead()
            self._changed.notify_all()

    def _drop_dead(self) -> None:
        """Close what is retired and unused; forget what has died."""
        for connection in [one for one in self._open if one.retired or not one.transport.is_active()]:
            connection.retired = True
            if connection.uses == 0:
                self._open.remove(connection)
                connection.transport.close()

    def close(self) -> None:
        """Close every connection."""
        with self._changed:
            for connection in self._open:
                connection.retired = True
                connection.transport.close()
            self._open.clear()
