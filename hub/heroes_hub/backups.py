"""Backup, restore and verification of a platform: store, objects, settings and secrets in one file.

A backup is a gzipped tar of `manifest.json` (format, version, and the SHA-256 of every member), `store/<table>.jsonl`
(one row a line, from one transaction), `objects/…`, `heroes.toml` and `secrets/…`. It is written while the platform
runs: rows are of one moment, each object is whole. It holds what decrypts service accounts: readable by its owner only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from heroes.api.errors import Conflict, Corrupt, LedgerImbalance
from heroes_budget import books
from heroes_core import audit, migrate
from heroes_core.store import audit_head
from heroes_core.work import Database
from heroes_hub.home import Home
from heroes_hub.settings import Settings, load

FORMAT = 1
_BATCH = 500


@dataclass
class Told:
    """What a backup holds."""

    tables: int = 0
    rows: int = 0
    objects: int = 0
    bytes: int = 0
    sums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Proof:
    """What was proved: audit records by organisation, and the ledger's figures."""

    chains: dict[str, int]
    ledger: books.Proof

    def lines(self) -> list[str]:
        """As the command prints it."""
        chains = [f"audit chain of {name}: whole, {count} records" for name, count in sorted(self.chains.items())]
        books_ = f"ledger: balanced, {self.ledger.accounts} accounts, {self.ledger.entries} entries"
        return [*chains, books_, "verified"]


# --------------------------------------------------------------------------------------------------------------- write


