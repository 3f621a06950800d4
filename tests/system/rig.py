"""A whole platform for the system tests: started by its own supervisor in a scratch folder, with this machine as its
cluster, two organisations, and what people do with it through the real client and the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import heroes
from heroes.api import budget, clusters, identity
from heroes.api import workflows as api
from heroes.api.ids import new_ulid
from heroes.api.units import Money, PowerModel, PriceModel, Watts
from heroes.client import Client
from heroes.runs import ENDED, Run
from heroes_ear.compile import compile_all
from heroes_hub import operate
from heroes_hub.demo import _free_port as free_port
from heroes_hub.demo import sign_in
from heroes_hub.home import Home
from heroes_hub.platform import ADMINISTRATOR, PLATFORM
from heroes_hub.settings import Agreement, Api, Engine, MachineQueue, MachineSettings, Marketplace, Objects, Settings
from tests.lab import LabCluster

PASSWORD = "a scratch password, 4 tests"
#: The administrator and the engineer of each organisation. `acme` may use the machine; `rival` looks on.
PEOPLE = {"acme": ("carla", "emma"), "rival": ("rita", "rob")}
#: Small enough that a job can ask for more; more CPUs than any machine for tests lacks, so that jobs run side by side.
MACHINE = MachineSettings(
    cpus=16,
    memory_mib=2048,
    queues=(
        MachineQueue(name="small", share=0.25, max_walltime_s=600, per_core_hour="0.20"),
        MachineQueue(name="large", share=1.0, max_walltime_s=7200, per_core_hour="0.50", per_use="0.01"),
    ),
)
PATIENCE_S = 150.0
Value = TypeVar("Value")

#: Runs a script of the test's: what most tests need of a workflow.
SCRIPT = """
name: script
title: Run a script
parameters:
  script: {type: string, max_length: 10000, help: what to run}
  word: {type: string, default: "", max_length: 10000}
  cpus: {type: integer, default: 1, minimum: 1, maximum: 64}
  memory_mib: {type: integer, default: 64, minimum: 1, unit: MiB}
  walltime_s: {type: integer, default: 120, minimum: 1, unit: s}
  factor: {type: number, default: 1.0, minimum: 0.5, maximum: 2}
  mode: {type: choice, choices: [calm, wild], default: calm}
  careful: {type: boolean, default: true}
steps:
  - name: work
    argv: [/bin/sh, -c, "{{script}}", script, "{{word}}"]
    resources: {cpus_per_task: cpus, memory_mib: memory_mib, walltime_s: walltime_s}
