"""The engine on a cluster in memory: the whole path, and each fault on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api.errors import InvalidSpec, LinkDown, NotFound, OverBudget, StoreBusy
from heroes_core.outbox import News, dispatch
from heroes_core.store import audit_record
from heroes_core.work import Caller, Database, Work
from heroes_jobs import desk as desk_module
from heroes_jobs import endings, files, service, store
from heroes_jobs.desk import FAILPOINTS, EngineSettings, LeaseLost
from heroes_jobs.model import AttemptNews, InputRef, OutputSpec, Phase
from heroes_jobs.ports import QueueFacts
from heroes_spawners.site import Answer, Declined, Image, Job, Queued, Refusal, Shape, State, Submission
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.unit.jobs.world import FakeClusters, World, held, spec, world

OPERATOR = Caller("heroes", "ops", frozenset({"platform:operate"}), platform=True)


@pytest.fixture
def here(sqlite: Database) -> World:
    """A world whose jobs run for five seconds and leave a file."""
    clock = FakeClock()
    return world(sqlite, clock, cluster_of(clock, Outcome(5.0, files={"result.csv": b"1,2\n"})))


def cluster_of(clock: FakeClock, outcome: Outcome, **options: Any) -> FakeSite:
    """A cluster on which every job does the same."""
    return FakeSite(clock, lambda _job: outcome, start_delay_s=0.5, **options)


def ends_as(sqlite: Database, outcome: Outcome, **changes: Any) -> tuple[World, Any]:
    """A world in which one job with that outcome was run, and its row."""
    clock = FakeClock()
    here = world(sqlite, clock, cluster_of(clock, outcome))
    [key] = here.submit(spec(**changes))
    here.run()
    return here, here.row(key)


# -------------------------------------------------------------------------------------------------------- the path


def test_the_whole_path(database: Database) -> None:
    """Inputs staged, submitted once, run once, outputs delivered, settled by what was used."""
    clock = FakeClock()
    here = world(database, clock, cluster_of(clock, Outcome(5.0, files={"result.csv": b"1,2\n"})))
    asked = spec(inputs=(InputRef("data", "ann", "in.csv"),), outputs=(OutputSpec("*.csv"),))
    with here.listening() as news:
        [key] = here.submit(asked)
        here.run()
    row = here.row(key)
    assert (row.status, row.cost, row.exit_code, row.elapsed_s) == (Phase.DONE, 5000, 0, 5.0), here.story(key)
    assert [each[0] for each in here.site.submissions] == [each[0] for each in here.site.executions] == [key]
    assert [folder.prefix for folder in here.mover.delivered] == ["runs/01RUN/solve/0"]
    assert [each.phase for each in news] == [
        Phase.STAGING_IN, Phase.WAITING, Phase.SUBMITTING, Phase.QUEUED, Phase.RUNNING, Phase.STAGING_OUT, Phase.DONE,
    ]  # fmt: skip
    assert news[-1].files == ("result.csv",)
    assert news[-1].cost is not None
    assert (news[-1].cost.micros, news[-1].elapsed_s, news[-1].final) == (5000, 5.0, True)


def test_inputs_are_mounted_where_they_were_staged(here: World) -> None:
    """The job sees each input under its name, at the path that the mover gave."""
    seen: list[Job] = []
    here.site._run = lambda job: seen.append(job) or Outcome(1.0)  # type: ignore[func-returns-value]
    with here.database.write() as work:
        kept = files.keep(work, [("run.py", b"print(1)")])
    here.submit(spec(inputs=(InputRef("data", "ann", "in.csv"),), files=kept, template="t"))
    here.run()
    assert [(each.name, each.path) for each in seen[0].inputs] == [("data", "data/acme/ann/ann/in.csv")]
    assert seen[0].files == {"run.py": b"print(1)"}
    assert seen[0].environment["HEROES_INSTANCE_WORKFLOW_ID"] == "01RUN"


def test_many_jobs_share_every_call(here: World) -> None:
    """A hundred attempts cost few submissions, polls and deliveries, whatever their number."""
    calls: Counter[str] = Counter()
    for name in ("submit", "poll", "accounting", "seal", "status"):
        setattr(here.site, name, _counted(calls, name, getattr(here.site, name)))
    here.site._queues = {"cpu": 100}
    here.submit(*(spec(index=index) for index in range(100)))
    here.run()
    assert calls["submit"] == 4
    assert calls["status"] == 0
    assert max(calls["poll"], calls["accounting"], calls["seal"]) <= 12
    assert len(here.mover.delivered) == 100


def _counted(calls: Counter[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def counting(*arguments: Any) -> Any:
        calls[name] += 1
        return call(*arguments)

    return counting


def test_polls_grow_rare_while_nothing_changes(here: World) -> None:
    """A job that runs for long is polled at the slowest pace, as are a thousand."""
    here.site._run = lambda _job: Outcome(400.0)
    here.submit(spec(shape=Shape(walltime_s=1000)))
    here.run(lambda: here.clock.monotonic() > 100)
    calls: Counter[str] = Counter()
    here.site.poll = _counted(calls, "poll", here.site.poll)
    start = here.clock.monotonic()
    here.run(lambda: here.clock.monotonic() > start + 100)
    assert calls["poll"] in range(20, 27)  # every 4 s, as these settings say


def test_a_thousand_waiting_jobs_are_polled_as_often_as_one(here: World) -> None:
    """Reasons to wait that change all the time make no poll come sooner."""
    reasons = ["Priority", "Resources"]
    here.site._queues = {"cpu": 0}
    here.site._queued = lambda job: Queued(job.key, job.job_id, State.PENDING, reasons[int(here.clock.monotonic()) % 2])
    here.submit(*(spec(index=index) for index in range(50)))
    here.run(lambda: here.clock.monotonic() > 100)
    calls: Counter[str] = Counter()
    here.site.poll = _counted(calls, "poll", here.site.poll)
    start = here.clock.monotonic()
    here.run(lambda: here.clock.monotonic() > start + 100)
    assert calls["poll"] in range(20, 27)  # every 4 s, as these settings say


def test_polls_without_news_are_not_written(here: World) -> None:
    """While nothing changes the database is written once a minute, not at each poll."""
    here.site._run = lambda _job: Outcome(900.0)
    here.submit(spec(shape=Shape(walltime_s=1000)))
    here.run(lambda: here.clock.monotonic() > 70)
    commits: Counter[str] = Counter()
    here.engine.desk.database.write = _counted(commits, "write", here.engine.desk.database.write)  # type: ignore[method-assign]
    start = here.clock.monotonic()
    here.run(lambda: here.clock.monotonic() > start + 300)
    assert commits["write"] <= 10  # a cursor and a lease each minute


def test_a_job_within_one_second_of_the_scheduler_is_charged_one(here: World) -> None:
    """SLURM counts whole seconds: a job that began and ended in one of them costs a second."""
    here.site._run = lambda _job: Outcome(0.0)
    [key] = here.submit(spec())
    here.run()
    assert here.row(key).cost == 1000


# ------------------------------------------------------------------------------------------------------- bad endings


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(2.0, exit_code=3), endings.exited(3)),
        (Outcome(2.0, state=State.TIMEOUT, record=False), endings.by_state(State.TIMEOUT, 60)),
        (Outcome(2.0, state=State.OUT_OF_MEMORY, record=False), endings.by_state(State.OUT_OF_MEMORY)),
        (Outcome(2.0, exit_code=endings.WRONG_IMAGE, record=False), endings.no_image("/images/own.sif")),
    ],
)
def test_what_ran_and_failed_is_charged_and_its_files_are_kept(sqlite: Database, outcome: Outcome, reason: str) -> None:
    """A failing script, too little time or memory, a missing image: the sentence, what was used, what was left."""
    left = {"partial.txt": b"half"}
    image = Image("/images/own.sif", "sha256:0")
    here, row = ends_as(sqlite, Outcome(**{**vars(outcome), "files": left, "stderr": b"why\n"}), image=image)
    assert (row.status, row.reason, row.cost) == (Phase.FAILED, reason, 2000)
    assert {file.path for folder in here.mover.delivered for file in folder.files} == {"partial.txt", "stderr.txt"}
    assert len(here.site.executions) == 1


@pytest.mark.parametrize(
    ("outcome", "outputs", "words"),
    [
        (Outcome(1.0), (OutputSpec("*.csv"),), "no file matches '*.csv'"),
        (Outcome(1.0, links=("a.csv",)), (OutputSpec("*.csv"),), "'a.csv' is a link"),
        (
            Outcome(1.0, files={"a.csv": b"12345"}),
            (OutputSpec("*.csv", max_bytes=3),),
            "has 5 bytes, and 3 are allowed",
        ),
    ],
)
def test_outputs_that_are_not_as_declared_fail_the_step(
    sqlite: Database, outcome: Outcome, outputs: tuple[OutputSpec, ...], words: str
) -> None:
    """A declared output that is missing, a link, or too large fails the attempt; it is charged."""
    _, row = ends_as(sqlite, outcome, outputs=outputs)
    assert (row.status, row.cost) == (Phase.FAILED, 1000)
    assert words in row.reason


def test_more_output_than_allowed_is_left_behind(sqlite: Database) -> None:
    """Above the cap only the streams are delivered."""
    outcome = Outcome(1.0, files={"big": b"x" * 100}, stdout=b"hello\n")
    here, row = ends_as(sqlite, outcome, max_output_bytes=50)
    assert row.status == Phase.FAILED
    assert [file.path for file in here.mover.delivered[0].files] == ["stdout.txt"]


def test_a_node_failure_is_free_and_tried_again_as_a_new_attempt(here: World) -> None:
    """After a failure of the infrastructure a new attempt of the step runs; only that one is paid."""
    fates = iter([Outcome(2.0, state=State.NODE_FAIL, record=False), Outcome(2.0)])
    here.site._run = lambda _job: next(fates)
    with here.listening() as news:
        [key] = here.submit(spec())
        here.run()
    first = here.row(key)
    again = next(each for each in news if each.retry_of == key)
    second = here.row(again.key)
    assert (first.status, first.cost) == (Phase.LOST, 0)
    assert (second.status, second.cost, second.ordinal, second.retry_of) == (Phase.DONE, 2000, 2, key)
    assert [each.phase for each in news if each.final] == [Phase.DONE]


def test_a_cluster_that_keeps_failing_is_given_up(here: World) -> None:
    """After so many new attempts the step is lost, free of charge."""
    here.site._run = lambda _job: Outcome(1.0, state=State.NODE_FAIL, record=False)
    with here.listening() as news:
        here.submit(spec())
        here.run()
    assert len(here.site.executions) == 1 + EngineSettings().retries
    assert [(each.phase, each.ordinal) for each in news if each.final] == [(Phase.LOST, 3)]


def test_a_job_that_leaves_no_record_is_lost(here: World) -> None:
    """Ended for the scheduler and nothing left: infrastructure, after looking again."""
    fates = iter([Outcome(1.0, record=False), Outcome(1.0)])
    here.site._run = lambda _job: next(fates)
    [key] = here.submit(spec())
    here.run()
    row = here.row(key)
    assert (row.status, row.reason, row.cost) == (Phase.LOST, endings.LOST, 0)
    assert (row.ended_at - row.submitted_at).total_seconds() > 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sbatch: error: invalid partition specified: cpu", "no partition"),
        ("Requested time limit is invalid", "longer"),
    ],
)
def test_a_permanent_refusal_tells_the_way_out(here: World, text: str, words: str) -> None:
    """An invalid partition or a limit that is too long fails it, free of charge, with both their words and ours."""
    here.site.declines.append(Declined(Refusal.PERMANENT, text))
    [key] = here.submit(spec())
    here.run()
    row = here.row(key)
    assert (row.status, row.cost) == (Phase.FAILED, 0)
    assert words in row.reason
    assert text in row.reason


def test_the_centres_own_limit_is_waited_out(here: World) -> None:
    """A submit limit delays an attempt, shown as such, and nothing else."""
    here.site.declines.append(Declined(Refusal.LIMIT, "QOSMaxSubmitJobPerUserLimit"))
    [key] = here.submit(spec())
    here.run(lambda: here.row(key).status == Phase.WAITING and here.row(key).reason != "")
    assert "no more jobs in queue cpu now" in here.row(key).reason
    here.run()
    assert here.row(key).status == Phase.DONE


def test_a_closed_cluster_is_handed_nothing_and_what_runs_is_followed(here: World) -> None:
    """While a cluster is disabled or in maintenance a waiting attempt waits on; one that runs ends as ever."""
    [first] = here.submit(spec())
    here.run(lambda: here.row(first).status == Phase.RUNNING)
    here.clusters.closed = "alpha is in maintenance"
    here.clock.sleep(90)
    [later] = here.submit(spec(index=1))
    here.run(lambda: here.row(first).status == Phase.DONE)
    assert here.row(later).status == Phase.WAITING
    here.clusters.closed = ""
    here.clock.sleep(90)
    here.run()
    assert here.row(later).status == Phase.DONE


def test_a_full_disk_fails_it_after_some_tries(here: World) -> None:
    """A disk or quota that stays full fails the attempt with that sentence."""
    here.site.declines += [Declined(Refusal.STORAGE, "Disk quota exceeded")] * 5
    [key] = here.submit(spec())
    here.run()
    row = here.row(key)
    assert (row.status, row.cost) == (Phase.FAILED, 0)
    assert "disk or quota of the cluster is full" in row.reason


def test_a_reason_that_never_clears_ends_it(here: World) -> None:
    """A job that would wait forever is taken back, free of charge, with the reason."""
    here.site._queues = {"cpu": 0}
    here.site._queued = lambda job: Queued(job.key, job.job_id, State.PENDING, "PartitionTimeLimit")
    [key] = here.submit(spec())
    here.run()
    row = here.row(key)
    assert (row.status, row.reason, row.cost) == (Phase.FAILED, endings.hopeless("PartitionTimeLimit", "cpu"), 0)
    assert here.site.executions == []


# ------------------------------------------------------------------------------------------------------ data trouble


def test_an_input_that_does_not_exist_fails_that_attempt_alone(here: World) -> None:
    """One missing input fails its own attempt; the others of the same call go on."""
    here.mover.missing.add("none.csv")
    bad, good = here.submit(
        spec(inputs=(InputRef("data", "ann", "none.csv"),)), spec(index=1, inputs=(InputRef("data", "ann", "in.csv"),))
    )
    here.run()
    assert (here.row(bad).status, here.row(bad).cost) == (Phase.FAILED, 0)
    assert "there is no object ann/none.csv" in here.row(bad).reason
    assert here.row(good).status == Phase.DONE


def test_a_store_that_is_away_delays_and_loses_nothing(here: World) -> None:
    """Transfers are tried again until the store is back, inputs and results alike."""
    here.mover.trouble += [StoreBusy("away")] * 3
    [key] = here.submit(spec(inputs=(InputRef("data", "ann", "in.csv"),)))
    here.run(lambda: bool(here.mover.staged))
    here.mover.trouble += [StoreBusy("away")] * 3
    here.run()
    assert here.row(key).status == Phase.DONE


def test_a_bucket_that_is_gone_fails_it_and_what_ran_is_charged(here: World) -> None:
    """Results that can never be delivered fail the attempt, with the reason."""
    [key] = here.submit(spec())
    here.mover.trouble += [NotFound("there is no bucket ann", hint="Make it again.")]
    here.run()
    row = here.row(key)
    assert (row.status, row.cost) == (Phase.FAILED, 5000)
    assert "there is no bucket ann" in row.reason


# ------------------------------------------------------------------------------------------------------------ cancel


def test_cancelled_before_anything_was_submitted_it_costs_nothing(here: World) -> None:
    """An attempt cancelled while the cluster is away ends at once, free of charge."""
    here.site.cut_link()
    [key] = here.submit(spec())
    here.turn()
    here.cancel(key)
    here.turn()
    assert (here.row(key).status, here.row(key).cost) == (Phase.CANCELLED, 0)


def test_cancelled_while_pending_it_never_runs(here: World) -> None:
    """A pending job is taken back behind its tombstone, free of charge."""
    here.site._queues = {"cpu": 0}
    [key] = here.submit(spec())
    here.run(lambda: here.row(key).status == Phase.QUEUED)
    here.cancel(key)
    here.run()
    here.site._queues = {"cpu": 8}
    here.clock.sleep(100)
    here.turn()
    assert (here.row(key).status, here.row(key).cost, here.site.executions) == (Phase.CANCELLED, 0, [])


def test_cancelled_while_running_it_costs_what_it_used(here: World) -> None:
    """A running job is stopped, its partial outputs kept, its time charged; cancelling twice is cancelling once."""
    here.site._run = lambda _job: Outcome(500.0, files={"half.txt": b"x"})
    [key] = here.submit(spec(shape=Shape(walltime_s=900)))
    here.run(lambda: here.row(key).status == Phase.RUNNING)
    assert here.cancel(key) == [key]
    assert here.cancel(key) == []
    here.run()
    row = here.row(key)
    assert row.status == Phase.CANCELLED
    assert row.reason == "It was cancelled by ann@acme."
    assert 0 < row.cost < 60_000


def test_cancelled_while_its_submission_is_unknown(here: World) -> None:
    """An orphaned submission that arrives after the cancellation finds the tombstone and does not run."""
    here.site.orphan_next_submit(20.0)
    [key] = here.submit(spec())
    here.turn()
    here.cancel(key)
    here.run()
    here.clock.sleep(60)
    here.turn()
    assert (here.row(key).status, here.row(key).cost, here.site.executions) == (Phase.CANCELLED, 0, [])


def test_a_held_attempt_is_cancelled_without_the_engine(here: World) -> None:
    """An attempt that was never started ends in the transaction that cancels it, and hooks are told."""
    with here.listening() as news, here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
        assert service.cancel(work, [key], "ann@acme") == [key]
    assert here.row(key).status == Phase.CANCELLED
    assert [each.phase for each in news] == [Phase.CANCELLED]


# ------------------------------------------------------------------------------------------------- outages and kills


def test_a_long_outage_changes_nothing(here: World) -> None:
    """With the link cut for half an hour nothing fails and nothing is released; afterwards everything is right."""
    here.site._queues = {"cpu": 100}
    keys = here.submit(*(spec(index=index) for index in range(50)))
    here.run(lambda: all(here.row(key).status == Phase.RUNNING for key in keys))
    here.site.cut_link()
    start = here.clock.monotonic()
    here.run(lambda: here.clock.monotonic() > start + 1800, seconds=2000)
    assert {here.row(key).status for key in keys} == {Phase.RUNNING}
    with here.database.read() as work:
        watched = store.watch(work, "alpha")
    assert watched is not None
    assert watched.unreachable_since is not None
    here.site.restore_link()
    back = here.clock.monotonic()
    here.run(seconds=400)
    assert {here.row(key).status for key in keys} == {Phase.DONE}
    assert here.clock.monotonic() - back < 310  # the longest pause between probes, and a turn or two
    assert [since is None for since, _ in here.clusters.told] == [False, True]


def test_a_cluster_away_is_asked_rarely(here: World) -> None:
    """While a cluster does not answer it is probed some ten times in half an hour, not each second."""
    here.submit(spec())
    here.site.cut_link()
    calls: Counter[str] = Counter()
    here.site.prepare = _counted(calls, "prepare", here.site.prepare)
    here.run(lambda: here.clock.monotonic() > 1800, seconds=2000)
    assert calls["prepare"] < 25


def test_a_lost_submission_is_made_again_and_runs_once(here: World) -> None:
    """A controller that forgot an accepted job gets the next submission; the attempt runs once."""
    here.site._queues = {"cpu": 0}
    [key] = here.submit(spec())
    here.run(lambda: here.row(key).status == Phase.QUEUED)
    here.site.crash_controller()
    here.site._queues = {"cpu": 8}
    here.run()
    assert here.row(key).status == Phase.DONE
    assert [number for _, number, _ in here.site.submissions] == [1, 2]
    assert len(here.site.executions) == 1


def test_an_orphaned_submission_is_adopted(here: World) -> None:
    """A submission whose answer was lost is found by its claim; nothing is submitted twice."""
    here.site.orphan_next_submit(6.0)
    [key] = here.submit(spec())
    here.run()
    assert here.row(key).status == Phase.DONE
    assert len(here.site.submissions) == len(here.site.executions) == 1


class Killed(BaseException):
    """The engine process is gone."""


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if "remove" not in name])
def test_killed_once_at_each_named_point(here: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the engine dies, its successor finishes: one submission, one execution, settled once."""
    died: list[str] = []

    def die(point: str) -> None:
        if point == name and not died:
            died.append(point)
            raise Killed

    monkeypatch.setattr(desk_module, "failpoint", die)
    _through_everything(here, name)
    assert died == [name]


