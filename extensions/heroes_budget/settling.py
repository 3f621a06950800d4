"""Settling, voiding and correcting: a reservation is resolved once, and what it was resolved to is only ever added to.

As in `reserving.py`, a single one is a function of the database on PostgreSQL, and everything else the statements here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import Conflict, NotFound
from heroes.api.units import Money
from heroes_budget import counters, postgresql
from heroes_budget.model import OVERRUN, Bill, Counter, Payer, check_amount, wrong_currency
from heroes_budget.store import ledger_entry as entry
from heroes_core.store import canonical
from heroes_core.work import Work

RESERVE, RESOLVE, EXCESS = 0, 1, 2
_entries_of = sa.select(entry).where(entry.c.key.in_(sa.bindparam("keys", expanding=True)))


def settle(work: Work, bills: Mapping[str, Bill]) -> dict[str, Money]:
    """Charge what was used, never more than was reserved, and give back the rest; what was charged, by key. A key
    that is settled already keeps its charge; one that is void is a Conflict."""
    for bill in bills.values():
        check_amount(bill.amount)
    return _resolve(work, "settle", bills)


def void(work: Work, keys: Sequence[str]) -> None:
    """Give back everything reserved under the keys. Again does nothing; a settled key is a Conflict."""
    _resolve(work, "void", dict.fromkeys(keys))


def _resolve(work: Work, kind: str, bills: Mapping[str, Bill | None]) -> dict[str, Money]:
    if len(bills) == 1 and counters.on_postgresql(work):
        [(key, bill)] = bills.items()
        return {key: _resolve_by_function(work, kind, key, bill)}
    return _resolve_by_statements(work, kind, bills)


def _resolve_by_function(work: Work, kind: str, key: str, bill: Bill | None) -> Money:
    amount, given = (bill.amount.micros, bill.amount.currency) if bill else (0, None)
    values = (key, kind, amount, given, canonical(dict(bill.lines) if bill else {}), counters.micros(work.now))
    outcome, charged, currency = postgresql.settle(work.connection, values)
    if outcome == "unknown":
        raise _unknown(key)
    if outcome == "currency":
        raise wrong_currency(key, currency, str(given))
    if outcome not in ("done", kind):
        raise _resolved(key, outcome)
    return Money(micros=charged, currency=currency)


@dataclass(frozen=True)
class _Resolution:
    """A reservation (its row) and what is charged for it: within it, and beyond it."""

    row: sa.Row[Any]
    charged: int
    excess: int
    lines: Mapping[str, int]

    def entries(self, kind: str, at: datetime) -> list[dict[str, Any]]:
        common = {name: getattr(self.row, name) for name in _SAME} | {"at": at}
        within = common | {
            "step": RESOLVE, "kind": kind, "debit": self.row.debit, "amount": self.charged, "lines": dict(self.lines),
        }  # fmt: skip
        beyond = common | {"step": EXCESS, "kind": "overrun", "debit": OVERRUN, "amount": self.excess, "lines": {}}
        return [within, beyond] if self.excess else [within]


_SAME = ("key", "organisation", "project", "user", "provider", "cluster", "credit", "currency")


def _resolve_by_statements(work: Work, kind: str, bills: Mapping[str, Bill | None]) -> dict[str, Money]:
    rows = work.execute(_entries_of, {"keys": list(bills)}).all()
    reserved = {row.key: row for row in rows if row.step == RESERVE}
    for key, bill in bills.items():
        if key not in reserved:
            raise _unknown(key)
        if bill is not None and bill.amount.currency != reserved[key].currency:
            raise wrong_currency(key, reserved[key].currency, bill.amount.currency)
    done = _resolved_as(kind, rows)
    counters.enter(work, [row.organisation for row in reserved.values()])
    wanted = [_resolution(reserved[key], bill) for key, bill in bills.items() if key not in done]
    ours = _insert_once(work, [row for each in wanted for row in each.entries(kind, work.now)])
    _post(work, [each for each in wanted if each.row.key in ours])
    lost = [each.row.key for each in wanted if each.row.key not in ours]
    if lost:
        done |= _resolved_as(kind, work.execute(_entries_of, {"keys": lost}).all())
    charged = {each.row.key: each.charged for each in wanted} | {key: row.amount for key, row in done.items()}
    return {key: Money(micros=charged[key], currency=reserved[key].currency) for key in bills}


def _resolved_as(kind: str, rows: Sequence[sa.Row[Any]]) -> dict[str, sa.Row[Any]]:
    """Those that are resolved; a Conflict when one of them is resolved otherwise."""
    done = {row.key: row for row in rows if row.step == RESOLVE}
    for key, row in done.items():
        if row.kind != kind:
            raise _resolved(key, row.kind)
    return done


def _resolution(row: sa.Row[Any], bill: Bill | None) -> _Resolution:
    amount = bill.amount.micros if bill else 0
    charged = min(amount, row.amount)
    return _Resolution(row, charged, amount - charged, bill.lines if bill else {})


def _insert_once(work: Work, rows: Sequence[dict[str, Any]]) -> set[str]:
    """Insert entries; the keys of those that nobody had resolved before."""
    resolving = [row for row in rows if row["step"] == RESOLVE]
    if not resolving:
        return set()
    once = counters.insert(work, entry).on_conflict_do_nothing().returning(entry.c.key)
    ours = {row.key for row in work.execute(once, resolving)}
    beyond = [row for row in rows if row["step"] == EXCESS and row["key"] in ours]
    if beyond:
        work.execute(sa.insert(entry), beyond)
    return ours


def _post(work: Work, resolved: Sequence[_Resolution]) -> None:
    """Let the counters follow: every budget whose window held the reservation, and the accounts of the book."""
    for organisation in sorted({each.row.organisation for each in resolved}):
        mine = [each for each in resolved if each.row.organisation == organisation]
        holders = sorted({holder for each in mine for holder in _holders(each.row)})
        found = counters.of_holders(work, organisation, holders)
        changes = [change for counter in found if (change := _follow(counter, mine))]
        work.execute(counters.CHANGE, changes)
        others: dict[str, int] = {}
        for each in mine:
            others[each.row.credit] = others.get(each.row.credit, 0) - each.charged - each.excess
            others[OVERRUN] = others.get(OVERRUN, 0) + each.excess
        for holder in sorted(others):
            if others[holder]:
                counters.post(work, organisation, holder, mine[0].row.currency, others[holder])


def _holders(row: sa.Row[Any]) -> tuple[str, ...]:
    return Payer(row.organisation, row.project, row.user).holders


def _follow(counter: Counter, resolved: Sequence[_Resolution]) -> dict[str, Any] | None:
    concerned = [each for each in resolved if counter.holder in _holders(each.row) and counter.covers(each.row.at)]
    if not concerned:
        return None
    return counters.key_of(counter) | {
        "more_posted": sum(each.charged for each in concerned),
        "more_pending": -sum(each.row.amount for each in concerned),
        "by": None,
    }


def correct(work: Work, key: str, amount: Money, reason: str) -> Money:
    """The job has cost `amount` after all: the difference is entered. What exceeds the reservation, or a limit by now,
    is the platform's. What is charged now."""
    right = check_amount(amount)
    rows = work.execute(_entries_of, {"keys": [key]}).all()
    if not any(row.kind == "settle" for row in rows):
        raise Conflict(f"{key} is not settled, so there is nothing to correct.", hint="Settle it first.")
    first = next(row for row in rows if row.step == RESERVE)
    if amount.currency != first.currency:
        raise wrong_currency(key, first.currency, amount.currency)
    counters.enter(work, [first.organisation])
    found = counters.of_holders(work, first.organisation, _holders(first))
    rows = work.execute(_entries_of, {"keys": [key]}).all()  # again: the locks keep others out from here on
    concerned = [each for each in found if each.covers(first.at)]
    charged, borne = _so_far(rows, first.debit), _so_far(rows, OVERRUN)
    more = min(right, first.amount) - charged
    if more > 0:
        room = (each.ceiling - each.posted - each.pending for each in concerned if each.ceiling is not None)
        more = min(more, max(0, min(room, default=more)))
    beyond = right - charged - more - borne
    step = max(EXCESS, *(row.step for row in rows)) + 1
    moves = [(first.debit, more), (OVERRUN, beyond)]
    news = [_correction(work, first, step + n, *move, reason) for n, move in enumerate(moves) if move[1]]
    if news:
        work.execute(sa.insert(entry), news)
        changes = [counters.key_of(each) | {"more_posted": more, "more_pending": 0, "by": None} for each in concerned]
        work.execute(counters.CHANGE, changes)
        counters.post(work, first.organisation, first.credit, first.currency, -more - beyond)
        counters.post(work, first.organisation, OVERRUN, first.currency, beyond)
    return Money(micros=charged + more, currency=first.currency)


def _so_far(rows: Sequence[sa.Row[Any]], holder: str) -> int:
    moved = [row for row in rows if row.step != RESERVE]
    return sum(int(row.amount) * ((row.debit == holder) - (row.credit == holder)) for row in moved)


def _correction(work: Work, first: sa.Row[Any], step: int, holder: str, more: int, reason: str) -> dict[str, Any]:
    debit, credit = (holder, first.credit) if more > 0 else (first.credit, holder)
    return {name: getattr(first, name) for name in _SAME} | {
        "step": step, "kind": "correct", "debit": debit, "credit": credit, "amount": abs(more), "at": work.now,
        "reason": reason[:500],
    }  # fmt: skip


def _unknown(key: str) -> NotFound:
    return NotFound(f"Nothing is reserved under {key}.", hint="Reserve before settling.", detail={"key": key})


def _resolved(key: str, kind: str) -> Conflict:
    told = {"settle": "settled", "void": "void"}[kind]
    return Conflict(f"The reservation {key} is {told} already.", hint="Nothing is to be done.", detail={"key": key})
