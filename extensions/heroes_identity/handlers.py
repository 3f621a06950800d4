"""Binds the operations of `heroes.api.identity`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from heroes.api import identity as api
from heroes.api.model import Empty, Page
from heroes_core.module import Call, Module
from heroes_core.work import Work
from heroes_identity import service, store, tokens
from heroes_identity.model import Changes, Members, NewPerson, Organisation, Pace, Passwords, Person, Role, name_key
from heroes_identity.ports import Directory

MODULE = Module("identity", api.OPERATIONS)


@dataclass
class Identity:
    """What the operations need beside the database: how to reach the directory, and how fast guessing may go."""

    directories: service.Directories = field(default_factory=lambda: service.embedded(Passwords()))
    pace: Pace = Pace()


@MODULE.bind(api.LOGIN)
def login(call: Call, request: api.Login) -> api.Token:
    """Count the try, check the password outside of any writing transaction, then issue."""
    identity = call.service(Identity)
    with call.write() as work:
        tokens.begin_sign_in(work, request.organisation, request.user, identity.pace)
    if _password_matches(call, request.organisation, request.user, request.password.get_secret_value()):
        with call.write() as work:
            return _token(tokens.finish_sign_in(work, request.organisation, request.user))
    with call.write() as work:
        tokens.refuse_sign_in(work, request.organisation, request.user)
    raise tokens.wrong_password()


@MODULE.bind(api.LOGOUT)
def logout(call: Call, request: api.Logout) -> Empty:
    """Sign out."""
    with call.write() as work:
        tokens.sign_out(work, call.caller, everywhere=request.everywhere)
    return Empty()


@MODULE.bind(api.REFRESH)
def refresh(call: Call, _request: Empty) -> api.Token:
    """Get a fresh token."""
    with call.write() as work:
        return _token(tokens.refresh(work, call.caller))


@MODULE.bind(api.ME)
def me(call: Call, _request: Empty) -> api.Me:
    """Show who is signed in."""
    caller = call.caller
    with call.read() as work:
        person = _directory(call, work).person(caller.organisation, caller.user)
        projects = service.projects_of(work, caller.organisation, caller.user)
        token = store.get_token(work, caller.token_id) if caller.token_id else None
    return api.Me(
        organisation=caller.organisation, user=caller.user, title=person.title, email=person.email,
        program=person.program, roles=_sorted(person.roles), groups=_sorted(person.groups),
        projects=_sorted(projects), rights=_sorted(caller.rights), token_id=caller.token_id,
        expires_at=token.expires_at if token else None,
    )  # fmt: skip


@MODULE.bind(api.PASSWORD)
def password(call: Call, request: api.ChangePassword) -> Empty:
    """Change one's own password; guessing the old one is slowed like signing in."""
    caller = call.caller
    with call.write() as work:
        tokens.begin_sign_in(work, caller.organisation, caller.user, call.service(Identity).pace)
    if not _password_matches(call, caller.organisation, caller.user, request.old.get_secret_value()):
        raise tokens.wrong_password()
    with call.write() as work:
        store.forget_guessing(work, caller.organisation, name_key(caller.user))
        token = store.get_token(work, caller.token_id)
        sign_in = token.sign_in if token else ""
        service.change_own_password(work, _directory(call, work), caller, request.new.get_secret_value(), sign_in)
    return Empty()


@MODULE.bind(api.USERS)
def users(call: Call, request: Page) -> api.Users:
    """List users."""
    with call.read() as work:
        people = _directory(call, work).people(call.caller.organisation, request.after, request.limit)
    return api.Users(items=tuple(_user(each) for each in people), next=_next(people, request))


@MODULE.bind(api.ADD_USER)
def add_user(call: Call, request: api.AddUser) -> api.User:
    """Add a user."""
    new = NewPerson(
        call.caller.organisation, request.name, request.title, request.email, request.program,
        request.password.get_secret_value() if request.password else None,
    )  # fmt: skip
    with call.write() as work:
        directory = _directory(call, work)
        return _user(service.add_user(work, directory, call.caller, new, request.roles, request.groups))


@MODULE.bind(api.USER)
def user(call: Call, request: api.AskUser) -> api.User:
    """Show a user."""
    with call.read() as work:
        return _user(_directory(call, work).person(call.caller.organisation, request.username))


