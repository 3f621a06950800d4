"""The small pure parts: sentences, outputs, charges, the breaker, values as JSON."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from heroes.api.units import Joules, Money, PowerModel, PriceModel, Watts
from heroes_jobs import endings
from heroes_jobs.breaker import Breaker
from heroes_jobs.model import (
    InputRef,
    JobSpec,
    OutputSpec,
    Phase,
    Reservation,
    Rules,
    reservation_from_json,
    spec_from_json,
)
from heroes_jobs.outputs import judge, pattern
from heroes_jobs.settlement import bounds, charge, elapsed, modelled, report
from heroes_jobs.states import Exit, Outcome
from heroes_spawners.site import Image, Listing, Refusal, Shape, SiteFile, State
from heroes_spawners.slurm.words import NEVER_CLEARS


def file(path: str, size: int = 1) -> SiteFile:
    """A regular file of that size."""
    return SiteFile(path, size, 1, 1, 1)


# ------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Refusal.LIMIT, "QOSMaxSubmitJobPerUserLimit", "waits for its turn"),
        (Refusal.STORAGE, "No space left on device", "disk or quota of the cluster is full"),
        (Refusal.PERMANENT, "invalid partition specified: x", "no partition for queue cpu"),
        (Refusal.PERMANENT, "Invalid account or account/partition combination", "refuses the account of queue cpu"),
        (Refusal.PERMANENT, "Requested time limit is invalid", "longer than queue cpu allows"),
        (Refusal.PERMANENT, "Node count specification invalid", "No node of queue cpu has that shape"),
        (Refusal.PERMANENT, "image not found", "The container image /i.sif is missing"),
        (Refusal.PERMANENT, "something\n else", "refused the job, and would again: something else"),
    ],
)
def test_a_refusal_is_told_with_the_way_out(kind: Refusal, text: str, words: str) -> None:
    """Every refusal says what it means, with the scheduler's own words in one line."""
    told = endings.refused(kind, text, "cpu", "/i.sif")
    assert words in told
    assert " ".join(text.split()) in told
    assert "\n" not in told


def test_only_reasons_that_never_clear_are_hopeless() -> None:
    """Waiting for priority or resources is no reason to give up; a limit of the partition is."""
    assert endings.hopeless("Priority", "cpu") == endings.hopeless("Resources", "cpu") == ""
    assert "Ask for less" in endings.hopeless("PartitionTimeLimit", "cpu")
    assert "no node of queue cpu" in endings.hopeless("(BadConstraints)", "cpu")
    for reason in ("PartitionDown", "PartitionInactive", "QOSJobLimit", "JobHeldAdmin"):  # these clear
        assert endings.hopeless(reason, "cpu") == ""


@pytest.mark.parametrize("reason", sorted(NEVER_CLEARS))
def test_every_reason_that_never_clears_is_told_with_the_way_out(reason: str) -> None:
    """What the reader of SLURM's words knows to be hopeless ends the job, with a sentence that says what to do."""
    told = endings.hopeless(reason, "cpu")
    assert told.startswith("The job would wait forever: ")
    assert "{" not in told
    assert any(way in told for way in ("Ask for", "Choose", "Submit it again", "must correct it"))


@pytest.mark.parametrize(
    ("code", "words"), [(1, "stands in stderr"), (127, "was not found"), (137, "out of memory"), (153, "max_mib")]
)
def test_an_exit_code_is_explained(code: int, words: str) -> None:
    """The sentence names the code, what it often means, and where to look."""
    told = endings.exited(code)
    assert f"exit code {code}" in told
    assert words in told
    assert "stderr.txt" in told


def test_the_schedulers_endings_are_explained() -> None:
    """Walltime, memory, cancellation and node failures each have their way out."""
    assert "limit of 60 s" in endings.by_state(State.TIMEOUT, 60)
    assert "than the 32 MiB that it asked for" in endings.by_state(State.OUT_OF_MEMORY, memory_mib=32)
    assert "than its share" in endings.by_state(State.OUT_OF_MEMORY)
    assert "centre cancelled it" in endings.by_state(State.CANCELLED)
    assert "Nothing is charged" in endings.by_state(State.NODE_FAIL)


def test_what_keeps_a_cluster_away_is_told() -> None:
    """Since when, that nothing is lost, and the cluster's own words where there are some."""
    told = endings.unreachable("alpha", "noon", "the disk\n is full")
    assert told.startswith("alpha has not been reachable since noon. Nothing is lost")
    assert told.endswith("(the disk is full)")
    assert "(" not in endings.unreachable("alpha", "noon")


