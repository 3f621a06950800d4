"""What can be done with budgets, credit and the ledger: one function per use case, in the caller's open work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.budget import AddCredit, BudgetLine, SetBudget
from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import new_ulid
from heroes.api.units import Money, PriceModel
from heroes_budget import books, counters, reserving, settling
from heroes_budget.model import (
    ORGANISATION,
    Bill,
    Counter,
    Payer,
    Want,
    budgets_first,
    called,
    holder_of,
    scope_of,
    window_of,
)
from heroes_budget.store import ledger_account as account
from heroes_budget.store import ledger_credit
from heroes_core.work import Caller, Work
from heroes_identity import service as identity

# ------------------------------------------------------------------------------------------------------- the ledger


def hold(work: Work, organisation: str) -> None:
    """Lock an organisation's books until the transaction ends: for one that changes other rows before it reserves,
    settles or voids. Whoever changes books, attempts and runs locks them in this order."""
    mine = account.c.organisation == organisation, account.c.holder == ORGANISATION
    work.execute(sa.select(account.c.id).where(*mine).with_for_update())


def reserve(
    work: Work,
    key: str,
    payer: Payer,
    provider: str,
    amount: Money,
    lines: Mapping[str, int],
    price: PriceModel | None = None,
    cluster: str = "",
) -> None:
    """Reserve the worst case of an attempt; once for each key. OverBudget names the budget and by how much it is too
    small, and then nothing is reserved."""
    reserving.reserve(work, payer, [Want(key, provider, amount, lines, price, cluster)])


def reserve_all(work: Work, payer: Payer, wants: Sequence[Want]) -> None:
    """Reserve all of them or, with OverBudget, none: the many jobs of one run at the cost of one."""
    reserving.reserve(work, payer, wants)


def settle(work: Work, key: str, amount: Money, lines: Mapping[str, int]) -> Money:
    """Charge what was used and give back the rest; what is charged. Never more than was reserved: what exceeds it is
    the platform's. Again changes nothing. Conflict when the reservation is void."""
    return settling.settle(work, {key: Bill(amount, lines)})[key]


def settle_all(work: Work, bills: Mapping[str, Bill]) -> dict[str, Money]:
    """Settle many at once, locking every row once and in order; what is charged, by key."""
    return settling.settle(work, bills) if bills else {}


def void(work: Work, key: str) -> None:
    """Give everything back. Again changes nothing. Conflict when the reservation is settled."""
    settling.void(work, [key])


def void_all(work: Work, keys: Sequence[str]) -> None:
    """Void many at once."""
    if keys:
        settling.void(work, keys)


def correct(work: Work, key: str, amount: Money, reason: str) -> Money:
    """A settled job has cost `amount` after all: the difference is entered, never above the reservation nor above what
    a limit leaves (the rest is the platform's). What is charged now."""
    return settling.correct(work, key, amount, reason)


# ---------------------------------------------------------------------------------------------------------- preview


def preview(work: Work, payer: Payer, amount: Money) -> list[BudgetLine]:
    """Every limit before and after `amount` is reserved: user, project, organisation, and last the credit."""
    found = budgets_first(counters.current(work, payer, work.now))
    if not found or found[-1].holder != ORGANISATION:
        found.append(_no_credit(payer.organisation, amount.currency))
    return [_as_of(each, work.now).line(amount.micros) for each in found]


def _no_credit(organisation: str, currency: str) -> Counter:
    return Counter(organisation, ORGANISATION, "", ORGANISATION, currency, 0, 0, 0, None, None, None)


def _as_of(each: Counter, now: datetime) -> Counter:
    """In the window that `now` is in: one that ended shows the next one, with nothing spent."""
    if each.ends is None or each.fixed or now < each.ends:
        return each
    window = window_of(each.period, now)
    return replace(each, starts=window.starts, ends=window.ends, posted=0, pending=0, warned_by=None)


# ---------------------------------------------------------------------------------------------------------- budgets


def budgets(work: Work, caller: Caller, after: str = "", limit: int = 50) -> list[Counter]:
    """The budgets that concern the caller (own, of own projects, of the organisation); with `billing` all."""
    query = books.budgets_of(caller.organisation).where(account.c.id > after).order_by(account.c.id).limit(limit)
    if "billing" not in caller.rights:
        projects = identity.projects_of(work, caller.organisation, caller.user)
        mine = [f"1:user:{caller.user}", "3:organisation", *(f"2:project:{each}" for each in sorted(projects))]
        query = query.where(account.c.holder.in_(mine))
    return [_as_of(each, work.now) for each in books.counters_of(work, query)]


