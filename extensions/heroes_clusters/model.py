"""Clusters and queues as values, and the pure rules over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from heroes.api.units import PowerModel, PriceModel

#: Visible to every organisation: only where jobs of different organisations run as different users.
EVERYBODY = "*"
PROBING, READY, REFUSED = "probing", "ready", "refused"
MACHINE, SLURM = "machine", "slurm"


@dataclass(frozen=True)
class Queue:
    """A queue: its scheduler's name for it, what it costs and takes, its shape and limits (0: none of ours).

    `speed` is relative to the reference core; `priced` is False until somebody has set a price."""

    name: str
    partition: str = ""
    price: PriceModel = PriceModel()
    power: PowerModel = PowerModel()
    pue: float = 1.5
    grid_zone: str = ""
    carbon_g_per_kwh: float = 400.0
    max_walltime_s: int = 86400
    nodes: int = 1
    cpus_per_node: int = 1
    memory_mib_per_node: int = 0
    gpus_per_node: int = 0
    exclusive: bool = False
    max_jobs: int = 0
    max_cores: int = 0
    speed: float = 1.0
    over_time_limit_s: int = 0
    kill_wait_s: int = 30
    boot_s: int = 0
    options: tuple[str, ...] = ()
    visible_to: tuple[str, ...] = ()
    priced: bool = False


@dataclass(frozen=True)
class Maintenance:
    """A time in which no job starts."""

    begins: datetime
    ends: datetime
    reason: str = ""


@dataclass(frozen=True)
class Cluster:
    """A cluster. `organisation` is whom its account serves, `provider` who is paid; `capabilities` is what the probe
    found on login and compute nodes; `waits` are the engine's waits by name, in seconds; `revision` grows with each
    change of what is needed to reach it."""

    name: str
    organisation: str
    kind: str
    provider: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    status: str = READY
    reason: str = ""
    disabled: bool = False
    drained: bool = False
    maintenance: Maintenance | None = None
    unreachable_since: datetime | None = None
    link_mbps: float = 0.0
    host: str = ""
    port: int = 22
    user: str = ""
    base: str = ""
    host_key: str = ""
    service_account: str = ""
    accounting_kind: str = "full"
    waits: Mapping[str, float] = field(default_factory=dict)
    revision: int = 1


@dataclass(frozen=True)
class Place:
    """A queue of a cluster as an organisation sees it; `closed` tells why nothing starts there now ("": open)."""

    cluster: Cluster
    queue: Queue
    closed: str = ""


@dataclass(frozen=True)
class Agreement:
    """An organisation may use a queue ("*": every queue) of a cluster."""

    organisation: str
    cluster: str
    queue: str = EVERYBODY


def visible(cluster: Cluster, queue: Queue, organisation: str) -> bool:
    """Whether an organisation sees a queue: those named, or, where none is named, the one that the account serves."""
    named = queue.visible_to or (cluster.organisation,)
    return organisation in named or EVERYBODY in named


def closed(cluster: Cluster, queue: Queue, now: datetime, walltime_s: int = 0) -> str:
    """Why no job of `walltime_s` seconds starts on a queue now; "" when it does."""
    if cluster.status == PROBING:
        return f"{cluster.name} is being probed{': ' + cluster.reason if cluster.reason else ''}"
    if cluster.status == REFUSED:
        return f"{cluster.name} was refused: {cluster.reason}"
    if cluster.disabled:
        return f"{cluster.name} is disabled by its administrator"
    if cluster.drained:
        return f"{cluster.name} is drained: it finishes what it has and takes nothing new"
    if cluster.unreachable_since:
        return f"{cluster.name} is not reachable since {cluster.unreachable_since:%Y-%m-%d %H:%M} UTC"
    if not queue.priced:
        return f"no price is set for {cluster.name}/{queue.name} yet"
    return _maintained(cluster, now, walltime_s)


def stopped(cluster: Cluster, now: datetime) -> str:
    """Why nothing is handed over now that was planned there before; "" when it is. A drained cluster takes it still."""
    if cluster.disabled:
        return f"{cluster.name} is disabled by its administrator"
    return _maintained(cluster, now, 0)


def _maintained(cluster: Cluster, now: datetime, walltime_s: int) -> str:
    window = cluster.maintenance
    if window is None or now >= window.ends or now + timedelta(seconds=walltime_s) < window.begins:
        return ""
    told = f": {window.reason}" if window.reason else ""
    return f"{cluster.name} is in maintenance from {window.begins:%Y-%m-%d %H:%M} to {window.ends:%H:%M} UTC{told}"


def from_partition(name: str, found: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Queue:
    """A queue as the probe saw its partition, without a price."""
    return Queue(
        name=name,
        partition=name,
        max_walltime_s=int(found.get("max_walltime_s") or 365 * 86400),
        nodes=max(1, int(found.get("nodes") or 1)),
        cpus_per_node=max(1, int(found.get("cpus_per_node") or 1)),
        memory_mib_per_node=int(found.get("memory_mib_per_node") or 0),
        gpus_per_node=int(found.get("gpus_per_node") or 0),
        exclusive=bool(found.get("exclusive")),
        over_time_limit_s=int(found.get("over_time_limit_s") or capabilities.get("over_time_limit_s") or 0),
        kill_wait_s=int(capabilities.get("kill_wait_s") or 30),
        boot_s=int(found.get("boot_s") or 0),
    )


def with_terms(queue: Queue, terms: Mapping[str, Any]) -> Queue:
    """A queue with what is given changed; a price that differs gets the next version, the same price keeps its own."""
    changes = {name: value for name, value in terms.items() if value is not None}
    price = changes.pop("price", None)
    if price is not None:
        version = queue.price.version if not queue.priced else queue.price.version + 1
        same = queue.priced and price.model_copy(update={"version": queue.price.version}) == queue.price
        changes["price"] = queue.price if same else price.model_copy(update={"version": version})
        changes["priced"] = True
    return replace(queue, **changes)


def connectable(cluster: Cluster) -> bool:
    """Whether the engine asks the cluster anything."""
    return cluster.status == READY and not cluster.disabled
