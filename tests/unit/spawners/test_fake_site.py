"""The cluster in memory shows what was measured on real ones: lost submissions, reused ids, late orphans."""

from __future__ import annotations

import pytest

from heroes.api.errors import LinkDown, SchedulerDown
from heroes.api.ids import new_ulid
from heroes_spawners.site import Accepted, Declined, Job, Refusal, Shape, State, Submission, Unknown
from heroes_spawners.testing import FakeClock, FakeSite, Outcome


def one(cpus: int = 1, number: int = 1, key: str = "", walltime_s: int = 60) -> Submission:
    """A job."""
    shape = Shape(tasks=1, cpus_per_task=cpus, walltime_s=walltime_s)
    return Submission(Job(key or new_ulid(), "cpu", shape, ("x",)), number)


def accounted(site: FakeSite, clock: FakeClock, key: str) -> list[State]:
    """The states of a key in accounting."""
    return [job.state for job in site.accounting([key], clock.now().replace(year=2020)).get(key, [])]


def test_an_acknowledged_job_can_be_lost_and_its_id_given_again() -> None:
    """A controller that crashes within seconds forgets what it accepted, and counts on from what it remembers."""
    clock = FakeClock()
    site = FakeSite(clock, start_delay_s=2.0)
    lost = one()
    assert site.submit([lost], 1) == [Accepted("1")]
    clock.advance(1)
    site.crash_controller()
    assert site.poll("").queue == ()
    assert site.status([lost.job.key])[lost.job.key].job_id == "1"
    assert site.submit([one()], 1) == [Accepted("1")]


def test_an_old_job_survives_the_crash() -> None:
    """What was accepted more than five seconds before is remembered."""
    clock = FakeClock()
    site = FakeSite(clock, start_delay_s=60.0)
    site.submit([one()], 1)
    clock.advance(6)
    site.crash_controller()
    assert len(site.poll("").queue) == 1


def test_an_orphan_arrives_after_its_call_failed() -> None:
    """The call fails, the claim stands without an id, and the job comes later under that claim."""
    clock = FakeClock()
    site = FakeSite(clock)
    late = one()
    site.orphan_next_submit(4.0)
    with pytest.raises(LinkDown):
        site.submit([late], 1)
    assert site.status([late.job.key])[late.job.key].job_id is None
    assert isinstance(site.submit([late], 1)[0], Unknown)
    clock.advance(10)
    assert site.status([late.job.key])[late.job.key].job_id == "1"
    assert [key for key, _ in site.executions] == [late.job.key]


def test_two_submissions_of_a_key_execute_once() -> None:
    """The second waits for the first (singleton), finds the run claimed, and ends."""
    clock = FakeClock()
    site = FakeSite(clock)
    key = new_ulid()
    site.submit([one(key=key), one(key=key, number=2)], 1)
    clock.advance(20)
    assert accounted(site, clock, key) == [State.COMPLETED, State.FAILED]
    assert len(site.executions) == 1


def test_jobs_wait_for_room() -> None:
    """No more CPUs are used than there are."""
    clock = FakeClock()
    site = FakeSite(clock, lambda _job: Outcome(10.0), queues={"cpu": 4})
    site.submit([one(cpus=3), one(cpus=3)], 1)
    clock.advance(5)
    assert [job.state for job in site.poll("").queue] == [State.RUNNING, State.PENDING]
    clock.advance(10)
    assert [job.state for job in site.poll("").queue] == [State.RUNNING]


def test_a_job_beyond_its_walltime_times_out_without_a_record() -> None:
    """TIMEOUT, at the limit."""
    clock = FakeClock()
    site = FakeSite(clock, lambda _job: Outcome(100.0))
    long = one(walltime_s=30)
    site.submit([long], 1)
    clock.advance(50)
    assert accounted(site, clock, long.job.key) == [State.TIMEOUT]
    assert site.poll("").records == ()


def test_faults_are_told_apart() -> None:
    """A cut link, a dead scheduler and a refusal are three different things."""
    site = FakeSite(FakeClock())
    site.scheduler_up = False
    with pytest.raises(SchedulerDown):
        site.poll("")
    assert isinstance(site.submit([one()], 1)[0], Unknown)
    site.scheduler_up = True
    site.declines = [Declined(Refusal.LIMIT, "too many")]
    assert site.submit([one()], 1) == [Declined(Refusal.LIMIT, "too many")]
    site.cut_link()
    with pytest.raises(LinkDown):
        site.status([])
    site.restore_link()
    assert site.status([]) == {}


def test_jobs_go_on_behind_a_cut_link() -> None:
    """What ended meanwhile is told once the link is back."""
    clock = FakeClock()
    site = FakeSite(clock)
    site.submit([one()], 1)
    site.cut_link()
    clock.advance(60)
    site.restore_link()
    assert len(site.poll("").records) == 1


def test_without_accounting_there_is_none() -> None:
    """A site without accounting answers nothing there."""
    clock = FakeClock()
    site = FakeSite(clock, accounting_kind="none")
    job = one()
    site.submit([job], 1)
    clock.advance(60)
    assert accounted(site, clock, job.job.key) == []
