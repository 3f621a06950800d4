"""Runs from submission to the end, on clusters in memory: the graph, money, events, results, cancelling."""

from __future__ import annotations

import pytest

from heroes.api import workflows as api
from heroes.api.errors import Conflict, InvalidSpec, NoPlacement, NotFound, OverBudget
from heroes.api.units import Money
from heroes_core.work import Database
from heroes_jobs.model import InputRef
from heroes_spawners.testing import Outcome
from tests.unit.workflows.platform import ALICE, MIA, ZOE, Platform

DIAMOND = """
name: diamond
title: Diamond
parameters:
  cores: {type: integer, default: 2, minimum: 1, maximum: 100}
  cases: {type: list, items: string, default: [a, b, c]}
inputs: {mesh: {required: false}}
files: {run.sh: "echo"}
steps:
  - {name: make, argv: [sh, "{{file.run.sh}}", "{{input.mesh}}"], resources: {walltime_s: 100}}
  - name: left
    needs: [make]
    fan_out: cases
    argv: [left, "{{item}}", "{{needs.make}}"]
    resources: {cpus_per_task: cores, walltime_s: 100}
  - {name: right, needs: [make], argv: [right], resources: {walltime_s: 100}}
  - {name: join, needs: [left, right], argv: [join], resources: {walltime_s: 100}}
"""


@pytest.fixture
def platform(sqlite: Database) -> Platform:
    """A platform on which alice has published the diamond."""
    made = Platform(sqlite)
    made.publish(DIAMOND)
    return made


# -------------------------------------------------------------------------------------------------------- the path


def test_the_whole_path(database: Database) -> None:
    """Every step runs once, after those that it needs; money, results, events and the report are exact."""
    platform = Platform(database)
    platform.publish(DIAMOND)
    run = platform.submit("diamond", labels={"case": "first"}, policy="cheapest")
    assert (run.state, run.jobs, run.place, run.labels) == ("waiting", 6, "alpha/cpu", {"case": "first"})
    assert run.reserved == Money(micros=900_000)  # (3 jobs x 1 core + 3 jobs x 2 cores) x 100 s x 1,000
    assert platform.standing() == (0, 900_000)
    platform.run()
    done = platform.show(run.id).instance
    assert (done.state, done.jobs_done, done.jobs_failed, done.reason) == ("done", 6, 0, "")
    assert done.cost == Money(micros=45_000)  # (3 x 1 + 3 x 2) core x 5 s x 1,000
    assert platform.standing() == (45_000, 0)
    assert done.started_at is not None
    assert done.ended_at is not None
    assert sorted(job.argv[0] for job in platform.ran) == ["join", "left", "left", "left", "right", "sh"]
    assert [job.argv[0] for job in (platform.ran[0], platform.ran[-1])] == ["sh", "join"]


def test_steps_stand_as_their_jobs_do(platform: Platform) -> None:
    """While it runs, a run shows which steps wait, run and are done."""
    run = platform.submit("diamond")
    assert [(step.name, step.state) for step in platform.show(run.id).steps] == [
        ("make", "running"), ("left", "waiting"), ("right", "waiting"), ("join", "waiting"),
    ]  # fmt: skip
    platform.run(lambda: platform.show(run.id).steps[0].state == "done")
    steps = {step.name: step for step in platform.show(run.id).steps}
    assert (steps["left"].state, steps["left"].jobs, steps["join"].state) == ("running", 3, "waiting")
    assert platform.show(run.id).instance.state == "running"


def test_events_tell_the_story_in_order(platform: Platform) -> None:
    """Events are numbered from 1 without gaps; the last one says how it ended."""
    run = platform.submit("diamond")
    platform.run()
    events = platform.events(run.id)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    assert (events[0].kind, events[0].text) == ("submitted", "submitted to alpha/cpu by policy weighted")
    assert (events[-1].kind, events[-1].phase) == ("state", "done")
    made = [event.phase for event in events if event.step == "make"]
    assert made[-1] == "done"
    assert "running" in made


def test_results_of_earlier_steps_are_inputs(platform: Platform) -> None:
    """A step finds what earlier steps left as a folder; inputs are pinned to the version that was submitted."""
    platform.objects.put("acme", "alice", "m.msh", "e1", 1000)
    run = platform.submit("diamond", inputs={"mesh": "alice/m.msh"})
    specs = platform.specs(run.id)
    assert specs["make", 0].inputs == (InputRef("mesh", "alice", "m.msh", "e1", 1000),)
    assert [name for name, _ in specs["make", 0].files] == ["run.sh"]
    assert specs["left", 1].inputs == (InputRef("make", "alice", f"runs/{run.id}/make/"),)
    assert (specs["left", 1].output_bucket, specs["left", 1].output_prefix) == ("alice", f"runs/{run.id}/left/1/")
    assert [ref.name for ref in specs["join", 0].inputs] == ["left", "right"]


