"""The books, read: what was spent on what in a period, and the proof in SQL that counters agree with entries."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import InvalidSpec
from heroes.api.units import MICRO, Money
from heroes_budget.model import ORGANISATION, OVERRUN, Counter, Window, months_between, scope_of
from heroes_budget.store import ledger_account as account
from heroes_budget.store import ledger_credit
from heroes_budget.store import ledger_entry as entry
from heroes_core.store import read_instant
from heroes_core.work import Work

#: As `counters_of` takes them.
COLUMNS = tuple(account.c[name] for name in Counter.__dataclass_fields__)
_reserved = entry.alias("reserved")
_moved = entry.alias("moved")


def _signed(holder: str) -> sa.ColumnElement[int]:
    """What an entry adds to `holder`'s account."""
    return sa.case(
        (_moved.c.debit == holder, _moved.c.amount), (_moved.c.credit == holder, -_moved.c.amount), else_=0
    )  # fmt: skip


_resolved = sa.exists().where(_moved.c.key == _reserved.c.key, _moved.c.step == 1)
_open_amount = sa.case((~_resolved, _reserved.c.amount), else_=0)


def budgets_of(organisation: str) -> sa.Select[Any]:
    """Every budget of an organisation."""
    return sa.select(*COLUMNS).where(account.c.organisation == organisation, account.c.ends.is_not(None))


def counters_of(work: Work, query: sa.Select[Any]) -> list[Counter]:
    """The rows of such a query."""
    rows: Any = work.execute(query)
    return [Counter(*row) for row in rows]


def _within(organisation: str, window: Window) -> sa.ColumnElement[bool]:
    at = _reserved.c.at
    return sa.and_(
        _reserved.c.organisation == organisation, _reserved.c.step == 0, at >= window.starts, at < window.ends
    )


def used(work: Work, organisation: str, holder: str, starts: datetime, ends: datetime) -> tuple[int, int]:
    """What a budget's holder has spent and reserved of what was reserved in that time (micro-units)."""
    scope, subject = scope_of(holder)
    here = _within(organisation, Window(starts, ends))
    if scope != "organisation":
        here = sa.and_(here, _reserved.c[scope] == subject)
    charged = sa.select(sa.func.sum(_signed(ORGANISATION))).select_from(
        _reserved.join(_moved, sa.and_(_moved.c.key == _reserved.c.key, _moved.c.step > 0))
    )
    posted = work.execute(charged.where(here)).scalar_one()
    pending = work.execute(sa.select(sa.func.sum(_open_amount)).where(here)).scalar_one()
    return int(posted or 0), int(pending or 0)


# -------------------------------------------------------------------------------------------------------- statement


@dataclass(frozen=True)
class Line:
    """Of one name: jobs charged, and micro-units charged, reserved still, and borne by the platform."""

    name: str
    jobs: int
    charged: int
    pending: int
    overrun: int

    def __add__(self, other: Line) -> Line:
        """Both together, under this one's name."""
        return Line(
            self.name, self.jobs + other.jobs, self.charged + other.charged, self.pending + other.pending,
            self.overrun + other.overrun,
        )  # fmt: skip


def statement(work: Work, organisation: str, by: str, window: Window, user: str = "") -> list[Line]:
    """What was spent of what was reserved in the window, by user, project, cluster, provider or month. Of one user
    only, when one is named."""
    if by != "month":
        return _lines(work, organisation, _reserved.c[by], window, user)
    whole = sa.literal("")
    found: list[Line] = []
    for month in months_between(window.starts, window.ends):
        lines = _lines(work, organisation, whole, month, user)
        found.extend(Line(f"{month.starts:%Y-%m}", *_numbers(each)) for each in lines)
    return found


def _numbers(line: Line) -> tuple[int, int, int, int]:
    return line.jobs, line.charged, line.pending, line.overrun


def _lines(work: Work, organisation: str, name: sa.ColumnElement[str], window: Window, user: str) -> list[Line]:
    here = _within(organisation, window)
    if user:
        here = sa.and_(here, _reserved.c.user == user)
    moved = sa.select(
        name.label("name"),
        sa.func.sum(sa.case((_moved.c.kind == "settle", 1), else_=0)),
        sa.func.sum(_signed(ORGANISATION)),
        sa.literal(0),
        sa.func.sum(_signed(OVERRUN)),
    ).select_from(_reserved.join(_moved, sa.and_(_moved.c.key == _reserved.c.key, _moved.c.step > 0)))
    pending = sa.select(
        name.label("name"), sa.literal(0), sa.literal(0), sa.func.sum(_open_amount), sa.literal(0)
    ).select_from(_reserved)
    lines: dict[str, Line] = {}
    for query in (moved, pending):
        rows: Any = work.execute(query.where(here).group_by(sa.text("1")))
        for row in rows:
            line = Line(row[0], *(int(each or 0) for each in row[1:]))
            lines[line.name] = lines[line.name] + line if line.name in lines else line
    return [lines[each] for each in sorted(lines)]


def total(lines: Sequence[Line]) -> Line:
    """The sum of all lines."""
    return sum(lines, Line("total", 0, 0, 0, 0))