def _through_everything(here: World, name: str) -> None:
    inputs = (InputRef("data", "ann", "in.csv"),)
    here.site.orphan_next_submit(3.0) if "traces" in name or "status" in name else None
    done, stopped = here.submit(spec(inputs=inputs), spec(index=1, inputs=inputs, shape=Shape(walltime_s=900)))
    here.site._run = lambda job: Outcome(5.0) if job.key == done else Outcome(500.0)
    for _ in range(500):
        try:
            if here.row(stopped).status == Phase.RUNNING:
                here.cancel(stopped)
            pause = here.engine.turn()
        except Killed:
            here.restart()
            pause = 0.5
        here.clock.sleep(max(pause, 0.05))
        if here.over():
            break
    assert (here.row(done).status, here.row(done).cost) == (Phase.DONE, 5000)
    assert here.row(stopped).status == Phase.CANCELLED
    assert max(Counter(key for key, _ in here.site.executions).values()) == 1
    assert max(Counter(each[:2] for each in here.site.submissions).values()) == 1


def test_another_engine_fences_the_first(database: Database) -> None:
    """Once the lease is taken by another engine, the first one writes nothing more and says so."""
    clock = FakeClock()
    here = world(database, clock)
    [key] = here.submit(spec())
    here.turn()
    first = here.engine
    clock.sleep(1000)
    with database.write() as work:
        work.execute(sa.update(store.lease).values(until=clock.now()))
    here.restart()
    here.turn()
    clock.sleep(70)
    with pytest.raises(LeaseLost):
        first.turn()
    here.run()
    assert here.row(key).status == Phase.DONE
    assert len(here.site.executions) == 1


