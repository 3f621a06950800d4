"""The machine of one attempt: pure. `step` is one function per edge, named after the state that it reaches.

What the engine has to do next is `wants(state)`, a function of the stored state: an engine that dies between an effect
and its record asks for the same effect again, and each effect is safe to ask for twice. Instructions are what must be
written in the same transaction as the new state.

At most one execution of an attempt: its run claim at the site is taken once, by a job or as a tombstone. At most one
`sbatch` of a submission: its claim at the site. The next submission only after `rules.polls` traces without a sign.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from heroes.api.errors import InvalidTransition
from heroes_jobs import endings
from heroes_jobs.model import Phase, Rules
from heroes_jobs.states import (
    Absent,
    Accounted,
    CancelAsked,
    Chosen,
    ClaimSeen,
    Delivered,
    DeliveryFailed,
    Ended,
    Ending,
    Event,
    Exit,
    GaveUp,
    Held,
    InQueue,
    NoTrace,
    Outcome,
    Queued,
    RecordSeen,
    Resolved,
    Running,
    RunSeen,
    Seen,
    Settle,
    Staged,
    StageFailed,
    StagingIn,
    StagingOut,
    Started,
    State,
    Step,
    Stop,
    Stopping,
    SubmitAccepted,
    SubmitDeclined,
    Submitting,
    SubmitUnsure,
    Tell,
    Tick,
    Unclaimed,
    Unsure,
    Void,
    Waiting,
)  # fmt: skip
from heroes_spawners.site import TERMINAL, Refusal
from heroes_spawners.site import State as JobState

Edge = Callable[[Any, Any, Rules], Step]
_EDGES: dict[tuple[type[Any], type[Any]], Edge] = {}


def step(state: State, event: Event, rules: Rules) -> Step:
    """The next state, and what must be written with it. InvalidTransition where the machine has no such edge."""
    edge = _EDGES.get((type(state), type(event)))
    if edge is None:
        raise InvalidTransition(
            f"An attempt that is {type(state).__name__} cannot take {type(event).__name__}.",
            hint="The attempt is stopped. `heroes run resolve` ends or resubmits it after a look at its story.",
            detail={"state": repr(state)[:500], "event": repr(event)[:500]},
        )
    return edge(state, event, rules)


def edge(states: tuple[type[Any], ...], *events: type[Any]) -> Callable[[Edge], Edge]:
    """Let the decorated function be the edge out of each of `states` at each of `events`."""

    def remember(function: Edge) -> Edge:
        for pair in ((state, event) for state in states for event in events):
            if pair in _EDGES:
                raise ValueError(f"two edges for {pair}")
            _EDGES[pair] = function
        return function

    return remember


def _stay(state: State) -> Step:
    return state, ()


# ------------------------------------------------------------------------------------------ before any submission


@edge((Held,), Started)
def staging_in(_state: Held, event: Started, _rules: Rules) -> Step:
    """It is wanted: fetch its inputs, or wait for its turn where it has none."""
    return (StagingIn(event.at) if event.inputs else Waiting(event.at)), ()


@edge((StagingIn,), Staged)
def waiting(_state: StagingIn, event: Staged, _rules: Rules) -> Step:
    """Its inputs stand at the cluster."""
    return Waiting(event.at), (Tell("inputs stand at the cluster"),)


@edge((StagingIn,), StageFailed)
def staging_in_again(state: StagingIn, event: StageFailed, rules: Rules) -> Step:
    """Try again a little later, unless that would not help."""
    if event.final:
        return Ended(event.at, Phase.FAILED, event.text), (Void(),)
    until = event.at + _pause(state.tries, rules)
    return replace(state, tries=state.tries + 1, until=until), (Tell(event.text),)


def _pause(tries: int, rules: Rules) -> float:
    return float(min(rules.transfer_s * 2 ** min(tries, 10), rules.transfer_most_s))


@edge((Held, StagingIn), CancelAsked)
def cancelled(_state: State, event: CancelAsked, _rules: Rules) -> Step:
    """Nothing was submitted: it ends here."""
    return Ended(event.at, Phase.CANCELLED, endings.CANCELLED.format(actor=event.actor)), (Void(),)


@edge((Waiting,), CancelAsked)
def cancelled_while_waiting(state: Waiting, event: CancelAsked, rules: Rules) -> Step:
    """Nothing was submitted, or something may still turn up: then its run claim is taken first."""
    if not state.tried:
        return cancelled(state, event, rules)
    return stopping(state, event, rules)


@edge((Waiting,), Chosen)
def submitting(state: Waiting, event: Chosen, _rules: Rules) -> Step:
    """The intent is stored before the call."""
    return Submitting(event.at, state.number, state.tried, state.lost, state.full), ()


# ------------------------------------------------------------------------------------------------- the submission


@edge((Submitting,), SubmitAccepted)
def queued(state: Submitting, event: SubmitAccepted, _rules: Rules) -> Step:
    """The scheduler took it; its answer is not durable, so the job is tentative."""
    return Queued(event.at, state.number, event.job_id, state.lost), (Tell(f"accepted as job {event.job_id}"),)


@edge((Submitting,), SubmitDeclined)
def waiting_after_refusal(state: Submitting, event: SubmitDeclined, rules: Rules) -> Step:
    """The centre's limit or a full disk: wait, reservation held. Anything else: it ends."""
    full = state.full + (event.kind is Refusal.STORAGE)
    if event.kind is Refusal.PERMANENT or full >= rules.storage_tries:
        return _never(state, event.at, Stop(Phase.FAILED, event.reason))
    pause = rules.limit_s if event.kind is Refusal.LIMIT else rules.storage_s
    # the claim of this number is spent, whatever was answered
    again = Waiting(event.at, state.number + 1, state.tried, state.lost, full, event.at + pause, event.reason)
    return again, (Tell(event.reason),)


