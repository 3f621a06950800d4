"""Where a run's jobs go: by the decision that was taken up, and once more before each later step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from heroes.api import decision as decision_api
from heroes.api import workflows as api
from heroes.api.errors import InvalidSpec, OverBudget, Refused, Unavailable
from heroes.api.registry import parse
from heroes.api.units import Money
from heroes_applications import service as applications
from heroes_applications.model import StepPlan, render
from heroes_budget import service as budget
from heroes_budget.model import Payer
from heroes_core.work import Caller, Database, Work
from heroes_data.model import ObjectRef
from heroes_data.ports import ObjectStore
from heroes_decision import service as decision
from heroes_decision.service import Asked, Quote
from heroes_jobs import service as jobs
from heroes_jobs.model import InputRef
from heroes_workflows import store
from heroes_workflows.model import folder, join_places


@dataclass(frozen=True)
class Chosen:
    """What is submitted: the request with what it names, the decision, its place, and what each job costs there."""

    asked: Asked
    decision: str
    place: str
    quotes: tuple[Quote, ...]

    @property
    def project(self) -> str:
        """The project that pays, or ""."""
        return self.asked.request.project

    @property
    def reserved(self) -> Money:
        """The worst case of all jobs together."""
        return total([quote.reservation.amount for quote in self.quotes])


def look_up(database: Database, objects: ObjectStore, caller: Caller, request: api.Submit) -> Asked:
    """What a submission names, read before its transaction; Conflict (with a fresh decision) where a decision that it
    takes up holds no more."""
    if not request.decision:
        return decision.look_up(database, objects, caller, _wanted(request))
    for field in ("template", "parameters", "inputs", "policy", "deadline_s", "max_cost"):
        if getattr(request, field):
            raise InvalidSpec(
                f"{field}: decision {request.decision} brings its own",
                hint=f"Leave {field} away, or decide again with it.", detail={"field": field},
            )  # fmt: skip
    asked = decision.renew(database, objects, caller, request.decision)
    if request.project not in ("", asked.request.project):
        raise InvalidSpec(
            f"project: decision {request.decision} was made for {asked.request.project or 'no project'}",
            hint="Decide again for that project.", detail={"field": "project"},
        )  # fmt: skip
    return asked


def _wanted(request: api.Submit) -> decision_api.Decide:
    if not request.template:
        raise InvalidSpec(
            "template: neither a workflow nor a decision was named", hint="Name one of them.",
            detail={"field": "template"},
        )  # fmt: skip
    place = _place(request)
    brought = ("template", "version", "parameters", "inputs", "policy", "weights", "deadline_s", "max_cost", "project")
    asked = {name: getattr(request, name) for name in brought}
    made: decision_api.Decide = parse(decision_api.Decide, asked | {"places": (place,) if place else ()})
    return made


def _place(request: api.Submit) -> str:
    if bool(request.cluster) != bool(request.queue):
        raise InvalidSpec(
            "cluster and queue belong together", hint="Give both, or neither for the best place.",
            detail={"field": "queue"},
        )  # fmt: skip
    return f"{request.cluster}/{request.queue}" if request.cluster else ""


def settle_on(work: Work, caller: Caller, request: api.Submit, asked: Asked, instance: str) -> Chosen:
    """Take up the decision, or decide now; with `instance` "" only look."""
    made = request.decision or decision.decide(work, caller, asked).id
    if instance:
        place = decision.take(work, caller, made, _place(request), instance)
    else:
        place = _place(request) or decision.stored(work, caller, made).alternatives[0].place
    quotes = decision.quote(
        work, caller.organisation, caller.user, asked.published.name, asked.plans, place, asked.objects
    )
    return Chosen(asked, made, place, tuple(quotes))


def budgets(work: Work, caller: Caller, project: str, amount: Money) -> tuple[api.BudgetAfter, ...]:
    """Every budget that would pay, before and after."""
    lines = budget.preview(work, Payer(caller.organisation, project or None, caller.user), amount)
    return tuple(
        api.BudgetAfter(
            name=line.name, limit=line.limit, used=line.posted + line.pending, after=line.after,
            fits=line.limit is None or line.after <= line.limit,
        )
        for line in lines
    )  # fmt: skip


def total(amounts: Sequence[Money]) -> Money:
    """The sum of at least one amount."""
    return sum(amounts[1:], amounts[0])


# ------------------------------------------------------------------------------------------------------- later steps


def reconsider(work: Work, organisation: str, identity: str, step: str) -> str:
    """Decide again for a step that is about to start. What was decided where it moves, "" where it stays: a refusal of
    money, or a place that is gone, never stops a step that is paid for where it is planned."""
    run = store.find(work, organisation, identity)
    assert run is not None, "whoever asks holds its row"
    try:
        with work.connection.begin_nested():
            return _move(work, run, step)
    except OverBudget as refused:
        return f"{step} stays where it was planned: {refused.message}"
    except (Refused, Unavailable):
        return ""


def _move(work: Work, run: sa.Row[Any], step: str) -> str:
    rows = [row for row in store.jobs(work, run.id) if row.step == step]
    objects = _objects(run) | _results(work, run, step)
    found = decision.reconsider(
        work,
        decision.Later(
            organisation=run.organisation, user=run.user, project=run.project, template=run.template,
            decision=run.decision, plans=_plans(work, run, step), place=f"{rows[0].cluster}/{rows[0].queue}",
            reserved=Money(micros=sum(row.reserved for row in rows), currency=run.currency), objects=objects,
        ),
    )  # fmt: skip
    if found is None:
        return ""
    quotes, why = found
    for row, quote in zip(rows, quotes, strict=True):
        changes = {"predicted": dict(quote.predicted)}
        jobs.place(work, row.attempt, quote.cluster, quote.queue, changes, quote.reservation)
        store.change_job(
            work, row, cluster=quote.cluster, queue=quote.queue, predicted=changes["predicted"],
            reserved=quote.reservation.amount.micros, grams_per_joule=quote.grams_per_joule,
        )  # fmt: skip
    _note_places(work, run)
    return f"{step} moves to {quotes[0].cluster}/{quotes[0].queue}: {why}"


def _note_places(work: Work, run: sa.Row[Any]) -> None:
    rows = store.jobs(work, run.id)
    place = join_places(f"{row.cluster}/{row.queue}" for row in rows)
    store.set_places(work, run.id, place, sum(row.reserved for row in rows))


def _plans(work: Work, run: sa.Row[Any], step: str) -> tuple[StepPlan, ...]:
    """The step's jobs; what they read of earlier steps counts as an input."""
    template = applications.stored(work, run.template_organisation, run.template, run.version)
    plans = [plan for plan in render(template, run.parameters, run.inputs) if plan.name == step]
    return tuple(replace(plan, inputs=(*plan.inputs, *results_of(run.id, run.user, plan.needs))) for plan in plans)


def results_of(identity: str, user: str, needs: Sequence[str]) -> tuple[InputRef, ...]:
    """The results of earlier steps, as inputs: folders in the user's own bucket."""
    return tuple(InputRef(need, user, f"{folder(identity)}{need}/") for need in needs)


def _objects(run: sa.Row[Any]) -> dict[tuple[str, str], ObjectRef]:
    """The inputs of the run, as they were when it was submitted."""
    found = {}
    for name, (etag, size) in run.objects.items():
        bucket, _, key = name.partition("/")
        found[bucket, key] = ObjectRef(bucket, key, etag, size)
    return found


def _results(work: Work, run: sa.Row[Any], step: str) -> dict[tuple[str, str], ObjectRef]:
    """What the steps before this one moved, as the weight of their results."""
    needs = next(row.needs for row in store.steps(work, run.id) if row.name == step)
    moved = store.moved_bytes(work, run.id)
    refs = results_of(run.id, run.user, needs)
    return {(ref.bucket, ref.key): ObjectRef(ref.bucket, ref.key, "", moved.get(ref.name, 0)) for ref in refs}
