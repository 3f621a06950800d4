"""Every error that HEROES raises, one tree, split by who can act on it.

HeroesError
 ├─ Refused       the user can act            4xx
 ├─ Unavailable   try again later             503
 ├─ Ambiguous     it may have happened        409, reconcile, never retry
 └─ Corrupt       our own records disagree    500, stop that aggregate

The client raises the same class that the server raised: `to_body` and `from_body` are each other's inverse.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HeroesError(Exception):
    """What went wrong (with the value), and what to do about it (`hint`)."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail or {}

    def __str__(self) -> str:
        stop = "" if not self.hint or self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.message}{stop} {self.hint}".strip()


class Refused(HeroesError):
    """The user can act: change the request and send it again."""

    status = 400


class OverBudget(Refused):
    """A budget or the organisation's credit does not cover the worst case."""

    status = 402


class NoPlacement(Refused):
    """No queue admits the job; `detail` names each queue, the constraint, and the smallest change."""

    status = 422


class NotSignedIn(Refused):
    """No token, or one that is expired, revoked or unknown."""

    status = 401


class NotAllowed(Refused):
    """The caller lacks the right, which `detail` names."""

    status = 403


class InvalidSpec(Refused):
    """A value is missing, of the wrong type or out of range; `detail` names the field."""

    status = 422


class NotFound(Refused):
    """Nothing of that name is visible to the caller."""

    status = 404


class Conflict(Refused):
    """The request disagrees with what stands now: an outdated decision, a name taken, a state that forbids it."""

    status = 409


class Unavailable(HeroesError):
    """Try again after `retry_after` seconds."""

    status = 503

    def __init__(
        self, message: str, *, hint: str = "", detail: dict[str, Any] | None = None, retry_after: float = 5.0
    ) -> None:
        super().__init__(message, hint=hint, detail={**(detail or {}), "retry_after": retry_after})
        self.retry_after = retry_after


class SchedulerDown(Unavailable):
    """The cluster answers, its scheduler does not."""


class LinkDown(Unavailable):
    """The cluster cannot be reached."""


class StoreBusy(Unavailable):
    """The database or the object store did not answer in time."""


class Ambiguous(HeroesError):
    """It may have happened; `detail["key"]` names the attempt. Never retry, ask."""

    status = 409


class SubmitUnknown(Ambiguous):
    """Whether the scheduler took the job is not known yet."""


class CancelUnknown(Ambiguous):
    """Whether the scheduler cancelled the job is not known yet."""


class Corrupt(HeroesError):
    """Our own records disagree; the aggregate is stopped until an operator looks."""

    status = 500


class LedgerImbalance(Corrupt):
    """The sum over all accounts is not zero, or an account disagrees with its entries."""


class InvalidTransition(Corrupt):
    """A state machine was asked for a step that it does not have; `detail["story"]` tells how it came there."""


class ChainBroken(Corrupt):
    """The audit chain was altered; `detail["position"]` names the first bad record."""


def _tree(root: type[HeroesError]) -> dict[str, type[HeroesError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def to_body(error: HeroesError) -> dict[str, Any]:
    """The JSON body of an error: `{"error": {"type", "message", "detail", "hint"}}`."""
    return {
        "error": {
            "type": type(error).__name__,
            "message": error.message,
            "detail": error.detail,
            "hint": error.hint,
        }
    }


def from_body(body: dict[str, Any], status: int = 500) -> HeroesError:
    """The error that `body` tells of; a type unknown here becomes the base class that `status` names."""
    told = body.get("error") or {}
    kind = _tree(HeroesError).get(told.get("type", ""))
    if kind is None:
        kind = Refused if 400 <= status < 500 else HeroesError
    detail = dict(told.get("detail") or {})
    message, hint = told.get("message") or f"HTTP {status}", told.get("hint") or ""
    if issubclass(kind, Unavailable):
        return kind(message, hint=hint, detail=detail, retry_after=float(detail.get("retry_after", 5.0)))
    return kind(message, hint=hint, detail=detail)
