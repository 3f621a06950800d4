"""The engine when something around it fails: the database, the disk of a site, what a site answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api.errors import LinkDown, StoreBusy, Unavailable
from heroes_core.work import Database
from heroes_jobs import housekeeping, store
from heroes_jobs.desk import EngineSettings
from heroes_jobs.engine import Engine
from heroes_jobs.model import Phase
from heroes_spawners.site import CANARY, Job, Shape, State, Submission
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.unit.jobs.world import FakeClusters, FakeMover, OneSite, World, spec, world


@pytest.fixture
def here(sqlite: Database) -> World:
    """A world whose jobs run for five seconds."""
    clock = FakeClock()
    return world(sqlite, clock, FakeSite(clock, lambda _job: Outcome(5.0), start_delay_s=0.5))


def full_disk(*_: Any) -> Any:
    """What a site raises whose disk is full: the same class as a database that is busy."""
    raise StoreBusy("the site cannot write its files", hint="Free space.", detail={"site": True})


def test_a_full_disk_at_a_site_is_not_taken_for_the_database(here: World) -> None:
    """The engine keeps its lease and what it follows, and leaves the site alone for a while."""
    [key] = here.submit(spec())
    here.turn()
    desk = here.engine.desk
    epoch = desk.epoch
    here.site.poll = full_disk
    here.turn(1)
    assert (desk.epoch, list(desk.following), desk.breaker.failures) == (epoch, [key], 1)
    assert "cannot write its files" in desk.breaker.trouble
    desk.fail(StoreBusy("full", hint=""))
    assert type(desk.trouble) is Unavailable


def test_folders_that_cannot_be_removed_are_tried_once_an_hour(here: World) -> None:
    """A removal that fails does not make every turn of the engine begin with it."""
    here.submit(spec())
    here.run()
    asked: list[Sequence[str]] = []

    def refuse(keys: Sequence[str], _epoch: int) -> None:
        asked.append(keys)
        full_disk()

    here.site.remove = refuse
    here.clock.sleep(15 * 86400)
    for _ in range(5):
        here.turn(10)
    assert len(asked) == 1
    here.turn(housekeeping.EVERY_S)
    assert len(asked) == 2


def test_what_is_due_is_removed_at_once_however_much_it_is(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than fits into one call is removed turn by turn, not hour by hour."""
    monkeypatch.setattr(housekeeping, "TOGETHER", 2)
    keys = here.submit(*(spec(index=index) for index in range(5)))
    here.run()
    here.clock.sleep(15 * 86400)
    for _ in range(4):
        here.turn(1)
    assert [here.row(key).cleaned for key in keys] == [1] * 5


def test_a_database_that_fails_while_a_cluster_is_silent_does_not_end_the_engine(here: World) -> None:
    """Both may fail at once: the engine forgets, and begins anew when the database answers."""
    [key] = here.submit(spec())
    here.turn()
    here.site.cut_link()

    def busy(_error: Any) -> None:
        raise StoreBusy("The database is busy.", hint="")

    here.engine.desk.unreached = busy  # type: ignore[method-assign]
    here.engine.polled_at = 0.0
    assert here.engine.turn() == 1.0
    assert here.engine.desk.epoch == 0
    here.restart()
    here.site.restore_link()
    here.run()
    assert here.row(key).status == Phase.DONE


class Forgetful(FakeClusters):
    """Clusters of a database that does not answer the first question."""

    asked = 0

    def names(self) -> list[str]:
        self.asked += 1
        if self.asked == 1:
            raise sa.exc.OperationalError("SELECT", {}, Exception("the server closed the connection"))
        raise KeyboardInterrupt


def test_an_engine_outlives_a_database_that_does_not_tell_the_clusters(sqlite: Database, tmp_path: Path) -> None:
    """It asks again later instead of leaving threads without a head."""
    clusters = Forgetful()
    site = OneSite(FakeSite(FakeClock()))
    engine = Engine(sqlite, site, FakeMover(), EngineSettings(f"unix:{tmp_path}/e.sock", b"s"), clusters)

    class Once(threading.Event):
        def wait(self, _timeout: float | None = None) -> bool:
            return False

    with pytest.raises(KeyboardInterrupt):
        engine.run(Once())
    assert clusters.asked == 2


def test_forgetting_stories_tells_how_many(sqlite: Database) -> None:
    """So that the caller knows whether more may be due."""
    here = world(sqlite, FakeClock())
    here.submit(spec())
    here.run()
    with sqlite.write() as work:
        assert store.forget_stories(work, work.now, 1) == 1


def test_a_link_that_is_cut_is_told_as_such(here: World) -> None:
    """Only the disk's word is translated."""
    desk = here.engine.desk
    desk.fail(LinkDown("gone", hint=""))
    assert type(desk.trouble) is LinkDown


def test_a_probe_of_a_cluster_in_use_keeps_its_canaries(here: World) -> None:
    """They stand in no book, and are no strangers; what only pretends to be one is, once no probe lasts that long."""
    canary = CANARY + "NDEKTSV4RRFFQ69G"
    here.site._run = lambda _job: Outcome(7200.0)
    here.site.submit([Submission(Job(canary, "cpu", Shape(walltime_s=9000), ("x",)))], 1)
    for _ in range(4):
        here.turn(10)
    assert here.site._jobs[0].state is State.RUNNING
    here.turn(1800)
    here.turn(10)
    assert here.site._jobs[0].state is State.CANCELLED