"""


def said(run: Run) -> str:
    """Why it ended as it did, with what its job wrote: for messages of assertions."""
    return f"{run.id} {run.state}: {run.reason}"


def wait_until(what: str, question: Callable[[], Value], seconds: float = PATIENCE_S) -> Value:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < end, f"{what}: still not so after {seconds:g} s"
        time.sleep(0.1)


@dataclass
class System:
    """A running platform."""

    home: Home
    settings: Settings
    folder: Path  #: for files of the tests
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    connections: dict[tuple[str, str], heroes.Heroes] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the API is."""
        return operate.address(self.settings)

    # -- people ------------------------------------------------------------------------------------------------------

    def token(self, organisation: str, user: str, password: str = PASSWORD) -> str:
        """The token that they signed in with first."""
        key = (organisation, user)
        if key not in self.tokens:
            self.tokens[key] = sign_in(self.address, organisation, user, password)
        return self.tokens[key]

    def connect(self, organisation: str, user: str, password: str = PASSWORD) -> heroes.Heroes:
        """The platform as they see it."""
        key = (organisation, user)
        if key not in self.connections:
            self.connections[key] = heroes.Heroes(Client(self.address, self.token(*key, password)))
        return self.connections[key]

    @property
    def emma(self) -> heroes.Heroes:
        """The engineer of acme."""
        return self.connect("acme", "emma")

    @property
    def carla(self) -> heroes.Heroes:
        """The administrator of acme."""
        return self.connect("acme", "carla")

    @property
    def rob(self) -> heroes.Heroes:
        """The engineer of the other organisation."""
        return self.connect("rival", "rob")

    @property
    def rita(self) -> heroes.Heroes:
        """The administrator of the other organisation."""
        return self.connect("rival", "rita")

    @property
    def mayor(self) -> heroes.Heroes:
        """The platform's administrator."""
        return self.connect(PLATFORM, ADMINISTRATOR, PASSWORD)

    # -- the command line --------------------------------------------------------------------------------------------

    def command(self, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        """`heroes WORDS` as emma, or as whoever `token` is ("" for nobody)."""
        given = self.token("acme", "emma") if token is None else token
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "HEROES_API_URL": self.address,
            "HEROES_TOKEN": given,
            "LANG": "C.UTF-8",
        }
        argv = [str(Path(sys.executable).with_name("heroes")), *words]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=PATIENCE_S, env=environment, cwd=self.folder
        )

    def answer(self, *words: str) -> Any:
        """What `heroes WORDS --output json` answers emma."""
        done = self.command(*words, "--output", "json")
        assert done.returncode == 0, f"heroes {' '.join(words)}: {done.stderr}"
        return json.loads(done.stdout)

    # -- runs --------------------------------------------------------------------------------------------------------

    def publish(self, document: str) -> str:
        """Publish a workflow as emma; its name."""
        return self.emma.workflows.publish(document).name

    def script(self, script: str, *, place: str = "local/small", workflow: str = "script", **values: Any) -> Run:
        """Submit a script to one place, as emma."""
        options = self.emma.workflows[workflow].decide(script=script, places=(place,), **values)
        return options[place].submit()

    def ended(self, run: Run) -> api.Instance:
        """The run once it has ended."""
        wait_until(f"run {run.id} ends", lambda: run.refresh().state in ENDED)
        return run.refresh()

    def pending(self) -> Money:
        """What is reserved for acme now."""
        account: budget.Account = self.emma.client.call(budget.ACCOUNT, budget.ACCOUNT.request())
        return account.pending

    def posted(self) -> Money:
        """What acme has spent."""
        account: budget.Account = self.emma.client.call(budget.ACCOUNT, budget.ACCOUNT.request())
        return account.posted

    # -- the platform itself -----------------------------------------------------------------------------------------

    def prove(self) -> None:
        """Nothing is reserved any more, and audit chains and ledger are proven by `heroes verify`."""
        wait_until("nothing is reserved", lambda: not self.pending().micros)
        done = self.command("verify", "--home", str(self.home.folder))
        assert done.returncode == 0, done.stderr
        assert "ledger: balanced" in done.stdout
        audit: budget.Audit = self.mayor.client.call(budget.VERIFY, budget.VERIFY.request())
        assert (audit.overdraft, audit.imbalance, audit.difference) == (0, 0, 0)

    def part(self, name: str) -> int:
        """The process of a part."""

        def running() -> int | None:
            parts = {part: pid for part, pid, _ in operate.state(self.home, self.settings).parts}
            return parts.get(name)

        return wait_until(f"{name} runs", running) or 0

    def log_lines(self, part: str) -> list[dict[str, Any]]:
        """The structured lines that a part has logged."""
        text = (self.home.log / f"{part}.log").read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@contextmanager
def running_system(*, machine: bool = True) -> Iterator[System]:
    """A platform with its people, proven sound at the end. Others may pass through its folder, as jobs must."""
    assert compile_all() == []
    folder = Path(tempfile.mkdtemp(prefix="heroes-system-", dir="/var/tmp"))
    folder.chmod(0o711)
    home = Home(folder / "home")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = home.prepare(_settings(machine))
        stack.callback(operate.down, home, cancel_jobs=True)
        operate.up(home, settings)
        (folder / "files").mkdir(mode=0o700)
        system = System(home, settings, folder / "files")
        stack.callback(_close, system)
        _make_people(system)
        system.publish(SCRIPT)
        yield system
        system.prove()


