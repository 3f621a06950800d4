"""Decide, take a decision up, quote a place, decide again before a later step, and compare with what happened.

What is read from the object store is read first (`look_up`, `renew`), outside any transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from heroes.api import decision as api
from heroes.api.decision import Weights
from heroes.api.errors import Conflict, NoPlacement, NotFound, OverBudget
from heroes.api.ids import new_ulid
from heroes.api.units import Money
from heroes_applications import service as applications
from heroes_applications.model import StepPlan, render
from heroes_applications.service import Published
from heroes_budget import service as budget
from heroes_budget.model import Payer
from heroes_clusters import service as clusters
from heroes_clusters.model import MACHINE
from heroes_core.work import Caller, Database, Work
from heroes_data import service as data
from heroes_data.model import ObjectRef
from heroes_data.ports import ObjectStore
from heroes_decision import history, places, store
from heroes_decision.model import DEFAULT_POLICY, MODEL, POLICIES, Figures, Terms, pareto, scores, why_lost, why_won
from heroes_decision.places import Here, JobFigures, No
from heroes_identity import service as identity
from heroes_jobs import service as jobs
from heroes_jobs.model import Reservation
from heroes_marketplace import service as marketplace

#: How long a decision is good for.
VALID = timedelta(minutes=15)
#: A later step moves only when its place's score is better by this factor, and its pessimistic time too.
_WORTH_MOVING = 0.9

Objects = Mapping[tuple[str, str], ObjectRef]


@dataclass(frozen=True)
class Asked:
    """A request with what it names: the template's version, its jobs, the objects as they are now."""

    request: api.Decide
    published: Published
    plans: tuple[StepPlan, ...]
    objects: Objects

    @property
    def policy(self) -> str:
        """The policy that ranks."""
        return self.request.policy or DEFAULT_POLICY

    @property
    def weights(self) -> Weights:
        """Its weights."""
        return self.request.weights if self.policy == "weighted" else POLICIES[self.policy][1]


@dataclass(frozen=True)
class Quote:
    """What a place asks for one job: the worst case to reserve, and the figures that it is chosen by."""

    plan: StepPlan
    cluster: str
    queue: str
    reservation: Reservation
    predicted: Mapping[str, Any]
    grams_per_joule: float


@dataclass(frozen=True)
class _Candidate:
    here: Here
    jobs: tuple[JobFigures, ...]
    figures: Figures
    reserved: Money
    budget: tuple[api.BudgetEffect, ...] = ()


# ------------------------------------------------------------------------------------------- before the transaction


def look_up(database: Database, objects: ObjectStore, caller: Caller, request: api.Decide) -> Asked:
    """What a request names; InvalidSpec and NotFound name the field or the object that is wrong."""
    with database.read() as work:
        published = applications.find(work, caller, request.template, request.version)
        plans = tuple(render(published.template, request.parameters, request.inputs))
        wanted = {(each.bucket, each.key) for plan in plans for each in plan.inputs}
        for bucket in {bucket for bucket, _ in wanted}:
            data.check_readable(work, caller, bucket)
    found = {
        (bucket, key): data.object_info(objects, caller.organisation, bucket, key) for bucket, key in sorted(wanted)
    }
    return Asked(request, published, plans, found)


def renew(database: Database, objects: ObjectStore, caller: Caller, decision_id: str) -> Asked:
    """What a stored decision was made of, if that still holds; else Conflict names a fresh decision in its detail."""
    with database.read() as work:
        row = _find(work, caller, decision_id)
        now = work.now
    asked = look_up(database, objects, caller, api.Decide.model_validate(row.asked))
    if row.instance:
        raise Conflict(f"Decision {decision_id} was used for run {row.instance}.", hint="Decide again for another run.")
    changed = _changed(row, asked)
    if now < row.expires_at and not changed:
        return asked
    with database.write() as work:
        fresh = decide(work, caller, asked)
    reason = changed or "it is older than 15 minutes"
    raise Conflict(
        f"Decision {decision_id} holds no more: {reason}.",
        hint=f"Look at the fresh decision {fresh.id} and submit that.",
        detail={"decision": fresh.id, "reason": reason},
    )


def _changed(row: sa.Row[Any], asked: Asked) -> str:
    if row.template_digest != asked.published.digest:
        return "the template changed"
    for (bucket, key), ref in asked.objects.items():
        if row.inputs.get(f"{bucket}/{key}") != [ref.etag, ref.size]:
            return f"the input {bucket}/{key} changed"
    return ""


# --------------------------------------------------------------------------------------------------------- deciding


