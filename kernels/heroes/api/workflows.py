"""Runs of workflows: submit, follow, cancel, fetch results, and what a run cost in money, energy and carbon.

An *instance* is a run: one version of a template with its parameters and inputs. Its *steps* are the template's; each
is one *job*, or one for each item of a list. A job is carried out by an attempt, whose key is a ULID.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from heroes.api.applications import Slug, Variable
from heroes.api.decision import PolicyName, Weights
from heroes.api.errors import Conflict, InvalidSpec, NoPlacement, NotAllowed, NotFound, OverBudget
from heroes.api.ids import ULID
from heroes.api.model import LARGEST, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.telemetry import Energy
from heroes.api.units import Grams, Money, Seconds

RunState = Literal["waiting", "running", "done", "failed", "cancelled"]
#: `void`: never run, because a step that it needs did not end well.
JobState = Literal["waiting", "running", "done", "failed", "cancelled", "void"]
RunId = Annotated[str, StringConstraints(pattern=f"^{ULID.pattern}$")]
LabelText = Annotated[str, StringConstraints(max_length=200)]


class Submit(Model):
    """A run to be: of a decision made before (`decision`, with the place that was chosen of it), or of a template with
    a policy, which then decides by itself."""

    decision: str = Field(default="", description="id of a decision; it brings template, parameters and inputs")
    cluster: str = Field(default="", description="where to run; empty: the best of the decision")
    queue: str = Field(default="", description="queue of the cluster; needed with `cluster`")
    template: str = Field(default="", description="name of a workflow, where there is no decision")
    version: int = Field(default=0, ge=0, le=LARGEST, description="version of the template; 0 is the latest")
    parameters: dict[Variable, Any] = Field(default={}, description="what the workflow is run with")
    inputs: dict[Variable, str] = Field(default={}, description="objects as bucket/key")
    policy: PolicyName | Literal[""] = Field(default="", description="how places are ranked; empty: the default")
    weights: Weights = Field(default=Weights(), description="for the policy `weighted`")
    deadline_s: float | None = Field(default=None, gt=0, description="seconds from now until it must be done")
    max_cost: Money | None = Field(default=None, description="most that it may cost")
    project: str = Field(default="", description="the project that pays and shares; empty: none")
    labels: dict[Slug, LabelText] = Field(default={}, max_length=20, description="words of your own to find it by")


class Instance(Model):
    """A run in a list. `cost` is what is charged so far, `reserved` the worst case agreed to at submission."""

    id: str
    template: str
    version: int
    state: RunState
    user: str
    project: str
    labels: dict[str, str]
    place: str
    policy: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    jobs: int
    jobs_done: int
    jobs_failed: int
    reserved: Money
    cost: Money
    energy: Energy | None
    carbon: Grams | None
    reason: str
    events: int


class ListInstances(Page):
    """Which runs to list, newest first."""

    state: RunState | None = Field(default=None, description="only those in this state")
    template: str = Field(default="", max_length=64, description="only those of this workflow")
    project: str = Field(
        default="", max_length=64, description="only those of this project; of one that you are in, everybody's"
    )
    label: str = Field(default="", max_length=264, description="name=value")


class ListAllInstances(ListInstances):
    """Which runs of the organisation to list."""

    user: str = Field(default="", max_length=64, description="only those of this user")


class ListTemplatesInstances(ListAllInstances):
    """Which runs of a template to list, of the whole organisation."""

    workflow_template_id: Slug


class Instances(Model):
    """One page of runs, newest first."""

    items: tuple[Instance, ...]
    next: str | None = None


class GetInstance(Model):
    """A run."""

    workflow_instance_id: RunId


class Step(Model):
    """A step of a run: how many jobs it has, and how they stand."""

    name: str
    needs: tuple[str, ...]
    jobs: int
    done: int
    failed: int
    state: JobState


class InstanceDetail(Model):
    """A run with its steps."""

    instance: Instance
    template_organisation: str
    decision: str
    again_of: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    steps: tuple[Step, ...]


class Job(Model):
    """One job of a run, by its newest attempt. `predicted` are the figures that its place was chosen by."""

    step: str
    index: int
    state: JobState
    phase: str
    attempt: str
    cluster: str
    queue: str
    reason: str
    exit_code: int | None
    started_at: datetime | None
    ended_at: datetime | None
    elapsed: Seconds | None
    reserved: Money
    cost: Money | None
    energy: Energy | None
    carbon: Grams | None
    predicted: dict[str, Any]


class ListJobs(Page):
    """Which jobs of a run to list, in the order in which they can run."""

    workflow_instance_id: RunId


class Jobs(Model):
    """One page of jobs."""

    items: tuple[Job, ...]
    next: str | None = None


class AskEvents(Model):
    """The events of a run after number `after`; waits for the next one, `wait` seconds at most."""

    workflow_instance_id: RunId
    after: int = Field(default=0, ge=0, le=LARGEST, description="number of the last event seen")
    wait: float = Field(default=0, ge=0, le=30, description="seconds")
    limit: int = Field(default=200, ge=1, le=1000)


class Event(Model):
    """Something that happened to a run. `kind`: submitted, job, decision, state, cancel."""

    number: int
    at: datetime
    kind: str
    step: str = ""
    index: int = 0
    phase: str = ""
    text: str = ""


class Events(Model):
    """Events in order; `next` is the number to ask after. `ended`: nothing more will come."""

    items: tuple[Event, ...]
    next: int
    state: RunState
    ended: bool


class Result(Model):
    """A file in the user's bucket that a job left."""

    step: str
    index: int
    bucket: str
    key: str


