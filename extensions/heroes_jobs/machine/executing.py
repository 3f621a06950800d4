"""Edges of an execution: running, ending, delivered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heroes_jobs import endings
from heroes_jobs.events import Absent, Accounted, Delivered, DeliveryFailed, Event, InQueue, RecordSeen, RunSeen, Tick
from heroes_jobs.machine.edges import edge, stay
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
    Tell,
    Unsure,
    Void,
    Waiting,
)
from heroes_spawners.site import TERMINAL
from heroes_spawners.site import State as JobState

# ---------------------------------------------------------------------------------------------------- the execution


@edge((Unsure, Submitting, Queued, Waiting), RunSeen)
def running(state: Any, event: RunSeen | InQueue, _rules: Rules) -> Step:
    """A job holds its run claim, or the queue shows it running. The id that stands there is the one."""
    if isinstance(state, Waiting) and not state.tried:
        return stay(state)
    seen = event.seen if isinstance(event, InQueue) else Seen(JobState.RUNNING, event.at)
    return Running(event.at, state.number, event.job_id, seen), (Tell(f"runs as job {event.job_id}"),)


@edge((Running,), RunSeen)
def running_as(state: Running, event: RunSeen, _rules: Rules) -> Step:
    """The same, or the id that really executes it."""
    return stay(state if event.job_id == state.job_id else replace(state, job_id=event.job_id))


@edge((Running,), InQueue)
def running_still(state: Running, event: InQueue, _rules: Rules) -> Step:
    """Still there. Pending again after a crash of the controller: its run claim lets it run no second time."""
    if event.seen.state in TERMINAL:
        return to_ending(state, event, began=state.since, seen=later(state.seen, event.seen))
    if event.seen.state is not JobState.RUNNING or event.seen == state.seen:
        return stay(state)
    return stay(replace(state, seen=event.seen))


def later(before: Seen, now: Seen) -> Seen:
    """What the queue shows now; what it left out is as before."""
    return Seen(now.state, now.started_at or before.started_at, now.cpus or before.cpus, now.nodes or before.nodes)


@edge((Running,), Absent)
def ending_when_gone(state: Running, event: Absent, _rules: Rules) -> Step:
    """Gone from the queue: ask how it ended."""
    return Ending(event.at, state.number, state.job_id, state.since, seen=state.seen), ()


def to_ending(state: Queued | Running | Stopping, event: InQueue, began: float, seen: Seen) -> Step:
    """The queue shows that it has ended."""
    stop = state.stop if isinstance(state, Stopping) else None
    job_id = state.job_id or event.job_id
    return Ending(event.at, state.number, job_id, began, stop=stop, seen=seen), ()


@edge((Unsure, Submitting, Queued, Running, Stopping, Waiting), RecordSeen)
def ending(state: Any, event: RecordSeen, rules: Rules) -> Step:
    """Its exit record is there; what the scheduler says is still wanted."""
    if isinstance(state, Waiting) and not state.tried:
        return stay(state)
    stop = state.stop if isinstance(state, Stopping) else None
    seen = state.seen if isinstance(state, Running | Stopping) else Seen()
    # only the job that took the run claim writes a record: the id in it replaces one that was merely accepted
    job_id = event.job_id or getattr(state, "job_id", "")
    after = Ending(event.at, state.number, job_id, state.since, event.exit, stop=stop, seen=seen)
    return _concluded(after, event.at, rules)


@edge((Unsure, Submitting, Queued, Running, Stopping, Waiting), Accounted)
def ending_when_accounted(state: Any, event: Accounted, rules: Rules) -> Step:
    """Accounting says that it ended; its exit record is still wanted."""
    if isinstance(state, Waiting) and not state.tried:
        return stay(state)
    stop = state.stop if isinstance(state, Stopping) else None
    after = Ending(event.at, state.number, event.job_id, state.since, None, event.outcome, event.at, stop)
    return _concluded(after, event.at, rules)


# ---------------------------------------------------------------------------------------------------------- ending


@edge((Ending,), RecordSeen)
def ending_with_record(state: Ending, event: RecordSeen, rules: Rules) -> Step:
    """Its exit record."""
    return _concluded(replace(state, exit=event.exit, job_id=event.job_id or state.job_id), event.at, rules)


@edge((Ending,), Accounted)
def ending_with_account(state: Ending, event: Accounted, rules: Rules) -> Step:
    """What accounting says."""
    known_at = state.known_at or event.at
    return _concluded(replace(state, outcome=event.outcome, known_at=known_at), event.at, rules)


@edge((Ending,), InQueue)
def ending_in_queue(state: Ending, event: InQueue, rules: Rules) -> Step:
    """Seen once more: without a record, and not ended, it runs on."""
    if event.seen.state in TERMINAL:
        return _observed(replace(state, seen=later(state.seen, event.seen)), event.at, rules)
    if state.exit is None and state.outcome is None and event.seen.state is JobState.RUNNING:
        if state.stop:
            return Stopping(event.at, state.number, state.job_id, state.stop, True, event.at, event.seen), ()
        return Running(state.began, state.number, state.job_id, event.seen), ()
    return stay(state)


@edge((Ending,), Absent)
def ending_unseen(state: Ending, event: Absent, rules: Rules) -> Step:
    """Not in the queue: where nothing is accounted, that and the record tell how it ended."""
    return _observed(state, event.at, rules)


@edge((Ending,), Tick)
def ending_in_time(state: Ending, event: Tick, rules: Rules) -> Step:
    """Time passes; only after a poll that succeeded."""
    return _concluded(state, event.at, rules)


@edge((Ending,), RunSeen)
def ending_as(state: Ending, event: RunSeen, _rules: Rules) -> Step:
    """The id that executed it."""
    return stay(state if event.job_id == state.job_id else replace(state, job_id=event.job_id))


def _observed(state: Ending, at: float, rules: Rules) -> Step:
    if rules.accounted or state.outcome:
        return _concluded(state, at, rules)
    observed = _observed_state(state)
    if observed is None:
        return _concluded(state, at, rules)
    outcome = _provisional(state, observed)
    return _concluded(replace(state, outcome=outcome, known_at=at), at, rules)


def _observed_state(state: Ending) -> JobState | None:
    if state.seen.state in TERMINAL:
        return state.seen.state
    if state.exit:
        return JobState.COMPLETED if state.exit.code == 0 else JobState.FAILED
    return JobState.CANCELLED if state.stop else None


def _provisional(state: Ending, observed: JobState) -> Outcome:
    """From what was seen of it, until its end was first seen; the record's own time counts only within that."""
    window = max(state.since - (state.seen.started_at or state.began), 0.0)
    told = state.exit.elapsed_s if state.exit else 0.0
    elapsed = window if state.seen.started_at or not 0 < told < window else told
    return Outcome(
        observed, state.seen.started_at or state.since - elapsed, state.since, None, elapsed, state.seen.cpus,
        state.seen.nodes, provisional=True,
    )  # fmt: skip


