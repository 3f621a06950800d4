"""The table of agreements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from heroes_core.store import Instant, metadata, name_column
from heroes_core.work import Work

agreement = sa.Table(
    "agreement",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("cluster", primary_key=True),
    name_column("queue", primary_key=True),
    sa.Column("terms", sa.Text, nullable=False),
    sa.Column("since", Instant, nullable=False),
)

#: Units of `target` for one unit of `source`, as a decimal string.
exchange_rate = sa.Table(
    "exchange_rate",
    metadata,
    sa.Column("source", sa.String(3), primary_key=True),
    sa.Column("target", sa.String(3), primary_key=True),
    sa.Column("rate", sa.String(40), nullable=False),
)


def rates(work: Work) -> dict[tuple[str, str], str]:
    """Every rate."""
    rows = work.execute(sa.select(exchange_rate)).all()
    return {(row.source, row.target): row.rate for row in rows}


def set_rate(work: Work, source: str, target: str, rate: str) -> None:
    """Set one rate."""
    same = sa.and_(exchange_rate.c.source == source, exchange_rate.c.target == target)
    work.execute(sa.delete(exchange_rate).where(same))
    work.execute(sa.insert(exchange_rate).values(source=source, target=target, rate=rate))


def of(work: Work, organisation: str) -> Sequence[sa.Row[Any]]:
    """The agreements of an organisation."""
    query = sa.select(agreement).where(agreement.c.organisation == organisation)
    return work.execute(query.order_by(agreement.c.cluster, agreement.c.queue)).all()


def every(work: Work) -> Sequence[sa.Row[Any]]:
    """All agreements."""
    return work.execute(sa.select(agreement)).all()


def any_at_all(work: Work) -> bool:
    """Whether the platform keeps agreements."""
    return work.execute(sa.select(agreement.c.cluster).limit(1)).first() is not None


def add(work: Work, organisation: str, cluster: str, queue: str, terms: str) -> None:
    """Add one."""
    row = {"organisation": organisation, "cluster": cluster, "queue": queue, "terms": terms, "since": work.now}
    work.execute(sa.insert(agreement).values(**row))


def remove(work: Work, organisation: str, cluster: str, queue: str) -> None:
    """Remove one."""
    same = sa.and_(agreement.c.organisation == organisation, agreement.c.cluster == cluster, agreement.c.queue == queue)
    work.execute(sa.delete(agreement).where(same))