def _settings(machine: bool) -> Settings:
    named = ("local", "alpha", "narrow")
    agreements = tuple(Agreement(organisation="acme", cluster=cluster, terms="tests") for cluster in named)
    return Settings(
        api=Api(port=free_port(0)),
        objects=Objects(port=free_port(0)),
        machine=MACHINE.model_copy(update={"enabled": machine}),
        engine=Engine(idle_s=2.0, slowest_s=2.0),
        marketplace=Marketplace(agreements=agreements),
    )


def _close(system: System) -> None:
    for connection in system.connections.values():
        connection.close()


def _make_people(system: System) -> None:
    first = system.home.first_administrator.read_text().rsplit("password: ", 1)[1].strip()
    mayor = system.connect(PLATFORM, ADMINISTRATOR, first)
    for organisation, (administrator, engineer) in PEOPLE.items():
        new = identity.AddOrganisation(
            name=organisation, title=organisation, administrator=administrator, password=PASSWORD
        )
        mayor.client.call(identity.ADD_ORGANISATION, new)
        credit = budget.AddCredit(organization_id=organisation, amount=Money.of("50"), reason="tests")
        mayor.client.call(budget.CREDIT, credit)
        admin = system.connect(organisation, administrator)
        user = identity.AddUser(name=engineer, title=engineer, password=PASSWORD, roles=("engineer",))
        admin.client.call(identity.ADD_USER, user)
        limit = budget.SetBudget(scope="user", subject=engineer, limit=Money.of("20"))
        admin.client.call(budget.SET, limit)


# ------------------------------------------------------------------------------------------------------ a real centre

#: Waits of the engine on the lab's clusters, in seconds; counts without a unit.
WAITS = {
    "unsure_s": 8.0,
    "gap_s": 2.0,
    "ask_s": 1.0,
    "reclaim_s": 3.0,
    "tentative_s": 2.0,
    "relist_s": 10.0,
    "limit_s": 1.0,
    "storage_s": 1.0,
    "transfer_s": 1.0,
}


def enrol(
    system: System,
    cluster: LabCluster,
    name: str,
    *,
    host_key: str = "",
    base: str = "",
    partitions: Sequence[str] = ("cpu",),
) -> None:
    """Enrol a lab cluster as the administrator of acme does, its key installed at the centre. It is probed then."""
    ask = system.carla.client.call
    account = ask(clusters.ADD_ACCOUNT, clusters.AddServiceAccount(name=f"at-{name}"))
    cluster.authorise(account.public_key)
    power = PowerModel(idle=Watts(80), busy=Watts(240), source="data sheet")
    price = PriceModel(per_core_hour=Decimal("0.36"))  # 100 micro-units a core-second
    terms = clusters.QueueTerms(price=price, power=power, carbon_g_per_kwh=420.0)
    wanted = clusters.EnrolCluster(
        name=name,
        host=cluster.host,
        port=cluster.port,
        user=cluster.account,
        service_account=account.name,
        host_key=host_key or cluster.host_key,
        base=base or f"{cluster.home}/{name}-{new_ulid()}",
        queues=dict.fromkeys(partitions, terms),
        waits=WAITS,
    )
    ask(clusters.ENROL, wanted)


def shown(system: System, name: str) -> clusters.Cluster:
    """A cluster as the administrator of acme sees it."""
    told: clusters.Cluster = system.carla.client.call(clusters.SHOW, clusters.AskCluster(cluster_id=name))
    return told


def wait_ready(system: System, name: str) -> clusters.Cluster:
    """The cluster once its probe went well."""

    def ready() -> bool:
        told = shown(system, name)
        assert told.status != "refused", told.reason
        return told.status == "ready"

    wait_until(f"{name} is ready", ready)
    return shown(system, name)