def test_results_are_listed_by_step(platform: Platform) -> None:
    """What jobs left lies below the run's prefix, in the order of the steps."""
    run = platform.submit("diamond")
    platform.run()
    page: api.Results = platform.ask(api.RESULTS, workflow_instance_id=run.id)
    assert (page.bucket, page.prefix) == ("alice", f"runs/{run.id}/")
    assert {item.key.removeprefix(page.prefix) for item in page.items if item.key.endswith("out.txt")} == {
        "make/out.txt", "left/0/out.txt", "left/1/out.txt", "left/2/out.txt", "right/out.txt", "join/out.txt",
    }  # fmt: skip
    left: api.Results = platform.ask(api.RESULTS, workflow_instance_id=run.id, step="left", limit=2)
    rest: api.Results = platform.ask(api.RESULTS, workflow_instance_id=run.id, step="left", after=left.next)
    assert {item.step for item in (*left.items, *rest.items)} == {"left"}


def test_the_report_compares_predicted_and_actual(platform: Platform) -> None:
    """Each job's run time and cost stand beside what was predicted, and what was not needed is returned."""
    run = platform.submit("diamond")
    platform.run()
    report: api.Report = platform.ask(api.REPORT, workflow_instance_id=run.id)
    assert report.returned == Money(micros=900_000 - 45_000)
    found = {(line.step, line.index, line.figure): line for line in report.comparisons}
    made = found["make", 0, "run"]
    assert (made.unit, made.actual, made.place) == ("s", 5.0, "alpha/cpu")
    assert made.low <= made.predicted <= made.high
    assert made.inside == (made.low <= 5.0 <= made.high)
    assert found["left", 2, "cost"].actual == 0.01


def test_jobs_are_listed_page_by_page(platform: Platform) -> None:
    """Jobs come in the order in which they can run."""
    run = platform.submit("diamond")
    seen: list[tuple[str, int]] = []
    after: str | None = ""
    while after is not None:
        page: api.Jobs = platform.ask(api.JOBS, workflow_instance_id=run.id, after=after, limit=4)
        seen += [(job.step, job.index) for job in page.items]
        after = page.next
    assert seen == [("make", 0), ("left", 0), ("left", 1), ("left", 2), ("right", 0), ("join", 0)]
    with pytest.raises(InvalidSpec, match="no cursor"):
        platform.ask(api.JOBS, workflow_instance_id=run.id, after="x")


# -------------------------------------------------------------------------------------------------------- failures


def test_a_failed_step_voids_what_needs_it(database: Database) -> None:
    """What depends on it never runs and costs nothing, what does not goes on, and its own results are kept."""
    platform = Platform(database, {"left": Outcome(5.0, exit_code=3, files={"partial.txt": b"x"})})
    platform.publish(DIAMOND)
    run = platform.submit("diamond", parameters={"cases": ["a"]})
    platform.run()
    detail = platform.show(run.id)
    assert (detail.instance.state, detail.instance.jobs_done, detail.instance.jobs_failed) == ("failed", 2, 1)
    assert detail.instance.reason.startswith("left: ")
    assert {step.name: step.state for step in detail.steps} == {
        "make": "done", "left": "failed", "right": "done", "join": "void",
    }  # fmt: skip
    joined, failed = platform.jobs(run.id)["join", 0], platform.jobs(run.id)["left", 0]
    assert (joined.state, joined.cost, joined.reason) == (
        "void", Money(micros=0), "never run: step left did not end well",
    )  # fmt: skip
    assert failed.exit_code == 3
    assert platform.standing() == (5_000 + 10_000 + 5_000, 0)
    assert "partial.txt" in str(platform.ask(api.RESULTS, workflow_instance_id=run.id))


def test_the_first_step_failing_voids_all(platform: Platform) -> None:
    """A run whose first step fails ends at once, and everything reserved is free again."""
    platform.outcomes["make"] = Outcome(2.0, exit_code=1)
    run = platform.submit("diamond")
    platform.run()
    instance = platform.show(run.id).instance
    assert (instance.state, instance.cost, instance.jobs_failed) == ("failed", Money(micros=2_000), 1)
    assert platform.standing() == (2_000, 0)
    assert [event.phase for event in platform.events(run.id)][-2:] == ["void", "failed"]


