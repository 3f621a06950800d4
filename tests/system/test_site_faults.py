"""A SLURM site while the link, the controller, the centre's limits or its disk fail: nothing twice, nothing guessed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from heroes.api.errors import LinkDown, SchedulerDown
from heroes.api.ids import new_ulid
from heroes_spawners.site import Accepted, Declined, Job, Refusal, Shape, Submission, Unknown
from tests.contract.rigs import SlurmRig
from tests.lab import Lab, LabCluster, faults

EPOCH = 1


@pytest.fixture
def alpha(lab: Lab) -> LabCluster:
    """The HPC centre."""
    return lab.cluster("alpha")


def jobs(count: int, number: int = 1) -> list[Submission]:
    """Small jobs with fresh keys."""
    shape = Shape(walltime_s=60)
    return [Submission(Job(new_ulid(), "cpu", shape, ("/bin/sleep", "0.2")), number) for _ in range(count)]


def again(batch: list[Submission]) -> list[Submission]:
    """The next submission of each."""
    return [Submission(one.job, one.number + 1) for one in batch]


@pytest.fixture
def rig(alpha: LabCluster) -> Iterator[SlurmRig]:
    """A prepared site on it."""
    made = SlurmRig(alpha, f"faults-{new_ulid()}")
    made.site.prepare(EPOCH)
    yield made
    made.close()


def recorded(rig: SlurmRig, batch: list[Submission]) -> bool:
    """Whether every job left its record."""
    return {one.job.key for one in batch} <= {record.key for record in rig.site.poll("").records}


def until(happened: Callable[[], bool], patience_s: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_a_link_that_is_lost_while_jobs_are_submitted_doubles_none(alpha: LabCluster) -> None:
    """Connections reset in the middle of a batch; the same numbers asked again: each job is handed over once."""
    with faults.relay(alpha) as link, faults.delayed_sbatch(alpha, seed=3, longest_s=0.4) as calls:
        rig = SlurmRig(link.cluster, f"faults-{new_ulid()}")
        rig.site.prepare(EPOCH)
        batch = jobs(16)
        for resets in (2, 6):
            failed: list[LinkDown] = []

            def submit(failed: list[LinkDown] = failed) -> None:
                try:
                    rig.site.submit(batch, EPOCH)
                except LinkDown as error:
                    failed.append(error)

            thread = threading.Thread(target=submit)
            thread.start()
            until(lambda resets=resets: len(calls.seen("sbatch")) >= resets)  # type: ignore[misc]
            link.reset()
            thread.join(60)
            assert failed

        def settled() -> bool:
            return not any(isinstance(answer, Unknown) for answer in rig.site.submit(batch, EPOCH))

        until(settled)
        rig.wait_for(lambda: recorded(rig, batch))
        rig.close()
        assert calls.submissions() == {one.job.key: 1 for one in batch}


def test_a_dead_controller_is_told_as_such(alpha: LabCluster, rig: SlurmRig) -> None:
    """No queue, no answer that could be taken for one; afterwards the next numbers go through."""
    batch = jobs(4)
    with faults.controller_down(alpha):
        with pytest.raises(SchedulerDown):
            rig.site.poll("")
        answers = rig.site.submit(batch, EPOCH)
        assert {answer.kind for answer in answers if isinstance(answer, Declined)} == {Refusal.LIMIT}
        assert len(answers) == 4
    assert all(isinstance(answer, Accepted) for answer in rig.site.submit(again(batch), EPOCH))
    rig.wait_for(lambda: recorded(rig, batch))


def test_the_centres_limit_is_a_limit(alpha: LabCluster, rig: SlurmRig) -> None:
    """Jobs beyond it are declined for now, and taken when there is room."""
    until(lambda: not rig.site.poll("").queue)
    batch = [Submission(Job(new_ulid(), "cpu", Shape(walltime_s=60), ("/bin/sleep", "5"))) for _ in range(5)]
    with faults.submit_limit(alpha, 2):
        answers = rig.site.submit(batch, EPOCH)
    taken = [answer for answer in answers if isinstance(answer, Accepted)]
    declined = [answer.kind for answer in answers if isinstance(answer, Declined)]
    assert (len(taken), declined) == (2, [Refusal.LIMIT] * 3)
    assert all(isinstance(answer, Accepted) for answer in rig.site.submit(again(batch[2:]), EPOCH))
    rig.wait_for(lambda: recorded(rig, batch))


def test_a_full_disk_is_storage(alpha: LabCluster) -> None:
    """Nothing is submitted while nothing can be written; afterwards the same numbers go through."""
    path = f"{alpha.home}/full-{new_ulid()}"
    with faults.small_disk(alpha, path, mib=8) as disk:
        rig = SlurmRig(alpha, path.rpartition("/")[2])
        rig.site.prepare(EPOCH)
        batch = jobs(3)
        disk.fill()
        answers = rig.site.submit(batch, EPOCH)
        assert [answer.kind for answer in answers if isinstance(answer, Declined)] == [Refusal.STORAGE] * 3
        disk.free()
        retried = rig.site.submit(batch, EPOCH)
        assert all(isinstance(answer, Accepted) for answer in retried), retried
        rig.wait_for(lambda: recorded(rig, batch))
        rig.close()


def test_a_link_that_is_cut_comes_back(alpha: LabCluster) -> None:
    """LinkDown while it is cut, an answer from a fresh connection afterwards."""
    with faults.relay(alpha) as link:
        rig = SlurmRig(link.cluster, f"faults-{new_ulid()}")
        rig.site.prepare(EPOCH)
        cursor = rig.site.poll("").cursor
        link.cut()
        with pytest.raises(LinkDown):
            rig.site.poll(cursor)
        link.restore()
        assert rig.site.poll(cursor).load["cpu"][1] == 32
        rig.close()