def set_budget(work: Work, caller: Caller, asked: SetBudget) -> Counter:
    """A new budget. What its holder spent and reserved in the current period counts."""
    _check_may(work, caller, asked.scope, asked.subject)
    _check_subject(work, caller.organisation, asked)
    organisation = identity.organisation(work, caller.organisation)
    _check_limit(asked.limit, organisation.currency)
    counters.shut_out(work, caller.organisation)
    starts, ends = _window(asked, work.now)
    fresh = new_ulid()
    period = asked.period if asked.period != "fixed" else f"fixed:{fresh}"
    holder = holder_of(asked.scope, asked.subject)
    _check_new(work, caller.organisation, holder, period)
    posted, pending = books.used(work, caller.organisation, holder, starts, ends)
    made = Counter(
        caller.organisation, holder, period, fresh, asked.limit.currency, posted, pending, asked.limit.micros, starts,
        ends, None,
    )  # fmt: skip
    _check_room(made, asked.limit)
    work.execute(sa.insert(account).values(**vars(made)))
    work.audit(caller.organisation, caller.actor, "budget.set", made.name, limit=asked.limit.exact(), id=fresh)
    return made


def change_budget(work: Work, caller: Caller, budget_id: str, limit: Money) -> Counter:
    """A new limit, from now on; not less than what is spent and reserved already."""
    found = _budget(work, caller, budget_id)
    counters.shut_out(work, caller.organisation)
    found = _as_of(_budget(work, caller, budget_id), work.now)
    _check_limit(limit, found.currency)
    _check_room(found, limit)
    changed = replace(found, ceiling=limit.micros, warned_by=None)
    values = {name: getattr(changed, name) for name in ("ceiling", "warned_by", "posted", "pending", "starts", "ends")}
    work.execute(sa.update(account).where(_here(found)).values(**values))
    was = Money(micros=found.ceiling or 0, currency=found.currency).exact()
    detail = {"limit": limit.exact(), "was": was, "id": budget_id}
    work.audit(caller.organisation, caller.actor, "budget.change", found.name, **detail)
    return changed


def remove_budget(work: Work, caller: Caller, budget_id: str) -> None:
    """Its holder spends without it from now on. What was spent stays in the ledger."""
    found = _budget(work, caller, budget_id)
    counters.shut_out(work, caller.organisation)
    work.execute(sa.delete(account).where(_here(found)))
    work.audit(caller.organisation, caller.actor, "budget.remove", found.name, id=budget_id)


def _here(found: Counter) -> sa.ColumnElement[bool]:
    return sa.and_(account.c.organisation == found.organisation, account.c.id == found.id)


def _budget(work: Work, caller: Caller, budget_id: str) -> Counter:
    found = counters.find_counter(work, caller.organisation, budget_id)
    if found is None or found.ends is None:
        raise NotFound(f"There is no budget {budget_id}.", hint="List them: heroes budget list.")
    _check_may(work, caller, *scope_of(found.holder)[:2])
    return found


def _check_may(work: Work, caller: Caller, scope: str, subject: str) -> None:
    """Whoever does the billing may all; a project admin (`users:manage`) those of projects they are in."""
    if "billing" in caller.rights:
        return
    theirs = scope == "project" and subject in identity.projects_of(work, caller.organisation, caller.user)
    if not theirs or "users:manage" not in caller.rights:
        raise NotAllowed(
            f"{caller.user} may not set the budget of {scope} {subject or caller.organisation}.",
            hint="It takes the right billing; project admins set the budgets of their own projects.",
            detail={"right": "billing"},
        )


def _check_subject(work: Work, organisation: str, asked: SetBudget) -> None:
    if asked.scope == "user":
        identity.user(work, organisation, asked.subject)
    elif asked.scope == "project":
        identity.project(work, organisation, asked.subject)
    elif asked.subject:
        raise InvalidSpec(
            f"A budget of the organisation has no subject (got {asked.subject}).",
            hint="Leave it out, or choose the scope user or project.",
            detail={"fields": [{"field": "subject", "problem": "not with this scope", "value": asked.subject}]},
        )


def _check_limit(limit: Money, currency: str) -> None:
    if limit.currency != currency or limit.micros < 0:
        raise InvalidSpec(
            f"A limit is an amount of 0 or more in {currency}, not {limit}.",
            hint=f"Give it in {currency}.",
            detail={"fields": [{"field": "limit", "problem": f"not 0 or more {currency}", "value": str(limit)}]},
        )


