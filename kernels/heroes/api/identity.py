"""Who is who: signing in; users, groups, roles, projects and tokens of an organisation; the organisations.

A name (organisation, user, group, project) is never given again, not even after its bearer was deleted, and two names
that differ in case only do not stand beside each other. Passwords travel in requests only and are in no answer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, PlainSerializer, SecretStr, StringConstraints

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound, NotSignedIn
from heroes.api.ids import NAME, ULID
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import ANYBODY, SIGNED_IN, Operation

Slug = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
#: Names as they are looked up: what was never a name is simply not found, but is bounded before it is logged.
Asked = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Identifier = Annotated[str, StringConstraints(pattern=f"^{ULID.pattern}$")]
Title = Annotated[str, StringConstraints(max_length=100)]
Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^([^@\s]+@[^@\s]+)?$")]
#: Shown as stars, sent as it is. Its length is checked where no error message would repeat it.
Password = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value, return_type=str, when_used="json")]
NewPassword = Annotated[Password, Field(description="10 to 256 characters")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Kind = Literal["client", "provider", "platform"]


class Login(Model):
    """A person's name and password."""

    organisation: Asked
    user: Asked
    password: Password


class Token(Model):
    """What to send as `Authorization: Bearer <token>`; shown here once and stored as a hash only."""

    token: str
    token_id: str
    organisation: str
    user: str
    expires_at: datetime | None


class Logout(Model):
    """Ends this sign-in, or every one of the caller's."""

    everywhere: bool = Field(default=False, description="end all of one's sign-ins, on every device")


class Me(Model):
    """Who asks, and what the directory lets them do now."""

    organisation: str
    user: str
    title: str
    email: str
    program: bool
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    projects: tuple[str, ...]
    rights: tuple[str, ...]
    token_id: str
    expires_at: datetime | None


class ChangePassword(Model):
    """One's own new password; ends every other sign-in."""

    old: Password
    new: NewPassword


class User(Model):
    """A person or a program. `issuer` and `subject` are the identity, the name is how it is shown."""

    name: str
    issuer: str
    subject: str
    title: str
    email: str
    program: bool
    active: bool
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    created_at: datetime


class Users(Model):
    """One page of users, by name."""

    items: tuple[User, ...]
    next: str | None = None


class AskUser(Model):
    """A user of one's organisation."""

    username: Asked


class AddUser(Model):
    """A person (with a first password) or a program (which signs in with tokens)."""

    name: Slug
    title: Title = Field(default="", description="how it is called for people")
    email: Email = Field(default="", description="an address")
    program: bool = Field(default=False, description="a user that is a program: it has tokens, no password")
    password: NewPassword | None = Field(default=None, description="10 to 256 characters")
    roles: tuple[Asked, ...] = Field(default=(), max_length=20, description="roles to give")
    groups: tuple[Asked, ...] = Field(default=(), max_length=100, description="groups to join")


class ChangeUser(Model):
    """What is not set stays. Setting `active` to false ends every sign-in and token at once."""

    username: Asked
    title: Title | None = Field(default=None, description="how it is called for people")
    email: Email | None = Field(default=None, description="an address")
    active: bool | None = Field(default=None, description="whether it can be used")
    password: NewPassword | None = Field(default=None, description="10 to 256 characters")


class Group(Model):
    """Users who are named together, for instance when a bucket is shared."""

    name: str
    title: str
    members: tuple[str, ...]


class Groups(Model):
    """One page of groups, by name."""

    items: tuple[Group, ...]
    next: str | None = None


class AskGroup(Model):
    """A group of one's organisation."""

    groupname: Asked


class AddGroup(Model):
    """A new group."""

    name: Slug
    title: Title = Field(default="", description="how it is called for people")
    members: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who are in it from the start")


class ChangeGroup(Model):
    """Who joins and who leaves; what is not set stays."""

    groupname: Asked
    title: Title | None = Field(default=None, description="how it is called for people")
    join: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who come in")
    leave: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who go out")


class Role(Model):
    """A named set of rights, and who has it in one's organisation."""

    name: str
    title: str
    rights: tuple[str, ...]
    holders: tuple[str, ...]