def _never(state: Submitting, at: float, stop: Stop) -> Step:
    if state.tried:
        return Stopping(at, state.number, "", stop), (Tell(stop.reason),)
    return Ended(at, Phase(stop.phase), stop.reason), (Void(),)


@edge((Submitting,), SubmitUnsure)
def unsure(state: Submitting, event: SubmitUnsure, _rules: Rules) -> Step:
    """It may have happened: ask, never submit this number again unless no claim of it stands at the site."""
    return Unsure(event.at, state.number, state.lost, text=event.text), (
        Tell(f"not known whether submitted: {event.text}"),
    )


@edge((Unsure,), Unclaimed)
def waiting_unclaimed(state: Unsure, event: Unclaimed, rules: Rules) -> Step:
    """The call never reached the site. Its claim still lets only one call of this number through."""
    if state.lost_id:  # it was there, and its claims were purged since
        return waiting_for_next_number(state, NoTrace(event.at), rules)
    if event.at - state.since < rules.reclaim_s:
        return _stay(replace(state, asked_at=event.at))
    return Waiting(event.at, state.number, tried=True, lost=state.lost), (Tell("never reached the cluster; again"),)


@edge((Unsure,), ClaimSeen)
def queued_by_claim(state: Unsure, event: ClaimSeen, _rules: Rules) -> Step:
    """The id that its claim carries, unless that is the one that vanished."""
    if event.job_id == state.lost_id:
        return _stay(state)
    adopted = Queued(event.at, state.number, event.job_id, state.lost)
    return adopted, (Tell(f"found at the cluster as job {event.job_id}"),)


@edge((Unsure,), NoTrace)
def waiting_for_next_number(state: Unsure, event: NoTrace, rules: Rules) -> Step:
    """Often enough, and far enough apart, there was no sign of it: the next submission is allowed."""
    asked = replace(state, asked_at=event.at)
    if event.at - state.counted_at < rules.gap_s:
        return _stay(asked)
    asked = replace(asked, polls=state.polls + 1, counted_at=event.at)
    if asked.polls < rules.polls or event.at - state.since < rules.unsure_s:
        return _stay(asked)
    if state.lost + 1 >= rules.max_lost:
        return Stopping(event.at, state.number, state.lost_id, Stop(Phase.LOST, endings.NEVER_KEPT)), ()
    again = Waiting(event.at, state.number + 1, tried=True, lost=state.lost + 1)
    return again, (Tell(f"submission {state.number} left no trace; submitted again"),)


@edge((Queued,), Absent)
def unsure_when_vanished(state: Queued, event: Absent, _rules: Rules) -> Step:
    """Not in the queue, not running, no record: as if it were not known whether it had been submitted."""
    gone = Unsure(event.at, state.number, state.lost, lost_id=state.job_id, text="vanished from the queue")
    return gone, (Tell(f"job {state.job_id} vanished from the queue"),)


