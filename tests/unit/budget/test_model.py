"""Periods of the calendar, names of limits, and when they admit and warn."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes.api.units import Money
from heroes_budget.model import (
    Counter,
    Payer,
    Window,
    called,
    check_amount,
    holder_of,
    months_between,
    over_budget,
    scope_of,
    window_of,
)

MARCH = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
ADA = Counter("acme", "1:user:ada", "month", "1", "EUR", 30, 40, 100, MARCH.starts, MARCH.ends, None)


def day(year: int, month: int, number: int = 1) -> datetime:
    """Midnight UTC."""
    return datetime(year, month, number, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "at", "starts", "ends"),
    [
        ("month", day(2026, 12, 31), day(2026, 12), day(2027, 1)),
        ("quarter", day(2026, 6, 30), day(2026, 4), day(2026, 7)),
        ("quarter", day(2026, 10, 1), day(2026, 10), day(2027, 1)),
        ("year", day(2026, 2, 3), day(2026, 1), day(2027, 1)),
    ],
)
def test_windows_are_the_calendars(period: str, at: datetime, starts: datetime, ends: datetime) -> None:
    """Months, quarters and years begin at midnight UTC."""
    assert window_of(period, at) == Window(starts, ends)


def test_a_window_is_of_utc_whatever_the_zone() -> None:
    """The first of April in Paris is still March in UTC."""
    paris = timezone(timedelta(hours=2))
    assert window_of("month", datetime(2026, 4, 1, 1, tzinfo=paris)) == MARCH
    assert window_of("year", datetime(2027, 1, 1, 1, tzinfo=paris)).ends == day(2027, 1)


@given(st.integers(0, 4_000_000_000), st.sampled_from(["month", "quarter", "year"]))
def test_every_instant_is_in_one_window(seconds: int, period: str) -> None:
    """An instant is in its window, and the next window begins where it ends."""
    at = datetime.fromtimestamp(seconds, UTC)
    window = window_of(period, at)
    assert window.starts <= at < window.ends
    assert window_of(period, window.ends).starts == window.ends


def test_months_between_cover_the_time_without_gap() -> None:
    """The first and the last month are cut."""
    found = months_between(day(2026, 1, 20), day(2026, 3, 5))
    assert found == [
        Window(day(2026, 1, 20), day(2026, 2)),
        Window(day(2026, 2), day(2026, 3)),
        Window(day(2026, 3), day(2026, 3, 5)),
    ]


def test_a_payers_accounts_come_in_the_order_of_their_locks() -> None:
    """First what makes the books the holder's own: the organisation's account; then user, project, organisation."""
    holders = Payer("acme", None, "ada").holders
    assert holders == ("0:organisation", "1:user:ada", "2:project:", "3:organisation")
    assert list(holders) == sorted(holders)


@pytest.mark.parametrize("scope", [("user", "ada"), ("project", "wind"), ("organisation", "")])
def test_a_holder_tells_its_scope(scope: tuple[str, str]) -> None:
    """The holder of a scope is read back."""
    assert scope_of(holder_of(*scope)) == scope


@pytest.mark.parametrize(
    ("period", "starts", "ends", "name"),
    [
        ("month", day(2026, 3), day(2026, 4), "project wind, month 2026-03"),
        ("quarter", day(2026, 4), day(2026, 7), "project wind, quarter 2026 Q2"),
        ("year", day(2026, 1), day(2027, 1), "project wind, year 2026"),
        ("fixed:7", day(2026, 3, 2), day(2026, 5, 9), "project wind, 2026-03-02 to 2026-05-09"),
    ],
)
def test_budgets_have_names_that_people_use(period: str, starts: datetime, ends: datetime, name: str) -> None:
    """Who, and which time."""
    assert called("acme", "2:project:wind", period, starts, ends) == name


def test_a_limit_admits_up_to_the_last_micro_unit_and_what_is_free() -> None:
    """Nothing fits beyond, except what costs nothing."""
    assert ADA.admits(30)
    assert not ADA.admits(31)
    assert replace(ADA, posted=100).admits(0)
    assert replace(ADA, ceiling=None).admits(10**18)


def test_a_budget_warns_once_at_80_percent_and_credit_never() -> None:
    """At 80 % exactly, unless somebody did before; an account has no window and does not warn."""
    assert not ADA.warns(9)
    assert ADA.warns(10)
    assert not replace(ADA, warned_by="k").warns(10)
    assert not replace(ADA, starts=None, ends=None).warns(10)


def test_the_refusal_says_what_to_do() -> None:
    """Which limit, by how much, what is spent, reserved and needed, and a way out."""
    error = over_budget(replace(ADA, ceiling=100_000_000, posted=30_000_000, pending=40_000_000), 35_500_000)
    assert error.message == (
        "user ada, month 2026-03: 100.00 EUR is too little by 5.50 EUR. 30.00 EUR is spent, 40.00 EUR is reserved, and "
        "this needs up to 35.50 EUR."
    )
    assert "cheaper" in error.hint


def test_a_negative_amount_is_refused() -> None:
    """Nothing is not negative."""
    assert check_amount(Money.zero()) == 0
    with pytest.raises(InvalidSpec):
        check_amount(Money(micros=-1))