class Roles(Model):
    """Every role that one's organisation can give."""

    items: tuple[Role, ...]
    next: str | None = None


class AskRole(Model):
    """A role by name."""

    rolename: Asked


class GiveRole(Model):
    """A role for a user. Nobody gives more than they have or may give."""

    role: Asked
    user: Asked


class TakeRole(Model):
    """Take the role from `user`."""

    rolename: Asked
    user: Asked


class Project(Model):
    """Users of an organisation who share workflows, data and a budget."""

    name: str
    title: str
    active: bool
    members: tuple[str, ...]


class Projects(Model):
    """One page of projects, by name."""

    items: tuple[Project, ...]
    next: str | None = None


class AskProject(Model):
    """A project of one's organisation."""

    projectname: Asked


class AddProject(Model):
    """A new project."""

    name: Slug
    title: Title = Field(default="", description="how it is called for people")
    members: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who are in it from the start")


class ChangeProject(Model):
    """Who joins and who leaves; what is not set stays."""

    projectname: Asked
    title: Title | None = Field(default=None, description="how it is called for people")
    active: bool | None = Field(default=None, description="whether it can be used")
    join: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who come in")
    leave: tuple[Asked, ...] = Field(default=(), max_length=1000, description="users who go out")


class TokenInfo(Model):
    """A token of a program user, without its secret."""

    token_id: str
    user: str
    comment: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Tokens(Model):
    """One page of tokens, oldest first."""

    items: tuple[TokenInfo, ...]
    next: str | None = None


class AddToken(Model):
    """A long-lived token for a program user."""

    user: Asked
    comment: str = Field(default="", max_length=200, description="what it is for")
    expires_in_days: int | None = Field(default=365, ge=1, le=3650, description="days; null: until it is revoked")


class AskToken(Model):
    """A token by its id."""

    token_id: Identifier


class Organisation(Model):
    """A legal entity: the tenant. `currency` is what its budgets are kept in."""

    name: str
    title: str
    kind: Kind
    currency: str
    active: bool
    users: int
    created_at: datetime


class Organisations(Model):
    """One page of organisations, by name."""

    items: tuple[Organisation, ...]
    next: str | None = None


class AskOrganisation(Model):
    """An organisation by name."""

    organization_target: Asked


class AddOrganisation(Model):
    """A new organisation and its first administrator."""

    name: Slug
    title: Title = Field(default="", description="how it is called for people")
    kind: Literal["client", "provider"] = "client"
    currency: Currency = "EUR"
    administrator: Slug = Field(description="name of its first administrator")
    password: NewPassword


class RemoveOrganisation(Model):
    """Its users are signed out at once; its records, ledger and audit chain stay."""

    name: Asked


LOGIN = Operation(
    name="auth.login",
    method="POST",
    path="/organization/auth/login",
    request=Login,
    response=Token,
    right=ANYBODY,
    errors=(NotSignedIn,),
    summary="Sign in with a password.",
)
LOGOUT = Operation(
    name="auth.logout",
    method="POST",
    path="/organization/auth/logout",
    request=Logout,
    response=Empty,
    right=SIGNED_IN,
    summary="Sign out: the token is revoked.",
)
REFRESH = Operation(
    name="auth.refresh",
    method="GET",
    path="/organization/auth/refresh_token",
    request=Empty,
    response=Token,
    right=SIGNED_IN,
    errors=(NotAllowed, NotSignedIn),
    summary="Get a fresh token for the same sign-in; the old one ends within a minute.",
)
ME = Operation(
    name="auth.me",
    method="GET",
    path="/organization/auth/me",
    request=Empty,
    response=Me,
    right=SIGNED_IN,
    summary="Show who is signed in, with roles and rights.",
    verb="me",
)
PASSWORD = Operation(
    name="auth.password",
    method="POST",
    path="/organization/auth/password",
    request=ChangePassword,
    response=Empty,
    right=SIGNED_IN,
    errors=(NotSignedIn, NotAllowed),
    summary="Change one's own password.",
)

