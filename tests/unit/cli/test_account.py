"""Signing in and out."""

from __future__ import annotations

import io
import stat
from datetime import UTC, datetime

import pytest

from heroes import credentials
from heroes.api import identity
from heroes.api.errors import NotSignedIn
from heroes.credentials import Credentials
from tests.unit.cli.conftest import Heroes
from tests.unit.client.fake_api import FakeApi

WHO = ("--organisation", "acme", "--user", "ada")
TOKEN = identity.Token(
    token="fresh", token_id="t", organisation="acme", user="ada", expires_at=datetime(2027, 1, 1, tzinfo=UTC)
)


@pytest.fixture
def signed_out(heroes: Heroes, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Heroes:
    """The command line with no token at hand."""
    monkeypatch.delenv("HEROES_TOKEN")
    api.on("POST", "/organization/auth/login", TOKEN)
    api.on("POST", "/organization/auth/logout", {})
    return heroes


def test_signing_in(signed_out: Heroes, api: FakeApi) -> None:
    """The token is kept for its owner only, and later commands use it."""
    done = signed_out("login", *WHO, "--password", "correct horse")
    assert done.status == 0
    assert "signed in" in done.err
    assert api.asked[0].json == {"organisation": "acme", "user": "ada", "password": "correct horse"}
    assert credentials.stored() == Credentials(api.url, "fresh", "acme", "ada")
    assert stat.S_IMODE(credentials.file().stat().st_mode) == 0o600
    assert "fresh" not in done.out + done.err
    signed_out("me")
    assert api.asked[-1].headers["Authorization"] == "Bearer fresh"


def test_the_password_from_standard_input(signed_out: Heroes, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script gives the password as the first line of standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    assert signed_out("login", *WHO).status == 0
    assert api.asked[0].json["password"] == "from a pipe"


def test_a_token_made_elsewhere(signed_out: Heroes, api: FakeApi) -> None:
    """A token is tried before it is kept."""
    assert signed_out("login", *WHO, "--token", "made").status == 0
    assert [asked.path for asked in api.asked] == ["/organization/auth/me"]
    kept = credentials.stored()
    assert kept is not None
    assert kept.token == "made"


def test_a_wrong_password(signed_out: Heroes, api: FakeApi) -> None:
    """A wrong password keeps nothing."""
    api.on("POST", "/organization/auth/login", NotSignedIn("Name or password is wrong."))
    done = signed_out("login", *WHO, "--password", "no")
    assert done.status == 1
    assert "wrong" in done.err
    assert credentials.stored() is None


def test_signing_out(signed_out: Heroes, api: FakeApi) -> None:
    """The token is revoked and forgotten."""
    signed_out("login", *WHO, "--password", "p")
    assert signed_out("logout", "--everywhere").status == 0
    assert api.asked[-1].json == {"everywhere": True}
    assert credentials.stored() == Credentials(api.url)
    assert "nobody was signed in" in signed_out("logout").err


def test_signing_out_when_it_has_ended(signed_out: Heroes, api: FakeApi) -> None:
    """A token that has ended already is forgotten all the same."""
    signed_out("login", *WHO, "--password", "p")
    api.on("POST", "/organization/auth/logout", NotSignedIn("expired"))
    assert signed_out("logout").status == 0
    assert credentials.stored() == Credentials(api.url)


def test_signing_out_without_the_platform(signed_out: Heroes) -> None:
    """Where the platform does not answer, the token is forgotten here and one is told that it lives on."""
    credentials.save(Credentials("http://127.0.0.1:9", "t"))
    done = signed_out("logout")
    assert done.status == 0
    assert "stays valid" in done.err
    assert credentials.stored() == Credentials("http://127.0.0.1:9")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(heroes: Heroes, shell: str) -> None:
    """The script for a shell is printed."""
    assert "_HEROES_COMPLETE" in heroes("completion", shell).out
