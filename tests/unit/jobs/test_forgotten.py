"""What the controller of a cluster forgot when it was killed: ended jobs that accounting never hears of, and jobs that
are launched a second time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heroes_jobs import endings
from heroes_jobs.events import Accounted, RecordSeen, Tick
from heroes_jobs.machine import step
from heroes_jobs.model import Phase, Rules
from heroes_jobs.states import Ended, Ending, Exit, Outcome, Seen, StagingOut, Stop, Void
from heroes_spawners.site import State as JobState

RULES = Rules(silent_s=120, relist_s=24)
SEEN = Seen(JobState.RUNNING, started_at=90.0, cpus=4, nodes=1)
ENDING = Ending(100.0, 1, "7", 90.0, Exit(0, 9.5), seen=SEEN)
DUPLICATE = Outcome(JobState.FAILED, 110.0, 111.0, None, 1.0, 4, 1, exit_code=endings.DUPLICATE)


def test_unaccounted_success_waits_then_counts_as_seen() -> None:
    """Before the silence is over nothing is concluded; then results are fetched, settled provisionally for what was
    seen until it had gone."""
    assert step(ENDING, Tick(219.0), RULES) == (ENDING, ())
    after, _ = step(ENDING, Tick(220.0), RULES)
    assert isinstance(after, StagingOut)
    assert after.verdict.phase == Phase.DONE
    assert after.outcome.provisional
    assert (after.outcome.elapsed_s, after.outcome.cpus, after.outcome.ended_at) == (10.0, 4, 100.0)


@pytest.mark.parametrize("left", [None, Exit(137, 9.5)])
def test_unaccounted_failure_is_lost(left: Exit | None) -> None:
    """Killed with the controller's memory, or without a record: the infrastructure's failure, tried again for free."""
    after, told = step(replace(ENDING, exit=left), Tick(220.0), RULES)
    assert isinstance(after, Ended)
    assert after.phase == Phase.LOST
    assert Void(retry=True) in told


def test_unaccounted_cancellation_is_cancelled() -> None:
    """Whoever cancelled it gets what was asked for, not a new attempt."""
    stop = Stop(Phase.CANCELLED, "It was cancelled by ann.", "ann")
    after, told = step(replace(ENDING, stop=stop, exit=Exit(143, 9.5)), Tick(220.0), RULES)
    assert isinstance(after, Ended)
    assert after.phase == Phase.CANCELLED
    assert Void() in told


def test_second_launch_does_not_fail_what_ended_well() -> None:
    """The exit status of the duplicate is not the job's: its record tells."""
    after, _ = step(ENDING, Accounted(112.0, "7", DUPLICATE), RULES)
    assert isinstance(after, StagingOut)
    assert after.verdict.phase == Phase.DONE


def test_execution_killed_with_its_second_launch_is_lost() -> None:
    """The end of the duplicate makes the site kill the execution: nobody's fault, tried again for free."""
    after, told = step(replace(ENDING, exit=Exit(137, 3.0)), Accounted(112.0, "7", DUPLICATE), RULES)
    assert isinstance(after, Ended)
    assert after.phase == Phase.LOST
    assert Void(retry=True) in told


def test_second_launch_does_not_end_what_still_runs() -> None:
    """The duplicate has ended, the execution may go on: its record is waited for as long as for a silent node's."""
    state, _ = step(replace(ENDING, exit=None), Accounted(112.0, "7", DUPLICATE), RULES)
    assert isinstance(state, Ending)
    state, _ = step(state, Tick(112.0 + RULES.relist_s), RULES)
    assert isinstance(state, Ending)
    after, _ = step(state, RecordSeen(150.0, "7", Exit(0, 40.0)), RULES)
    assert isinstance(after, StagingOut)
    lost, told = step(state, Tick(112.0 + RULES.silent_s), RULES)
    assert isinstance(lost, Ended)
    assert Void(retry=True) in told
