"""What is done now and then: folders of jobs ended long ago removed, provisional settlements made final."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from heroes.api.units import Joules
from heroes_budget import service as budget
from heroes_core.work import Work
from heroes_jobs import store
from heroes_jobs.desk import Desk
from heroes_jobs.model import reservation_from_json, spec_from_json
from heroes_jobs.polling import outcome
from heroes_jobs.settlement import Charge, charge
from heroes_jobs.states import Outcome
from heroes_spawners.site import TERMINAL
from heroes_telemetry import service as telemetry

EVERY_S = 3600.0
TOGETHER = 200
SENTENCES = 10_000
#: Stories are kept this long.
STORIES = timedelta(days=90)


def keep_house(desk: Desk) -> bool:
    """Remove and finalise what is due, so many at a time; whether more may be due."""
    more = _finalise(desk)
    with desk.database.write() as work:
        more = store.forget_stories(work, work.now - STORIES, SENTENCES) == SENTENCES or more
    return _clean(desk) or more


def _clean(desk: Desk) -> bool:
    before = desk.database.clock.now() - timedelta(days=desk.settings.keep_days)
    with desk.database.read() as work:
        keys = [row.key for row in store.ended_before(work, desk.cluster, before, TOGETHER)]
    if not keys:
        return False
    desk.ask("remove", lambda: desk.site.remove(keys, desk.epoch))
    with desk.database.write() as work:
        store.mark_cleaned(work, keys)
    return len(keys) == TOGETHER


def _finalise(desk: Desk) -> bool:
    with desk.database.read() as work:
        rows = store.provisional(work, desk.cluster, work.now, TOGETHER)
    if not rows:
        return False
    keys, since = [row.key for row in rows], min(row.created_at for row in rows)
    accounts = desk.ask("accounting", lambda: desk.site.accounting(keys, since))
    with desk.database.write() as work:
        for row in rows:
            told = [each for each in accounts.get(row.key, ()) if each.job_id == row.job_id]
            _final(work, row, outcome(told) if told and told[-1].state in TERMINAL else None)
    return len(rows) == TOGETHER


def _final(work: Work, row: sa.Row[Any], told: Outcome | None) -> None:
    """What was observed stands, unless accounting came to know better: then the difference is a new entry."""
    final = _charge(work, row, told) if told else None
    if final is not None and final.amount.micros != row.cost:
        now = budget.correct(work, row.reservation_key, final.amount, "accounting differs from what was observed")
        work.audit(row.organisation, "engine", "jobs.corrected", row.key, was=row.cost, now=now.micros)
        work.emit(
            "jobs.corrected", row.organisation, row.key, instance=row.instance, step=row.step, index=row.position,
            was=row.cost, now=now.micros, currency=now.currency, elapsed_s=final.elapsed_s,
        )  # fmt: skip
        store.finalise(work, row.key, now.micros, final.elapsed_s)
        return
    store.finalise(work, row.key, row.cost, row.elapsed_s)


def _charge(work: Work, row: sa.Row[Any], told: Outcome) -> Charge:
    figure = telemetry.energy(work, row.key)
    joules: Joules | None = figure.joules if figure else None
    held, spec = reservation_from_json(row.reservation), spec_from_json(row.spec)
    return charge(held, spec.shape, told, row.moved_bytes, joules)
