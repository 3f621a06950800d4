"""The engine with its threads, in real time, and the operations that ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heroes.api import jobs as api
from heroes.api.errors import NotFound, Unavailable
from heroes_core.clock import SystemClock
from heroes_core.module import Call, Services
from heroes_core.work import Caller, Database
from heroes_data.disk import DiskStore
from heroes_data.ports import ObjectStore
from heroes_jobs import handlers, service, store
from heroes_jobs.desk import EngineSettings
from heroes_jobs.engine import Engine
from heroes_jobs.lanes import AtOnce, Lanes, threads
from heroes_jobs.model import Phase, Rules
from heroes_jobs.rpc import Engines
from heroes_spawners.site import Chunk
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.objects import disk_store
from tests.unit.jobs.world import FakeClusters, FakeMover, OneSite, World, held, spec, world

ANN = Caller("acme", "ann", frozenset({"submit"}))
OPERATOR = Caller("heroes", "ops", frozenset({"platform:operate"}), platform=True)
SECRET = b"shared"


def wait_for(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it did."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def serving(engine: Engine) -> Iterator[threading.Event]:
    """The engine at work in a thread, stopped at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=engine.run, args=(stop,))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        engine._wake_all()
        thread.join(20)
        assert not thread.is_alive()


def engine_of(database: Database, tmp_path: Path, outcome: Outcome) -> Engine:
    """An engine on a cluster in memory whose clock is the real one."""
    site = FakeSite(SystemClock(), lambda _job: outcome, start_delay_s=0.05)  # type: ignore[arg-type]
    settings = EngineSettings(f"unix:{tmp_path}/e.sock", SECRET, fastest_s=0.1, slowest_s=0.5, idle_s=0.5)
    return Engine(database, OneSite(site), FakeMover(), settings, FakeClusters(rules=Rules(tentative_s=1)))


def test_the_engine_runs_what_is_submitted_while_it_serves(database: Database, tmp_path: Path) -> None:
    """Woken by the commit, it runs the attempt to its end, hands out its log, and gives the lease back when stopped."""
    here = world(database, FakeClock())
    database.clock = SystemClock()
    engine = engine_of(database, tmp_path, Outcome(0.2, stdout=b"hello\n"))
    with serving(engine):
        [key] = here.submit(spec())
        wait_for(lambda: here.row(key).status == Phase.DONE)
        call = Call(ANN, database, Services(Engines(SECRET)))
        part = handlers.log(call, api.ReadLog(instance="01RUN", step="solve", limit=4))
        assert (part.text, part.next_offset, part.ended) == ("hell", 4, True)
    with database.write() as work:
        assert store.take_lease(work, "alpha", "another", "", 60) == 2


def test_an_engine_whose_thread_dies_ends_as_a_whole(sqlite: Database, tmp_path: Path) -> None:
    """A mistake of the program ends the process, so that the supervisor starts a fresh one."""
    world(sqlite, FakeClock())
    engine = engine_of(sqlite, tmp_path, Outcome(0.2))

    def broken(_cursor: str) -> Any:
        raise RuntimeError("a mistake")

    engine.sites.site.poll = broken  # type: ignore[attr-defined]
    silent = threading.excepthook
    threading.excepthook = lambda _arguments: None
    try:
        with pytest.raises(RuntimeError, match="the engine of alpha died"):
            engine.run(threading.Event())
    finally:
        threading.excepthook = silent


def test_lanes_carry_one_call_at_a_time_and_wake_when_it_ends() -> None:
    """A lane is busy until its call was collected; others are free meanwhile."""
    woken, ended = threading.Event(), []
    with threads("test", 2) as executor:
        lanes = Lanes(executor, woken.set)
        lanes.begin("a", lambda: 7, ended.append)
        assert not lanes.free("a")
        assert lanes.free("b")
        assert woken.wait(10)
        assert lanes.collect() == 1
        assert (ended, lanes.free("a"), len(lanes)) == ([7], True, 0)


