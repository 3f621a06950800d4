"""The machine, edge by edge."""

from __future__ import annotations

import pytest

from heroes.api.errors import InvalidTransition
from heroes_jobs import endings
from heroes_jobs.events import (
    Absent,
    Accounted,
    CancelAsked,
    Chosen,
    ClaimSeen,
    Delivered,
    DeliveryFailed,
    Event,
    GaveUp,
    InQueue,
    NoTrace,
    RecordSeen,
    Resolved,
    RunSeen,
    Staged,
    StageFailed,
    Started,
    SubmitAccepted,
    SubmitDeclined,
    SubmitUnsure,
    Tick,
    Unclaimed,
)
from heroes_jobs.machine import Want, step, wants
from heroes_jobs.model import Phase, Rules
from heroes_jobs.states import (
    Ended,
    Ending,
    Exit,
    Held,
    Outcome,
    Queued,
    Running,
    Seen,
    Settle,
    StagingIn,
    StagingOut,
    State,
    Step,
    Stop,
    Stopping,
    Submitting,
    Unsure,
    Void,
    Waiting,
    state_from_json,
    state_to_json,
)
from heroes_spawners.site import Refusal
from heroes_spawners.site import State as JobState

RULES = Rules()
OBSERVED = Rules().without_accounting()
PENDING, RUNNING = Seen(JobState.PENDING), Seen(JobState.RUNNING, 90.0, 4, 1)
STOP = Stop(Phase.CANCELLED, "It was cancelled by ann@acme.", "ann@acme")
WELL = Outcome(JobState.COMPLETED, 90.0, 100.0, 80.0, 10.0, 4, 1)


def after(state: State, *events: Event, rules: Rules = RULES) -> State:
    """The state after all `events`."""
    for event in events:
        state, _ = step(state, event, rules)
    return state


def kinds(made: Step) -> list[type]:
    """The instructions that are no sentences."""
    return [type(each) for each in made[1] if isinstance(each, Void | Settle)]


# ------------------------------------------------------------------------------------------ before any submission


def test_starting_stages_in_when_there_are_inputs() -> None:
    """A started attempt with inputs stages them in, one without waits for its turn."""
    assert after(Held(), Started(1, inputs=True)) == StagingIn(1)
    assert after(Held(), Started(1, inputs=False)) == Waiting(1)


def test_staged_inputs_make_it_wait_for_its_turn() -> None:
    """An attempt whose inputs stand at the cluster is ready to be submitted."""
    assert after(StagingIn(1), Staged(2)) == Waiting(2)
    assert wants(Waiting(2), 2, RULES) is Want.SUBMIT


def test_a_failed_transfer_is_tried_again_later() -> None:
    """A transfer that may succeed later is tried again after a pause that doubles."""
    state = after(StagingIn(1), StageFailed(10, "no answer", final=False))
    assert state == StagingIn(1, tries=1, until=15)
    assert wants(state, 14, RULES) is Want.NOTHING
    assert wants(state, 15, RULES) is Want.STAGE_IN
    assert after(state, StageFailed(20, "no answer", final=False)) == StagingIn(1, tries=2, until=30)


def test_a_transfer_never_fails_for_having_been_tried_often() -> None:
    """However long the store is away, the attempt waits, five minutes between tries at most."""
    state: State = StagingIn(0)
    for at in range(100):
        state = after(state, StageFailed(at, "no answer", final=False))
    assert isinstance(state, StagingIn)
    assert state.until == 99 + 300


def test_an_input_that_cannot_be_had_fails_it_free_of_charge() -> None:
    """An attempt whose input does not exist fails and returns its whole reservation."""
    made = step(StagingIn(1), StageFailed(2, "no such object", final=True), RULES)
    assert made[0] == Ended(2, Phase.FAILED, "no such object")
    assert kinds(made) == [Void]


