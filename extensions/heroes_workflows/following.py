"""What the jobs module tells, written into runs: the hook that is called in the transaction in which an attempt moves.

Every change of a run locks its row (`store.count_up`) before it looks at the run's steps, so that events are numbered
without gaps and two steps that end at the same time see each other.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from heroes.api.units import Money
from heroes_core.work import Work
from heroes_decision import outcomes
from heroes_jobs import service as jobs
from heroes_jobs.model import AttemptNews, Phase
from heroes_workflows import placing, store
from heroes_workflows.machine import (
    ENDED,
    JobState,
    StepCount,
    end_of_run,
    given_up,
    job_state,
    released,
)

#: Files of a job that its run's row of results names; more lie in the bucket all the same.
MAX_FILES = 1000
_COLUMN = {JobState.DONE: "done", JobState.FAILED: "failed", JobState.CANCELLED: "cancelled"}


def follow(work: Work, news: AttemptNews) -> None:
    """Take one piece of news of an attempt. Attempts of no run (sessions), of jobs that have ended, and attempts that
    another has replaced are ignored."""
    row = store.job(work, news.instance, news.step, news.index)
    if row is None or row.state in ENDED or row.attempt not in (news.key, news.retry_of):
        return
    state = job_state(news.phase)
    store.change_job(work, row, **_changes(row, news, state))
    if state in ENDED:
        _end_job(work, row, news, state)
    else:
        _move_on(work, news, state)


def counts(work: Work, identity: str) -> list[StepCount]:
    """The steps of a run as they stand."""
    return [
        StepCount(
            row.name, tuple(row.needs), row.jobs, row.done, row.failed, row.cancelled, bool(row.started), bool(row.void)
        )
        for row in store.steps(work, identity)
    ]


def _changes(row: sa.Row[Any], news: AttemptNews, state: JobState) -> dict[str, Any]:
    """What the job's row becomes."""
    changes: dict[str, Any] = {
        "attempt": news.key, "state": state, "phase": news.phase, "reason": news.reason,
        "cluster": news.cluster or row.cluster, "queue": news.queue or row.queue,
        "started_at": news.started_at or row.started_at,
    }  # fmt: skip
    if state not in ENDED:
        return changes
    changes |= {
        "ended_at": news.ended_at or None, "exit_code": news.exit_code, "elapsed_s": news.elapsed_s,
        "cost": news.cost.micros if news.cost else 0, "files": list(news.files[:MAX_FILES]),
        "moved_bytes": round(news.moved.value * 2**30),
    }  # fmt: skip
    if news.energy is not None:
        changes |= {
            "joules": news.energy.joules.value, "uncertainty": news.energy.uncertainty,
            "energy_method": news.energy.method[:100], "grams": news.energy.joules.value * row.grams_per_joule,
        }  # fmt: skip
    return changes


def _move_on(work: Work, news: AttemptNews, state: JobState) -> None:
    changes = {"state": _running(), "started_at": _first_start(work)} if state is JobState.RUNNING else {}
    run = store.count_up(work, news.instance, events=1, **changes)
    store.tell(work, [_job_event(run, news, run.events)])
    work.wake()


def _end_job(work: Work, row: sa.Row[Any], news: AttemptNews, state: JobState) -> None:
    """Count it; then whatever follows from it for other steps and for the run."""
    store.count_step(work, news.instance, news.step, _COLUMN[state])
    run = store.count_up(work, news.instance, events=1, **_sums(work, row, news, state))
    store.tell(work, [_job_event(run, news, run.events)])
    if state is JobState.DONE:
        _learn(work, run, row, news)
        _release(work, run, news.step)
    elif _give_up(work, run, news):
        run = store.count_up(work, run.id)
    if run.jobs_ended == run.jobs:
        finish(work, run)
    work.wake()


def _sums(work: Work, row: sa.Row[Any], news: AttemptNews, state: JobState) -> dict[str, Any]:
    """What the run's row becomes by the end of one job."""
    sums: dict[str, Any] = {
        "jobs_ended": 1, f"jobs_{_COLUMN[state]}": 1, "cost": news.cost.micros if news.cost else 0,
    }  # fmt: skip
    if news.started_at is not None:
        sums |= {"state": _running(), "started_at": _first_start(work)}
    if news.energy is not None:
        joules = news.energy.joules.value
        sums |= {
            "joules": sa.func.coalesce(store.instance.c.joules, 0.0) + joules,
            "joules_doubt": joules * news.energy.uncertainty,
            "energy_method": _method(news.energy.method[:100]),
            "grams": sa.func.coalesce(store.instance.c.grams, 0.0) + joules * row.grams_per_joule,
        }
    return sums