@MODULE.bind(api.REMOVE_USER)
def remove_user(call: Call, request: api.AskUser) -> Empty:
    """Delete a user."""
    with call.write() as work:
        service.remove_user(work, _directory(call, work), call.caller, request.username)
    return Empty()


@MODULE.bind(api.CHANGE_USER)
def change_user(call: Call, request: api.ChangeUser) -> api.User:
    """Change a user."""
    changes = Changes(request.title, request.email, request.active)
    secret = request.password.get_secret_value() if request.password else None
    with call.write() as work:
        directory = _directory(call, work)
        return _user(service.change_user(work, directory, call.caller, request.username, changes, secret))


@MODULE.bind(api.GROUPS)
def groups(call: Call, request: Page) -> api.Groups:
    """List groups."""
    with call.read() as work:
        found = _directory(call, work).groups(call.caller.organisation, request.after, request.limit)
    return api.Groups(items=tuple(_group(each) for each in found), next=_next(found, request))


@MODULE.bind(api.ADD_GROUP)
def add_group(call: Call, request: api.AddGroup) -> api.Group:
    """Add a group."""
    with call.write() as work:
        directory = _directory(call, work)
        return _group(service.add_group(work, directory, call.caller, request.name, request.title, request.members))


@MODULE.bind(api.GROUP)
def group(call: Call, request: api.AskGroup) -> api.Group:
    """Show a group."""
    with call.read() as work:
        return _group(_directory(call, work).group(call.caller.organisation, request.groupname))


@MODULE.bind(api.REMOVE_GROUP)
def remove_group(call: Call, request: api.AskGroup) -> Empty:
    """Delete a group."""
    with call.write() as work:
        service.remove_group(work, _directory(call, work), call.caller, request.groupname)
    return Empty()


@MODULE.bind(api.CHANGE_GROUP)
def change_group(call: Call, request: api.ChangeGroup) -> api.Group:
    """Change a group."""
    with call.write() as work:
        directory = _directory(call, work)
        changed = service.change_group(
            work, directory, call.caller, request.groupname, request.title, request.join, request.leave
        )
    return _group(changed)


@MODULE.bind(api.ROLES)
def roles(call: Call, _request: Empty) -> api.Roles:
    """List roles."""
    with call.read() as work:
        found = service.roles(work, _directory(call, work), call.caller)
    return api.Roles(items=tuple(_role(*each) for each in found))


@MODULE.bind(api.GIVE_ROLE)
def give_role(call: Call, request: api.GiveRole) -> api.User:
    """Give a role."""
    with call.write() as work:
        return _user(service.give_role(work, _directory(call, work), call.caller, request.user, request.role))


@MODULE.bind(api.ROLE)
def role(call: Call, request: api.AskRole) -> api.Role:
    """Show a role."""
    with call.read() as work:
        return _role(*service.role(work, _directory(call, work), call.caller, request.rolename))


@MODULE.bind(api.TAKE_ROLE)
def take_role(call: Call, request: api.TakeRole) -> api.User:
    """Take a role."""
    with call.write() as work:
        return _user(service.take_role(work, _directory(call, work), call.caller, request.user, request.rolename))


@MODULE.bind(api.PROJECTS)
def projects(call: Call, request: Page) -> api.Projects:
    """List projects."""
    with call.read() as work:
        found = service.projects(work, call.caller, request.after, request.limit)
    return api.Projects(items=tuple(_project(each) for each in found), next=_next(found, request))


@MODULE.bind(api.ADD_PROJECT)
def add_project(call: Call, request: api.AddProject) -> api.Project:
    """Add a project."""
    with call.write() as work:
        return _project(service.add_project(work, call.caller, request.name, request.title, request.members))


@MODULE.bind(api.PROJECT)
def project(call: Call, request: api.AskProject) -> api.Project:
    """Show a project."""
    with call.read() as work:
        return _project(service.project(work, call.caller.organisation, request.projectname))


@MODULE.bind(api.REMOVE_PROJECT)
def remove_project(call: Call, request: api.AskProject) -> Empty:
    """Delete a project."""
    with call.write() as work:
        service.remove_project(work, call.caller, request.projectname)
    return Empty()


@MODULE.bind(api.CHANGE_PROJECT)
def change_project(call: Call, request: api.ChangeProject) -> api.Project:
    """Change a project."""
    values = {key: value for key in ("title", "active") if (value := getattr(request, key)) is not None}
    with call.write() as work:
        return _project(
            service.change_project(work, call.caller, request.projectname, values, request.join, request.leave)
        )


