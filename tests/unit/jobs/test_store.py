"""Tables: leases and their epochs, nudges, what is kept of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from heroes_core.work import Database
from heroes_jobs import service, store
from heroes_jobs.model import Target
from heroes_spawners.testing import FakeClock
from tests.unit.jobs.world import World, held, spec, world


@pytest.fixture
def here(database: Database) -> World:
    """A world on each kind of database."""
    return world(database, FakeClock())


def in_work(here: World, call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `call` in a transaction of its own."""
    with here.database.write() as work:
        return call(work, *arguments)


def run_out(here: World) -> None:
    """Let every lease run out."""
    with here.database.write() as work:
        long_ago = store.database_time(work) - timedelta(hours=1)
        work.execute(sa.update(store.lease).values(until=long_ago))


def test_a_lease_is_held_by_one(here: World) -> None:
    """The first engine takes the lease at epoch 1; on PostgreSQL a second one waits until it has run out."""
    assert in_work(here, store.take_lease, "alpha", "one", "unix:/1", 60) == 1
    if here.database.dialect == "postgresql":
        assert in_work(here, store.take_lease, "alpha", "two", "unix:/2", 60) is None
        run_out(here)
    assert in_work(here, store.take_lease, "alpha", "two", "unix:/2", 60) == 2
    with here.database.read() as work:
        assert store.address(work, "alpha") == "unix:/2"


def test_an_old_epoch_writes_nothing(here: World) -> None:
    """Holding succeeds with the newest epoch only, and renews the lease."""
    in_work(here, store.take_lease, "alpha", "one", "", 60)
    assert in_work(here, store.hold, "alpha", "one", 1, 60) is True
    run_out(here)
    in_work(here, store.take_lease, "alpha", "two", "", 60)
    assert in_work(here, store.hold, "alpha", "one", 1, 60) is False
    assert in_work(here, store.hold, "alpha", "two", 2, 60) is True


def test_a_lease_given_back_is_free_at_once(here: World) -> None:
    """An engine that stops in peace lets the next one begin."""
    in_work(here, store.take_lease, "alpha", "one", "", 60)
    here.clock.sleep(1)
    in_work(here, store.give_lease_back, "alpha", "one", 1)
    assert in_work(here, store.take_lease, "alpha", "two", "", 60) == 2


def test_a_nudge_that_comes_meanwhile_is_not_lost(here: World) -> None:
    """Taking note of one nudge leaves a later one standing."""
    [key] = here.submit(spec())
    with here.database.write() as work:
        seen = store.nudged(work, "alpha")[0].nudged
    here.cancel(key)
    with here.database.write() as work:
        store.heard(work, [{"_key": key, "_nudged": seen}])
        assert [row.target for row in store.nudged(work, "alpha")] == [Target.CANCELLED]
        again = store.nudged(work, "alpha")[0].nudged
        store.heard(work, [{"_key": key, "_nudged": again}])
        assert store.nudged(work, "alpha") == []


def test_targets_move_one_way(here: World) -> None:
    """Only held attempts start, and each of them once."""
    with here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
        assert service.start(work, [key]) == [key]
        assert service.start(work, [key]) == []
    assert here.cancel(key) == [key]
    with here.database.write() as work:
        assert service.start(work, [key]) == []


def test_what_is_remembered_of_a_cluster(here: World) -> None:
    """The first memory is made, later ones change what they name."""
    in_work(here, lambda work: store.remember(work, "alpha", cursor="7", load={"cpu": [1, 2]}))
    in_work(here, lambda work: store.remember(work, "alpha", failures=3))
    with here.database.read() as work:
        row = store.watch(work, "alpha")
        assert row is not None
        assert (row.cursor, row.failures) == ("7", 3)
        assert service.load(work, "alpha") == {"cpu": (1, 2)}
        assert service.load(work, "beta") == {}


def test_many_keys_are_looked_up_in_parts(here: World) -> None:
    """More keys than a statement takes are found all the same."""
    [key] = here.submit(spec())
    with here.database.read() as work:
        assert store.known_keys(work, [*(f"K{index}" for index in range(1500)), key]) == {key: False}


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda work: store.live(work, "alpha"), "ix_attempt_live"),
        (lambda work: store.nudged(work, "alpha"), "ix_attempt_nudged"),
        (lambda work: store.clusters_in_use(work), "ix_attempt_live"),
        (lambda work: store.ended_before(work, "alpha", work.now, 10), "ix_attempt_ended"),
        (lambda work: store.provisional(work, "alpha", work.now, 10), "ix_attempt_final"),
        (lambda work: store.of_step(work, "acme", "01RUN", "solve", 0), "ix_attempt_instance"),
    ],
)
def test_what_each_turn_asks_is_found_by_an_index(sqlite: Database, call: Callable[[Any], Any], index: str) -> None:
    """However many attempts have ended, the questions of a turn look at those that matter only."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            rows = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[-1] for row in rows)

    sa.event.listen(sqlite.engine, "before_cursor_execute", explain)
    with sqlite.read() as work:
        call(work)
    assert any(index in plan for plan in plans), plans
    assert not any(plan.startswith("SCAN attempt") and "INDEX" not in plan for plan in plans), plans


def test_old_stories_are_forgotten(here: World) -> None:
    """What was told long ago goes, oldest first and so many at a time; the rest stays."""
    with here.database.write() as work:
        long_ago = work.now - timedelta(days=100)
        old = [{"key": "K", "at": long_ago, "status": "done", "text": f"{index}"} for index in range(5)]
        store.tell(work, [*old, {"key": "K", "at": work.now, "status": "done", "text": "new"}])
        store.forget_stories(work, work.now - timedelta(days=90), 3)
        assert [row.text for row in store.told(work, "K")] == ["3", "4", "new"]
        store.forget_stories(work, work.now - timedelta(days=90), 3)
        assert [row.text for row in store.told(work, "K")] == ["new"]


def test_submissions_are_remembered_once(here: World) -> None:
    """An intent that is written twice is one, with its answer."""
    with here.database.write() as work:
        store.intend(work, [("K", 1)])
        store.intend(work, [("K", 1), ("K", 2)])
        answer = {"_key": "K", "_number": 1, "_answer": "accepted", "_job_id": "9", "_text": ""}
        store.answered(work, [answer])
        found = [(row.number, row.answer, row.job_id) for row in store.submissions(work, "K")]
    assert found == [(1, "accepted", "9"), (2, "", "")]
