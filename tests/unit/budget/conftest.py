"""An organisation with a project, people of every role that has to do with money, and credit."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api.registry import Operation, parse
from heroes.api.units import Money
from heroes_budget import service
from heroes_budget.handlers import MODULE
from heroes_budget.model import Payer
from heroes_core.module import Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_identity import service as identity
from heroes_identity.model import NewPerson, Organisation, Passwords

CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)
SECRET = "correct horse battery"
RIGHTS = {
    "ada": {"submit", "data:home"},
    "bob": {"submit"},
    "petra": {"data:manage", "users:manage"},
    "bill": {"billing"},
}


class Books:
    """`acme` has the engineers ada and bob, the project admin petra and the billing admin bill; ada and petra are in
    the project wind. It has 1,000 EUR of credit."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write() as work:
            directory = identity.embedded(CHEAP)(work)
            for name, kind in {"acme": "client", "heroes": "platform"}.items():
                new = Organisation(name, name.title(), kind, "EUR", True, work.now)
                identity.add_organisation(work, directory, "setup", new, "admin", SECRET)
            for name in RIGHTS:
                directory.add_person(NewPerson("acme", name, password=SECRET))
            identity.add_project(work, self.caller("petra"), "wind", "Wind", ["ada", "petra"])
            service.credit(work, "acme", Money.of(1000), "prepaid", "root@heroes")

    def caller(self, name: str, *, platform: bool = False) -> Caller:
        """A user with the rights of its role."""
        organisation = "heroes" if platform else "acme"
        return Caller(organisation, name, frozenset(RIGHTS.get(name, set())), platform=platform)

    def ask(self, caller: Caller | str, operation: Operation, **fields: Any) -> Any:
        """The answer to a request, as the API would give it."""
        asking = self.caller(caller) if isinstance(caller, str) else caller
        call = Call(admit(operation, asking), self.database, Services())
        return perform(MODULE.bound[operation.name], call, parse(operation.request, fields), "")

    def spend(self, key: str, reserved: str, used: str | None = None, user: str = "ada", project: str = "") -> None:
        """A job on the centre's cluster alpha: reserved, and settled when it says what was used."""
        with self.database.write() as work:
            payer = Payer("acme", project, user)
            service.reserve(work, key, payer, "centre", Money.of(reserved), {}, None, "alpha")
            if used is not None:
                service.settle(work, key, Money.of(used), {"core-hours": Money.of(used).micros})


@pytest.fixture
def acme(sqlite: Database) -> Books:
    """On SQLite."""
    return Books(sqlite)


@pytest.fixture
def both(database: Database) -> Books:
    """On each kind of database."""
    return Books(database)
