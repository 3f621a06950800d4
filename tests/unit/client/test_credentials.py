"""Where the address and the token come from, and how they are kept."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

import heroes
from heroes import credentials
from heroes.api.errors import NotSignedIn, Refused
from heroes.credentials import Credentials

KEPT = Credentials("http://kept:1", "kept-token", "acme", "ada")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("HEROES_API_URL", "HEROES_TOKEN", "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_kept() -> None:
    """Without anything the default address is taken, and nobody is signed in."""
    assert credentials.find() == Credentials(credentials.DEFAULT_URL)
    with pytest.raises(NotSignedIn, match="heroes login"):
        heroes.connect()


def test_the_file_is_the_owners_only() -> None:
    """What is kept can be read by its owner only, and comes back."""
    credentials.save(KEPT)
    assert stat.S_IMODE(credentials.file().stat().st_mode) == 0o600
    assert credentials.stored() == credentials.find() == KEPT


def test_saving_replaces() -> None:
    """A later sign-in takes the place of an earlier one."""
    credentials.save(KEPT)
    credentials.save(Credentials("http://other:1", "t"))
    assert credentials.find().token == "t"
    assert len(list(credentials.file().parent.iterdir())) == 1


def test_a_file_that_others_can_read_is_refused() -> None:
    """A token that others may have read is not used."""
    credentials.save(KEPT)
    credentials.file().chmod(0o644)
    with pytest.raises(Refused, match="can be read by others"):
        credentials.find()


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"url": 1, "more": 2}'])
def test_a_damaged_file_is_told(text: str) -> None:
    """A damaged file is an error with the way out."""
    credentials.save(KEPT)
    credentials.file().write_text(text)
    with pytest.raises(Refused, match="damaged"):
        credentials.stored()


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """HEROES_API_URL and HEROES_TOKEN are taken before what is kept."""
    credentials.save(KEPT)
    monkeypatch.setenv("HEROES_TOKEN", "from-environment")
    assert credentials.find() == Credentials("http://kept:1", "from-environment")
    monkeypatch.setenv("HEROES_API_URL", "http://elsewhere:2")
    assert credentials.find() == Credentials("http://elsewhere:2", "from-environment")


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given is taken."""
    monkeypatch.setenv("HEROES_API_URL", "http://elsewhere:2")
    monkeypatch.setenv("HEROES_TOKEN", "from-environment")
    assert credentials.find("http://here:3", "mine") == Credentials("http://here:3", "mine")


def test_a_token_goes_to_its_own_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept token is never sent to another address than that of its sign-in."""
    credentials.save(KEPT)
    monkeypatch.setenv("HEROES_API_URL", "http://elsewhere:2")
    assert credentials.find().token == ""


def test_a_user_server_has_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user's server its own token is taken."""
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "of-the-server")
    assert credentials.find().token == "of-the-server"


def test_forgetting() -> None:
    """Forgetting leaves the address, for the next sign-in; there may be nothing to forget."""
    assert not credentials.forget()
    credentials.save(KEPT)
    assert credentials.forget()
    assert not credentials.forget()
    assert credentials.stored() == credentials.Credentials(KEPT.url)


def test_a_token_is_not_shown() -> None:
    """The token is in no representation."""
    assert "kept-token" not in repr(KEPT)