def test_many_faults_of_outputs_are_told_shortly() -> None:
    """Five faults are named, the rest counted."""
    told = endings.outputs([f"f{index}" for index in range(8)], [], [])
    assert "'f4'" in told
    assert "'f5'" not in told
    assert "and 3 more" in told


# --------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.csv", "a.csv", True), ("*.csv", "d/a.csv", False), ("**/*.csv", "a.csv", True),
        ("**/*.csv", "d/e/a.csv", True), ("d/**", "d/e/f", True), ("?.txt", "ab.txt", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False), ("[!ab].txt", "c.txt", True), ("a.csv", "a_csv", False), ("a[", "a[", True),
        ("[]", "[]", True), ("[a-c]", "b", True), ("*", "x\ny", True),
    ],
)  # fmt: skip
def test_globs_match_within_folders(glob: str, path: str, matches: bool) -> None:
    """`*` stays within one folder, `**` crosses them, everything else stands for itself."""
    assert bool(pattern(glob).fullmatch(path)) is matches


def test_everything_regular_is_delivered() -> None:
    """What was not declared is a result too."""
    judged = judge(Listing((file("a.csv", 3), file("log", 2))), (OutputSpec("*.csv"),), 100)
    assert ([each.path for each in judged.files], judged.size, judged.fault) == (["a.csv", "log"], 5, "")


def test_an_optional_output_may_be_missing() -> None:
    """Only required globs are missed, and the streams satisfy none."""
    listing = Listing((file("stdout.txt"),), skipped=("x",))
    assert judge(listing, (OutputSpec("*.csv", required=False),), 100).fault == ""
    assert "no file matches '*.txt'" in judge(listing, (OutputSpec("*.txt"),), 100).fault


def test_a_file_above_its_cap_stays_behind() -> None:
    """A file larger than its declaration allows is named and not delivered; the others are."""
    judged = judge(Listing((file("a.csv", 30), file("b.csv", 3))), (OutputSpec("*.csv", max_bytes=10),), 100)
    assert [each.path for each in judged.files] == ["b.csv"]
    assert "'a.csv' has 30 bytes, and 10 are allowed" in judged.fault


# --------------------------------------------------------------------------------------------------------- charges


HELD = Reservation(
    "centre", Money(micros=10**9), PriceModel(per_core_hour=Decimal("0.36"), per_kwh=Decimal("0.5")),
    power=PowerModel(idle=Watts(100), busy=Watts(300)), cpus_per_node=8,
)  # fmt: skip


def test_what_was_allocated_is_charged() -> None:
    """Cores times seconds at the pinned price, and the energy that was measured."""
    made = charge(HELD, Shape(), Outcome(State.COMPLETED, 0, 100, elapsed_s=100, cpus=8, nodes=1), 0, Joules(3.6e6))
    assert made.lines == {"core-hours": 80_000, "kwh": 500_000}
    assert (made.amount, made.elapsed_s) == (Money(micros=580_000), 100)


def test_where_the_scheduler_does_not_say_the_shape_counts() -> None:
    """Without allocated CPUs in the accounting, what was asked for is charged."""
    made = charge(HELD, Shape(tasks=2, cpus_per_task=2), Outcome(State.COMPLETED, 0, 100, elapsed_s=100), 0, None)
    assert made.lines == {"core-hours": 40_000}


def test_one_second_at_least_and_nothing_for_nothing() -> None:
    """A job that ran within one second is charged one; one that never began none, nor a fee for its use."""
    assert elapsed(Outcome(State.COMPLETED, started_at=5.0)) == 1.0
    assert elapsed(Outcome(State.COMPLETED, started_at=5.0, elapsed_s=0.25)) == 0.25


def test_a_job_cancelled_while_it_waited_is_charged_nothing() -> None:
    """Some versions of SLURM account the moment of the cancellation as its start; nothing was allocated then."""
    assert elapsed(Outcome(State.CANCELLED, started_at=5.0, ended_at=5.0)) == 0.0
    assert elapsed(Outcome(State.CANCELLED, started_at=5.0, ended_at=5.0, cpus=1)) == 1.0
    per_use = Reservation("centre", Money(micros=10**9), PriceModel(per_use=Decimal(1)))
    assert charge(per_use, Shape(), Outcome(State.CANCELLED), 0, None).amount == Money(micros=0)


