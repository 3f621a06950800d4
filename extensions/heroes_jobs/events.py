"""What can happen to an attempt: frozen values for the machine. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass

from heroes_jobs.states import Exit, Outcome, Seen
from heroes_spawners.site import Refusal


@dataclass(frozen=True, slots=True)
class Started:
    """It is wanted now. `inputs`: it has some to stage in."""

    at: float
    inputs: bool


@dataclass(frozen=True, slots=True)
class Staged:
    """Its inputs stand at the cluster."""

    at: float


@dataclass(frozen=True, slots=True)
class StageFailed:
    """They do not. `final`: trying again would not help."""

    at: float
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """It is submitted in this turn."""

    at: float


@dataclass(frozen=True, slots=True)
class SubmitAccepted:
    """The scheduler took it."""

    at: float
    job_id: str


@dataclass(frozen=True, slots=True)
class SubmitDeclined:
    """The scheduler refused it, for certain. `reason` is the sentence for the user."""

    at: float
    kind: Refusal
    reason: str


@dataclass(frozen=True, slots=True)
class SubmitUnsure:
    """It may have been submitted."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """The site knows no claim of this submission."""

    at: float


@dataclass(frozen=True, slots=True)
class ClaimSeen:
    """The claim of this submission carries a job id."""

    at: float
    job_id: str


@dataclass(frozen=True, slots=True)
class NoTrace:
    """Claimed, and yet neither queue nor accounting nor run claim know of it."""

    at: float


@dataclass(frozen=True, slots=True)
class InQueue:
    """The queue shows it. `hopeless`: the sentence for a pending reason that never clears, else ""."""

    at: float
    job_id: str
    seen: Seen
    why: str = ""
    hopeless: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """A whole, fresh queue does not show it. That never means finished."""

    at: float


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A job holds its run claim."""

    at: float
    job_id: str


@dataclass(frozen=True, slots=True)
class RecordSeen:
    """It wrote its exit record."""

    at: float
    job_id: str
    exit: Exit


@dataclass(frozen=True, slots=True)
class Accounted:
    """Accounting says that it has ended."""

    at: float
    job_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Tick:
    """A poll of the cluster succeeded; only then does time count."""

    at: float


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants it stopped. `why`: the sentence with which it fails, where that is not a person's wish."""

    at: float
    actor: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class GaveUp:
    """`taken`: its run claim is a tombstone, it never runs. Else it had started, and was told to stop."""

    at: float
    taken: bool


@dataclass(frozen=True, slots=True)
class Delivered:
    """What it left stands in the bucket. `fault`: the sentence for outputs missing or refused, else ""."""

    at: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryFailed:
    """It does not."""

    at: float
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """An operator decided: "lost" (it never ran, or nobody will know) or "resubmit"."""

    at: float
    how: str
    actor: str


Event = (
    Started | Staged | StageFailed | Chosen | SubmitAccepted | SubmitDeclined | SubmitUnsure | Unclaimed | ClaimSeen
    | NoTrace | InQueue | Absent | RunSeen | RecordSeen | Accounted | Tick | CancelAsked | GaveUp | Delivered
    | DeliveryFailed | Resolved
)  # fmt: skip
