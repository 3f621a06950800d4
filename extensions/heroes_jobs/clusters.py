"""The enrolled clusters as the engine sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from heroes_clusters import service
from heroes_clusters.model import stopped
from heroes_core.work import Database
from heroes_jobs import store
from heroes_jobs.model import Rules
from heroes_jobs.ports import ClusterFacts, QueueFacts

#: Whether there is accounting is what a site is, not what it is told to be.
_WAITS = frozenset(field.name for field in fields(Rules)) - {"accounted"}
_COUNTS = ("polls", "storage_tries", "max_lost")
_LEAST = {"unsure_s": 8.0, "polls": 2.0, "silent_s": 8.0, "storage_tries": 1.0, "max_lost": 1.0, "cancel_s": 1.0}


@dataclass
class Enrolled:
    """Clusters of the platform's database. `rules` hold where a cluster has no waits of its own."""

    database: Database
    rules: Rules = Rules()

    def names(self) -> list[str]:
        """Those that may be asked, and those that hold attempts though nothing new goes there."""
        with self.database.read() as work:
            served = {one.name for one in service.served(work)}
            # one that was deleted in the moment in which a job was planned there cannot be asked: others can
            return sorted(served | {name for name in store.clusters_in_use(work) if service.exists(work, name)})

    def facts(self, cluster: str) -> ClusterFacts:
        """What is known of a cluster and its queues now."""
        with self.database.read() as work:
            one = service.get(work, cluster)
            queues = service.queues(work, cluster)
            closed = stopped(one, work.now)
        known = {
            name: QueueFacts(queue.partition or name, queue.max_jobs, queue.max_cores, queue.options)
            for name, queue in queues.items()
        }
        return ClusterFacts(cluster, one.organisation, known, _rules(self.rules, one.waits), closed)

    def reached(self, cluster: str, unreachable_since: datetime | None, trouble: str) -> None:
        """Note whether a cluster answers."""
        with self.database.write() as work:
            service.reached(work, cluster, unreachable_since, trouble)


def _rules(rules: Rules, waits: Mapping[str, float]) -> Rules:
    """The rules with a cluster's own waits in seconds, and counts, put in; never so short that a submission which is
    merely slow would be made twice."""
    known: dict[str, Any] = {name: max(value, _LEAST.get(name, 0.0)) for name, value in waits.items() if name in _WAITS}
    counts = {name: int(known[name]) for name in _COUNTS if name in known}
    return replace(rules, **{**known, **counts})
