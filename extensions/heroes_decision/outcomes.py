"""What happened, against what was predicted: kept for each job, counted for coverage, remembered in the rings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api import decision as api
from heroes.api.errors import InvalidSpec
from heroes.api.units import Grams, Joules, Money, Seconds
from heroes_core.store import read_instant
from heroes_core.work import Work
from heroes_decision import history, store
from heroes_decision.history import Job
from heroes_decision.model import LEVELS, Spread

_QUANTILES = ("q10", "q50", "q85", "q95")


@dataclass(frozen=True)
class Ended:
    """A job that ran to its end. `predicted` is what a quote put beside it; `run_s` wall time in seconds as accounted,
    `waited_s` seconds in the queue (None: not known), `memory_mib` the most it used on a node (0: not known)."""

    key: str
    organisation: str
    user: str
    template: str
    step: str
    place: str
    predicted: Mapping[str, Any]
    run_s: float
    cost: Money
    energy: Joules | None = None
    waited_s: float | None = None
    memory_mib: float = 0.0


def record(work: Work, ended: Ended) -> None:
    """Keep it, once for each key, with all others of this transaction; later decisions learn from it."""
    if ended.predicted and ended.run_s > 0:
        work.gather(record_all, ended)


def record_all(work: Work, held: Sequence[Ended]) -> None:
    """Keep many, and what is counted and remembered of them as if they had come one by one."""
    before = store.known(work, {each.key for each in held})
    fresh = list({each.key: each for each in held if each.key not in before}.values())
    store.add_outcomes(work, [(each.key, each.organisation, _facts(each)) for each in fresh])
    for organisation in sorted({each.organisation for each in fresh}):
        store.count(work, organisation, _coverage([each for each in fresh if each.organisation == organisation]))
    news: dict[str, list[list[float]]] = {}
    for each in fresh:
        for name, seen in _observed(each).items():
            news.setdefault(name, []).extend(seen)
    store.remember(work, news)


def _facts(ended: Ended) -> dict[str, Any]:
    told = ended.predicted
    joules = None if ended.energy is None else ended.energy.value
    grams = None if joules is None else joules / 3.6e6 * told["pue"] * told["g_per_kwh"]
    return {
        "template": ended.template, "step": ended.step, "place": ended.place, "currency": ended.cost.currency,
        "run": told["run"], "cost": told["cost"], "energy": told["energy"], "run_s": ended.run_s,
        "micros": ended.cost.micros, "joules": joules, "grams": grams,
    }  # fmt: skip


def _coverage(held: Sequence[Ended]) -> dict[str, tuple[int, int, int]]:
    """For each quantile: jobs, and how many of them ran, and cost, at most that."""
    return {
        name: (
            len(held),
            sum(each.run_s <= each.predicted["run"][number] for each in held),
            sum(each.cost.micros <= each.predicted["cost"][number] for each in held),
        )
        for number, name in enumerate(_QUANTILES)
    }


def _observed(ended: Ended) -> dict[str, list[list[float]]]:
    told = ended.predicted
    ratio = min(ended.run_s * told["speed"] / told["limit_s"], 4.0)
    modelled = told["watts"] * ended.run_s
    power = ended.energy.value / modelled if ended.energy is not None and modelled > 0 else 1.0
    memory = ended.memory_mib / told["memory_mib"] if told["memory_mib"] else 0.0
    seen = [ratio, min(max(power, 0.01), 10.0), min(memory, 1.0)]
    job = Job(ended.organisation, ended.user, ended.template, ended.step, int(told["asked"]))
    news = {name: [seen] for name in job.keys().values()}
    if ended.waited_s is not None:
        cluster, _, queue = ended.place.partition("/")
        news[history.place_key(cluster, queue, bool(told["free"]))] = [[max(ended.waited_s, 0.0)]]
    return news


def listing(work: Work, organisation: str, after: str, limit: int) -> api.Outcomes:
    """A page of outcomes, newest first, and the coverage of all."""
    rows = store.outcomes(work, organisation, _cursor(after), limit + 1)
    shown = rows[:limit]
    following = _mark(shown[-1]) if len(rows) > limit else None
    counted = tuple(
        api.Coverage(
            quantile=row.quantile, goal=dict(zip(_QUANTILES, LEVELS, strict=True))[row.quantile],
            run=row.run / row.jobs, cost=row.cost / row.jobs, jobs=row.jobs,
        )
        for row in store.covered(work, organisation)
    )  # fmt: skip
    return api.Outcomes(items=tuple(_told(row) for row in shown), coverage=counted, next=following)


def _told(row: sa.Row[Any]) -> api.Outcome:
    facts = row.facts
    run, energy = Spread(*facts["run"]), Spread(*facts["energy"])
    cost = Spread(*facts["cost"]).money(facts["currency"])
    joules, grams = facts["joules"], facts["grams"]
    within = {
        "run": run.q10 <= facts["run_s"] <= run.q95,
        "cost": cost.q10.micros <= facts["micros"] <= cost.q95.micros,
    }
    if joules is not None:
        within["energy"] = energy.q10 <= joules <= energy.q95
    return api.Outcome(
        at=row.at,
        template=facts["template"],
        step=facts["step"],
        place=facts["place"],
        predicted_run=run.estimate("s"),
        run=Seconds(facts["run_s"]),
        predicted_cost=cost,
        cost=Money(micros=facts["micros"], currency=facts["currency"]),
        predicted_energy=energy.estimate("J"),
        energy=None if joules is None else Joules(joules),
        carbon=None if grams is None else Grams(grams),
        within=within,
    )


def _mark(row: sa.Row[Any]) -> str:
    return f"{row.at.isoformat()} {row.key}"


def _cursor(after: str) -> tuple[datetime, str] | None:
    if not after:
        return None
    at, _, key = after.partition(" ")
    try:
        return read_instant(at), key
    except ValueError:
        raise InvalidSpec(f"after: {after!r} is no cursor.", hint="Use `next` of the page before.") from None
