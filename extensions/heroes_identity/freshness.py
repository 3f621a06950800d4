"""Which change of identity this process saw last: what was remembered before it is forgotten at once."""

from __future__ import annotations

import threading


class Freshness:
    """Counts the committed changes of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def changed(self) -> None:
        """Something about who may do what was committed."""
        with self._lock:
            self._count += 1

    @property
    def count(self) -> int:
        """The number of changes so far. To remember an answer, read this before asking the database."""
        return self._count


FRESHNESS = Freshness()