@pytest.mark.parametrize("state", [Held(), StagingIn(1), Waiting(1)])
def test_cancelling_before_submission_ends_it_at_once(state: State) -> None:
    """Whoever cancels before anything was submitted pays nothing and waits for nobody."""
    made = step(state, CancelAsked(5, "ann@acme"), RULES)
    assert made[0] == Ended(5, Phase.CANCELLED, "It was cancelled by ann@acme.")
    assert kinds(made) == [Void]


# ------------------------------------------------------------------------------------------------- the submission


def test_the_intent_is_a_state_of_its_own() -> None:
    """A chosen attempt is submitting, with the number of its next submission."""
    assert after(Waiting(1, number=3, tried=True, lost=1), Chosen(2)) == Submitting(2, 3, True, 1)


def test_an_accepted_job_is_tentative() -> None:
    """The scheduler's answer is not durable: an accepted job is queued, not confirmed."""
    assert after(Submitting(1, 1), SubmitAccepted(2, "77")) == Queued(2, 1, "77")


@pytest.mark.parametrize(("kind", "until"), [(Refusal.LIMIT, 17.0), (Refusal.STORAGE, 62.0)])
def test_the_centres_limits_make_it_wait_with_its_reservation(kind: Refusal, until: float) -> None:
    """A submit limit or a full disk is waited out: nothing is released, and the next number is used then."""
    made = step(Submitting(1, 1), SubmitDeclined(2, kind, "not now"), RULES)
    assert isinstance(made[0], Waiting)
    assert (made[0].number, made[0].until, made[0].why) == (2, until, "not now")
    assert kinds(made) == []


def test_a_disk_that_stays_full_fails_it() -> None:
    """After several refusals for want of space the attempt fails with that sentence."""
    state: State = Waiting(0)
    for at in range(RULES.storage_tries):
        state = after(state, Chosen(at), SubmitDeclined(at, Refusal.STORAGE, "full"))
    assert state == Ended(4, Phase.FAILED, "full")


def test_a_permanent_refusal_fails_it_free_of_charge() -> None:
    """An invalid partition ends the attempt with the scheduler's reason, nothing charged."""
    made = step(Submitting(1, 1), SubmitDeclined(2, Refusal.PERMANENT, "no such partition"), RULES)
    assert made[0] == Ended(2, Phase.FAILED, "no such partition")
    assert kinds(made) == [Void]


def test_a_refusal_after_a_lost_submission_takes_the_run_claim_first() -> None:
    """When an earlier submission may still turn up, a refused attempt ends only behind its tombstone."""
    state = after(Submitting(1, 2, tried=True), SubmitDeclined(2, Refusal.PERMANENT, "no"))
    assert isinstance(state, Stopping)
    assert after(state, GaveUp(3, taken=True)) == Ended(3, Phase.FAILED, "no")


def test_no_answer_leaves_it_unsure() -> None:
    """A lost link during a submission is neither success nor failure; a trace is asked for at once."""
    state = after(Submitting(1, 1), SubmitUnsure(100, "link lost"))
    assert isinstance(state, Unsure)
    assert wants(state, 100, RULES) is Want.TRACE


def test_a_submission_never_claimed_is_made_again_with_its_number() -> None:
    """Where the site knows no claim of the number, the call never arrived, and its claim still admits one."""
    state = Unsure(100, 1)
    assert after(state, Unclaimed(103)) == Unsure(100, 1, asked_at=103)
    assert after(state, Unclaimed(105)) == Waiting(105, 1, tried=True)


def test_the_id_in_the_claim_is_adopted() -> None:
    """A submission that arrived, though nobody heard the answer, is followed by the id of its claim."""
    assert after(Unsure(100, 2, lost=1), ClaimSeen(101, "9")) == Queued(101, 2, "9", 1)


def test_the_id_that_vanished_is_not_adopted_again() -> None:
    """An id that the scheduler forgot is not taken from the claim once more."""
    assert after(Unsure(100, 1, lost_id="9"), ClaimSeen(101, "9")) == Unsure(100, 1, lost_id="9")