# ----------------------------------------------------------------------------------------------- fairness and limits


def test_organisations_take_turns(here: World) -> None:
    """A thousand jobs of one organisation do not keep another's one waiting."""
    here.settings = EngineSettings(chunk=4)
    here.restart()
    here.submit(*(spec(index=index) for index in range(20)))
    [late] = here.submit(spec(organisation="zeta", user="zoe"))
    here.turn()
    first = [key for key, _, _ in here.site.submissions]
    assert late in first[:4]


def test_a_queues_own_limits_are_kept(sqlite: Database) -> None:
    """No more jobs and cores are handed over than the queue allows at once."""
    clock = FakeClock()
    limits = FakeClusters({"cpu": QueueFacts("cpu", max_jobs=3, max_cores=4)})
    here = world(sqlite, clock, cluster_of(clock, Outcome(5.0)), clusters=limits)
    two = Shape(tasks=2, walltime_s=60)
    here.submit(*(spec(index=index, shape=two) for index in range(6)))
    most = 0
    while not here.over():
        clock.sleep(max(here.engine.turn(), 0.05))
        most = max(most, len([job for job in here.site._jobs if job.state in (State.PENDING, State.RUNNING)]))
    assert most == 2
    assert len(here.site.executions) == 6


def test_a_job_that_can_never_be_handed_over_fails_alone(here: World) -> None:
    """One attempt that the site refuses outright does not hold the others of its call."""

    class Picky(FakeSite):
        def submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
            if any(each.job.argv == ("bad",) for each in batch):
                raise InvalidSpec("('bad',) names no program to run", hint="Name one.")
            return super().submit(batch, epoch)

    here.site = Picky(here.clock, start_delay_s=0.5)
    here.restart()
    bad, good = here.submit(spec(argv=("bad",)), spec(index=1))
    here.run()
    assert (here.row(bad).status, here.row(bad).cost) == (Phase.FAILED, 0)
    assert "names no program to run" in here.row(bad).reason
    assert here.row(good).status == Phase.DONE


