"""Tables of attempts and all SQL over them, batched: one statement for many attempts.

Services write `target` (and `nudged`); everything else of an attempt is written by the engine that holds the cluster's
lease. `hold` renews the lease as the first statement of each engine transaction and so fences it: where the epoch is no
longer ours nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

import heroes_jobs.files  # noqa: F401 - its table belongs to this module
from heroes_core.store import Instant, JSONText, metadata, name_column
from heroes_core.work import Work

attempt = sa.Table(
    "attempt",
    metadata,
    name_column("key", primary_key=True),
    name_column("organisation"),
    name_column("user"),
    name_column("project", nullable=True),
    name_column("instance", index=True),
    name_column("step"),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False, server_default="1"),
    sa.Column("retry_of", sa.String(64), nullable=False, server_default=""),
    name_column("cluster"),
    name_column("queue"),
    sa.Column("target", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False, server_default=""),
    sa.Column("status", sa.String(16), nullable=False),
    #: Whether the engine has something to follow; how often what is wanted changed since the engine took note; whether
    #: it is stopped for an operator.
    sa.Column("live", sa.SmallInteger, nullable=False),
    sa.Column("nudged", sa.SmallInteger, nullable=False),
    sa.Column("halted", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("resolution", JSONText),
    sa.Column("spec", JSONText, nullable=False),
    sa.Column("reservation", JSONText, nullable=False),
    sa.Column("reservation_key", sa.String(64), nullable=False),
    sa.Column("state", JSONText, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("job_id", sa.String(64), nullable=False, server_default=""),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("submitted_at", Instant),
    sa.Column("started_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("exit_code", sa.Integer),
    sa.Column("elapsed_s", sa.Float, nullable=False, server_default="0"),
    sa.Column("moved_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cost", sa.BigInteger),
    sa.Column("currency", sa.String(3), nullable=False),
    #: When a provisional settlement becomes final.
    sa.Column("final_at", Instant),
    sa.Column("cleaned", sa.SmallInteger, nullable=False, server_default="0"),
)
# Partial indexes, so that a million ended attempts cost a turn nothing. A statement uses one only where its condition
# stands in it literally, not as a parameter: hence these.
IS_LIVE = attempt.c.live == sa.literal_column("1")
IS_NUDGED = attempt.c.nudged > sa.literal_column("0")
IS_UNCLEANED = attempt.c.cleaned == sa.literal_column("0")
for _name, _flag in (("live", IS_LIVE), ("nudged", IS_NUDGED)):
    sa.Index(f"ix_attempt_{_name}", attempt.c.cluster, sqlite_where=_flag, postgresql_where=_flag)
sa.Index(
    "ix_attempt_ended", attempt.c.cluster, attempt.c.ended_at,
    sqlite_where=IS_UNCLEANED, postgresql_where=IS_UNCLEANED,
)  # fmt: skip
sa.Index(
    "ix_attempt_final", attempt.c.cluster, attempt.c.final_at,
    sqlite_where=attempt.c.final_at.is_not(None), postgresql_where=attempt.c.final_at.is_not(None),
)  # fmt: skip

submission = sa.Table(
    "submission",
    metadata,
    name_column("key", primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("answer", sa.String(16), nullable=False, server_default=""),
    sa.Column("job_id", sa.String(64), nullable=False, server_default=""),
    sa.Column("text", sa.Text, nullable=False, server_default=""),
)

story = sa.Table(
    "story",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    name_column("key", index=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

lease = sa.Table(
    "lease",
    metadata,
    name_column("cluster", primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("until", Instant, nullable=False),
    sa.Column("address", sa.String(200), nullable=False),
)

#: What the engine remembers of a cluster: how far its news was read, its queues' load, and its circuit breaker.
cluster_watch = sa.Table(
    "cluster_watch",
    metadata,
    name_column("cluster", primary_key=True),
    sa.Column("cursor", sa.Text, nullable=False, server_default=""),
    sa.Column("polled_at", Instant),
    sa.Column("load", JSONText, nullable=False, server_default="{}"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("unreachable_since", Instant),
    sa.Column("retry_at", Instant),
    sa.Column("trouble", sa.Text, nullable=False, server_default=""),
)

Row = sa.Row[Any]


# --------------------------------------------------------------------------------------------------------- attempts


def add_attempts(work: Work, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert attempts; each row names every column that has no default."""
    if rows:
        work.execute(sa.insert(attempt), list(rows))


