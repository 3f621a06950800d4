"""Service accounts: key pairs made here, encrypted at rest, one organisation each."""

from __future__ import annotations

import io

import paramiko
import pytest
import sqlalchemy as sa

from heroes.api import clusters as api
from heroes.api.errors import Conflict, Corrupt, NotAllowed, NotFound
from heroes_clusters import accounts, store
from heroes_clusters.keys import Vault, new_key_pair
from tests.unit.clusters.conftest import Platform


def test_a_key_pair_fits_together() -> None:
    """The public half is an OpenSSH line with a comment, and the private half is its own."""
    pair = new_key_pair("heroes-acme")
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(pair.private_key))
    kind, data, comment = pair.public_key.split(" ")
    assert (kind, data, comment) == ("ssh-ed25519", key.get_base64(), "heroes-acme")
    assert "PRIVATE" not in repr(pair)


def test_a_vault_opens_only_its_own() -> None:
    """Another secret, or one altered byte, and there is nothing to read."""
    vault = Vault(b"secret")
    sealed = vault.seal("text")
    assert vault.open(sealed) == "text"
    assert "text" not in sealed
    with pytest.raises(Corrupt):
        Vault(b"other").open(sealed)
    with pytest.raises(Corrupt):
        vault.open(sealed[:-5] + "AAAA=")
    assert repr(vault) == "Vault(***)"


def test_the_private_key_is_shown_to_nobody(platform: Platform) -> None:
    """The answer has the public key and its fingerprint; the store has no private key in clear."""
    made = platform.ask(api.ADD_ACCOUNT, name="acc")
    assert made.public_key.startswith("ssh-ed25519 ")
    assert made.fingerprint.startswith("SHA256:")
    assert "private" not in made.model_dump_json().lower()
    with platform.database.read() as work:
        (stored,) = work.execute(sa.select(store.service_account.c.private_key)).scalars()
        opened = accounts.private_key(work, platform.vault, "acc")
    assert "PRIVATE KEY" not in stored
    assert paramiko.Ed25519Key.from_private_key(io.StringIO(opened)).get_base64() in made.public_key


def test_an_account_is_its_organisations(platform: Platform) -> None:
    """Others neither see it nor use it nor delete it; only the platform makes one for another organisation."""
    platform.ask(api.ADD_ACCOUNT, name="acc")
    other = platform.caller("umbrella")
    assert platform.ask(api.ACCOUNTS, other).items == ()
    with pytest.raises(NotFound):
        platform.ask(api.REMOVE_ACCOUNT, other, service_account="acc")
    with pytest.raises(NotFound):
        platform.enrol("beta", "umbrella", account="acc")
    with pytest.raises(NotAllowed):
        platform.ask(api.ADD_ACCOUNT, other, name="theirs", organisation="acme")
    made = platform.ask(api.ADD_ACCOUNT, platform.caller("heroes"), name="given", organisation="umbrella")
    assert made.organisation == "umbrella"
    assert [one.name for one in platform.ask(api.ACCOUNTS, other).items] == ["given"]


def test_an_account_for_nobody_is_refused(platform: Platform) -> None:
    """The organisation must exist."""
    with pytest.raises(NotFound):
        platform.ask(api.ADD_ACCOUNT, platform.caller("heroes"), name="x", organisation="nobody")


def test_an_account_in_use_is_not_deleted(everywhere: Platform) -> None:
    """It goes after its clusters; its key is destroyed and its name stays taken."""
    everywhere.ready()
    assert everywhere.ask(api.ACCOUNTS).items[0].clusters == ("alpha",)
    with pytest.raises(Conflict):
        everywhere.ask(api.REMOVE_ACCOUNT, service_account="alpha-account")
    everywhere.ask(api.CHANGE, cluster_id="alpha", drained=True)
    everywhere.ask(api.REMOVE, cluster_id="alpha")
    everywhere.ask(api.REMOVE_ACCOUNT, service_account="alpha-account")
    with everywhere.database.read() as work:
        assert work.execute(sa.select(store.service_account.c.private_key)).scalars().all() == [""]
        with pytest.raises(NotFound):
            accounts.private_key(work, everywhere.vault, "alpha-account")
    with pytest.raises(Conflict):
        everywhere.ask(api.ADD_ACCOUNT, name="alpha-account")


def test_accounts_come_in_pages(everywhere: Platform) -> None:
    """By name, a cursor leading on."""
    for name in ("a", "b", "c"):
        everywhere.ask(api.ADD_ACCOUNT, name=name)
    first = everywhere.ask(api.ACCOUNTS, limit=2)
    assert ([one.name for one in first.items], first.next) == (["a", "b"], "b")
    assert [one.name for one in everywhere.ask(api.ACCOUNTS, after="b").items] == ["c"]
