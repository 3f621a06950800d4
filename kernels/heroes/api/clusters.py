"""Where jobs run: clusters and their queues, the accounts that the platform uses there, and how they are.

A cluster is enrolled by whoever may manage clusters: the platform makes a key pair, the centre installs the public key,
and the platform's engine probes the cluster before anything runs there. Names of clusters are never given again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import NAME
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import PowerModel, PriceModel

Slug = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
#: Names as they are looked up: what was never a name is simply not found.
Asked = Annotated[str, StringConstraints(min_length=1, max_length=63)]
Reason = Annotated[str, StringConstraints(max_length=300)]
Status = Literal["probing", "ready", "refused"]
Kind = Literal["machine", "slurm"]


class QueueTerms(Model):
    """What a queue costs, takes and admits. What is not given stays; of a new queue the rest comes from the probe."""

    partition: Asked | None = Field(default=None, description="the scheduler's own name of the queue")
    price: PriceModel | None = Field(default=None, description="a new version is kept beside the older ones")
    power: PowerModel | None = Field(default=None, description="power of one node, in watts")
    pue: float | None = Field(default=None, ge=1, le=5, description="power usage effectiveness of the centre")
    grid_zone: Annotated[str, StringConstraints(max_length=20)] | None = Field(
        default=None, description="zone of the electricity grid, e.g. ES"
    )
    carbon_g_per_kwh: float | None = Field(default=None, ge=0, le=5000, description="of that grid, in gCO2e")
    max_walltime_s: int | None = Field(default=None, ge=60, description="seconds a job may last")
    nodes: int | None = Field(default=None, ge=1, description="how many it has")
    cpus_per_node: int | None = Field(default=None, ge=1, description="CPUs that jobs may use")
    memory_mib_per_node: int | None = Field(default=None, ge=0, description="MiB; 0: not known")
    gpus_per_node: int | None = Field(default=None, ge=0, description="GPUs that jobs may use")
    exclusive: bool | None = Field(default=None, description="jobs get whole nodes, and pay them")
    max_jobs: int | None = Field(default=None, ge=0, description="of the platform's at once; 0: no limit")
    max_cores: int | None = Field(default=None, ge=0, description="of the platform's at once; 0: no limit")
    speed: float | None = Field(default=None, gt=0, le=1000, description="relative to the reference core")
    over_time_limit_s: int | None = Field(default=None, ge=0, description="what the site lets a job overrun")
    kill_wait_s: int | None = Field(default=None, ge=0, description="between the signals that end a job")
    boot_s: int | None = Field(default=None, ge=0, description="of a node that is started on demand")
    options: tuple[Annotated[str, StringConstraints(max_length=250)], ...] | None = Field(
        default=None, max_length=20, description="scheduler options of the queue, e.g. --account=abc"
    )
    visible_to: tuple[Slug, ...] | None = Field(
        default=None, max_length=100, description="organisations; none: the one that the account serves"
    )


class Queue(Model):
    """A queue as it is now. `closed` says why nothing starts there, and is empty when it is open."""

    name: str
    partition: str
    price: PriceModel
    power: PowerModel
    pue: float
    grid_zone: str
    carbon_g_per_kwh: float
    max_walltime_s: int
    nodes: int
    cpus_per_node: int
    memory_mib_per_node: int
    gpus_per_node: int
    exclusive: bool
    max_jobs: int
    max_cores: int
    speed: float
    visible_to: tuple[str, ...]
    closed: str


class Maintenance(Model):
    """A time in which no job starts; jobs that could reach into it are not started either."""

    begins: datetime
    ends: datetime
    reason: Reason = ""

    @model_validator(mode="after")
    def _forward(self) -> Maintenance:
        if self.begins.tzinfo is None or self.ends.tzinfo is None:
            raise ValueError("give times with a zone, e.g. 2026-05-01T08:00:00Z")
        if self.ends <= self.begins:
            raise ValueError("a maintenance window must end after it begins")
        return self


class Cluster(Model):
    """A cluster and how it is. `unreachable_since` is set while it does not answer; nothing is marked failed then."""

    name: str
    kind: Kind
    organisation: str = Field(description="whom its account serves")
    provider: str = Field(description="who is paid")
    status: Status
    reason: str = Field(description="why it is refused, or what the probe waits for")
    disabled: bool
    drained: bool
    maintenance: Maintenance | None
    unreachable_since: datetime | None
    queues: tuple[Queue, ...]
    capabilities: dict[str, Any] = Field(description="what the probe found")
    host: str = ""
    port: int = 0
    user: str = ""
    base: str = ""
    host_key: str = ""
    service_account: str = ""


class Clusters(Model):
    """One page of clusters, by name."""

    items: tuple[Cluster, ...]
    next: str | None = None


class AskCluster(Model):
    """A cluster that the caller's organisation may use or manages."""

    cluster_id: Asked


class EnrolCluster(Model):
    """A SLURM cluster that is reached over SSH. The account must accept the service account's public key."""

    name: Slug
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}$")] = Field(
        description="name or address of its login node"
    )
    port: int = Field(default=22, ge=1, le=65535)
    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")] = Field(
        description="the account there"
    )
    service_account: Slug = Field(description="whose key opens it")
    host_key: Annotated[str, StringConstraints(pattern=r"^$|^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]+$")] = Field(
        default="", description="as in known_hosts, type and base64; empty: the first one that the host shows is pinned"
    )
    base: Annotated[str, StringConstraints(pattern=r"^$|^(/[A-Za-z0-9_.-]+)+$")] = Field(
        default="", description="folder on storage that compute nodes see and that is not purged; empty: ~/heroes"
    )
    provider: Slug | None = Field(default=None, description="organisation that is paid; the enrolling one when absent")
    queues: dict[Slug, QueueTerms] = Field(default_factory=dict, description="terms by queue; others wait for a price")
    waits: dict[str, float] = Field(default_factory=dict, description="seconds that the engine waits, by name")


