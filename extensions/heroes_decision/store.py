"""Tables of the decision: decisions, rings of what was observed, and predicted against actual."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from heroes_core.store import Instant, JSONText, metadata, name_column
from heroes_core.work import Work
from heroes_decision.history import LONGEST

decision = sa.Table(
    "decision",
    metadata,
    name_column("id", primary_key=True),
    name_column("organisation"),
    name_column("user"),
    sa.Column("asked", JSONText, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    #: Digest of the template's version, and of the inputs as they were.
    sa.Column("template_digest", sa.String(80), nullable=False),
    sa.Column("inputs", JSONText, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False, index=True),
    sa.Column("place", sa.String(140), nullable=False, server_default=""),
    sa.Column("instance", sa.String(64), nullable=False, server_default=""),
)

ring = sa.Table(
    "decision_ring",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("seen", JSONText, nullable=False),
)

outcome = sa.Table(
    "decision_outcome",
    metadata,
    name_column("key", primary_key=True),
    name_column("organisation"),
    sa.Column("at", Instant, nullable=False),
    sa.Column("facts", JSONText, nullable=False),
    sa.Index("ix_decision_outcome_organisation_at", "organisation", "at", "key"),
)

#: How many jobs ended, and how many of them at or below each quantile.
coverage = sa.Table(
    "decision_coverage",
    metadata,
    name_column("organisation", primary_key=True),
    sa.Column("quantile", sa.String(8), primary_key=True),
    sa.Column("jobs", sa.BigInteger, nullable=False),
    sa.Column("run", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False),
)


def add(work: Work, **values: Any) -> None:
    """Keep a decision."""
    work.execute(sa.insert(decision).values(**values))


def find(work: Work, organisation: str, user: str, decision_id: str) -> sa.Row[Any] | None:
    """A user's own decision."""
    here = sa.and_(decision.c.id == decision_id, decision.c.organisation == organisation, decision.c.user == user)
    return work.execute(sa.select(decision).where(here)).one_or_none()


def take(work: Work, decision_id: str, place: str, instance: str) -> bool:
    """Note the place that was chosen; False when the decision was used before."""
    here = sa.and_(decision.c.id == decision_id, decision.c.instance == "")
    done = work.execute(sa.update(decision).where(here).values(place=place, instance=instance))
    return done.rowcount == 1


def forget(work: Work, before: datetime, limit: int = 1000) -> int:
    """Delete decisions that expired before then and were not used; how many."""
    old = sa.select(decision.c.id).where(decision.c.expires_at < before, decision.c.instance == "").limit(limit)
    return work.execute(sa.delete(decision).where(decision.c.id.in_(old))).rowcount


def rings(work: Work, names: Iterable[str]) -> dict[str, list[list[float]]]:
    """What the rings of these names hold, oldest first."""
    wanted = sorted(set(names))
    rows = work.execute(sa.select(ring).where(ring.c.name.in_(wanted))).all()
    return {row.name: row.seen for row in rows}


def remember(work: Work, news: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Append observations to their rings. Rows are locked in the order of their names."""
    for name in sorted(news):
        work.execute(_insert(work)(ring).values(name=name, seen=[]).on_conflict_do_nothing())
        here = ring.c.name == name
        held = work.execute(sa.select(ring.c.seen).where(here).with_for_update()).scalar_one()
        seen = [*held, *[list(each) for each in news[name]]][-LONGEST:]
        work.execute(sa.update(ring).where(here).values(seen=seen))


def known(work: Work, keys: Iterable[str]) -> set[str]:
    """Those of the keys whose outcome is kept."""
    return set(work.execute(sa.select(outcome.c.key).where(outcome.c.key.in_(sorted(keys)))).scalars())


def add_outcomes(work: Work, rows: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Keep predicted and actual figures of jobs: (key, organisation, facts)."""
    values = [{"key": key, "organisation": owner, "at": work.now, "facts": dict(facts)} for key, owner, facts in rows]
    if values:
        work.execute(_insert(work)(outcome).on_conflict_do_nothing(), values)


def count(work: Work, organisation: str, within: Mapping[str, tuple[int, int, int]]) -> None:
    """Add jobs to the organisation's coverage: {quantile: (jobs, runs at or below it, costs at or below it)}."""
    for quantile in sorted(within):
        jobs, run, cost = within[quantile]
        row = {"organisation": organisation, "quantile": quantile, "jobs": jobs, "run": run, "cost": cost}
        statement = _insert(work)(coverage).values(**row)
        added = {name: coverage.c[name] + row[name] for name in ("jobs", "run", "cost")}
        work.execute(statement.on_conflict_do_update(index_elements=["organisation", "quantile"], set_=added))


def outcomes(work: Work, organisation: str, after: tuple[datetime, str] | None, limit: int) -> Sequence[sa.Row[Any]]:
    """A page of outcomes, newest first."""
    query = sa.select(outcome).where(outcome.c.organisation == organisation)
    if after is not None:
        at, key = after
        older = sa.or_(outcome.c.at < at, sa.and_(outcome.c.at == at, outcome.c.key < key))
        query = query.where(older)
    return work.execute(query.order_by(outcome.c.at.desc(), outcome.c.key.desc()).limit(limit)).all()


def covered(work: Work, organisation: str) -> Sequence[sa.Row[Any]]:
    """The organisation's coverage, a row for each quantile."""
    query = sa.select(coverage).where(coverage.c.organisation == organisation).order_by(coverage.c.quantile)
    return work.execute(query).all()


def _insert(work: Work) -> Any:
    return postgresql.insert if work.connection.dialect.name == "postgresql" else sqlite.insert