# ------------------------------------------------------------------------------------------------------ cancelling


def test_cancelled_before_it_began(database: Database) -> None:
    """Nothing runs, nothing is charged; cancelling once more changes nothing."""
    platform = Platform(database)
    platform.publish(DIAMOND)
    run = platform.submit("diamond")
    platform.ask(api.CANCEL, workflow_instance_id=run.id)
    platform.run()
    again: api.Instance = platform.ask(api.CANCEL, workflow_instance_id=run.id)
    assert (again.state, again.cost, again.reason) == ("cancelled", Money(micros=0), "cancelled by alice@acme")
    assert platform.standing() == (0, 0)
    assert platform.ran == []
    assert {job.state for job in platform.jobs(run.id).values()} <= {"cancelled", "void"}


def test_cancelled_while_it_runs(platform: Platform) -> None:
    """What runs is stopped and charged, what waits is void, and the run is cancelled."""
    platform.outcomes["left"] = Outcome(90.0)
    run = platform.submit("diamond")
    platform.run(lambda: platform.show(run.id).steps[1].state == "running" and len(platform.ran) >= 4)
    first: api.Instance = platform.ask(api.CANCEL, MIA, workflow_instance_id=run.id)
    second: api.Instance = platform.ask(api.CANCEL, workflow_instance_id=run.id)
    assert first.events == second.events
    platform.run()
    instance = platform.show(run.id).instance
    assert (instance.state, instance.reason) == ("cancelled", "cancelled by mia@acme")
    assert platform.jobs(run.id)["join", 0].state in ("void", "cancelled")
    posted, pending = platform.standing()
    assert (posted, pending) == (instance.cost.micros, 0)
    assert posted > 0


def test_done_cannot_be_cancelled(platform: Platform) -> None:
    """There is nothing left to cancel, and it says so."""
    run = platform.submit("diamond")
    platform.run()
    with pytest.raises(Conflict, match=r"has ended \(done\)"):
        platform.ask(api.CANCEL, workflow_instance_id=run.id)


# ------------------------------------------------------------------------------------------------- what is refused


def nothing_is_left(platform: Platform) -> None:
    """No run, no reservation."""
    assert platform.ask(api.LIST).items == ()
    assert platform.standing() == (0, 0)


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"template": "diamnod"}, NotFound, "Did you mean 'diamond'?"),
        ({"template": "diamond", "version": 7}, NotFound, "diamond has no version 7"),
        ({"template": "diamond", "parameters": {"cores": "many"}}, InvalidSpec, "parameters.cores: 'many'"),
        ({"template": "diamond", "parameters": {"cores": 101}}, InvalidSpec, "from 1 to 100"),
        ({"template": "diamond", "parameters": {"core": 1}}, InvalidSpec, "Did you mean 'cores'?"),
        ({"template": "diamond", "inputs": {"mesh": "alice/none"}}, NotFound, "alice/none"),
        ({"template": "diamond", "parameters": {"cores": 9}}, NoPlacement, "8"),
        ({"template": "diamond", "project": "wing"}, NotFound, "wing"),
        ({}, InvalidSpec, "neither a workflow nor a decision"),
        ({"template": "diamond", "cluster": "alpha"}, InvalidSpec, "belong together"),
        ({"template": "diamond", "cluster": "omega", "queue": "cpu"}, NotFound, "omega/cpu"),
        ({"decision": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, NotFound, "decision"),
        ({"decision": "x", "template": "diamond"}, InvalidSpec, "template: decision x brings its own"),
    ],
)
def test_what_cannot_run_is_refused(
    platform: Platform, fields: dict[str, object], error: type[Exception], told: str
) -> None:
    """The refusal names the value and the way out, and leaves nothing behind."""
    with pytest.raises(error) as refused:
        platform.ask(api.SUBMIT, **fields)
    assert told in str(refused.value)
    nothing_is_left(platform)


def test_a_run_beyond_the_credit_is_refused(platform: Platform) -> None:
    """A worst case above what is left names by how much it is too small."""
    expensive = DIAMOND.replace("walltime_s: 100", "walltime_s: 80000").replace("name: diamond", "name: dear")
    platform.publish(expensive)
    with pytest.raises(OverBudget) as refused:
        platform.submit("dear", parameters={"cores": 8})
    assert "acme" in str(refused.value)
    nothing_is_left(platform)


