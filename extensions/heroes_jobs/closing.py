"""What one transaction of the engine writes for many attempts: states, stories, settlements, retries, news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from heroes.api.errors import OverBudget
from heroes.api.units import Gibibytes, Money
from heroes_budget import service as budget
from heroes_budget.model import Bill
from heroes_core.work import Work
from heroes_jobs import service, store
from heroes_jobs.following import Followed, instant
from heroes_jobs.model import AttemptNews, Energy, Phase
from heroes_jobs.settlement import GIB, Charge, bounds, charge, modelled
from heroes_jobs.states import Settle, Void
from heroes_telemetry import service as telemetry
from heroes_telemetry.model import EnergyFigure

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
    failures of the infrastructure, at most. Locks the books, then attempts in the order of keys, then their runs."""
    changed = sorted(changed, key=lambda each: each.key)
    for each in changed:
        _cover(work, each)
    closed = _close(work, changed, retries)
    store.save(work, [_saved(work, each, closed.get(each.key)) for each in changed])
    store.tell(work, [row for each in changed for row in _told(each)])
    for each in changed:
        if each.phase is not each.told_phase or each.final:
            service.announce(work, _news(each, closed.get(each.key)))


def _cover(work: Work, each: Followed) -> None:
    """Reserve what a site allocated beyond what is held."""
    each.covered_as = each.uncovered = ""
    if each.outgrown is None or each.final:
        return
    try:
        each.covered_as = service.cover(work, each.key, each.reservation_key, each.spec, each.outgrown)
    except OverBudget as error:
        each.uncovered = error.message


def _close(work: Work, changed: Sequence[Followed], retries: int) -> dict[str, Closed]:
    """Settle and void together, so that every account is locked once and in order."""
    settled = [(each, ended) for each in changed for ended in each.instructions if isinstance(ended, Settle)]
    voided = [(each, ended) for each in changed for ended in each.instructions if isinstance(ended, Void)]
    closed = _settle(work, settled)
    if voided:
        budget.void_all(work, [each.reservation_key for each, _ in voided])
    for each, lost in voided:
        closed[each.key] = Closed(_free(each), retried_as=_retry(work, each, lost, retries))
    return closed


def _free(each: Followed) -> Money:
    return Money.zero(each.held.amount.currency)


def _settle(work: Work, settled: Sequence[tuple[Followed, Settle]]) -> dict[str, Closed]:
    if not settled:
        return {}
    energies = {each.key: _energy(work, each, ended) for each, ended in settled}
    charges = {each.key: _charge(each, ended, energies[each.key]) for each, ended in settled}
    bills = {each.reservation_key: Bill(charges[each.key].amount, charges[each.key].lines) for each, _ in settled}
    costs = budget.settle_all(work, bills)
    return {
        each.key: Closed(costs[each.reservation_key], _told_energy(energies[each.key]), "", charges[each.key].elapsed_s)
        for each, _ in settled
    }


def _charge(each: Followed, ended: Settle, figure: EnergyFigure | None) -> Charge:
    joules = figure.joules if figure else None
    return charge(each.held, each.spec.shape, ended.outcome, each.moved_bytes, joules)


def _told_energy(figure: EnergyFigure | None) -> Energy | None:
    return Energy(figure.joules, figure.method, figure.uncertainty) if figure else None


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
