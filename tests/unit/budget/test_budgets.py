"""Budgets and credit: who sets them, what counts in them, what is seen of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from heroes.api import budget as api
from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound, OverBudget
from heroes.api.units import Money
from heroes_budget import books
from heroes_core.store import audit_record
from tests.conftest import StillClock
from tests.unit.budget.conftest import Books


def set_budget(acme: Books, scope: str, subject: str, limit: str, by: str = "bill", **more: object) -> api.Budget:
    """A new budget."""
    found: api.Budget = acme.ask(by, api.SET, scope=scope, subject=subject, limit=Money.of(limit), **more)
    return found


def check_sound(acme: Books) -> None:
    """The books are proven."""
    with acme.database.read() as work:
        assert books.verify(work).sound


def test_a_budget_counts_what_was_spent_in_its_period_before(both: Books) -> None:
    """Set in the middle of a month, it counts what was spent and is reserved since the month began."""
    both.spend("a", "10", "4", project="wind")
    both.spend("b", "7", project="wind")
    both.spend("c", "1", "1")
    made = set_budget(both, "project", "wind", "20")
    assert (made.posted, made.pending) == (Money.of(4), Money.of(7))
    assert (made.starts, made.ends) == (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    with pytest.raises(OverBudget, match="project wind, month 2026-03"):
        both.spend("d", "10", project="wind")
    check_sound(both)


def test_a_limit_is_not_set_below_what_is_spent(acme: Books) -> None:
    """The message names the least that is possible, which then stops all spending."""
    acme.spend("a", "10", "6")
    with pytest.raises(InvalidSpec, match=r"6\.00 EUR is spent or reserved already"):
        set_budget(acme, "user", "ada", "5")
    made = set_budget(acme, "user", "ada", "6")
    with pytest.raises(InvalidSpec, match="more than"):
        acme.ask("bill", api.CHANGE, budget_id=made.id, limit=Money.of(5))
    with pytest.raises(OverBudget):
        acme.spend("b", "0.000001")
    check_sound(acme)


def test_a_limit_is_changed_and_removed(both: Books) -> None:
    """A higher limit admits more, none admits all that the credit does; each change is audited."""
    made = set_budget(both, "user", "ada", "5")
    with pytest.raises(OverBudget):
        both.spend("a", "6")
    changed = both.ask("bill", api.CHANGE, budget_id=made.id, limit=Money.of(8))
    assert changed.limit == Money.of(8)
    with both.database.read() as work:
        told = work.execute(
            sa.select(audit_record.c.detail).where(audit_record.c.action == "budget.change")
        ).scalar_one()
    assert json.loads(told) == {"limit": "8.00 EUR", "was": "5.00 EUR", "id": made.id}
    both.spend("a", "6")
    both.ask("bill", api.REMOVE, budget_id=made.id)
    both.spend("b", "100")
    assert both.ask("bill", api.LIST).items == ()
    with pytest.raises(NotFound):
        both.ask("bill", api.CHANGE, budget_id=made.id, limit=Money.of(9))
    check_sound(both)


def test_one_budget_for_a_holder_and_period(acme: Books) -> None:
    """A second one of the same period is a conflict; another period, and fixed dates, stand beside it."""
    first = set_budget(acme, "organisation", "", "50")
    with pytest.raises(Conflict) as refused:
        set_budget(acme, "organisation", "", "60")
    assert refused.value.detail["id"] == first.id
    set_budget(acme, "organisation", "", "60", period="year")
    dates = {"starts": datetime(2026, 3, 1, tzinfo=UTC), "ends": datetime(2026, 3, 9, tzinfo=UTC)}
    for _ in range(2):
        set_budget(acme, "organisation", "", "7", period="fixed", **dates)
    with pytest.raises(OverBudget, match="2026-03-01 to 2026-03-09"):
        acme.spend("a", "8")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"scope": "user", "subject": "nobody"}, "nobody"),
        ({"scope": "project", "subject": "nothing"}, "nothing"),
        ({"scope": "organisation", "subject": "ada"}, "has no subject"),
        ({"scope": "user", "subject": "ada", "period": "fixed"}, "starts before ends"),
        ({"scope": "user", "subject": "ada", "limit": Money(micros=5, currency="CHF")}, "in EUR"),
        ({"scope": "user", "subject": "ada", "limit": Money(micros=-5)}, "0 or more"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(acme: Books, fields: dict[str, object], said: str) -> None:
    """The message names what is wrong."""
    with pytest.raises((InvalidSpec, NotFound), match=said):
        acme.ask("bill", api.SET, **({"limit": Money.of(1)} | fields))


def test_only_those_who_may_set_budgets(acme: Books) -> None:
    """Billing sets any; a project admin those of own projects; an engineer none."""
    made = set_budget(acme, "project", "wind", "5", by="petra")
    acme.ask("petra", api.CHANGE, budget_id=made.id, limit=Money.of(6))
    own = set_budget(acme, "user", "ada", "5")
    for attempt in (
        lambda: set_budget(acme, "user", "ada", "5", by="petra"),
        lambda: set_budget(acme, "organisation", "", "5", by="petra"),
        lambda: acme.ask("petra", api.CHANGE, budget_id=own.id, limit=Money.of(6)),
        lambda: acme.ask("petra", api.REMOVE, budget_id=own.id),
        lambda: set_budget(acme, "user", "ada", "5", by="ada"),
    ):
        with pytest.raises(NotAllowed):
            attempt()


def test_everybody_sees_what_concerns_them(acme: Books) -> None:
    """Own budgets, those of own projects and of the organisation; billing sees all, a page at a time."""
    for scope, subject in (("user", "ada"), ("user", "bob"), ("project", "wind"), ("organisation", "")):
        set_budget(acme, scope, subject, "5")
    seen = {each.name for each in acme.ask("ada", api.LIST).items}
    assert seen == {"user ada, month 2026-03", "project wind, month 2026-03", "organisation acme, month 2026-03"}
    assert {each.scope for each in acme.ask("bob", api.LIST).items} == {"user", "organisation"}
    first = acme.ask("bill", api.LIST, limit=3)
    rest = acme.ask("bill", api.LIST, limit=3, after=first.next)
    assert len({each.id for each in (*first.items, *rest.items)}) == 4
    assert rest.next is None


def test_a_period_that_ended_is_shown_as_the_new_one(acme: Books, clock: StillClock) -> None:
    """Also before anybody spends in it; changing it then begins it."""
    made = set_budget(acme, "user", "ada", "5")
    acme.spend("a", "5", "5")
    clock.at = datetime(2026, 4, 2, tzinfo=UTC)
    [shown] = acme.ask("ada", api.LIST).items
    assert (shown.name, shown.posted) == ("user ada, month 2026-04", Money.zero())
    acme.ask("bill", api.CHANGE, budget_id=made.id, limit=Money.of(1))
    acme.spend("b", "1")
    check_sound(acme)


def test_a_preview_shows_every_limit_before_and_after(both: Books) -> None:
    """The budgets in order and the credit last; the first that does not admit is seen."""
    set_budget(both, "user", "ada", "5")
    set_budget(both, "project", "wind", "50")
    both.spend("a", "2", "1", project="wind")
    both.spend("b", "1", project="wind")
    shown = both.ask("ada", api.PREVIEW, amount=Money.of(4), project="wind")
    assert [each.name for each in shown.lines] == [
        "user ada, month 2026-03", "project wind, month 2026-03", "credit of acme",
    ]  # fmt: skip
    assert [each.after for each in shown.lines] == [Money.of(6)] * 3
    assert [each.admits for each in shown.lines] == [False, True, True]
    assert not shown.admitted
    assert both.ask("ada", api.PREVIEW, amount=Money.of(3), project="wind").admitted


def test_a_preview_is_of_ones_own_projects(acme: Books) -> None:
    """Whoever is not in a project does not see its budget."""
    with pytest.raises(NotAllowed, match="not in the project"):
        acme.ask("bob", api.PREVIEW, amount=Money.of(1), project="wind")


def test_an_organisation_without_credit_may_spend_nothing(acme: Books) -> None:
    """The preview says so before anybody tries."""
    from heroes_core.work import Caller

    stranger = Caller("heroes", "admin", frozenset({"submit"}))
    shown = acme.ask(stranger, api.PREVIEW, amount=Money.of(1))
    assert [(each.name, each.limit) for each in shown.lines] == [("credit of heroes", Money.zero())]
    assert not shown.admitted


def test_credit_is_given_by_the_platforms_billing_only(both: Books) -> None:
    """Credit adds up; what is neither spent nor reserved may be taken back, and no more."""
    from heroes_core.work import Caller

    mayor = Caller("heroes", "root", frozenset({"billing"}), platform=True)
    both.spend("a", "900")
    given = both.ask(mayor, api.CREDIT, organization_id="acme", amount=Money.of(50), reason="invoice 7")
    assert (given.credit, given.available) == (Money.of(1050), Money.of(150))
    back = both.ask(mayor, api.CREDIT, organization_id="acme", amount=-Money.of(150), reason="cancelled")
    assert back.available == Money.zero()
    with pytest.raises(Conflict, match=r"Only 0 EUR"):
        both.ask(mayor, api.CREDIT, organization_id="acme", amount=Money(micros=-1), reason="more")
    with pytest.raises(NotAllowed):
        both.ask("bill", api.CREDIT, organization_id="acme", amount=Money.of(50), reason="mine")
    with pytest.raises(NotFound):
        both.ask(mayor, api.CREDIT, organization_id="nobody", amount=Money.of(50), reason="x")
    with pytest.raises(InvalidSpec, match="EUR"):
        both.ask(mayor, api.CREDIT, organization_id="acme", amount=Money.of(50, "CHF"), reason="x")
    assert both.ask("ada", api.ACCOUNT).pending == Money.of(900)
    check_sound(both)
