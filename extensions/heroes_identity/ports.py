"""The directory of users: embedded in the platform's database, or a foreign one such as Keycloak."""

from __future__ import annotations

from typing import Protocol

from heroes_identity.model import Changes, Members, NewPerson, Person


class Directory(Protocol):
    """Who exists, who is active, who has which role and who is in which group.

    It keeps facts and enforces none of the platform's rules about who may change them. Every name is looked up within
    one organisation; `NotFound` where there is none, deleted users included. Lists are in order of name, after the
    cursor `after`, at most `limit`. Whatever is repeated (a role given twice, a member who joins again) is no error.
    """

    def issuer(self, organisation: str) -> str:
        """The issuer of an organisation's users: with the subject it is the identity."""

    def person(self, organisation: str, name: str) -> Person:
        """The user of that name."""

    def by_subject(self, issuer: str, subject: str) -> Person | None:
        """The user of that identity, whatever their name is now."""

    def people(self, organisation: str, after: str = "", limit: int = 50) -> list[Person]:
        """Users in order of name."""

    def holders(self, organisation: str, role: str, *, active_only: bool = False) -> frozenset[str]:
        """Names of those who have the role; `active_only`: of active persons, not of programs."""

    def add_person(self, new: NewPerson) -> Person:
        """Make a user, active and without roles. Conflict when the name is or ever was taken, in whatever case."""

    def change_person(self, organisation: str, name: str, changes: Changes) -> Person:
        """Change a user's title, e-mail or being active."""

    def remove_person(self, organisation: str, name: str) -> None:
        """Delete a user, with roles and memberships; the name stays taken."""

    def set_password(self, organisation: str, name: str, password: str) -> None:
        """Replace the password."""

    def password_matches(self, organisation: str, name: str, password: str) -> bool:
        """Whether an active person signs in with it; takes as long when there is no such user."""

    def give_role(self, organisation: str, name: str, role: str) -> Person:
        """Add a role."""

    def take_role(self, organisation: str, name: str, role: str) -> Person:
        """Remove a role."""

    def group(self, organisation: str, name: str) -> Members:
        """The group of that name."""

    def groups(self, organisation: str, after: str = "", limit: int = 50) -> list[Members]:
        """Groups in order of name."""

    def add_group(self, organisation: str, name: str, title: str) -> Members:
        """Make an empty group. Conflict as for users."""

    def change_group(self, organisation: str, name: str, title: str) -> Members:
        """Change a group's title."""

    def remove_group(self, organisation: str, name: str) -> None:
        """Delete a group; the name stays taken."""

    def join(self, organisation: str, group: str, members: frozenset[str]) -> Members:
        """Add members, each of whom exists (else NotFound and nobody joins)."""

    def leave(self, organisation: str, group: str, members: frozenset[str]) -> Members:
        """Remove members; one who is none is no error."""
