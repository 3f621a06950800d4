"""Signing in and out, tokens of persons and programs, and what the API learns of their holders."""

from __future__ import annotations

import pytest

from heroes.api import identity as api
from heroes.api.errors import InvalidSpec, NotAllowed, NotFound, NotSignedIn
from heroes_core.work import Database
from heroes_identity import tokens
from heroes_identity.handlers import Identity
from heroes_identity.model import Pace
from heroes_identity.provider import EmbeddedIdentityProvider
from tests.conftest import StillClock
from tests.unit.identity.conftest import CHEAP, SECRET, Platform


def test_who_signed_in_knows_who_they_are(both: Platform) -> None:
    """After signing in, `me` tells name, roles, groups, projects and rights of this moment."""
    token = both.add("ada", "engineer")
    admin = both.login("admin")
    both.ask(admin, api.ADD_GROUP, name="team", members=["ada"])
    both.ask(admin, api.ADD_PROJECT, name="wing", members=["ada"])
    me: api.Me = both.ask(token, api.ME)
    assert (me.organisation, me.user, me.program) == ("acme", "ada", False)
    assert (me.roles, me.groups, me.projects) == (("engineer",), ("team",), ("wing",))
    assert me.rights == ("data:home", "submit")
    assert me.expires_at == both.database.clock.now() + tokens.TOKEN_LIFE


@pytest.mark.parametrize(
    ("organisation", "user", "password"),
    [("acme", "admin", "wrong password"), ("acme", "nobody", SECRET), ("nowhere", "admin", SECRET), ("acme", "a", "")],
)
def test_every_failed_sign_in_gets_the_same_answer(
    platform: Platform, organisation: str, user: str, password: str
) -> None:
    """A wrong password, an unknown user and an unknown organisation cannot be told apart."""
    with pytest.raises(NotSignedIn) as caught:
        platform.login(user, organisation, password)
    assert str(caught.value) == str(tokens.wrong_password())
    assert caught.value.detail == {}


def test_a_failed_sign_in_is_audited_where_there_is_somewhere(platform: Platform) -> None:
    """Refusals are in the organisation's chain; those for an organisation that is not there leave nothing."""
    for organisation in ("acme", "nowhere"):
        with pytest.raises(NotSignedIn):
            platform.login("admin", organisation, "wrong password")
    assert platform.actions()[-1] == ("admin", "auth.refused", "admin")
    assert platform.actions("nowhere") == []


@pytest.mark.parametrize("user", ["admin", "nobody"])
def test_guessing_is_slowed_for_users_and_for_nobody_alike(both: Platform, clock: StillClock, user: str) -> None:
    """After some failures even the right password has to wait, for as long as the answer says and no longer."""
    both.services = type(both.services)(Identity(both.services.get(Identity).directories, Pace(free=3, first_s=10)))
    for _ in range(3):
        with pytest.raises(NotSignedIn, match="do not belong together"):
            both.login(user, password="wrong password")
    with pytest.raises(NotSignedIn, match="wait 10 s") as caught:
        both.login(user.upper() if user == "nobody" else user)
    assert caught.value.detail == {"retry_after": 10}
    clock.advance(10)
    if user == "admin":
        assert both.login(user)
        with pytest.raises(NotSignedIn, match="do not belong together"):
            both.login(user, password="wrong password")


def test_old_failures_are_forgotten(platform: Platform, clock: StillClock) -> None:
    """An hour after the last failure counting begins anew."""
    platform.services.get(Identity).pace = Pace(free=2, first_s=1)
    for _ in range(2):
        with pytest.raises(NotSignedIn, match="do not belong"):
            platform.login("admin", password="wrong password")
    clock.advance(3601)
    with pytest.raises(NotSignedIn, match="do not belong"):
        platform.login("admin", password="wrong password")
    assert platform.login("admin")


def test_an_expired_token_says_so(both: Platform, clock: StillClock) -> None:
    """At its end a token is refused as expired, also where the caller was remembered."""
    token = both.add("ada", "engineer")
    clock.advance(tokens.TOKEN_LIFE.total_seconds() - 1)
    assert both.ask(token, api.ME).user == "ada"
    clock.advance(1)
    assert both.provider.remembered(token) is None
    with pytest.raises(NotSignedIn, match="expired at 2026-03-02 20:00 UTC"):
        both.ask(token, api.ME)


