"""The embedded directory: users, roles and groups in the platform's own database, within an open unit of work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import sqlalchemy as sa

from heroes.api.errors import Conflict, NotFound
from heroes.api.ids import new_ulid
from heroes_core.work import Work
from heroes_identity import store
from heroes_identity.model import Changes, Members, NewPerson, Passwords, Person, name_key, unknown_user

GROUP = "group"
PROJECT = "project"


class EmbeddedDirectory:
    """Implements `ports.Directory`."""

    def __init__(self, work: Work, passwords: Passwords) -> None:
        self._work = work
        self._passwords = passwords

    def issuer(self, organisation: str) -> str:
        """One issuer for each organisation, as a realm would be."""
        return f"heroes:{organisation}"

    def person(self, organisation: str, name: str) -> Person:
        """The user of that name."""
        row = store.get_person(self._work, organisation, name)
        return people_of(self._work, [row])[0] if row else unknown_user(name)

    def by_subject(self, issuer: str, subject: str) -> Person | None:
        """The user of that identity."""
        row = store.get_by_subject(self._work, issuer, subject)
        return people_of(self._work, [row])[0] if row else None

    def people(self, organisation: str, after: str = "", limit: int = 50) -> list[Person]:
        """Users in order of name."""
        return people_of(self._work, store.list_people(self._work, organisation, after, limit))

    def holders(self, organisation: str, role: str, *, active_only: bool = False) -> frozenset[str]:
        """Names of those who have the role."""
        return store.holders(self._work, organisation, role, active_only)

    def add_person(self, new: NewPerson) -> Person:
        """Make a user."""
        values = {
            "organisation": new.organisation,
            "name": new.name,
            "key": name_key(new.name),
            "issuer": self.issuer(new.organisation),
            "subject": new_ulid(),
            "title": new.title,
            "email": new.email,
            "program": new.program,
            "active": True,
            "password": self._passwords.hash(new.password) if new.password is not None else None,
            "created_at": self._work.now,
        }
        if not store.insert_unless_taken(self._work, store.person, values):
            _taken("user", new.name)
        return self.person(new.organisation, new.name)

    def change_person(self, organisation: str, name: str, changes: Changes) -> Person:
        """Change a user."""
        values = {key: value for key, value in vars(changes).items() if value is not None}
        if values:
            self._update(organisation, name, values)
        return self.person(organisation, name)

    def remove_person(self, organisation: str, name: str) -> None:
        """Delete a user; the row stays, so the name is never given again."""
        self._update(organisation, name, {"active": False, "password": None, "removed_at": self._work.now})
        store.take_roles(self._work, organisation, name)
        store.leave_all(self._work, organisation, name)

    def set_password(self, organisation: str, name: str, password: str) -> None:
        """Replace the password."""
        self._update(organisation, name, {"password": self._passwords.hash(password)})

    def password_matches(self, organisation: str, name: str, password: str) -> bool:
        """Whether an active person signs in with it."""
        row = store.get_person(self._work, organisation, name)
        hashed = row.password if row and row.active and not row.program else None
        return self._passwords.matches(hashed, password)

    def give_role(self, organisation: str, name: str, role: str) -> Person:
        """Add a role."""
        person = self.person(organisation, name)
        store.give_role(self._work, organisation, person.name, role)
        return self.person(organisation, name)

    def take_role(self, organisation: str, name: str, role: str) -> Person:
        """Remove a role."""
        person = self.person(organisation, name)
        store.take_roles(self._work, organisation, person.name, role)
        return self.person(organisation, name)

    def group(self, organisation: str, name: str) -> Members:
        """The group of that name."""
        return Circles(self._work, GROUP).get(organisation, name)

    def groups(self, organisation: str, after: str = "", limit: int = 50) -> list[Members]:
        """Groups in order of name."""
        return Circles(self._work, GROUP).page(organisation, after, limit)

    def add_group(self, organisation: str, name: str, title: str) -> Members:
        """Make an empty group."""
        return Circles(self._work, GROUP).add(organisation, name, title)

    def change_group(self, organisation: str, name: str, title: str) -> Members:
        """Change a group's title."""
        return Circles(self._work, GROUP).change(organisation, name, {"title": title})

    def remove_group(self, organisation: str, name: str) -> None:
        """Delete a group."""
        Circles(self._work, GROUP).remove(organisation, name)

    def join(self, organisation: str, group: str, members: frozenset[str]) -> Members:
        """Add members."""
        return Circles(self._work, GROUP).join(organisation, group, members)

    def leave(self, organisation: str, group: str, members: frozenset[str]) -> Members:
        """Remove members."""
        return Circles(self._work, GROUP).leave(organisation, group, members)

    def _update(self, organisation: str, name: str, values: dict[str, Any]) -> None:
        if not store.update_person(self._work, organisation, name, values):
            unknown_user(name)


