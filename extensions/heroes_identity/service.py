"""What can be done with users, groups, roles, projects and organisations: one function per use case.

The rules stand here, whatever the directory behind: nobody gives or changes what is beyond their own reach, the last
administrator stays, and every change is audited in its own transaction and takes effect in this process at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes_core.work import Caller, Work
from heroes_identity import store
from heroes_identity.embedded import GROUP, PROJECT, Circles, EmbeddedDirectory, people_of
from heroes_identity.freshness import FRESHNESS
from heroes_identity.model import (
    ADMINISTRATOR,
    Changes,
    Members,
    NewPerson,
    Organisation,
    Passwords,
    Person,
    Role,
    check_password,
    check_reach,
    name_key,
    role_for,
    roles_for,
    unknown_user,
)
from heroes_identity.ports import Directory

#: How a directory is reached within a unit of work.
Directories = Callable[[Work], Directory]


def embedded(passwords: Passwords) -> Directories:
    """The directory in the platform's own database."""
    return lambda work: EmbeddedDirectory(work, passwords)


# what other modules ask


def organisation(work: Work, name: str) -> Organisation:
    """The organisation of that name; NotFound."""
    row = store.get_organisation(work, name)
    if row is None:
        raise NotFound(f"There is no organisation {name}.", hint="List them: heroes organisation list.")
    return _organisation(row)


def user(work: Work, organisation_name: str, name: str) -> Person:
    """The user of that name, person or program; NotFound."""
    row = store.get_person(work, organisation_name, name)
    return people_of(work, [row])[0] if row else unknown_user(name)


def was_user(work: Work, organisation_name: str, name: str) -> bool:
    """Whether a user has or ever had that name, in whatever case."""
    return store.name_was_taken(work, organisation_name, name_key(name))


def group(work: Work, organisation_name: str, name: str) -> Members:
    """The group of that name with its members; NotFound."""
    return Circles(work, GROUP).get(organisation_name, name)


def project(work: Work, organisation_name: str, name: str) -> Members:
    """The project of that name with its members; NotFound."""
    return Circles(work, PROJECT).get(organisation_name, name)


def projects_of(work: Work, organisation_name: str, name: str) -> frozenset[str]:
    """The active projects that a user is in."""
    return store.circles_of(work, organisation_name, PROJECT, [name]).get(name, frozenset())


def groups_of(work: Work, organisation_name: str, name: str) -> frozenset[str]:
    """The groups that a user is in."""
    return store.circles_of(work, organisation_name, GROUP, [name]).get(name, frozenset())


def check_project(work: Work, organisation_name: str, name: str, project_name: str) -> Members:
    """The project, if the user `name` is in it and it is active; NotFound or NotAllowed."""
    found = project(work, organisation_name, project_name)
    if name not in found.members:
        raise NotAllowed(
            f"{name} is not in the project {project_name}.", hint="Ask a project admin to add you, or leave it out."
        )
    if not found.active:
        raise NotAllowed(f"The project {project_name} is not active.", hint="Ask a project admin to activate it.")
    return found


# users


def add_user(work: Work, directory: Directory, caller: Caller, new: NewPerson, roles: Iterable[str],
             groups: Iterable[str]) -> Person:  # fmt: skip
    """A new user with roles and groups, all within the caller's reach."""
    if new.program is (new.password is not None):
        raise InvalidSpec(
            f"{new.name} is a {'program and has' if new.program else 'person and needs'} a password.",
            hint="Programs sign in with tokens, persons with a first password.",
            detail={"fields": [{"field": "password", "problem": "missing or not allowed", "value": ""}]},
        )
    if new.password is not None:
        check_password(new.password)
    wanted = [role_for(_kind(work, caller), each).name for each in roles]
    _check_reach(work, directory, caller, wanted, f"Adding {new.name} with these roles")
    directory.add_person(new)
    for role in wanted:
        directory.give_role(new.organisation, new.name, role)
    for group in groups:
        directory.join(new.organisation, group, frozenset({new.name}))
    _changed(work, caller, "user.add", new.name, program=new.program, roles=sorted(wanted), groups=sorted(groups))
    return directory.person(new.organisation, new.name)


def change_user(work: Work, directory: Directory, caller: Caller, name: str, changes: Changes,
                password: str | None = None) -> Person:  # fmt: skip
    """Change a user within the caller's reach; deactivating or a new password ends every sign-in."""
    person = reached(work, directory, caller, name)
    if changes.active is False:
        _check_not_last(work, directory, caller.organisation, person, f"deactivate {name}")
    if password is not None:
        _set_password(directory, person, password)
    if changes.active is False or password is not None:
        end_sign_ins(work, person, programs=changes.active is False)
    told = {key: value for key, value in vars(changes).items() if value is not None}
    _changed(work, caller, "user.change", name, **told, **({"password": True} if password is not None else {}))
    if changes.active is False:
        work.emit("identity.deactivated", caller.organisation, name)
    return directory.change_person(caller.organisation, name, changes)


