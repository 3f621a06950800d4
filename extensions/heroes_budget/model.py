"""Who pays, out of what, and for which time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from heroes.api.budget import BudgetLine
from heroes.api.errors import InvalidSpec, OverBudget
from heroes.api.units import Money, PriceModel

Recurring = Literal["month", "quarter", "year"]
_MONTHS: dict[str, int] = {"month": 1, "quarter": 3, "year": 12}
ORGANISATION = "0:organisation"
OVERRUN = "6:platform:overrun"


@dataclass(frozen=True)
class Payer:
    """Whose budgets and credit a job takes: a user of an organisation, for a project or none ("" or None)."""

    organisation: str
    project: str | None
    user: str

    @property
    def holders(self) -> tuple[str, ...]:
        """The accounts that a reservation changes, in the order of their locks."""
        return (ORGANISATION, f"1:user:{self.user}", f"2:project:{self.project or ''}", "3:organisation")


@dataclass(frozen=True)
class Want:
    """One reservation: the worst case `amount` under an attempt's `key`, and the price that is agreed with it."""

    key: str
    provider: str
    amount: Money
    lines: Mapping[str, int] = field(default_factory=dict)
    price: PriceModel | None = None
    cluster: str = ""


@dataclass(frozen=True)
class Bill:
    """What a job has cost, and the lines (micro-units) it is made of."""

    amount: Money
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Window:
    """A period: from `starts` (inclusive) to `ends` (exclusive), UTC."""

    starts: datetime
    ends: datetime


@dataclass(frozen=True)
class Counter:
    """An account or a budget as it stands: micro-units of `currency`, for a budget in its current window."""

    organisation: str
    holder: str
    period: str
    id: str
    currency: str
    posted: int
    pending: int
    ceiling: int | None
    starts: datetime | None
    ends: datetime | None
    warned_by: str | None

    @property
    def fixed(self) -> bool:
        """Whether it never begins anew."""
        return self.period.startswith("fixed")

    @property
    def name(self) -> str:
        """As people call it."""
        return called(self.organisation, self.holder, self.period, self.starts, self.ends)

    def covers(self, at: datetime) -> bool:
        """Whether what was reserved at that time counts here."""
        return self.starts is None or self.ends is None or self.starts <= at < self.ends

    def line(self, amount: int) -> BudgetLine:
        """Before and after `amount` is reserved; without a ceiling there is no line."""
        used = self.posted + self.pending
        limit, posted, pending, after = (
            Money(micros=each, currency=self.currency)
            for each in (self.ceiling or 0, self.posted, self.pending, used + amount)
        )
        return BudgetLine(name=self.name, limit=limit, posted=posted, pending=pending, after=after)

    def admits(self, amount: int) -> bool:
        """Whether the ceiling holds after `amount` is reserved. Nothing costs nothing, whatever the ceiling."""
        return self.ceiling is None or amount == 0 or self.posted + self.pending + amount <= self.ceiling

    def warns(self, amount: int) -> bool:
        """Whether `amount` takes the budget to 80 % of its ceiling, for the first time in its window."""
        if self.ceiling is None or self.ends is None or self.warned_by is not None:
            return False
        return (self.posted + self.pending + amount) * 5 >= self.ceiling * 4


def window_of(period: str, at: datetime) -> Window:
    """The calendar's month, quarter or year (UTC) that `at` is in."""
    months, at = _MONTHS[period], at.astimezone(UTC)
    first = (at.month - 1) // months * months
    return Window(_month(at.year, first), _month(at.year, first + months))


def _month(year: int, index: int) -> datetime:
    return datetime(year + index // 12, index % 12 + 1, 1, tzinfo=UTC)


def months_between(since: datetime, until: datetime) -> list[Window]:
    """The calendar's months that lie between the two, the first and last one cut to them."""
    found: list[Window] = []
    at = since
    while at < until:
        ends = min(window_of("month", at).ends, until)
        found.append(Window(at, ends))
        at = ends
    return found


def holder_of(scope: str, subject: str) -> str:
    """The account of a budget's holder."""
    return {"user": f"1:user:{subject}", "project": f"2:project:{subject}", "organisation": "3:organisation"}[scope]


def scope_of(holder: str) -> tuple[str, str]:
    """The scope and the subject of a budget's holder."""
    _, scope, *subject = holder.split(":")
    return scope, ":".join(subject)


def called(organisation: str, holder: str, period: str, starts: datetime | None, ends: datetime | None) -> str:
    """The name of an account or budget: "user ada, month 2026-11"."""
    scope, subject = scope_of(holder)
    who = f"{scope} {subject or organisation}"
    if holder == ORGANISATION:
        return f"credit of {organisation}"
    if starts is None or ends is None:
        return who
    when = {"month": f"{starts:%Y-%m}", "quarter": f"{starts:%Y} Q{(starts.month + 2) // 3}", "year": f"{starts:%Y}"}
    return f"{who}, {period} {when[period]}" if period in when else f"{who}, {starts:%Y-%m-%d} to {ends:%Y-%m-%d}"


def over_budget(counter: Counter, amount: int) -> OverBudget:
    """Names the budget and by how much it is too small, all in the message."""
    line = counter.line(amount)
    short = line.after - line.limit
    whose = "HEROES billing for credit" if counter.holder == ORGANISATION else "whoever does your billing for more"
    return OverBudget(
        f"{line.name}: {line.limit} is too little by {short.exact()}. {line.posted} is spent, {line.pending} is "
        f"reserved, and this needs up to {Money(micros=amount, currency=counter.currency)}.",
        hint=f"Ask {whose}, choose a cheaper place, or ask for less time.",
        detail={
            "budget": line.name,
            "limit": line.limit.model_dump(),
            "posted": line.posted.model_dump(),
            "pending": line.pending.model_dump(),
            "amount": amount,
            "short": short.model_dump(),
        },
    )


def wrong_currency(subject: str, currency: str, given: str) -> InvalidSpec:
    """An amount of another currency than that of the books (of an organisation, or that a key is reserved in)."""
    return InvalidSpec(
        f"The books of {subject} are kept in {currency}, not in {given}.",
        hint="Convert the price once, at submission, and reserve in the organisation's currency.",
        detail={"fields": [{"field": "currency", "problem": f"not {currency}", "value": given}]},
    )


def budgets_first(found: Iterable[Counter]) -> list[Counter]:
    """In the order in which limits are told: user, project, organisation, and last the credit."""
    return sorted(found, key=lambda each: (each.holder == ORGANISATION, each.holder, each.period))


def check_amount(amount: Money) -> int:
    """The micro-units of an amount that is not negative."""
    if amount.micros < 0:
        raise InvalidSpec(f"{amount} is negative.", hint="Amounts are 0 or more.", detail={"field": "amount"})
    return amount.micros
