"""The engine when something around it fails: the database, the disk of a site, what a site answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api.errors import LinkDown, StoreBusy, Unavailable
from heroes.api.units import Money
from heroes_budget.model import ORGANISATION
from heroes_budget.store import ledger_account
from heroes_core.work import Database
from heroes_jobs import housekeeping, service, store
from heroes_jobs.desk import EngineSettings
from heroes_jobs.engine import Engine
from heroes_jobs.model import InputRef, Phase, Reservation
from heroes_jobs.settlement import enlarged
from heroes_spawners.site import CANARY, Declined, Job, Refusal, Shape, State, Submission
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.unit.jobs.world import PRICE, FakeClusters, FakeMover, OneSite, World, held, spec, world


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


def test_a_mistake_in_a_transfer_is_tried_again_and_ends_no_engine(here: World) -> None:
    """One attempt's inputs cannot end everybody's engine: told in its story, tried again, then all is well."""
    here.mover.trouble.append(KeyError("no such path"))  # type: ignore[arg-type]
    [key] = here.submit(spec(inputs=(InputRef("data", "ann", "in.csv"),)))
    here.run()
    assert here.row(key).status == Phase.DONE
    assert "stage_in at alpha failed: KeyError: 'no such path'" in here.story(key)


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


def allocating(here: World, cpus: int) -> None:
    """Let the site give every job so many CPUs, whatever it asked for."""
    plain = here.site._queued
    here.site._queued = lambda job: replace(plain(job), cpus=cpus, nodes=1)


def submit_held(here: World, cores: int) -> str:
    """An attempt whose reservation of 1 EUR per core counts on so many cores."""
    reservation = replace(held(spec()), lines={"core-hours": 1_000_000 * cores}, cores=cores, nodes=1)
    reservation = replace(reservation, amount=Money(micros=1_000_000 * cores))
    with here.database.write() as work:
        key = service.create(work, spec(), reservation)
        service.start(work, [key])
    return key


def test_what_is_allocated_beyond_the_reservation_is_reserved_too(database: Database) -> None:
    """A site that gives whole nodes where cores were asked for: the difference is reserved when the job starts, once,
    and the settlement is by what was allocated."""
    clock = FakeClock()
    here = world(database, clock, FakeSite(clock, lambda _job: Outcome(20.0), start_delay_s=0.5))
    allocating(here, 4)
    key = submit_held(here, 1)
    here.run(lambda: here.row(key).reservation_key != key)
    row = here.row(key)
    assert (row.reservation_key, service.reservation(row).amount.micros) == (f"{key}.2", 4_000_000)
    assert "allocated 4 CPUs on 1 nodes" in here.story(key)
    here.run()
    assert (here.row(key).status, here.row(key).reservation_key) == (Phase.DONE, f"{key}.2")
    assert here.row(key).cost == 20_000  # by the accounting, which says one core


def test_a_job_whose_allocation_cannot_be_paid_is_stopped(database: Database) -> None:
    """It fails with the reason, is charged no more than was reserved, and the budget is never overdrawn."""
    clock = FakeClock()
    here = world(database, clock, FakeSite(clock, lambda _job: Outcome(20.0), start_delay_s=0.5))
    allocating(here, 4)
    key = submit_held(here, 1)
    with database.write() as work:
        mine = sa.and_(ledger_account.c.organisation == "acme", ledger_account.c.id == ORGANISATION)
        work.execute(sa.update(ledger_account).where(mine).values(ceiling=2_000_000))
    here.run()
    row = here.row(key)
    assert (row.status, row.reservation_key) == (Phase.FAILED, key)
    assert "allocated 4 CPUs on 1 nodes, more than was reserved" in row.reason
    assert row.cost <= 1_000_000


@pytest.mark.parametrize(
    ("cpus", "nodes", "amount"), [(2, 1, 0), (1, 1, 0), (4, 1, 200), (2, 2, 120), (3, 2, 165), (0, 0, 0)]
)
def test_a_larger_allocation_costs_what_its_lines_say(cpus: int, nodes: int, amount: int) -> None:
    """Core hours grow with cores, node hours with nodes, what is moved with neither; less costs no less."""
    base = Reservation("centre", Money(micros=110), PRICE, {"core-hours": 90, "node-hours": 10, "gib-moved": 10})
    larger = enlarged(replace(base, cores=2, nodes=1), cpus, nodes)
    assert (larger.amount.micros if larger else 0) == amount
    assert enlarged(base, 100, 100) is None


def test_a_centre_that_takes_no_more_is_asked_ever_more_rarely(here: World) -> None:
    """A limit that lasts for hours costs one try now and then, not one of every job each few seconds; when it is lifted
    all are handed over."""
    here.site.declines += [Declined(Refusal.LIMIT, "QOSMaxSubmitJobPerUserLimit")] * 60
    keys = here.submit(*(spec(index=index) for index in range(30)))
    for _ in range(360):
        here.turn(10)

    def tries() -> int:
        with here.database.read() as work:
            return sum(len(store.submissions(work, key)) for key in keys)

    assert 30 < tries() <= 25 + 7 + 12  # a batch, then one job after 3, 6, ... and at last each 300 s
    here.site.declines.clear()
    assert here.engine.desk.admitted == {"cpu": 1}
    here.run(seconds=3600.0)
    assert {here.row(key).status for key in keys} == {Phase.DONE}
    assert tries() <= 25 + 7 + 12 + 30
    assert here.engine.desk.admitted == {}


def test_a_limit_on_our_own_jobs_is_tried_again_when_one_of_them_ends(here: World) -> None:
    """A centre that admits two jobs of ours at a time is kept busy with two, at few refusals for each."""
    plain = here.site._submit_one

    def limited(submission: Submission, orphan_s: float | None) -> Any:
        live = [job for job in here.site._jobs if job.state in (State.PENDING, State.RUNNING)]
        return Declined(Refusal.LIMIT, "QOSMaxSubmitJobPerUserLimit") if len(live) >= 2 else plain(submission, orphan_s)

    here.site._submit_one = limited
    keys = here.submit(*(spec(index=index) for index in range(12)))
    began = here.clock.now()
    here.run(seconds=3600.0)
    assert {here.row(key).status for key in keys} == {Phase.DONE}
    assert (here.clock.now() - began).total_seconds() < 120
    with here.database.read() as work:
        assert sum(len(store.submissions(work, key)) for key in keys) < 12 * 4