def remove_user(work: Work, directory: Directory, caller: Caller, name: str) -> None:
    """Delete a user within the caller's reach; the name stays taken."""
    person = reached(work, directory, caller, name)
    _check_not_last(work, directory, caller.organisation, person, f"delete {name}")
    end_sign_ins(work, person, programs=True)
    directory.remove_person(caller.organisation, name)
    store.leave_all(work, caller.organisation, name)
    _changed(work, caller, "user.remove", name)
    work.emit("identity.deactivated", caller.organisation, name)


def end_sign_ins(work: Work, person: Person, *, programs: bool, but: str = "") -> None:
    """Revoke the user's tokens, of programs too where asked; but not those of the sign-in `but`."""
    which = [store.token.c.organisation == person.organisation, store.token.c.person == person.name]
    if not programs:
        which.append(store.token.c.program.is_(False))
    if but:
        which.append(store.token.c.sign_in != but)
    store.revoke(work, *which)


def change_own_password(work: Work, directory: Directory, caller: Caller, new: str, sign_in: str) -> None:
    """One's own password (the old one was checked); every other sign-in ends."""
    person = directory.person(caller.organisation, caller.user)
    _set_password(directory, person, new)
    end_sign_ins(work, person, programs=False, but=sign_in)
    _changed(work, caller, "user.password", caller.user)


def _set_password(directory: Directory, person: Person, password: str) -> None:
    if person.program:
        raise InvalidSpec(f"{person.name} is a program and has no password.", hint="Make a token: heroes token add.")
    directory.set_password(person.organisation, person.name, check_password(password))


# roles


def roles(work: Work, directory: Directory, caller: Caller) -> list[tuple[Role, frozenset[str]]]:
    """Every role that the caller's organisation can give, with who has it."""
    known = roles_for(_kind(work, caller))
    return [(role, directory.holders(caller.organisation, name)) for name, role in sorted(known.items())]


def role(work: Work, directory: Directory, caller: Caller, name: str) -> tuple[Role, frozenset[str]]:
    """One role, with who has it."""
    return role_for(_kind(work, caller), name), directory.holders(caller.organisation, name)


def give_role(work: Work, directory: Directory, caller: Caller, name: str, role_name: str) -> Person:
    """Give a role within the caller's reach."""
    role_for(_kind(work, caller), role_name)
    _check_reach(work, directory, caller, [role_name], f"Giving the role {role_name}")
    person = directory.give_role(caller.organisation, name, role_name)
    _changed(work, caller, "role.give", name, role=role_name)
    return person


def take_role(work: Work, directory: Directory, caller: Caller, name: str, role_name: str) -> Person:
    """Take a role within the caller's reach, unless it is the last administrator's."""
    kind = _kind(work, caller)
    role_for(kind, role_name)
    _check_reach(work, directory, caller, [role_name], f"Taking the role {role_name}")
    if role_name == ADMINISTRATOR[kind]:
        person = directory.person(caller.organisation, name)
        _check_not_last(work, directory, caller.organisation, person, f"take {role_name} from {name}")
    person = directory.take_role(caller.organisation, name, role_name)
    _changed(work, caller, "role.take", name, role=role_name)
    return person


# groups and projects


def add_group(
    work: Work, directory: Directory, caller: Caller, name: str, title: str, members: Iterable[str]
) -> Members:
    """A new group."""
    directory.add_group(caller.organisation, name, title)
    group = directory.join(caller.organisation, name, frozenset(members))
    _changed(work, caller, "group.add", name, members=sorted(members))
    return group


def change_group(work: Work, directory: Directory, caller: Caller, name: str, title: str | None, join: Iterable[str],
                 leave: Iterable[str]) -> Members:  # fmt: skip
    """Who joins, then who leaves, and the title."""
    if title is not None:
        directory.change_group(caller.organisation, name, title)
    directory.join(caller.organisation, name, frozenset(join))
    group = directory.leave(caller.organisation, name, frozenset(leave))
    _changed(work, caller, "group.change", name, title=title, join=sorted(join), leave=sorted(leave))
    return group


def remove_group(work: Work, directory: Directory, caller: Caller, name: str) -> None:
    """Delete a group; its members stay."""
    directory.remove_group(caller.organisation, name)
    _changed(work, caller, "group.remove", name)


def projects(work: Work, caller: Caller, after: str, limit: int) -> list[Members]:
    """The organisation's projects in order of name."""
    return Circles(work, PROJECT).page(caller.organisation, after, limit)