def decide(work: Work, caller: Caller, asked: Asked) -> api.Decision:
    """Every place that admits the workflow, best first, and why the others do not; stored, good for 15 minutes.

    NoPlacement, with each place's constraint and the smallest change, where none does."""
    candidates, rejected = _candidates(work, caller, asked)
    if not candidates:
        raise _no_placement(asked, rejected)
    answer = _answer(work, asked, candidates, rejected)
    inputs = {f"{bucket}/{key}": [ref.etag, ref.size] for (bucket, key), ref in asked.objects.items()}
    request = asked.request.model_copy(update={"version": asked.published.version})
    store.add(
        work, id=answer.id, organisation=caller.organisation, user=caller.user, asked=request.model_dump(mode="json"),
        answer=answer.model_dump_json(), template_digest=asked.published.digest, inputs=inputs,
        created_at=answer.created_at, expires_at=answer.expires_at,
    )  # fmt: skip
    return answer


def _candidates(work: Work, caller: Caller, asked: Asked) -> tuple[list[_Candidate], list[api.Rejection]]:
    only = set(asked.request.places)
    wanted = [
        each for each in clusters.usable_queues(work, caller.organisation)
        if not only or f"{each.cluster.name}/{each.queue.name}" in only
    ]  # fmt: skip
    _check_places(only, wanted, caller)
    fitting, rejected = [], []
    payer = _payer(work, caller.organisation, caller.user, asked.request.project)
    heres = _heres(work, caller.organisation, wanted)
    rings = _rings(work, caller.organisation, caller.user, asked.published.name, asked.plans, heres)
    for here in heres:
        found: No | _Candidate = places.refuse(here, asked.plans) or _estimate(
            caller.organisation, caller.user, asked.published.name, here, asked.plans, rings, asked.objects
        )
        if isinstance(found, _Candidate):
            found = _limits(work, payer, asked.request, found)
        if isinstance(found, No):
            rejected.append(_rejection(here.name, found))
        else:
            fitting.append(found)
    return fitting, rejected


def _check_places(only: set[str], wanted: Sequence[clusters.Place], caller: Caller) -> None:
    missing = sorted(only - {f"{each.cluster.name}/{each.queue.name}" for each in wanted})
    if missing:
        raise NotFound(
            f"{caller.organisation} has no place {', '.join(missing)}.", hint="List them with `heroes cluster list`."
        )


def _heres(work: Work, organisation: str, wanted: Iterable[clusters.Place]) -> list[Here]:
    """What is known of places now: their terms in the organisation's currency, free cores, measured transfers."""
    currency = identity.organisation(work, organisation).currency
    loads: dict[str, Mapping[str, tuple[int, int]]] = {}
    found = []
    for wanted_place in wanted:
        place = wanted_place
        cluster, queue = place.cluster, place.queue
        if cluster.name not in loads:
            loads[cluster.name] = jobs.load(work, cluster.name)
        free, total = loads[cluster.name].get(queue.partition, (-1, -1))
        rate = marketplace.exchange_rate(work, queue.price.currency, currency)
        if rate is None:
            place = replace(place, closed=f"no exchange rate from {queue.price.currency} to {currency} is set")
        terms = Terms(queue.price, queue.power, queue.pue, queue.carbon_g_per_kwh, currency, rate or Decimal(1))
        found.append(Here(place, terms, free, total, data.bandwidth(work, cluster.name).get("stage-in", 0.0)))
    return found


def _rings(
    work: Work, organisation: str, user: str, template: str, plans: Sequence[StepPlan], heres: Sequence[Here]
) -> dict[str, list[list[float]]]:
    """Every ring that these jobs at these places are predicted from, in one question."""
    names = {name for plan in plans for name in places.ring_job(organisation, user, template, plan).keys().values()}
    for here in heres:
        cluster, queue = here.place.cluster.name, here.place.queue.name
        names |= {history.place_key(cluster, queue, free) for free in (True, False)}
    return store.rings(work, names)


def _estimate(
    organisation: str, user: str, template: str, here: Here, plans: Sequence[StepPlan],
    rings: Mapping[str, Sequence[Sequence[float]]], objects: Objects,
) -> _Candidate:  # fmt: skip
    cluster, queue = here.place.cluster.name, here.place.queue.name
    own = here.place.cluster.kind == MACHINE
    waits = {free: history.wait(rings, cluster, queue, free, own=own) for free in (True, False)}
    made: dict[tuple[Any, ...], JobFigures] = {}
    held = []
    for plan in plans:
        moved = sum(objects[each.bucket, each.key].size for each in plan.inputs if (each.bucket, each.key) in objects)
        same = (plan.name, plan.shape, moved, plan.max_output_bytes)
        if same not in made:  # the jobs of a fan-out mostly differ in their arguments only
            told = history.known(rings, places.ring_job(organisation, user, template, plan))
            made[same] = places.job_figures(here, plan, told, waits, moved)
        held.append(replace(made[same], plan=plan))
    figures = places.workflow_figures(here, held)
    return _Candidate(here, tuple(held), figures, places.reserved(held, here.terms.currency))


