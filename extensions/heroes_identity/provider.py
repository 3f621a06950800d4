"""Tells the API who holds a token of the embedded directory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from heroes_core.work import Caller, Database
from heroes_identity import tokens
from heroes_identity.freshness import FRESHNESS
from heroes_identity.model import digest


@dataclass(frozen=True)
class _Remembered:
    caller: Caller
    until: datetime
    change: int


class EmbeddedIdentityProvider:
    """Implements core's `IdentityProvider`: remembers a caller for `seconds`, at most `most` of them.

    A change of identity made in this process is seen by the next request; one made in another, within `seconds`."""

    def __init__(self, database: Database, *, seconds: float = 15.0, most: int = 10_000) -> None:
        self._database = database
        self._life = timedelta(seconds=seconds)
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[str, _Remembered] = {}

    def remembered(self, token: str) -> Caller | None:
        """The caller, if asked for not long ago and nothing changed since; never blocks."""
        known = self._known.get(digest(token))
        if known is None or known.change != FRESHNESS.count or known.until <= self._database.clock.now():
            return None
        return known.caller

    def identify(self, token: str) -> Caller:
        """The caller, with the rights of this moment; NotSignedIn says whether it is unknown, expired or revoked."""
        change = FRESHNESS.count
        with self._database.read() as work:
            bearer = tokens.bearer(work, token)
            until = work.now + self._life
        if bearer.expires_at is not None:
            until = min(until, bearer.expires_at)
        self._remember(digest(token), _Remembered(bearer.caller, until, change))
        return bearer.caller

    def _remember(self, key: str, entry: _Remembered) -> None:
        with self._lock:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = entry