def _concluded(state: Ending, at: float, rules: Rules) -> Step:
    outcome = state.outcome
    if outcome is None:
        return _unaccounted(state, at) if at - state.since >= rules.silent_s else stay(state)
    if outcome.state is JobState.NODE_FAIL and state.exit is None:
        reason = endings.by_state(outcome.state)
        return Ended(at, Phase.LOST, reason), (Void(retry=state.stop is None),)
    if outcome.state in (JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.CANCELLED):
        return _staging_out(state, outcome, at, _stopped(state.stop, outcome))
    if state.exit is None and outcome.exit_code == endings.WRONG_IMAGE:
        return _staging_out(state, outcome, at, Stop(Phase.FAILED, outcome.why or endings.no_image()))
    if state.exit is None:
        # a duplicate that the site launched after its controller died: the execution itself may go on
        patience = rules.silent_s if outcome.exit_code == endings.DUPLICATE else rules.relist_s
        return _lost(state, at) if at - state.known_at >= patience else stay(state)
    if outcome.exit_code == endings.DUPLICATE and state.exit.code in endings.KILLED:
        return _lost(state, at)  # when the duplicate ended, the site killed the execution with it
    return _staging_out(state, outcome, at, _verdict(outcome, state.exit))


def _unaccounted(state: Ending, at: float) -> Step:
    """Gone for so long, and accounting still knows no end: without a record it is lost, with one what was observed
    counts until accounting knows better. Killed by a signal it is lost, too: so nodes end what a controller forgot."""
    if state.exit is None or state.exit.code in endings.KILLED:
        return _lost(state, at)
    observed = _provisional(state, JobState.COMPLETED if state.exit.code == 0 else JobState.FAILED)
    return _staging_out(state, observed, at, _verdict(observed, state.exit))


