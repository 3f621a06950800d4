"""Binds the operations over budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from heroes.api import budget as api
from heroes.api.errors import InvalidSpec
from heroes.api.model import Empty, Page
from heroes_budget import books, service
from heroes_budget.model import Counter, Payer, Window, scope_of, window_of
from heroes_core.module import Call, Module
from heroes_core.work import Work
from heroes_identity import service as identity

MODULE = Module("budget", api.OPERATIONS)


@MODULE.bind(api.PREVIEW)
def preview(call: Call, request: api.Preview) -> api.PreviewAnswer:
    """Every limit before and after."""
    caller = call.caller
    with call.read() as work:
        if request.project:
            identity.check_project(work, caller.organisation, caller.user, request.project)
        payer = Payer(caller.organisation, request.project, caller.user)
        lines = service.preview(work, payer, request.amount)
    return api.PreviewAnswer(admitted=all(line.admits for line in lines), lines=tuple(lines))


@MODULE.bind(api.LIST)
def list_budgets(call: Call, request: Page) -> api.Budgets:
    """Budgets that concern the caller."""
    with call.read() as work:
        found = service.budgets(work, call.caller, request.after, request.limit)
    more = found[-1].id if len(found) == request.limit else None
    return api.Budgets(items=tuple(_budget(each) for each in found), next=more)


@MODULE.bind(api.SET)
def set_budget(call: Call, request: api.SetBudget) -> api.Budget:
    """A new budget."""
    with call.write() as work:
        return _budget(service.set_budget(work, call.caller, request))


@MODULE.bind(api.CHANGE)
def change_budget(call: Call, request: api.ChangeBudget) -> api.Budget:
    """A new limit."""
    with call.write() as work:
        return _budget(service.change_budget(work, call.caller, request.budget_id, request.limit))


@MODULE.bind(api.REMOVE)
def remove_budget(call: Call, request: api.AskBudget) -> Empty:
    """A budget less."""
    with call.write() as work:
        service.remove_budget(work, call.caller, request.budget_id)
    return Empty()


@MODULE.bind(api.ACCOUNT)
def account(call: Call, _request: Empty) -> api.Account:
    """The organisation's credit."""
    with call.read() as work:
        return _account(service.standing(work, call.caller.organisation))


@MODULE.bind(api.CREDIT)
def credit(call: Call, request: api.AddCredit) -> api.Account:
    """Credit for an organisation."""
    with call.write() as work:
        return _account(service.add_credit(work, call.caller, request))


@MODULE.bind(api.STATEMENT)
def statement(call: Call, request: api.AskStatement) -> api.Statement:
    """What was spent."""
    with call.read() as work:
        window, lines, currency = _statement(call, work, request)
    return api.Statement(
        organization=call.caller.organisation, by=request.by, since=window.starts, until=window.ends,
        items=tuple(_line(each, currency) for each in lines), total=_line(books.total(lines), currency),
    )  # fmt: skip


@MODULE.bind(api.STATEMENT_CSV)
def statement_csv(call: Call, request: api.AskStatement) -> Iterator[bytes]:
    """The same as CSV."""
    with call.read() as work:
        _, lines, currency = _statement(call, work, request)
    return books.as_csv(request.by, lines, currency)


@MODULE.bind(api.ENTRIES)
def entries(call: Call, request: Page) -> api.Entries:
    """The organisation's ledger."""
    with call.read() as work:
        rows = books.entries(work, call.caller.organisation, request.after, request.limit)
    more = books.cursor(rows[-1]) if len(rows) == request.limit else None
    return api.Entries(items=tuple(_entry(each) for each in rows), next=more)


@MODULE.bind(api.VERIFY)
def verify(call: Call, _request: Empty) -> api.Audit:
    """The proof."""
    with call.read() as work:
        return api.Audit(**vars(books.verify(work)))


def _statement(call: Call, work: Work, request: api.AskStatement) -> tuple[Window, list[books.Line], str]:
    month = window_of("month", work.now)
    window = Window(request.since or month.starts, request.until or month.ends)
    if not window.starts < window.ends or (window.ends - window.starts).days > 3700:
        raise InvalidSpec(
            f"A statement needs since before until, ten years at most (got {window.starts} and {window.ends}).",
            hint="Leave both out for the current month.",
            detail={"fields": [{"field": "since", "problem": "not before until", "value": str(window.starts)}]},
        )
    caller = call.caller
    currency = service.standing(work, caller.organisation).credit.currency
    user = "" if "billing" in caller.rights else caller.user
    return window, books.statement(work, caller.organisation, request.by, window, user), currency


def _line(line: books.Line, currency: str) -> api.StatementLine:
    charged, pending, overrun = (books.money(each, currency) for each in (line.charged, line.pending, line.overrun))
    return api.StatementLine(name=line.name, jobs=line.jobs, charged=charged, pending=pending, overrun=overrun)


def _entry(row: sa.Row[Any]) -> api.Entry:
    same = ("key", "kind", "user", "project", "cluster", "provider", "at", "reason", "lines")
    return api.Entry(
        **{name: getattr(row, name) for name in same}, amount=books.money(row.amount, row.currency),
        debit=row.debit[2:], credit=row.credit[2:],
    )  # fmt: skip


def _account(found: service.Standing) -> api.Account:
    return api.Account(
        organization=found.organisation, credit=found.credit, posted=found.posted, pending=found.pending,
        available=found.available,
    )  # fmt: skip


def _budget(found: Counter) -> api.Budget:
    scope, subject = scope_of(found.holder)
    line = found.line(0)
    period = "fixed" if found.fixed else found.period
    return api.Budget.model_validate(
        {
            "id": found.id, "name": found.name, "scope": scope, "subject": subject, "period": period,
            "starts": found.starts, "ends": found.ends, "limit": line.limit, "posted": line.posted,
            "pending": line.pending,
        }
    )  # fmt: skip
