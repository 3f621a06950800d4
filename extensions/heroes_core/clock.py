"""Time, as a value that tests can hold still. Always UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Now, in UTC, aware."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Now, in UTC, aware."""
        return datetime.now(UTC)
