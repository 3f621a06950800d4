"""A campaign: a database, an object server, a cluster of the lab, and an engine that is killed and started again."""

from __future__ import annotations

import multiprocessing
import os
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from heroes.api.units import Money, PriceModel
from heroes_budget import service as budget
from heroes_core.migrate import load_tables
from heroes_core.work import Database
from heroes_identity import service as identity
from heroes_identity.model import Organisation, Passwords
from heroes_jobs import service as jobs
from heroes_jobs import store
from heroes_jobs.model import InputRef, JobSpec, OutputSpec, Reservation
from heroes_spawners.site import Shape
from tests.crash.engine import AUDIT_KEY, Plan, objects_of, serve
from tests.lab import LabCluster, LabError, wait_for
from tests.objects import serve_objects

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.crash.engine"])
#: 3.6 EUR a core-hour: 1,000 micro-units a core-second.
PRICE = PriceModel(per_core_hour="3.6", currency="EUR")
MICROS_PER_CORE_SECOND = 1000
START_S = 60.0


@dataclass
class Campaign:
    """What one crash test works with."""

    folder: Path
    cluster: LabCluster
    plan: Plan
    database: Database
    engine: ForkServerProcess | None = None
    keys: list[str] = field(default_factory=list)

    # -- the engine --------------------------------------------------------------------------------------------------

    def start(self, failpoint: str = "") -> None:
        """Start an engine and wait until it serves; one with a failpoint kills itself there."""
        told, tell = FORKED.Pipe(duplex=False)
        engine = FORKED.Process(target=serve, args=(self.plan, self.folder, failpoint, tell))
        engine.start()
        tell.close()
        self.engine = engine
        with told:
            if not told.poll(START_S) or told.recv() != "ready":
                raise AssertionError(f"the engine did not start:\n{self.log()}")

    def kill(self) -> None:
        """Kill -9."""
        assert self.engine is not None
        self.engine.kill()
        self.ended()

    def stop(self) -> None:
        """Stop it as the supervisor does."""
        if self.engine is not None:
            self.engine.terminate()
            self.ended()

    def ended(self) -> int | None:
        """Wait for its end; its exit status (-9: killed)."""
        assert self.engine is not None
        self.engine.join(90)
        code = self.engine.exitcode
        assert code is not None, f"the engine does not end:\n{self.log()}"
        self.engine.close()
        self.engine = None
        return code

    def dies(self, seconds: float) -> bool:
        """Whether it kills itself within `seconds`."""
        assert self.engine is not None
        self.engine.join(seconds)
        return self.engine.exitcode is not None and self.ended() == -9

    def log(self) -> str:
        """The last that the engines said."""
        path = self.folder / "engine.log"
        return path.read_text()[-4000:] if path.exists() else ""

    # -- its work ----------------------------------------------------------------------------------------------------

    def submit(self, count: int, seconds: Sequence[float] = (1.0,), with_input: bool = False) -> list[str]:
        """Create and start attempts that run for some of `seconds`; each says on stdout that it was executed."""
        first = len(self.keys)
        specs = [self.spec(first + number, seconds[number % len(seconds)]) for number in range(count)]
        if with_input:
            self.upload("in.txt", b"input")
            specs = [replace(spec, inputs=(InputRef("in.txt", "ann", "in.txt"),)) for spec in specs]
        held = Reservation("centre", Money(micros=600 * MICROS_PER_CORE_SECOND, currency="EUR"), PRICE)
        with self.database.write() as work:
            made = [jobs.create(work, spec, held) for spec in specs]
            jobs.start(work, made)
        self.keys += made
        return made

    def spec(self, number: int, seconds: float) -> JobSpec:
        """One job."""
        read = "[ ! -e ../in/in.txt ] || cat ../in/in.txt"
        script = f'{read}; echo; echo "executed $SLURM_JOB_ID"; sleep {seconds}; echo {number} > result.txt'
        return JobSpec(
            organisation="acme", user="ann", instance="01RUN", step="work", index=number, cluster=self.plan.cluster,
            queue=self.plan.queue, argv=("/bin/sh", "-c", script), shape=Shape(walltime_s=300),
            outputs=(OutputSpec("result.txt"),), output_bucket="ann", output_prefix=f"runs/01RUN/work/{number}",
        )  # fmt: skip

    def upload(self, key: str, content: bytes) -> None:
        """Put an object into ann's bucket."""
        objects = objects_of(self.plan)
        try:
            objects.make_bucket("acme", "ann")
            objects.put("acme", "ann", key, [content])
        finally:
            objects.close()

    def cancel(self, keys: Sequence[str]) -> None:
        """Cancel as ann."""
        with self.database.write() as work:
            jobs.cancel(work, keys, "ann@acme")

    def live(self) -> int:
        """How many attempts have not ended."""
        with self.database.read() as work:
            return len(store.live(work, self.plan.cluster))

    def finish(self, seconds: float = 300.0) -> None:
        """Let a last engine bring everything to its end."""
        self.start()
        try:
            wait_for("every attempt ends", lambda: not self.live(), seconds, pause=0.5)
        except LabError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.stories()) + self.log()) from None
        finally:
            self.stop()

    def rows(self) -> dict[str, Any]:
        """Every attempt, retries too, by key."""
        with self.database.read() as work:
            found = store.of_instance(work, "acme", "01RUN", "", 10_000)
        return {row.key: row for row in found}

    def phases(self, keys: Sequence[str]) -> set[str]:
        """The phases that attempts are in."""
        with self.database.read() as work:
            return {row.status for row in store.find(work, keys)}

    def stories(self) -> list[str]:
        """What happened to the attempts that have not ended."""
        with self.database.read() as work:
            rows = store.live(work, self.plan.cluster)[:5]
            return [f"{row.key} {row.state}: {[each.text for each in store.told(work, row.key)]}" for row in rows]