@edge((Unsure, Submitting, Waiting, Ended, Held, StagingIn, StagingOut), Absent)
@edge((Held, StagingIn, Waiting, Submitting, Unsure, Queued, Running, Stopping, StagingOut, Ended), Tick)
def unchanged(state: State, _event: Event, _rules: Rules) -> Step:
    """Says nothing new about it."""
    return _stay(state)


@edge((Queued,), InQueue)
def queued_again(state: Queued, event: InQueue, rules: Rules) -> Step:
    """Seen pending: confirmed once seen `tentative_s` after the first time. Seen otherwise: follow it."""
    if event.seen.state in TERMINAL:
        return _ending(state, event, began=state.since, seen=event.seen)
    if event.seen.state is JobState.RUNNING:
        return running(state, event, rules)
    seen_at = state.seen_at or event.at
    confirmed = state.confirmed or event.at - seen_at >= rules.tentative_s
    if confirmed and event.hopeless:
        return Stopping(event.at, state.number, event.job_id, Stop(Phase.FAILED, event.hopeless)), (
            Tell(event.hopeless),
        )
    after = replace(state, job_id=event.job_id, seen_at=seen_at, confirmed=confirmed, why=event.why)
    return _stay(state if after == state else after)


@edge((Unsure, Submitting, Waiting), InQueue)
def queued_when_seen(state: Unsure | Submitting | Waiting, event: InQueue, rules: Rules) -> Step:
    """The queue shows a job of its name: that is it. One of an attempt that was never submitted is not ours."""
    if isinstance(state, Waiting) and not state.tried:
        return _stay(state)
    adopted = Queued(event.at, state.number, event.job_id, state.lost)
    after, told = queued_again(adopted, event, rules)
    return after, (Tell(f"found in the queue as job {event.job_id}"), *told)


# ---------------------------------------------------------------------------------------------------- the execution


@edge((Unsure, Submitting, Queued, Waiting), RunSeen)
def running(state: Any, event: RunSeen | InQueue, _rules: Rules) -> Step:
    """A job holds its run claim, or the queue shows it running. The id that stands there is the one."""
    if isinstance(state, Waiting) and not state.tried:
        return _stay(state)
    seen = event.seen if isinstance(event, InQueue) else Seen(JobState.RUNNING, event.at)
    return Running(event.at, state.number, event.job_id, seen), (Tell(f"runs as job {event.job_id}"),)


@edge((Running,), RunSeen)
def running_as(state: Running, event: RunSeen, _rules: Rules) -> Step:
    """The same, or the id that really executes it."""
    return _stay(state if event.job_id == state.job_id else replace(state, job_id=event.job_id))


@edge((Running,), InQueue)
def running_still(state: Running, event: InQueue, _rules: Rules) -> Step:
    """Still there. Pending again after a crash of the controller: its run claim lets it run no second time."""
    if event.seen.state in TERMINAL:
        return _ending(state, event, began=state.since, seen=_later(state.seen, event.seen))
    if event.seen.state is not JobState.RUNNING or event.seen == state.seen:
        return _stay(state)
    return _stay(replace(state, seen=event.seen))


def _later(before: Seen, now: Seen) -> Seen:
    return Seen(now.state, now.started_at or before.started_at, now.cpus or before.cpus, now.nodes or before.nodes)


@edge((Running,), Absent)
def ending_when_gone(state: Running, event: Absent, _rules: Rules) -> Step:
    """Gone from the queue: ask how it ended."""
    return Ending(event.at, state.number, state.job_id, state.since, seen=state.seen), ()


def _ending(state: Queued | Running | Stopping, event: InQueue, began: float, seen: Seen) -> Step:
    stop = state.stop if isinstance(state, Stopping) else None
    job_id = state.job_id or event.job_id
    return Ending(event.at, state.number, job_id, began, stop=stop, seen=seen), ()


