"""The states of an attempt, and what follows from a new one: frozen values for the machine.

Times are seconds since 1970 by the engine's own clock. A state is all that the engine must remember: what to do next
is a function of it (`machine.wants`), so that nothing is forgotten when the engine dies.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from heroes_jobs.model import Phase
from heroes_spawners.site import State as JobState


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an attempt is being stopped, and the phase that it reaches when it is."""

    phase: str
    reason: str
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the scheduler says of an execution that has ended. `provisional`: observed, where nothing is accounted."""

    state: JobState
    started_at: float | None = None
    ended_at: float | None = None
    submitted_at: float | None = None
    elapsed_s: float = 0.0
    cpus: int = 0
    nodes: int = 0
    gpus: int = 0
    max_rss_mib: float = 0.0
    exit_code: int = 0
    provisional: bool = False
    #: The sentence for an end that the scheduler decided, where more is known than its state.
    why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queue last showed of a job."""

    state: JobState = JobState.PENDING
    started_at: float | None = None
    cpus: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """What the exit record says. Untrusted."""

    code: int
    elapsed_s: float = 0.0
    report: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """Made, reserved, not wanted yet."""

    phase: ClassVar[Phase] = Phase.HELD


@dataclass(frozen=True, slots=True)
class StagingIn:
    """Its inputs are on their way to the cluster; after a failed transfer not again before `until`."""

    since: float
    tries: int = 0
    until: float = 0.0
    phase: ClassVar[Phase] = Phase.STAGING_IN


@dataclass(frozen=True, slots=True)
class Waiting:
    """Ready to be submitted as `number`, not before `until`. `tried`: an earlier submission may still turn up."""

    since: float
    number: int = 1
    tried: bool = False
    lost: int = 0
    full: int = 0
    until: float = 0.0
    why: str = ""
    phase: ClassVar[Phase] = Phase.WAITING


@dataclass(frozen=True, slots=True)
class Submitting:
    """The intent is stored; the call is under way, or was when the engine died."""

    since: float
    number: int
    tried: bool = False
    lost: int = 0
    full: int = 0
    phase: ClassVar[Phase] = Phase.SUBMITTING


@dataclass(frozen=True, slots=True)
class Unsure:
    """Whether the scheduler has the submission is not known. `lost_id`: an id that it gave and shows no more."""

    since: float
    number: int
    lost: int = 0
    polls: int = 0
    asked_at: float = 0.0
    counted_at: float = 0.0
    lost_id: str = ""
    text: str = ""
    phase: ClassVar[Phase] = Phase.SUBMITTING


@dataclass(frozen=True, slots=True)
class Queued:
    """The scheduler gave an id; tentative until seen again (`confirmed`)."""

    since: float
    number: int
    job_id: str
    lost: int = 0
    seen_at: float = 0.0
    confirmed: bool = False
    why: str = ""
    phase: ClassVar[Phase] = Phase.QUEUED


@dataclass(frozen=True, slots=True)
class Running:
    """It holds the run claim, or the queue shows it running."""

    since: float
    number: int
    job_id: str
    seen: Seen = Seen()
    phase: ClassVar[Phase] = Phase.RUNNING


@dataclass(frozen=True, slots=True)
class Stopping:
    """Wanted no more. Until `started` is known its run claim is asked for; then it is cancelled until it has ended."""

    since: float
    number: int
    job_id: str
    stop: Stop
    started: bool = False
    asked_at: float = 0.0
    seen: Seen = Seen()
    phase: ClassVar[Phase] = Phase.RUNNING


@dataclass(frozen=True, slots=True)
class Ending:
    """It has ended, or is gone from the queue; its exit record and what the scheduler accounts are wanted."""

    since: float
    number: int
    job_id: str
    began: float
    exit: Exit | None = None
    outcome: Outcome | None = None
    known_at: float = 0.0
    stop: Stop | None = None
    seen: Seen = Seen()
    phase: ClassVar[Phase] = Phase.RUNNING


@dataclass(frozen=True, slots=True)
class StagingOut:
    """What it left is sealed and on its way to the bucket; `verdict` is what it ends with when that is done."""

    since: float
    job_id: str
    outcome: Outcome
    verdict: Stop
    exit: Exit | None = None
    tries: int = 0
    until: float = 0.0
    phase: ClassVar[Phase] = Phase.STAGING_OUT


@dataclass(frozen=True, slots=True)
class Ended:
    """Done, failed, cancelled or lost, for good."""

    at: float
    phase: Phase
    reason: str = ""


State = (
    Held | StagingIn | Waiting | Submitting | Unsure | Queued | Running | Stopping | Ending | StagingOut | Ended
)  # fmt: skip
STATES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Held, StagingIn, Waiting, Submitting, Unsure, Queued, Running, Stopping, Ending, StagingOut, Ended)
}


# ---------------------------------------------------------------------------------------------------- instructions


@dataclass(frozen=True, slots=True)
class Tell:
    """Add a sentence to the attempt's story."""

    text: str


@dataclass(frozen=True, slots=True)
class Void:
    """It never ran, or its centre lost it: give the whole reservation back. `retry`: a new attempt may follow."""

    retry: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """It ran: charge what the scheduler accounts, give the rest back."""

    outcome: Outcome
    exit: Exit | None


Instruction = Tell | Void | Settle
Step = tuple[State, tuple[Instruction, ...]]


# ------------------------------------------------------------------------------------------------- states as JSON

_INNER: dict[str, type[Any]] = {"stop": Stop, "verdict": Stop, "outcome": Outcome, "seen": Seen, "exit": Exit}
_NAMES: dict[type[Any], tuple[str, ...]] = {
    kind: tuple(each.name for each in fields(kind)) for kind in (*STATES.values(), Stop, Outcome, Seen, Exit)
}


def state_to_json(state: State) -> dict[str, Any]:
    """A plain JSON object; `state_from_json` is its inverse."""
    return {"is": type(state).__name__} | _plain(state)


def _plain(value: Any) -> dict[str, Any]:
    told = {}
    for name in _NAMES[type(value)]:
        item = getattr(value, name)
        told[name] = _plain(item) if type(item) in _NAMES else item
    return told


def state_from_json(told: dict[str, Any]) -> State:
    """The inverse of `state_to_json`."""
    values: dict[str, Any] = {}
    for name, item in told.items():
        if name == "is":
            continue
        inner = _INNER.get(name)
        values[name] = _value(inner, item) if inner and item is not None else item
    if "phase" in values:
        values["phase"] = Phase(values["phase"])
    state: State = STATES[told["is"]](**values)
    return state


def _value(kind: type[Any], told: dict[str, Any]) -> Any:
    if "state" in told:
        told = told | {"state": JobState(told["state"])}
    return kind(**told)