def test_the_next_submission_needs_three_traces_thirty_seconds_apart() -> None:
    """Another submission is allowed after 60 s without an id and three counted traces without a sign, no sooner."""
    state: State = Unsure(100, 1)
    for at in (100, 105, 110, 130, 135, 159):
        state = after(state, NoTrace(at))
        assert isinstance(state, Unsure)
    assert after(state, NoTrace(160)) == Waiting(160, 2, tried=True, lost=1)


def test_without_accounting_it_waits_three_times_as_long() -> None:
    """Where only queue and run claims tell, 180 s must pass."""
    state: State = Unsure(100, 1)
    for at in range(100, 280, 30):
        state = after(state, NoTrace(at), rules=OBSERVED)
        assert isinstance(state, Unsure)
    assert isinstance(after(state, NoTrace(280), rules=OBSERVED), Waiting)


def test_a_cluster_that_loses_every_submission_is_left() -> None:
    """After several lost submissions the attempt is given up behind a tombstone."""
    state = after(Unsure(0, 5, lost=4, polls=2), NoTrace(100))
    assert isinstance(state, Stopping)
    assert after(state, GaveUp(101, taken=True)) == Ended(101, Phase.LOST, endings.NEVER_KEPT)


def test_a_vanished_job_is_unsure_again() -> None:
    """A job that the queue no longer shows, and that left nothing, may never have been stored."""
    assert after(Queued(1, 1, "9"), Absent(5)) == Unsure(5, 1, lost_id="9", text="vanished from the queue")


def test_seen_again_ten_seconds_later_it_is_confirmed() -> None:
    """A pending job is tentative until it is seen ten seconds after the first time."""
    state = after(Queued(1, 1, "9"), InQueue(2, "9", PENDING, "Priority"))
    assert state == Queued(1, 1, "9", seen_at=2, why="Priority")
    assert after(state, InQueue(11, "9", PENDING, "Priority")) == state
    confirmed = after(state, InQueue(12, "9", PENDING, "Resources"))
    assert confirmed == Queued(1, 1, "9", seen_at=2, confirmed=True, why="Resources")


def test_a_pending_reason_that_never_clears_ends_it() -> None:
    """A job that would wait forever is given up with the sentence, once it is no longer tentative."""
    reason = endings.hopeless("PartitionTimeLimit", "cpu")
    state = after(Queued(1, 1, "9"), InQueue(2, "9", PENDING, "PartitionTimeLimit", reason))
    assert isinstance(state, Queued)
    state = after(state, InQueue(13, "9", PENDING, "PartitionTimeLimit", reason))
    assert isinstance(state, Stopping)
    assert after(state, GaveUp(14, taken=True)) == Ended(14, Phase.FAILED, reason)


@pytest.mark.parametrize("state", [Unsure(100, 1), Submitting(100, 1), Waiting(100, 1, tried=True)])
def test_a_job_of_its_name_in_the_queue_is_adopted(state: State) -> None:
    """Whatever was believed, a job of that name in the queue is the attempt's."""
    assert after(state, InQueue(101, "9", PENDING)) == Queued(101, 1, "9", seen_at=101)


def test_an_attempt_never_submitted_adopts_nothing() -> None:
    """A job that borrows the name of an attempt not yet submitted changes nothing."""
    for event in (InQueue(2, "9", RUNNING), RunSeen(2, "9"), RecordSeen(2, "9", Exit(0))):
        assert after(Waiting(1), event) == Waiting(1)
        assert after(Held(), event) == Held()


# ---------------------------------------------------------------------------------------------------- the execution


@pytest.mark.parametrize("state", [Unsure(1, 1), Submitting(1, 1), Queued(1, 1, "8"), Waiting(1, 1, tried=True)])
def test_the_run_claim_tells_which_job_executes_it(state: State) -> None:
    """The id in the run claim replaces any other."""
    running = after(state, RunSeen(90, "9"))
    assert running == Running(90, 1, "9", Seen(JobState.RUNNING, 90))


