"""Clusters as `Site`s, for the engine: opened once, opened anew when what is needed to reach them has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from heroes.api.errors import LinkDown
from heroes_clusters import accounts, service
from heroes_clusters.keys import Vault
from heroes_clusters.model import MACHINE, READY, Cluster
from heroes_core.work import Database
from heroes_spawners.site import Site
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from heroes_spawners.transport import Endpoint, SshTransport

#: Opens the machine itself.
Opener = Callable[[Cluster], Site]


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
    _open: dict[str, tuple[int, Site]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, cluster: str) -> Site:
        """The site of a cluster, the same one each time. `NotFound`, or `LinkDown` while it is probed."""
        with self.database.read() as work:
            one = service.get(work, cluster)
            key = "" if one.kind == MACHINE else accounts.private_key(work, self.vault, one.service_account)
        with self._lock:
            known = self._open.get(cluster)
            if known is not None and known[0] == one.revision:
                return known[1]
            if known is not None:
                known[1].close()
            site = self.machine(one) if one.kind == MACHINE else self._slurm(one, key)
            self._open[cluster] = (one.revision, site)
            return site

    def _slurm(self, one: Cluster, key: str) -> Site:
        if one.status != READY:
            raise LinkDown(f"{one.name} is not probed yet", hint="Look at its status: heroes cluster show.")
        return SlurmSite(SshTransport(endpoint(one, key)), settings(one, self.cache))

    def close(self) -> None:
        """Give every connection back."""
        with self._lock:
            for _, site in self._open.values():
                site.close()
            self._open.clear()


def endpoint(one: Cluster, private_key: str) -> Endpoint:
    """Where and as whom a cluster is reached."""
    return Endpoint(one.host, one.user, one.host_key, private_key, one.port)


def settings(one: Cluster, cache: Path | None) -> SlurmSettings:
    """What is known of a cluster, as its site wants it."""
    facts = dict(one.capabilities)
    return SlurmSettings(one.base, one.accounting_kind, str(facts.get("arch") or ""), facts, cache)
