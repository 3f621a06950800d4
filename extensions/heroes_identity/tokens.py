"""Signing in and out: tokens, what they are worth now, and the pace at which passwords may be guessed.

A sign-in is a chain of tokens: each lives some hours, a fresh one can be had until the sign-in ends. A program has
long-lived tokens instead. A token is stored as a digest only.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from heroes.api.errors import InvalidSpec, NotAllowed, NotFound, NotSignedIn
from heroes.api.ids import new_ulid
from heroes_core.work import Caller, Work
from heroes_identity import service, store
from heroes_identity.freshness import FRESHNESS
from heroes_identity.model import Pace, digest, mint_token, name_key, rights_of, token_id
from heroes_identity.ports import Directory

TOKEN_LIFE = timedelta(hours=8)
SIGN_IN_LIFE = timedelta(days=30)
#: How long a token goes on after a fresh one was fetched: other threads of the same client may still be sending it.
OVERLAP = timedelta(minutes=1)


@dataclass(frozen=True)
class Issued:
    """A fresh token: its text is known here and now only."""

    text: str
    id: str
    organisation: str
    user: str
    expires_at: datetime | None


@dataclass(frozen=True)
class Bearer:
    """Who holds a token, until when at the latest, and the sign-in that it belongs to."""

    caller: Caller
    expires_at: datetime | None
    sign_in: str


def begin_sign_in(work: Work, organisation: str, user: str, pace: Pace) -> None:
    """Count one try, before the password is looked at: so that tries at the same moment count too. NotSignedIn while
    the name is blocked, with the seconds left in `detail["retry_after"]`; alike for names that nobody has."""
    store.forget_old_guessing(work, work.now - timedelta(seconds=pace.forget_s))
    row = store.get_guessing(work, organisation, name_key(user))
    left = (row.blocked_until - work.now).total_seconds()
    if left > 0:
        raise NotSignedIn(
            f"Signing in as {user} of {organisation} failed too often: wait {left:.0f} s.",
            hint="If it was not you who tried, tell an administrator of your organisation.",
            detail={"retry_after": max(1, round(left))},
        )
    store.set_guessing(work, organisation, name_key(user), row.failures + 1, work.now + pace.wait(row.failures + 1))


def refuse_sign_in(work: Work, organisation: str, user: str) -> None:
    """Audit a wrong password, where there is such an organisation."""
    if store.get_organisation(work, organisation) is not None:
        work.audit(organisation, f"{user}@{organisation}", "auth.refused", user)


def finish_sign_in(work: Work, organisation: str, user: str) -> Issued:
    """The password was right: a first token. NotSignedIn when the organisation was closed meanwhile."""
    if store.get_organisation(work, organisation) is None:
        raise wrong_password()
    store.forget_guessing(work, organisation, name_key(user))
    work.audit(organisation, f"{user}@{organisation}", "auth.login", user)
    return _issue(work, organisation, user, sign_in=new_ulid(), ends_at=work.now + SIGN_IN_LIFE)


def wrong_password() -> NotSignedIn:
    """The same words for a wrong password, a user who is not there and one who is not active."""
    return NotSignedIn(
        "Organisation, user and password do not belong together, or the user is not active.",
        hint="Check all three; an administrator of your organisation can set a new password.",
    )


def refresh(work: Work, caller: Caller) -> Issued:
    """A fresh token of the same sign-in; the old one ends within a minute."""
    row = store.get_token(work, caller.token_id)
    if row is None or row.program:
        raise NotAllowed("A program's token is not refreshed.", hint="Make another: heroes token add.")
    fresh = _issue(work, caller.organisation, caller.user, sign_in=row.sign_in, ends_at=row.ends_at)
    store.shorten(work, row.id, work.now + OVERLAP)
    work.after_commit(FRESHNESS.changed)
    return fresh


def sign_out(work: Work, caller: Caller, *, everywhere: bool) -> None:
    """Revoke every token of this sign-in, or of all sign-ins of the caller."""
    row = store.get_token(work, caller.token_id)
    mine = [store.token.c.organisation == caller.organisation, store.token.c.person == caller.user]
    if not everywhere:
        mine.append(store.token.c.sign_in == (row.sign_in if row else ""))
    elif not caller.program:
        mine.append(store.token.c.program.is_(False))
    store.revoke(work, *mine)
    work.audit(caller.organisation, caller.actor, "auth.logout", caller.user, everywhere=everywhere)
    work.after_commit(FRESHNESS.changed)


def add_program_token(
    work: Work, directory: Directory, caller: Caller, user: str, comment: str, life: timedelta | None
) -> Issued:
    """A long-lived token for a program within the caller's reach."""
    person = service.reached(work, directory, caller, user)
    if not person.program:
        raise InvalidSpec(
            f"{user} is a person: persons sign in with a password.",
            hint="Add a user that is a program: heroes user add --program.",
        )
    ends = work.now + life if life is not None else None
    issued = _issue(work, caller.organisation, user, sign_in=new_ulid(), ends_at=ends, program=True, comment=comment)
    work.audit(caller.organisation, caller.actor, "token.add", user, token=issued.id, comment=comment)
    return issued


