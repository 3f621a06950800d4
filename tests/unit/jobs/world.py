"""A platform in one thread: a real database, the real engine, a cluster in memory, a clock that moves when told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import HeroesError, NotFound
from heroes.api.units import Money, PriceModel
from heroes_budget import counters
from heroes_budget.model import ORGANISATION
from heroes_budget.store import ledger_account, ledger_credit
from heroes_core.work import Database, Work
from heroes_data.model import Moved, ObjectRef, SealedFolder, StagedPath
from heroes_jobs import service, store
from heroes_jobs.desk import Desk, EngineSettings
from heroes_jobs.engine import ClusterEngine
from heroes_jobs.lanes import AtOnce
from heroes_jobs.model import AttemptNews, JobSpec, Reservation, Rules
from heroes_jobs.ports import ClusterFacts, QueueFacts
from heroes_spawners.site import Shape, Site
from heroes_spawners.testing import FakeClock, FakeSite

#: The waits of a lab: short, so that faults are over soon.
QUICK = Rules(
    unsure_s=12, gap_s=4, ask_s=2, reclaim_s=2, tentative_s=4, relist_s=12, silent_s=60, limit_s=3, storage_s=4,
    cancel_s=6,
)  # fmt: skip
PRICE = PriceModel(per_core_hour="3.6", currency="EUR")


@dataclass
class OneSite:
    """Opens one and the same site, whatever its name."""

    site: Site

    def open(self, _cluster: str) -> Site:
        return self.site


@dataclass
class FakeMover:
    """Notes what it is asked to move. `missing`: keys that do not exist. `trouble`: raised by the next calls."""

    missing: set[str] = field(default_factory=set)
    trouble: list[HeroesError] = field(default_factory=list)
    staged: list[ObjectRef] = field(default_factory=list)
    delivered: list[SealedFolder] = field(default_factory=list)
    calls: int = 0

    def stage_in(
        self,
        _site: Site,
        _cluster: str,
        organisation: str,
        user: str,
        objects: Sequence[ObjectRef],
        *,
        epoch: int | None = None,
    ) -> Moved:
        self._called()
        for each in objects:
            if each.key in self.missing:
                raise NotFound(f"there is no object {each.bucket}/{each.key}", hint="Upload it first.")
        self.staged += objects
        paths = tuple(StagedPath(ref, f"data/{organisation}/{user}/{ref.bucket}/{ref.key}") for ref in objects)
        return Moved(100 * len(objects), 0.1, paths)

    def stage_out(
        self, _site: Site, _cluster: str, _organisation: str, _user: str, sealed: Sequence[SealedFolder]
    ) -> Moved:
        self._called()
        self.delivered += sealed
        return Moved(sum(file.size for folder in sealed for file in folder.files), 0.1)

    def _called(self) -> None:
        self.calls += 1
        if self.trouble:
            raise self.trouble.pop(0)


@dataclass
class FakeClusters:
    """One cluster with one queue, its limits as given."""

    queues: Mapping[str, QueueFacts] = field(default_factory=lambda: {"cpu": QueueFacts("cpu")})
    rules: Rules = QUICK
    closed: str = ""
    told: list[tuple[datetime | None, str]] = field(default_factory=list)

    def names(self) -> list[str]:
        return ["alpha"]

    def facts(self, cluster: str) -> ClusterFacts:
        return ClusterFacts(cluster, "centre", self.queues, self.rules, self.closed)

    def reached(self, _cluster: str, unreachable_since: datetime | None, trouble: str) -> None:
        self.told.append((unreachable_since, trouble))


@dataclass
class World:
    """Everything of one test."""

    database: Database
    clock: FakeClock
    site: Any
    mover: FakeMover = field(default_factory=FakeMover)
    clusters: FakeClusters = field(default_factory=FakeClusters)
    settings: EngineSettings = EngineSettings(fastest_s=1.0, slowest_s=4.0, idle_s=5.0)
    engine: ClusterEngine = field(init=False)
    news: list[AttemptNews] = field(default_factory=list)
    engines: int = 0
    cluster: str = "alpha"

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Another engine process, as after a kill: nothing of the old one's memory is left."""
        self.engines += 1
        desk = Desk(
            self.cluster, self.database, OneSite(self.site), self.mover, self.clusters, self.settings,
            f"engine-{self.engines}", AtOnce(), chance=lambda: 0.5,
        )  # fmt: skip
        self.engine = ClusterEngine(desk)

    @contextmanager
    def listening(self) -> Iterator[list[AttemptNews]]:
        """Collect what hooks are told."""

        def hook(_work: Work, told: AttemptNews) -> None:
            self.news.append(told)

        service.register(hook)
        try:
            yield self.news
        finally:
            service.unregister(hook)

    def submit(self, *specs: JobSpec) -> list[str]:
        """Create and start one attempt for each spec."""
        with self.database.write() as work:
            keys = [service.create(work, spec, held(spec)) for spec in specs]
            service.start(work, keys)
        return keys

    def cancel(self, *keys: str) -> list[str]:
        """Cancel, as ann."""
        with self.database.write() as work:
            return service.cancel(work, keys, "ann@acme")

    def run(self, until: Callable[[], bool] | None = None, seconds: float = 600.0) -> None:
        """Turns, the clock moving on between them, until the condition holds (or all ended)."""
        until = until or self.over
        for _ in range(2000):
            pause = self.engine.turn()
            if until():
                return
            if pause > 0:
                self.clock.sleep(max(min(pause, seconds), 0.05))
                seconds -= pause
            assert seconds > 0, f"still not: {self.told()}"

    def turn(self, seconds: float = 0.0) -> None:
        """One turn after `seconds`, polling for sure."""
        self.clock.sleep(seconds)
        self.engine.polled_at = 0.0
        self.engine.turn()

    def over(self) -> bool:
        """Whether nothing is left to follow."""
        with self.database.read() as work:
            return not store.live(work, self.cluster) and not store.nudged(work, self.cluster)

    def row(self, key: str) -> Any:
        """The row of an attempt."""
        with self.database.read() as work:
            return store.find(work, [key])[0]

    def told(self) -> list[str]:
        """Every live attempt with its story, for the message of a failure."""
        with self.database.read() as work:
            rows = store.live(work, self.cluster)
            return [f"{row.key} {row.state} " + "; ".join(t.text for t in store.told(work, row.key)) for row in rows]

    def story(self, key: str) -> str:
        """The story of an attempt as text."""
        with self.database.read() as work:
            return "; ".join(each.text for each in store.told(work, key))


