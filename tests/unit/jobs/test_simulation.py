"""Deterministic simulation: machine and engine in one thread, a clock that is told, a cluster that fails in every way
that was measured on real ones, and an engine that is killed at any commit or call. One seed, one history."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
import sqlalchemy as sa

from heroes_budget import books
from heroes_budget.store import ledger_entry
from heroes_core.migrate import load_tables
from heroes_core.work import Database
from heroes_jobs import desk as desk_module
from heroes_jobs import service, store
from heroes_jobs.model import Phase
from heroes_spawners.site import Answer, Claim, Declined, Job, Refusal, State, Submission, Unknown
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.unit.jobs.world import World, spec, world

SEEDS = range(200)
#: Of ten parts of the seeds, those that unit tests have the time for; `tests/crash/test_histories.py` plays the others.
QUICK_PARTS = range(3)
JOBS = 6
AUDIT_KEY = b"a key for tests, of 32 bytes or so"


class Killed(BaseException):
    """The engine process is gone, as by kill -9."""


class NoClaims(FakeSite):
    """A wrapper that claims nothing before it calls sbatch: a mutation that must be noticed."""

    def _submit_one(self, submission: Submission, orphan_s: float | None) -> Answer:
        self._claims.setdefault(submission.job.key, {}).pop(submission.number, None)
        return super()._submit_one(submission, orphan_s)

    def status(self, keys: Sequence[str]) -> dict[str, Claim]:
        """Without claims there is only the look-up by name, in queue and accounting."""
        return {key: claim for key, claim in super().status(keys).items() if claim.run_by}


class NoRunClaims(NoClaims):
    """Nor does a job claim that it is the one which runs."""

    def _begin(self, job: object, now: object) -> None:
        self._runs.pop(job.key, None)  # type: ignore[attr-defined]
        super()._begin(job, now)  # type: ignore[arg-type]


@dataclass
class History:
    """One seed: what the cluster does to jobs, what happens to it, and when the engine dies."""

    seed: int
    database: Database
    kind: type[FakeSite] = FakeSite
    chance: random.Random = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    fates: dict[str, Outcome] = field(default_factory=dict)
    kills: int = 6
    keys: int = 0
    play_number: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        accounting = "none" if self.seed % 4 == 3 else "full"
        self.site = self.kind(
            self.clock, self._fate, accounting_kind=accounting, queues={"cpu": 4},
            start_delay_s=self.chance.choice((0.2, 1.0, 3.0)),
        )  # fmt: skip

    @property
    def instance(self) -> str:
        """The run that this history is of."""
        return f"01SIM{self.play_number}"

    def _fate(self, job: Job) -> Outcome:
        return self.fates.setdefault(job.key, self._outcome())

    def _outcome(self) -> Outcome:
        draw = self.chance.random()
        seconds = self.chance.choice((0.3, 1.0, 5.0, 40.0))
        if draw < 0.6:
            return Outcome(seconds, files={"out.txt": b"x"})
        if draw < 0.75:
            return Outcome(seconds, exit_code=self.chance.choice((1, 127, 137)))
        if draw < 0.85:
            return Outcome(seconds, state=State.NODE_FAIL, record=False)
        if draw < 0.9:
            return Outcome(seconds, record=False)
        return Outcome(seconds, state=self.chance.choice((State.OUT_OF_MEMORY, State.TIMEOUT)), record=False)

    def new_key(self) -> str:
        """Keys that are the same in each replay, and in each replay's order."""
        self.keys += 1
        return f"01{self.play_number:012d}{self.keys:012d}"

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def failpoint(self, _name: str) -> None:
        """Now and then the engine dies here."""
        if self.kills and self.chance.random() < 0.03:
            self.kills -= 1
            raise Killed

    def disturb(self, here: World, keys: list[str]) -> None:
        """Perhaps a fault; each is over by itself or by the next one."""
        draw = self.chance.random()
        if draw < 0.04:
            self.site.cut_link()
        elif draw < 0.20:
            self.site.restore_link()
            self.site.scheduler_up = True
        elif draw < 0.22:
            self.site.scheduler_up = False
        elif draw < 0.25:
            self.site.crash_controller()
        elif draw < 0.30:
            self.site.orphan_next_submit(self.chance.choice((0.5, 4.0, 20.0)))
        elif draw < 0.35:
            self.site.declines.append(self._declined())
        elif draw < 0.37:
            here.cancel(self.chance.choice(keys))

    def _declined(self) -> Declined | Unknown:
        draw = self.chance.random()
        if draw < 0.4:
            return Declined(Refusal.LIMIT, "Job violates accounting/QOS policy")
        if draw < 0.6:
            return Declined(Refusal.STORAGE, "Disk quota exceeded")
        return Declined(Refusal.PERMANENT, "Invalid partition name") if draw < 0.7 else Unknown("timed out")

    # -- the run -----------------------------------------------------------------------------------------------------

    def play(self) -> World:
        """All jobs, until everything has ended; faults in the first ten minutes only, so that it can."""
        here = world(self.database, self.clock, self.site, cluster=f"alpha{self.play_number}")
        steps = [spec(index=index, instance=self.instance, cluster=here.cluster) for index in range(JOBS)]
        keys = here.submit(*steps)
        for _ in range(4000):
            if self.clock.monotonic() < 600:
                self.disturb(here, keys)
            else:
                self._calm()
            if self._turn(here):
                return here
        raise AssertionError(f"seed {self.seed}: never over: {here.told()}")

    def _calm(self) -> None:
        self.site.restore_link()
        self.site.scheduler_up, self.kills = True, 0
        self.site.declines.clear()

    def _turn(self, here: World) -> bool:
        try:
            pause = here.engine.turn()
        except Killed:
            here.restart()
            pause = self.chance.choice((0.0, 1.0, 30.0))
        self.clock.sleep(max(pause, 0.01))
        idle = not here.engine.desk.following and self.chance.random() < 0.5
        return idle and here.over()