def lock(work: Work, keys: Sequence[str]) -> None:
    """Lock attempts, in the order of their keys."""
    for part in chunks(sorted(keys), 500):
        work.execute(sa.select(attempt.c.key).where(attempt.c.key.in_(part)).order_by(attempt.c.key).with_for_update())


def find(work: Work, keys: Sequence[str]) -> list[Row]:
    """The attempts of `keys`, in no order."""
    found: list[Row] = []
    for part in chunks(keys, 500):
        found += work.execute(sa.select(attempt).where(attempt.c.key.in_(part))).all()
    return found


def known_keys(work: Work, keys: Sequence[str]) -> dict[str, bool]:
    """Which of `keys` are attempts, and whether each has ended."""
    found: dict[str, bool] = {}
    for part in chunks(keys, 500):
        rows = work.execute(sa.select(attempt.c.key, attempt.c.ended_at).where(attempt.c.key.in_(part)))
        found |= {row.key: row.ended_at is not None for row in rows}
    return found


def of_instance(work: Work, organisation: str, instance: str, after: str = "", limit: int = 50) -> list[Row]:
    """Attempts of a run in the order of their making, following the key `after`."""
    chosen = sa.select(attempt).where(attempt.c.organisation == organisation, attempt.c.instance == instance)
    return list(work.execute(chosen.where(attempt.c.key > after).order_by(attempt.c.key).limit(limit)))


def of_step(work: Work, organisation: str, instance: str, step: str, index: int) -> Row | None:
    """The newest attempt of a step."""
    chosen = sa.select(attempt).where(
        attempt.c.organisation == organisation, attempt.c.instance == instance,
        attempt.c.step == step, attempt.c.position == index,
    )  # fmt: skip
    return work.execute(chosen.order_by(attempt.c.key.desc()).limit(1)).first()


def occupied(work: Work, cluster: str) -> bool:
    """Whether attempts that have not ended are at a cluster, held ones too."""
    chosen = sa.select(attempt.c.key).where(attempt.c.cluster == cluster, attempt.c.ended_at.is_(None))
    return work.execute(chosen.limit(1)).first() is not None


# Statements of each turn are made once: making one takes longer than running it.
_LIVE = sa.select(attempt).where(attempt.c.cluster == sa.bindparam("_cluster"), IS_LIVE)
_NUDGED = sa.select(attempt).where(attempt.c.cluster == sa.bindparam("_cluster"), IS_NUDGED)


def live(work: Work, cluster: str) -> list[Row]:
    """Every attempt that the engine follows at a cluster."""
    return list(work.execute(_LIVE, {"_cluster": cluster}))


def nudged(work: Work, cluster: str) -> list[Row]:
    """The attempts of a cluster of which something new is wanted."""
    return list(work.execute(_NUDGED, {"_cluster": cluster}))


def clusters_in_use(work: Work) -> set[str]:
    """Clusters with attempts to follow."""
    return {row.cluster for row in work.execute(_IN_USE)}


_IN_USE = sa.union(sa.select(attempt.c.cluster).where(IS_LIVE), sa.select(attempt.c.cluster).where(IS_NUDGED))