def add_project(work: Work, caller: Caller, name: str, title: str, members: Iterable[str]) -> Members:
    """A new project."""
    circles = Circles(work, PROJECT)
    circles.add(caller.organisation, name, title)
    made = circles.join(caller.organisation, name, frozenset(members))
    _changed(work, caller, "project.add", name, members=sorted(members))
    return made


def change_project(work: Work, caller: Caller, name: str, values: dict[str, Any], join: Iterable[str],
                   leave: Iterable[str]) -> Members:  # fmt: skip
    """Title and being active (those in `values`), who joins, then who leaves."""
    circles = Circles(work, PROJECT)
    circles.change(caller.organisation, name, values)
    circles.join(caller.organisation, name, frozenset(join))
    changed = circles.leave(caller.organisation, name, frozenset(leave))
    _changed(work, caller, "project.change", name, **values, join=sorted(join), leave=sorted(leave))
    return changed


def remove_project(work: Work, caller: Caller, name: str) -> None:
    """Delete a project; its name stays taken."""
    Circles(work, PROJECT).remove(caller.organisation, name)
    _changed(work, caller, "project.remove", name)


# organisations


def organisations(work: Work, after: str, limit: int) -> list[tuple[Organisation, int]]:
    """The platform's organisations in order of name, with how many users each has."""
    rows = store.list_organisations(work, after, limit)
    counts = store.count_people(work, [row.name for row in rows])
    return [(_organisation(row), counts.get(row.name, 0)) for row in rows]


def count_users(work: Work, name: str) -> int:
    """How many users an organisation has."""
    return store.count_people(work, [name]).get(name, 0)


def add_organisation(work: Work, directory: Directory, actor: str, new: Organisation, administrator: str,
                     password: str) -> Organisation:  # fmt: skip
    """A new organisation with its first administrator; Conflict when the name is or was taken."""
    check_password(password)
    row = {
        "name": new.name, "key": name_key(new.name), "title": new.title, "kind": new.kind, "currency": new.currency,
        "created_at": new.created_at,
    }  # fmt: skip
    if not store.insert_unless_taken(work, store.organisation, row):
        raise Conflict(
            f"The name {new.name} is or was an organisation's, in this or another case.",
            hint="Choose another name: names are never given again.",
        )
    directory.add_person(NewPerson(new.name, administrator, password=password))
    directory.give_role(new.name, administrator, ADMINISTRATOR[new.kind])
    work.audit(new.name, actor, "organisation.add", new.name, kind=new.kind, administrator=administrator)
    work.emit("organisation.added", new.name, new.name, currency=new.currency)
    work.after_commit(FRESHNESS.changed)
    return new


def remove_organisation(work: Work, caller: Caller, name: str) -> None:
    """Close an organisation: nobody of it is signed in any more; what it did stays on record."""
    if organisation(work, name).kind == "platform":
        raise Conflict(f"{name} runs the platform and cannot be removed.", hint="Remove other organisations only.")
    store.remove_organisation(work, name)
    work.audit(name, caller.actor, "organisation.remove", name)
    work.emit("organisation.removed", name, name)
    _changed(work, caller, "organisation.remove", name)


# rules


def _changed(work: Work, caller: Caller, action: str, subject: str, **detail: Any) -> None:
    work.audit(caller.organisation, caller.actor, action, subject, **detail)
    work.after_commit(FRESHNESS.changed)


def _kind(work: Work, caller: Caller) -> str:
    return organisation(work, caller.organisation).kind


def _check_reach(work: Work, directory: Directory, caller: Caller, wanted: Iterable[str], what: str) -> None:
    granter = directory.person(caller.organisation, caller.user).roles
    check_reach(_kind(work, caller), granter, wanted, what)


def reached(work: Work, directory: Directory, caller: Caller, name: str) -> Person:
    """The user, if all that they may do is within the caller's reach: else taking over a user would be a way up."""
    person = directory.person(caller.organisation, name)
    _check_reach(work, directory, caller, person.roles, f"Changing {name}")
    return person


def _check_not_last(work: Work, directory: Directory, org: str, person: Person, doing: str) -> None:
    locked = store.get_organisation(work, org, lock=True)  # two administrators must not remove each other at once
    role_name = ADMINISTRATOR[locked.kind] if locked else ""
    left = directory.holders(org, role_name, active_only=True)
    if left == {person.name}:
        raise Conflict(
            f"{person.name} is the last active {role_name} of {org}: you cannot {doing}.",
            hint=f"Give the role {role_name} to somebody else first.",
        )


def _organisation(row: sa.Row[Any]) -> Organisation:
    return Organisation(row.name, row.title, row.kind, row.currency, row.removed_at is None, row.created_at)
