"""Submitting: in one transaction the run, its steps, the first attempt of each job with its worst case reserved at its
planned place, the audit record and the first event. Any refusal leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from heroes.api import workflows as api
from heroes.api.decision import Weights
from heroes.api.errors import NotFound
from heroes.api.ids import new_ulid
from heroes_applications.documents import order
from heroes_applications.model import StepPlan
from heroes_core.work import Caller, Database, Work
from heroes_data.ports import ObjectStore
from heroes_decision import service as decision
from heroes_decision.service import Asked, Quote
from heroes_jobs import files
from heroes_jobs import service as jobs
from heroes_jobs.model import InputRef, JobSpec
from heroes_workflows import placing, service, store, views
from heroes_workflows.machine import StepCount, first
from heroes_workflows.model import prefix
from heroes_workflows.placing import Chosen


def submit(work: Work, caller: Caller, request: api.Submit, asked: Asked, *, again_of: str = "") -> api.Instance:
    """A run of what was looked up, where it was decided; OverBudget and NoPlacement leave nothing behind."""
    identity = new_ulid()
    chosen = placing.settle_on(work, caller, request, asked, identity)
    steps = _steps(asked)
    keys = _create(work, caller, identity, chosen)
    run = _run(work, caller, identity, chosen) | {"labels": dict(request.labels), "again_of": again_of}
    row = store.add(work, run, _step_rows(identity, steps), _job_rows(identity, steps, chosen, keys))
    begin = set(first(steps))
    jobs.start(work, [key for key, plan in zip(keys, asked.plans, strict=True) if plan.name in begin])
    text = f"submitted to {chosen.place} by policy {asked.policy}"
    store.tell(work, row, "submitted", phase="waiting", text=text)
    work.audit(
        caller.organisation, caller.actor, "workflow.submit", identity,
        template=f"{run['template']}@{run['version']}", place=chosen.place, decision=chosen.decision,
    )  # fmt: skip
    work.emit("workflow.submitted", caller.organisation, identity, user=caller.user, template=run["template"])
    return views.instance(service.find(work, caller, identity))


def preview(work: Work, caller: Caller, request: api.Submit, asked: Asked) -> api.Preview:
    """What `submit` would reserve, and every budget after it."""
    chosen = placing.settle_on(work, caller, request, asked, "")
    steps = dict.fromkeys(quote.plan.name for quote in chosen.quotes)
    return api.Preview(
        decision=chosen.decision,
        place=chosen.place,
        reserved=chosen.reserved,
        steps=tuple(_planned(name, chosen.quotes) for name in steps),
        budgets=placing.budgets(work, caller, chosen.project, chosen.reserved),
    )


def look_up_again(database: Database, objects: ObjectStore, caller: Caller, request: api.Again) -> Asked:
    """What a run was made of, looked up afresh: same version, parameters and inputs, to be decided anew."""
    with database.read() as work:
        wanted = as_submitted(work, caller, request)
    return placing.look_up(database, objects, caller, wanted)


def as_submitted(work: Work, caller: Caller, request: api.Again) -> api.Submit:
    """The submission that makes the same run again."""
    row = service.find(work, caller, request.workflow_instance_id)
    return api.Submit(
        template=row.template, version=row.version, parameters=row.parameters, inputs=row.inputs,
        policy=request.policy or row.policy, weights=_weights(work, caller, row.decision),
        project=row.project, labels=row.labels,
    )  # fmt: skip


def _weights(work: Work, caller: Caller, made: str) -> Weights:
    try:
        return decision.stored(work, caller, made).weights
    except NotFound:  # somebody else's run
        return Weights()


def _create(work: Work, caller: Caller, identity: str, chosen: Chosen) -> list[str]:
    """The first attempt of each job, its worst case reserved."""
    kept: dict[str, tuple[tuple[str, str], ...]] = {}
    wanted = []
    for quote in chosen.quotes:
        name = quote.plan.name
        if name not in kept:
            kept[name] = files.keep(work, quote.plan.files)
        wanted.append((_spec(caller, identity, chosen, quote, kept[name]), quote.reservation))
    return jobs.create_all(work, wanted)


def _spec(caller: Caller, identity: str, chosen: Chosen, quote: Quote, kept: tuple[tuple[str, str], ...]) -> JobSpec:
    """What the jobs module is asked to run: inputs as they are now, results of the steps that it needs as folders."""
    plan = quote.plan
    return JobSpec(
        organisation=caller.organisation,
        user=caller.user,
        project=chosen.project or None,
        instance=identity,
        template=chosen.asked.published.name,
        step=plan.name,
        index=plan.index,
        cluster=quote.cluster,
        queue=quote.queue,
        argv=plan.argv,
        environment=dict(plan.variables),
        image=plan.image,
        environments=plan.environments,
        modules=plan.modules,
        parallel=plan.parallel,
        shape=plan.shape,
        inputs=(*_pinned(chosen.asked, plan), *placing.results_of(identity, caller.user, plan.needs)),
        files=kept,
        outputs=plan.outputs,
        output_bucket=caller.user,
        output_prefix=prefix(identity, plan),
        max_output_bytes=plan.max_output_bytes,
        predicted=dict(quote.predicted),
    )


def _pinned(asked: Asked, plan: StepPlan) -> list[InputRef]:
    refs = [(each.name, asked.objects[each.bucket, each.key]) for each in plan.inputs]
    return [InputRef(name, ref.bucket, ref.key, ref.etag, ref.size) for name, ref in refs]


def _steps(asked: Asked) -> list[StepCount]:
    jobs_of = Counter(plan.name for plan in asked.plans)
    return [StepCount(step.name, step.needs, jobs_of[step.name]) for step in order(asked.published.template)]


def _run(work: Work, caller: Caller, identity: str, chosen: Chosen) -> dict[str, Any]:
    """The run's row."""
    asked, published = chosen.asked, chosen.asked.published
    return {
        "id": identity, "organisation": caller.organisation, "user": caller.user, "project": chosen.project,
        "template_organisation": published.organisation, "template": published.name, "version": published.version,
        "state": "waiting", "parameters": dict(asked.request.parameters), "inputs": dict(asked.request.inputs),
        "objects": {f"{bucket}/{key}": [ref.etag, ref.size] for (bucket, key), ref in asked.objects.items()},
        "policy": asked.policy, "decision": chosen.decision, "place": chosen.place, "created_at": work.now,
        "currency": chosen.reserved.currency, "reserved": chosen.reserved.micros, "jobs": len(chosen.quotes),
        "events": 1,
    }  # fmt: skip