def aim(work: Work, keys: Sequence[str], target: str, actor: str, only: str) -> list[str]:
    """Set the target of those of `keys` whose target is `only` and that have not ended; which they were."""
    moved: list[str] = []
    for part in chunks(keys, 500):
        chosen = sa.update(attempt).where(
            attempt.c.key.in_(part), attempt.c.target == only, attempt.c.ended_at.is_(None)
        )
        values = {"target": target, "actor": actor, "nudged": attempt.c.nudged + 1, "live": 1}
        moved += [row.key for row in work.execute(chosen.values(values).returning(attempt.c.key))]
    return moved


_SAVED = (
    "status", "live", "halted", "state", "reason", "job_id", "submitted_at", "started_at", "ended_at", "exit_code",
    "elapsed_s", "moved_bytes", "cost", "final_at",
)  # fmt: skip
_SAVE = (
    sa.update(attempt)
    .where(attempt.c.key == sa.bindparam("_key"))
    .values({name: sa.bindparam(f"_{name}", type_=attempt.c[name].type) for name in _SAVED})
)
_HEARD = (
    sa.update(attempt)
    .where(attempt.c.key == sa.bindparam("_key"), attempt.c.nudged == sa.bindparam("_nudged"))
    .values(nudged=0, resolution=None)
)


