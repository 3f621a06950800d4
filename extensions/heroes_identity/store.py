"""The tables of identity, and every statement over them.

Nothing is deleted: a removed organisation, user, group or project keeps its row, so that its name is never given again
and what was recorded under it can still be read. `key` is the name without case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from heroes_core.store import Instant, metadata, name_column
from heroes_core.work import Work

organisation = sa.Table(
    "identity_organisation",
    metadata,
    name_column("name", primary_key=True),
    name_column("key", unique=True),
    sa.Column("title", sa.String(100), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("removed_at", Instant),
)

person = sa.Table(
    "identity_person",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("name", primary_key=True),
    name_column("key"),
    sa.Column("issuer", sa.String(200), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("title", sa.String(100), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("program", sa.Boolean, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("password", sa.String(200)),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("removed_at", Instant),
    sa.UniqueConstraint("organisation", "key"),
    sa.UniqueConstraint("issuer", "subject"),
)

held_role = sa.Table(
    "identity_held_role",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("person", primary_key=True),
    name_column("role", primary_key=True),
)

#: Groups and projects: named sets of users. `kind` is "group" or "project".
circle = sa.Table(
    "identity_circle",
    metadata,
    name_column("organisation", primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    name_column("name", primary_key=True),
    name_column("key"),
    sa.Column("title", sa.String(100), nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("removed_at", Instant),
    sa.UniqueConstraint("organisation", "kind", "key"),
)

member = sa.Table(
    "identity_member",
    metadata,
    name_column("organisation", primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    name_column("circle", primary_key=True),
    name_column("person", primary_key=True),
)
sa.Index("ix_identity_member_person", member.c.organisation, member.c.person)

token = sa.Table(
    "identity_token",
    metadata,
    name_column("id", primary_key=True),
    name_column("organisation"),
    name_column("person"),
    sa.Column("digest", sa.String(64), nullable=False),
    name_column("sign_in"),
    sa.Column("program", sa.Boolean, nullable=False),
    sa.Column("comment", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("ends_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Index("ix_identity_token_holder", "organisation", "person"),
)

#: Failed sign-ins by name, whether or not there is such a user.
guessing = sa.Table(
    "identity_guessing",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("person", primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", Instant, nullable=False, index=True),
    sa.Column("blocked_until", Instant, nullable=False),
)


def _insert(work: Work, table: sa.Table) -> Any:
    return (postgresql.insert if work.connection.dialect.name == "postgresql" else sqlite.insert)(table)


def insert_unless_taken(work: Work, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert a row; False when its name (in whatever case) is or was taken."""
    statement = _insert(work, table).values(**values).on_conflict_do_nothing().returning(table.c.name)
    return work.execute(statement).first() is not None


def get_organisation(work: Work, name: str, *, lock: bool = False) -> sa.Row[Any] | None:
    """The organisation, unless it was removed. `lock`: until the transaction ends, nobody else gets it locked."""
    query = sa.select(organisation).where(organisation.c.name == name, organisation.c.removed_at.is_(None))
    return work.execute(query.with_for_update() if lock else query).one_or_none()


def list_organisations(work: Work, after: str, limit: int) -> Sequence[sa.Row[Any]]:
    """Organisations in order of name."""
    there = sa.select(organisation).where(organisation.c.removed_at.is_(None), organisation.c.name > after)
    return work.execute(there.order_by(organisation.c.name).limit(limit)).all()


def count_people(work: Work, organisations: Iterable[str]) -> dict[str, int]:
    """How many users each organisation has."""
    query = (
        sa.select(person.c.organisation, sa.func.count().label("people"))
        .where(person.c.organisation.in_(list(organisations)), person.c.removed_at.is_(None))
        .group_by(person.c.organisation)
    )
    return {row.organisation: row.people for row in work.execute(query)}


def remove_organisation(work: Work, name: str) -> None:
    """Mark it removed, and revoke every token of its users."""
    work.execute(sa.update(organisation).where(organisation.c.name == name).values(removed_at=work.now))
    revoke(work, token.c.organisation == name)


