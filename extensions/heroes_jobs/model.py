"""Values of the jobs module: what an attempt is asked to run, what it holds in money, and the news of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from heroes.api.units import Gibibytes, Joules, Money, PowerModel, PriceModel
from heroes_spawners.site import Image, Shape


class Phase(enum.StrEnum):
    """What users see of an attempt."""

    HELD = "held"
    WAITING = "waiting"
    STAGING_IN = "staging-in"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    STAGING_OUT = "staging-out"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


FINAL = frozenset({Phase.DONE, Phase.FAILED, Phase.CANCELLED, Phase.LOST})


class Target(enum.StrEnum):
    """What is wanted of an attempt; written by services, read by the engine."""

    HELD = "held"
    RUNNING = "running"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class InputRef:
    """An object (or a folder: key ending in "/") of a bucket, mounted read-only at `in/<name>`.

    `etag` and `size` pin the version that was asked for; "" and -1: whatever stands there at stage-in."""

    name: str
    bucket: str
    key: str
    etag: str = ""
    size: int = -1


@dataclass(frozen=True)
class OutputSpec:
    """Files that a job is expected to leave: a glob relative to its working folder; `max_bytes` for each, 0: no cap."""

    glob: str
    required: bool = True
    max_bytes: int = 0


@dataclass(frozen=True)
class JobSpec:
    """One step of one instance, at one place. `predicted` is kept beside it for comparing afterwards."""

    organisation: str
    user: str
    instance: str
    step: str
    cluster: str
    queue: str
    argv: tuple[str, ...]
    shape: Shape = Shape()
    project: str | None = None
    template: str = ""
    index: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    image: Image | None = None
    environments: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    parallel: bool = False
    inputs: tuple[InputRef, ...] = ()
    #: Small files beside the inputs at `in/<name>`: (name, digest); `heroes_jobs.files` keeps their content.
    files: tuple[tuple[str, str], ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    output_bucket: str = ""
    output_prefix: str = ""
    max_output_bytes: int = 10 * 2**30
    options: tuple[str, ...] = ()
    predicted: Mapping[str, Any] = field(default_factory=dict)

    def at(self, cluster: str, queue: str, **changes: Any) -> JobSpec:
        """The same work at another place."""
        return replace(self, cluster=cluster, queue=queue, **changes)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `spec_from_json` is its inverse."""
        told = {name: getattr(self, name) for name in _PLAIN}
        told["environment"] = dict(self.environment)
        told["predicted"] = dict(self.predicted)
        told["shape"] = asdict(self.shape)
        told["image"] = asdict(self.image) if self.image else None
        told["inputs"] = [[i.name, i.bucket, i.key, i.etag, i.size] for i in self.inputs]
        told["files"] = [list(each) for each in self.files]
        told["outputs"] = [[o.glob, o.required, o.max_bytes] for o in self.outputs]
        return told


_NESTED = {"environment", "predicted", "shape", "image", "inputs", "files", "outputs"}
_PLAIN = tuple(f.name for f in fields(JobSpec) if f.name not in _NESTED)
_TUPLES = ("argv", "environments", "modules", "options")


def spec_from_json(told: Mapping[str, Any]) -> JobSpec:
    """The inverse of `JobSpec.to_json`."""
    plain = {name: told[name] for name in _PLAIN if name in told}
    plain |= {name: tuple(plain[name]) for name in _TUPLES}
    return JobSpec(
        **plain,
        environment=told["environment"],
        predicted=told["predicted"],
        shape=Shape(**told["shape"]),
        image=Image(**told["image"]) if told["image"] else None,
        inputs=tuple(InputRef(*row) for row in told["inputs"]),
        files=tuple((name, digest) for name, digest in told.get("files", ())),
        outputs=tuple(OutputSpec(*row) for row in told["outputs"]),
    )