def test_a_revoked_token_says_so_at_once(both: Platform) -> None:
    """After signing out, the very next request is refused as revoked, though the caller was remembered."""
    token, other = both.add("ada", "engineer"), both.login("ada")
    assert both.ask(token, api.ME).user == "ada"
    both.ask(token, api.LOGOUT)
    with pytest.raises(NotSignedIn, match="revoked"):
        both.ask(token, api.ME)
    assert both.ask(other, api.ME).user == "ada"


def test_signing_out_everywhere_ends_every_sign_in(platform: Platform) -> None:
    """All of one's sign-ins end, nobody else's."""
    token, other = platform.add("ada", "engineer"), platform.login("ada")
    admin = platform.login("admin")
    platform.ask(token, api.LOGOUT, everywhere=True)
    with pytest.raises(NotSignedIn, match="revoked"):
        platform.ask(other, api.ME)
    assert platform.ask(admin, api.ME).user == "admin"


@pytest.mark.parametrize("token", ["", "nonsense", "heroes_01ARZ3NDEKTSV4RRFFQ69G5FAV_abc"])
def test_an_unknown_token_says_so(platform: Platform, token: str) -> None:
    """What was never issued is not known; nothing else is said about it."""
    with pytest.raises(NotSignedIn, match="not known"):
        platform.provider.identify(token)


def test_the_id_of_a_token_is_not_enough(platform: Platform) -> None:
    """A token with a right id and a wrong secret is not known, whether or not the real one was revoked."""
    token = platform.add("ada", "engineer")
    forged = token[:-1] + ("a" if token[-1] != "a" else "b")
    platform.ask(token, api.LOGOUT)
    with pytest.raises(NotSignedIn, match="not known"):
        platform.provider.identify(forged)


def test_a_fresh_token_takes_over_within_a_minute(both: Platform, clock: StillClock) -> None:
    """The fresh token lives its full time; the old one goes on for a minute; signing out ends both."""
    old = both.add("ada", "engineer")
    clock.advance(3600)
    fresh = both.ask(old, api.REFRESH)
    assert fresh.expires_at == clock.now() + tokens.TOKEN_LIFE
    clock.advance(59)
    assert both.ask(old, api.ME).user == "ada"
    clock.advance(1)
    with pytest.raises(NotSignedIn, match="expired"):
        both.ask(old, api.ME)
    both.ask(fresh.token, api.LOGOUT)
    with pytest.raises(NotSignedIn, match="revoked"):
        both.ask(fresh.token, api.ME)


