"""The migrations make exactly what the modules declare, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from heroes_core.migrate import load_tables, upgrade
from heroes_core.work import Database
from tests.conftest import AUDIT_KEY
from tests.lab import postgres

_SQLITE_EXTRAS = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
_POSTGRES_EXTRAS = """
SELECT p.proname AS name, p.prosrc AS sql FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'public'
UNION ALL SELECT t.tgname, pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT t.tgisinternal ORDER BY 1
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    """Two databases with nothing in them."""
    if request.param == "sqlite":
        urls = [f"sqlite:///{tmp_path_factory.mktemp('empty')}/store.sqlite" for _ in range(2)]
    else:
        urls = [postgres.fresh_database() for _ in range(2)]
    opened = [Database(url, audit_key=AUDIT_KEY) for url in urls]
    yield opened
    for each in opened:
        each.close()


def extras(database: Database) -> list[tuple[str, str]]:
    """Triggers and functions, with their text."""
    query = _SQLITE_EXTRAS if database.dialect == "sqlite" else _POSTGRES_EXTRAS
    with database.engine.connect() as connection:
        return [(row.name, " ".join(row.sql.split())) for row in connection.execute(sa.text(query))]


def test_migrations_make_what_is_declared(empty: list[Database]) -> None:
    """Tables, columns and indexes agree, and so do triggers and functions; a second upgrade changes nothing."""
    migrated, declared = empty
    upgrade(migrated)
    upgrade(migrated)
    load_tables().create_all(declared.engine)
    with migrated.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), load_tables())
    assert differences == []
    assert extras(migrated) == extras(declared)
    assert len(extras(migrated)) >= 2
