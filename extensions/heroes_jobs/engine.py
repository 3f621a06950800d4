"""The engine: one thread for each cluster, each turn batched. Run by the supervisor, ended by an event.

A turn hears what people want, collects what slow calls brought, begins new ones, and polls when that is due: once a
second while things change, more and more rarely while they do not. The commands that a cluster gets in a minute do not
depend on how many jobs it has.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from heroes.api.errors import HeroesError, StoreBusy
from heroes.api.ids import new_ulid
from heroes_core.work import Database
from heroes_jobs import hearing, housekeeping, polling, staging, submitting
from heroes_jobs.clusters import Enrolled
from heroes_jobs.desk import Desk, EngineSettings, LeaseLost
from heroes_jobs.lanes import threads
from heroes_jobs.ports import Clusters, Mover, Sites
from heroes_jobs.rpc import Server
from heroes_jobs.states import Ending, Queued, StagingOut, Stopping, Submitting, Unsure, Waiting
from heroes_spawners.site import Chunk

#: What a thread of the engine does, given when to stop and what wakes it.
Serve = Callable[[threading.Event, threading.Event], None]
LOG = logging.getLogger("heroes.jobs")
#: How much longer each poll without news makes the next wait.
SLOWER = 1.5
#: How often to look for new clusters, and for nudges that no wake-up told of.
SCAN_S = 5.0
#: How often a cluster's queues and limits are read again.
FACTS_S = 60.0


@dataclass
class ClusterEngine:
    """The turns of one cluster."""

    desk: Desk
    interval_s: float = 0.0
    polled_at: float = 0.0
    housed_at: float = 0.0
    facts_at: float = 0.0
    ready: bool = False

    def turn(self) -> float:
        """Do what can be done now; seconds until the next turn at the latest."""
        try:
            return self._turn()
        except (StoreBusy, sa.exc.DBAPIError) as error:
            LOG.warning("the database does not answer: %s", error)
            self._drop()
            return 1.0
        except LeaseLost:
            self._drop()
            raise

    def _turn(self) -> float:
        """A turn while the database answers; a cluster that does not is left alone for a while."""
        desk = self.desk
        try:
            if not self._leased():
                return SCAN_S
            heard = hearing.hear(desk)
            collected = desk.lanes.collect()
            if desk.trouble:
                trouble, desk.trouble = desk.trouble, None
                raise trouble
            if not desk.breaker.may_ask(desk.now()):
                return min(desk.breaker.retry_at - desk.now() + 0.01, SCAN_S)
            more = self._reach(bool(heard or collected))
        except (StoreBusy, LeaseLost):
            raise
        except HeroesError as error:
            if not desk.breaker.failures:
                LOG.warning("%s: %s", desk.cluster, error)
            desk.unreached(error)
            self.polled_at = 0.0
            return min(max(desk.breaker.retry_at - desk.now(), 0.0) + 0.01, SCAN_S)
        return 0.0 if more else min(max(self.polled_at + self.interval_s - desk.now(), 0.0), SCAN_S)

    def _leased(self) -> bool:
        if self.desk.epoch:
            self.desk.renew(self.desk.settings.lease_s / 2)
            return True
        self.ready = False
        if not self.desk.lease():
            return False
        hearing.recover(self.desk)
        return True

    def _drop(self) -> None:
        self.desk.drop()
        self.ready = False

    def _reach(self, stirred: bool) -> bool:
        """Everything that needs the cluster; whether there is more to do at once."""
        desk = self.desk
        if desk.now() >= self.facts_at + FACTS_S:
            desk.facts, self.facts_at = desk.clusters.facts(desk.cluster), desk.now()
        if not self.ready:
            desk.ask("prepare", lambda: desk.site.prepare(desk.epoch))
            self.ready = True
        staging.stage_in(desk)
        more = submitting.submit(desk)
        if stirred:
            self.interval_s = min(self.interval_s, desk.settings.fastest_s)
        if desk.now() >= self.polled_at + self.interval_s:
            self._poll()
        staging.deliver(desk)
        if desk.now() >= self.housed_at + housekeeping.EVERY_S:
            self.housed_at = desk.now()  # before: what cannot be removed must not be tried at each turn
            if housekeeping.keep_house(desk):
                self.housed_at = 0.0
        return more

    def _poll(self) -> None:
        desk, settings = self.desk, self.desk.settings
        self.polled_at = desk.now()
        moved = polling.poll(desk)
        polling.follow_up(desk)
        if not desk.following:
            self.interval_s = settings.idle_s
        elif moved or self._expecting():
            self.interval_s = settings.fastest_s
        else:
            self.interval_s = min(max(self.interval_s, settings.fastest_s) * SLOWER, settings.slowest_s)

    def _expecting(self) -> bool:
        """Whether something is known to happen within seconds."""
        soon = self.desk.now() - 3 * self.desk.settings.slowest_s
        moving = (Submitting, StagingOut, Waiting)
        brief = (Unsure, Stopping, Ending)
        return any(
            isinstance(each.state, moving)
            or (isinstance(each.state, brief) and each.state.since > soon)
            or (isinstance(each.state, Queued) and not each.state.confirmed and each.state.since > soon)
            for each in self.desk.active()
        )


def _named(clusters: Clusters) -> list[str]:
    """The clusters to serve; none are added while the database does not answer."""
    try:
        return clusters.names()
    except (StoreBusy, sa.exc.DBAPIError) as error:
        LOG.warning("the database does not tell the clusters: %s", error)
        return []


def _give_back(desk: Desk) -> None:
    try:
        desk.give_back()
    except (HeroesError, sa.exc.DBAPIError) as error:
        LOG.warning("the lease of %s runs out by itself: %s", desk.cluster, error)


@dataclass
class Engine:
    """All clusters. `run` returns when told to stop, or when another engine took over on SQLite."""

    database: Database
    sites: Sites
    mover: Mover
    settings: EngineSettings = EngineSettings()
    clusters: Clusters | None = None
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _wakes: dict[str, threading.Event] = field(default_factory=dict)
    _died: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Serve every enrolled cluster until `stop` is set; then hand the leases back."""
        holder = f"{socket.gethostname()[:30]}-{new_ulid()}"
        clusters = self.clusters or Enrolled(self.database, self.settings.rules)
        self.database.waker.listen(self._wake_all)
        with self._answering():
            while not stop.is_set():
                for name in _named(clusters):
                    if name not in self._threads:
                        self._start(name, self._serve(name, clusters, holder), stop)
                stop.wait(SCAN_S)
            self._wake_all()
            for thread in self._threads.values():
                thread.join()
        if self._died:
            raise RuntimeError(f"the engine of {', '.join(self._died)} died; its log tells why")

    def _answering(self) -> Server:
        return Server(self.settings.address, self.settings.secret, {"tail": self._tail})

    def _start(
        self, name: str, serve: Callable[[threading.Event, threading.Event], None], stop: threading.Event
    ) -> None:
        wake = self._wakes[name] = threading.Event()
        self._threads[name] = threading.Thread(
            target=self._guarded, args=(name, serve, stop, wake), name=f"engine-{name}"
        )
        self._threads[name].start()

    def _wake_all(self) -> None:
        for wake in list(self._wakes.values()):
            wake.set()

    def _guarded(self, name: str, serve: Serve, stop: threading.Event, wake: threading.Event) -> None:
        well = False
        try:
            serve(stop, wake)
            well = True
        finally:
            if not well:  # the supervisor starts a fresh engine; a half-dead one would serve the others only
                self._died.append(name)
                stop.set()

    def _serve(self, name: str, clusters: Clusters, holder: str) -> Serve:
        def serve(stop: threading.Event, wake: threading.Event) -> None:
            executor = threads(name)
            desk = Desk(
                name, self.database, self.sites, self.mover, clusters, self.settings, holder, executor, wake.set
            )
            self._turns(ClusterEngine(desk), stop, wake)
            # a transfer may last for hours, and is begun anew by the next engine
            executor.shutdown(wait=False, cancel_futures=True)
            _give_back(desk)

        return serve

    def _turns(self, engine: ClusterEngine, stop: threading.Event, wake: threading.Event) -> None:
        while not stop.is_set():
            try:
                pause = engine.turn()
            except LeaseLost as error:
                LOG.warning("%s: %s", engine.desk.cluster, error)
                if self.database.dialect == "sqlite":
                    stop.set()
                pause = SCAN_S
            if pause > 0:
                wake.wait(pause)
            wake.clear()

    # -- what the API asks -------------------------------------------------------------------------------------------

    def _tail(self, cluster: str, key: str, stream: str, offset: int, limit: int) -> Chunk:
        return self.sites.open(cluster).tail(key, stream, offset, limit)