def test_energy_without_a_report_comes_from_the_queues_model() -> None:
    """Half the node's cores: half of what the node takes, for as long, marked as a model."""
    figure = modelled(HELD, Shape(), Outcome(State.COMPLETED, 0, 10, elapsed_s=10, cpus=4, nodes=1))
    assert figure is not None
    assert figure.joules == Joules(1500)
    assert "model" in figure.method
    assert modelled(HELD, Shape(), Outcome(State.CANCELLED)) is None
    assert modelled(Reservation("c", Money(micros=1), PriceModel()), Shape(), Outcome(State.COMPLETED, 1)) is None


def test_energy_is_bounded_by_the_nodes_power() -> None:
    """The most that the nodes can have taken in the time."""
    most = bounds(HELD, Shape(), Outcome(State.COMPLETED, 0, 10, elapsed_s=10, cpus=4, nodes=2))
    assert most is not None
    assert (most.watts, most.nodes, most.elapsed_s, most.cpus) == (Watts(300), 2, 10, 4)


def test_energy_reports_are_read_with_suspicion() -> None:
    """One object, or several tasks'; anything else is no report."""
    assert report(Exit(0, 1, '{"energy_j": 3}')) == {"energy_j": 3}
    assert report(Exit(0, 1, '{"a": 1}\n{"a": 2}')) == {"tasks": [{"a": 1}, {"a": 2}]}
    for bad in ("", "nonsense", "[1]", "x" * 100_000):
        assert report(Exit(0, 1, bad)) is None
    assert report(None) is None


# --------------------------------------------------------------------------------------------------------- breaker


def test_the_breaker_opens_at_the_third_failure() -> None:
    """Two failures are followed by quick tries, the third by a pause of 5 to 300 s that grows with chance."""
    breaker = Breaker().failed(100, "cut", 0.5).failed(101, "cut", 0.5)
    assert not breaker.open
    assert breaker.may_ask(102)
    breaker = breaker.failed(102, "cut", 0.5)
    assert breaker.open
    assert (breaker.since, breaker.trouble) == (100, "cut")
    assert not breaker.may_ask(105)


def test_pauses_stay_between_five_seconds_and_five_minutes() -> None:
    """Whatever chance draws, and however long it lasts."""
    for chance in (0.0, 0.999):
        breaker, at = Breaker(), 0.0
        for _ in range(50):
            breaker = breaker.failed(at, "cut", chance)
            at = breaker.retry_at
            assert breaker.pause_s == 0.0 or 5 <= breaker.pause_s <= 300


# ------------------------------------------------------------------------------------------------------ values as JSON


def test_a_spec_survives_the_database() -> None:
    """A step read back is the step that was asked for."""
    spec = JobSpec(
        "acme", "ann", "01RUN", "solve", "alpha", "cpu", ("a", "$(b) 'c'"), Shape(2, 4, 1, 100, 1, 60), "wind", "t", 3,
        {"A": "b"}, Image("/i.sif", "sha256:0"), ("python",), ("gcc",), True, (InputRef("data", "ann", "x/", "e", 5),),
        outputs=(OutputSpec("*.csv", False, 9),), output_bucket="ann", output_prefix="runs/x", options=("--account=a",),
        predicted={"run": 1.5}, files=(("run.py", "0" * 64),),
    )  # fmt: skip
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_reservation_survives_the_database() -> None:
    """Price, rate and power are read back exactly."""
    held = Reservation("c", Money(micros=5, currency="CHF"), HELD.price, {"use": 5}, Decimal("1.07"), HELD.power, 8)
    assert reservation_from_json(json.loads(json.dumps(held.to_json()))) == held


def test_moving_keeps_the_work() -> None:
    """At another place the same step differs in place and what is changed with it only."""
    spec = JobSpec("acme", "ann", "r", "s", "alpha", "cpu", ("x",))
    moved = spec.at("beta", "gpu", modules=("cuda",))
    assert (moved.cluster, moved.queue, moved.modules, moved.argv) == ("beta", "gpu", ("cuda",), ("x",))


def test_without_accounting_waits_are_three_times_as_long() -> None:
    """Where only queue and run claims tell, everything is believed later."""
    slow = Rules().without_accounting()
    assert (slow.unsure_s, slow.relist_s, slow.silent_s, slow.accounted) == (180, 270, 1800, False)


def test_final_phases_are_final() -> None:
    """Users see eleven phases, four of them ends."""
    assert len(Phase) == 11