def _limits(work: Work, payer: Payer, request: api.Decide, found: _Candidate) -> _Candidate | No:
    """The same place with the budgets before and after, unless it is too late, too dear, or beyond a budget."""
    if request.deadline_s is not None and (no := places.late(found.figures, request.deadline_s)):
        return no
    if request.max_cost is not None and (no := places.dear(found.reserved, request.max_cost)):
        return no
    lines = budget.preview(work, payer, found.reserved)
    for line in lines:
        if line.limit is not None and line.after > line.limit:
            over = (line.after - line.limit).exact()
            reason = f"at worst it costs {found.reserved.exact()}, {over} more than {line.name} has left"
            return No("budget", reason, f"Raise {line.name} by {over}, or ask for less.")
    effects = tuple(
        api.BudgetEffect(name=line.name, limit=line.limit, before=line.posted + line.pending, after=line.after)
        for line in lines
    )
    return replace(found, budget=effects)


def _payer(work: Work, organisation: str, user: str, project: str) -> Payer:
    if project:
        identity.check_project(work, organisation, user, project)
    return Payer(organisation, project or None, user)


def _rejection(place: str, no: No) -> api.Rejection:
    return api.Rejection(place=place, constraint=no.constraint, reason=no.reason, change=no.change)


def _no_placement(asked: Asked, rejected: Sequence[api.Rejection]) -> NoPlacement | OverBudget:
    if not rejected:
        hint = "Ask your organisation's administrator for an agreement with a cluster."
        return NoPlacement(f"No cluster is open to you for {asked.published.name}.", hint=hint)
    told = "; ".join(f"{each.place}: {each.reason}" for each in rejected)
    kind = OverBudget if {each.constraint for each in rejected} == {"budget"} else NoPlacement
    return kind(
        f"No place admits {asked.published.name}: {told}.",
        hint=" ".join(f"{each.place}: {each.change}" for each in rejected),
        detail={"rejected": [each.model_dump(mode="json") for each in rejected]},
    )


def _answer(
    work: Work, asked: Asked, candidates: Sequence[_Candidate], rejected: Sequence[api.Rejection]
) -> api.Decision:
    figures = [each.figures for each in candidates]
    points = scores(figures, asked.weights)
    front = pareto(figures)
    order = sorted(range(len(candidates)), key=lambda n: (points[n], candidates[n].figures.points(), n))
    best = figures[order[0]]
    alternatives = []
    for rank, number in enumerate(order, start=1):
        won = rank == 1
        why = why_won(asked.policy, len(order) == 1) if won else why_lost(figures[number], best, asked.weights)
        alternatives.append(_alternative(candidates[number], rank, points[number], front[number], why))
    return api.Decision(
        id=new_ulid(),
        template=asked.published.name,
        version=asked.published.version,
        policy=asked.policy,
        weights=asked.weights,
        created_at=work.now,
        expires_at=work.now + VALID,
        alternatives=tuple(alternatives),
        rejected=tuple(rejected),
    )


def _alternative(candidate: _Candidate, rank: int, score: float, front: bool, why: str) -> api.Alternative:
    here, figures = candidate.here, candidate.figures
    weakest = max(candidate.jobs, key=lambda job: ("class", "template", "user", "request").index(job.known.level))
    return api.Alternative(
        place=here.name,
        cluster=here.place.cluster.name,
        queue=here.place.queue.name,
        rank=rank,
        time=figures.time.estimate("s"),
        wait=figures.wait.estimate("s"),
        run=figures.run.estimate("s"),
        transfer=figures.transfer.estimate("s"),
        cost=figures.cost.money(here.terms.currency),
        energy=figures.energy.estimate("J"),
        carbon=figures.carbon.estimate("gCO2e"),
        memory=figures.memory.estimate("MiB"),
        reserved=candidate.reserved,
        score=score,
        pareto=front,
        why=why,
        evidence=api.Evidence(
            level=weakest.known.level, jobs=weakest.known.jobs, model=MODEL, power=here.terms.power.source
        ),
        budget=candidate.budget,
    )


# ------------------------------------------------------------------------------------------------- taking it up


def stored(work: Work, caller: Caller, decision_id: str) -> api.Decision:
    """A decision of one's own."""
    return api.Decision.model_validate_json(_find(work, caller, decision_id).answer)


def _find(work: Work, caller: Caller, decision_id: str) -> sa.Row[Any]:
    row = store.find(work, caller.organisation, caller.user, decision_id)
    if row is None:
        raise NotFound(f"You have no decision {decision_id}.", hint="Decide again with `heroes workflow decide`.")
    return row