# -------------------------------------------------------------------------------------------- strangers, housekeeping


def test_strangers_are_cancelled_and_audited(here: World) -> None:
    """A job under our account, named like ours and in no book, is cancelled once it was seen twice, one of another name
    after a minute; both are audited."""
    stranger = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    here.site.submit([Submission(Job(stranger, "cpu", Shape(walltime_s=900), ("x",)))], 1)
    here.site.submit([Submission(Job("their-own", "cpu", Shape(walltime_s=900), ("x",)))], 1)
    here.site._run = lambda _job: Outcome(800.0)
    here.turn(2)
    assert here.site._jobs[0].state is State.RUNNING
    here.turn(2)
    here.turn(2)
    assert [job.state for job in here.site._jobs] == [State.CANCELLED, State.RUNNING]
    with here.database.read() as work:
        told = work.execute(sa.select(audit_record).where(audit_record.c.action == "jobs.stranger-cancelled")).all()
    assert [(each.organisation, each.subject) for each in told] == [("centre", stranger)]
    for _ in range(7):
        here.turn(10)
    assert [job.state for job in here.site._jobs] == [State.CANCELLED, State.CANCELLED]
    with here.database.read() as work:
        told = work.execute(sa.select(audit_record).where(audit_record.c.action == "jobs.stranger-cancelled")).all()
    assert [each.subject for each in told] == [stranger, "2"]
    assert "their-own" in str(told[1].detail)


