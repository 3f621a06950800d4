"""The engine as a process: `python -m heroes_hub.engine FOLDER`. It follows clusters, probes the enrolled ones, hands
news upward, and keeps house."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import HeroesError
from heroes_clusters.enrolment import Enrolments
from heroes_clusters.keys import Vault
from heroes_clusters.sites import Sites
from heroes_core import logs, module
from heroes_core.outbox import Subscriber, dispatch
from heroes_core.work import Database
from heroes_data.disk import remove_unfinished
from heroes_data.staging import Mover
from heroes_decision import store as decisions
from heroes_hub.home import Home
from heroes_hub.platform import embedded_server, engine_address, folder_argument, object_store
from heroes_hub.settings import Settings, load
from heroes_identity import store as identities
from heroes_jobs.desk import EngineSettings
from heroes_jobs.engine import Engine
from heroes_spawners.machine.site import open_machine
from heroes_workflows import service as workflows

LOG = logging.getLogger("heroes.hub.engine")
#: Answers are kept this long for repeated requests.
ANSWERS = timedelta(days=7)
#: Decisions that nobody took, and failed sign-ins, are forgotten after so long.
UNUSED, GUESSES = timedelta(days=7), timedelta(days=1)
HOUSE_S = 3600.0


def subscribers() -> dict[str, list[Subscriber]]:
    """Who wants to hear of what: the subscriptions of every installed module."""
    found: dict[str, list[Subscriber]] = {}
    for each in module.installed_modules():
        for kind, subscriber in each.subscriptions.items():
            found.setdefault(kind, []).append(subscriber)
    return found


class Chores:
    """What is to be done beside following clusters: news and housekeeping in one thread, probes in another, since a
    canary may wait in a queue for minutes."""

    def __init__(self, home: Home, database: Database, enrolments: Enrolments) -> None:
        self._home, self._database, self._enrolments = home, database, enrolments
        self._subscribers = subscribers()
        self._housed = -HOUSE_S

    def start(self, stop: threading.Event) -> None:
        """Begin; both threads end with the process."""
        threading.Thread(target=self.run, args=(stop,), name="chores", daemon=True).start()
        threading.Thread(target=self.probe, args=(stop,), name="probes", daemon=True).start()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Trouble of one chore is logged and keeps no other from being done."""
        self._work(stop, (self._hand_over, self._keep_house))

    def probe(self, stop: threading.Event) -> None:
        """Probe the clusters that wait for it, until told to stop."""
        self._work(stop, (self._probe,))

    def _work(self, stop: threading.Event, chores: tuple[Callable[[], Any], ...]) -> None:
        while not stop.is_set():
            for chore in chores:
                _guarded(chore)
            if not stop.is_set():
                self._database.wait(2.0)

    def _hand_over(self) -> None:
        while dispatch(self._database, self._subscribers):
            pass

    def _probe(self) -> None:
        self._enrolments.step()

    def _keep_house(self) -> None:
        if time.monotonic() < self._housed + HOUSE_S:
            return
        self._housed = time.monotonic()
        with self._database.write() as work:
            module.forget_answers(work, work.now - ANSWERS)
            workflows.keep_house(work)
            decisions.forget(work, work.now - UNUSED)
            identities.forget_old_guessing(work, work.now - GUESSES)
        if self._home.objects.is_dir():
            remove_unfinished(self._home.objects)


def _guarded(chore: Callable[[], Any]) -> None:
    try:
        chore()
    except (HeroesError, OSError, sa.exc.SQLAlchemyError) as error:
        LOG.warning("%s failed: %s", chore.__name__.strip("_"), error)
        time.sleep(0.5)


def build(home: Home, settings: Settings) -> tuple[Engine, Chores]:
    """The engine and its chores, ready to run."""
    database = home.database(settings)
    vault = Vault(home.secret("accounts"))
    sites = Sites(database, vault, machine=lambda one: open_machine(Path(one.base), home.cache), cache=home.cache)
    mover = Mover(database, object_store(embedded_server(home, settings), settings))
    rules = EngineSettings(
        address=engine_address(home),
        secret=home.secret("engine"),
        idle_s=settings.engine.idle_s,
        slowest_s=settings.engine.slowest_s,
        keep_days=settings.engine.keep_days,
    )
    engine = Engine(database, sites, mover, rules)
    return engine, Chores(home, database, Enrolments(database, vault, cache=home.cache))


def main() -> int:
    """Run until told to stop."""
    home = folder_argument()
    logs.set_up("heroes-engine")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine, chores = build(home, load(home.settings_file))
    chores.start(stop)
    status = 0
    try:
        engine.run(stop)
    except RuntimeError as error:  # a transfer may last for hours: this process must go now, for a fresh one to come
        LOG.error("%s", error)
        status = 1
    LOG.info("stopped")
    logging.shutdown()
    os._exit(status)  # threads that wait for news or sites hold nothing that must be given back


if __name__ == "__main__":
    sys.exit(main())
