"""What the engine needs from others: clusters to open, data to move, and what is known of a cluster's queues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from heroes_data.model import Moved, ObjectRef, SealedFolder
from heroes_jobs.model import Rules
from heroes_spawners.site import Site


class Sites(Protocol):
    """Opens clusters by name; the same cluster gives the same site."""

    def open(self, cluster: str) -> Site:
        """The site; `NotFound` for an unknown cluster, `LinkDown` where it does not answer."""


class Mover(Protocol):
    """Moves data between the object store and a cluster, verified."""

    def stage_in(
        self,
        site: Site,
        cluster: str,
        organisation: str,
        user: str,
        objects: Sequence[ObjectRef],
        *,
        epoch: int | None = None,
    ) -> Moved:
        """See that each object stands below `data/`; `staged` tells where. `Refused` where one does not exist. With the
        lease's `epoch`, copies of what has gone from a folder are deleted."""

    def stage_out(
        self, site: Site, cluster: str, organisation: str, user: str, sealed: Sequence[SealedFolder]
    ) -> Moved:
        """Copy sealed folders to their buckets."""


@dataclass(frozen=True)
class QueueFacts:
    """What the engine must know of a queue. 0 jobs or cores: no limit of ours."""

    partition: str
    max_jobs: int = 0
    max_cores: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterFacts:
    """What the engine must know of a cluster: its owner (whose audit chain its strangers go to), queues, waits.
    `closed`: why nothing is handed over to it now, "" when it is open; what runs there is followed all the same."""

    name: str
    owner: str
    queues: Mapping[str, QueueFacts]
    rules: Rules = Rules()
    closed: str = ""


class Clusters(Protocol):
    """The clusters that the engine serves."""

    def names(self) -> list[str]:
        """Clusters that are enrolled."""

    def facts(self, cluster: str) -> ClusterFacts:
        """What is known of a cluster now."""

    def reached(self, cluster: str, unreachable_since: datetime | None, trouble: str) -> None:
        """Tell whether a cluster answers."""