USERS = Operation(
    name="user.list",
    method="GET",
    path="/organization/admin/users/",
    request=Page,
    response=Users,
    right="users:manage",
    summary="List the users of the organisation.",
    verb="user list",
)
ADD_USER = Operation(
    name="user.add",
    method="POST",
    path="/organization/admin/users/",
    request=AddUser,
    response=User,
    right="users:manage",
    errors=(Conflict, InvalidSpec, NotAllowed, NotFound),
    summary="Add a user, a person or a program.",
    verb="user add",
    creates=True,
)
USER = Operation(
    name="user.show",
    method="GET",
    path="/organization/admin/users/{username}",
    request=AskUser,
    response=User,
    right="users:manage",
    errors=(NotFound,),
    summary="Show a user.",
    verb="user show",
)
REMOVE_USER = Operation(
    name="user.remove",
    method="DELETE",
    path="/organization/admin/users/{username}",
    request=AskUser,
    response=Empty,
    right="users:manage",
    errors=(NotFound, NotAllowed, Conflict),
    summary="Delete a user: signed out at once, the name is never given again.",
    verb="user remove",
)
CHANGE_USER = Operation(
    name="user.change",
    method="PATCH",
    path="/organization/admin/users/{username}",
    request=ChangeUser,
    response=User,
    right="users:manage",
    errors=(NotFound, NotAllowed, Conflict, InvalidSpec),
    summary="Change, deactivate or reactivate a user, or set a new password.",
    verb="user change",
)

GROUPS = Operation(
    name="group.list",
    method="GET",
    path="/organization/admin/groups/",
    request=Page,
    response=Groups,
    right="users:manage",
    summary="List the groups of the organisation.",
    verb="group list",
)
ADD_GROUP = Operation(
    name="group.add",
    method="POST",
    path="/organization/admin/groups/",
    request=AddGroup,
    response=Group,
    right="users:manage",
    errors=(Conflict, NotFound),
    summary="Add a group.",
    verb="group add",
    creates=True,
)
GROUP = Operation(
    name="group.show",
    method="GET",
    path="/organization/admin/groups/{groupname}",
    request=AskGroup,
    response=Group,
    right="users:manage",
    errors=(NotFound,),
    summary="Show a group and its members.",
    verb="group show",
)
REMOVE_GROUP = Operation(
    name="group.remove",
    method="DELETE",
    path="/organization/admin/groups/{groupname}",
    request=AskGroup,
    response=Empty,
    right="users:manage",
    errors=(NotFound,),
    summary="Delete a group; its members stay.",
    verb="group remove",
)
CHANGE_GROUP = Operation(
    name="group.change",
    method="PATCH",
    path="/organization/admin/groups/{groupname}",
    request=ChangeGroup,
    response=Group,
    right="users:manage",
    errors=(NotFound,),
    summary="Change a group: who joins, who leaves.",
    verb="group change",
)

ROLES = Operation(
    name="role.list",
    method="GET",
    path="/organization/admin/roles/",
    request=Empty,
    response=Roles,
    right="users:manage",
    summary="List the roles with their rights and holders.",
    verb="role list",
)
GIVE_ROLE = Operation(
    name="role.give",
    method="POST",
    path="/organization/admin/roles/",
    request=GiveRole,
    response=User,
    right="users:manage",
    errors=(NotFound, NotAllowed),
    summary="Give a role to a user.",
    verb="role give",
    creates=True,
)
ROLE = Operation(
    name="role.show",
    method="GET",
    path="/organization/admin/roles/{rolename}",
    request=AskRole,
    response=Role,
    right="users:manage",
    errors=(NotFound,),
    summary="Show a role: its rights and who has it.",
    verb="role show",
)
TAKE_ROLE = Operation(
    name="role.take",
    method="DELETE",
    path="/organization/admin/roles/{rolename}",
    request=TakeRole,
    response=User,
    right="users:manage",
    errors=(NotFound, NotAllowed, Conflict),
    summary="Take a role from a user.",
    verb="role take",
)

