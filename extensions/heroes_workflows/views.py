"""Rows as the contract shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from heroes.api import workflows as api
from heroes.api.telemetry import Energy
from heroes.api.units import Grams, Joules, Money, Seconds
from heroes_workflows.machine import StepCount


def instance(row: sa.Row[Any]) -> api.Instance:
    """One run, as lists show it."""
    joules = row.joules
    energy = None
    if joules is not None:
        doubt = row.joules_doubt / joules if joules else 0.0
        energy = Energy(joules=Joules(joules), method=row.energy_method, uncertainty=doubt)
    return api.Instance(
        id=row.id, template=row.template, version=row.version, state=row.state, user=row.user, project=row.project,
        labels=row.labels, place=row.place, policy=row.policy, created_at=row.created_at, started_at=row.started_at,
        ended_at=row.ended_at, jobs=row.jobs, jobs_done=row.jobs_done, jobs_failed=row.jobs_failed,
        reserved=Money(micros=row.reserved, currency=row.currency),
        cost=Money(micros=row.cost, currency=row.currency),
        energy=energy, carbon=None if row.grams is None else Grams(row.grams), reason=row.reason, events=row.events,
    )  # fmt: skip


def detail(row: sa.Row[Any], steps: Sequence[StepCount]) -> api.InstanceDetail:
    """One run with its steps."""
    return api.InstanceDetail(
        instance=instance(row),
        template_organisation=row.template_organisation,
        decision=row.decision,
        again_of=row.again_of,
        parameters=row.parameters,
        inputs=row.inputs,
        steps=tuple(
            api.Step(
                name=step.name, needs=step.needs, jobs=step.jobs, done=step.done, failed=step.failed,
                state=step.state.value,
            )
            for step in steps
        ),
    )  # fmt: skip


def job(row: sa.Row[Any], currency: str) -> api.Job:
    """One job of a run."""
    energy = None
    if row.joules is not None:
        energy = Energy(joules=Joules(row.joules), method=row.energy_method, uncertainty=row.uncertainty)
    return api.Job(
        step=row.step, index=row.index, state=row.state, phase=row.phase, attempt=row.attempt, cluster=row.cluster,
        queue=row.queue, reason=row.reason, exit_code=row.exit_code, started_at=row.started_at, ended_at=row.ended_at,
        elapsed=None if row.elapsed_s is None else Seconds(row.elapsed_s),
        reserved=Money(micros=row.reserved, currency=currency),
        cost=None if row.cost is None else Money(micros=row.cost, currency=currency),
        energy=energy, carbon=None if row.grams is None else Grams(row.grams), predicted=row.predicted,
    )  # fmt: skip


def event(row: sa.Row[Any]) -> api.Event:
    """One event."""
    return api.Event(
        number=row.number, at=row.at, kind=row.kind, step=row.step, index=row.index, phase=row.phase, text=row.text
    )
