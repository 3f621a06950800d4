"""Reserving: the worst case of a job is taken from every budget concerned and from the credit, or nothing is.

On PostgreSQL a single reservation is a function of the database (`postgresql.py`); batches, and everything on SQLite,
are the statements here, with the same rules: rows are locked in the order of (organisation, holder, period), all limits
are looked at under the locks, and then all rows change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from heroes.api.units import Money
from heroes_budget import counters, postgresql
from heroes_budget.model import ORGANISATION, Counter, Payer, Want, budgets_first, check_amount, over_budget
from heroes_budget.store import ledger_entry as entry
from heroes_core.store import canonical
from heroes_core.work import Work

WARNING = "budget.warning"
RESERVE = 0
_reserved_keys = sa.select(entry.c.key).where(
    entry.c.key.in_(sa.bindparam("keys", expanding=True)), entry.c.step == RESERVE
)


def reserve(work: Work, payer: Payer, wants: Sequence[Want]) -> None:
    """Reserve every want or none. A key that is reserved already is left as it is."""
    for want in wants:
        check_amount(want.amount)
    if len(wants) == 1 and counters.on_postgresql(work):
        _reserve_by_function(work, payer, wants[0])
    elif wants:
        _reserve_by_statements(work, payer, wants)


def _reserve_by_function(work: Work, payer: Payer, want: Want) -> None:
    values = (
        want.key, payer.organisation, payer.project or "", payer.user, want.provider, want.cluster, want.amount.micros,
        want.amount.currency, canonical(dict(want.lines)), want.price.model_dump_json() if want.price else None,
        counters.micros(work.now),
    )  # fmt: skip
    while True:
        outcome, subjects = postgresql.reserve(work.connection, values)
        if outcome == "account":
            counters.check_account(work, payer.organisation, want.amount.currency)
        elif outcome == "past":
            counters.renew(work, [each for each in counters.current(work, payer, work.now) if each.id in subjects])
        elif outcome == "refused":
            raise over_budget(counters.known_counter(work, payer.organisation, subjects[0]), want.amount.micros)
        else:
            for budget_id in subjects:
                _warn(work, counters.known_counter(work, payer.organisation, budget_id))
            return


def _reserve_by_statements(work: Work, payer: Payer, wants: Sequence[Want]) -> None:
    counters.enter(work, [payer.organisation])
    known = {row.key for row in work.execute(_reserved_keys, {"keys": [want.key for want in wants]})}
    fresh = [want for want in wants if want.key not in known]
    if not fresh:
        return
    currency = fresh[0].amount.currency
    found = _fresh_counters(work, payer, currency)
    amount = sum((want.amount for want in fresh), Money.zero(currency)).micros
    for each in budgets_first(found):
        if not each.admits(amount):
            raise over_budget(each, amount)
    crossing = [each for each in found if each.warns(amount)]
    by = {each.id: fresh[0].key for each in crossing}
    more = {"more_posted": 0, "more_pending": amount}
    changes = [counters.key_of(each) | more | {"by": by.get(each.id)} for each in found]
    work.execute(counters.CHANGE, changes)
    work.execute(sa.insert(entry), [_reservation(work, payer, want) for want in fresh])
    for each in crossing:
        _warn(work, each)


def _fresh_counters(work: Work, payer: Payer, currency: str) -> list[Counter]:
    """Locked, in their current windows, the organisation's account among them."""
    found = counters.current(work, payer, work.now)
    paid_in = next((each.currency for each in found if each.holder == ORGANISATION), None)
    stale = [each for each in found if each.ends is not None and each.ends <= work.now]
    if paid_in == currency and not stale:
        return found
    counters.check_account(work, payer.organisation, currency)
    counters.renew(work, stale)
    return counters.current(work, payer, work.now)


def _reservation(work: Work, payer: Payer, want: Want) -> dict[str, Any]:
    return {
        "key": want.key, "step": RESERVE, "kind": "reserve", "organisation": payer.organisation,
        "project": payer.project or "", "user": payer.user, "provider": want.provider, "cluster": want.cluster,
        "debit": ORGANISATION, "credit": f"5:provider:{want.provider}", "amount": want.amount.micros,
        "currency": want.amount.currency, "at": work.now,
        "lines": dict(want.lines), "price": want.price.model_dump(mode="json") if want.price else None,
    }  # fmt: skip


def _warn(work: Work, each: Counter) -> None:
    work.emit(WARNING, each.organisation, each.id, budget=each.name, holder=each.holder)