def test_the_queue_tells_that_it_runs() -> None:
    """A job shown running is running, with what it was allocated."""
    assert after(Queued(1, 1, "9"), InQueue(95, "9", RUNNING)) == Running(95, 1, "9", RUNNING)


def test_pending_again_after_a_crash_of_the_controller_it_still_counts_as_running() -> None:
    """A running job that goes back to pending cannot run twice: nothing changes."""
    state = Running(90, 1, "9", RUNNING)
    assert after(state, InQueue(95, "9", PENDING)) == state


def test_gone_from_the_queue_never_means_finished() -> None:
    """A running job that is gone is asked for in accounting."""
    state = after(Running(90, 1, "9", RUNNING), Absent(100))
    assert isinstance(state, Ending)
    assert wants(state, 100, RULES) is Want.ACCOUNT


def test_seen_running_again_it_runs_on() -> None:
    """A job missing from one listing is running again when the next one shows it."""
    gone = after(Running(90, 1, "9", RUNNING), Absent(100))
    assert after(gone, InQueue(101, "9", RUNNING)) == Running(90, 1, "9", RUNNING)


@pytest.mark.parametrize(
    "state",
    [Unsure(1, 1), Submitting(1, 1), Queued(1, 1, "9"), Running(1, 1, "9"), Waiting(1, 1, tried=True)],
)
def test_a_record_alone_ends_nothing(state: State) -> None:
    """The exit record gives the exit code; the state comes from the scheduler."""
    ending = after(state, RecordSeen(100, "9", Exit(0)))
    assert isinstance(ending, Ending)
    out = after(ending, Accounted(101, "9", WELL))
    assert out == StagingOut(101, "9", WELL, Stop(Phase.DONE, ""), Exit(0))


def test_accounting_first_and_record_after_end_it_as_well() -> None:
    """The order in which record and accounting are seen does not matter."""
    ending = after(Queued(1, 1, "9"), Accounted(100, "9", WELL))
    assert isinstance(ending, Ending)
    assert isinstance(after(ending, RecordSeen(103, "9", Exit(0))), StagingOut)


def test_a_failing_command_fails_with_its_exit_code() -> None:
    """A command that exits with 3 fails the attempt, with a sentence that says where to look."""
    failed = Outcome(JobState.FAILED, 90, 100, 80, 10, 4, 1)
    out = after(Running(90, 1, "9"), RecordSeen(100, "9", Exit(3)), Accounted(100, "9", failed))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.exited(3))


def test_a_forged_record_does_not_make_a_failed_job_done() -> None:
    """A record that says 0 where the scheduler says FAILED fails the attempt."""
    failed = Outcome(JobState.FAILED, 90, 100, 80, 10, 4, 1)
    out = after(Running(90, 1, "9"), RecordSeen(100, "9", Exit(0)), Accounted(100, "9", failed))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.SCHEDULER_DISAGREES)


@pytest.mark.parametrize("state", [JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.CANCELLED])
def test_the_schedulers_own_endings_need_no_record(state: JobState) -> None:
    """Walltime, memory and a cancellation at the centre are told by the scheduler, with the way out."""
    out = after(Running(90, 1, "9"), Absent(99), Accounted(100, "9", Outcome(state, 90, 100)))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.by_state(state))


def test_a_node_failure_is_lost_free_of_charge_and_tried_again() -> None:
    """A failure of the infrastructure is not charged; a new attempt may follow."""
    made = step(Ending(99, 1, "9", 90), Accounted(100, "9", Outcome(JobState.NODE_FAIL, 90, 100)), RULES)
    assert made[0] == Ended(100, Phase.LOST, endings.by_state(JobState.NODE_FAIL))
    assert made[1] == (Void(retry=True),)


