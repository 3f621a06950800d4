"""Edges of what is wanted no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heroes_jobs import endings
from heroes_jobs.events import Absent, CancelAsked, GaveUp, InQueue, Resolved, RunSeen
from heroes_jobs.machine.edges import edge, stay
from heroes_jobs.machine.executing import later, to_ending
from heroes_jobs.model import Phase, Rules
from heroes_jobs.states import (
    Ended,
    Ending,
    Held,
    Queued,
    Running,
    Seen,
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

# -------------------------------------------------------------------------------------------------------- stopping


@edge((Submitting, Unsure, Queued, Running), CancelAsked)
def stopping(state: Any, event: CancelAsked, _rules: Rules) -> Step:
    """Wanted no more: take its run claim, or cancel what has started."""
    stop = Stop(Phase.CANCELLED, endings.CANCELLED.format(actor=event.actor), event.actor)
    if event.why:
        stop = Stop(Phase.FAILED, event.why, event.actor)
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
    return stay(replace(state, job_id=event.job_id))


@edge((Stopping,), InQueue)
def stopping_in_queue(state: Stopping, event: InQueue, _rules: Rules) -> Step:
    """Still there, or ended."""
    if state.started and event.seen.state in TERMINAL:
        return to_ending(state, event, began=state.since, seen=later(state.seen, event.seen))
    if event.seen.state is JobState.RUNNING and event.seen != state.seen:
        return stay(replace(state, seen=event.seen))
    return stay(state)


@edge((Stopping,), Absent)
def ending_when_stopped(state: Stopping, event: Absent, _rules: Rules) -> Step:
    """Gone from the queue: ask how it ended. Without a known start the run claim tells more."""
    if not state.started:
        return stay(state)
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