def _lost(state: Ending, at: float) -> Step:
    if state.stop:
        return Ended(at, Phase(state.stop.phase), state.stop.reason), (Void(),)
    return Ended(at, Phase.LOST, endings.LOST), (Void(retry=True),)


def _stopped(stop: Stop | None, outcome: Outcome) -> Stop:
    if stop and outcome.state is JobState.CANCELLED:
        return stop
    return Stop(Phase.FAILED, outcome.why or endings.by_state(outcome.state))


def _verdict(outcome: Outcome, left: Exit) -> Stop:
    if outcome.state in (JobState.COMPLETED, JobState.NODE_FAIL) and left.code == 0:
        return Stop(Phase.DONE, "")
    if left.code == 0 and outcome.exit_code == endings.DUPLICATE:
        return Stop(Phase.DONE, "")
    if left.code == 0:
        return Stop(Phase.FAILED, endings.SCHEDULER_DISAGREES)
    return Stop(Phase.FAILED, endings.exited(left.code))


def _staging_out(state: Ending, outcome: Outcome, at: float, verdict: Stop) -> Step:
    told = Tell(verdict.reason or "ended well") if not state.exit else Tell(f"ended with exit code {state.exit.code}")
    return StagingOut(at, state.job_id, outcome, verdict, state.exit), (told,)


@edge((StagingOut,), Delivered)
def ended(state: StagingOut, event: Delivered, _rules: Rules) -> Step:
    """Everything is where it belongs: settle. Outputs that are not as declared fail a step that ended well."""
    verdict = state.verdict
    if event.fault and verdict.phase == Phase.DONE:
        verdict = Stop(Phase.FAILED, event.fault)
    return Ended(event.at, Phase(verdict.phase), verdict.reason), (Settle(state.outcome, state.exit),)


@edge((StagingOut,), DeliveryFailed)
def staging_out_again(state: StagingOut, event: DeliveryFailed, rules: Rules) -> Step:
    """Try again later; what it used is charged all the same when its results cannot be delivered."""
    if event.final:
        verdict = Stop(Phase.FAILED, event.text) if state.verdict.phase == Phase.DONE else state.verdict
        return Ended(event.at, Phase(verdict.phase), verdict.reason), (Settle(state.outcome, state.exit),)
    until = event.at + rules.transfer_pause(state.tries)
    return replace(state, tries=state.tries + 1, until=until), (Tell(event.text),)


@edge((StagingOut, Ended), InQueue, RunSeen, RecordSeen, Accounted)
def unchanged_late(state: State, _event: Event, _rules: Rules) -> Step:
    """Late news of something that is over."""
    return stay(state)


@edge((Held, StagingIn), InQueue, RunSeen, RecordSeen, Accounted)
def unchanged_early(state: State, event: Event, _rules: Rules) -> Step:
    """Nothing was submitted: whoever uses its name is not it."""
    return state, (Tell(f"ignored {type(event).__name__}: nothing was submitted yet"),)