def test_calls_made_at_once_tell_their_errors_when_collected() -> None:
    """In one thread an error of a call comes where its result would."""
    lanes = Lanes(AtOnce())
    lanes.begin("a", lambda: 1 // 0, lambda _answer: None)
    with pytest.raises(ZeroDivisionError):
        lanes.collect()


# ------------------------------------------------------------------------------------------------------- operations


@pytest.fixture
def here(sqlite: Database) -> World:
    """A world in which one attempt has ended and one was cancelled while held."""
    made = world(sqlite, FakeClock())
    made.submit(spec())
    made.run()
    return made


def call_of(here: World, caller: Caller, *services: object) -> Call:
    """A request of that caller."""
    return Call(caller, here.database, Services(*services))


def test_attempts_are_told_with_their_money(here: World) -> None:
    """The list names place, state, what was reserved and what was paid."""
    answer = handlers.attempts(call_of(here, ANN), api.ListAttempts(instance="01RUN"))
    [one] = answer.items
    assert (one.cluster, one.queue, one.status, one.reserved.micros) == ("alpha", "cpu", "done", 1_000_000)
    assert one.cost is not None
    assert one.cost.micros == 1000
    assert answer.next is None
    assert handlers.attempts(call_of(here, ANN), api.ListAttempts(instance="01RUN", limit=1)).next == one.key


def test_a_story_tells_everything_in_order(here: World) -> None:
    """What happened, and each try to hand it over."""
    [one] = handlers.attempts(call_of(here, ANN), api.ListAttempts(instance="01RUN")).items
    told = handlers.story(call_of(here, ANN), api.OneAttempt(key=one.key))
    assert [each.text for each in told.story][-1] == "done"
    assert [(each.number, each.answer, each.job_id) for each in told.submissions] == [(1, "accepted", "1")]
    with pytest.raises(NotFound):
        handlers.story(call_of(here, replace(ANN, user="bob")), api.OneAttempt(key=one.key))


def test_a_cluster_that_does_not_answer_is_told_with_the_attempt(here: World) -> None:
    """While a cluster is away, its live attempts say since when and that nothing is lost; ended ones do not."""
    here.site._run = lambda _job: Outcome(5.0)
    [key] = here.submit(spec(index=1))
    here.run(lambda: here.row(key).status == Phase.RUNNING)
    here.site.cut_link()
    here.run(lambda: bool(here.clusters.told))
    items = handlers.attempts(call_of(here, ANN), api.ListAttempts(instance="01RUN")).items
    told = {one.key: one.reason for one in items}
    assert "alpha has not been reachable since 2026-01-05" in told.pop(key)
    assert list(told.values()) == [""]


def test_a_log_before_submission_is_empty(here: World) -> None:
    """There is nothing to read of a step that was not submitted yet, and no engine is asked."""
    with here.database.write() as work:
        service.create(work, spec(step="later"), held(spec()))
    part = handlers.log(call_of(here, ANN), api.ReadLog(instance="01RUN", step="later"))
    assert (part.text, part.ended) == ("", False)


def stored(folder: Path, content: bytes) -> DiskStore:
    """An object store in which ann's run left that as its stdout."""
    objects = disk_store(folder)
    objects.make_bucket("acme", "ann")
    objects.put("acme", "ann", "runs/01RUN/solve/0/stdout.txt", [content])
    return objects


def reading(here: World, engines: Engines, objects: DiskStore) -> Call:
    """Ann's request in a process that can ask engines and read objects."""
    call = call_of(here, ANN)
    call.services.offer(Engines, engines)
    call.services.offer(ObjectStore, objects)  # type: ignore[type-abstract]
    return call


@pytest.mark.parametrize("gone", ["removed", "purged", "unreachable"])
def test_a_log_outlives_its_folder_at_the_site(here: World, tmp_path: Path, gone: str) -> None:
    """After the folder was removed, or purged by the centre, or while the engine is away, an ended step's log is what
    was delivered."""

    class Away(Engines):
        def tail(self, *_: Any) -> Chunk:
            assert gone != "removed", "nobody is asked for what is known to have gone"
            if gone == "unreachable":
                raise Unavailable("away", hint="")
            return Chunk(b"", 2)

    [one] = handlers.attempts(call_of(here, ANN), api.ListAttempts(instance="01RUN")).items
    if gone == "removed":
        with here.database.write() as work:
            store.mark_cleaned(work, [one.key])
    call = reading(here, Away(SECRET), stored(tmp_path, b"hello\n"))
    part = handlers.log(call, api.ReadLog(instance="01RUN", step="solve", offset=2, limit=3))
    assert (part.text, part.next_offset, part.ended) == ("llo", 5, True)
    end = handlers.log(call, api.ReadLog(instance="01RUN", step="solve", offset=6))
    assert (end.text, end.next_offset) == ("", 6)
    none = handlers.log(call, api.ReadLog(instance="01RUN", step="solve", stream="stderr"))
    assert (none.text, none.next_offset) == ("", 0)


def test_a_running_steps_log_is_not_guessed(here: World, tmp_path: Path) -> None:
    """While it runs only its cluster knows; an engine that is away is told so."""
    here.site._run = lambda _job: Outcome(500.0)
    [key] = here.submit(spec(index=1))
    here.run(lambda: here.row(key).status == Phase.RUNNING)
    call = reading(here, Engines(SECRET), stored(tmp_path, b"hello\n"))
    with pytest.raises(Unavailable):
        handlers.log(call, api.ReadLog(instance="01RUN", step="solve", index=1))


def test_a_resolution_is_taken_from_operators(here: World) -> None:
    """The operation hands the operator's word to the engine."""
    here.site.orphan_next_submit(10_000)
    [key] = here.submit(spec(index=1))
    here.turn()
    handlers.resolve(call_of(here, OPERATOR), api.Resolve(key=key, outcome="lost"))
    here.run()
    assert here.row(key).status == Phase.LOST


@pytest.mark.parametrize(
    ("data", "whole"),
    [("aé".encode()[:2], 1), ("aé".encode(), 3), ("ab€".encode()[:4], 2), (b"abc", 3), ("a😀".encode()[:4], 1),
     ("a😀".encode(), 5), (b"ab\x80\x80\x80\x80", 6)],
)  # fmt: skip
def test_parts_of_a_log_end_with_whole_characters(data: bytes, whole: int) -> None:
    """A character that is cut by the end of a part comes whole with the next one."""
    assert len(handlers._whole_characters(data)) == whole