def test_finished_folders_are_removed_after_some_days(here: World) -> None:
    """Folders of jobs stay for days and then go; what is followed stays."""
    [key] = here.submit(spec())
    here.run()
    assert here.site.status([key]) != {}
    here.clock.sleep(13 * 86400)
    here.turn()
    assert here.row(key).cleaned == 0
    here.clock.sleep(2 * 86400)
    here.turn()
    assert here.row(key).cleaned == 1
    assert here.site.status([key])[key].number == 0  # the tombstone stays


def test_without_accounting_the_settlement_is_provisional_for_three_days(sqlite: Database) -> None:
    """What was observed is charged at once and becomes final after 72 hours."""
    clock = FakeClock()
    here = world(sqlite, clock, cluster_of(clock, Outcome(5.0), accounting_kind="none"))
    [key] = here.submit(spec())
    here.run()
    row = here.row(key)
    assert row.status == Phase.DONE
    assert 5000 <= row.cost <= 8000
    assert (row.final_at - row.ended_at).total_seconds() == 72 * 3600
    clock.sleep(73 * 3600)
    here.turn()
    assert (here.row(key).final_at, here.row(key).cost) == (None, row.cost)


def test_accounting_that_comes_late_corrects_what_was_observed(sqlite: Database) -> None:
    """Where accounting knows better after 72 hours, the difference is a correction, audited."""
    clock = FakeClock()
    here = world(sqlite, clock, cluster_of(clock, Outcome(5.0), accounting_kind="none"))
    [key] = here.submit(spec())
    here.run()
    assert here.row(key).cost != 5000
    here.site.accounting_kind = "full"
    clock.sleep(73 * 3600)
    here.turn()
    assert (here.row(key).cost, here.row(key).final_at) == (5000, None)
    heard: list[News] = []
    dispatch(sqlite, {"jobs.corrected": [lambda _work, news: heard.append(news)]})
    assert [(each.subject, each.detail["was"] != 5000, each.detail["now"]) for each in heard] == [(key, True, 5000)]