def test_ended_without_a_record_it_is_lost_only_after_listing_again() -> None:
    """A terminal job without a record is looked for another 90 s before it counts as lost."""
    state = after(Running(90, 1, "9"), Absent(99), Accounted(100, "9", WELL))
    assert isinstance(after(state, Tick(189)), Ending)
    made = step(state, Tick(190), RULES)
    assert made[0] == Ended(190, Phase.LOST, endings.LOST)
    assert made[1] == (Void(retry=True),)


def test_a_missing_image_is_told_by_the_job_scripts_own_exit_code() -> None:
    """Exit code 123 without a record means that the image is missing: no new attempt would help."""
    failed = Outcome(JobState.FAILED, 90, 91, exit_code=endings.WRONG_IMAGE)
    out = after(Running(90, 1, "9"), Absent(99), Accounted(100, "9", failed))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.no_image())


def test_a_record_that_accounting_never_confirms_is_settled_by_what_was_observed() -> None:
    """Where the accounting lost the job, the attempt does not wait for ever: provisional after the long silence."""
    ending = after(Running(90, 1, "9", RUNNING), RecordSeen(100, "9", Exit(3, 8)))
    assert isinstance(after(ending, Tick(699)), Ending)
    out = after(ending, Tick(700))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.exited(3))
    assert (out.outcome.elapsed_s, out.outcome.provisional) == (10, True)


def test_silence_is_believed_only_after_twice_the_daemons_timeout() -> None:
    """Gone from the queue and not accounted as ended, it may be running on: it is lost after 600 s."""
    state = after(Running(90, 1, "9"), Absent(100))
    assert isinstance(after(state, Tick(699)), Ending)
    assert after(state, Tick(700)) == Ended(700, Phase.LOST, endings.LOST)


# ------------------------------------------------------------------------------------------------ without accounting


def test_without_accounting_the_record_and_an_empty_queue_end_it() -> None:
    """Where nothing is accounted, what was observed is the outcome, and it is provisional."""
    running = Running(92, 1, "9", RUNNING)
    out = after(running, RecordSeen(100, "9", Exit(0, 8)), Absent(101), rules=OBSERVED)
    assert isinstance(out, StagingOut)
    assert out.outcome == Outcome(JobState.COMPLETED, 90, 100, None, 10, 4, 1, provisional=True)


def test_without_accounting_a_job_never_seen_running_is_charged_its_own_time_within_what_was_seen() -> None:
    """The record's time counts only as far as the observation allows."""
    ending = after(Queued(50, 1, "9"), RecordSeen(100, "9", Exit(0, 8)), rules=OBSERVED)
    out = after(ending, Absent(101), rules=OBSERVED)
    assert isinstance(out, StagingOut)
    assert out.outcome.elapsed_s == 8
    forged = after(Queued(50, 1, "9"), RecordSeen(100, "9", Exit(0, 9e9)), Absent(101), rules=OBSERVED)
    assert isinstance(forged, StagingOut)
    assert forged.outcome.elapsed_s == 50


def test_without_accounting_the_queue_tells_the_end() -> None:
    """A terminal state in the queue is the outcome."""
    timeout = Seen(JobState.TIMEOUT, 90.0, 4, 1)
    out = after(Running(92, 1, "9", RUNNING), InQueue(100, "9", timeout), Absent(101), rules=OBSERVED)
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.FAILED, endings.by_state(JobState.TIMEOUT))


def test_without_accounting_no_record_is_lost_after_the_long_silence() -> None:
    """Where nothing is accounted, a job gone without a record is lost after 3 x 600 s."""
    state = after(Running(90, 1, "9", RUNNING), Absent(100), rules=OBSERVED)
    assert isinstance(after(state, Tick(1899), rules=OBSERVED), Ending)
    assert after(state, Tick(1900), rules=OBSERVED) == Ended(1900, Phase.LOST, endings.LOST)


# -------------------------------------------------------------------------------------------------------- delivery