def people_of(work: Work, rows: Iterable[sa.Row[Any]]) -> list[Person]:
    """Users of one organisation with their roles and groups."""
    rows = list(rows)
    if not rows:
        return []
    names, organisation = [row.name for row in rows], rows[0].organisation
    roles = store.roles_of(work, organisation, names)
    groups = store.circles_of(work, organisation, GROUP, names)
    nothing: frozenset[str] = frozenset()
    return [
        Person(
            organisation, row.name, row.issuer, row.subject, row.title, row.email, row.program, row.active,
            roles.get(row.name, nothing), groups.get(row.name, nothing), row.created_at,
        )
        for row in rows
    ]  # fmt: skip


class Circles:
    """Named sets of an organisation's users, of one kind: groups, or projects (which are the platform's own, whatever
    the directory)."""

    def __init__(self, work: Work, kind: str) -> None:
        self._work = work
        self._kind = kind

    def get(self, organisation: str, name: str) -> Members:
        """The one of that name; NotFound."""
        row = store.get_circle(self._work, organisation, self._kind, name)
        if row is None:
            raise NotFound(
                f"There is no {self._kind} {name} in this organisation.", hint=f"List them: heroes {self._kind} list."
            )
        return self._told(organisation, [row])[0]

    def page(self, organisation: str, after: str, limit: int) -> list[Members]:
        """All of them, in order of name."""
        return self._told(organisation, store.list_circles(self._work, organisation, self._kind, after, limit))

    def add(self, organisation: str, name: str, title: str) -> Members:
        """Make an empty one; Conflict when the name is or was taken."""
        values = {
            "organisation": organisation, "kind": self._kind, "name": name, "key": name_key(name), "title": title,
            "active": True, "created_at": self._work.now,
        }  # fmt: skip
        if not store.insert_unless_taken(self._work, store.circle, values):
            _taken(self._kind, name)
        return self.get(organisation, name)

    def change(self, organisation: str, name: str, values: dict[str, Any]) -> Members:
        """Change title or being active."""
        if values:
            store.update_circle(self._work, organisation, self._kind, name, values)
        return self.get(organisation, name)

    def remove(self, organisation: str, name: str) -> None:
        """Delete it; its name stays taken."""
        members = self.get(organisation, name).members
        store.update_circle(self._work, organisation, self._kind, name, {"removed_at": self._work.now, "active": False})
        store.leave(self._work, organisation, self._kind, name, members)

    def join(self, organisation: str, name: str, people: frozenset[str]) -> Members:
        """Add members, each of whom exists."""
        self.get(organisation, name)
        for missing in sorted(people - store.known_names(self._work, organisation, people)):
            unknown_user(missing)
        store.join(self._work, organisation, self._kind, name, people)
        return self.get(organisation, name)

    def leave(self, organisation: str, name: str, people: frozenset[str]) -> Members:
        """Remove members."""
        self.get(organisation, name)
        store.leave(self._work, organisation, self._kind, name, people)
        return self.get(organisation, name)

    def _told(self, organisation: str, rows: Iterable[sa.Row[Any]]) -> list[Members]:
        rows = [*rows]
        members = store.members_of(self._work, organisation, self._kind, [row.name for row in rows])
        return [
            Members(organisation, row.name, row.title, members.get(row.name, frozenset()), row.active) for row in rows
        ]


def _taken(what: str, name: str) -> NoReturn:
    raise Conflict(
        f"The name {name} is or was a {what}'s, in this or another case.",
        hint="Choose another name: names are never given again.",
    )
