"""What one transaction of the engine writes for many attempts: states, stories, settlements, retries, news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from heroes.api.errors import OverBudget
from heroes.api.units import Gibibytes, Money
from heroes_budget import service as budget
from heroes_core.work import Work
from heroes_telemetry import service as telemetry
from heroes_telemetry.model import EnergyFigure

from heroes_jobs import service, store
from heroes_jobs.following import Followed, instant
from heroes_jobs.model import AttemptNews, Energy, Phase
from heroes_jobs.settlement import GIB, bill, bounds, modelled
from heroes_jobs.states import Settle, Void

#: A settlement from what was merely observed becomes final after this.
FINAL_AFTER = timedelta(hours=72)


@dataclass(frozen=True)
class Closed:
    """What a settlement found."""

    cost: Money
    energy: Energy | None = None
    retried_as: str = ""
    elapsed_s: float = 0.0


def write(work: Work, changed: Sequence[Followed], retries: int) -> None:
    """Store `changed` attempts and everything that follows from their ends. `retries`: new attempts of a step after
    failures of the infrastructure, at most."""
    closed = {each.key: _close(work, each, retries) for each in changed if each.instructions}
    store.save(work, [_saved(work, each, closed.get(each.key)) for each in changed])
    store.tell(work, [row for each in changed for row in _told(each)])
    for each in changed:
        if each.phase is not each.told_phase or each.final:
            service.announce(work, _news(each, closed.get(each.key)))


def _close(work: Work, each: Followed, retries: int) -> Closed:
    for instruction in each.instructions:
        if isinstance(instruction, Settle):
            return _settle(work, each, instruction)
        if isinstance(instruction, Void):
            budget.void(work, each.reservation_key)
            return Closed(_free(each), retried_as=_retry(work, each, instruction, retries))
    return Closed(_free(each))


def _free(each: Followed) -> Money:
    return Money.zero(each.held.amount.currency)


def _settle(work: Work, each: Followed, ended: Settle) -> Closed:
    figure = _energy(work, each, ended)
    joules = figure.joules if figure else None
    charged = bill(each.held, each.spec.shape, ended.outcome, each.moved_bytes, joules)
    cost = budget.settle(work, each.reservation_key, charged.amount, charged.lines)
    energy = Energy(figure.joules, figure.method, figure.uncertainty) if figure else None
    return Closed(cost, energy, elapsed_s=charged.elapsed_s)


def _energy(work: Work, each: Followed, ended: Settle) -> EnergyFigure | None:
    spec, told = each.spec, each.energy_report()
    whose = {"organisation": spec.organisation, "user": spec.user}
    if told is not None:
        most = bounds(each.held, spec.shape, ended.outcome)
        figure = telemetry.store_report(work, each.key, told, bounds=most, **whose)
        if figure is not None:
            return figure
    figure = modelled(each.held, spec.shape, ended.outcome)
    if figure is not None:
        telemetry.store_figure(work, each.key, figure, **whose)
    return figure


def _retry(work: Work, each: Followed, ended: Void, retries: int) -> str:
    if not ended.retry or not each.wanted or each.ordinal > retries:
        return ""
    try:
        with work.connection.begin_nested():
            return service.retry(work, each.spec, each.held, each.key, each.ordinal + 1)
    except OverBudget as error:
        each.stories.append((work.now.timestamp(), f"not tried again: {error.message}"))
        return ""


def _saved(work: Work, each: Followed, closed: Closed | None) -> dict[str, Any]:
    row = each.saved()
    if closed is not None:
        row["_cost"], row["_elapsed_s"] = closed.cost.micros, closed.elapsed_s
        outcome, _ = each.ended_how()
        if outcome and outcome.provisional:
            row["_final_at"] = work.now + FINAL_AFTER
    return row


def _told(each: Followed) -> list[dict[str, Any]]:
    return [{"key": each.key, "at": instant(at), "status": each.phase, "text": text} for at, text in each.stories]


def _news(each: Followed, closed: Closed | None) -> AttemptNews:
    spec = each.spec
    outcome, left = each.ended_how()
    base: dict[str, Any] = {
        "organisation": spec.organisation, "instance": spec.instance, "step": spec.step, "index": spec.index,
        "cluster": spec.cluster, "queue": spec.queue, "user": spec.user,
    }  # fmt: skip
    reason = getattr(each.state, "reason", "") or getattr(each.state, "why", "")
    if closed and closed.retried_as:
        again = f"Tried again: {reason}"
        return AttemptNews(
            key=closed.retried_as, phase=Phase.WAITING, reason=again, ordinal=each.ordinal + 1, retry_of=each.key,
            **base,
        )  # fmt: skip
    return AttemptNews(
        key=each.key, phase=each.phase, reason=reason, cost=closed.cost if closed else None,
        energy=closed.energy if closed else None, exit_code=left.code if left else None,
        started_at=instant(outcome.started_at) if outcome else None,
        ended_at=instant(getattr(each.state, "at", None)), ordinal=each.ordinal, retry_of=each.retry_of,
        elapsed_s=closed.elapsed_s if closed else 0.0, submitted_at=each.submitted_at,
        max_rss_mib=outcome.max_rss_mib if outcome else 0.0, moved=Gibibytes(each.moved_bytes / GIB),
        files=each.files, **base,
    )  # fmt: skip
