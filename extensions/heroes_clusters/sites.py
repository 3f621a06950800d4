"""Clusters as `Site`s, for the engine: opened once, opened anew when what is needed to reach them has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heroes.api.errors import LinkDown
from heroes_clusters import accounts, service
from heroes_clusters.keys import Vault
from heroes_clusters.model import MACHINE, READY, Cluster, Queue
from heroes_core.work import Database
from heroes_spawners.site import Site
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from heroes_spawners.transport import Endpoint, SshTransport

#: Opens the machine itself.
Opener = Callable[[Cluster], Site]
#: By partition: idle_watts, busy_watts, gpu_watts, node_cpus.
Powers = Mapping[str, Mapping[str, float]]


def no_machine(one: Cluster) -> Site:
    """A platform that offers no machine of its own."""
    raise LinkDown(
        f"{one.name} is the machine itself, and this platform runs nothing on it", hint="Change the settings."
    )


@dataclass
class Sites:
    """Opens clusters by name. Decrypts keys: only in the engine's own process. `cache`: where built environments are
    kept on this side."""

    database: Database
    vault: Vault
    machine: Opener = no_machine
    cache: Path | None = None
    _open: dict[str, tuple[tuple[int, Powers], Site]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, cluster: str) -> Site:
        """The site of a cluster, the same one each time. `NotFound`, or `LinkDown` while it is probed."""
        with self.database.read() as work:
            one = service.get(work, cluster)
            key = "" if one.kind == MACHINE else accounts.private_key(work, self.vault, one.service_account)
            power = powers(service.queues(work, cluster).values())
        with self._lock:
            known = self._open.get(cluster)
            if known is not None and known[0] == (one.revision, power):
                return known[1]
            if known is not None:
                known[1].close()
            site = self.machine(one) if one.kind == MACHINE else self._slurm(one, key, power)
            self._open[cluster] = ((one.revision, power), site)
            return site

    def _slurm(self, one: Cluster, key: str, power: Powers) -> Site:
        if one.status != READY:
            raise LinkDown(f"{one.name} is not probed yet", hint="Look at its status: heroes cluster show.")
        return SlurmSite(SshTransport(endpoint(one, key)), settings(one, self.cache, power))

    def close(self) -> None:
        """Give every connection back."""
        with self._lock:
            for _, site in self._open.values():
                site.close()
            self._open.clear()


def endpoint(one: Cluster, private_key: str) -> Endpoint:
    """Where and as whom a cluster is reached."""
    return Endpoint(one.host, one.user, one.host_key, private_key, one.port)


def powers(queues: Iterable[Queue]) -> Powers:
    """What measures a job's energy on a node is told of it, by the scheduler's name of the queue: watts and CPUs."""
    return {
        queue.partition or queue.name: {
            "idle_watts": queue.power.idle.value,
            "busy_watts": queue.power.busy.value,
            "gpu_watts": queue.power.per_gpu.value,
            "node_cpus": float(queue.cpus_per_node),
            "uncertainty": 0.5 if queue.power.source == "assumed" else 0.2,
        }
        for queue in queues
    }


def settings(one: Cluster, cache: Path | None, power: Powers) -> SlurmSettings:
    """What is known of a cluster, as its site wants it."""
    facts = {**one.capabilities, "queues": power}
    return SlurmSettings(one.base, one.accounting_kind, str(facts.get("arch") or ""), facts, cache)
