"""The statement as table and CSV, the ledger's entries, and the proof."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from heroes.api import budget as api
from heroes.api.errors import InvalidSpec, NotAllowed
from heroes.api.units import Money
from heroes_budget import service
from heroes_core.work import Caller
from tests.conftest import StillClock
from tests.unit.budget.conftest import Books


@pytest.fixture
def spent(both: Books, clock: StillClock) -> Books:
    """In March ada spent 4 for wind and has 2 reserved, bob 3 with 1 over; in April ada spent 5."""
    both.spend("a", "6", "4", project="wind")
    both.spend("b", "2", project="wind")
    both.spend("c", "3", "4", user="bob")
    both.spend("d", "9", user="bob")
    with both.database.write() as work:
        service.void(work, "d")
    clock.at = datetime(2026, 4, 10, tzinfo=UTC)
    both.spend("e", "5", "5")
    return both


WHOLE = {"since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2027, 1, 1, tzinfo=UTC)}


def rows(statement: api.Statement) -> list[tuple[str, int, str, str, str]]:
    """Its lines in EUR."""
    return [
        (each.name, each.jobs, *(f"{amount.micros / 1e6:g}" for amount in (each.charged, each.pending, each.overrun)))
        for each in (*statement.items, statement.total)
    ]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("user", [("ada", 2, "9", "2", "0"), ("bob", 1, "3", "0", "1"), ("total", 3, "12", "2", "1")]),
        ("project", [("", 2, "8", "0", "1"), ("wind", 1, "4", "2", "0"), ("total", 3, "12", "2", "1")]),
        ("cluster", [("alpha", 3, "12", "2", "1"), ("total", 3, "12", "2", "1")]),
        ("provider", [("centre", 3, "12", "2", "1"), ("total", 3, "12", "2", "1")]),
        ("month", [("2026-03", 2, "7", "2", "1"), ("2026-04", 1, "5", "0", "0"), ("total", 3, "12", "2", "1")]),
    ],
)
def test_a_statement_adds_up_by_any_name(spent: Books, by: str, expected: list[tuple[str, ...]]) -> None:
    """Charged, reserved and borne by the platform, for each name and in all; what is void is not there."""
    assert rows(spent.ask("bill", api.STATEMENT, by=by, **WHOLE)) == expected


def test_a_statement_is_of_the_current_month_by_default(spent: Books) -> None:
    """A job belongs to the month in which it was reserved."""
    assert rows(spent.ask("bill", api.STATEMENT))[-1] == ("total", 1, "5", "0", "0")


def test_without_billing_a_statement_shows_ones_own(spent: Books) -> None:
    """An engineer sees what they spent themselves."""
    assert [each.name for each in spent.ask("ada", api.STATEMENT, **WHOLE).items] == ["ada"]
    assert rows(spent.ask("bob", api.STATEMENT, by="month", **WHOLE))[-1] == ("total", 1, "3", "0", "1")


def test_a_correction_shows_in_the_month_of_the_job(spent: Books) -> None:
    """Corrected in April, the job of March costs less in March."""
    with spent.database.write() as work:
        service.correct(work, "a", Money.of(1), "accounting came late")
    by_month = spent.ask("bill", api.STATEMENT, by="month", **WHOLE)
    assert rows(by_month)[0] == ("2026-03", 2, "4", "2", "1")


def test_the_csv_says_the_same(spent: Books) -> None:
    """A line for each name with exact decimal amounts, the total last."""
    text = b"".join(spent.ask("bill", api.STATEMENT_CSV, by="user", **WHOLE)).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["user", "jobs", "charged (EUR)", "pending (EUR)", "overrun (EUR)"],
        ["ada", "2", "9", "2", "0"],
        ["bob", "1", "3", "0", "1"],
        ["total", "3", "12", "2", "1"],
    ]


def test_csv_amounts_are_exact(acme: Books) -> None:
    """A micro-unit is written out, never in floating point."""
    acme.spend("a", "1", "0.000001")
    text = b"".join(acme.ask("bill", api.STATEMENT_CSV)).decode()
    assert text.splitlines()[1] == "ada,1,0.000001,0,0"


@pytest.mark.parametrize(
    "times",
    [
        {"since": datetime(2026, 5, 1, tzinfo=UTC)},
        {"since": datetime(1000, 1, 1, tzinfo=UTC), "until": datetime(2027, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_statement_of_no_time_is_refused(acme: Books, times: dict[str, datetime]) -> None:
    """Since comes before until, and ten years are enough."""
    with pytest.raises(InvalidSpec, match="since before until"):
        acme.ask("bill", api.STATEMENT, **times)


def test_entries_are_listed_newest_first_page_by_page(spent: Books) -> None:
    """Every entry is seen once, with both accounts; only billing sees them."""
    seen: list[api.Entry] = []
    after = ""
    while True:
        page = spent.ask("bill", api.ENTRIES, after=after, limit=4)
        seen += page.items
        if page.next is None:
            break
        after = page.next
    assert len(seen) == len({(each.key, each.kind) for each in seen}) == 10
    assert [each.at for each in seen] == sorted((each.at for each in seen), reverse=True)
    over = next(each for each in seen if each.kind == "overrun")
    assert (over.debit, over.credit, over.amount) == ("platform:overrun", "provider:centre", Money.of(1))
    with pytest.raises(NotAllowed):
        spent.ask("ada", api.ENTRIES)
    with pytest.raises(InvalidSpec, match="no cursor"):
        spent.ask("bill", api.ENTRIES, after="rubbish")


def test_the_proof_is_for_operators(spent: Books) -> None:
    """Whoever operates the platform proves all books at once."""
    operator = Caller("heroes", "root", frozenset({"platform:operate"}), platform=True)
    proof = spent.ask(operator, api.VERIFY)
    assert (proof.overdraft, proof.imbalance, proof.difference, proof.entries) == (0, 0, 0, 10)
    with pytest.raises(NotAllowed):
        spent.ask("bill", api.VERIFY)
