"""A whole platform in one thread: database, templates, decisions, ledger, the real engines, two clusters in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heroes.api import applications as applications_api
from heroes.api import workflows as api
from heroes.api.errors import NotFound
from heroes.api.ids import new_ulid
from heroes.api.registry import Operation, parse
from heroes.api.units import Money, PowerModel, PriceModel, Watts
from heroes_applications import service as applications
from heroes_budget import service as budget
from heroes_clusters import service as clusters
from heroes_clusters.model import MACHINE, Cluster, Queue
from heroes_core.module import Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_data.model import ObjectInfo
from heroes_data.ports import ObjectStore
from heroes_identity import service as identity
from heroes_identity.model import NewPerson, Organisation, Passwords
from heroes_jobs import service as jobs
from heroes_jobs.model import AttemptNews, JobSpec
from heroes_spawners.site import Job
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from heroes_workflows.following import follow
from heroes_workflows.handlers import MODULE
from tests.unit.jobs.world import World, world

SECRET = "correct horse battery"
CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)
RIGHTS = frozenset({"submit", "data:home"})
ALICE = Caller("acme", "alice", RIGHTS)
MIA = Caller("acme", "mia", RIGHTS | {"workflows:manage"})
ZOE = Caller("umbrella", "zoe", RIGHTS)

#: 1,000 micro-units for each core-second on alpha, 2,000 on beta, which is twice as fast.
ALPHA = Queue("cpu", "cpu", PriceModel(per_core_hour="3.6"), PowerModel(idle=Watts(100), busy=Watts(300)), pue=1.2,
              carbon_g_per_kwh=300, nodes=4, cpus_per_node=8, kill_wait_s=0, priced=True)  # fmt: skip
BETA = replace(ALPHA, price=PriceModel(per_core_hour="7.2"), speed=2.0, carbon_g_per_kwh=50)
FACTS = {"python": "3.11", "applications": ["openfoam"], "container": "ch-run"}


class Objects:
    """An object store that knows sizes and etags, and nothing else."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], ObjectInfo] = {}

    def put(self, organisation: str, bucket: str, key: str, etag: str, size: int) -> None:
        """There is such an object now."""
        self.held[organisation, bucket, key] = ObjectInfo(key, size, etag, FakeClock().now())

    def stat(self, organisation: str, bucket: str, key: str) -> ObjectInfo:
        """What is known of an object."""
        try:
            return self.held[organisation, bucket, key]
        except KeyError:
            raise NotFound(f"There is no object {bucket}/{key}.", hint="Upload it first.") from None


@dataclass
class Platform:
    """Everything of one test. `outcomes`: what the jobs of a step do, by the step's name."""

    database: Database
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    objects: Objects = field(default_factory=Objects)
    worlds: dict[str, World] = field(default_factory=dict)
    ran: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.database.clock = self.clock
        self._organisations()
        self.enrol("alpha", ALPHA)
        jobs.register(follow)

    def _organisations(self) -> None:
        with self.database.write() as work:
            directory = identity.embedded(CHEAP)(work)
            for name, people in (("acme", ("alice", "mia")), ("umbrella", ("zoe",))):
                new = Organisation(name, name.title(), "client", "EUR", True, work.now)
                identity.add_organisation(work, directory, "setup", new, "admin", SECRET)
                for person in people:
                    directory.add_person(NewPerson(name, person, password=SECRET))
                budget.credit(work, name, Money.of(1000), "test", "setup")

    def enrol(self, name: str, queue: Queue) -> None:
        """One more cluster, with an engine of its own."""
        with self.database.write() as work:
            found = Cluster(name, "acme", MACHINE, "centre", capabilities=FACTS)
            clusters.configure(work, found, [queue])
        site = FakeSite(self.clock, self._run, start_delay_s=0.5)
        self.worlds[name] = world(self.database, self.clock, site, cluster=name)

    def _run(self, job: Job) -> Outcome:
        self.ran.append(job)
        return self.outcomes.get(self._step(job.key), Outcome(5.0, files={"out.txt": b"x"}))

    def _step(self, key: str) -> str:
        with self.database.read() as work:
            row = jobs.store.find(work, [key])[0]
        return str(row.step)

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, operation: Operation, caller: Caller = ALICE, *, key: str = "", **fields: Any) -> Any:
        """The answer to one request, as the API gives it."""
        services = Services()
        services.offer(ObjectStore, self.objects)
        call = Call(admit(operation, caller), self.database, services)
        answer = perform(MODULE.bound[operation.name], call, parse(operation.request, fields), key)
        return operation.response.model_validate_json(answer.model_dump_json())

    def publish(self, source: str, caller: Caller = ALICE) -> None:
        """Publish a template of one's own."""
        with self.database.write() as work:
            applications.publish(work, caller, applications_api.PublishTemplate(document=source))

    def submit(self, template: str, caller: Caller = ALICE, **fields: Any) -> api.Instance:
        """Submit by policy."""
        answer: api.Instance = self.ask(api.SUBMIT, caller, key=new_ulid(), template=template, **fields)
        return answer

    def show(self, identity: str, caller: Caller = ALICE) -> api.InstanceDetail:
        """One run."""
        answer: api.InstanceDetail = self.ask(api.GET, caller, workflow_instance_id=identity)
        return answer

    def jobs(self, identity: str) -> Mapping[tuple[str, int], api.Job]:
        """The jobs of a run by step and index."""
        page: api.Jobs = self.ask(api.JOBS, workflow_instance_id=identity, limit=500)
        return {(job.step, job.index): job for job in page.items}

    def events(self, identity: str) -> list[api.Event]:
        """Everything that happened to a run."""
        page: api.Events = self.ask(api.EVENTS, workflow_instance_id=identity, limit=1000)
        return list(page.items)

    def specs(self, identity: str) -> dict[tuple[str, int], JobSpec]:
        """What the jobs module was asked to run."""
        with self.database.read() as work:
            rows = jobs.store.of_instance(work, "acme", identity, limit=5000)
            return {(spec.step, spec.index): spec for spec in (jobs.spec_from_json(row.spec) for row in rows)}

    def standing(self, organisation: str = "acme") -> tuple[int, int]:
        """Micro-units spent and reserved."""
        with self.database.read() as work:
            found = budget.standing(work, organisation)
            return found.posted.micros, found.pending.micros

    # -- time -------------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool] | None = None, turns: int = 400) -> None:
        """Let the engines work, time moving on, until the condition holds, or nothing is left to do."""
        done = until or self._over
        for _ in range(turns):
            for one in self.worlds.values():
                one.turn(2.0)
            if done():
                return
        raise AssertionError([line for one in self.worlds.values() for line in one.told()])

    def _over(self) -> bool:
        return all(one.over() for one in self.worlds.values())

    def tell(self, news: AttemptNews) -> None:
        """Let the runs hear news as the engine tells it."""
        with self.database.write() as work:
            follow(work, news)
