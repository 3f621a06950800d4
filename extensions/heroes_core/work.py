"""The unit of work: one transaction, its time, and what is written with it (audit records, outbox rows).

Only a handler, an engine step or a command opens one, and no transaction spans IO.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from heroes.api.errors import StoreBusy
from heroes_core import audit
from heroes_core.clock import Clock, SystemClock
from heroes_core.store import canonical, outbox
from heroes_core.waking import Waker, waker_for

#: SQLSTATEs of PostgreSQL after which the whole transaction may be tried again: serialization failure and deadlock.
_AGAIN = frozenset({"40001", "40P01"})
_BUSY_MS = 30_000
T = TypeVar("T")


@dataclass(frozen=True)
class Caller:
    """Who asks: a user of an organisation, and the rights that the directory gives now."""

    organisation: str
    user: str
    rights: frozenset[str]
    token_id: str = ""
    #: A user that is a program.
    program: bool = False
    #: Of the HEROES organisation, which runs the platform.
    platform: bool = False

    @property
    def actor(self) -> str:
        """As audit records name the caller."""
        return f"{self.user}@{self.organisation}"


@dataclass
class Work:
    """An open unit of work. `now` is UTC and the same throughout."""

    connection: sa.Connection
    now: datetime
    _audits: list[audit.Record] = field(default_factory=list)
    _news: list[dict[str, Any]] = field(default_factory=list)
    _afterwards: list[Callable[[], None]] = field(default_factory=list)
    _wakes: bool = False
    _gathered: dict[Callable[[Work, list[Any]], None], list[Any]] = field(default_factory=dict)

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Run one statement."""
        return self.connection.execute(statement, parameters)

    def audit(self, organisation: str, actor: str, action: str, subject: str, **detail: Any) -> None:
        """Add a record to the organisation's chain, in this transaction."""
        self._audits.append(audit.Record(organisation, self.now, actor, action, subject, canonical(detail)))

    def emit(self, kind: str, organisation: str, subject: str, **detail: Any) -> None:
        """Tell those above, in this transaction: an outbox row. Wakes the engine and waiters once committed."""
        self._news.append(
            {"at": self.now, "kind": kind, "organisation": organisation, "subject": subject, "detail": detail}
        )

    def gather(self, write: Callable[[Work, list[Any]], None], item: Any) -> None:
        """Call `write(work, items)` once, with all items gathered for it, as the last act of this transaction: for
        what costs the same for one and for many."""
        self._gathered.setdefault(write, []).append(item)

    def wake(self) -> None:
        """Let whoever waits for a commit look again, without news to hand over."""
        self._wakes = True

    def after_commit(self, action: Callable[[], None]) -> None:
        """Call `action` once the transaction has been committed, and not otherwise."""
        self._afterwards.append(action)


class Database:
    """The store: SQLite (one machine) or PostgreSQL. `url` as SQLAlchemy takes it."""

    def __init__(self, url: str, *, audit_key: bytes, clock: Clock | None = None, pool_size: int = 10) -> None:
        self.url = sa.make_url(url)
        if self.url.drivername == "postgresql":
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.dialect = self.url.get_backend_name()
        self.clock: Clock = clock or SystemClock()
        self.audit_key = audit_key
        self.engine = _engine(self.url, self.dialect, pool_size)
        self._waker: Waker | None = None

    @contextmanager
    def read(self) -> Iterator[Work]:
        """A unit of work that only reads."""
        with self._translated(), self.engine.connect() as connection, connection.begin():
            yield Work(connection, self.clock.now())

    @contextmanager
    def write(self) -> Iterator[Work]:
        """A unit of work that commits when the block ends well, and leaves nothing behind otherwise."""
        with self._translated():
            with self._writing.connect() as connection, connection.begin():
                work = Work(connection, self.clock.now())
                yield work
                self._finish(work)
            for action in work._afterwards:
                action()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody commits news, `seconds` at most; whether somebody did."""
        return self.waker.wait(seconds)

    @property
    def waker(self) -> Waker:
        """What tells of commits; its thread starts with the first question."""
        if self._waker is None:
            self._waker = waker_for(self.url, self.dialect)
        return self._waker

    def close(self) -> None:
        """Close every connection."""
        if self._waker is not None:
            self._waker.stop()
        self.engine.dispose()

    @property
    def _writing(self) -> sa.Engine:
        if self.dialect == "sqlite":
            return self.engine.execution_options(heroes_immediate=True)
        return self.engine

    def _finish(self, work: Work) -> None:
        for write, items in work._gathered.items():
            write(work, items)
        if work._news:
            work.connection.execute(sa.insert(outbox), work._news)
        if (work._news or work._wakes) and self.dialect == "postgresql":
            work.connection.exec_driver_sql("NOTIFY heroes")
        if work._audits:
            audit.append(work.connection, self.audit_key, work._audits)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:
            state = getattr(error.orig, "sqlstate", None)
            if state in _AGAIN or "locked" in str(error.orig) or error.connection_invalidated:
                raise StoreBusy("The database is busy.", hint="Try again in a moment.", retry_after=1.0) from error
            raise


def again(action: Callable[[], T], tries: int = 5) -> T:
    """Do `action`, one whole transaction, again while the database asks for it."""
    for attempt in range(1, tries):
        try:
            return action()
        except StoreBusy:
            time.sleep(0.02 * attempt)
    return action()


def _engine(url: sa.URL, dialect: str, pool_size: int) -> sa.Engine:
    if dialect == "postgresql":
        # Each use of a connection ends its transaction itself: another rollback when it is given back is for nothing.
        return sa.create_engine(url, pool_size=pool_size, max_overflow=pool_size, pool_reset_on_return=None)
    engine = sa.create_engine(
        url, pool_size=pool_size, max_overflow=pool_size, connect_args={"check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would begin transactions by itself, deferred
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        immediate = connection.get_execution_options().get("heroes_immediate")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
