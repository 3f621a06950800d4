"""What the jobs module tells, written into runs: the hook that is called in the transaction in which an attempt moves.

Every change of a run locks its row (`store.advance`) before it looks at the run's steps, so that events are numbered
without gaps and two steps that end at the same time see each other.
"""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from heroes.api.units import Money
from heroes_core.logs import labels
from heroes_core.outbox import News
from heroes_core.work import Work
from heroes_decision import outcomes
from heroes_jobs import service as jobs
from heroes_jobs.model import AttemptNews, Phase
from heroes_workflows import placing, store
from heroes_workflows.machine import (
    ENDED,
    JobState,
    RunState,
    StepCount,
    end_of_run,
    given_up,
    job_state,
    released,
)

LOG = logging.getLogger("heroes.workflows")
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


def correct(work: Work, news: News) -> None:
    """Accounting came to know better of an attempt that was settled by what was observed: its job and its run show
    what is charged now."""
    told = news.detail
    row = store.job(work, told["instance"], told["step"], told["index"])
    if row is None or row.attempt != news.subject:
        return
    was, now = (Money(micros=told[name], currency=told["currency"]) for name in ("was", "now"))
    store.change_job(work, row, cost=now.micros, elapsed_s=told["elapsed_s"])
    run = store.advance(work, row.instance, store.Advance(cost=now.micros - was.micros))
    text = f"accounting corrected the cost from {was} to {now}"
    store.tell(work, run, "job", step=row.step, index=row.index, phase=row.phase, text=text)
    work.wake()


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
    energy = news.energy
    return changes | {
        "ended_at": news.ended_at, "exit_code": news.exit_code, "elapsed_s": news.elapsed_s,
        "cost": news.cost.micros if news.cost else 0, "files": list(news.files[:MAX_FILES]),
        "moved_bytes": round(news.moved.value * 2**30),
        "joules": energy.joules.value if energy else None, "uncertainty": energy.uncertainty if energy else None,
        "energy_method": energy.method[:100] if energy else "",
        "grams": energy.joules.value * row.grams_per_joule if energy else None,
    }  # fmt: skip


def _move_on(work: Work, news: AttemptNews, state: JobState) -> None:
    run = store.advance(work, news.instance, store.Advance(begun=state is JobState.RUNNING))
    _tell(work, run, news)
    work.wake()


def _end_job(work: Work, row: sa.Row[Any], news: AttemptNews, state: JobState) -> None:
    """Count it; then whatever follows from it for other steps and for the run."""
    store.count_step(work, news.instance, news.step, _COLUMN[state])
    run = store.advance(work, news.instance, _added(row, news, state))
    _tell(work, run, news)
    if state is JobState.DONE:
        _learn(work, run, row, news)
        _release(work, run, news.step)
    else:
        run = _give_up(work, run, news)
    if run.jobs_ended == run.jobs:
        finish(work, run)
    work.wake()


def _added(row: sa.Row[Any], news: AttemptNews, state: JobState) -> store.Advance:
    """What the end of one job adds to its run."""
    cost = news.cost.micros if news.cost else 0
    begun = news.started_at is not None
    if news.energy is None:
        return store.Advance(begun, _COLUMN[state], cost)
    joules = news.energy.joules.value
    return store.Advance(
        begun, _COLUMN[state], cost, joules, joules * news.energy.uncertainty, news.energy.method[:100],
        joules * row.grams_per_joule,
    )  # fmt: skip


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
        text = placing.reconsider(work, run.organisation, run.id, name)
        if text:
            store.tell(work, store.take_number(work, run.id), "decision", step=name, text=text)
        store.mark_steps(work, run.id, [name], "started")
        jobs.start(work, store.attempts(work, run.id, [name]))


def _give_up(work: Work, run: sa.Row[Any], news: AttemptNews) -> sa.Row[Any]:
    """Steps that need the failed one never run, and their reservations are returned; the run afterwards."""
    names = given_up(counts(work, run.id))
    if not names:
        return run
    reason = f"never run: step {news.step} {'was cancelled' if news.phase is Phase.CANCELLED else 'did not end well'}"
    store.mark_steps(work, run.id, names, "void")
    keys = store.void_jobs(work, run.id, names, reason)
    after = store.void_in_run(work, run.id, len(keys))
    store.tell(work, after, "job", phase="void", text=f"{', '.join(names)}: {reason}")
    jobs.cancel(work, keys, "heroes")
    return after


def finish(work: Work, run: sa.Row[Any]) -> None:
    """End a run whose jobs have all ended."""
    state = end_of_run(run.jobs_failed, run.jobs_cancelled, stopped=bool(run.cancelled_by))
    reason = _reason(work, run, state)
    ended = store.take_number(work, run.id, state=state, ended_at=work.now, reason=reason)
    store.tell(work, ended, "state", phase=state, text=reason)
    work.emit("workflow.ended", run.organisation, run.id, state=str(state), user=run.user, template=run.template)


def _reason(work: Work, run: sa.Row[Any], state: RunState) -> str:
    if run.cancelled_by:
        return f"cancelled by {run.cancelled_by}"
    if state is RunState.DONE:
        return ""
    wrong = [row for row in store.jobs(work, run.id) if row.state in (JobState.FAILED, JobState.CANCELLED)]
    told = f"{wrong[0].step}: {wrong[0].reason or wrong[0].state}" if wrong else ""
    return told if len(wrong) < 2 else f"{told} (and {len(wrong) - 1} more)"


def _tell(work: Work, run: sa.Row[Any], news: AttemptNews) -> None:
    text = news.reason
    if news.retry_of and news.phase in (Phase.HELD, Phase.WAITING):
        text = f"attempt {news.ordinal}, after the cluster failed under the one before. {text}".strip()
    store.tell(work, run, "job", step=news.step, index=news.index, phase=news.phase, text=text)
    work.after_commit(lambda: _log(run, news))


def _log(run: sa.Row[Any], news: AttemptNews) -> None:
    """A line for operators, by which everything about a run, a step or a job is found."""
    about = {"organisation": run.organisation, "project": run.project, "user": run.user, "workflow": run.id}
    with labels(**about, step=news.step, job=news.key, cluster=news.cluster):
        LOG.info("job %s of %s is %s", news.index, news.step, news.phase)
