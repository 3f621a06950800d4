"""Runs, their steps, jobs and events. Lists read one index; what a list shows stands in the run's own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes_core.store import Instant, JSONText, metadata, name_column
from heroes_core.work import Work
from heroes_workflows import views

Row = sa.Row[Any]

instance = sa.Table(
    "instance",
    metadata,
    name_column("id", primary_key=True),
    name_column("organisation"),
    name_column("user"),
    name_column("project", server_default=""),
    name_column("template_organisation"),
    name_column("template"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("labels", JSONText, nullable=False),
    sa.Column("parameters", JSONText, nullable=False),
    sa.Column("inputs", JSONText, nullable=False),
    #: The version of each input that was submitted: {"bucket/key": [etag, bytes]}.
    sa.Column("objects", JSONText, nullable=False),
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("decision", sa.String(64), nullable=False),
    sa.Column("again_of", sa.String(64), nullable=False),
    sa.Column("place", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("started_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("cancelled_by", sa.String(200), nullable=False, server_default=""),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("currency", sa.String(3), nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("joules", sa.Float),
    #: Sum of the jobs' absolute uncertainties: nothing is known of how they hang together, so they add.
    sa.Column("joules_doubt", sa.Float, nullable=False, server_default="0"),
    sa.Column("energy_method", sa.String(200), nullable=False, server_default=""),
    sa.Column("grams", sa.Float),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("jobs_ended", sa.Integer, nullable=False, server_default="0"),
    sa.Column("jobs_done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("jobs_failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("jobs_cancelled", sa.Integer, nullable=False, server_default="0"),
    sa.Column("events", sa.Integer, nullable=False, server_default="0"),
    #: The run as lists show it, in JSON, rewritten with every change: a list of runs is one read of one index.
    sa.Column("summary", sa.Text, nullable=False, server_default=""),
    sa.Index(None, "organisation", "id"),
    sa.Index(None, "organisation", "user", "id"),
    sa.Index(None, "organisation", "user", "state", "id"),
    sa.Index(None, "organisation", "user", "template", "id"),
    sa.Index(None, "organisation", "template", "id"),
    sa.Index(None, "organisation", "project", "id"),
)

instance_step = sa.Table(
    "instance_step",
    metadata,
    name_column("instance", primary_key=True),
    name_column("name", primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("needs", JSONText, nullable=False),
    sa.Column("jobs", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("cancelled", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started", sa.SmallInteger, nullable=False),
    sa.Column("void", sa.SmallInteger, nullable=False, server_default="0"),
)

instance_job = sa.Table(
    "instance_job",
    metadata,
    name_column("instance", primary_key=True),
    #: The step's place in the order of steps, so that jobs are listed as they can run.
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
    name_column("step"),
    name_column("attempt"),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    name_column("cluster"),
    name_column("queue"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("exit_code", sa.Integer),
    sa.Column("started_at", Instant),
    sa.Column("ended_at", Instant),
    sa.Column("elapsed_s", sa.Float),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger),
    sa.Column("joules", sa.Float),
    sa.Column("uncertainty", sa.Float),
    sa.Column("energy_method", sa.String(100), nullable=False, server_default=""),
    #: gCO2e for each joule that the job takes where it runs: the grid's, times the site's PUE.
    sa.Column("grams_per_joule", sa.Float, nullable=False),
    sa.Column("grams", sa.Float),
    sa.Column("predicted", JSONText, nullable=False),
    #: Where its results lie in the user's bucket.
    sa.Column("prefix", sa.String(255), nullable=False),
    sa.Column("files", JSONText, nullable=False, server_default="[]"),
    sa.Column("moved_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index(None, "instance", "step", "index", unique=True),
)

instance_label = sa.Table(
    "instance_label",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("name", primary_key=True),
    sa.Column("value", sa.String(200), primary_key=True),
    name_column("instance", primary_key=True),
)

instance_event = sa.Table(
    "instance_event",
    metadata,
    name_column("instance", primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Instant, nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    name_column("step", server_default=""),
    sa.Column("index", sa.Integer, nullable=False, server_default="0"),
    sa.Column("phase", sa.String(16), nullable=False, server_default=""),
    sa.Column("text", sa.Text, nullable=False, server_default=""),
)

# ------------------------------------------------------------------------------------------------------------- write


def add(
    work: Work, run: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]]
) -> None:
    """A new run with its steps and jobs."""
    row = work.execute(sa.insert(instance).values(run).returning(instance)).one()
    _summarise(work, row)
    work.execute(sa.insert(instance_step), list(steps))
    work.execute(sa.insert(instance_job), list(jobs))
    labels = [{"name": name, "value": value} for name, value in run["labels"].items()]
    if labels:
        common = {"organisation": run["organisation"], "instance": run["id"]}
        work.execute(sa.insert(instance_label), [{**common, **label} for label in labels])


def count_up(work: Work, identity: str, events: int = 0, **changes: Any) -> Row:
    """Lock the run's row and change it: numbers of counting columns are added, others set; `events` numbers are taken
    (every change that lists show takes one). The row afterwards; its `events` is the last number taken."""
    values = {name: instance.c[name] + value if name in _COUNTS else value for name, value in changes.items()}
    values["events"] = instance.c.events + events
    changed = sa.update(instance).where(instance.c.id == identity).values(values).returning(instance)
    row = work.execute(changed).one()
    if events:
        _summarise(work, row)
    return row


_SUMMARISE = sa.update(instance).where(instance.c.id == sa.bindparam("_id")).values(summary=sa.bindparam("_summary"))


def _summarise(work: Work, row: Row) -> None:
    work.execute(_SUMMARISE, {"_id": row.id, "_summary": views.instance(row).model_dump_json()})


_COUNTS = frozenset({"jobs_ended", "jobs_done", "jobs_failed", "jobs_cancelled", "cost", "joules_doubt"})


def tell(work: Work, events: Sequence[Mapping[str, Any]]) -> None:
    """Add events whose numbers were taken by `count_up`."""
    work.execute(sa.insert(instance_event), [{**_NO_EVENT, "at": work.now, **event} for event in events])


_NO_EVENT = {"step": "", "index": 0, "phase": "", "text": ""}

_CHANGE_JOB = (
    sa.update(instance_job)
    .where(
        instance_job.c.instance == sa.bindparam("_instance"),
        instance_job.c.position == sa.bindparam("_position"),
        instance_job.c.index == sa.bindparam("_index"),
    )
)  # fmt: skip


def change_job(work: Work, row: Row, **columns: Any) -> None:
    """Set columns of a job."""
    key = {"_instance": row.instance, "_position": row.position, "_index": row.index}
    work.execute(_CHANGE_JOB.values(columns), key)


def count_step(work: Work, identity: str, step: str, column: str) -> None:
    """One more job of a step has ended so."""
    chosen = sa.update(instance_step).where(instance_step.c.instance == identity, instance_step.c.name == step)
    work.execute(chosen.values({column: instance_step.c[column] + 1}))


def mark_steps(work: Work, identity: str, names: Sequence[str], column: str) -> None:
    """Steps are started, or void."""
    chosen = sa.update(instance_step).where(instance_step.c.instance == identity, instance_step.c.name.in_(names))
    work.execute(chosen.values({column: 1}))


def void_jobs(work: Work, identity: str, steps: Sequence[str], reason: str) -> list[str]:
    """Jobs of these steps that wait never run; the keys of their attempts."""
    chosen = sa.update(instance_job).where(
        instance_job.c.instance == identity, instance_job.c.step.in_(steps), instance_job.c.state == "waiting"
    )
    changed = chosen.values(state="void", phase="cancelled", reason=reason, ended_at=work.now, cost=0)
    return list(work.execute(changed.returning(instance_job.c.attempt)).scalars())


def forget_events(work: Work, before: datetime, limit: int = 10_000) -> int:
    """Delete the events from before then, at most `limit` in one transaction; how many there were."""
    old = sa.select(instance_event.c.instance, instance_event.c.number).where(instance_event.c.at < before)
    rows = work.execute(old.order_by(instance_event.c.at).limit(limit)).all()
    key = sa.tuple_(instance_event.c.instance, instance_event.c.number)
    for start in range(0, len(rows), 400):
        part = [tuple(row) for row in rows[start : start + 400]]
        work.execute(sa.delete(instance_event).where(key.in_(part)))
    return len(rows)


# -------------------------------------------------------------------------------------------------------------- read


def find(work: Work, organisation: str, identity: str) -> Row | None:
    """A run of the organisation."""
    chosen = sa.select(instance).where(instance.c.id == identity, instance.c.organisation == organisation)
    return work.execute(chosen).one_or_none()


def steps(work: Work, identity: str) -> Sequence[Row]:
    """The steps of a run in the order in which they can run."""
    chosen = sa.select(instance_step).where(instance_step.c.instance == identity)
    return work.execute(chosen.order_by(instance_step.c.position)).all()


def job(work: Work, identity: str, step: str, index: int) -> Row | None:
    """One job."""
    chosen = sa.select(instance_job).where(
        instance_job.c.instance == identity, instance_job.c.step == step, instance_job.c.index == index
    )
    return work.execute(chosen).one_or_none()


def jobs(work: Work, identity: str, after: tuple[int, int] = (-1, -1), limit: int = 100_000) -> Sequence[Row]:
    """Jobs of a run following (position, index)."""
    beyond = sa.tuple_(instance_job.c.position, instance_job.c.index) > after
    chosen = sa.select(instance_job).where(instance_job.c.instance == identity, beyond)
    return work.execute(chosen.order_by(instance_job.c.position, instance_job.c.index).limit(limit)).all()


def attempts(work: Work, identity: str, names: Sequence[str] | None = None) -> list[str]:
    """The newest attempts of the jobs of a run (of these steps) that have not ended."""
    chosen = sa.select(instance_job.c.attempt).where(
        instance_job.c.instance == identity, instance_job.c.state.in_(("waiting", "running"))
    )
    if names is not None:
        chosen = chosen.where(instance_job.c.step.in_(names))
    return list(work.execute(chosen.order_by(instance_job.c.position, instance_job.c.index)).scalars())


def moved_bytes(work: Work, identity: str) -> dict[str, int]:
    """Bytes that the jobs of each step moved."""
    summed = sa.func.sum(instance_job.c.moved_bytes)
    chosen = sa.select(instance_job.c.step, summed).where(instance_job.c.instance == identity)
    return {row[0]: int(row[1]) for row in work.execute(chosen.group_by(instance_job.c.step))}


def events(work: Work, identity: str, after: int, limit: int) -> Sequence[Row]:
    """Events following number `after`."""
    chosen = sa.select(instance_event).where(instance_event.c.instance == identity, instance_event.c.number > after)
    return work.execute(chosen.order_by(instance_event.c.number).limit(limit)).all()


_OLDER = instance.c.id < sa.bindparam("after")
_PAGE = sa.select(instance.c.id, instance.c.summary).where(
    instance.c.organisation == sa.bindparam("organisation"), _OLDER
)
_PAGE = _PAGE.order_by(instance.c.id.desc()).limit(sa.bindparam("limit", type_=sa.Integer))
_OWN = _PAGE.where(instance.c.user == sa.bindparam("user"))


def page(
    work: Work, organisation: str, after: str, limit: int, *, label: tuple[str, str] | None = None, **equal: str
) -> Sequence[Row]:
    """Id and summary of the organisation's runs older than `after` ("" for the newest), newest first, whose columns
    `equal` these."""
    values = {"organisation": organisation, "after": after or _NEWEST, "limit": limit}
    user = equal.pop("user", "")
    chosen = _OWN if user else _PAGE
    for name, value in equal.items():
        chosen = chosen.where(instance.c[name] == value)
    if label is not None:
        labelled = sa.select(instance_label.c.instance).where(
            instance_label.c.organisation == organisation,
            instance_label.c.name == label[0],
            instance_label.c.value == label[1],
        )
        chosen = chosen.where(instance.c.id.in_(labelled))
    return work.execute(chosen, {**values, "user": user} if user else values).all()


#: After every ULID, in any collation.
_NEWEST = "Z"
