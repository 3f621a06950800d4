"""A person and the engine at the same run at the same time, on a database that lets both begin."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from heroes.api import workflows as api
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


class Crossing:
    """Lets the engine hold its attempts and a cancellation its run, before each wants what the other holds."""

    def __init__(self) -> None:
        self.engine, self.person = threading.Event(), threading.Event()
        self._cancel = jobs.cancel

    def hook(self, _work: Work, news: AttemptNews) -> None:
        """In the engine's transaction, before the run hears of it; the first time only."""
        if news.phase is Phase.RUNNING and not self.engine.is_set():
            self.engine.set()
            assert self.person.wait(PATIENCE_S)

    def cancel(self, *arguments: Any) -> list[str]:
        """In the person's transaction, after the run was changed."""
        self.person.set()
        return self._cancel(*arguments)


def test_a_cancellation_and_a_turn_that_wait_for_each_other_both_succeed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends one of two transactions that lock the run and its attempts crosswise: it is done again, nobody
    sees an error, and the money is right."""
    run = platform.submit("diamond")
    crossing = Crossing()
    monkeypatch.setattr(jobs, "cancel", crossing.cancel)
    monkeypatch.setattr(jobs, "_HOOKS", [crossing.hook, *jobs._HOOKS])
    with ThreadPoolExecutor(2) as threads:
        turns = threads.submit(platform.run, crossing.person.is_set)
        assert crossing.engine.wait(PATIENCE_S)
        answer = threads.submit(lambda: platform.ask(api.CANCEL, workflow_instance_id=run.id))
        turns.result(60)
        assert answer.result(60).reason in ("", "cancelled by alice@acme")
    platform.run()
    instance = platform.show(run.id).instance
    assert (instance.state, instance.reason) == ("cancelled", "cancelled by alice@acme")
    assert platform.standing() == (instance.cost.micros, 0)


def test_many_cancellations_while_the_engine_works(platform: Platform) -> None:
    """Ten runs cancelled by four threads under a working engine: each is cancelled, nothing stays reserved."""
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