def test_delivered_it_is_done_and_settled() -> None:
    """Money is settled when the results stand in the bucket."""
    made = step(StagingOut(1, "9", WELL, Stop(Phase.DONE, ""), Exit(0)), Delivered(5), RULES)
    assert made == (Ended(5, Phase.DONE), (Settle(WELL, Exit(0)),))


def test_missing_outputs_fail_a_step_that_ended_well_and_it_is_charged() -> None:
    """A declared output that is missing fails the attempt; what ran is charged."""
    made = step(StagingOut(1, "9", WELL, Stop(Phase.DONE, ""), Exit(0)), Delivered(5, "no file matches"), RULES)
    assert made[0] == Ended(5, Phase.FAILED, "no file matches")
    assert kinds(made) == [Settle]


def test_the_first_failure_is_the_one_that_is_told() -> None:
    """Missing outputs of a command that failed do not hide why it failed."""
    state = StagingOut(1, "9", WELL, Stop(Phase.FAILED, "exit code 3"), Exit(3))
    assert after(state, Delivered(5, "no file matches")) == Ended(5, Phase.FAILED, "exit code 3")


def test_a_delivery_that_failed_is_tried_again() -> None:
    """A store that is away does not lose results."""
    state = after(StagingOut(1, "9", WELL, Stop(Phase.DONE, "")), DeliveryFailed(5, "away", final=False))
    assert isinstance(state, StagingOut)
    assert wants(state, 9, RULES) is Want.NOTHING
    assert wants(state, 10, RULES) is Want.DELIVER


def test_results_that_can_never_be_delivered_fail_it_and_it_is_charged() -> None:
    """A bucket that is gone fails the attempt; what ran is charged."""
    made = step(StagingOut(1, "9", WELL, Stop(Phase.DONE, "")), DeliveryFailed(5, "no bucket", final=True), RULES)
    assert made[0] == Ended(5, Phase.FAILED, "no bucket")
    assert kinds(made) == [Settle]


# -------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize(
    "state", [Submitting(1, 1), Unsure(1, 1), Queued(1, 1, "9"), Running(1, 1, "9"), Waiting(1, 2, tried=True)]
)
def test_cancelling_what_was_submitted_takes_its_run_claim(state: State) -> None:
    """A cancelled attempt that may be at the cluster ends only when its run claim tells how."""
    stopping = after(state, CancelAsked(50, "ann@acme"))
    assert isinstance(stopping, Stopping)
    assert stopping.stop == STOP
    assert wants(stopping, 50, RULES) is Want.GIVE_UP


def test_behind_its_tombstone_it_is_cancelled_free_of_charge() -> None:
    """An attempt whose run claim is a tombstone never runs: all its money comes back."""
    made = step(Stopping(1, 1, "9", STOP), GaveUp(5, taken=True), RULES)
    assert made == (Ended(5, Phase.CANCELLED, STOP.reason), (Void(),))


def test_one_that_had_started_is_cancelled_and_charged_for_what_it_used() -> None:
    """A cancelled running job is settled by what the scheduler accounts."""
    state = after(Stopping(1, 1, "9", STOP), GaveUp(50, taken=False))
    assert wants(state, 79, RULES) is Want.NOTHING
    assert wants(state, 80, RULES) is Want.GIVE_UP
    ended = Outcome(JobState.CANCELLED, 40, 50, 30, 10, 4, 1)
    out = after(state, Absent(60), Accounted(61, "9", ended))
    assert isinstance(out, StagingOut)
    made = step(out, Delivered(62), RULES)
    assert made == (Ended(62, Phase.CANCELLED, STOP.reason), (Settle(ended, None),))


def test_one_that_ended_well_before_the_cancel_arrived_is_done() -> None:
    """A job that was quicker than its cancellation is done."""
    state = after(Stopping(1, 1, "9", STOP), GaveUp(50, taken=False), RecordSeen(51, "9", Exit(0)))
    out = after(state, Accounted(52, "9", WELL))
    assert isinstance(out, StagingOut)
    assert out.verdict == Stop(Phase.DONE, "")