def _step_rows(identity: str, steps: Sequence[StepCount]) -> list[Mapping[str, Any]]:
    return [
        {
            "instance": identity, "name": step.name, "position": position, "needs": list(step.needs),
            "jobs": step.jobs, "started": int(not step.needs),
        }
        for position, step in enumerate(steps)
    ]  # fmt: skip


def _job_rows(
    identity: str, steps: Sequence[StepCount], chosen: Chosen, keys: Sequence[str]
) -> list[Mapping[str, Any]]:
    position = {step.name: number for number, step in enumerate(steps)}
    return [
        {
            "instance": identity, "position": position[quote.plan.name], "index": quote.plan.index,
            "step": quote.plan.name, "attempt": key, "state": "waiting",
            "phase": "held" if quote.plan.needs else "waiting", "cluster": quote.cluster, "queue": quote.queue,
            "reserved": quote.reservation.amount.micros, "grams_per_joule": quote.grams_per_joule,
            "predicted": dict(quote.predicted), "prefix": prefix(identity, quote.plan),
        }
        for quote, key in zip(chosen.quotes, keys, strict=True)
    ]  # fmt: skip


def _planned(name: str, quotes: Sequence[Quote]) -> api.PlannedJobs:
    mine = [quote.reservation.amount for quote in quotes if quote.plan.name == name]
    return api.PlannedJobs(step=name, jobs=len(mine), reserved=placing.total(mine))