@MODULE.bind(api.TOKENS)
def list_tokens(call: Call, request: Page) -> api.Tokens:
    """List the tokens of programs."""
    with call.read() as work:
        rows = store.list_program_tokens(work, call.caller.organisation, request.after, request.limit)
    items = tuple(
        api.TokenInfo(
            token_id=row.id, user=row.person, comment=row.comment, created_at=row.created_at,
            expires_at=row.expires_at, revoked_at=row.revoked_at,
        )
        for row in rows
    )  # fmt: skip
    return api.Tokens(items=items, next=items[-1].token_id if len(items) == request.limit else None)


@MODULE.bind(api.ADD_TOKEN)
def add_token(call: Call, request: api.AddToken) -> api.Token:
    """Make a token for a program."""
    life = timedelta(days=request.expires_in_days) if request.expires_in_days is not None else None
    with call.write() as work:
        directory = _directory(call, work)
        return _token(tokens.add_program_token(work, directory, call.caller, request.user, request.comment, life))


@MODULE.bind(api.REVOKE_TOKEN)
def revoke_token(call: Call, request: api.AskToken) -> Empty:
    """Revoke a program's token."""
    with call.write() as work:
        tokens.revoke_program_token(work, _directory(call, work), call.caller, request.token_id)
    return Empty()


@MODULE.bind(api.ORGANISATIONS)
def organisations(call: Call, request: Page) -> api.Organisations:
    """List organisations."""
    with call.read() as work:
        found = service.organisations(work, request.after, request.limit)
    items = tuple(_organisation(*each) for each in found)
    return api.Organisations(items=items, next=items[-1].name if len(items) == request.limit else None)


@MODULE.bind(api.ADD_ORGANISATION)
def add_organisation(call: Call, request: api.AddOrganisation) -> api.Organisation:
    """Add an organisation."""
    with call.write() as work:
        new = Organisation(request.name, request.title, request.kind, request.currency, True, work.now)
        secret = request.password.get_secret_value()
        made = service.add_organisation(
            work, _directory(call, work), call.caller.actor, new, request.administrator, secret
        )
    return _organisation(made, 1)


@MODULE.bind(api.REMOVE_ORGANISATION)
def remove_organisation(call: Call, request: api.RemoveOrganisation) -> Empty:
    """Close an organisation."""
    with call.write() as work:
        service.remove_organisation(work, call.caller, request.name)
    return Empty()


@MODULE.bind(api.ORGANISATION)
def organisation(call: Call, request: api.AskOrganisation) -> api.Organisation:
    """Show an organisation."""
    with call.read() as work:
        found = service.organisation(work, request.organization_target)
        return _organisation(found, service.count_users(work, found.name))


def _directory(call: Call, work: Work) -> Directory:
    return call.service(Identity).directories(work)


def _password_matches(call: Call, organisation_name: str, name: str, secret: str) -> bool:
    with call.read() as work:
        return _directory(call, work).password_matches(organisation_name, name, secret)


def _sorted(values: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(values))


def _next(found: Sequence[Any], request: Page) -> str | None:
    return found[-1].name if len(found) == request.limit else None


def _token(issued: tokens.Issued) -> api.Token:
    return api.Token(
        token=issued.text, token_id=issued.id, organisation=issued.organisation, user=issued.user,
        expires_at=issued.expires_at,
    )  # fmt: skip


def _user(person: Person) -> api.User:
    return api.User(
        name=person.name, issuer=person.issuer, subject=person.subject, title=person.title, email=person.email,
        program=person.program, active=person.active, roles=_sorted(person.roles), groups=_sorted(person.groups),
        created_at=person.created_at,
    )  # fmt: skip


def _group(found: Members) -> api.Group:
    return api.Group(name=found.name, title=found.title, members=_sorted(found.members))


def _project(found: Members) -> api.Project:
    return api.Project(name=found.name, title=found.title, active=found.active, members=_sorted(found.members))


def _role(found: Role, holders: frozenset[str]) -> api.Role:
    return api.Role(name=found.name, title=found.title, rights=_sorted(found.rights), holders=_sorted(holders))


def _organisation(found: Organisation, users: int) -> api.Organisation:
    return api.Organisation(
        name=found.name, title=found.title, kind=found.kind, currency=found.currency,
        active=found.active, users=users, created_at=found.created_at,
    )  # fmt: skip