def _there(org: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(person.c.organisation == org, person.c.name == name, person.c.removed_at.is_(None))


def get_person(work: Work, org: str, name: str) -> sa.Row[Any] | None:
    """The user of that name, unless removed."""
    return work.execute(sa.select(person).where(_there(org, name))).one_or_none()


def get_by_subject(work: Work, issuer: str, subject: str) -> sa.Row[Any] | None:
    """The user of that identity, unless removed."""
    same = sa.and_(person.c.issuer == issuer, person.c.subject == subject, person.c.removed_at.is_(None))
    return work.execute(sa.select(person).where(same)).one_or_none()


def list_people(work: Work, org: str, after: str, limit: int) -> Sequence[sa.Row[Any]]:
    """Users in order of name."""
    there = sa.and_(person.c.organisation == org, person.c.removed_at.is_(None), person.c.name > after)
    return work.execute(sa.select(person).where(there).order_by(person.c.name).limit(limit)).all()


def update_person(work: Work, org: str, name: str, values: dict[str, Any]) -> bool:
    """Change a user that is there; False when there is none."""
    return work.execute(sa.update(person).where(_there(org, name)).values(**values)).rowcount == 1


def name_was_taken(work: Work, org: str, key: str) -> bool:
    """Whether a user, removed ones included, has that name without case."""
    query = sa.select(person.c.name).where(person.c.organisation == org, person.c.key == key)
    return work.execute(query).first() is not None


def known_names(work: Work, org: str, names: Iterable[str]) -> frozenset[str]:
    """Those of `names` who are users."""
    query = sa.select(person.c.name).where(
        person.c.organisation == org, person.c.name.in_(list(names)), person.c.removed_at.is_(None)
    )
    return frozenset(work.execute(query).scalars())


def roles_of(work: Work, org: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The roles of each user."""
    query = sa.select(held_role.c.person, held_role.c.role).where(
        held_role.c.organisation == org, held_role.c.person.in_(list(names))
    )
    return _gathered(work.execute(query))


def holders(work: Work, org: str, role: str, active_only: bool) -> frozenset[str]:
    """Users who have the role; `active_only`: active persons, no programs."""
    query = sa.select(person.c.name).join(
        held_role, sa.and_(held_role.c.organisation == person.c.organisation, held_role.c.person == person.c.name)
    )
    there = [person.c.organisation == org, held_role.c.role == role, person.c.removed_at.is_(None)]
    if active_only:
        there += [person.c.active, person.c.program.is_(False)]
    return frozenset(work.execute(query.where(*there)).scalars())


def give_role(work: Work, org: str, name: str, role: str) -> None:
    """Add a role; given twice is no error."""
    work.execute(_insert(work, held_role).values(organisation=org, person=name, role=role).on_conflict_do_nothing())


def take_roles(work: Work, org: str, name: str, role: str | None = None) -> None:
    """Remove one role, or all."""
    mine = [held_role.c.organisation == org, held_role.c.person == name]
    if role is not None:
        mine.append(held_role.c.role == role)
    work.execute(sa.delete(held_role).where(*mine))


def get_circle(work: Work, org: str, kind: str, name: str) -> sa.Row[Any] | None:
    """The group or project of that name, unless removed."""
    query = sa.select(circle).where(
        circle.c.organisation == org, circle.c.kind == kind, circle.c.name == name, circle.c.removed_at.is_(None)
    )
    return work.execute(query).one_or_none()


def list_circles(work: Work, org: str, kind: str, after: str, limit: int) -> Sequence[sa.Row[Any]]:
    """Groups or projects in order of name."""
    there = [circle.c.organisation == org, circle.c.kind == kind, circle.c.removed_at.is_(None), circle.c.name > after]
    return work.execute(sa.select(circle).where(*there).order_by(circle.c.name).limit(limit)).all()


def update_circle(work: Work, org: str, kind: str, name: str, values: dict[str, Any]) -> bool:
    """Change a group or project that is there; False when there is none."""
    same = [circle.c.organisation == org, circle.c.kind == kind, circle.c.name == name, circle.c.removed_at.is_(None)]
    return work.execute(sa.update(circle).where(*same).values(**values)).rowcount == 1


def members_of(work: Work, org: str, kind: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The members of each group or project."""
    query = sa.select(member.c.circle, member.c.person).where(
        member.c.organisation == org, member.c.kind == kind, member.c.circle.in_(list(names))
    )
    return _gathered(work.execute(query))


def circles_of(work: Work, org: str, kind: str, names: Iterable[str]) -> dict[str, frozenset[str]]:
    """The groups or projects that each user is in."""
    there = sa.and_(
        circle.c.organisation == member.c.organisation,
        circle.c.kind == member.c.kind,
        circle.c.name == member.c.circle,
        circle.c.removed_at.is_(None),
        circle.c.active,
    )
    query = sa.select(member.c.person, member.c.circle).join(circle, there)
    return _gathered(
        work.execute(query.where(member.c.organisation == org, member.c.kind == kind, member.c.person.in_(list(names))))
    )


def join(work: Work, org: str, kind: str, name: str, people: Iterable[str]) -> None:
    """Add members; one who is there already is no error."""
    rows = [{"organisation": org, "kind": kind, "circle": name, "person": each} for each in sorted(people)]
    if rows:
        work.execute(_insert(work, member).on_conflict_do_nothing(), rows)


def leave(work: Work, org: str, kind: str, name: str, people: Iterable[str]) -> None:
    """Remove members."""
    work.execute(
        sa.delete(member).where(
            member.c.organisation == org, member.c.kind == kind, member.c.circle == name,
            member.c.person.in_(list(people)),
        )
    )  # fmt: skip


def leave_all(work: Work, org: str, name: str) -> None:
    """Remove a user from every group and project."""
    work.execute(sa.delete(member).where(member.c.organisation == org, member.c.person == name))


def add_token(work: Work, values: dict[str, Any]) -> None:
    """Store a token's digest."""
    work.execute(sa.insert(token).values(created_at=work.now, **values))


def get_token(work: Work, identifier: str) -> sa.Row[Any] | None:
    """A token with what is needed to know its holder: the user's row (`active`, `gone`) and the organisation's."""
    query = (
        sa.select(
            token,
            person.c.active,
            person.c.removed_at.label("gone"),
            organisation.c.kind,
            organisation.c.removed_at.label("closed"),
        )
        .join(person, sa.and_(person.c.organisation == token.c.organisation, person.c.name == token.c.person))
        .join(organisation, organisation.c.name == token.c.organisation)
        .where(token.c.id == identifier)
    )
    return work.execute(query).one_or_none()


def list_program_tokens(work: Work, org: str, after: str, limit: int) -> Sequence[sa.Row[Any]]:
    """The long-lived tokens of an organisation's programs, oldest first."""
    there = [token.c.organisation == org, token.c.program, token.c.id > after]
    return work.execute(sa.select(token).where(*there).order_by(token.c.id).limit(limit)).all()


def revoke(work: Work, *which: sa.ColumnElement[bool]) -> int:
    """Revoke tokens that are not revoked yet; how many."""
    statement = sa.update(token).where(*which, token.c.revoked_at.is_(None)).values(revoked_at=work.now)
    return work.execute(statement).rowcount


def shorten(work: Work, identifier: str, until: datetime) -> None:
    """Let a token end at `until` at the latest."""
    sooner = sa.or_(token.c.expires_at.is_(None), token.c.expires_at > until)
    work.execute(sa.update(token).where(token.c.id == identifier, sooner).values(expires_at=until))


def get_guessing(work: Work, org: str, name: str) -> sa.Row[Any]:
    """How often signing in failed under that name, locked until the transaction ends."""
    nothing = {"failures": 0, "last_at": work.now, "blocked_until": work.now}
    statement = _insert(work, guessing).values(organisation=org, person=name, **nothing)
    work.execute(statement.on_conflict_do_nothing())
    query = sa.select(guessing).where(guessing.c.organisation == org, guessing.c.person == name)
    return work.execute(query.with_for_update()).one()


def set_guessing(work: Work, org: str, name: str, failures: int, blocked_until: datetime) -> None:
    """Store the count of failures under that name."""
    values = {"failures": failures, "last_at": work.now, "blocked_until": blocked_until}
    same = [guessing.c.organisation == org, guessing.c.person == name]
    work.execute(sa.update(guessing).where(*same).values(**values))


def forget_guessing(work: Work, org: str, name: str) -> None:
    """Signing in worked: nothing failed."""
    work.execute(sa.delete(guessing).where(guessing.c.organisation == org, guessing.c.person == name))


def forget_old_guessing(work: Work, before: datetime) -> None:
    """Failures of long ago count no more."""
    work.execute(sa.delete(guessing).where(guessing.c.last_at < before))


def _gathered(pairs: Iterable[Any]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for key, value in pairs:
        found.setdefault(key, set()).add(value)
    return {key: frozenset(values) for key, values in found.items()}