def test_cancelling_twice_is_cancelling_once() -> None:
    """A second cancellation changes nothing, nor does one of something that has ended."""
    stopping = Stopping(1, 1, "9", STOP)
    assert after(stopping, CancelAsked(9, "bob@acme")) == stopping
    ended = Ended(1, Phase.DONE)
    assert step(ended, CancelAsked(9, "bob@acme"), RULES) == (ended, ())


def test_a_stopped_job_that_is_gone_unaccounted_is_not_tried_again() -> None:
    """Nobody who cancelled gets a new attempt."""
    state = after(Stopping(1, 1, "9", STOP, started=True), Absent(100))
    made = step(state, Tick(700), RULES)
    assert made == (Ended(700, Phase.CANCELLED, STOP.reason), (Void(),))


def test_without_accounting_a_stopped_job_gone_without_a_record_is_cancelled() -> None:
    """Where nothing is accounted, a cancelled job that is gone was cancelled."""
    state = after(Stopping(1, 1, "9", STOP, started=True, seen=RUNNING), Absent(100), Absent(101), rules=OBSERVED)
    assert isinstance(state, StagingOut)
    assert state.verdict == STOP


# -------------------------------------------------------------------------------------------------------- operators


def test_an_operator_gives_up_a_doubt_behind_a_tombstone() -> None:
    """Resolved as lost, a doubtful attempt ends when its tombstone stands, free of charge."""
    state = after(Unsure(1, 1), Resolved(5, "lost", "ops@heroes"))
    assert isinstance(state, Stopping)
    assert state.stop.phase == Phase.LOST


def test_an_operator_hands_a_doubt_over_again() -> None:
    """Resolved as resubmit, a doubtful attempt gets its next submission."""
    assert after(Unsure(1, 2), Resolved(5, "resubmit", "ops@heroes")) == Waiting(5, 3, tried=True)


def test_an_operator_can_end_anything_as_lost() -> None:
    """Whatever hangs can be ended as lost, free of charge."""
    made = step(StagingOut(1, "9", WELL, Stop(Phase.DONE, "")), Resolved(5, "lost", "ops@heroes"), RULES)
    assert isinstance(made[0], Ended)
    assert made[0].phase is Phase.LOST
    assert kinds(made) == [Void]


def test_an_edge_that_does_not_exist_is_refused_with_what_happened() -> None:
    """Events that a state cannot take are our own mistake, and told as such."""
    with pytest.raises(InvalidTransition) as caught:
        step(Held(), Delivered(1), RULES)
    assert "Held cannot take Delivered" in caught.value.message
    assert "Delivered" in caught.value.detail["event"]


@pytest.mark.parametrize(
    "state",
    [
        Held(),
        StagingIn(1, 2, 3.5),
        Waiting(1, 2, True, 1, 1, 9.5, "limit"),
        Submitting(1, 2),
        Unsure(1, 2, lost_id="7"),
        Queued(1, 2, "7", confirmed=True),
        Running(1, 2, "7", RUNNING),
        Stopping(1, 2, "7", STOP, seen=RUNNING),
        Ending(1, 2, "7", 0.5, Exit(3, 1.5, "{}"), WELL, 4, STOP, RUNNING),
        StagingOut(1, "7", WELL, STOP, Exit(0)),
        Ended(1, Phase.FAILED, "why"),
    ],
)
def test_every_state_survives_the_database(state: State) -> None:
    """A state read back is the state that was written."""
    again = state_from_json(state_to_json(state))
    assert again == state
    assert again.phase is state.phase


def test_late_news_of_an_ended_attempt_change_nothing() -> None:
    """What is over stays as it was settled."""
    ended = Ended(1, Phase.DONE)
    for event in (InQueue(2, "9", RUNNING), RunSeen(2, "9"), RecordSeen(2, "9", Exit(1)), Accounted(2, "9", WELL)):
        assert step(ended, event, RULES) == (ended, ())