@contextmanager
def campaign(folder: Path, cluster: LabCluster, lab: Path, **changes: Any) -> Iterator[Campaign]:
    """Everything set up, and nothing left running. `changes`: fields of the plan."""
    base = f"{cluster.home}/crash-{secrets.token_hex(4)}"
    objects = folder / "objects"
    objects.mkdir()
    url = f"sqlite:///{folder}/store.sqlite"
    with serve_objects(objects) as server:
        settings: dict[str, Any] = {"queue": "dense", "endpoint": server._endpoint, **changes}
        plan = Plan(url, str(lab), cluster.name, base, objects=str(objects), **settings)
        here = Campaign(folder, cluster, plan, prepared(url))
        try:
            yield here
        finally:
            if here.engine is not None:
                here.kill()
            here.database.close()
            cluster.run("scancel", f"--user={cluster.account}")


def prepared(url: str) -> Database:
    """A database with the organisation acme and its credit."""
    database = Database(url, audit_key=AUDIT_KEY)
    load_tables().create_all(database.engine)
    with database.write() as work:
        directory = identity.embedded(Passwords(memory_kib=8, rounds=1, lanes=1))(work)
        new = Organisation("acme", "Acme", "client", "EUR", True, work.now)
        identity.add_organisation(work, directory, "setup", new, "admin", "correct horse battery")
        budget.credit(work, "acme", Money(micros=10**12, currency="EUR"), "for the test", "setup")
    return database


def seed() -> int:
    """The seed of this run: HEROES_CRASH_SEED, or a fresh one; printed, so that a failure can be repeated."""
    chosen = int(os.environ.get("HEROES_CRASH_SEED") or secrets.randbelow(10**6))
    print(f"HEROES_CRASH_SEED={chosen}")
    return chosen


def kill_at_random(here: Campaign, kills: int, longest_s: float, chance: random.Random) -> int:
    """Start engines and kill each after 0 to `longest_s` seconds; how many died while there was work."""
    busy = 0
    for _ in range(kills):
        here.start()
        time.sleep(chance.uniform(0, longest_s))
        busy += bool(here.live())
        here.kill()
    return busy
