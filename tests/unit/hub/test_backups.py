"""Backup, restore and proof of a store, on both databases."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from heroes.api.errors import ChainBroken, Conflict, Corrupt, HeroesError, LedgerImbalance
from heroes.api.units import Money, PriceModel
from heroes_budget import service as budget
from heroes_budget.model import Payer
from heroes_budget.store import ledger_account
from heroes_core import migrate
from heroes_core.store import audit_record
from heroes_core.work import Caller
from heroes_hub import backups, platform
from heroes_hub.home import Home
from heroes_hub.settings import Settings, Store


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, home: Home) -> Settings:
    """A platform's settings on each kind of store."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return home.prepare(Settings(store=Store(url=url)))


@pytest.fixture
def filled(home: Home, settings: Settings) -> Settings:
    """A platform with an organisation, credit, a settled and an open reservation, and an object."""
    from heroes.api.budget import AddCredit

    database = home.database(settings)
    migrate.upgrade(database)
    platform.make_first_administrator(database, home)
    mayor = Caller("heroes", "admin", frozenset({"billing"}), platform=True)
    with database.write() as work:
        request = AddCredit(organization_id="heroes", amount=Money.of("50"), reason='it\'s "quoted" ünï\n')
        budget.add_credit(work, mayor, request)
        payer = Payer("heroes", None, "admin")  # type: ignore[arg-type]
        price = PriceModel()
        for key, amount in (("01K00000000000000000000001", "2"), ("01K00000000000000000000002", "3")):
            budget.reserve(work, key, payer, "heroes", Money.of(amount), {"core-hours": 1}, price)
        budget.settle(work, "01K00000000000000000000001", Money.of("1.5"), {"core-hours": 1})
    database.close()
    thing = home.objects / "objects" / "heroes" / "admin" / "deep" / "x.bin"
    thing.parent.mkdir(parents=True)
    thing.write_bytes(b"\0\1")
    return settings


def rows(home: Home, settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    database = home.database(settings)
    with database.read() as work:
        found = {
            table.name: sorted((tuple(row) for row in work.execute(sa.select(table))), key=repr)
            for table in migrate.load_tables().sorted_tables
        }
    database.close()
    return found


def test_a_backup_restores_to_the_same(home: Home, filled: Settings, tmp_path: Path) -> None:
    """Every row and object is there again, in a folder of its own; the file is its owner's only."""
    before, file, other = rows(home, filled), tmp_path / "backup", Home(tmp_path / "other")
    told = backups.write(home, filled, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert told.objects == 1
    other_settings = filled
    if filled.store.url:
        wipe(home, filled)
    restored = backups.restore(other, file)
    assert restored.rows == told.rows
    assert rows(other, other_settings) == before
    assert (other.objects / "objects" / "heroes" / "admin" / "deep" / "x.bin").read_bytes() == b"\0\1"
    assert backups.verify(other, other_settings).ledger.sound


def wipe(home: Home, settings: Settings) -> None:
    """Empty the PostgreSQL database, as after a loss."""
    database = home.database(settings)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    database.close()


def test_numbers_go_on_after_a_restore(home: Home, filled: Settings, tmp_path: Path) -> None:
    """What the restored platform writes next does not collide with what was restored."""
    file, other = tmp_path / "backup", Home(tmp_path / "other")
    backups.write(home, filled, file)
    if filled.store.url:
        wipe(home, filled)
    backups.restore(other, file)
    database = other.database(filled)
    with database.write() as work:
        work.audit("heroes", "admin@heroes", "test", "x")
        work.emit("test.happened", "heroes", "x")
    database.close()
    assert backups.verify(other, filled).chains["heroes"] > 1


def test_a_backup_is_proved_without_touching_the_platform(home: Home, filled: Settings, tmp_path: Path) -> None:
    """`verify FILE` restores into a scratch store; audit chain and ledger are as in the platform itself."""
    file = tmp_path / "backup"
    backups.write(home, filled, file)
    proof = backups.verify_file(file)
    assert proof.chains == backups.verify(home, filled).chains
    assert proof.ledger.entries == backups.verify(home, filled).ledger.entries > 0
    assert proof.lines()[-1] == "verified"


def test_a_changed_audit_record_is_found(home: Home, filled: Settings) -> None:
    """The proof names the organisation and the record."""
    database = home.database(filled)
    with database.engine.begin() as connection:
        connection.execute(sa.update(audit_record).where(audit_record.c.sequence == 1).values(actor="mallory"))
    database.close()
    with pytest.raises(ChainBroken, match="heroes is broken at record 1"):
        backups.verify(home, filled)


def test_a_changed_account_is_found(home: Home, filled: Settings) -> None:
    """Money that no entry moved makes the proof fail."""
    database = home.database(filled)
    with database.engine.begin() as connection:
        connection.execute(sa.update(ledger_account).values(posted=ledger_account.c.posted + 1))
    database.close()
    with pytest.raises(LedgerImbalance, match="micro-units"):
        backups.verify(home, filled)


def test_a_damaged_backup_is_refused(home: Home, tmp_path: Path) -> None:
    """A member that is not what was written, a missing one, one with a path outside, and no backup at all."""
    settings = home.prepare()
    database = home.database(settings)
    migrate.upgrade(database)
    platform.make_first_administrator(database, home)
    database.close()
    file = tmp_path / "backup"
    backups.write(home, settings, file)
    members = read(file)
    damaged = {name: content for name, content in members.items() if name != "store/audit_record.jsonl"}
    cases = {
        "missing": damaged,
        "changed": {**members, "store/audit_record.jsonl": b"[]\n"},
        "added": {**members, "objects/evil": b"x"},
        "outside": {**members, "../evil": b"x"},
        "no manifest": {name: content for name, content in members.items() if name != "manifest.json"},
        "another format": {**members, "manifest.json": json.dumps({"format": 9, "sums": {}}).encode()},
    }
    for name, content in cases.items():
        write(tmp_path / name, content)
        with pytest.raises(Corrupt) as caught:
            backups.restore(Home(tmp_path / f"home {name}"), tmp_path / name)
        assert caught.value.hint
        assert not (tmp_path / f"home {name}" / "heroes.toml").exists()
    assert not (tmp_path / "evil").exists()


def read(file: Path) -> dict[str, bytes]:
    """The members of a backup."""
    with tarfile.open(file, "r:gz") as tar:
        return {member.name: extracted.read() for member in tar if (extracted := tar.extractfile(member))}


def write(file: Path, members: dict[str, bytes]) -> None:
    """A backup of these members."""
    with gzip.open(file, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_nothing_is_restored_over_a_platform(home: Home, tmp_path: Path) -> None:
    """A folder with settings is left alone, and the error says what to give instead."""
    home.prepare()
    with pytest.raises(Conflict, match="already") as caught:
        backups.restore(home, tmp_path / "whatever")
    assert "--home" in caught.value.hint


def test_a_backup_that_fails_leaves_nothing(home: Home, tmp_path: Path) -> None:
    """When the store cannot be read there is no file, and no half of one."""
    settings = home.prepare()
    with pytest.raises((HeroesError, sa.exc.SQLAlchemyError)):
        backups.write(home, settings, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))