class ChangeCluster(Model):
    """What is not set stays. A disabled cluster is not asked anything; a drained one finishes what it has."""

    cluster_id: Asked
    disabled: bool | None = Field(default=None, description="nothing is asked of it")
    drained: bool | None = Field(default=None, description="no job starts, what runs goes on")
    maintenance: Maintenance | None = Field(default=None, description="a time in which no job starts")
    end_maintenance: bool = Field(default=False, description="cancel the maintenance window")


class AskQueue(Model):
    """A queue of a cluster."""

    cluster_id: Asked
    queue: Asked


class SetQueue(QueueTerms):
    """Terms of one queue; a queue of that name is made when there is none."""

    cluster_id: Asked
    queue: Slug


class ServiceAccount(Model):
    """What the platform uses at a centre. The private key never leaves the platform; install the public one."""

    name: str
    organisation: str
    public_key: str
    fingerprint: str
    created_at: datetime
    clusters: tuple[str, ...]


class ServiceAccounts(Model):
    """One page of service accounts, by name."""

    items: tuple[ServiceAccount, ...]
    next: str | None = None


class AddServiceAccount(Model):
    """A fresh key pair for the caller's organisation; the platform may make it for another."""

    name: Slug
    organisation: Slug | None = Field(default=None, description="whom it serves (default: your own)")


class AskServiceAccount(Model):
    """A service account."""

    service_account: Asked


MANAGE = ("clusters:manage", "platform:clusters")
_CLUSTERS, _ACCOUNTS = "/organization/admin/cluster/", "/organization/admin/service-account/"

LIST = Operation(
    name="cluster.list",
    method="GET",
    path=_CLUSTERS,
    request=Page,
    response=Clusters,
    right=SIGNED_IN,
    summary="List the clusters that the organisation may use or manages, and how they are.",
    verb="cluster list",
)
ENROL = Operation(
    name="cluster.enrol",
    method="POST",
    path=_CLUSTERS,
    request=EnrolCluster,
    response=Cluster,
    right=MANAGE,
    errors=(Conflict, InvalidSpec, NotAllowed, NotFound),
    summary="Enrol a SLURM cluster; it is probed before anything runs there.",
    verb="cluster enrol",
    creates=True,
)
SHOW = Operation(
    name="cluster.show",
    method="GET",
    path=_CLUSTERS + "{cluster_id}",
    request=AskCluster,
    response=Cluster,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show a cluster, its queues and what the probe found.",
    verb="cluster show",
)
REMOVE = Operation(
    name="cluster.remove",
    method="DELETE",
    path=_CLUSTERS + "{cluster_id}",
    request=AskCluster,
    response=Empty,
    right=MANAGE,
    errors=(Conflict, NotFound),
    summary="Delete a cluster that is drained or disabled; its name stays taken.",
    verb="cluster remove",
)
CHANGE = Operation(
    name="cluster.change",
    method="PATCH",
    path=_CLUSTERS + "{cluster_id}",
    request=ChangeCluster,
    response=Cluster,
    right=MANAGE,
    errors=(InvalidSpec, NotFound),
    summary="Disable, enable or drain a cluster, or set its maintenance window.",
    verb="cluster change",
)
PROBE = Operation(
    name="cluster.probe",
    method="POST",
    path=_CLUSTERS + "{cluster_id}/probe",
    request=AskCluster,
    response=Cluster,
    right=MANAGE,
    errors=(Conflict, NotFound),
    summary="Probe a cluster again, after something changed there.",
    verb="cluster probe",
)
SET_QUEUE = Operation(
    name="cluster.queue.set",
    method="POST",
    path=_CLUSTERS + "{cluster_id}/queue/{queue}",
    request=SetQueue,
    response=Cluster,
    right=MANAGE,
    errors=(InvalidSpec, NotFound),
    summary="Set a queue's price, power model, limits and who may see it.",
    verb="cluster queue set",
)
REMOVE_QUEUE = Operation(
    name="cluster.queue.remove",
    method="DELETE",
    path=_CLUSTERS + "{cluster_id}/queue/{queue}",
    request=AskQueue,
    response=Cluster,
    right=MANAGE,
    errors=(NotFound,),
    summary="Offer a queue no longer.",
    verb="cluster queue remove",
)
ACCOUNTS = Operation(
    name="service_account.list",
    method="GET",
    path=_ACCOUNTS,
    request=Page,
    response=ServiceAccounts,
    right=MANAGE,
    summary="List the accounts that the platform uses at centres.",
    verb="service-account list",
)
ADD_ACCOUNT = Operation(
    name="service_account.add",
    method="POST",
    path=_ACCOUNTS,
    request=AddServiceAccount,
    response=ServiceAccount,
    right=MANAGE,
    errors=(Conflict, NotAllowed, NotFound),
    summary="Make a key pair; the public key is for the centre to install.",
    verb="service-account add",
    creates=True,
)
REMOVE_ACCOUNT = Operation(
    name="service_account.remove",
    method="DELETE",
    path=_ACCOUNTS + "{service_account}",
    request=AskServiceAccount,
    response=Empty,
    right=MANAGE,
    errors=(Conflict, NotFound),
    summary="Delete a service account that no cluster uses; its private key is destroyed.",
    verb="service-account remove",
)
OPERATIONS = (
    LIST,
    ENROL,
    SHOW,
    REMOVE,
    CHANGE,
    PROBE,
    SET_QUEUE,
    REMOVE_QUEUE,
    ACCOUNTS,
    ADD_ACCOUNT,
    REMOVE_ACCOUNT,
)
