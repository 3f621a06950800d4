"""What every test may ask for: a clock that stands still, a database (on SQLite and on PostgreSQL)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import pytest

from heroes_core.migrate import upgrade
from heroes_core.work import Database
from tests.lab import postgres
from tests.lab.fixtures import lab

hypothesis.settings.register_profile(
    "here",
    deadline=None,
    print_blob=True,
    # The same examples each time under CI, where a failure must mean that this change broke something.
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("here")
__all__ = ["lab"]
AUDIT_KEY = b"a key for tests, of 32 bytes or so"


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self, at: datetime = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)) -> None:
        self.at = at

    def now(self) -> datetime:
        """The time it was set to."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> StillClock:
    """A clock that stands still."""
    return StillClock()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table, to copy."""
    path = tmp_path_factory.mktemp("template") / "store.sqlite"
    _migrate(f"sqlite:///{path}")
    return path


def _migrate(url: str) -> None:
    database = Database(url, audit_key=AUDIT_KEY)
    upgrade(database)
    database.close()


@pytest.fixture
def sqlite_url(sqlite_template: Path) -> Iterator[str]:
    """The address of a fresh SQLite database, in memory where the system has such a folder: each commit is synced."""
    folder = Path(tempfile.mkdtemp(prefix="heroes-sqlite-", dir=postgres.quick_folder()))
    shutil.copy(sqlite_template, folder / "store.sqlite")
    yield f"sqlite:///{folder}/store.sqlite"
    shutil.rmtree(folder)


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The address of a fresh PostgreSQL database."""
    server = postgres.server()
    server.template("migrated", _migrate)
    url = server.fresh_database("migrated")
    yield url
    server.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, clock: StillClock) -> Iterator[Database]:
    """A fresh database with every table, once on each kind; its clock stands still."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    opened = Database(url, audit_key=AUDIT_KEY, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(sqlite_url: str, clock: StillClock) -> Iterator[Database]:
    """A fresh SQLite database with every table, for tests in which the kind does not matter."""
    opened = Database(sqlite_url, audit_key=AUDIT_KEY, clock=clock)
    yield opened
    opened.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under CI nothing may be skipped: a skip mark is taken for a failure there (see `pytest_runtest_makereport`)."""
    for item in items:
        if "lab" in item.fixturenames:
            item.add_marker("lab")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that skips itself under CI has failed."""
    outcome: Callable[..., pytest.TestReport] = yield  # type: ignore[misc]
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
