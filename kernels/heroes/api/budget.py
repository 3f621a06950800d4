"""Budgets, what is left of them, an organisation's credit, and what was spent on what.

A budget limits what a user, a project or the whole organisation may spend in a period; what is reserved counts as
spent, so that it is never exceeded. Periods are those of the calendar in UTC, or fixed dates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import NAME, ULID
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import Money

Scope = Literal["user", "project", "organisation"]
Period = Literal["month", "quarter", "year", "fixed"]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
BudgetId = Annotated[str, StringConstraints(pattern=f"^{ULID.pattern}$")]


class BudgetLine(Model):
    """A limit before and after an amount is reserved. The organisation's credit is a line too, the last one."""

    name: str
    limit: Money
    posted: Money
    pending: Money
    after: Money

    @property
    def admits(self) -> bool:
        """Whether the limit holds afterwards."""
        return self.after <= self.limit


class Preview(Model):
    """An amount that would be reserved for oneself, and the project that pays with one (empty: none)."""

    amount: Money
    project: str = Field(default="", max_length=64)


class PreviewAnswer(Model):
    """Every limit concerned, and whether all of them admit the amount."""

    admitted: bool
    lines: tuple[BudgetLine, ...]


class Budget(Model):
    """A budget in its current period: `starts` (inclusive) to `ends` (exclusive)."""

    id: str
    name: str
    scope: Scope
    subject: str
    period: Period
    starts: datetime
    ends: datetime
    limit: Money
    posted: Money
    pending: Money


class Budgets(Model):
    """Budgets by holder."""

    items: tuple[Budget, ...]
    next: str | None = None


class SetBudget(Model):
    """A new budget. `subject` is the user or project, empty for the organisation; `starts` and `ends` for `fixed`."""

    scope: Scope = Field(description="whom it limits")
    subject: str = Field(default="", max_length=64, description="the user or project; empty for the organisation")
    period: Period = "month"
    limit: Money = Field(description="the most that may be spent in a period")
    starts: AwareDatetime | None = Field(default=None, description="of a fixed period, with a time zone")
    ends: AwareDatetime | None = Field(default=None, description="of a fixed period, exclusive")


class ChangeBudget(Model):
    """A new limit, from now on."""

    budget_id: BudgetId
    limit: Money = Field(description="the most that may be spent in a period")


class AskBudget(Model):
    """Which budget."""

    budget_id: BudgetId


class Account(Model):
    """What an organisation may still spend: its credit, less what is posted and what is pending."""

    organization: str
    credit: Money
    posted: Money
    pending: Money
    available: Money


class AddCredit(Model):
    """Credit for an organisation, prepaid or granted; a negative amount takes back what is not spent."""

    organization_id: Name
    amount: Money = Field(description="what is added; below zero: taken back")
    reason: str = Field(min_length=1, max_length=500, description="why, for the ledger")


class AskStatement(Model):
    """What was spent from `since` (inclusive) to `until` (exclusive); by default in the current month."""

    by: Literal["user", "project", "cluster", "provider", "month"] = "user"
    since: AwareDatetime | None = Field(default=None, description="from then on (default: this month)")
    until: AwareDatetime | None = Field(default=None, description="before then")


class StatementLine(Model):
    """One user, project, cluster, provider or month: jobs charged, what they cost, what is reserved for others still,
    and what the platform bore because it exceeded the reservation."""

    name: str
    jobs: int
    charged: Money
    pending: Money
    overrun: Money


class Statement(Model):
    """Lines by name, and their sum. A job belongs to the period in which its money was reserved."""

    organization: str
    by: str
    since: datetime
    until: datetime
    items: tuple[StatementLine, ...]
    total: StatementLine


class Entry(Model):
    """One entry of the ledger: `amount` from the account `debit` to the account `credit`."""

    key: str
    kind: str
    user: str
    project: str
    cluster: str
    provider: str
    debit: str
    credit: str
    amount: Money
    at: datetime
    reason: str
    lines: dict[str, int]