@edge((Unsure, Submitting, Queued, Running, Stopping, Waiting), RecordSeen)
def ending(state: Any, event: RecordSeen, rules: Rules) -> Step:
    """Its exit record is there; what the scheduler says is still wanted."""
    if isinstance(state, Waiting) and not state.tried:
        return _stay(state)
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
        return _stay(state)
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
        return _observed(replace(state, seen=_later(state.seen, event.seen)), event.at, rules)
    if state.exit is None and state.outcome is None and event.seen.state is JobState.RUNNING:
        if state.stop:
            return Stopping(event.at, state.number, state.job_id, state.stop, True, event.at, event.seen), ()
        return Running(state.began, state.number, state.job_id, event.seen), ()
    return _stay(state)


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
    return _stay(state if event.job_id == state.job_id else replace(state, job_id=event.job_id))


def _observed(state: Ending, at: float, rules: Rules) -> Step:
    if rules.accounted or state.outcome:
        return _concluded(state, at, rules)
    observed = _observed_state(state)
    if observed is None:
        return _concluded(state, at, rules)
    outcome = _provisional(state, observed, at)
    return _concluded(replace(state, outcome=outcome, known_at=at), at, rules)


def _observed_state(state: Ending) -> JobState | None:
    if state.seen.state in TERMINAL:
        return state.seen.state
    if state.exit:
        return JobState.COMPLETED if state.exit.code == 0 else JobState.FAILED
    return JobState.CANCELLED if state.stop else None


def _provisional(state: Ending, observed: JobState, at: float) -> Outcome:
    """From what was seen of it; the record's own time counts only within what was seen."""
    window = max(at - (state.seen.started_at or state.began), 0.0)
    told = state.exit.elapsed_s if state.exit else 0.0
    elapsed = window if state.seen.started_at or not 0 < told < window else told
    return Outcome(
        observed, state.seen.started_at or at - elapsed, at, None, elapsed, state.seen.cpus, state.seen.nodes,
        provisional=True,
    )  # fmt: skip


def _concluded(state: Ending, at: float, rules: Rules) -> Step:
    outcome = state.outcome
    if outcome is None:
        return _lost(state, at) if at - state.since >= rules.silent_s and state.exit is None else _stay(state)
    if outcome.state is JobState.NODE_FAIL and state.exit is None:
        reason = endings.by_state(outcome.state)
        return Ended(at, Phase.LOST, reason), (Void(retry=state.stop is None),)
    if outcome.state in (JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.CANCELLED):
        return _staging_out(state, outcome, at, _stopped(state.stop, outcome.state))
    if state.exit is None and outcome.exit_code == endings.WRONG_IMAGE:
        return _staging_out(state, outcome, at, Stop(Phase.FAILED, endings.no_image()))
    if state.exit is None:
        return _lost(state, at) if at - state.known_at >= rules.relist_s else _stay(state)
    return _staging_out(state, outcome, at, _verdict(outcome, state.exit))


def _lost(state: Ending, at: float) -> Step:
    if state.stop:
        return Ended(at, Phase(state.stop.phase), state.stop.reason), (Void(),)
    return Ended(at, Phase.LOST, endings.LOST), (Void(retry=True),)


def _stopped(stop: Stop | None, state: JobState) -> Stop:
    if stop and state is JobState.CANCELLED:
        return stop
    return Stop(Phase.FAILED, endings.by_state(state))


def _verdict(outcome: Outcome, left: Exit) -> Stop:
    if outcome.state in (JobState.COMPLETED, JobState.NODE_FAIL) and left.code == 0:
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
    until = event.at + _pause(state.tries, rules)
    return replace(state, tries=state.tries + 1, until=until), (Tell(event.text),)


@edge((StagingOut, Ended), InQueue, RunSeen, RecordSeen, Accounted)
def unchanged_late(state: State, _event: Event, _rules: Rules) -> Step:
    """Late news of something that is over."""
    return _stay(state)


@edge((Held, StagingIn), InQueue, RunSeen, RecordSeen, Accounted)
def unchanged_early(state: State, event: Event, _rules: Rules) -> Step:
    """Nothing was submitted: whoever uses its name is not it."""
    return state, (Tell(f"ignored {type(event).__name__}: nothing was submitted yet"),)


# -------------------------------------------------------------------------------------------------------- stopping


@edge((Submitting, Unsure, Queued, Running), CancelAsked)
def stopping(state: Any, event: CancelAsked, _rules: Rules) -> Step:
    """Wanted no more: take its run claim, or cancel what has started."""
    stop = Stop(Phase.CANCELLED, endings.CANCELLED.format(actor=event.actor), event.actor)
    seen = state.seen if isinstance(state, Running) else Seen()
    after = Stopping(event.at, state.number, getattr(state, "job_id", ""), stop, seen=seen)
    return after, (Tell(f"cancel asked for by {event.actor}"),)


