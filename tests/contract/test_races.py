"""A person and the engine at the same run at the same time, on a database that lets both begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api import workflows as api
from heroes.api.errors import StoreBusy
from heroes_core.work import Database, Work
from heroes_jobs import service as jobs
from heroes_jobs.model import AttemptNews, Phase
from tests.conftest import AUDIT_KEY
from tests.unit.workflows.platform import Platform
from tests.unit.workflows.test_runs import DIAMOND

PATIENCE_S = 20.0


@pytest.fixture
def platform(postgres_url: str) -> Iterator[Platform]:
    """A platform on PostgreSQL, where transactions overlap."""
    database = Database(postgres_url, audit_key=AUDIT_KEY)
    made = Platform(database)
    made.publish(DIAMOND)
    yield made
    database.close()


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that the database gave up a transaction."""
    told: list[str] = []
    made = StoreBusy.__init__

    def note(self: StoreBusy, message: str, **rest: Any) -> None:
        told.append(message)
        made(self, message, **rest)

    monkeypatch.setattr(StoreBusy, "__init__", note)
    return told


def somebody_waits(database: Database) -> bool:
    """Whether a transaction waits for a lock of another."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.engine.connect() as connection:
        return bool(connection.execute(query).scalar_one())


def test_a_cancellation_waits_for_a_turn_and_neither_is_given_up(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, busy: list[str]
) -> None:
    """While the engine's transaction holds the run's attempts a cancellation waits; both lock in one order, so that
    none is a victim, and the money is right."""
    run = platform.submit("diamond")
    engine, waited = threading.Event(), threading.Event()

    def hold(_work: Work, news: AttemptNews) -> None:
        if news.phase is Phase.RUNNING and not engine.is_set():
            engine.set()
            deadline = time.monotonic() + PATIENCE_S
            while not somebody_waits(platform.database) and time.monotonic() < deadline:
                time.sleep(0.01)
            waited.set()

    monkeypatch.setattr(jobs, "_HOOKS", [hold, *jobs._HOOKS])
    with ThreadPoolExecutor(2) as threads:
        turns = threads.submit(platform.run, waited.is_set)
        assert engine.wait(PATIENCE_S)
        answer = threads.submit(lambda: platform.ask(api.CANCEL, workflow_instance_id=run.id))
        turns.result(60)
        assert answer.result(60).reason in ("", "cancelled by alice@acme")
    platform.run()
    instance = platform.show(run.id).instance
    assert (instance.state, instance.reason) == ("cancelled", "cancelled by alice@acme")
    assert platform.standing() == (instance.cost.micros, 0)
    assert busy == []


def test_many_cancellations_while_the_engine_works(platform: Platform, busy: list[str]) -> None:
    """Ten runs cancelled by four threads under a working engine: each is cancelled, none is
    given up by the database, nothing stays reserved."""
    runs = [platform.submit("diamond").id for _ in range(10)]
    begun = threading.Event()

    def turns() -> None:
        platform.run(lambda: begun.set() or platform._over())  # type: ignore[func-returns-value]

    with ThreadPoolExecutor(5) as threads:
        engine = threads.submit(turns)
        assert begun.wait(PATIENCE_S)
        answers = list(threads.map(lambda run: platform.ask(api.CANCEL, workflow_instance_id=run), runs))
        engine.result(120)
    assert len(answers) == 10
    shown = [platform.show(run).instance for run in runs]
    assert {one.state for one in shown} == {"cancelled"}
    assert platform.standing() == (sum(one.cost.micros for one in shown), 0)
    assert busy == []
