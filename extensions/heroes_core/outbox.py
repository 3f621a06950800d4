"""News travels upward as outbox rows: written with the change, handed to those who subscribed, then deleted.

A row is handed over and deleted in one transaction with what its subscribers write, so it takes effect exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes_core.store import outbox
from heroes_core.work import Database, Work


@dataclass(frozen=True)
class News:
    """One outbox row."""

    kind: str
    organisation: str
    subject: str
    at: datetime
    detail: dict[str, Any]


Subscriber = Callable[[Work, News], None]


def dispatch(database: Database, subscribers: Mapping[str, Sequence[Subscriber]], batch: int = 200) -> int:
    """Hand over at most `batch` rows, oldest first; how many there were."""
    with database.read() as work:
        if work.execute(sa.select(outbox.c.id).limit(1)).first() is None:
            return 0
    with database.write() as work:
        waiting = sa.select(outbox).order_by(outbox.c.id).limit(batch).with_for_update(skip_locked=True)
        rows = work.execute(waiting).all()
        for row in rows:
            news = News(row.kind, row.organisation, row.subject, row.at, row.detail)
            for subscriber in subscribers.get(row.kind, ()):
                subscriber(work, news)
        work.execute(sa.delete(outbox).where(outbox.c.id.in_([row.id for row in rows])))
        return len(rows)