def test_others_cannot_look_or_stop(platform: Platform) -> None:
    """Another organisation's ids are as if they were not there."""
    run = platform.submit("diamond")
    for operation in (api.GET, api.CANCEL, api.REPORT, api.JOBS, api.RESULTS, api.EVENTS):
        with pytest.raises(NotFound, match="There is no run"):
            platform.ask(operation, ZOE, workflow_instance_id=run.id)
    with pytest.raises(NotFound):
        platform.ask(api.AGAIN, ZOE, workflow_instance_id=run.id)


# --------------------------------------------------------------------------------------- preview, again, repetition


def test_preview_reserves_nothing_and_can_be_submitted(platform: Platform) -> None:
    """It shows each step's worst case and every budget after it; its decision is what one then submits."""
    shown: api.Preview = platform.ask(api.PREVIEW, template="diamond", policy="cheapest")
    assert (shown.place, shown.reserved) == ("alpha/cpu", Money(micros=900_000))
    assert [(step.step, step.jobs, step.reserved.micros) for step in shown.steps] == [
        ("make", 1, 100_000), ("left", 3, 600_000), ("right", 1, 100_000), ("join", 1, 100_000),
    ]  # fmt: skip
    (credit,) = [line for line in shown.budgets if line.name == "credit of acme"]
    assert (credit.used.micros, credit.after.micros, credit.fits) == (0, 900_000, True)
    nothing_is_left(platform)
    run: api.Instance = platform.ask(api.SUBMIT, decision=shown.decision, cluster="alpha", queue="cpu")
    assert (run.reserved, run.policy) == (shown.reserved, "cheapest")


def test_a_decision_is_used_once(platform: Platform) -> None:
    """A second run of one decision is refused; the same request again is the same run."""
    shown: api.Preview = platform.ask(api.PREVIEW, template="diamond")
    first: api.Instance = platform.ask(api.SUBMIT, key="k1", decision=shown.decision)
    same: api.Instance = platform.ask(api.SUBMIT, key="k1", decision=shown.decision)
    assert same == first
    with pytest.raises(Conflict, match="was used for run"):
        platform.ask(api.SUBMIT, key="k2", decision=shown.decision)
    assert len(platform.ask(api.LIST).items) == 1


def test_an_old_decision_is_replaced(platform: Platform) -> None:
    """After 15 minutes a fresh one is offered, which can be submitted."""
    shown: api.Preview = platform.ask(api.PREVIEW, template="diamond")
    platform.clock.advance(901)
    with pytest.raises(Conflict, match="15 minutes") as refused:
        platform.ask(api.SUBMIT, decision=shown.decision)
    run: api.Instance = platform.ask(api.SUBMIT, decision=refused.value.detail["decision"])
    assert run.state == "waiting"


def test_again_is_the_same_run_once_more(platform: Platform) -> None:
    """Version, parameters, inputs, labels and policy are those of the run, whatever was published since."""
    platform.objects.put("acme", "alice", "m.msh", "e1", 1000)
    fields = {"parameters": {"cores": 3}, "inputs": {"mesh": "alice/m.msh"}, "labels": {"a": "b"}, "policy": "greenest"}
    first = platform.submit("diamond", **fields)
    platform.publish(DIAMOND.replace("title: Diamond", "title: Another"))
    second: api.Instance = platform.ask(api.AGAIN, workflow_instance_id=first.id)
    detail = platform.show(second.id)
    assert (second.version, second.labels, second.policy) == (1, {"a": "b"}, "greenest")
    assert (detail.parameters, detail.inputs) == ({"cores": 3}, {"mesh": "alice/m.msh"})
    assert detail.again_of == first.id
    third: api.Instance = platform.ask(api.AGAIN, workflow_instance_id=first.id, policy="fastest")
    assert third.policy == "fastest"


def test_lists_show_ones_own_and_managers_all(platform: Platform) -> None:
    """A user lists their own runs; with `workflows:manage` those of the organisation, also by template."""
    mine = platform.submit("diamond", caller=ALICE)
    platform.publish(DIAMOND.replace("name: diamond", "name: other"), MIA)
    theirs = platform.submit("other", caller=MIA)
    assert [item.id for item in platform.ask(api.LIST).items] == [mine.id]
    assert [item.id for item in platform.ask(api.LIST_ALL, MIA).items] == [theirs.id, mine.id]
    one = platform.ask(api.LIST_OF_TEMPLATE, MIA, workflow_template_id="diamond")
    assert [item.id for item in one.items] == [mine.id]
    assert [item.id for item in platform.ask(api.LIST_ALL, MIA, user="mia").items] == [theirs.id]
