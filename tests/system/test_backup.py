"""Backup of a running platform, restored into another one that then works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from heroes.api import identity
from heroes_hub.settings import Api, Objects, Settings, text
from tests.system.platforms import Platform, free_ports, platform

PASSWORD = "correct horse battery"
pytestmark = pytest.mark.timeout(300)


def test_a_running_platform_is_saved_and_comes_back(tmp_path: Path) -> None:
    """People, objects and audit chain of the saved platform are in the restored one, where its user signs in with the
    same password and reads the same bytes; both are proved."""
    source = tmp_path / "hello.txt"
    source.write_bytes(b"hello \0 world")
    file = tmp_path / "backup.tar.gz"
    with platform(machine=False) as made:
        made.heroes("up")
        with made.signed_in(*made.mayor()) as mayor:
            new = identity.AddOrganisation(name="acme", administrator="carla", password=PASSWORD)
            mayor.client.call(identity.ADD_ORGANISATION, new)
        with made.signed_in("acme", "carla", PASSWORD) as admin:
            user = identity.AddUser(name="emma", password=PASSWORD, roles=("engineer",))
            admin.client.call(identity.ADD_USER, user)
        with made.signed_in("acme", "emma", PASSWORD) as hs:
            where = hs.data.upload(source)
        assert "objects" in made.heroes("backup", str(file)).stdout
        assert "verified" in made.heroes("verify").stdout
        assert "verified" in made.heroes("verify", str(file)).stdout
        refused = made.heroes("restore", str(file), check=False)
        assert refused.returncode == 1
        assert "already" in refused.stderr
    with platform(machine=False) as other:
        restore(other, file)
        other.heroes("up")
        with other.signed_in("acme", "emma", PASSWORD) as hs:
            assert hs.data.read(where) == b"hello \0 world"
        assert "audit chain of acme: whole" in other.heroes("verify").stdout


def restore(other: Platform, file: Path) -> None:
    """Restore into an empty folder; then give it ports of its own."""
    shutil.rmtree(other.home.folder)
    other.heroes("restore", str(file))
    api, objects = free_ports(2)
    kept = other.settings
    moved = Settings(
        api=Api(port=api), objects=Objects(port=objects), machine=kept.machine, marketplace=kept.marketplace
    )
    other.home.settings_file.write_text(text(moved))
