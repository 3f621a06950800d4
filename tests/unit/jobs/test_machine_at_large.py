"""The machine under any sequence of events: what must hold whatever happens."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from heroes.api.errors import InvalidTransition
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
from heroes_jobs.model import FINAL, Rules
from heroes_jobs.states import (
    Ended,
    Exit,
    Held,
    Outcome,
    Seen,
    Settle,
    State,
    Submitting,
    Void,
    Waiting,
    state_from_json,
    state_to_json,
)
from heroes_spawners.site import TERMINAL, Refusal
from heroes_spawners.site import State as JobState

IDS = st.sampled_from(["7", "8"])
OUTCOMES = st.sampled_from(sorted(TERMINAL)).map(lambda state: Outcome(state, 1.0, 2.0, elapsed_s=1.0))
EXITS = st.integers(0, 1).map(Exit)
SEEN = st.sampled_from(list(JobState)).map(lambda state: Seen(state, 1.0, 1, 1))
#: Each event as a function of the time at which it happens.
EVENTS = st.one_of(
    st.booleans().map(lambda inputs: lambda at: Started(at, inputs)),
    st.just(Staged),
    st.booleans().map(lambda final: lambda at: StageFailed(at, "no", final)),
    st.just(Chosen),
    IDS.map(lambda job_id: lambda at: SubmitAccepted(at, job_id)),
    st.sampled_from(list(Refusal)).map(lambda kind: lambda at: SubmitDeclined(at, kind, "no")),
    st.just(lambda at: SubmitUnsure(at, "?")),
    st.just(Unclaimed),
    IDS.map(lambda job_id: lambda at: ClaimSeen(at, job_id)),
    st.just(NoTrace),
    st.tuples(IDS, SEEN, st.sampled_from(["", "never"])).map(lambda t: lambda at: InQueue(at, t[0], t[1], "", t[2])),
    st.just(Absent),
    IDS.map(lambda job_id: lambda at: RunSeen(at, job_id)),
    st.tuples(IDS, EXITS).map(lambda t: lambda at: RecordSeen(at, *t)),
    st.tuples(IDS, OUTCOMES).map(lambda t: lambda at: Accounted(at, *t)),
    st.just(Tick),
    st.just(lambda at: CancelAsked(at, "ann")),
    st.booleans().map(lambda taken: lambda at: GaveUp(at, taken)),
    st.sampled_from(["", "missing"]).map(lambda fault: lambda at: Delivered(at, fault)),
    st.booleans().map(lambda final: lambda at: DeliveryFailed(at, "no", final)),
    st.sampled_from(["lost", "resubmit"]).map(lambda how: lambda at: Resolved(at, how, "ops")),
)
Taken = tuple[State, Event, State, tuple[object, ...]]
HISTORIES = st.lists(st.tuples(st.floats(0.1, 100.0), EVENTS), max_size=40)


def histories(
    rules: Rules, happenings: list[tuple[float, object]]
) -> list[tuple[State, Event, State, tuple[object, ...]]]:
    """Every step that the machine took: before, event, after, what is to be written."""
    state: State = Held()
    at, taken = 0.0, []
    for pause, make in happenings:
        at += pause
        event = make(at)  # type: ignore[operator]
        try:
            after, told = step(state, event, rules)
        except InvalidTransition:
            continue
        taken.append((state, event, after, told))
        state = after
    return taken


@settings(max_examples=150)
@given(HISTORIES, st.booleans())
def test_money_is_decided_once_and_at_the_end(happenings: list[tuple[float, object]], accounted: bool) -> None:
    """Void or settle is told exactly with the step that ends an attempt, and never again."""
    rules = Rules() if accounted else Rules().without_accounting()
    for before, _, after, told in histories(rules, happenings):
        money = [each for each in told if isinstance(each, Void | Settle)]
        ends = isinstance(after, Ended) and not isinstance(before, Ended)
        assert len(money) == (1 if ends else 0)


@settings(max_examples=150)
@given(HISTORIES)
def test_what_has_ended_stays_as_it_is(happenings: list[tuple[float, object]]) -> None:
    """No event changes an attempt that has ended."""
    for before, _, after, told in histories(Rules(), happenings):
        if isinstance(before, Ended):
            assert after == before
            assert told == ()
        assert isinstance(after, Ended) == (after.phase in FINAL)


@settings(max_examples=150)
@given(HISTORIES)
def test_submissions_are_counted_upward_and_chosen_first(happenings: list[tuple[float, object]]) -> None:
    """The call is made out of a stored intent only, and numbers never go back."""
    for before, event, after, _ in histories(Rules(), happenings):
        assert getattr(after, "number", 9999) >= getattr(before, "number", 0)
        if isinstance(after, Submitting) and not isinstance(before, Submitting):
            assert isinstance(event, Chosen)
            assert isinstance(before, Waiting)


@settings(max_examples=100)
@given(HISTORIES)
def test_every_reachable_state_is_remembered_and_leads_on(happenings: list[tuple[float, object]]) -> None:
    """What is stored comes back, and each state names what to do next, ends, or waits for the cluster."""
    for _, event, after, _ in histories(Rules(), happenings):
        assert state_from_json(json.loads(json.dumps(state_to_json(after)))) == after
        assert wants(after, event.at, Rules()) in Want


@settings(max_examples=150)
@given(HISTORIES)
def test_nothing_is_settled_that_never_was_submitted(happenings: list[tuple[float, object]]) -> None:
    """Whatever a site claims of it, an attempt without a submission costs nothing."""
    submitted = False
    for _, _, after, told in histories(Rules(), happenings):
        submitted = submitted or isinstance(after, Submitting)
        assert submitted or not any(isinstance(each, Settle) for each in told)
