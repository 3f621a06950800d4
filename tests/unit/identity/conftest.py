"""A platform with two organisations, and a way to ask its operations as a signed-in user."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api import identity as api
from heroes.api.registry import Operation, parse
from heroes_core.module import NOBODY, Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_identity import service
from heroes_identity.handlers import MODULE, Identity
from heroes_identity.model import NewPerson, Organisation, Passwords
from heroes_identity.provider import EmbeddedIdentityProvider

SECRET = "correct horse battery"
CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)


class Platform:
    """The operations of identity, asked with tokens as the API does it. `acme` and `umbrella` are clients, `depot` a
    provider, `heroes` runs the platform; the administrator of each is `admin`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.provider = EmbeddedIdentityProvider(database)
        self.services = Services(Identity(service.embedded(CHEAP)))
        kinds = {"acme": "client", "umbrella": "client", "depot": "provider", "heroes": "platform"}
        with database.write() as work:
            directory = service.embedded(CHEAP)(work)
            for name, kind in kinds.items():
                new = Organisation(name, name.title(), kind, "EUR", True, work.now)
                service.add_organisation(work, directory, "setup", new, "admin", SECRET)

    def ask(self, token: str, operation: Operation, *, key: str = "", **fields: Any) -> Any:
        """The answer to one request."""
        caller = (self.provider.remembered(token) or self.provider.identify(token)) if token else None
        request = parse(operation.request, fields)
        call = Call(admit(operation, caller) if caller else NOBODY, self.database, self.services)
        return perform(MODULE.bound[operation.name], call, request, key)

    def login(self, user: str, organisation: str = "acme", password: str = SECRET) -> str:
        """A fresh token."""
        answer: api.Token = self.ask("", api.LOGIN, organisation=organisation, user=user, password=password)
        return answer.token

    def add(self, name: str, *roles: str, organisation: str = "acme", program: bool = False) -> str:
        """Add a user whatever the rules; the token of a person."""
        with self.database.write() as work:
            directory = service.embedded(CHEAP)(work)
            directory.add_person(NewPerson(organisation, name, program=program, password=None if program else SECRET))
            for role in roles:
                directory.give_role(organisation, name, role)
        return "" if program else self.login(name, organisation)

    def caller(self, name: str, organisation: str = "acme") -> Caller:
        """The caller that a user would be."""
        return self.provider.identify(self.login(name, organisation))

    def actions(self, organisation: str = "acme") -> list[tuple[str, str, str]]:
        """The audit records of an organisation: who, what, whom."""
        import sqlalchemy as sa

        from heroes_core.store import audit_record

        with self.database.read() as work:
            query = sa.select(audit_record).where(audit_record.c.organisation == organisation)
            rows = work.execute(query.order_by(audit_record.c.sequence)).all()
        return [(row.actor.partition("@")[0], row.action, row.subject) for row in rows]


@pytest.fixture
def platform(sqlite: Database) -> Platform:
    """A platform on SQLite."""
    return Platform(sqlite)


@pytest.fixture
def both(database: Database) -> Platform:
    """A platform on each kind of database."""
    return Platform(database)
