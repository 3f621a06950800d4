"""Binds the decision's operations."""

from __future__ import annotations

from heroes.api import decision as api
from heroes.api.model import Empty, Page
from heroes_core.module import Call, Module
from heroes_data.ports import ObjectStore
from heroes_decision import outcomes, service
from heroes_decision.model import DEFAULT_POLICY, POLICIES

MODULE = Module("decision", api.OPERATIONS)


def look_up(call: Call, request: api.Decide) -> service.Asked:
    """The template's jobs and the objects that they read, before the transaction."""
    return service.look_up(call.database, call.service(ObjectStore), call.caller, request)


@MODULE.bind(api.DECIDE, prepare=look_up)
def decide(call: Call, _request: api.Decide) -> api.Decision:
    """Decide, and keep the decision."""
    with call.write() as work:
        return service.decide(work, call.caller, call.prepared)


@MODULE.bind(api.DECISION)
def decision(call: Call, request: api.GetDecision) -> api.Decision:
    """A decision of one's own."""
    with call.read() as work:
        return service.stored(work, call.caller, request.decision_id)


@MODULE.bind(api.POLICIES)
def policies(_call: Call, _request: Empty) -> api.Policies:
    """What is shipped."""
    return api.Policies(
        items=tuple(
            api.Policy(name=name, summary=summary, default=name == DEFAULT_POLICY)
            for name, (summary, _) in POLICIES.items()
        )
    )


@MODULE.bind(api.OUTCOMES)
def list_outcomes(call: Call, request: Page) -> api.Outcomes:
    """Predicted against actual."""
    with call.read() as work:
        return outcomes.listing(work, call.caller.organisation, request.after, request.limit)