def as_csv(by: str, lines: Sequence[Line], currency: str) -> Iterator[bytes]:
    """The table as CSV (RFC 4180), amounts as decimal numbers of `currency`, the total last."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([by, "jobs", *(f"{each} ({currency})" for each in ("charged", "pending", "overrun"))])
    for line in [*lines, total(lines)]:
        amounts = (Decimal(each) / MICRO for each in (line.charged, line.pending, line.overrun))
        writer.writerow([line.name, line.jobs, *(f"{each:f}" for each in amounts)])
    yield text.getvalue().encode()


def entries(work: Work, organisation: str, after: str, limit: int) -> Sequence[sa.Row[Any]]:
    """A page of the ledger, newest first, after the cursor of a row."""
    query = sa.select(entry).where(entry.c.organisation == organisation)
    if after:
        at, key, step = _from_cursor(after)
        here = sa.tuple_(entry.c.at, entry.c.key, entry.c.step)
        query = query.where(here < sa.tuple_(sa.literal(at, entry.c.at.type), sa.literal(key), sa.literal(step)))
    newest = (entry.c.at.desc(), entry.c.key.desc(), entry.c.step.desc())
    return work.execute(query.order_by(*newest).limit(limit)).all()


def cursor(row: sa.Row[Any]) -> str:
    """Where the page after this row begins."""
    return f"{row.at.isoformat()} {row.key} {row.step}"


def _from_cursor(text: str) -> tuple[datetime, str, int]:
    try:
        at, key, step = text.split(" ")
        return read_instant(at), key, _small(step)
    except ValueError:
        raise InvalidSpec(f"{text!r} is no cursor.", hint="Take `next` of the page before.") from None


def _small(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**31:
        raise ValueError(f"{text} is no step")
    return number


def money(micros: int, currency: str) -> Money:
    """Micro-units of a currency."""
    return Money(micros=micros, currency=currency)


# ----------------------------------------------------------------------------------------------------------- verify


@dataclass(frozen=True)
class Proof:
    """Micro-units above any limit, away from zero in any book, and between any counter and its entries."""

    overdraft: int
    imbalance: int
    difference: int
    accounts: int
    entries: int

    @property
    def sound(self) -> bool:
        """Whether the books are as they must be."""
        return self.overdraft == self.imbalance == self.difference == 0


def verify(work: Work, organisation: str = "") -> Proof:
    """Prove the books, of every organisation or of one, in SQL."""
    mine = account.c.organisation == organisation if organisation else sa.true()
    above = account.c.posted + account.c.pending - account.c.ceiling
    overdraft = sa.select(sa.func.sum(sa.case((above > 0, above), else_=0))).where(mine)
    book = sa.select(sa.func.sum(account.c.posted).label("sum")).where(account.c.ends.is_(None), mine)
    per_book = book.group_by(account.c.organisation).subquery()
    apart = [_sum(work, query.where(mine)) for query in (_account_differences(), _credit_differences())]
    entries_ = sa.select(sa.func.count()).select_from(entry)
    return Proof(
        overdraft=_sum(work, overdraft),
        imbalance=_sum(work, sa.select(sa.func.sum(sa.func.abs(per_book.c.sum)))),
        difference=sum(apart) + _budget_differences(work, mine),
        accounts=_sum(work, sa.select(sa.func.count()).select_from(account).where(mine)),
        entries=_sum(work, entries_.where(entry.c.organisation == organisation) if organisation else entries_),
    )


def _sum(work: Work, query: sa.Select[Any]) -> int:
    return int(work.execute(query).scalar_one() or 0)


def _account_differences() -> sa.Select[Any]:
    """Of the accounts: what is posted against their entries, what is pending against open reservations."""
    sides = [
        sa.select(_moved.c.organisation, _moved.c[side].label("holder"), (sign * _moved.c.amount).label("amount"))
        .where(_moved.c.step > 0)
        for side, sign in (("debit", 1), ("credit", -1))
    ]  # fmt: skip
    both = sa.union_all(*sides).subquery()
    posted = sa.select(both.c.organisation, both.c.holder, sa.func.sum(both.c.amount).label("posted")).group_by(
        both.c.organisation, both.c.holder
    )
    opened = sa.select(
        _reserved.c.organisation, _reserved.c.debit.label("holder"), sa.func.sum(_open_amount).label("pending")
    ).where(_reserved.c.step == 0)
    posted_ = posted.subquery()
    opened_ = opened.group_by(_reserved.c.organisation, _reserved.c.debit).subquery()
    same = [
        sa.and_(each.c.organisation == account.c.organisation, each.c.holder == account.c.holder)
        for each in (posted_, opened_)
    ]
    apart = sa.func.abs(account.c.posted - sa.func.coalesce(posted_.c.posted, 0)) + sa.func.abs(
        account.c.pending - sa.func.coalesce(opened_.c.pending, 0)
    )
    joined = account.outerjoin(posted_, same[0]).outerjoin(opened_, same[1])
    return sa.select(sa.func.sum(apart)).select_from(joined).where(account.c.ends.is_(None))


def _credit_differences() -> sa.Select[Any]:
    """Of the organisations: their credit against what was given."""
    given = (
        sa.select(sa.func.coalesce(sa.func.sum(ledger_credit.c.amount), 0))
        .where(ledger_credit.c.organisation == account.c.organisation)
        .scalar_subquery()
    )
    here = account.c.holder == ORGANISATION
    return sa.select(sa.func.sum(sa.func.abs(account.c.ceiling - given))).where(here)


def _budget_differences(work: Work, mine: sa.ColumnElement[bool]) -> int:
    apart = 0
    for each in counters_of(work, sa.select(*COLUMNS).where(account.c.ends.is_not(None), mine)):
        assert each.starts is not None
        assert each.ends is not None
        posted, pending = used(work, each.organisation, each.holder, each.starts, each.ends)
        apart += abs(each.posted - posted) + abs(each.pending - pending)
    return apart
