"""What one cluster's engine works with: the attempts that it follows, its lease, its calls and its commits.

Every remote call and every commit passes here, and so does each named failpoint. Whatever goes wrong with a commit, the
memory is dropped and read anew: the database is the truth.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from heroes.api.errors import Conflict, HeroesError, StoreBusy, Unavailable
from heroes_core.failpoints import failpoint
from heroes_core.work import Database, Work, again
from heroes_jobs import closing, store
from heroes_jobs.breaker import Breaker
from heroes_jobs.events import Event
from heroes_jobs.following import Followed, instant
from heroes_jobs.lanes import Executor, Lanes
from heroes_jobs.model import Rules
from heroes_jobs.ports import ClusterFacts, Clusters, Mover, Sites
from heroes_spawners.site import Site

T = TypeVar("T")
LOG = logging.getLogger("heroes.jobs")
#: Attempts written in one transaction.
COMMIT = 200
_CALLS = ("prepare", "submit", "poll", "status", "accounting", "give_up", "cancel", "stage_in", "deliver", "remove")
_COMMITS = ("hear", "staged", "intent", "answers", "poll", "traces", "accounts", "stops", "delivered")
#: Every point at which a crash test may kill the engine.
FAILPOINTS = tuple(
    f"jobs.{kind}.{name}.{side}"
    for kind, names in (("call", _CALLS), ("commit", _COMMITS))
    for name in names
    for side in ("before", "after")
)
#: What a hook or a settlement may raise; it stops that one attempt, never the cluster.
_POISON = (HeroesError, sa.exc.SQLAlchemyError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError)


class LeaseLost(Conflict):
    """Another engine has this cluster now: nothing was written."""


def _of_site(error: HeroesError) -> HeroesError:
    """What a call to a site raised. A full disk there is no trouble of our own database, whose word for it is the same:
    that one makes the engine forget all and begin anew."""
    return Unavailable(error.message, hint=error.hint) if isinstance(error, StoreBusy) else error


@dataclass(frozen=True)
class EngineSettings:
    """How the engine works. Seconds, unless named otherwise."""

    #: Where questions are answered: "unix:<path>" or "tcp:<host>:<port>", and the secret that whoever asks must hold.
    address: str = ""
    secret: bytes = b""
    #: Waits where a cluster has none of its own.
    rules: Rules = Rules()
    #: New attempts of a step after failures of the infrastructure.
    retries: int = 2
    #: Submissions in one call, so that ids are stored early.
    chunk: int = 25
    lease_s: float = 120.0
    #: No command starts with less of the lease left.
    deadline_s: float = 60.0
    fastest_s: float = 1.0
    slowest_s: float = 10.0
    idle_s: float = 60.0
    #: Folders of finished jobs are removed at the site after that many days.
    keep_days: float = 14.0


@dataclass
class Desk:
    """One cluster, as its engine works on it. Used by one thread; calls in lanes use `site` and `mover` only."""

    cluster: str
    database: Database
    sites: Sites
    mover: Mover
    clusters: Clusters
    settings: EngineSettings
    holder: str
    executor: Executor
    wake: Callable[[], None] = lambda: None
    chance: Callable[[], float] = random.random
    epoch: int = 0
    held_at: float = 0.0
    cursor: str = ""
    following: dict[str, Followed] = field(default_factory=dict)
    changed: dict[str, Followed] = field(default_factory=dict)
    breaker: Breaker = Breaker()
    #: Partitions that take no more jobs of ours before then.
    limited: dict[str, float] = field(default_factory=dict)
    #: How long each of them was last left alone; doubled each time, so that a limit that lasts for days fills no table.
    limit_pauses: dict[str, float] = field(default_factory=dict)
    #: How many jobs such a queue is asked to take at once: one, then one more for each that it took.
    admitted: dict[str, int] = field(default_factory=dict)
    #: Jobs of nobody, seen once.
    strangers: set[str] = field(default_factory=set)
    #: Jobs under our account of another name: since when they are seen.
    foreign: dict[str, float] = field(default_factory=dict)
    trouble: HeroesError | None = None
    #: As last polled: partition -> [free, all] CPUs; and when all records were last read again.
    load: dict[str, list[int]] = field(default_factory=dict)
    relisted_at: float = 0.0
    noted_at: float = 0.0
    #: Small files that jobs bring along, by digest.
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lanes = Lanes(self.executor, self.wake)
        self.facts: ClusterFacts = self.clusters.facts(self.cluster)
        self._site: Site | None = None

    # -- what it follows ---------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds since 1970."""
        return self.database.clock.now().timestamp()

    @property
    def site(self) -> Site:
        """The cluster itself; Unavailable where it does not answer."""
        if self._site is None:
            self._site = self.sites.open(self.cluster)
        return self._site

    @property
    def rules(self) -> Rules:
        """How long to wait for what; longer where the scheduler keeps no accounting."""
        rules = self.facts.rules
        return rules if self.site.accounting_kind == "full" else rules.without_accounting()

    def active(self) -> Iterator[Followed]:
        """The attempts that are not stopped for an operator."""
        return (each for each in list(self.following.values()) if not each.halted)

    def take(self, each: Followed, event: Event) -> None:
        """Let an attempt take an event; what changes is written with the next commit."""
        if each.take(event, self._rules()):
            self.changed[each.key] = each

    def _rules(self) -> Rules:
        # an event may have to be taken while the cluster cannot even be opened
        return self.rules if self._site is not None else self.facts.rules

    # -- calls -------------------------------------------------------------------------------------------------------

    def ask(self, name: str, call: Callable[[], T]) -> T:
        """Make a remote call in this thread."""
        self.renew(self.settings.deadline_s)
        failpoint(f"jobs.call.{name}.before")
        try:
            answer = call()
        except Conflict as error:
            raise LeaseLost(error.message, hint=error.hint) from error
        except StoreBusy as error:
            raise _of_site(error) from error
        failpoint(f"jobs.call.{name}.after")
        self.reached()
        return answer

    def begin(self, name: str, lane: Hashable, call: Callable[[], T], ended: Callable[[T | HeroesError], None]) -> None:
        """Make a remote call in a lane; `ended` gets its answer, or its error, in this thread."""
        self.renew(self.settings.deadline_s)

        def guarded() -> T | HeroesError:
            failpoint(f"jobs.call.{name}.before")
            try:
                answer: T | HeroesError = call()
            except HeroesError as error:
                answer = error
            except OSError as error:
                answer = Unavailable(f"{name} at {self.cluster} failed: {error}", hint="It is tried again.")
            except _POISON as error:  # a mistake of ours: it must not end the engine of every other organisation
                LOG.exception("%s at %s failed", name, self.cluster)
                told = f"{name} at {self.cluster} failed: {type(error).__name__}: {error}"
                answer = Unavailable(told[:500], hint="It is tried again; the engine's log tells more.")
            failpoint(f"jobs.call.{name}.after")
            return answer

        self.lanes.begin(lane, guarded, ended)

    def fail(self, error: HeroesError) -> None:
        """A call in a lane found the cluster unreachable: the turn ends with that."""
        if isinstance(error, Conflict):
            raise LeaseLost(error.message, hint=error.hint) from error
        self.trouble = _of_site(error)

    # -- lease and commits -------------------------------------------------------------------------------------------

    def lease(self) -> bool:
        """Take the lease if it is free, and read everything that is to be followed; whether it is ours."""
        if self.epoch:
            return True
        at = self.now()
        with self.database.write() as work:
            epoch = store.take_lease(work, self.cluster, self.holder, self.settings.address, self.settings.lease_s)
            if epoch is None:
                return False
            self.following = {row.key: Followed.of(row) for row in store.live(work, self.cluster)}
            self._remember(store.watch(work, self.cluster))
        self.epoch, self.held_at = epoch, at
        return True

    def _remember(self, row: store.Row | None) -> None:
        if row is None:
            return
        since = row.unreachable_since.timestamp() if row.unreachable_since else None
        self.cursor, self.breaker = row.cursor, Breaker(row.failures, since, trouble=row.trouble)

    def renew(self, left_s: float) -> None:
        """See that at least `left_s` of the lease are left."""
        if self.now() - self.held_at <= self.settings.lease_s - left_s:
            return
        at = self.now()
        with self.database.write() as work:
            self._hold(work)
        self.held_at = at

    def _hold(self, work: Work) -> None:
        if not store.hold(work, self.cluster, self.holder, self.epoch, self.settings.lease_s):
            raise LeaseLost(f"another engine has {self.cluster} now", hint="This one follows it no more.")

    def drop(self) -> None:
        """Forget everything; the next turn takes the lease again and reads the database."""
        self.epoch, self.trouble, self.cursor = 0, None, ""
        self.following.clear()
        self.changed.clear()
        self.lanes.forget()

    def give_back(self) -> None:
        """Let another engine take the cluster at once."""
        if self.epoch:
            with self.database.write() as work:
                store.give_lease_back(work, self.cluster, self.holder, self.epoch)
            self.drop()

    def commit(self, what: str, extra: Callable[[Work], None] | None = None) -> None:
        """Write what changed, and `extra` with the last part of it. `StoreBusy` and `LeaseLost`: nothing more was."""
        changed = list(self.changed.values())
        if not changed and extra is None:
            return
        failpoint(f"jobs.commit.{what}.before")
        parts = [changed[start : start + COMMIT] for start in range(0, len(changed), COMMIT)] or [[]]
        for part in parts[:-1]:
            self._store(part, None)
        self._store(parts[-1], extra)
        self.changed.clear()
        failpoint(f"jobs.commit.{what}.after")

    def _store(self, part: list[Followed], extra: Callable[[Work], None] | None) -> None:
        at = self.now()
        try:
            again(lambda: self._write(part, extra))
        except (StoreBusy, LeaseLost, sa.exc.OperationalError):
            raise
        except _POISON as error:
            self._apart(part, extra, error)
            return
        self.held_at = at
        for each in part:
            self._written(each)

    def _write(self, part: list[Followed], extra: Callable[[Work], None] | None) -> None:
        with self.database.write() as work:
            self._hold(work)
            closing.write(work, part, self.settings.retries)
            if extra is not None:
                extra(work)

    def _apart(self, part: list[Followed], extra: Callable[[Work], None] | None, error: Exception) -> None:
        """One of them cannot be written: find it, stop it for an operator, write the others."""
        if not part:
            raise error
        if len(part) > 1:
            for each in part:
                self._store([each], None)
        else:
            self._halt(part[0], error)
        if extra is not None:
            self._store([], extra)

    def _halt(self, each: Followed, error: Exception) -> None:
        text = f"stopped for an operator: {type(error).__name__}: {error}"[:2000]
        with self.database.write() as work:
            self._hold(work)
            work.execute(sa.update(store.attempt).where(store.attempt.c.key == each.key).values(halted=1))
            store.tell(work, [{"key": each.key, "at": work.now, "status": each.told_phase or "", "text": text}])
        self.following.pop(each.key, None)

    def _written(self, each: Followed) -> None:
        each.stories.clear()
        each.instructions.clear()
        each.told_phase = each.phase
        if each.outgrown is not None and each.covered_as:
            each.held, each.reservation_key = each.outgrown, each.covered_as
        each.outgrown = None
        if each.final:
            self.following.pop(each.key, None)
            self.limited.pop(each.spec.queue, None)  # it has room again, if the limit is one on our jobs

    # -- the breaker -------------------------------------------------------------------------------------------------

    def reached(self) -> None:
        """The cluster answered."""
        if self.breaker.failures:
            self._break(Breaker())

    def unreached(self, error: HeroesError) -> None:
        """The cluster did not answer: nothing is marked failed, nothing released; ask again later."""
        self._site = None  # what is needed to reach it may have changed
        self._break(self.breaker.failed(self.now(), str(error), self.chance()))

    def _break(self, breaker: Breaker) -> None:
        shown_before, shown = self.breaker.open, breaker.open
        self.breaker = breaker
        since = instant(breaker.since) if shown else None

        def extra(work: Work) -> None:
            self._hold(work)
            store.remember(
                work, self.cluster, failures=breaker.failures, unreachable_since=since, trouble=breaker.trouble,
                retry_at=instant(breaker.retry_at) if shown else None,
            )  # fmt: skip

        if shown or shown_before:
            with self.database.write() as work:
                extra(work)
        if shown != shown_before:
            self.clusters.reached(self.cluster, since, breaker.trouble)

    def since_earliest(self, keys: list[str]) -> Any:
        """When the first of `keys` was submitted, an hour early: clocks of clusters differ."""
        first = min(self.following[key].submitted_at or self.following[key].created_at for key in keys)
        return first - timedelta(hours=1)
