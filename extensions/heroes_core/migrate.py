"""Bring a database to the tables of this version: one chain of Alembic migrations for all modules.

`python -m heroes_core.migrate "Make every table"` writes the migration from the last version to the tables of today.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from heroes_core.store import metadata
from heroes_core.work import Database

_HERE = Path(__file__).parent / "migrations"


def load_tables() -> sa.MetaData:
    """The metadata with the tables of every installed module in it."""
    for entry in entry_points(group="heroes.modules"):
        package = entry.value.partition(".")[0]
        import_module(f"{package}.store")
    return metadata


def upgrade(database: Database) -> None:
    """Apply every migration that the database lacks; nothing when it is up to date."""
    with database.engine.connect() as connection:
        command.upgrade(_config(connection), "head")


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def write(message: str) -> None:
    """Write the migration that is missing, against a fresh database that has all others."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"none")
        upgrade(database)
        with database.engine.connect() as connection:
            command.revision(_config(connection), message, autogenerate=True, rev_id=f"{_count() + 1:04d}")
        database.close()


def _count() -> int:
    return len(list((_HERE / "versions").glob("[0-9]*.py")))


if __name__ == "__main__":
    write(sys.argv[1])
