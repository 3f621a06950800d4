"""How runs follow the news of attempts: retries, energy, decisions before later steps, what is learned."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api import workflows as api
from heroes.api.decision import Decide
from heroes.api.ids import new_ulid
from heroes.api.units import Joules, Money, Seconds
from heroes_budget import service as budget
from heroes_core import logs
from heroes_core.outbox import dispatch
from heroes_core.work import Database
from heroes_decision import service as decision
from heroes_decision import store as decision_store
from heroes_jobs.model import AttemptNews, Energy, Phase
from heroes_spawners.testing import Outcome
from heroes_workflows import placing
from heroes_workflows.handlers import MODULE
from tests.unit.workflows.platform import ALICE, BETA, Platform

TWO = """
name: two
title: Two steps
parameters: {cores: {type: integer, default: 1}}
steps:
  - {name: first, argv: [one], resources: {cpus_per_task: cores, walltime_s: 100}}
  - {name: second, needs: [first], argv: [two], resources: {cpus_per_task: cores, walltime_s: 100}}
"""


@pytest.fixture
def platform(sqlite: Database) -> Platform:
    """A platform with a workflow of two steps."""
    made = Platform(sqlite)
    made.publish(TWO)
    return made


def news(platform: Platform, run: str, phase: Phase, step: str = "first", **more: Any) -> AttemptNews:
    """What the engine would tell of a step's newest attempt."""
    job = platform.jobs(run)[step, 0]
    told = AttemptNews(
        job.attempt, "acme", run, step, 0, phase, cluster=job.cluster, queue=job.queue, user="alice",
    )  # fmt: skip
    return replace(told, **more)


# ------------------------------------------------------------------------------------------------------------- news


def test_energy_and_carbon_add_up(platform: Platform) -> None:
    """A run's energy is the sum over its jobs with their doubts, its carbon that of each job's place."""
    run = platform.submit("two")
    for step, joules, doubt in (("first", 3.6e6, 0.1), ("second", 1.2e6, 0.5)):
        energy = Energy(Joules(joules), "model", doubt)
        ended = {"cost": Money(micros=5), "energy": energy, "exit_code": 0, "elapsed_s": 3.0}
        platform.tell(news(platform, run.id, Phase.DONE, step, **ended))
    instance = platform.show(run.id).instance
    assert instance.energy is not None
    assert instance.energy.joules == Joules(4.8e6)
    assert instance.energy.uncertainty == pytest.approx((3.6e5 + 6e5) / 4.8e6)
    assert instance.energy.method == "model"
    assert instance.carbon is not None
    assert instance.carbon.value == pytest.approx(4.8 / 3.6 * 1.2 * 300)
    assert (instance.cost, instance.state) == (Money(micros=10), "done")


def test_a_correction_reaches_the_run(platform: Platform) -> None:
    """Where accounting knows better long after the end, job and run show what is charged now, and an event says so."""
    run = platform.submit("two")
    for step in ("first", "second"):
        platform.tell(news(platform, run.id, Phase.DONE, step, cost=Money(micros=500), elapsed_s=3.0))
    before = platform.show(run.id).instance
    job = platform.jobs(run.id)["second", 0]
    told = {"instance": run.id, "step": "second", "index": 0, "was": 500, "now": 420, "currency": "EUR"}
    with platform.database.write() as work:
        work.emit("jobs.corrected", "acme", job.attempt, **told, elapsed_s=2.5)
        work.emit("jobs.corrected", "acme", new_ulid(), **told, elapsed_s=2.5)
        work.emit("jobs.corrected", "acme", job.attempt, **(told | {"instance": new_ulid()}), elapsed_s=2.5)
    while dispatch(platform.database, {"jobs.corrected": [MODULE.subscriptions["jobs.corrected"]]}):
        pass
    after = platform.show(run.id).instance
    assert (before.cost.micros, after.cost.micros, after.state) == (1000, 920, "done")
    again = platform.jobs(run.id)["second", 0]
    assert again.cost is not None
    assert (again.cost.micros, again.elapsed) == (420, Seconds(2.5))
    events = platform.events(run.id)
    assert [each.number for each in events] == list(range(1, after.events + 1))
    assert "from 0.0005 EUR to 0.0004 EUR" in events[-1].text