PROJECTS = Operation(
    name="project.list",
    method="GET",
    path="/organization/admin/projects/",
    request=Page,
    response=Projects,
    right="users:manage",
    summary="List the projects of the organisation.",
    verb="project list",
)
ADD_PROJECT = Operation(
    name="project.add",
    method="POST",
    path="/organization/admin/projects/",
    request=AddProject,
    response=Project,
    right="users:manage",
    errors=(Conflict, NotFound),
    summary="Add a project.",
    verb="project add",
    creates=True,
)
PROJECT = Operation(
    name="project.show",
    method="GET",
    path="/organization/admin/projects/{projectname}",
    request=AskProject,
    response=Project,
    right="users:manage",
    errors=(NotFound,),
    summary="Show a project and its members.",
    verb="project show",
)
REMOVE_PROJECT = Operation(
    name="project.remove",
    method="DELETE",
    path="/organization/admin/projects/{projectname}",
    request=AskProject,
    response=Empty,
    right="users:manage",
    errors=(NotFound,),
    summary="Delete a project: nothing new runs for it, what was charged to it stays.",
    verb="project remove",
)
CHANGE_PROJECT = Operation(
    name="project.change",
    method="PATCH",
    path="/organization/admin/projects/{projectname}",
    request=ChangeProject,
    response=Project,
    right="users:manage",
    errors=(NotFound,),
    summary="Change a project: who joins, who leaves, whether it is active.",
    verb="project change",
)

TOKENS = Operation(
    name="token.list",
    method="GET",
    path="/organization/admin/tokens/",
    request=Page,
    response=Tokens,
    right="users:manage",
    summary="List the tokens of program users.",
    verb="token list",
)
ADD_TOKEN = Operation(
    name="token.add",
    method="POST",
    path="/organization/admin/tokens/",
    request=AddToken,
    response=Token,
    right="users:manage",
    errors=(NotFound, NotAllowed, InvalidSpec),
    summary="Make a token for a program user; it is shown once.",
    verb="token add",
)
REVOKE_TOKEN = Operation(
    name="token.revoke",
    method="DELETE",
    path="/organization/admin/tokens/{token_id}",
    request=AskToken,
    response=Empty,
    right="users:manage",
    errors=(NotFound, NotAllowed),
    summary="Revoke a program's token at once.",
    verb="token revoke",
)

ORGANISATIONS = Operation(
    name="organisation.list",
    method="GET",
    path="/heroes/admin/organizations/",
    request=Page,
    response=Organisations,
    right="platform:organizations",
    summary="List the organisations of the platform.",
    verb="organisation list",
)
ADD_ORGANISATION = Operation(
    name="organisation.add",
    method="POST",
    path="/heroes/admin/organizations/",
    request=AddOrganisation,
    response=Organisation,
    right="platform:organizations",
    errors=(Conflict,),
    summary="Add an organisation with its first administrator.",
    verb="organisation add",
    creates=True,
)
REMOVE_ORGANISATION = Operation(
    name="organisation.remove",
    method="DELETE",
    path="/heroes/admin/organizations/",
    request=RemoveOrganisation,
    response=Empty,
    right="platform:organizations",
    errors=(NotFound, Conflict),
    summary="Close an organisation: its users are signed out at once.",
    verb="organisation remove",
)
ORGANISATION = Operation(
    name="organisation.show",
    method="GET",
    path="/heroes/admin/organizations/{organization_target}",
    request=AskOrganisation,
    response=Organisation,
    right="platform:organizations",
    errors=(NotFound,),
    summary="Show an organisation.",
    verb="organisation show",
)

OPERATIONS = (
    LOGIN, LOGOUT, REFRESH, ME, PASSWORD,
    USERS, ADD_USER, USER, REMOVE_USER, CHANGE_USER,
    GROUPS, ADD_GROUP, GROUP, REMOVE_GROUP, CHANGE_GROUP,
    ROLES, GIVE_ROLE, ROLE, TAKE_ROLE,
    PROJECTS, ADD_PROJECT, PROJECT, REMOVE_PROJECT, CHANGE_PROJECT,
    TOKENS, ADD_TOKEN, REVOKE_TOKEN,
    ORGANISATIONS, ADD_ORGANISATION, REMOVE_ORGANISATION, ORGANISATION,
)  # fmt: skip