def take(work: Work, caller: Caller, decision_id: str, place: str, instance: str) -> str:
    """Use a decision for a run, once, at one of its places ("": the best); the place."""
    decision = stored(work, caller, decision_id)
    offered = [each.place for each in decision.alternatives]
    chosen = place or offered[0]
    if chosen not in offered:
        hint = f"Choose one of {', '.join(offered)}."
        raise Conflict(f"Decision {decision_id} does not offer {chosen}.", hint=hint, detail={"offered": offered})
    if not store.take(work, decision_id, chosen, instance):
        raise Conflict(f"Decision {decision_id} was used before.", hint="Decide again for another run.")
    if chosen != offered[0]:
        work.audit(caller.organisation, caller.actor, "decision.override", instance, chosen=chosen, proposed=offered[0])
    return chosen


def quote(
    work: Work, organisation: str, user: str, template: str, plans: Sequence[StepPlan], place: str, objects: Objects
) -> list[Quote]:
    """The worst case and the prediction of each job at a place."""
    cluster, _, queue = place.partition("/")
    (here,) = _heres(work, organisation, [clusters.place(work, organisation, cluster, queue)])
    refused = places.refuse(here, plans)
    if refused is not None:
        told = _rejection(here.name, refused)
        raise NoPlacement(
            f"{place} no longer admits {template}: {told.reason}.", hint=told.change,
            detail={"rejected": [told.model_dump(mode="json")]},
        )  # fmt: skip
    rings = _rings(work, organisation, user, template, plans, [here])
    return _quotes(_estimate(organisation, user, template, here, plans, rings, objects))


def _quotes(candidate: _Candidate) -> list[Quote]:
    here = candidate.here
    return [
        Quote(
            plan=job.plan,
            cluster=here.place.cluster.name,
            queue=here.place.queue.name,
            reservation=job.reservation,
            predicted=places.predicted(job, here),
            grams_per_joule=here.terms.grams(1.0),
        )
        for job in candidate.jobs
    ]


@dataclass(frozen=True)
class Later:
    """A step that is about to start: whose it is, by which decision it was submitted, its jobs, where they are planned,
    and what its inputs weigh."""

    organisation: str
    user: str
    project: str
    template: str
    decision: str
    plans: tuple[StepPlan, ...]
    place: str
    reserved: Money
    objects: Objects


def reconsider(work: Work, later: Later) -> tuple[list[Quote], str] | None:
    """A better place for a later step, and why; None to stay. Data that its predecessors left count as at the place
    where they ran. It moves only for a clear gain, in the pessimistic case too, within the budgets and what its
    decision was limited to; from a place that was chosen against the proposal only when that is closed."""
    row = store.find(work, later.organisation, later.user, later.decision)
    assert row is not None, "a decision that a run was submitted by is kept"
    made, asked = api.Decision.model_validate_json(row.answer), api.Decide.model_validate(row.asked)
    wanted = [
        each for each in clusters.usable_queues(work, later.organisation)
        if not asked.places or f"{each.cluster.name}/{each.queue.name}" in asked.places
    ]  # fmt: skip
    heres = _heres(work, later.organisation, wanted)
    rings = _rings(work, later.organisation, later.user, later.template, later.plans, heres)
    found = [
        _estimate(
            later.organisation, later.user, later.template, here, later.plans, rings,
            {} if here.name.partition("/")[0] == later.place.partition("/")[0] else later.objects,
        )
        for here in heres
        if places.refuse(here, later.plans) is None
    ]  # fmt: skip
    staying = next((each for each in found if each.here.name == later.place), None)
    if not found or (staying is not None and row.place != made.alternatives[0].place):
        return None
    points = scores([each.figures for each in found], made.weights)
    best = found[points.index(min(points))]
    if best is staying or not _worth_moving(
        best, staying, dict(zip((e.here.name for e in found), points, strict=True))
    ):
        return None
    more = best.reserved - later.reserved
    if asked.max_cost is not None and more > Money.zero(more.currency):
        return None
    payer = Payer(later.organisation, later.project or None, later.user)
    lines = budget.preview(work, payer, more) if more > Money.zero(more.currency) else []
    if any(line.limit is not None and line.after > line.limit for line in lines):
        return None
    gain = "its place is closed" if staying is None else f"{best.here.name} scores better by policy {made.policy}"
    return _quotes(best), gain


def _worth_moving(best: _Candidate, staying: _Candidate | None, points: Mapping[str, float]) -> bool:
    if staying is None:
        return True
    clear = points[best.here.name] <= points[staying.here.name] * _WORTH_MOVING
    return clear and best.figures.time.q85 <= staying.figures.time.q85 * 1.05
