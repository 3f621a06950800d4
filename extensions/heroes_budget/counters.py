"""Accounts and budgets as they stand: found and locked in one order, changed, begun anew; and the ledger's locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from heroes_budget.model import ORGANISATION, Counter, Payer, window_of, wrong_currency
from heroes_budget.store import ledger_account as account
from heroes_core.work import Work

_LOCK = 72001
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTER = tuple(account.c[name] for name in Counter.__dataclass_fields__)
_current = sa.or_(
    account.c.starts.is_(None),
    sa.and_(
        account.c.starts <= sa.bindparam("at", type_=account.c.starts.type),
        sa.or_(
            sa.bindparam("at", type_=account.c.starts.type) < account.c.ends,
            sa.func.substr(account.c.period, 1, 5) != "fixed",
        ),
    ),
)
_at_holders = sa.and_(
    account.c.organisation == sa.bindparam("organisation_"),
    account.c.holder.in_(sa.bindparam("holders", expanding=True)),
)
_in_order = (account.c.organisation, account.c.holder, account.c.period)
_lock_current = sa.select(*_COUNTER).where(_at_holders, _current).order_by(*_in_order).with_for_update()
_lock_all = sa.select(*_COUNTER).where(_at_holders).order_by(*_in_order).with_for_update()
_at_key = sa.and_(
    account.c.organisation == sa.bindparam("organisation_"),
    account.c.holder == sa.bindparam("holder_"),
    account.c.period == sa.bindparam("period_"),
)
#: Adds `more_posted` and `more_pending` to the row of `key_of`; `by` is who brought it to 80 %, or None.
CHANGE = (
    sa.update(account)
    .where(_at_key)
    .values(
        posted=account.c.posted + sa.bindparam("more_posted"),
        pending=account.c.pending + sa.bindparam("more_pending"),
        warned_by=sa.func.coalesce(account.c.warned_by, sa.bindparam("by", type_=sa.String)),
    )
)
_begin_anew = (
    sa.update(account)
    .where(_at_key, account.c.ends <= sa.bindparam("at", type_=account.c.starts.type))
    .values(
        posted=0, pending=0, warned_by=None,
        starts=sa.bindparam("new_starts", type_=account.c.starts.type),
        ends=sa.bindparam("new_ends", type_=account.c.starts.type),
    )
)  # fmt: skip


def insert(work: Work, table: sa.Table) -> Any:
    """INSERT with the dialect's ON CONFLICT."""
    return (postgresql.insert if on_postgresql(work) else sqlite.insert)(table)


def on_postgresql(work: Work) -> bool:
    """Whether the work's database is PostgreSQL."""
    return work.connection.dialect.name == "postgresql"


def shut_out(work: Work, organisation: str) -> None:
    """Keep reservations and settlements of the organisation out until the work ends. SQLite has one writer anyway."""
    if on_postgresql(work):
        work.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext(:o))"), {"o": organisation})


def open_account(work: Work, organisation: str, currency: str) -> None:
    """The organisation's account stands, without credit if it is new."""
    row = {"organisation": organisation, "holder": ORGANISATION, "id": ORGANISATION, "currency": currency, "ceiling": 0}
    work.execute(insert(work, account).values(period="", **row).on_conflict_do_nothing())


def current(work: Work, payer: Payer, at: datetime) -> list[Counter]:
    """The budgets and the account that a reservation at that time would change, in order, locked in a writing work."""
    given = {"organisation_": payer.organisation, "holders": payer.holders, "at": at}
    return _load(work, _lock_current, given)


def of_holders(work: Work, organisation: str, holders: Sequence[str]) -> list[Counter]:
    """The budgets and accounts of these holders in whatever window, in order, locked in a writing work."""
    return _load(work, _lock_all, {"organisation_": organisation, "holders": holders})


def _load(work: Work, statement: sa.Select[Any], given: Mapping[str, Any]) -> list[Counter]:
    rows: Any = work.execute(statement, given)
    return [Counter(*row) for row in rows]


def find_counter(work: Work, organisation: str, counter_id: str) -> Counter | None:
    """An account or budget by its id."""
    here = sa.and_(account.c.organisation == organisation, account.c.id == counter_id)
    return next(iter(_load(work, sa.select(*_COUNTER).where(here), {})), None)


def post(work: Work, organisation: str, holder: str, currency: str, amount: int) -> None:
    """Add to what is posted on an account that has no ceiling; it is opened when it is new."""
    row = {"organisation": organisation, "holder": holder, "id": holder, "currency": currency, "posted": amount}
    statement = insert(work, account).values(period="", **row)
    work.execute(
        statement.on_conflict_do_update(
            index_elements=["organisation", "holder", "period"],
            set_={"posted": account.c.posted + statement.excluded.posted},
        )
    )


def known_counter(work: Work, organisation: str, counter_id: str) -> Counter:
    """An account or budget that the caller has just seen."""
    found = find_counter(work, organisation, counter_id)
    assert found is not None
    return found


def check_account(work: Work, organisation: str, currency: str) -> None:
    """The organisation has an account in that currency."""
    open_account(work, organisation, currency)
    found = known_counter(work, organisation, ORGANISATION)
    if found.currency != currency:
        raise wrong_currency(organisation, found.currency, currency)


def renew(work: Work, stale: Sequence[Counter]) -> None:
    """Budgets whose window has ended begin the one that `now` is in, with nothing spent."""
    for each in stale:
        window = window_of(each.period, work.now)
        work.execute(
            _begin_anew,
            key_of(each) | {"at": work.now, "new_starts": window.starts, "new_ends": window.ends},
        )


def key_of(each: Counter) -> dict[str, Any]:
    """What `CHANGE` finds the row by."""
    return {"organisation_": each.organisation, "holder_": each.holder, "period_": each.period}


def enter(work: Work, organisations: Sequence[str]) -> None:
    """Hold the lock that keeps out who changes budgets (see `shut_out`)."""
    if on_postgresql(work):
        for organisation in sorted(set(organisations)):
            statement = sa.text(f"SELECT pg_advisory_xact_lock_shared({_LOCK}, hashtext(:o))")
            work.execute(statement, {"o": organisation})


def micros(at: datetime) -> int:
    """Microseconds since 1970, as the tables keep times."""
    return (at - _EPOCH) // timedelta(microseconds=1)
