"""Probing clusters that were enrolled: the engine's part. The API only keeps what is to be probed, and the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from heroes.api.errors import Conflict, Corrupt, HeroesError, InvalidSpec, Unavailable
from heroes_clusters import accounts, service, store
from heroes_clusters.keys import Vault
from heroes_clusters.model import Cluster
from heroes_clusters.sites import endpoint
from heroes_core.work import Database, again
from heroes_spawners.slurm.probe import Findings, probe
from heroes_spawners.transport import SshTransport, Transport, fetch_host_key, fingerprint

#: How long after a probe that could not be made the next one is.
RETRY = timedelta(seconds=30)
LOG = logging.getLogger(__name__)


@dataclass
class Enrolments:
    """Probes what waits for it. `connect` opens a transport; tests give their own."""

    database: Database
    vault: Vault
    connect: Callable[[Cluster, str], Transport] = lambda one, key: SshTransport(endpoint(one, key), connections=1)
    cache: Path | None = None

    def step(self) -> int:
        """Probe every cluster whose time has come; how many were. Only the engine calls it, one thread at a time."""
        with self.database.read() as work:
            names = store.due_probes(work)
        for name in names:
            self._probe(name)
        return len(names)

    def _probe(self, name: str) -> None:
        with self.database.read() as work:
            one = service.get(work, name)
        try:
            with self.database.read() as work:
                key = accounts.private_key(work, self.vault, one.service_account)
            host_key = one.host_key or fetch_host_key(one.host, one.port)
            findings = self._ask(replace(one, host_key=host_key), key)
        except (Unavailable, Conflict, Corrupt) as error:
            self._later(one, str(error))
        except HeroesError as error:
            reason = str(error)
            self._keep(lambda work: service.refused(work, one, reason))
        else:
            facts = {**findings.facts, "host_key_fingerprint": fingerprint(host_key)}
            reach: dict[str, Any] = {"host_key": host_key, "base": findings.base}
            reach["accounting_kind"] = findings.facts["accounting"]
            self._keep(lambda work: service.probed(work, one, facts, **reach))

    def _ask(self, one: Cluster, key: str) -> Findings:
        transport = self.connect(one, key)
        try:
            partitions = [queue.partition for queue in self._queues(one)]
            return probe(transport, one.base, partitions)
        except (LookupError, ValueError, TypeError, ArithmeticError) as error:
            # all of it was said by the site: nobody else's probe may end with this
            told = f"what the cluster answers makes no sense ({type(error).__name__}: {error})"[:300]
            raise InvalidSpec(told, hint="Look at its login and compute nodes, then probe it again.") from error
        finally:
            transport.close()

    def _queues(self, one: Cluster) -> list[Any]:
        with self.database.read() as work:
            return list(service.queues(work, one.name).values())

    def _later(self, one: Cluster, reason: str) -> None:
        LOG.info("probe of %s put off: %s", one.name, reason)
        with self.database.write() as work:
            store.postpone_probe(work, one.name, one.revision, work.now + RETRY, reason)

    def _keep(self, keep: Callable[[Any], object]) -> None:
        def transaction() -> None:
            with self.database.write() as work:
                keep(work)

        try:
            again(transaction)
        except Conflict as error:
            LOG.info("%s", error)
