"""The tables of data: buckets and who may use them, the log of transfers, exact copies at sites, measured bandwidth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from heroes_core.store import Instant, metadata, name_column
from heroes_core.work import Work

bucket = sa.Table(
    "data_bucket",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("name", primary_key=True),
    name_column("owner"),
    sa.Column("created_at", Instant, nullable=False),
)

grant = sa.Table(
    "data_grant",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("bucket", primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    name_column("grantee", primary_key=True),
    sa.Column("writable", sa.Boolean, nullable=False),
)

transfer = sa.Table(
    "data_transfer",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    name_column("organisation"),
    name_column("user"),
    sa.Column("at", Instant, nullable=False),
    sa.Column("direction", sa.String(16), nullable=False),
    name_column("bucket"),
    sa.Column("key", sa.String(1100), nullable=False),
    name_column("cluster"),
    sa.Column("objects", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("outcome", sa.String(64), nullable=False),
    sa.Index("ix_data_transfer_mine", "organisation", "user", "id"),
    sa.Index("ix_data_transfer_all", "organisation", "id"),
)

copy = sa.Table(
    "data_copy",
    metadata,
    name_column("cluster", primary_key=True),
    sa.Column("path", sa.String(1400), primary_key=True),
    name_column("organisation"),
    sa.Column("etag", sa.String(100), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("ctime_ns", sa.BigInteger, nullable=False),
    sa.Column("inode", sa.BigInteger, nullable=False, comment="unsigned 64 bits, kept as signed"),
    sa.Column("verified_at", Instant, nullable=False),
)

#: Moving average of measured rates. `direction` is "stage-in" or "stage-out".
link = sa.Table(
    "data_link",
    metadata,
    name_column("cluster", primary_key=True),
    sa.Column("direction", sa.String(16), primary_key=True),
    sa.Column("bytes_per_s", sa.Float, nullable=False),
    sa.Column("measured_at", Instant, nullable=False),
)

_AT_ONCE = 500
_TWO_63, _TWO_64 = 2**63, 2**64
#: Weight of the newest measurement of a link, and the least bytes that are one.
_NEWEST = 0.3
_MEASURABLE = 2**20


class Copy(NamedTuple):
    """An exact copy at a site as it was verified: what identifies content there and here."""

    path: str
    etag: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Movement:
    """One line of the log."""

    organisation: str
    user: str
    direction: str
    bucket: str
    key: str
    cluster: str = ""
    objects: int = 1
    bytes: int = 0
    seconds: float = 0.0
    outcome: str = "done"


def _insert(work: Work, table: sa.Table) -> Any:
    return (postgresql.insert if work.connection.dialect.name == "postgresql" else sqlite.insert)(table)


def add_bucket(work: Work, organisation: str, name: str, owner: str) -> bool:
    """Store a bucket; False when there is one of that name."""
    values = {"organisation": organisation, "name": name, "owner": owner, "created_at": work.now}
    statement = _insert(work, bucket).values(**values).on_conflict_do_nothing().returning(bucket.c.name)
    return work.execute(statement).first() is not None


def get_bucket(work: Work, organisation: str, name: str) -> sa.Row[Any] | None:
    """The bucket of that name."""
    same = sa.and_(bucket.c.organisation == organisation, bucket.c.name == name)
    return work.execute(sa.select(bucket).where(same)).one_or_none()


def remove_bucket(work: Work, organisation: str, name: str) -> None:
    """Delete a bucket and its grants."""
    work.execute(sa.delete(grant).where(grant.c.organisation == organisation, grant.c.bucket == name))
    work.execute(sa.delete(bucket).where(bucket.c.organisation == organisation, bucket.c.name == name))


def list_buckets(work: Work, organisation: str, after: str, limit: int, *mine: sa.ColumnElement[bool]) -> Sequence[Any]:
    """Buckets in order of name, all or those that match `mine`."""
    there = [bucket.c.organisation == organisation, bucket.c.name > after, *mine]
    return work.execute(sa.select(bucket).where(*there).order_by(bucket.c.name).limit(limit)).all()


def grants_to(work: Work, organisation: str, grantees: Iterable[tuple[str, str]]) -> dict[str, bool]:
    """The buckets granted to any of the (kind, name), and whether writing is."""
    pairs = list(grantees)
    query = sa.select(grant.c.bucket, grant.c.writable).where(
        grant.c.organisation == organisation, sa.tuple_(grant.c.kind, grant.c.grantee).in_(pairs)
    )
    found: dict[str, bool] = {}
    for row in work.execute(query):
        found[row.bucket] = found.get(row.bucket, False) or row.writable
    return found


def grants_of(work: Work, organisation: str, name: str) -> Sequence[sa.Row[Any]]:
    """Who may use a bucket."""
    query = sa.select(grant).where(grant.c.organisation == organisation, grant.c.bucket == name)
    return work.execute(query.order_by(grant.c.kind, grant.c.grantee)).all()


def set_grant(work: Work, organisation: str, name: str, kind: str, grantee: str, writable: bool) -> None:
    """Grant a bucket, or change what was granted."""
    same = {"organisation": organisation, "bucket": name, "kind": kind, "grantee": grantee}
    statement = _insert(work, grant).values(**same, writable=writable)
    work.execute(statement.on_conflict_do_update(index_elements=list(same), set_={"writable": writable}))


def remove_grant(work: Work, organisation: str, name: str, kind: str, grantee: str) -> bool:
    """Take a grant back; False when there was none."""
    same = [grant.c.organisation == organisation, grant.c.bucket == name]
    same += [grant.c.kind == kind, grant.c.grantee == grantee]
    return work.execute(sa.delete(grant).where(*same)).rowcount == 1


def log(work: Work, *movements: Movement) -> None:
    """Add to the log of transfers."""
    for each in movements:
        work.execute(sa.insert(transfer).values(at=work.now, **vars(each)))


def list_transfers(work: Work, organisation: str, user: str | None, before: int, limit: int) -> Sequence[sa.Row[Any]]:
    """The log before a number (0: from the end), newest first: one user's, or all of the organisation's."""
    there = [transfer.c.organisation == organisation]
    if user is not None:
        there.append(transfer.c.user == user)
    if before:
        there.append(transfer.c.id < before)
    return work.execute(sa.select(transfer).where(*there).order_by(transfer.c.id.desc()).limit(limit)).all()


def copies(work: Work, cluster: str, paths: Iterable[str]) -> dict[str, Copy]:
    """The recorded copies among `paths`."""
    columns = (copy.c.path, copy.c.etag, copy.c.size, copy.c.mtime_ns, copy.c.ctime_ns, copy.c.inode)
    query = sa.select(*columns).where(copy.c.cluster == cluster, copy.c.path.in_(_listed(work, list(paths))))
    rows = work.connection.execute(query)
    return {
        path: Copy(path, etag, size, mtime_ns, ctime_ns, inode % _TWO_64)
        for path, etag, size, mtime_ns, ctime_ns, inode in rows
    }


def _listed(work: Work, values: list[str]) -> sa.Select[tuple[str]]:
    """Many values as one parameter, however many."""
    if work.connection.dialect.name == "postgresql":
        return sa.select(sa.func.unnest(sa.literal(values, postgresql.ARRAY(sa.Text))))
    return sa.select(sa.func.json_each(json.dumps(values)).table_valued("value").c.value)


def record_copies(work: Work, cluster: str, organisation: str, verified: Iterable[Copy]) -> None:
    """Record copies that were verified, in place of what was recorded of the same paths."""
    statement = _insert(work, copy)
    changed = {
        name: statement.excluded[name] for name in ("etag", "size", "mtime_ns", "ctime_ns", "inode", "verified_at")
    }
    statement = statement.on_conflict_do_update(index_elements=["cluster", "path"], set_=changed)
    rows = [
        {
            **each._asdict(), "inode": (each.inode + _TWO_63) % _TWO_64 - _TWO_63, "cluster": cluster,
            "organisation": organisation, "verified_at": work.now,
        }
        for each in verified
    ]  # fmt: skip
    for start in range(0, len(rows), _AT_ONCE):
        work.execute(statement, rows[start : start + _AT_ONCE])


def forget_copies(work: Work, cluster: str, paths: Iterable[str]) -> None:
    """Forget copies that were deleted at the site."""
    some = _listed(work, list(paths))
    work.execute(sa.delete(copy).where(copy.c.cluster == cluster, copy.c.path.in_(some)))


def measure_link(work: Work, cluster: str, direction: str, size: int, seconds: float) -> None:
    """Take a transfer into the moving average of a link, unless it was too small to tell."""
    if size < _MEASURABLE or seconds <= 0:
        return
    rate = size / seconds
    mixed = (1 - _NEWEST) * link.c.bytes_per_s + _NEWEST * rate
    statement = _insert(work, link).values(cluster=cluster, direction=direction, bytes_per_s=rate, measured_at=work.now)
    changed = {"bytes_per_s": mixed, "measured_at": work.now}
    work.execute(statement.on_conflict_do_update(index_elements=["cluster", "direction"], set_=changed))


def links(work: Work, cluster: str) -> dict[str, float]:
    """Measured bytes a second by direction."""
    query = sa.select(link.c.direction, link.c.bytes_per_s).where(link.c.cluster == cluster)
    return {row.direction: row.bytes_per_s for row in work.execute(query)}
