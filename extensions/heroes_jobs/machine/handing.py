"""Edges before the execution: inputs, turn, submission, and every doubt about it."""

from __future__ import annotations

from dataclasses import replace

from heroes_jobs import endings
from heroes_jobs.events import (
    Absent,
    CancelAsked,
    Chosen,
    ClaimSeen,
    Event,
    InQueue,
    NoTrace,
    Staged,
    StageFailed,
    Started,
    SubmitAccepted,
    SubmitDeclined,
    SubmitUnsure,
    Tick,
    Unclaimed,
)
from heroes_jobs.machine.edges import edge, stay
from heroes_jobs.machine.executing import running, to_ending
from heroes_jobs.machine.stopping import stopping
from heroes_jobs.model import Phase, Rules
from heroes_jobs.states import (
    Ended,
    Held,
    Queued,
    Running,
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
from heroes_spawners.site import TERMINAL, Refusal
from heroes_spawners.site import State as JobState

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
    until = event.at + rules.transfer_pause(state.tries)
    return replace(state, tries=state.tries + 1, until=until), (Tell(event.text),)


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
        return stay(replace(state, asked_at=event.at))
    return Waiting(event.at, state.number, tried=True, lost=state.lost), (Tell("never reached the cluster; again"),)


@edge((Unsure,), ClaimSeen)
def queued_by_claim(state: Unsure, event: ClaimSeen, _rules: Rules) -> Step:
    """The id that its claim carries, unless that is the one that vanished."""
    if event.job_id == state.lost_id:
        return stay(state)
    adopted = Queued(event.at, state.number, event.job_id, state.lost)
    return adopted, (Tell(f"found at the cluster as job {event.job_id}"),)


@edge((Unsure,), NoTrace)
def waiting_for_next_number(state: Unsure, event: NoTrace, rules: Rules) -> Step:
    """Often enough, and far enough apart, there was no sign of it: the next submission is allowed."""
    asked = replace(state, asked_at=event.at)
    if event.at - state.counted_at < rules.gap_s:
        return stay(asked)
    asked = replace(asked, polls=state.polls + 1, counted_at=event.at)
    if asked.polls < rules.polls or event.at - state.since < rules.unsure_s:
        return stay(asked)
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
    return stay(state)


@edge((Queued,), InQueue)
def queued_again(state: Queued, event: InQueue, rules: Rules) -> Step:
    """Seen pending: confirmed once seen `tentative_s` after the first time. Seen otherwise: follow it."""
    if event.seen.state in TERMINAL:
        return to_ending(state, event, began=state.since, seen=event.seen)
    if event.seen.state is JobState.RUNNING:
        return running(state, event, rules)
    seen_at = state.seen_at or event.at
    confirmed = state.confirmed or event.at - seen_at >= rules.tentative_s
    if confirmed and event.hopeless:
        return Stopping(event.at, state.number, event.job_id, Stop(Phase.FAILED, event.hopeless)), (
            Tell(event.hopeless),
        )
    after = replace(state, job_id=event.job_id, seen_at=seen_at, confirmed=confirmed, why=event.why)
    return stay(state if after == state else after)


@edge((Unsure, Submitting, Waiting), InQueue)
def queued_when_seen(state: Unsure | Submitting | Waiting, event: InQueue, rules: Rules) -> Step:
    """The queue shows a job of its name: that is it. One of an attempt that was never submitted is not ours."""
    if isinstance(state, Waiting) and not state.tried:
        return stay(state)
    adopted = Queued(event.at, state.number, event.job_id, state.lost)
    after, told = queued_again(adopted, event, rules)
    return after, (Tell(f"found in the queue as job {event.job_id}"), *told)
