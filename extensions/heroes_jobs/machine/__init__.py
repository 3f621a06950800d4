"""The machine of one attempt: pure. `step` is one function per edge, named after the state that it reaches.

What the engine has to do next is `wants(state)`, a function of the stored state: an engine that dies between an effect
and its record asks for the same effect again, and each effect is safe to ask for twice. Instructions are what must be
written in the same transaction as the new state.

At most one execution of an attempt: its run claim at the site is taken once, by a job or as a tombstone. At most one
`sbatch` of a submission: its claim at the site. The next submission only after `rules.polls` traces without a sign.
"""

from __future__ import annotations

import enum

from heroes.api.errors import InvalidTransition
from heroes_jobs.events import Event
from heroes_jobs.machine import executing, handing, stopping
from heroes_jobs.machine.edges import EDGES
from heroes_jobs.model import Rules
from heroes_jobs.states import Ending, StagingIn, StagingOut, State, Step, Stopping, Unsure, Waiting

__all__ = ["Want", "step", "wants"]
#: Importing them fills the table.
_FAMILIES = (handing, executing, stopping)


def step(state: State, event: Event, rules: Rules) -> Step:
    """The next state, and what must be written with it. InvalidTransition where the machine has no such edge."""
    edge = EDGES.get((type(state), type(event)))
    if edge is None:
        raise InvalidTransition(
            f"An attempt that is {type(state).__name__} cannot take {type(event).__name__}.",
            hint="The attempt is stopped. `heroes run resolve` ends or resubmits it after a look at its story.",
            detail={"state": repr(state)[:500], "event": repr(event)[:500]},
        )
    return edge(state, event, rules)


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