def test_each_piece_of_news_is_a_line_for_operators(
    platform: Platform,
) -> None:
    """The engine's log names the user, the organisation, the run, the step and the job."""
    run = platform.submit("two")
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.set_up("heroes-engine", stream=out)
        platform.tell(news(platform, run.id, Phase.RUNNING))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    [line] = [told for each in out.getvalue().splitlines() if "of first" in (told := json.loads(each))["message"]]
    job = platform.jobs(run.id)["first", 0]
    assert line["labels"] == {
        "organisation": "acme", "user": "alice", "workflow": run.id, "step": "first", "job": job.attempt,
        "cluster": "alpha",
    }  # fmt: skip
    assert line["service"] == {"name": "heroes-engine"}


def test_different_methods_are_named_as_such(platform: Platform) -> None:
    """Where jobs were measured differently, the run says so."""
    run = platform.submit("two")
    for step, method in (("first", "model"), ("second", "rapl")):
        energy = Energy(Joules(1), method, 0.1)
        platform.tell(news(platform, run.id, Phase.DONE, step, energy=energy, elapsed_s=1.0))
    energy = platform.show(run.id).instance.energy
    assert energy is not None
    assert energy.method == "several methods"


def test_a_new_attempt_takes_the_place_of_a_lost_one(platform: Platform) -> None:
    """News of a retry replaces the attempt; what the old one still tells is ignored, and the job goes on."""
    run = platform.submit("two")
    old = news(platform, run.id, Phase.RUNNING)
    platform.tell(old)
    fresh = replace(old, key=new_ulid(), retry_of=old.key, ordinal=2, phase=Phase.WAITING, reason="node n3 failed")
    platform.tell(fresh)
    platform.tell(replace(old, phase=Phase.FAILED))
    job = platform.jobs(run.id)["first", 0]
    assert (job.attempt, job.state, job.reason) == (fresh.key, "waiting", "node n3 failed")
    assert "attempt 2, after the cluster failed" in platform.events(run.id)[-1].text
    platform.tell(replace(fresh, phase=Phase.DONE))
    assert platform.jobs(run.id)["first", 0].state == "done"


def test_news_of_an_ended_job_changes_nothing(platform: Platform) -> None:
    """The same end told twice counts once."""
    run = platform.submit("two")
    done = news(platform, run.id, Phase.DONE, cost=Money(micros=7))
    platform.tell(done)
    before = platform.show(run.id)
    platform.tell(done)
    platform.tell(replace(done, phase=Phase.FAILED))
    assert platform.show(run.id) == before


def test_news_of_no_run_is_nobodys(platform: Platform) -> None:
    """Attempts that belong to no run, such as sessions, are none of its business."""
    platform.tell(AttemptNews(new_ulid(), "acme", "", "notebook", 0, Phase.DONE))
    assert platform.ask(api.LIST).items == ()


def test_a_lost_job_failed(platform: Platform) -> None:
    """An attempt that is lost for good fails its job, and what needs it is void."""
    run = platform.submit("two")
    platform.tell(news(platform, run.id, Phase.LOST, reason="the node died"))
    instance = platform.show(run.id).instance
    assert (instance.state, instance.reason) == ("failed", "first: the node died")


# --------------------------------------------------------------------------------------------- decided step by step


def run_with_beta(database: Database, **fields: Any) -> tuple[Platform, str]:
    """A run that was submitted to alpha, and a second cluster, quicker but dearer, since then."""
    platform = Platform(database, {"first": Outcome(5.0), "second": Outcome(5.0)})
    platform.publish(TWO)
    run = platform.submit("two", **fields)
    platform.enrol("beta", BETA)
    return platform, run.id


def test_a_later_step_moves_where_it_is_better(database: Database) -> None:
    """Before the second step it is decided again: it moves, the difference is reserved, and it is told why."""
    platform, run = run_with_beta(database, policy="lowest-carbon")
    platform.run()
    detail, jobs = platform.show(run), platform.jobs(run)
    assert (jobs["first", 0].cluster, jobs["second", 0].cluster) == ("alpha", "beta")
    assert (detail.instance.place, detail.instance.state) == ("alpha/cpu, beta/cpu", "done")
    assert detail.instance.reserved == Money(micros=100_000 + 200_000)
    assert detail.instance.cost == Money(micros=5_000 + 10_000)
    assert platform.standing() == (15_000, 0)
    (told,) = [event for event in platform.events(run) if event.kind == "decision"]
    assert told.text.startswith("second moves to beta/cpu: ")


def test_a_later_step_stays_where_that_is_best(sqlite: Database) -> None:
    """A place that is worse by the policy attracts nobody."""
    platform, run = run_with_beta(sqlite, policy="cheapest")
    platform.run()
    assert platform.jobs(run)["second", 0].cluster == "alpha"
    assert [event for event in platform.events(run) if event.kind == "decision"] == []