class Entries(Model):
    """Entries, newest first."""

    items: tuple[Entry, ...]
    next: str | None = None


class Audit(Model):
    """The books proven in SQL, in micro-units: how far any account or budget is above its limit, how far any book is
    from zero, and how far any counter is from its entries. All three are 0 in sound books."""

    overdraft: int
    imbalance: int
    difference: int
    accounts: int
    entries: int


PREVIEW = Operation(
    name="budget.preview", method="POST", path="/organization/budget/preview", request=Preview, response=PreviewAnswer,
    right=("submit", "billing"), errors=(NotAllowed, NotFound, InvalidSpec),
    summary="See every budget before and after an amount is reserved.",
)  # fmt: skip
LIST = Operation(
    name="budget.list", method="GET", path="/organization/budget", request=Page, response=Budgets, right=SIGNED_IN,
    summary="List the budgets that concern you; those who do the billing see all.", verb="budget list",
)  # fmt: skip
SET = Operation(
    name="budget.set", method="POST", path="/organization/budget", request=SetBudget, response=Budget,
    right=("billing", "users:manage"), errors=(Conflict, InvalidSpec, NotAllowed, NotFound), creates=True,
    summary="Set a budget for a user, a project or the organisation.", verb="budget set",
)  # fmt: skip
CHANGE = Operation(
    name="budget.change", method="PATCH", path="/organization/budget/{budget_id}", request=ChangeBudget,
    response=Budget, right=("billing", "users:manage"), errors=(Conflict, InvalidSpec, NotAllowed, NotFound),
    summary="Change the limit of a budget.", verb="budget change",
)  # fmt: skip
REMOVE = Operation(
    name="budget.remove", method="DELETE", path="/organization/budget/{budget_id}", request=AskBudget, response=Empty,
    right=("billing", "users:manage"), errors=(NotAllowed, NotFound), summary="Remove a budget.",
    verb="budget remove",
)  # fmt: skip
ACCOUNT = Operation(
    name="budget.account", method="GET", path="/organization/budget/account", request=Empty, response=Account,
    right=("submit", "billing"), summary="Show the organisation's credit and what is left of it.",
    verb="budget account",
)  # fmt: skip
STATEMENT = Operation(
    name="budget.statement", method="GET", path="/organization/budget/statement", request=AskStatement,
    response=Statement, right=("submit", "billing"), errors=(InvalidSpec,),
    summary="Show what was spent, by user, project, cluster, provider or month; without `billing` one's own.",
    verb="budget statement",
)  # fmt: skip
STATEMENT_CSV = Operation(
    name="budget.statement-csv", method="GET", path="/organization/budget/statement.csv", request=AskStatement,
    response=Empty, right=("submit", "billing"), errors=(InvalidSpec,), summary="The same statement as CSV.",
    download=True, verb="budget statement-csv",
)  # fmt: skip
ENTRIES = Operation(
    name="budget.entries", method="GET", path="/organization/budget/entries", request=Page, response=Entries,
    right="billing", summary="List the entries of the ledger.", verb="budget entries",
)  # fmt: skip
CREDIT = Operation(
    name="budget.credit", method="POST", path="/heroes/admin/organizations/{organization_id}/credit",
    request=AddCredit, response=Account, right="billing", errors=(NotAllowed, NotFound, InvalidSpec, Conflict),
    creates=True, summary="Give an organisation credit (billing of the HEROES organisation).", verb="budget credit",
)  # fmt: skip
VERIFY = Operation(
    name="budget.verify", method="GET", path="/heroes/admin/budget/verify", request=Empty, response=Audit,
    right="platform:operate", summary="Prove the books: no overdraft, no imbalance, no difference.",
    verb="budget verify",
)  # fmt: skip

OPERATIONS = (
    PREVIEW, LIST, SET, CHANGE, REMOVE, ACCOUNT, STATEMENT, STATEMENT_CSV, ENTRIES, CREDIT, VERIFY,
)  # fmt: skip