def test_no_chain_of_fresh_tokens_outlives_the_sign_in(platform: Platform, clock: StillClock) -> None:
    """Refreshing again and again ends with the sign-in, thirty days after it began."""
    began, token = clock.now(), platform.add("ada", "engineer")
    for _ in range(30 * 24 // 6 - 1):
        clock.advance(6 * 3600)
        answer = platform.ask(token, api.REFRESH)
        token = answer.token
    assert answer.expires_at == began + tokens.SIGN_IN_LIFE
    clock.advance(6 * 3600)
    with pytest.raises(NotSignedIn, match="expired"):
        platform.ask(token, api.REFRESH)


def test_a_role_given_is_effective_at_once(platform: Platform) -> None:
    """A remembered caller's rights follow the directory within the same process without delay."""
    token, admin = platform.add("ada", "engineer"), platform.login("admin")
    assert "workflows:manage" not in platform.ask(token, api.ME).rights
    platform.ask(admin, api.GIVE_ROLE, user="ada", role="workflow-admin")
    assert "workflows:manage" in platform.ask(token, api.ME).rights
    platform.ask(admin, api.TAKE_ROLE, user="ada", rolename="workflow-admin")
    assert "workflows:manage" not in platform.ask(token, api.ME).rights


def test_another_process_hears_of_a_change_within_its_memory(platform: Platform, clock: StillClock) -> None:
    """A caller is remembered for fifteen seconds and no longer, when the change was made elsewhere."""
    token = platform.add("ada", "engineer")
    caller = platform.provider.identify(token)
    clock.advance(14)
    assert platform.provider.remembered(token) == caller
    clock.advance(1)
    assert platform.provider.remembered(token) is None


def test_a_change_during_the_question_is_not_forgotten(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer read before a change, and remembered after it, does not count."""
    platform = Platform(sqlite)
    token = platform.add("ada", "engineer")
    real = tokens.bearer

    def slow(work: object, text: str) -> tokens.Bearer:
        found = real(work, text)  # type: ignore[arg-type]
        tokens.FRESHNESS.changed()
        return found

    monkeypatch.setattr(tokens, "bearer", slow)
    platform.provider.identify(token)
    assert platform.provider.remembered(token) is None


def test_memory_of_callers_is_bounded(platform: Platform) -> None:
    """Many callers do not fill the memory: it starts anew."""
    provider = EmbeddedIdentityProvider(platform.database, most=2)
    known = [platform.add(f"u{i}", "engineer") for i in range(3)]
    for token in known:
        provider.identify(token)
    assert [provider.remembered(token) is not None for token in known] == [False, False, True]


def test_a_new_password_of_ones_own_ends_other_sign_ins(platform: Platform) -> None:
    """The old password must be right; this sign-in goes on, others end, and only the new password signs in."""
    token, other = platform.add("ada", "engineer"), platform.login("ada")
    with pytest.raises(NotSignedIn, match="do not belong"):
        platform.ask(token, api.PASSWORD, old="wrong password", new="a brand new one")
    with pytest.raises(InvalidSpec, match="10 to 256"):
        platform.ask(token, api.PASSWORD, old=SECRET, new="short")
    platform.ask(token, api.PASSWORD, old=SECRET, new="a brand new one")
    assert platform.ask(token, api.ME).user == "ada"
    with pytest.raises(NotSignedIn, match="revoked"):
        platform.ask(other, api.ME)
    with pytest.raises(NotSignedIn, match="do not belong"):
        platform.login("ada")
    assert platform.login("ada", password="a brand new one")


def test_a_program_signs_in_with_a_token_of_its_own(both: Platform, clock: StillClock) -> None:
    """A program's token says that it is one, lives as long as asked, and is revoked at once."""
    both.add("robot", "engineer", program=True)
    admin = both.login("admin")
    made: api.Token = both.ask(admin, api.ADD_TOKEN, user="robot", comment="nightly", expires_in_days=30)
    caller = both.provider.identify(made.token)
    assert (caller.user, caller.program, caller.rights) == ("robot", True, {"submit", "data:home"})
    clock.advance(7 * 3600)
    listed: api.Tokens = both.ask(admin, api.TOKENS)
    assert [(each.token_id, each.user, each.comment) for each in listed.items] == [(made.token_id, "robot", "nightly")]
    assert made.token not in listed.model_dump_json()
    both.ask(admin, api.REVOKE_TOKEN, token_id=made.token_id)
    both.ask(admin, api.REVOKE_TOKEN, token_id=made.token_id)
    with pytest.raises(NotSignedIn, match="revoked"):
        both.ask(made.token, api.ME)


def test_a_program_has_no_password_and_no_refresh(platform: Platform) -> None:
    """A program cannot sign in by password, nor change one, nor refresh; a person gets no long-lived token."""
    platform.add("robot", "engineer", program=True)
    platform.add("ada", "engineer")
    admin = platform.login("admin")
    made = platform.ask(admin, api.ADD_TOKEN, user="robot", expires_in_days=None)
    assert made.expires_at is None
    with pytest.raises(NotSignedIn):
        platform.login("robot")
    with pytest.raises(NotAllowed, match="not refreshed"):
        platform.ask(made.token, api.REFRESH)
    with pytest.raises(InvalidSpec, match="is a program"):
        platform.ask(admin, api.CHANGE_USER, username="robot", password="some password")
    with pytest.raises(InvalidSpec, match="is a person"):
        platform.ask(admin, api.ADD_TOKEN, user="ada")


def test_tokens_of_another_organisation_are_not_there(platform: Platform) -> None:
    """One sees and revokes the tokens of one's own organisation only."""
    platform.add("robot", "engineer", program=True)
    made = platform.ask(platform.login("admin"), api.ADD_TOKEN, user="robot")
    stranger = platform.login("admin", "umbrella")
    assert platform.ask(stranger, api.TOKENS).items == ()
    with pytest.raises(NotFound, match=made.token_id):
        platform.ask(stranger, api.REVOKE_TOKEN, token_id=made.token_id)
    assert platform.ask(made.token, api.ME).user == "robot"


def test_no_secret_is_stored(platform: Platform) -> None:
    """Neither a password nor a token stands in the database as it was sent."""
    token = platform.add("ada", "engineer")
    dump = "\n".join(platform.database.engine.raw_connection().driver_connection.iterdump())  # type: ignore[union-attr]
    assert SECRET not in dump
    assert token.split("_", 2)[2] not in dump
    assert CHEAP.hash(SECRET)[:9] in dump
