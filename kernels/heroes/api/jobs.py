"""Operations on attempts: what a run's steps went through, their logs while they run, and the operator's way out."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from heroes.api.errors import Conflict, NotAllowed, NotFound, Unavailable
from heroes.api.model import LARGEST, Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import Money, Seconds


class ListAttempts(Page):
    """The attempts of a run."""

    instance: str = Field(max_length=64)


class Attempt(Model):
    """One intended execution of a step. `reason` says how it ended, or why it waits; `ordinal` counts the attempts of
    the step from 1. `halted`: our records disagree about it and it waits for an operator."""

    key: str
    instance: str
    step: str
    index: int
    ordinal: int
    retry_of: str
    cluster: str
    queue: str
    status: str
    reason: str
    job_id: str
    created_at: datetime
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    elapsed: Seconds
    reserved: Money
    cost: Money | None
    halted: bool


class Attempts(Model):
    """A page of attempts, oldest first."""

    items: tuple[Attempt, ...]
    next: str | None = None


class OneAttempt(Model):
    """Which attempt."""

    key: str = Field(max_length=64)


class Happening(Model):
    """One sentence of a story, and the attempt's status after it."""

    at: datetime
    status: str
    text: str


class Handing(Model):
    """One try to hand an attempt to the scheduler, and its answer ("" while there is none)."""

    number: int
    at: datetime
    answer: str
    job_id: str
    text: str


class Story(Model):
    """Everything that happened to an attempt."""

    attempt: Attempt
    story: tuple[Happening, ...]
    submissions: tuple[Handing, ...]


class ReadLog(Model):
    """Part of a log of a step: bytes from `offset`, at most `limit`."""

    instance: str = Field(max_length=64)
    step: str = Field(max_length=64)
    index: int = Field(default=0, ge=0, le=LARGEST)
    stream: Literal["stdout", "stderr"] = "stdout"
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=65536, ge=1, le=2**20)


class LogPart(Model):
    """A part of a log: `text` (bytes that are no UTF-8 replaced), where the next part begins, and whether the attempt
    has ended, so that an empty part is the end."""

    key: str
    text: str
    next_offset: int
    ended: bool


class Resolve(Model):
    """What becomes of an attempt whose submission stays in doubt: "lost" gives it up (nothing is charged), "resubmit"
    hands it to the scheduler once more (its run claim still lets it run once only)."""

    key: str = Field(max_length=64)
    outcome: Literal["lost", "resubmit"] = Field(description="lost: give it up; resubmit: hand it over again")


LIST = Operation(
    name="jobs.attempts", method="GET", path="/organization/workflow/instance/{instance}/attempts",
    request=ListAttempts, response=Attempts, right=SIGNED_IN, summary="List the attempts of a run's steps.",
    errors=(NotFound,), verb="run attempts",
)  # fmt: skip
STORY = Operation(
    name="jobs.story", method="GET", path="/organization/workflow/attempt/{key}", request=OneAttempt, response=Story,
    right=SIGNED_IN, summary="Tell everything that happened to an attempt.", errors=(NotFound,), verb="run story",
)  # fmt: skip
LOG = Operation(
    name="jobs.log", method="GET", path="/organization/workflow/instance/{instance}/log", request=ReadLog,
    response=LogPart, right=SIGNED_IN, summary="Read part of a step's stdout or stderr, also while it runs.",
    errors=(NotFound, Unavailable),
)  # fmt: skip
RESOLVE = Operation(
    name="jobs.resolve", method="POST", path="/heroes/admin/attempt/{key}/resolve", request=Resolve, response=Empty,
    right="platform:operate", summary="End a lasting doubt about an attempt: give it up, or hand it over again.",
    errors=(NotFound, Conflict, NotAllowed), verb="run resolve",
)  # fmt: skip

OPERATIONS = (LIST, STORY, LOG, RESOLVE)