def save(work: Work, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store what the engine knows of many attempts; each row is `{"_key": …, "_<column>": …}` for `SAVED` columns."""
    if rows:
        work.execute(_SAVE, list(rows))


def heard(work: Work, rows: Sequence[Mapping[str, Any]]) -> None:
    """The engine took note, `{"_key", "_nudged"}`, unless there was another nudge since."""
    if rows:
        work.execute(_HEARD, list(rows))


def ended_before(work: Work, cluster: str, before: datetime, limit: int) -> list[Row]:
    """Keys of attempts that ended before then and whose folders still stand."""
    chosen = sa.select(attempt.c.key, attempt.c.submitted_at).where(
        attempt.c.cluster == cluster, IS_UNCLEANED, attempt.c.ended_at < before
    )
    return list(work.execute(chosen.order_by(attempt.c.ended_at).limit(limit)))


def mark_cleaned(work: Work, keys: Sequence[str]) -> None:
    """Their folders are gone."""
    work.execute(sa.update(attempt).where(attempt.c.key.in_(keys)).values(cleaned=1))


def provisional(work: Work, cluster: str, until: datetime, limit: int) -> list[Row]:
    """Attempts whose provisional settlement is to become final."""
    chosen = sa.select(attempt).where(attempt.c.cluster == cluster, attempt.c.final_at < until)
    return list(work.execute(chosen.order_by(attempt.c.final_at).limit(limit)))


def finalise(work: Work, key: str, cost: int, elapsed_s: float) -> None:
    """The settlement of an attempt is final."""
    chosen = sa.update(attempt).where(attempt.c.key == key)
    work.execute(chosen.values(final_at=None, cost=cost, elapsed_s=elapsed_s))


# ------------------------------------------------------------------------------------------ submissions and stories


def intend(work: Work, rows: Sequence[tuple[str, int]]) -> None:
    """Remember submissions (key, number) that are about to be made; one that was made before stays."""
    if not rows:
        return
    values = [{"key": key, "number": number, "at": work.now} for key, number in rows]
    work.execute(_insert_or_leave(work, submission), values)


def _insert_or_leave(work: Work, table: sa.Table) -> sa.Insert:
    if work.connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


_ANSWERED = (
    sa.update(submission)
    .where(submission.c.key == sa.bindparam("_key"), submission.c.number == sa.bindparam("_number"))
    .values(answer=sa.bindparam("_answer"), job_id=sa.bindparam("_job_id"), text=sa.bindparam("_text"))
)


def answered(work: Work, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember answers, `{"_key", "_number", "_answer", "_job_id", "_text"}`."""
    if rows:
        work.execute(_ANSWERED, list(rows))


def submissions(work: Work, key: str) -> list[Row]:
    """The submissions of an attempt, first to last."""
    return list(work.execute(sa.select(submission).where(submission.c.key == key).order_by(submission.c.number)))


def tell(work: Work, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add to stories, `{"key", "at", "status", "text"}`."""
    if rows:
        work.execute(sa.insert(story), list(rows))


def told(work: Work, key: str, limit: int = 500) -> list[Row]:
    """The story of an attempt, first to last."""
    return list(work.execute(sa.select(story).where(story.c.key == key).order_by(story.c.id).limit(limit)))


def forget_stories(work: Work, before: datetime, most: int) -> int:
    """Delete what was told before then, `most` sentences at a time, and tell how many: the oldest ones have the lowest
    ids."""
    oldest = sa.select(story.c.id).order_by(story.c.id).limit(most).subquery()
    gone = sa.delete(story).where(story.c.id.in_(sa.select(oldest.c.id)), story.c.at < before)
    return work.execute(gone).rowcount


# ------------------------------------------------------------------------------------------------- leases, clusters


def database_time(work: Work) -> datetime:
    """The one clock of several engines: the database's. On SQLite, with one engine, that engine's."""
    if work.connection.dialect.name == "postgresql":
        found: datetime = work.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return found
    return work.now


def take_lease(work: Work, cluster: str, holder: str, address: str, seconds: float) -> int | None:
    """The new epoch when the cluster is free (or its lease ran out), else None. On SQLite there is one engine: it takes
    the lease of whoever died before it."""
    now = database_time(work)
    until = now + timedelta(seconds=seconds)
    first = {"cluster": cluster, "holder": holder, "epoch": 0, "until": now, "address": address}
    work.execute(_insert_or_leave(work, lease), first)
    row = work.execute(sa.select(lease).where(lease.c.cluster == cluster).with_for_update()).one()
    alone = work.connection.dialect.name == "sqlite"
    if row.holder != holder and row.until > now and not alone:
        return None
    changed = sa.update(lease).where(lease.c.cluster == cluster, lease.c.epoch == row.epoch)
    work.execute(changed.values(holder=holder, epoch=row.epoch + 1, until=until, address=address))
    return int(row.epoch) + 1


_MINE = (
    lease.c.cluster == sa.bindparam("_cluster"),
    lease.c.holder == sa.bindparam("_holder"),
    lease.c.epoch == sa.bindparam("_epoch"),
)
_HOLD = sa.update(lease).where(*_MINE).values(until=sa.bindparam("_until", type_=Instant))


def hold(work: Work, cluster: str, holder: str, epoch: int, seconds: float) -> bool:
    """Renew the lease as the first statement of a transaction; False: it is no longer ours, write nothing."""
    until = database_time(work) + timedelta(seconds=seconds)
    mine = {"_cluster": cluster, "_holder": holder, "_epoch": epoch}
    return work.execute(_HOLD, mine | {"_until": until}).rowcount == 1


def give_lease_back(work: Work, cluster: str, holder: str, epoch: int) -> None:
    """Let another engine take the cluster at once."""
    hold(work, cluster, holder, epoch, 0.0)


def address(work: Work, cluster: str) -> str | None:
    """Where the engine that holds a cluster answers questions."""
    found: str | None = work.execute(sa.select(lease.c.address).where(lease.c.cluster == cluster)).scalar()
    return found


def watch(work: Work, cluster: str) -> Row | None:
    """What the engine remembers of a cluster."""
    return work.execute(sa.select(cluster_watch).where(cluster_watch.c.cluster == cluster)).first()


def remember(work: Work, cluster: str, **values: Any) -> None:
    """Store what changed of it."""
    changed = sa.update(cluster_watch).where(cluster_watch.c.cluster == cluster).values(**values)
    if work.execute(changed).rowcount == 0:
        work.execute(sa.insert(cluster_watch).values(cluster=cluster, **values))


def chunks(items: Iterable[str], size: int) -> list[list[str]]:
    """`items` in lists of at most `size`."""
    every = list(items)
    return [every[start : start + size] for start in range(0, len(every), size)]