def _learn(work: Work, run: sa.Row[Any], row: sa.Row[Any], news: AttemptNews) -> None:
    """Keep predicted against actual; later decisions learn from it."""
    waited = None
    if news.started_at and news.submitted_at:
        waited = (news.started_at - news.submitted_at).total_seconds()
    outcomes.record(
        work,
        outcomes.Ended(
            key=news.key, organisation=run.organisation, user=run.user, template=run.template, step=news.step,
            place=f"{news.cluster or row.cluster}/{news.queue or row.queue}", predicted=row.predicted,
            run_s=news.elapsed_s, cost=news.cost or Money.zero(run.currency),
            energy=news.energy.joules if news.energy else None, waited_s=waited, memory_mib=news.max_rss_mib,
        ),
    )  # fmt: skip


def _release(work: Work, run: sa.Row[Any], step: str) -> None:
    """Start the steps for which the last job was waited for, each at the place that is best now."""
    steps = counts(work, run.id)
    if not next(each for each in steps if each.name == step).complete:
        return
    for name in released(steps):
        text = placing.reconsider(work, run, name)
        if text:
            latest = store.count_up(work, run.id, events=1)
            event = {"instance": run.id, "number": latest.events, "kind": "decision", "step": name, "text": text}
            store.tell(work, [event])
        store.mark_steps(work, run.id, [name], "started")
        jobs.start(work, store.attempts(work, run.id, [name]))


def _give_up(work: Work, run: sa.Row[Any], news: AttemptNews) -> bool:
    """Steps that need the failed one never run, and their reservations are returned; whether there are any."""
    names = given_up(counts(work, run.id))
    if not names:
        return False
    reason = f"never run: step {news.step} {'was cancelled' if news.phase is Phase.CANCELLED else 'did not end well'}"
    store.mark_steps(work, run.id, names, "void")
    keys = store.void_jobs(work, run.id, names, reason)
    latest = store.count_up(work, run.id, events=1, jobs_ended=len(keys), jobs_cancelled=len(keys))
    text = f"{', '.join(names)}: {reason}"
    store.tell(work, [{"instance": run.id, "number": latest.events, "kind": "job", "phase": "void", "text": text}])
    jobs.cancel(work, keys, "heroes")
    return True


def finish(work: Work, run: sa.Row[Any]) -> None:
    """End a run whose jobs have all ended."""
    state = end_of_run(run.jobs_failed, run.jobs_cancelled, stopped=bool(run.cancelled_by))
    reason = _reason(work, run, state)
    run = store.count_up(work, run.id, events=1, state=state, ended_at=work.now, reason=reason)
    store.tell(work, [{"instance": run.id, "number": run.events, "kind": "state", "phase": state, "text": reason}])
    work.emit("workflow.ended", run.organisation, run.id, state=str(state), user=run.user, template=run.template)


def _reason(work: Work, run: sa.Row[Any], state: str) -> str:
    if run.cancelled_by:
        return f"cancelled by {run.cancelled_by}"
    if state == "done":
        return ""
    wrong = [row for row in store.jobs(work, run.id) if row.state in (JobState.FAILED, JobState.CANCELLED)]
    told = f"{wrong[0].step}: {wrong[0].reason or wrong[0].state}" if wrong else ""
    return told if len(wrong) < 2 else f"{told} (and {len(wrong) - 1} more)"


def _job_event(run: sa.Row[Any], news: AttemptNews, number: int) -> dict[str, Any]:
    text = news.reason
    if news.retry_of and news.phase in (Phase.HELD, Phase.WAITING):
        text = f"attempt {news.ordinal}, after the cluster failed under the one before. {text}".strip()
    return {
        "instance": run.id, "number": number, "kind": "job", "step": news.step, "index": news.index,
        "phase": news.phase, "text": text,
    }  # fmt: skip


def _running() -> sa.ColumnElement[Any]:
    """A run that waits is running now; any other stays as it is."""
    state = store.instance.c.state
    return sa.case((state == "waiting", "running"), else_=state)


def _first_start(work: Work) -> sa.ColumnElement[Any]:
    column = store.instance.c.started_at
    return sa.func.coalesce(column, sa.literal(work.now, column.type))


def _method(method: str) -> sa.ColumnElement[Any]:
    """The method of a run's energy: that of its jobs where they agree."""
    column = store.instance.c.energy_method
    return sa.case((column.in_(("", method)), method), else_="several methods")
