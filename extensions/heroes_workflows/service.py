"""Runs: submit, list, look, cancel, again; what they left and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from heroes.api import workflows as api
from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.units import Money
from heroes_core.work import Caller, Work
from heroes_identity.service import projects_of
from heroes_jobs import service as jobs
from heroes_workflows import store, views
from heroes_workflows.following import counts
from heroes_workflows.machine import RUN_ENDED
from heroes_workflows.model import folder, label
from heroes_workflows.report import compare

#: How long the events of runs are kept.
EVENTS_KEPT = timedelta(days=90)


@dataclass(frozen=True)
class Listed:
    """A page of runs (`api.Instances`) that is JSON already."""

    text: str

    def model_dump_json(self) -> str:
        """As it is sent."""
        return self.text


def listing(work: Work, caller: Caller, request: api.ListInstances, *, user: str, template: str = "") -> Listed:
    """One page of the runs of the organisation, newest first; `user` "" for everybody's."""
    equal = {"user": user, "template": template or request.template, "project": request.project}
    equal["state"] = request.state or ""
    rows = store.page(
        work, caller.organisation, request.after, request.limit + 1,
        label=label(request.label), **{name: value for name, value in equal.items() if value},
    )  # fmt: skip
    shown = rows[: request.limit]
    following = f'"{shown[-1].id}"' if len(rows) > len(shown) else "null"
    return Listed(f'{{"items":[{",".join(row.summary for row in shown)}],"next":{following}}}')


def find(work: Work, caller: Caller, identity: str) -> sa.Row[Any]:
    """A run that the caller may see: one's own, one of a project that one is in, or with `workflows:manage` any of the
    organisation."""
    row = store.find(work, caller.organisation, identity)
    if row is None or not (_owns(caller, row) or shares(work, caller, row.project)):
        raise NotFound(f"There is no run {identity}.", hint="`heroes run list` shows your runs.")
    return row


def shares(work: Work, caller: Caller, project: str) -> bool:
    """Whether the caller is in that project now, whose members see each other's runs."""
    return bool(project) and project in projects_of(work, caller.organisation, caller.user)


def _owns(caller: Caller, row: sa.Row[Any]) -> bool:
    return bool(row.user == caller.user) or "workflows:manage" in caller.rights


def show(work: Work, caller: Caller, identity: str) -> api.InstanceDetail:
    """A run with its steps."""
    return views.detail(find(work, caller, identity), counts(work, identity))


def list_jobs(work: Work, caller: Caller, request: api.ListJobs) -> api.Jobs:
    """One page of a run's jobs."""
    run = find(work, caller, request.workflow_instance_id)
    rows, following = _jobs_after(work, run, request.after, request.limit)
    return api.Jobs(items=tuple(views.job(row, run.currency) for row in rows), next=following)


def _jobs_after(work: Work, run: sa.Row[Any], after: str, limit: int) -> tuple[Sequence[sa.Row[Any]], str | None]:
    rows = store.jobs(work, run.id, _cursor(after), limit + 1)
    shown = rows[:limit]
    return shown, f"{shown[-1].position}.{shown[-1].index}" if len(rows) > limit else None


def _cursor(after: str) -> tuple[int, int]:
    position, _, index = (after or "-1.-1").partition(".")
    try:
        found = int(position), int(index)
        if max(map(abs, found)) >= 2**31:
            raise ValueError(after)
        return found
    except ValueError:
        raise InvalidSpec(f"after: {after!r} is no cursor", hint="Use `next` of the page before.") from None


def events(work: Work, caller: Caller, request: api.AskEvents, *, final: bool) -> api.Events | None:
    """Events following a number; None where there are none yet and there is still time to wait."""
    run = find(work, caller, request.workflow_instance_id)
    rows = store.events(work, run.id, request.after, request.limit) if run.events > request.after else ()
    ended = run.state in RUN_ENDED and (not rows or rows[-1].number == run.events)
    if not rows and not ended and not final:
        return None
    following = rows[-1].number if rows else min(request.after, run.events)
    return api.Events(items=tuple(views.event(row) for row in rows), next=following, state=run.state, ended=ended)


def results(work: Work, caller: Caller, request: api.ListResults) -> api.Results:
    """Files that the jobs of a run left; a page ends with a job."""
    run = find(work, caller, request.workflow_instance_id)
    items: list[api.Result] = []
    after: str | None = request.after
    while after is not None and len(items) < request.limit:
        rows, after = _jobs_after(work, run, after, request.limit)
        for row in rows:
            if request.step in ("", row.step):
                items += _files(run, row)
    return api.Results(bucket=run.user, prefix=folder(run.id), items=tuple(items), next=after)


def _files(run: sa.Row[Any], row: sa.Row[Any]) -> list[api.Result]:
    return [api.Result(step=row.step, index=row.index, bucket=run.user, key=row.prefix + path) for path in row.files]


def report(work: Work, caller: Caller, identity: str) -> api.Report:
    """What a run cost, took and emitted, and how good its predictions were."""
    run = find(work, caller, identity)
    rows = store.jobs(work, identity)
    returned = run.reserved - run.cost if run.ended_at else 0
    elapsed = (run.ended_at - run.created_at).total_seconds() if run.ended_at else None
    return api.Report(
        instance=views.instance(run),
        returned=Money(micros=max(0, returned), currency=run.currency),
        elapsed=elapsed,
        comparisons=tuple(line for row in rows for line in compare(row, run.currency)),
    )


def cancel(work: Work, caller: Caller, identity: str) -> api.Instance:
    """Nothing of the run begins any more, and what runs is stopped. A run that is being cancelled, or was, stays so."""
    run = find(work, caller, identity)
    if not _owns(caller, run):
        raise NotAllowed(
            f"Run {identity} is {run.user}'s: members of a project see each other's runs, and stop their own.",
            hint=f"Ask {run.user}, or whoever manages workflows in {caller.organisation}.",
        )
    keys = store.attempts(work, identity)
    jobs.hold(work, caller.organisation, keys)
    run = find(work, caller, identity)
    if run.state in RUN_ENDED and not run.cancelled_by:
        raise Conflict(f"Run {identity} has ended ({run.state}).", hint="There is nothing to cancel.")
    if not run.cancelled_by:
        stopped = store.take_number(work, identity, cancelled_by=caller.actor)
        store.tell(work, stopped, "cancel", text=f"cancelled by {caller.actor}")
        work.audit(caller.organisation, caller.actor, "workflow.cancel", identity, owner=run.user)
        jobs.cancel(work, keys, caller.actor)
        work.wake()
    return views.instance(find(work, caller, identity))


def keep_house(work: Work) -> int:
    """Forget events that are older than 90 days, some at a time; how many."""
    return store.forget_events(work, work.now - EVENTS_KEPT)
