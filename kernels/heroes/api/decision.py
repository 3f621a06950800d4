"""Where a workflow could run, and what each place would take: time, wait, money, energy, carbon.

A decision is stored. Its id is good for 15 minutes, for the same user, template version, parameters and inputs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from heroes.api.applications import Slug, Variable
from heroes.api.errors import Conflict, InvalidSpec, NoPlacement, NotAllowed, NotFound
from heroes.api.model import LARGEST, Empty, Estimate, Model, MoneyEstimate, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import Grams, Joules, Money, Seconds

PolicyName = Literal["fastest", "cheapest", "greenest", "lowest-carbon", "weighted"]
PlaceName = Annotated[str, StringConstraints(max_length=130, pattern=r"^[^/]+/[^/]+$")]


class Weights(Model):
    """How much each figure counts in the policy `weighted`; only their ratios matter."""

    time: float = Field(default=1.0, ge=0, le=1000)
    cost: float = Field(default=1.0, ge=0, le=1000)
    energy: float = Field(default=1.0, ge=0, le=1000)
    carbon: float = Field(default=1.0, ge=0, le=1000)


class Decide(Model):
    """What is to be run, and what counts."""

    template: Slug
    version: int = Field(default=0, ge=0, le=LARGEST, description="version of the template; 0 is the latest")
    parameters: dict[Variable, Any] = {}
    inputs: dict[Variable, str] = Field(default={}, description="objects as bucket/key")
    policy: PolicyName | Literal[""] = Field(default="", description="how places are ranked; empty: the default")
    weights: Weights = Field(default=Weights(), description="for the policy `weighted`")
    deadline_s: float | None = Field(default=None, gt=0, description="seconds from now until it must be done")
    max_cost: Money | None = Field(default=None, description="most that it may cost")
    project: str = Field(default="", max_length=64, description="the project that pays; empty: none")
    places: tuple[PlaceName, ...] = Field(default=(), max_length=50, description="only these, as cluster/queue")


class BudgetEffect(Model):
    """A budget before and after the worst case of a run is reserved. `limit` is None where there is none."""

    name: str
    limit: Money | None
    before: Money
    after: Money


class Evidence(Model):
    """What a prediction rests on: the level of history (class, template, user or request), how many past jobs, the
    model that made it, and where the power figures come from."""

    level: Literal["class", "template", "user", "request"]
    jobs: int
    model: str
    power: str


class Alternative(Model):
    """A place where it could run. `time` is from submission until the results are there; `reserved` the worst case."""

    place: PlaceName
    cluster: str
    queue: str
    rank: int
    time: Estimate
    wait: Estimate
    run: Estimate
    transfer: Estimate
    cost: MoneyEstimate
    energy: Estimate
    carbon: Estimate
    memory: Estimate
    reserved: Money
    score: float = Field(description="the policy's measure, 1 is the best in every respect; less is better")
    pareto: bool = Field(description="no other place is better in something and worse in nothing")
    why: str = Field(description="why it lost; for the best, why it won")
    evidence: Evidence
    budget: tuple[BudgetEffect, ...]


class Rejection(Model):
    """A place where it cannot run: which constraint, why, and the smallest change that would admit it."""

    place: PlaceName
    constraint: str
    reason: str
    change: str


class Decision(Model):
    """The answer, best first."""

    id: str
    template: str
    version: int
    policy: PolicyName
    weights: Weights
    created_at: datetime
    expires_at: datetime
    alternatives: tuple[Alternative, ...]
    rejected: tuple[Rejection, ...]


class Policy(Model):
    """A way to rank places."""

    name: PolicyName
    summary: str
    default: bool


class Policies(Model):
    """Every way to rank places."""

    items: tuple[Policy, ...]


class GetDecision(Model):
    """Which decision."""

    decision_id: Annotated[str, StringConstraints(max_length=64)]


class Outcome(Model):
    """A job that ended, against what was predicted for it. `within` tells which intervals held what happened."""

    at: datetime
    template: str
    step: str
    place: PlaceName
    predicted_run: Estimate
    run: Seconds
    predicted_cost: MoneyEstimate
    cost: Money
    predicted_energy: Estimate
    energy: Joules | None
    carbon: Grams | None
    within: dict[str, bool]


class Coverage(Model):
    """How often what happened was at most the quantile, of so many jobs; `goal` is how often it should be."""

    quantile: str
    goal: float
    run: float
    cost: float
    jobs: int


class Outcomes(Model):
    """Predicted against actual, newest first, and how well the intervals hold over all of the organisation's jobs."""

    items: tuple[Outcome, ...]
    coverage: tuple[Coverage, ...]
    next: str | None = None


DECIDE = Operation(
    name="decision.decide", method="POST", path="/organization/decision/decide", request=Decide, response=Decision,
    right="submit", errors=(NoPlacement, InvalidSpec, NotFound, NotAllowed),
    summary="See where a workflow could run, and what each place would take.",
)  # fmt: skip
POLICIES = Operation(
    name="decision.policies", method="GET", path="/organization/decision/policies", request=Empty, response=Policies,
    right=SIGNED_IN, summary="The ways to rank places.", verb="workflow policies",
)  # fmt: skip
DECISION = Operation(
    name="decision.decision", method="GET", path="/organization/decision/{decision_id}", request=GetDecision,
    response=Decision, right="submit", errors=(NotFound, Conflict), summary="A decision made before.",
)  # fmt: skip
OUTCOMES = Operation(
    name="decision.outcomes", method="GET", path="/organization/decision/outcomes", request=Page, response=Outcomes,
    right=("workflows:manage", "billing"), errors=(NotAllowed,),
    summary="Predicted against actual for the organisation's jobs.", verb="workflow outcomes",
)  # fmt: skip

OPERATIONS = (DECIDE, POLICIES, DECISION, OUTCOMES)