# ---------------------------------------------------------------------------------------------- hooks and operators


def test_a_hook_that_fails_stops_its_own_attempt_only(here: World) -> None:
    """An attempt whose end cannot be written waits for an operator; the others of its transaction are settled."""
    bad, good = here.submit(spec(), spec(index=1))

    def hook(_work: Work, told: AttemptNews) -> None:
        if told.key == bad and told.final:
            raise LookupError("no such step")

    service.register(hook)
    try:
        here.run(lambda: here.row(good).status == Phase.DONE and bool(here.row(bad).halted))
    finally:
        service.unregister(hook)
    assert "stopped for an operator: LookupError: no such step" in here.story(bad)
    with here.database.write() as work:
        service.resolve(work, OPERATOR, bad, "lost")
    here.run()
    row = here.row(bad)
    assert (row.status, row.cost, row.halted) == (Phase.LOST, 0, 0)


def test_an_operator_ends_a_lasting_doubt(here: World) -> None:
    """Resolved as lost, an attempt that nobody can find is given up behind a tombstone, audited."""
    here.site.orphan_next_submit(10_000.0)
    [key] = here.submit(spec())
    here.run(lambda: "not known whether submitted" in here.story(key))
    with here.database.write() as work:
        service.resolve(work, OPERATOR, key, "lost")
    here.run()
    assert (here.row(key).status, here.row(key).cost) == (Phase.LOST, 0)
    with here.database.read() as work:
        audited = work.execute(sa.select(audit_record.c.actor).where(audit_record.c.action == "jobs.resolve")).all()
    assert [row.actor for row in audited] == ["ops@heroes"]


def test_a_budget_that_no_longer_fits_ends_the_retries(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new attempt that the budget does not cover is not made: the step is lost, with the reason in its story."""

    def refuse(*_arguments: Any, **_named: Any) -> str:
        raise OverBudget("0.50 EUR are missing")

    here.site._run = lambda _job: Outcome(1.0, state=State.NODE_FAIL, record=False)
    monkeypatch.setattr(service, "retry", refuse)
    [key] = here.submit(spec())
    here.run()
    assert here.row(key).status == Phase.LOST
    assert "not tried again: 0.50 EUR are missing" in here.story(key)


def test_a_link_that_is_cut_during_a_call_in_a_lane_opens_the_breaker(here: World) -> None:
    """Transfers that find the cluster away count as failures of the cluster."""
    here.mover.trouble += [LinkDown("cut")] * 3
    [key] = here.submit(spec(inputs=(InputRef("data", "ann", "in.csv"),)))
    here.run()
    assert here.row(key).status == Phase.DONE
