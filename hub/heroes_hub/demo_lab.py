"""The demo's clusters where it is told on the lab: two real SLURM clusters on this machine, enrolled over SSH."""

from __future__ import annotations

import importlib
import os
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import heroes
from heroes.api import clusters as api
from heroes.api.errors import Unavailable
from heroes.api.units import PowerModel, PriceModel, Watts
from heroes_hub.story import Story


def _power(idle: float, busy: float) -> PowerModel:
    return PowerModel(idle=Watts(idle), busy=Watts(busy), source="data sheet")


#: What the two ask: the cloud is dearer and greener.
TERMS = {
    "alpha": (PriceModel(per_core_hour=Decimal("0.30")), _power(80, 240), 420.0),
    "cumulus": (PriceModel(per_node_hour=Decimal("0.90")), _power(60, 200), 120.0),
}
READY_S = 240.0


def join_lab(story: Story) -> LabClusters:
    """Bring the lab up (`make lab`). Unavailable without root, or outside of the source tree."""
    story.step("Bring two SLURM clusters up on this machine: alpha, an HPC centre, and cumulus, a cloud")
    if os.geteuid() != 0:
        raise Unavailable("the lab's SLURM clusters need root", hint="Run it as root, or without LAB=1.")
    sys.path.insert(0, str(Path.cwd()))
    try:
        lab = importlib.import_module("tests.lab")
    except ModuleNotFoundError:
        raise Unavailable("the lab comes with the source tree", hint="Run `make demo LAB=1` in it.") from None
    clusters = tuple(lab.up().clusters)
    for each in clusters:
        story.say(f"{each.name}: SSH on {each.host}:{each.port}, {len(each.nodes)} nodes of {each.cpus} CPUs")
    return LabClusters(story, clusters)


@dataclass(frozen=True)
class LabClusters:
    """The lab's clusters, and the story in which they are enrolled."""

    story: Story
    clusters: tuple[Any, ...]

    def enrol(self, admin: heroes.Heroes) -> None:
        """As the organisation's administrator: an account at each centre, the centre installs its key, enrolment; then
        wait until the platform has probed them."""
        self.story.step("The administrator of acme enrols both: the platform makes a key, the centre installs it")
        for each in self.clusters:
            account = admin.client.call(api.ADD_ACCOUNT, api.AddServiceAccount(name=f"acme-at-{each.name}"))
            _install(each, account.public_key)
            price, power, carbon = TERMS[each.name]
            terms = api.QueueTerms(price=price, power=power, carbon_g_per_kwh=carbon, pue=1.3)
            asked = api.EnrolCluster(
                name=each.name,
                host=each.host,
                port=each.port,
                user=each.account,
                service_account=account.name,
                host_key=each.host_key,
                base=f"{each.home}/heroes-demo-{account.created_at:%Y%m%d%H%M%S}",
                queues={"cpu": terms},
            )
            admin.client.call(api.ENROL, asked)
        for each in self.clusters:
            self.story.say(f"{each.name}: {self._wait_ready(admin, each.name)}")

    def _wait_ready(self, admin: heroes.Heroes, name: str) -> str:
        until = time.monotonic() + READY_S
        while True:
            told = admin.client.call(api.SHOW, api.AskCluster(cluster_id=name))
            if told.status == "ready":
                queues = ", ".join(queue.name for queue in told.queues)
                return f"ready; queues {queues}; isolation by {told.capabilities.get('isolation')}"
            if told.status == "refused" or time.monotonic() > until:
                raise Unavailable(f"{name} is {told.status}: {told.reason}", hint="Look at the engine's log.")
            time.sleep(0.5)


def _install(cluster: Any, public_key: str) -> None:
    """What the centre does: allow the key for the account."""
    file = Path(cluster.home) / ".ssh" / "authorized_keys"
    kept = file.read_text() if file.exists() else ""
    if public_key not in kept:
        file.write_text(f"{kept.rstrip()}\n{public_key}\n".lstrip())