def write(home: Home, settings: Settings, target: Path) -> Told:
    """Write a backup to `target`, at once or not at all."""
    told = Told()
    part = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    database = home.database(settings, pool_size=2)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            gzip.GzipFile("", "wb", 6, file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            _add_all(tar, home, settings, database, told)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        database.close()
    told.bytes = target.stat().st_size
    return told


def _add_all(tar: tarfile.TarFile, home: Home, settings: Settings, database: Database, told: Told) -> None:
    _add_store(tar, database, told)
    if settings.objects.kind == "embedded":
        _add_files(tar, "objects", home.objects / "objects", told)
    _add_files(tar, "secrets", home.folder / "secrets", told, counted=False)
    _add_files(tar, "keys", home.objects / "keys", told, counted=False, pattern="platform.*.json")
    _add(tar, "heroes.toml", home.settings_file.read_bytes(), told)
    manifest = {"format": FORMAT, "version": version("heroes-hpc"), "sums": told.sums}
    _add(tar, "manifest.json", json.dumps(manifest).encode(), Told())


def _add_store(tar: tarfile.TarFile, database: Database, told: Told) -> None:
    tables = migrate.load_tables().sorted_tables
    with database.engine.connect() as connection, connection.begin():
        if database.dialect == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for table in tables:
            with tempfile.TemporaryFile() as file:
                told.rows += _dump(connection, table, file)
                _add_stream(tar, f"store/{table.name}.jsonl", file, told)
    told.tables = len(tables)


def _dump(connection: sa.Connection, table: sa.Table, file: IO[bytes]) -> int:
    """The rows as the database keeps them: integers, texts, nulls."""
    columns = [sa.type_coerce(column, _plain(column)).label(column.name) for column in table.columns]
    count = 0
    for row in connection.execution_options(yield_per=_BATCH).execute(sa.select(*columns).select_from(table)):
        file.write(json.dumps([_out(value) for value in row]).encode() + b"\n")
        count += 1
    return count


def _plain(column: sa.Column[Any]) -> sa.types.TypeEngine[Any]:
    """The type beneath a decorated one, so that nothing is converted twice."""
    kind = column.type
    return kind.impl_instance if isinstance(kind, sa.types.TypeDecorator) else kind


def _out(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value


def _in(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def _add_files(
    tar: tarfile.TarFile, name: str, folder: Path, told: Told, *, counted: bool = True, pattern: str = "*"
) -> None:
    for path in sorted(folder.rglob(pattern)) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            with path.open("rb") as file:
                _add_stream(tar, f"{name}/{path.relative_to(folder)}", file, told)
            told.objects += counted


def _add_stream(tar: tarfile.TarFile, name: str, file: IO[bytes], told: Told) -> None:
    file.seek(0)
    told.sums[name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    member = tarfile.TarInfo(name)
    member.size, member.mode = file.seek(0, os.SEEK_END), 0o600
    file.seek(0)
    tar.addfile(member, file)


def _add(tar: tarfile.TarFile, name: str, content: bytes, told: Told) -> None:
    _add_stream(tar, name, io.BytesIO(content), told)


# ------------------------------------------------------------------------------------------------------------- restore


def restore(home: Home, source: Path) -> Told:
    """Make the platform of a backup in a folder that has none. The store is proved before the folder counts as one.

    Conflict when there is one already, or its database is not empty; Corrupt when the backup is damaged."""
    if home.settings_file.exists():
        hint = "Give an empty folder: heroes restore FILE --home FOLDER."
        raise Conflict(f"there is a platform in {home.folder} already", hint=hint)
    home.folder.mkdir(parents=True, exist_ok=True)
    told = Told()
    with tempfile.TemporaryDirectory(dir=home.folder, prefix=".restore-") as scratch:
        unpacked = Path(scratch)
        _unpack(source, unpacked, told)
        settings = load(unpacked / "heroes.toml")
        _place(unpacked, home)
        database = home.database(settings, pool_size=2)
        try:
            _fill(database, unpacked / "store", told)
            prove(database)
        finally:
            database.close()
        (unpacked / "heroes.toml").replace(home.settings_file)
    return told


def _unpack(source: Path, target: Path, told: Told) -> None:
    """Every member, its sum proved; nothing outside of `target`, and regular files only."""
    sums: dict[str, str] = {}
    with tarfile.open(source, "r:gz") as tar:
        for member in tar:
            path = (target / member.name).resolve()
            stream = tar.extractfile(member)
            if stream is None or not path.is_relative_to(target.resolve()):
                raise Corrupt(
                    f"{source} holds {member.name!r}, which is no file of a backup", hint="Use another backup."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            sums[member.name] = _copy(stream, path)
            told.objects += member.name.startswith("objects/")
    manifest = _manifest(source, target / "manifest.json")
    sums.pop("manifest.json", None)
    for name in sorted(sums.keys() | manifest.keys()):
        if sums.get(name) != manifest.get(name):
            raise Corrupt(f"{source} is damaged: {name} is not what was written", hint="Use another backup.")


def _manifest(source: Path, path: Path) -> dict[str, str]:
    try:
        told = json.loads(path.read_text())
        assert told["format"] == FORMAT
        return dict(told["sums"])
    except (OSError, ValueError, KeyError, AssertionError):
        raise Corrupt(f"{source} is not a whole backup of HEROES", hint="Use another backup.") from None


def _copy(stream: IO[bytes], path: Path) -> str:
    whole = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := stream.read(1 << 20):
            whole.update(chunk)
            file.write(chunk)
    return whole.hexdigest()


def _place(unpacked: Path, home: Home) -> None:
    """Put objects and secrets where they belong."""
    for each in (home.objects, home.store_file.parent):
        each.mkdir(mode=0o700, exist_ok=True)
    for name, target in (
        ("objects", home.objects / "objects"),
        ("keys", home.objects / "keys"),
        ("secrets", home.folder / "secrets"),
    ):
        if (unpacked / name).is_dir():
            (unpacked / name).chmod(0o700)
            (unpacked / name).rename(target)
    for key in (home.objects / "keys").glob("platform.*.json"):
        _rooted(key, home)


def _rooted(key: Path, home: Home) -> None:
    """The embedded server's keys name the folder that they open, which may be another one now."""
    content = json.loads(key.read_text())
    content["_root"] = str(home.objects / "objects" / key.stem.removeprefix("platform."))
    key.write_text(json.dumps(content))


def _fill(database: Database, folder: Path, told: Told) -> None:
    tables = migrate.load_tables().sorted_tables
    migrate.upgrade(database)
    with database.engine.connect() as connection, connection.begin():
        for table in tables:
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                raise Conflict(f"the database is not empty: there are rows in {table.name}", hint="Name an empty one.")
        for table in tables:
            told.rows += _load(connection, table, folder / f"{table.name}.jsonl")
        if database.dialect == "postgresql":
            _set_sequences(connection, tables)
    told.tables = len(tables)


def _load(connection: sa.Connection, table: sa.Table, path: Path) -> int:
    if not path.exists():
        return 0
    names = [column.name for column in table.columns]
    raw = sa.table(
        table.name, *(sa.column(name, _plain(column)) for name, column in zip(names, table.columns, strict=True))
    )
    count = 0
    for rows in _batches(path):
        connection.execute(sa.insert(raw), [dict(zip(names, row, strict=True)) for row in rows])
        count += len(rows)
    return count


def _batches(path: Path) -> Iterator[list[list[Any]]]:
    batch: list[list[Any]] = []
    with path.open() as file:
        for line in file:
            batch.append([_in(value) for value in json.loads(line)])
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _set_sequences(connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """PostgreSQL's sequences go on after the highest number that was restored."""
    for table in tables:
        for column in table.primary_key.columns:
            sequence = connection.execute(
                sa.text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
            ).scalar_one()
            if sequence:
                highest = sa.select(sa.func.coalesce(sa.func.max(column), 0) + 1).scalar_subquery()
                connection.execute(sa.select(sa.func.setval(sequence, highest, False)))


# -------------------------------------------------------------------------------------------------------------- verify


def prove(database: Database) -> Proof:
    """Prove every audit chain and the ledger. ChainBroken and LedgerImbalance name what is wrong."""
    with database.read() as work:
        names = [row[0] for row in work.execute(sa.select(audit_head.c.organisation))]
        chains = {name: audit.verify(work.connection, database.audit_key, name) for name in names}
        ledger = books.verify(work)
    if not ledger.sound:
        told = f"overdraft {ledger.overdraft}, imbalance {ledger.imbalance}, difference {ledger.difference} micro-units"
        raise LedgerImbalance(f"the ledger does not balance: {told}", hint="Compare with the last backup.")
    return Proof(chains, ledger)


def verify(home: Home, settings: Settings) -> Proof:
    """Prove a platform's store, running or not."""
    database = home.database(settings, pool_size=2)
    try:
        return prove(database)
    finally:
        database.close()


def verify_file(source: Path) -> Proof:
    """Prove a backup by restoring it into a scratch folder and a SQLite store, whatever its platform uses."""
    with tempfile.TemporaryDirectory() as scratch:
        unpacked, told = Path(scratch) / "unpacked", Told()
        unpacked.mkdir()
        _unpack(source, unpacked, told)
        key = bytes.fromhex((unpacked / "secrets" / "audit").read_text())
        database = Database(f"sqlite:///{scratch}/store.sqlite", audit_key=key)
        try:
            _fill(database, unpacked / "store", told)
            return prove(database)
        finally:
            database.close()