@pytest.fixture(scope="module")
def memory() -> Iterator[Callable[[], Database]]:
    """Fresh databases in memory, each with every table."""
    opened: list[Database] = []

    def fresh() -> Database:
        url = f"sqlite:///file:/simulation{len(opened)}?vfs=memdb&uri=true"
        database = Database(url, audit_key=AUDIT_KEY)
        load_tables().create_all(database.engine)
        opened.append(database)
        return database

    yield fresh
    for database in opened:
        database.close()


@pytest.fixture
def play(memory: Callable[[], Database], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[History, World]]:
    """Play the history of a seed."""
    database = memory()
    plays = count()

    def run(seed: int, kind: type[FakeSite] = FakeSite) -> tuple[History, World]:
        history = History(seed, database, kind, play_number=next(plays))
        monkeypatch.setattr(desk_module, "failpoint", history.failpoint)
        monkeypatch.setattr(service, "new_ulid", history.new_key)
        return history, history.play()

    return run


def _rows(here: World, instance: str) -> list[sa.Row[tuple[object, ...]]]:
    with here.database.read() as work:
        chosen = sa.select(store.attempt).where(store.attempt.c.instance == instance)
        return list(work.execute(chosen))


def _faults(history: History, here: World) -> list[str]:
    """What is wrong with a history that is over."""
    site, rows = history.site, _rows(here, history.instance)
    wrong = [f"submitted twice: {each}" for each, n in Counter(s[:2] for s in site.submissions).items() if n > 1]
    ran = Counter(key for key, _ in site.executions)
    wrong += [f"executed twice: {key}" for key, n in ran.items() if n > 1]
    for row in rows:
        if row.status == Phase.DONE and ran[row.key] != 1:
            wrong.append(f"{row.key} is done and ran {ran[row.key]} times")
        if row.cost is None or row.halted or row.ended_at is None:
            wrong.append(f"{row.key} is {row.status}, not settled: {row.state}")
        if row.cost and not ran[row.key]:
            wrong.append(f"{row.key} costs {row.cost} and never ran")
        if row.status == Phase.LOST and row.cost:
            wrong.append(f"{row.key} was lost and costs {row.cost}")
    return wrong + _forgotten(history, rows)


def _imbalance(here: World) -> list[str]:
    """Where books and attempts disagree, over all histories of a database."""
    with here.database.read() as work:
        proof = books.verify(work)
        rows = work.execute(sa.select(store.attempt)).all()
        chosen = sa.select(ledger_entry.c.key, ledger_entry.c.amount).where(ledger_entry.c.step == 1)
        charged = Counter({row.key: row.amount for row in work.execute(chosen)})
    wrong = [f"{row.key} costs {row.cost}, entered as {charged[row.reservation_key]}" for row in rows
             if charged[row.reservation_key] != row.cost]  # fmt: skip
    return wrong if proof.sound else [*wrong, f"the ledger is not sound: {proof}"]


def _forgotten(history: History, rows: list[sa.Row[tuple[object, ...]]]) -> list[str]:
    """Jobs that ended well at the cluster and did not here, and steps that ended otherwise than all their attempts."""
    wrong = []
    for row in rows:
        fate = history.fates.get(row.key)
        well = fate is not None and fate.record and fate.exit_code == 0 and fate.state is None
        if well and row.status not in (Phase.DONE, Phase.CANCELLED):
            wrong.append(f"{row.key} ended well and is {row.status}: {row.reason}")
    steps = {row.position for row in rows}
    return wrong + [f"step {index} has no attempt" for index in range(JOBS) if index not in steps]


@pytest.mark.parametrize("part", QUICK_PARTS)
def test_every_history_ends_with_each_attempt_run_once_and_settled(
    play: Callable[..., tuple[History, World]], part: int
) -> None:
    """Whatever fails and whenever the engine dies: no submission and no attempt twice, nothing lost, all settled."""
    check_histories(play, part)


def check_histories(play: Callable[..., tuple[History, World]], part: int) -> None:
    """Play a tenth of the seeds."""
    wrong = {}
    for seed in SEEDS[part::10]:
        history, here = play(seed)
        found = _faults(history, here)
        if found:
            wrong[seed] = found
    assert not wrong
    assert _imbalance(here) == []


def test_the_simulation_notices_a_wrapper_that_claims_nothing(play: Callable[..., tuple[History, World]]) -> None:
    """With the claim off some submission is made twice; the run claim still keeps executions to one."""
    found = _until("submitted twice", lambda seed: _faults(*play(seed, NoClaims)))
    assert any("submitted twice" in fault for fault in found)
    assert not any("executed twice" in fault for fault in found)


def _until(words: str, faults: Callable[[int], list[str]]) -> list[str]:
    """What is wrong with the histories up to the first in which `words` are told."""
    found: list[str] = []
    for seed in range(60):
        found += faults(seed)
        if any(words in fault for fault in found):
            break
    return found


def test_the_simulation_notices_jobs_that_do_not_claim_their_run(play: Callable[..., tuple[History, World]]) -> None:
    """With the run claim off too, some attempt is executed twice."""
    found = _until("executed twice", lambda seed: _faults(*play(seed, NoRunClaims)))
    assert any("executed twice" in fault for fault in found)


def test_a_seed_tells_the_same_story_twice(play: Callable[..., tuple[History, World]]) -> None:
    """A failure can be replayed from its seed."""
    first, second = play(7)[0], play(7)[0]
    assert first.clock.now() == second.clock.now()
    assert [number for _, number, _ in first.site.submissions] == [n for _, n, _ in second.site.submissions]