def revoke_program_token(work: Work, directory: Directory, caller: Caller, identifier: str) -> None:
    """Revoke a program's token; revoked already is no error."""
    row = store.get_token(work, identifier)
    if row is None or row.organisation != caller.organisation or not row.program:
        raise NotFound(f"There is no token {identifier}.", hint="List them: heroes token list.")
    if row.gone is None:
        service.reached(work, directory, caller, row.person)
    store.revoke(work, store.token.c.id == identifier)
    work.audit(caller.organisation, caller.actor, "token.revoke", row.person, token=identifier)
    work.after_commit(FRESHNESS.changed)


def bearer(work: Work, text: str) -> Bearer:
    """Who holds the token, with the rights of this moment; NotSignedIn tells what is wrong with it."""
    identifier = token_id(text)
    row = store.get_token(work, identifier) if identifier else None
    if row is None or not hmac.compare_digest(row.digest, digest(text)):
        raise NotSignedIn("The token is not known here.", hint="Sign in again: heroes login.")
    if row.closed is not None:
        raise NotSignedIn(f"The organisation {row.organisation} was closed.", hint="Ask the platform's administrators.")
    if row.gone is not None or not row.active:
        raise NotSignedIn(
            f"The user {row.person} is no longer active.", hint="Ask an administrator of your organisation."
        )
    if row.revoked_at is not None:
        raise NotSignedIn("The token was revoked.", hint="Sign in again: heroes login.")
    if row.expires_at is not None and row.expires_at <= work.now:
        raise expired(row.expires_at)
    roles = store.roles_of(work, row.organisation, [row.person]).get(row.person, frozenset())
    rights = rights_of(row.kind, roles)
    caller = Caller(row.organisation, row.person, rights, row.id, row.program, platform=row.kind == "platform")
    return Bearer(caller, row.expires_at, row.sign_in)


def expired(at: datetime) -> NotSignedIn:
    """The token was good, and its time is over."""
    return NotSignedIn(f"The token expired at {at:%Y-%m-%d %H:%M} UTC.", hint="Sign in again: heroes login.")


def _issue(work: Work, organisation: str, user: str, *, sign_in: str, ends_at: datetime | None, program: bool = False,
           comment: str = "") -> Issued:  # fmt: skip
    """A token that lives as long as its kind does, and never beyond `ends_at`."""
    fresh = mint_token()
    expires_at = ends_at if program or ends_at is None else min(ends_at, work.now + TOKEN_LIFE)
    row = {
        "id": fresh.id, "organisation": organisation, "person": user, "digest": fresh.digest, "sign_in": sign_in,
        "program": program, "comment": comment, "expires_at": expires_at, "ends_at": ends_at,
    }  # fmt: skip
    store.add_token(work, row)
    return Issued(fresh.text, fresh.id, organisation, user, expires_at)