def _window(asked: SetBudget, now: datetime) -> tuple[datetime, datetime]:
    if asked.period != "fixed":
        window = window_of(asked.period, now)
        return window.starts, window.ends
    if asked.starts is None or asked.ends is None or asked.starts >= asked.ends:
        raise InvalidSpec(
            f"A budget with fixed dates needs starts before ends (got {asked.starts} and {asked.ends}).",
            hint="Give both, with their time zone, or choose month, quarter or year.",
            detail={"fields": [{"field": "starts", "problem": "not before ends", "value": str(asked.starts)}]},
        )
    return asked.starts.astimezone(UTC), asked.ends.astimezone(UTC)


def _check_new(work: Work, organisation: str, holder: str, period: str) -> None:
    here = (account.c.organisation == organisation, account.c.holder == holder, account.c.period == period)
    held = work.execute(sa.select(account.c.id).where(*here)).scalar_one_or_none()
    if held is not None:
        raise Conflict(
            f"There is a budget for {called(organisation, holder, '', None, None)} for each {period} already: {held}.",
            hint="Change its limit, or remove it first.",
            detail={"id": held},
        )


def _check_room(made: Counter, limit: Money) -> None:
    used = Money(micros=made.posted + made.pending, currency=limit.currency)
    if used > limit:
        raise InvalidSpec(
            f"{made.name}: {used.exact()} is spent or reserved already, more than {limit.exact()}.",
            hint=f"The least limit now is {used.exact()}; with it nothing more is spent.",
            detail={"fields": [{"field": "limit", "problem": f"less than {used}", "value": str(limit)}]},
        )


# ----------------------------------------------------------------------------------------------------------- credit


@dataclass(frozen=True)
class Standing:
    """An organisation's account: its credit, and what of it is spent and reserved."""

    organisation: str
    credit: Money
    posted: Money
    pending: Money

    @property
    def available(self) -> Money:
        """What may still be reserved."""
        return self.credit - self.posted - self.pending


def standing(work: Work, organisation: str) -> Standing:
    """The account of an organisation; without credit when it never had any."""
    found = counters.find_counter(work, organisation, ORGANISATION)
    if found is None:
        found = _no_credit(organisation, identity.organisation(work, organisation).currency)
    credit, posted, pending = (
        Money(micros=each, currency=found.currency) for each in (found.ceiling or 0, found.posted, found.pending)
    )
    return Standing(organisation, credit, posted, pending)


def add_credit(work: Work, caller: Caller, asked: AddCredit) -> Standing:
    """Give credit, or take back (negative) what is neither spent nor reserved. Billing of the HEROES organisation."""
    if not caller.platform or "billing" not in caller.rights:
        raise NotAllowed(
            f"{caller.user} may not give {asked.organization_id} credit.",
            hint="Ask the billing of the HEROES organisation.",
            detail={"right": "billing"},
        )
    return credit(work, asked.organization_id, asked.amount, asked.reason, caller.actor)


def credit(work: Work, organisation: str, amount: Money, reason: str, actor: str) -> Standing:
    """Add to an organisation's credit: what `add_credit` does, for whoever sets the platform up."""
    currency = identity.organisation(work, organisation).currency
    if amount.currency != currency:
        raise InvalidSpec(f"{organisation} keeps its books in {currency}, not in {amount.currency}.", hint="Convert.")
    counters.shut_out(work, organisation)
    counters.open_account(work, organisation, currency)
    here = sa.and_(account.c.organisation == organisation, account.c.id == ORGANISATION)
    enough = sa.func.coalesce(account.c.ceiling, 0) + amount.micros >= account.c.posted + account.c.pending
    changed = work.execute(sa.update(account).where(here, enough).values(ceiling=account.c.ceiling + amount.micros))
    if changed.rowcount != 1:
        free = standing(work, organisation).available
        raise Conflict(f"Only {free} of {organisation}'s credit is free.", hint="Take back at most that.")
    row: dict[str, Any] = {"id": new_ulid(), "organisation": organisation, "amount": amount.micros}
    work.execute(
        sa.insert(ledger_credit).values(**row, currency=currency, actor=actor, reason=reason, at=work.now)
    )  # fmt: skip
    work.audit(organisation, actor, "budget.credit", organisation, amount=amount.exact(), reason=reason, id=row["id"])
    return standing(work, organisation)