@edge((Stopping, Ending, StagingOut, Ended), CancelAsked)
def unchanged_when_cancelled(state: State, event: CancelAsked, _rules: Rules) -> Step:
    """Twice is once, and what has ended cannot be cancelled."""
    return (state, ()) if isinstance(state, Ended) else (state, (Tell(f"cancel asked for again by {event.actor}"),))


@edge((Stopping,), GaveUp)
def ended_by_tombstone(state: Stopping, event: GaveUp, _rules: Rules) -> Step:
    """The tombstone stands: it never runs. Else it had started, was told to stop, and is settled when it has."""
    if not event.taken:
        return replace(state, started=True, asked_at=event.at), () if state.started else (Tell("told to stop"),)
    return Ended(event.at, Phase(state.stop.phase), state.stop.reason), (Void(),)


@edge((Stopping,), RunSeen)
def stopping_as(state: Stopping, event: RunSeen, _rules: Rules) -> Step:
    """It started before its run claim was asked for."""
    return _stay(replace(state, job_id=event.job_id))


@edge((Stopping,), InQueue)
def stopping_in_queue(state: Stopping, event: InQueue, _rules: Rules) -> Step:
    """Still there, or ended."""
    if state.started and event.seen.state in TERMINAL:
        return _ending(state, event, began=state.since, seen=_later(state.seen, event.seen))
    if event.seen.state is JobState.RUNNING and event.seen != state.seen:
        return _stay(replace(state, seen=event.seen))
    return _stay(state)


@edge((Stopping,), Absent)
def ending_when_stopped(state: Stopping, event: Absent, _rules: Rules) -> Step:
    """Gone from the queue: ask how it ended. Without a known start the run claim tells more."""
    if not state.started:
        return _stay(state)
    gone = Ending(event.at, state.number, state.job_id, state.since, stop=state.stop, seen=state.seen)
    return gone, ()


@edge((Waiting, Submitting, Unsure, Queued, Running, Stopping, Ending, StagingIn, StagingOut, Held), Resolved)
def resolved(state: Any, event: Resolved, _rules: Rules) -> Step:
    """An operator's word ends a lasting doubt."""
    told = Tell(f"resolved as {event.how} by {event.actor}")
    if event.how == "resubmit" and isinstance(state, Unsure):
        return Waiting(event.at, state.number + 1, tried=True, lost=state.lost), (told,)
    if event.how != "lost":
        return state, (Tell(f"{event.actor} asked for {event.how}, which a {state.phase} attempt does not take"),)
    if isinstance(state, Submitting | Unsure | Queued) or (isinstance(state, Waiting) and state.tried):
        stop = Stop(Phase.LOST, f"An operator gave it up. {endings.LOST}", event.actor)
        return Stopping(event.at, state.number, getattr(state, "job_id", ""), stop), (told,)
    return Ended(event.at, Phase.LOST, f"An operator gave it up. {endings.LOST}"), (told, Void())


# ----------------------------------------------------------------------------------------------------- what is next


class Want(enum.StrEnum):
    """What the engine is to do for an attempt now. Each is safe to do twice."""

    NOTHING = "nothing"
    STAGE_IN = "stage-in"
    SUBMIT = "submit"
    TRACE = "trace"
    ACCOUNT = "account"
    GIVE_UP = "give-up"
    DELIVER = "deliver"


def wants(state: State, at: float, rules: Rules) -> Want:
    """What to do next for an attempt in `state`."""
    match state:
        case StagingIn():
            return Want.STAGE_IN if at >= state.until else Want.NOTHING
        case Waiting():
            return Want.SUBMIT if at >= state.until else Want.NOTHING
        case Unsure():
            return Want.TRACE if at - state.asked_at >= rules.ask_s else Want.NOTHING
        case Ending():
            return Want.ACCOUNT if state.outcome is None and rules.accounted else Want.NOTHING
        case Stopping():
            return Want.GIVE_UP if at - state.asked_at >= rules.cancel_s else Want.NOTHING
        case StagingOut():
            return Want.DELIVER if at >= state.until else Want.NOTHING
        case _:
            return Want.NOTHING