class ListResults(Page):
    """The results of a run, or of one step of it."""

    workflow_instance_id: RunId
    step: str = Field(default="", max_length=64, description="only those of this step")


class Results(Model):
    """One page of results; everything of the run lies below `bucket`/`prefix`."""

    bucket: str
    prefix: str
    items: tuple[Result, ...]
    next: str | None = None


class Comparison(Model):
    """A figure as predicted (median, and the interval from the 10 to the 95 % quantile) and as it was, in `unit`."""

    step: str
    index: int
    place: str
    figure: str
    unit: str
    predicted: float
    low: float
    high: float
    actual: float
    inside: bool


class Report(Model):
    """What a run cost, took and emitted, and how good its predictions were."""

    instance: Instance
    returned: Money = Field(description="reserved and not used")
    elapsed: Seconds | None
    comparisons: tuple[Comparison, ...]


class Again(Model):
    """Submit a run's template, parameters and inputs once more."""

    workflow_instance_id: RunId
    policy: PolicyName | Literal[""] = Field(default="", description="another policy than before")


class BudgetAfter(Model):
    """A budget before and after the worst case of a run."""

    name: str
    limit: Money | None
    used: Money
    after: Money
    fits: bool


class PlannedJobs(Model):
    """A step as it would be submitted."""

    step: str
    jobs: int
    reserved: Money


class Preview(Model):
    """What submitting would reserve, step by step, and every budget after it: submit `decision` for just that."""

    decision: str
    place: str
    reserved: Money
    steps: tuple[PlannedJobs, ...]
    budgets: tuple[BudgetAfter, ...]


SUBMIT = Operation(
    name="workflow.submit",
    method="POST",
    path="/organization/workflow/submit",
    request=Submit,
    response=Instance,
    right="submit",
    errors=(NotFound, InvalidSpec, NoPlacement, OverBudget, Conflict),
    summary="Submit a workflow: reserve its worst case and run it where it was decided.",
    verb="workflow submit",
    creates=True,
)
PREVIEW = Operation(
    name="workflow.preview",
    method="POST",
    path="/organization/workflow/preview",
    request=Submit,
    response=Preview,
    right="submit",
    errors=(NotFound, InvalidSpec, NoPlacement, Conflict),
    summary="Show what submitting would reserve, and every budget before and after.",
    verb="workflow preview",
)
LIST = Operation(
    name="workflow.instances",
    method="GET",
    path="/organization/workflow/instance",
    request=ListInstances,
    response=Instances,
    right=SIGNED_IN,
    errors=(InvalidSpec,),
    summary="List one's own runs, newest first; of a project that one is in, everybody's.",
    verb="run list",
)
LIST_ALL = Operation(
    name="workflow.all_instances",
    method="GET",
    path="/organization/admin/workflow/instance",
    request=ListAllInstances,
    response=Instances,
    right="workflows:manage",
    errors=(InvalidSpec, NotAllowed),
    summary="List all runs of the organisation, newest first.",
    verb="run all",
)
LIST_OF_TEMPLATE = Operation(
    name="workflow.template_instances",
    method="GET",
    path="/organization/admin/workflow/instance/{workflow_template_id}",
    request=ListTemplatesInstances,
    response=Instances,
    right="workflows:manage",
    errors=(InvalidSpec, NotAllowed),
    summary="List the organisation's runs of one workflow, newest first.",
)
GET = Operation(
    name="workflow.instance",
    method="GET",
    path="/organization/workflow/instance/{workflow_instance_id}",
    request=GetInstance,
    response=InstanceDetail,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show a run and its steps.",
    verb="run show",
)
JOBS = Operation(
    name="workflow.jobs",
    method="GET",
    path="/organization/workflow/instance/{workflow_instance_id}/jobs",
    request=ListJobs,
    response=Jobs,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="List the jobs of a run: where each runs, how it stands, what it cost.",
    verb="run jobs",
)
EVENTS = Operation(
    name="workflow.events",
    method="GET",
    path="/organization/workflow/instance/{workflow_instance_id}/events",
    request=AskEvents,
    response=Events,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show what happened to a run after an event, waiting for the next one.",
    verb="run events",
)
RESULTS = Operation(
    name="workflow.results",
    method="GET",
    path="/organization/workflow/instance/{workflow_instance_id}/results",
    request=ListResults,
    response=Results,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="List the files that a run left in its user's bucket.",
    verb="run results",
)
REPORT = Operation(
    name="workflow.report",
    method="GET",
    path="/organization/workflow/instance/{workflow_instance_id}/report",
    request=GetInstance,
    response=Report,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show what a run cost, its energy and carbon, and predicted against actual.",
    verb="run report",
)
CANCEL = Operation(
    name="workflow.cancel",
    method="DELETE",
    path="/organization/workflow/instance/{workflow_instance_id}",
    request=GetInstance,
    response=Instance,
    right=SIGNED_IN,
    errors=(NotFound, Conflict, NotAllowed),
    summary="Cancel a run; what has not begun costs nothing.",
    verb="run cancel",
)
AGAIN = Operation(
    name="workflow.again",
    method="POST",
    path="/organization/workflow/instance/{workflow_instance_id}/again",
    request=Again,
    response=Instance,
    right="submit",
    errors=(NotFound, InvalidSpec, NoPlacement, OverBudget),
    summary="Submit a run once more, as it was.",
    verb="run again",
    creates=True,
)

OPERATIONS = (
    SUBMIT, PREVIEW, LIST, LIST_ALL, LIST_OF_TEMPLATE, GET, JOBS, EVENTS, RESULTS, REPORT, CANCEL, AGAIN,
)  # fmt: skip
