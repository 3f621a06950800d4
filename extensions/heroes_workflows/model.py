"""Values of runs, and what a run's rows mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heroes.api.errors import InvalidSpec
from heroes_applications.model import StepPlan
from heroes_jobs.model import InputRef, JobSpec, Reservation

#: A run's results lie below this prefix of its user's own bucket.
RUNS = "runs"


@dataclass(frozen=True)
class Offer:
    """What a place asks for one job: the worst case to reserve, the figures it was chosen by, and the gCO2e of each
    joule there (the grid's, times the site's PUE)."""

    cluster: str
    queue: str
    reservation: Reservation
    predicted: Mapping[str, Any]
    grams_per_joule: float

    @property
    def place(self) -> str:
        """As people write it."""
        return f"{self.cluster}/{self.queue}"


@dataclass(frozen=True)
class Identity:
    """Whose run it is."""

    id: str
    organisation: str
    user: str
    project: str
    template: str


def folder(identity: str) -> str:
    """Where a run's results lie in its user's bucket."""
    return f"{RUNS}/{identity}/"


def prefix(identity: str, plan: StepPlan) -> str:
    """Where one job's results lie."""
    return folder(identity) + plan.folder


def spec(run: Identity, plan: StepPlan, offer: Offer, inputs: Iterable[InputRef], files: Files) -> JobSpec:
    """What the jobs module is asked to run: the plan at a place, results of the steps that it needs as folders."""
    results = tuple(InputRef(need, run.user, f"{folder(run.id)}{need}/") for need in plan.needs)
    return JobSpec(
        organisation=run.organisation,
        user=run.user,
        project=run.project or None,
        instance=run.id,
        template=run.template,
        step=plan.name,
        index=plan.index,
        cluster=offer.cluster,
        queue=offer.queue,
        argv=plan.argv,
        environment=dict(plan.variables),
        image=plan.image,
        environments=plan.environments,
        modules=plan.modules,
        parallel=plan.parallel,
        shape=plan.shape,
        inputs=(*inputs, *results),
        files=files,
        outputs=plan.outputs,
        output_bucket=run.user,
        output_prefix=prefix(run.id, plan),
        max_output_bytes=plan.max_output_bytes,
        predicted=dict(offer.predicted),
    )


Files = tuple[tuple[str, str], ...]


def places(offers: Iterable[Offer]) -> str:
    """The places of a run, in the order of its steps, each once."""
    return join_places(offer.place for offer in offers)


def join_places(names: Iterable[str]) -> str:
    """Several places in a few words."""
    different = list(dict.fromkeys(names))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def label(text: str) -> tuple[str, str] | None:
    """A filter by label; None for none."""
    name, equals, value = text.partition("=")
    if not text:
        return None
    if not equals or not name:
        raise InvalidSpec(f"label: {text!r} is no label", hint="Write it as name=value.", detail={"field": "label"})
    return name, value