@dataclass(frozen=True)
class Reservation:
    """The worst case of an attempt at its place, and what its settlement is computed from: `price` is pinned,
    `rate` is units of the payer's currency (that of `amount`) per unit of the price's. `power` and `cpus_per_node` of
    the queue bound what energy reports may claim, and stand in where there is none. `cores` and `nodes` are what the
    site is expected to allocate; 0: not known."""

    provider: str
    amount: Money
    price: PriceModel
    lines: Mapping[str, int] = field(default_factory=dict)
    rate: Decimal = Decimal(1)
    power: PowerModel | None = None
    cpus_per_node: int = 0
    cores: int = 0
    nodes: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain JSON object; `reservation_from_json` is its inverse."""
        return {
            "provider": self.provider,
            "amount": [self.amount.micros, self.amount.currency],
            "price": self.price.model_dump(mode="json"),
            "lines": dict(self.lines),
            "rate": str(self.rate),
            "power": self.power.model_dump(mode="json") if self.power else None,
            "cpus_per_node": self.cpus_per_node,
            "cores": self.cores,
            "nodes": self.nodes,
        }


def reservation_from_json(told: Mapping[str, Any]) -> Reservation:
    """The inverse of `Reservation.to_json`."""
    micros, currency = told["amount"]
    return Reservation(
        provider=told["provider"],
        amount=Money(micros=micros, currency=currency),
        price=PriceModel.model_validate(told["price"]),
        lines=told["lines"],
        rate=Decimal(told["rate"]),
        power=PowerModel.model_validate(told["power"]) if told["power"] else None,
        cpus_per_node=told["cpus_per_node"],
        cores=told.get("cores", 0),
        nodes=told.get("nodes", 0),
    )


@dataclass(frozen=True)
class Energy:
    """Energy of an attempt, how it was found and its relative uncertainty (0.3: 30 %)."""

    joules: Joules
    method: str
    uncertainty: float


@dataclass(frozen=True)
class AttemptNews:
    """An attempt began, progressed or ended. Told to every registered hook in the transaction that makes it true.

    A retry after an infrastructure failure is told as news of a new key with `retry_of` set, in place of an end of
    the old one. `cost` and the figures below it are there when the attempt ended."""

    key: str
    organisation: str
    instance: str
    step: str
    index: int
    phase: Phase
    reason: str = ""
    cost: Money | None = None
    energy: Energy | None = None
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cluster: str = ""
    queue: str = ""
    user: str = ""
    ordinal: int = 1
    retry_of: str = ""
    #: Wall time in seconds as accounted, and what was moved in and out.
    elapsed_s: float = 0.0
    submitted_at: datetime | None = None
    max_rss_mib: float = 0.0
    moved: Gibibytes = Gibibytes(0)
    #: Paths of delivered files relative to the output prefix.
    files: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the attempt has ended for good."""
        return self.phase in FINAL


@dataclass(frozen=True)
class Rules:
    """How long the engine waits on a cluster, in seconds, before it believes something. Settings of a cluster."""

    #: A submission must have been without an id this long before the next one of its attempt.
    unsure_s: float = 60.0
    #: That many traces without a sign of it, each at least `gap_s` after the last.
    polls: int = 3
    gap_s: float = 30.0
    #: How often to ask for a trace of an unsure submission.
    ask_s: float = 5.0
    #: A claim never seen at the site may be tried again with the same number after this.
    reclaim_s: float = 5.0
    #: A pending job is tentative until seen again this much later.
    tentative_s: float = 10.0
    #: Terminal without a record: listed again this long before it counts as lost.
    relist_s: float = 90.0
    #: Gone from the queue and not accounted as ended: 2 x SlurmdTimeout.
    silent_s: float = 600.0
    #: Wait after the centre's own submit limit, and after its disk was full.
    limit_s: float = 15.0
    storage_s: float = 60.0
    storage_tries: int = 5
    #: Submissions of one attempt that the centre may lose.
    max_lost: int = 5
    #: Cancel again when a job is still there after this.
    cancel_s: float = 30.0
    #: Pause after a failed transfer, doubled at each, up to the second.
    transfer_s: float = 5.0
    transfer_most_s: float = 300.0
    #: Whether the scheduler keeps accounting.
    accounted: bool = True

    def transfer_pause(self, tries: int) -> float:
        """Seconds before a failed transfer is tried again."""
        return float(min(self.transfer_s * 2 ** min(tries, 10), self.transfer_most_s))

    def without_accounting(self) -> Rules:
        """The rules where only queue and run claims tell: every such wait three times as long."""
        return replace(
            self,
            accounted=False,
            unsure_s=3 * self.unsure_s,
            relist_s=3 * self.relist_s,
            silent_s=3 * self.silent_s,
        )
