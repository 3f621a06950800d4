"""What the engine's process does beside following clusters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from heroes.api.errors import LinkDown
from heroes_clusters.enrolment import Enrolments
from heroes_clusters.keys import Vault
from heroes_core.store import idempotency, outbox
from heroes_core.work import Database
from heroes_hub import engine
from heroes_hub.engine import Chores, subscribers
from heroes_hub.home import Home
from tests.conftest import StillClock


class Probing(Enrolments):
    """Counts its steps; the first fails, the second ends the chores."""

    def __init__(self, database: Database, stop: threading.Event) -> None:
        super().__init__(database, Vault(b"x"))
        self.steps, self.stop = 0, stop

    def step(self) -> int:
        self.steps += 1
        if self.steps == 1:
            raise LinkDown("the first centre is away")
        self.stop.set()
        return 0


def test_trouble_of_one_chore_keeps_none_from_being_done(sqlite: Database, home: Home, clock: StillClock) -> None:
    """A probe that fails is logged, and goes on; meanwhile news is handed over and old answers are forgotten."""
    with sqlite.write() as work:
        row = {"organisation": "acme", "user": "emma", "operation": "x", "key": "k", "asked": "a", "answer": "{}"}
        work.execute(sa.insert(idempotency).values(**row, at=work.now))
        work.emit("nobody.cares", "acme", "x")
    clock.advance(timedelta(days=8).total_seconds())
    stop = threading.Event()
    probing = Probing(sqlite, stop)
    chores = Chores(home, sqlite, probing)
    chores.probe(stop)
    assert probing.steps == 2
    stop.clear()
    thread = threading.Thread(target=chores.run, args=(stop,))
    thread.start()
    wait_until(lambda: empty(sqlite))
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def empty(sqlite: Database) -> bool:
    with sqlite.read() as work:
        return all(work.execute(sa.select(table).limit(1)).first() is None for table in (idempotency, outbox))


def test_modules_are_heard() -> None:
    """Every subscription of an installed module is in the table of the dispatcher."""
    assert all(callable(each) for found in subscribers().values() for each in found)


@pytest.mark.parametrize(("died", "status"), [(True, 1), (False, 0)])
def test_the_process_goes_at_once_when_its_engine_has_ended(
    monkeypatch: pytest.MonkeyPatch, home: Home, *, died: bool, status: int
) -> None:
    """Also after a cluster's thread died, whatever transfer is still under way: the supervisor starts a fresh one."""

    class Ended:
        def __init__(self, *, dies: bool = False) -> None:
            self.dies = dies

        def start(self, _stop: threading.Event) -> None:
            pass

        def run(self, _stop: threading.Event) -> None:
            if self.dies:
                raise RuntimeError("the engine of alpha died; its log tells why")

    def leave(found: int) -> None:
        raise SystemExit(found)

    monkeypatch.setattr(engine, "folder_argument", lambda: home)
    monkeypatch.setattr(engine, "load", lambda _file: None)
    monkeypatch.setattr(engine, "build", lambda _home, _settings: (Ended(dies=died), Ended()))
    monkeypatch.setattr(engine.logs, "set_up", lambda _name: None)
    monkeypatch.setattr(engine.logging, "shutdown", lambda: None)
    monkeypatch.setattr(engine.signal, "signal", lambda *_: None)
    monkeypatch.setattr(engine.os, "_exit", leave)
    with pytest.raises(SystemExit) as left:
        engine.main()
    assert left.value.code == status
