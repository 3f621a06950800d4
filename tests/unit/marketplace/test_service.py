"""Agreements follow the settings, and every change of them is on record."""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa

from heroes_core.store import audit_record
from heroes_core.work import Database
from heroes_marketplace import service
from heroes_marketplace.service import Agreed

FIRST = [Agreed("acme", "alpha"), Agreed("acme", "cumulus", "spot", "no refunds"), Agreed("other", "alpha")]


def actions(database: Database) -> list[tuple[str, str]]:
    with database.read() as work:
        rows = work.execute(sa.select(audit_record).where(audit_record.c.organisation == "acme")).all()
    return [(row.action, row.subject) for row in rows]


def test_without_agreements_there_is_nothing_to_say(database: Database) -> None:
    """A platform that keeps none leaves it to visibility."""
    with database.read() as work:
        assert service.agreements(work, "acme") is None


def test_an_organisation_sees_its_own(database: Database) -> None:
    """Its own agreements with their terms; one without any has an empty list as soon as the platform keeps some."""
    with database.write() as work:
        service.configure(work, FIRST, "settings")
        assert [(each.cluster, each.queue) for each in service.agreements(work, "acme") or ()] == [
            ("alpha", "*"),
            ("cumulus", "spot"),
        ]
        assert service.agreements(work, "third") == []
        assert [each.terms for each in service.listing(work, "acme").items] == ["", "no refunds"]


def test_changes_of_the_settings_are_audited_once(database: Database) -> None:
    """What comes, changes and goes leaves a record each; the same settings again leave none."""
    for _ in range(2):
        with database.write() as work:
            service.configure(work, FIRST, "settings")
    assert actions(database) == [("agreement.made", "alpha/*"), ("agreement.made", "cumulus/spot")]
    with database.write() as work:
        service.configure(work, [Agreed("acme", "alpha", "*", "new terms")], "settings")
    assert actions(database)[2:] == [("agreement.made", "alpha/*"), ("agreement.ended", "cumulus/spot")]


def test_exchange_rates_follow_the_settings(database: Database) -> None:
    """A rate is kept exactly; a changed one replaces it and is audited, the same one is not."""
    for rate in ("0.92", "0.92", "0.95"):
        with database.write() as work:
            service.configure_rates(work, {("USD", "EUR"): Decimal(rate)}, "acme", "settings")
    with database.read() as work:
        assert service.exchange_rate(work, "USD", "EUR") == Decimal("0.95")
        assert service.exchange_rate(work, "EUR", "EUR") == 1
        assert service.exchange_rate(work, "CHF", "EUR") is None
    assert actions(database) == [("exchange.rate", "USD/EUR")] * 2
