"""The audit chain: one sequence without gaps for each organisation, each record's HMAC covering the one before.

A record is written in the transaction of the change that it tells of. The head row is locked last in that transaction,
so that the chain orders concurrent changes without holding them up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from heroes.api.errors import ChainBroken
from heroes_core.store import audit_head, audit_record, canonical

_START = "0" * 64
_PAGE = 10_000


@dataclass(frozen=True)
class Record:
    """One change: who did what to whom. `detail` is canonical JSON."""

    organisation: str
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str


def _mac(key: bytes, before: str, sequence: int, record: Record) -> str:
    microseconds = int(record.at.timestamp()) * 1_000_000 + record.at.microsecond
    text = canonical(
        [
            before,
            record.organisation,
            sequence,
            microseconds,
            record.actor,
            record.action,
            record.subject,
            record.detail,
        ]
    )
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


_lock_head = (
    sa.update(audit_head)
    .where(audit_head.c.organisation == sa.bindparam("name"))
    .values(sequence=audit_head.c.sequence + sa.bindparam("count"))
    .returning(audit_head.c.sequence, audit_head.c.mac)
)
_set_head = sa.update(audit_head).where(audit_head.c.organisation == sa.bindparam("name")).values(mac=sa.bindparam("m"))


def append(connection: sa.Connection, key: bytes, records: Sequence[Record]) -> None:
    """Append `records` to their organisations' chains, organisations in order of name (so that no two deadlock)."""
    for organisation in sorted({record.organisation for record in records}):
        _append_one(connection, key, organisation, [each for each in records if each.organisation == organisation])


def _append_one(connection: sa.Connection, key: bytes, organisation: str, records: list[Record]) -> None:
    head = connection.execute(_lock_head, {"name": organisation, "count": len(records)}).one_or_none()
    if head is None:
        _begin(connection, organisation)
        head = connection.execute(_lock_head, {"name": organisation, "count": len(records)}).one()
    sequence, before = head.sequence - len(records), head.mac
    rows = []
    for record in records:
        sequence += 1
        before = _mac(key, before, sequence, record)
        rows.append(
            {
                "organisation": organisation,
                "sequence": sequence,
                "at": record.at,
                "actor": record.actor,
                "action": record.action,
                "subject": record.subject,
                "detail": record.detail,
                "mac": before,
            }
        )
    connection.execute(sa.insert(audit_record), rows)
    connection.execute(_set_head, {"name": organisation, "m": before})


def _begin(connection: sa.Connection, organisation: str) -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        insert(audit_head).values(organisation=organisation, sequence=0, mac=_START).on_conflict_do_nothing()
    )


def verify(connection: sa.Connection, key: bytes, organisation: str) -> int:
    """The number of records of a chain that is whole; ChainBroken names the first bad position."""
    head = connection.execute(sa.select(audit_head).where(audit_head.c.organisation == organisation)).one_or_none()
    before, sequence = _START, 0
    while page := _page(connection, organisation, sequence):
        for row in page:
            sequence += 1
            record = Record(organisation, row.at, row.actor, row.action, row.subject, row.detail)
            if row.sequence != sequence or not hmac.compare_digest(row.mac, _mac(key, before, sequence, record)):
                raise _broken(organisation, sequence)
            before = row.mac
    if (head.sequence, head.mac) != (sequence, before) if head else sequence:
        raise _broken(organisation, sequence + 1)
    return sequence


def _page(connection: sa.Connection, organisation: str, after: int) -> Sequence[sa.Row[tuple[object, ...]]]:
    query = (
        sa.select(audit_record)
        .where(audit_record.c.organisation == organisation, audit_record.c.sequence > after)
        .order_by(audit_record.c.sequence)
        .limit(_PAGE)
    )
    return connection.execute(query).all()


def _broken(organisation: str, position: int) -> ChainBroken:
    return ChainBroken(
        f"The audit chain of {organisation} is broken at record {position}.",
        hint="Compare with the last backup: `heroes verify` names the first record that differs.",
        detail={"organisation": organisation, "position": position},
    )
