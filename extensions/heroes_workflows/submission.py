"""Submitting: in one transaction the run, its steps, the first attempt of each job with its worst case reserved at its
planned place, the audit record and the first event. Any refusal leaves nothing behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from heroes.api import workflows as api
from heroes.api.applications import Step
from heroes.api.ids import new_ulid
from heroes.api.units import Money
from heroes_applications.documents import order
from heroes_applications.model import StepPlan
from heroes_core.work import Caller, Work
from heroes_jobs import files
from heroes_jobs import service as jobs
from heroes_workflows import placing, service, store, views
from heroes_workflows.machine import StepCount, first
from heroes_workflows.model import Identity, Offer, places, prefix, spec
from heroes_workflows.placing import Chosen


def submit(work: Work, caller: Caller, request: api.Submit, *, again_of: str = "") -> api.Instance:
    """A run of what `request` names, where it was decided; OverBudget, NoPlacement and InvalidSpec leave nothing."""
    chosen = placing.choose(work, caller, request)
    run = Identity(new_ulid(), caller.organisation, caller.user, chosen.project, chosen.published.name)
    offers = placing.offers(work, caller, chosen)
    counts = _counts(order(chosen.published.template), chosen.plans)
    keys = _create(work, run, chosen, offers)
    _add(work, run, chosen, request, offers, keys, counts, again_of)
    begin = set(first(counts))
    jobs.start(work, [key for key, plan in zip(keys, chosen.plans, strict=True) if plan.name in begin])
    text = f"submitted to {places(offers)} by policy {chosen.policy}"
    store.tell(work, [{"instance": run.id, "number": 1, "kind": "submitted", "phase": "waiting", "text": text}])
    work.audit(
        caller.organisation, caller.actor, "workflow.submit", run.id,
        template=f"{run.template}@{chosen.published.version}", place=places(offers), decision=chosen.decision,
    )  # fmt: skip
    work.emit("workflow.submitted", caller.organisation, run.id, user=caller.user, template=run.template)
    return views.instance(service.find(work, caller, run.id))


def preview(work: Work, caller: Caller, request: api.Submit) -> api.Preview:
    """What `submit` would reserve, and every budget after it."""
    chosen = placing.choose(work, caller, request)
    offers = placing.offers(work, caller, chosen)
    amount = _sum(offers)
    return api.Preview(
        reserved=amount,
        steps=tuple(_planned(name, chosen.plans, offers) for name in dict.fromkeys(p.name for p in chosen.plans)),
        budgets=placing.budgets(work, caller, chosen.project, amount),
    )


def again(work: Work, caller: Caller, request: api.Again) -> api.Instance:
    """A run of one's own, or one that may be seen, once more: same version, parameters and inputs; decided anew."""
    row = service.find(work, caller, request.workflow_instance_id)
    wanted = api.Submit(
        template=row.template, version=row.version, parameters=row.parameters, inputs=row.inputs,
        policy=request.policy or row.policy, project=row.project, labels=row.labels,
    )  # fmt: skip
    return submit(work, caller, wanted, again_of=row.id)


def _create(work: Work, run: Identity, chosen: Chosen, offers: Sequence[Offer]) -> list[str]:
    """The first attempt of each job, its worst case reserved."""
    kept: dict[str, tuple[tuple[str, str], ...]] = {}
    keys = []
    for plan, offer in zip(chosen.plans, offers, strict=True):
        if plan.name not in kept:
            kept[plan.name] = files.keep(work, plan.files)
        wanted = spec(run, plan, offer, chosen.pin(plan.inputs), kept[plan.name])
        keys.append(jobs.create(work, wanted, offer.reservation))
    return keys


def _counts(steps: Sequence[Step], plans: Sequence[StepPlan]) -> list[StepCount]:
    jobs_of = Counter(plan.name for plan in plans)
    return [StepCount(step.name, step.needs, jobs_of[step.name]) for step in steps]


def _add(
    work: Work, run: Identity, chosen: Chosen, request: api.Submit, offers: Sequence[Offer], keys: Sequence[str],
    counts: Sequence[StepCount], again_of: str,
) -> None:  # fmt: skip
    """The run's rows."""
    position = {step.name: number for number, step in enumerate(counts)}
    amount = _sum(offers)
    store.add(
        work,
        {
            "id": run.id, "organisation": run.organisation, "user": run.user, "project": run.project,
            "template_organisation": chosen.published.organisation, "template": run.template,
            "version": chosen.published.version, "state": "waiting", "labels": dict(request.labels),
            "parameters": dict(chosen.parameters), "inputs": dict(chosen.inputs), "policy": chosen.policy,
            "decision": chosen.decision, "again_of": again_of, "place": places(offers), "created_at": work.now,
            "currency": amount.currency, "reserved": amount.micros, "jobs": len(keys), "events": 1,
        },
        [
            {
                "instance": run.id, "name": step.name, "position": position[step.name], "needs": list(step.needs),
                "jobs": step.jobs, "started": int(not step.needs),
            }
            for step in counts
        ],
        [
            {
                "instance": run.id, "position": position[plan.name], "index": plan.index, "step": plan.name,
                "attempt": key, "state": "waiting", "phase": "waiting" if not plan.needs else "held",
                "cluster": offer.cluster, "queue": offer.queue, "reserved": offer.reservation.amount.micros,
                "grams_per_joule": offer.grams_per_joule, "predicted": dict(offer.predicted),
                "prefix": prefix(run.id, plan),
            }
            for plan, offer, key in zip(chosen.plans, offers, keys, strict=True)
        ],
    )  # fmt: skip


def _sum(offers: Sequence[Offer]) -> Money:
    amounts = [offer.reservation.amount for offer in offers]
    return sum(amounts[1:], amounts[0])


def _planned(name: str, plans: Sequence[StepPlan], offers: Sequence[Offer]) -> api.PlannedJobs:
    mine = [offer for plan, offer in zip(plans, offers, strict=True) if plan.name == name]
    return api.PlannedJobs(step=name, jobs=len(mine), cluster=mine[0].cluster, queue=mine[0].queue, reserved=_sum(mine))
