"""Rules of identity: roles and what they give, who may give what, names, passwords and the pace of guessing them."""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import NoReturn

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from heroes.api.errors import InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import ULID, new_ulid
from heroes.api.registry import RIGHTS

#: The kinds of organisation, and whose roles each of them can give.
ROLES_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "client": ("client",),
    "provider": ("client", "provider"),
    "platform": ("platform",),
}
#: The role without which nobody could manage an organisation: its last holder cannot be removed.
ADMINISTRATOR: Mapping[str, str] = {
    "client": "organisation-administrator",
    "provider": "organisation-administrator",
    "platform": "solution-admin",
}
PASSWORD_LENGTH = (10, 256)
_PREFIX = "heroes"


@dataclass(frozen=True)
class Role:
    """A named set of rights. `gives`: rights its holders may hand on without having them."""

    name: str
    title: str
    rights: frozenset[str]
    gives: frozenset[str]


@dataclass(frozen=True)
class Organisation:
    """A tenant."""

    name: str
    title: str
    kind: str
    currency: str
    active: bool
    created_at: datetime


@dataclass(frozen=True)
class Person:
    """A user, person or program. The identity is (issuer, subject); the name is how it is shown within one
    organisation."""

    organisation: str
    name: str
    issuer: str
    subject: str
    title: str
    email: str
    program: bool
    active: bool
    roles: frozenset[str]
    groups: frozenset[str]
    created_at: datetime


@dataclass(frozen=True)
class NewPerson:
    """A user to be; a person has a first password, a program none."""

    organisation: str
    name: str
    title: str = ""
    email: str = ""
    program: bool = False
    password: str | None = None


@dataclass(frozen=True)
class Changes:
    """What to change of a user; None leaves it."""

    title: str | None = None
    email: str | None = None
    active: bool | None = None


@dataclass(frozen=True)
class Members:
    """A group or project with the names of its members."""

    organisation: str
    name: str
    title: str
    members: frozenset[str]
    active: bool = True


def read_roles(text: str) -> dict[str, dict[str, Role]]:
    """The table by kind of organisation and role; ValueError names a right that does not exist."""
    table: dict[str, dict[str, Role]] = {}
    for kind, roles in tomllib.loads(text).items():
        for name, row in roles.items():
            role = Role(name, row["title"], frozenset(row["rights"]), frozenset(row.get("gives", ())))
            if unknown := (role.rights | role.gives) - RIGHTS:
                raise ValueError(f"role {name} names rights that do not exist: {sorted(unknown)}")
            table.setdefault(kind, {})[name] = role
    return table


_TABLE = read_roles(files("heroes_identity").joinpath("roles.toml").read_text(encoding="utf-8"))


def roles_for(kind: str) -> dict[str, Role]:
    """The roles that an organisation of `kind` can give, by name."""
    return {name: role for group in ROLES_OF_KIND[kind] for name, role in _TABLE[group].items()}


def role_for(kind: str, name: str) -> Role:
    """A role by name; NotFound names those that there are."""
    roles = roles_for(kind)
    if name not in roles:
        raise NotFound(f"There is no role {name}.", hint=f"Roles here: {', '.join(sorted(roles))}.")
    return roles[name]


def rights_of(kind: str, roles: Iterable[str]) -> frozenset[str]:
    """The rights that `roles` give together; a role that is not in the table gives none."""
    known = roles_for(kind)
    return frozenset(right for name in roles if name in known for right in known[name].rights)


def givable(kind: str, roles: Iterable[str]) -> frozenset[str]:
    """The rights that a holder of `roles` may hand on: their own, and what the roles say beyond."""
    known = roles_for(kind)
    beyond = frozenset(right for name in roles if name in known for right in known[name].gives)
    return rights_of(kind, roles) | beyond


def check_reach(kind: str, granter: Iterable[str], wanted: Iterable[str], what: str) -> None:
    """NotAllowed unless everything that the roles `wanted` give is within the granter's reach."""
    excess = rights_of(kind, wanted) - givable(kind, granter)
    if excess:
        raise NotAllowed(
            f"{what} needs rights that you neither have nor may give: {', '.join(sorted(excess))}.",
            hint=f"Ask someone with the role {ADMINISTRATOR[kind]}.",
            detail={"rights": sorted(excess)},
        )


def check_password(password: str) -> str:
    """A new password that is long enough and not absurdly long; its text is in no message."""
    least, most = PASSWORD_LENGTH
    if not least <= len(password) <= most:
        raise InvalidSpec(
            f"A password has {least} to {most} characters; this one has {len(password)}.",
            hint="Take a few words that belong together for you only.",
            detail={"fields": [{"field": "password", "problem": "length", "value": len(password)}]},
        )
    return password


def name_key(name: str) -> str:
    """What makes two names the same: the hub and some file systems know no case."""
    return name.casefold()


@dataclass(frozen=True)
class Pace:
    """How guessing passwords is slowed: `free` failures cost nothing, then the wait doubles from `first_s` up to
    `longest_s`; after `forget_s` without a failure all is forgotten."""

    free: int = 5
    first_s: float = 1.0
    longest_s: float = 300.0
    forget_s: float = 3600.0

    def wait(self, failures: int) -> timedelta:
        """How long nobody may try again after so many failures."""
        beyond = failures - self.free
        if beyond < 0:
            return timedelta(0)
        return timedelta(seconds=min(self.longest_s, self.first_s * 2.0 ** min(beyond, 60)))


class Passwords:
    """Argon2id hashes. A check costs the same whether the user exists or not.

    `memory_kib`, `rounds` and `lanes` are argon2's costs; the defaults are RFC 9106's second choice."""

    def __init__(self, memory_kib: int = 65536, rounds: int = 3, lanes: int = 4) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=lanes)
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    def hash(self, password: str) -> str:
        """A salted hash, with its costs."""
        return self._hasher.hash(password)

    def matches(self, hashed: str | None, password: str) -> bool:
        """Whether `password` made the hash; a user without one (None) never matches, and takes as long."""
        try:
            right = self._hasher.verify(hashed or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return right and hashed is not None

    def outdated(self, hashed: str) -> bool:
        """Whether the hash was made with other costs than today's."""
        return self._hasher.check_needs_rehash(hashed)


@dataclass(frozen=True)
class Minted:
    """A fresh token: what the bearer sends, the id it is known by, and the digest that is stored."""

    text: str
    id: str
    digest: str


def mint_token() -> Minted:
    """`heroes_<id>_<43 random characters>`: 256 random bits, so that a plain SHA-256 protects it."""
    identifier, secret = new_ulid(), secrets.token_urlsafe(32)
    text = f"{_PREFIX}_{identifier}_{secret}"
    return Minted(text, identifier, digest(text))


def digest(token: str) -> str:
    """SHA-256 in hex, as stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def token_id(token: str) -> str | None:
    """The id inside a token, or None for what is no token of ours."""
    prefix, _, rest = token.partition("_")
    identifier, _, secret = rest.partition("_")
    return identifier if prefix == _PREFIX and secret and ULID.fullmatch(identifier) and len(token) < 200 else None


def unknown_user(name: str) -> NoReturn:
    """NotFound, the same for a user of another organisation and for one who never was."""
    raise NotFound(f"There is no user {name} in this organisation.", hint="List them: heroes user list.")