def spec(**changes: Any) -> JobSpec:
    """A step of acme's ann on alpha/cpu."""
    base = JobSpec(
        organisation="acme", user="ann", instance="01RUN", step="solve", cluster="alpha", queue="cpu", argv=("true",),
        shape=Shape(walltime_s=60), output_bucket="ann", output_prefix="runs/01RUN/solve/0",
    )  # fmt: skip
    changed = replace(base, **changes)
    if "index" in changes and "output_prefix" not in changes:
        changed = replace(changed, output_prefix=f"runs/01RUN/solve/{changes['index']}")
    return changed


def held(_spec: JobSpec) -> Reservation:
    """A reservation of 1 EUR at 3.6 EUR per core hour: 1,000 micro-units a core-second."""
    return Reservation("centre", Money(micros=1_000_000), PRICE)


def fund(database: Database, *organisations: str) -> None:
    """A million EUR of credit for each, as `budget.credit` enters it."""
    with database.write() as work:
        for name in organisations:
            counters.open_account(work, name, "EUR")
            mine = sa.and_(ledger_account.c.organisation == name, ledger_account.c.id == ORGANISATION)
            work.execute(sa.update(ledger_account).where(mine).values(ceiling=10**12))
            row = {"id": f"credit-{name}", "organisation": name, "amount": 10**12, "at": work.now}
            work.execute(sa.insert(ledger_credit).values(**row, currency="EUR", actor="test", reason="test"))


def world(database: Database, clock: FakeClock, site: Any = None, **changes: Any) -> World:
    """A world on `database`, whose clock is set to `clock`."""
    database.clock = clock
    with database.read() as work:
        fresh = work.execute(sa.select(ledger_credit.c.id)).first() is None
    if fresh:
        fund(database, "acme", "zeta")
    return World(database, clock, site or FakeSite(clock, start_delay_s=0.5), **changes)