@pytest.mark.parametrize("limit", [{"cluster": "alpha", "queue": "cpu"}, {"max_cost": Money(micros=200_000)}])
def test_a_later_step_keeps_to_the_limits_of_its_decision(sqlite: Database, limit: Mapping[str, object]) -> None:
    """A place that was not asked for, and money beyond what it may cost, are out of question later, too."""
    platform, run = run_with_beta(sqlite, policy="lowest-carbon", **limit)
    platform.run()
    assert {job.cluster for job in platform.jobs(run).values()} == {"alpha"}


def test_a_later_step_stays_where_its_user_wanted_it(sqlite: Database) -> None:
    """A place that was chosen although another is better by the policy is kept."""
    platform = Platform(sqlite, {"first": Outcome(5.0), "second": Outcome(5.0)})
    platform.publish(TWO)
    platform.enrol("beta", BETA)
    asked = decision.look_up(sqlite, platform.objects, ALICE, Decide(template="two", policy="lowest-carbon"))
    with sqlite.write() as work:
        made = decision.decide(work, ALICE, asked)
    assert made.alternatives[0].cluster == "beta"
    run = platform.ask(api.SUBMIT, key=new_ulid(), decision=made.id, cluster="alpha", queue="cpu").id
    platform.run()
    assert {job.cluster for job in platform.jobs(run).values()} == {"alpha"}


def test_a_later_step_is_decided_by_the_weights_that_were_given(sqlite: Database) -> None:
    """Weights of one's own count for later steps as for the first."""
    carbon = {"time": 0, "cost": 0, "energy": 0, "carbon": 1}
    platform, run = run_with_beta(sqlite, policy="weighted", weights=carbon)
    platform.run()
    assert platform.jobs(run)["second", 0].cluster == "beta"


def test_a_later_step_stays_where_money_for_moving_is_short(sqlite: Database) -> None:
    """Moving that no budget covers is not done; the step runs where it is paid for."""
    platform, run = run_with_beta(sqlite, policy="lowest-carbon")
    with platform.database.write() as work:
        free = budget.standing(work, "acme").available
        budget.credit(work, "acme", -free, "test", "setup")
    platform.run()
    assert platform.jobs(run)["second", 0].cluster == "alpha"
    assert platform.show(run).instance.state == "done"


def test_a_refusal_while_moving_leaves_everything(sqlite: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """When money is refused in the middle of moving a step, nothing of it has moved, and it is told."""
    platform, run = run_with_beta(sqlite, policy="lowest-carbon")
    real = placing._note_places

    def broke(work: Any, row: Any) -> None:
        real(work, row)
        raise placing.OverBudget("user alice: 0 EUR is too little")

    monkeypatch.setattr(placing, "_note_places", broke)
    platform.run()
    jobs = platform.jobs(run)
    assert (jobs["second", 0].cluster, jobs["second", 0].reserved) == ("alpha", Money(micros=100_000))
    assert platform.show(run).instance.place == "alpha/cpu"
    (told,) = [event for event in platform.events(run) if event.kind == "decision"]
    assert "stays where it was planned" in told.text
    assert platform.standing() == (10_000, 0)


# ---------------------------------------------------------------------------------------------------------- learned


def test_what_happened_is_kept_for_later_decisions(database: Database) -> None:
    """Each job that ended well is kept once beside its prediction, and the next decision rests on it."""
    platform = Platform(database)
    platform.publish(TWO)
    first = platform.ask(api.PREVIEW, template="two")
    platform.submit("two")
    platform.run()
    with database.read() as work:
        rows = work.execute(sa.select(decision_store.outcome)).all()
    assert sorted((row.facts["step"], row.facts["run_s"], row.facts["place"]) for row in rows) == [
        ("first", 5.0, "alpha/cpu"), ("second", 5.0, "alpha/cpu"),
    ]  # fmt: skip
    run = platform.submit("two")
    assert first.decision != platform.show(run.id).decision
    told = platform.jobs(run.id)["first", 0].predicted
    assert (told["level"], told["jobs"]) == ("class", 1)


def test_a_failed_job_teaches_nothing(sqlite: Database) -> None:
    """A job that failed early says nothing about how long it would have run."""
    platform = Platform(sqlite, {"first": Outcome(5.0, exit_code=1)})
    platform.publish(TWO)
    platform.submit("two")
    platform.run()
    with sqlite.read() as work:
        assert work.execute(sa.select(decision_store.outcome)).all() == []
