"""Runs, their steps, jobs and events. Lists read one index; what a list shows stands in the run's own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
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
) -> Row:
    """A new run with its steps and jobs."""
    row = work.execute(sa.insert(instance).values(run).returning(instance)).one()
    _summarise(work, row)
    work.execute(sa.insert(instance_step), list(steps))
    work.execute(sa.insert(instance_job), list(jobs))
    labels = [{"name": name, "value": value} for name, value in run["labels"].items()]
    if labels:
        common = {"organisation": run["organisation"], "instance": run["id"]}
        work.execute(sa.insert(instance_label), [{**common, **label} for label in labels])
    return row


#: What the following of jobs needs of a run: all but the texts, which may be long.
_BRIEF = tuple(c for c in instance.c if c.name not in ("parameters", "inputs", "objects", "summary"))
_SUMMARISE = sa.update(instance).where(instance.c.id == sa.bindparam("_id")).values(summary=sa.bindparam("_summary"))


def _summarise(work: Work, row: Row) -> None:
    work.execute(_SUMMARISE, {"_id": row.id, "_summary": views.instance(row).model_dump_json()})


def take_number(work: Work, identity: str, **changes: Any) -> Row:
    """Lock the run's row, set these columns and take the next event's number (`events` of the row afterwards)."""
    chosen = sa.update(instance).where(instance.c.id == identity)
    row = work.execute(chosen.values(events=instance.c.events + 1, **changes).returning(*_BRIEF)).one()
    _summarise(work, row)
    return row


def set_places(work: Work, identity: str, place: str, reserved: int) -> None:
    """Where the run's jobs are, and what is reserved for them. Whoever calls it takes a number to tell of it."""
    chosen = sa.update(instance).where(instance.c.id == identity)
    work.execute(chosen.values(place=place, reserved=reserved))


def void_in_run(work: Work, identity: str, jobs: int) -> Row:
    """So many jobs of the run never run; takes a number, like `take_number`."""
    columns = instance.c
    return take_number(
        work, identity, jobs_ended=columns.jobs_ended + jobs, jobs_cancelled=columns.jobs_cancelled + jobs
    )


@dataclass(frozen=True)
class Advance:
    """What the news of one job adds to its run. `begun`: a job runs or has run; `ended`: the counter of how it ended,
    "" while it goes on; micro-units, joules with their absolute doubt and method, gCO2e (None: not measured)."""

    begun: bool = False
    ended: str = ""
    cost: int = 0
    joules: float | None = None
    doubt: float = 0.0
    method: str = ""
    grams: float = 0.0


def _advance() -> sa.UpdateBase:
    """One statement for all news, made once: it is the most frequent of all."""
    run, number, real = instance.c, sa.Integer, sa.Float
    begun = sa.bindparam("_begun", type_=number) == 1
    measured = sa.bindparam("_measured", type_=number) == 1
    method = sa.bindparam("_method", type_=sa.String)
    now = sa.bindparam("_now", type_=run.started_at.type)
    values: dict[str, Any] = {
        "events": run.events + 1,
        "state": sa.case((sa.and_(run.state == "waiting", begun), "running"), else_=run.state),
        "started_at": sa.case((begun, sa.func.coalesce(run.started_at, now)), else_=run.started_at),
        "joules": sa.case(
            (measured, sa.func.coalesce(run.joules, 0.0) + sa.bindparam("_joules", type_=real)), else_=run.joules
        ),
        "grams": sa.case(
            (measured, sa.func.coalesce(run.grams, 0.0) + sa.bindparam("_grams", type_=real)), else_=run.grams
        ),
        "energy_method": sa.case(
            (sa.not_(measured), run.energy_method),
            (sa.or_(run.energy_method == "", run.energy_method == method), method),
            else_="several methods",
        ),
        "joules_doubt": run.joules_doubt + sa.bindparam("_doubt", type_=real),
        "cost": run.cost + sa.bindparam("_cost", type_=sa.BigInteger),
    }
    for name in ("jobs_ended", "jobs_done", "jobs_failed", "jobs_cancelled"):
        values[name] = run[name] + sa.bindparam(f"_{name}", type_=number)
    return sa.update(instance).where(run.id == sa.bindparam("_id")).values(values).returning(*_BRIEF)


_ADVANCE = _advance()


def advance(work: Work, identity: str, by: Advance) -> Row:
    """Lock the run's row, add what one job's news adds and take a number, like `take_number`."""
    counted = {f"_jobs_{name}": int(by.ended == name) for name in ("done", "failed", "cancelled")}
    values = {
        "_id": identity, "_now": work.now, "_begun": int(by.begun), "_jobs_ended": int(bool(by.ended)), **counted,
        "_cost": by.cost, "_measured": int(by.joules is not None), "_joules": by.joules or 0.0, "_doubt": by.doubt,
        "_method": by.method, "_grams": by.grams,
    }  # fmt: skip
    row = work.execute(_ADVANCE, values).one()
    _summarise(work, row)
    return row


_TELL = sa.insert(instance_event)
_NO_EVENT = {"step": "", "index": 0, "phase": "", "text": ""}


def tell(work: Work, run: Row, kind: str, **event: Any) -> None:
    """Add an event under the number that was taken."""
    identity = {"instance": run.id, "number": run.events, "at": work.now, "kind": kind}
    work.execute(_TELL, {**_NO_EVENT, **identity, **event})


def _of_job(*columns: str) -> sa.Update:
    key = instance_job.c.instance, instance_job.c.position, instance_job.c.index
    chosen = sa.update(instance_job).where(*(column == sa.bindparam(f"_{column.name}") for column in key))
    return chosen.values({name: sa.bindparam(f"_new_{name}", type_=instance_job.c[name].type) for name in columns})


@cache
def _changing(columns: tuple[str, ...]) -> sa.Update:
    return _of_job(*columns)


def change_job(work: Work, row: Row, **columns: Any) -> None:
    """Set columns of a job."""
    key = {"_instance": row.instance, "_position": row.position, "_index": row.index}
    work.execute(_changing(tuple(columns)), {**key, **{f"_new_{name}": value for name, value in columns.items()}})


@cache
def _counting(column: str) -> sa.Update:
    key = instance_step.c.instance == sa.bindparam("_instance"), instance_step.c.name == sa.bindparam("_step")
    return sa.update(instance_step).where(*key).values({column: instance_step.c[column] + 1})


def count_step(work: Work, identity: str, step: str, column: str) -> None:
    """One more job of a step has ended so: done, failed or cancelled."""
    work.execute(_counting(column), {"_instance": identity, "_step": step})


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


_STEPS = sa.select(instance_step).where(instance_step.c.instance == sa.bindparam("instance"))
_STEPS = _STEPS.order_by(instance_step.c.position)


def steps(work: Work, identity: str) -> Sequence[Row]:
    """The steps of a run in the order in which they can run."""
    return work.execute(_STEPS, {"instance": identity}).all()


_JOB = sa.select(instance_job).where(
    instance_job.c.instance == sa.bindparam("instance"),
    instance_job.c.step == sa.bindparam("step"),
    instance_job.c.index == sa.bindparam("index"),
)


def job(work: Work, identity: str, step: str, index: int) -> Row | None:
    """One job."""
    return work.execute(_JOB, {"instance": identity, "step": step, "index": index}).one_or_none()


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
    summed = sa.func.sum(instance_job.c.moved_bytes).label("moved")
    chosen = sa.select(instance_job.c.step, summed).where(instance_job.c.instance == identity)
    return {row.step: int(row.moved) for row in work.execute(chosen.group_by(instance_job.c.step))}


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
