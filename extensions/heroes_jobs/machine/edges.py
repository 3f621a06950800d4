"""The table of edges, and how a function becomes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from heroes_jobs.model import Rules
from heroes_jobs.states import State, Step

Edge = Callable[[Any, Any, Rules], Step]
EDGES: dict[tuple[type[Any], type[Any]], Edge] = {}


def edge(states: tuple[type[Any], ...], *events: type[Any]) -> Callable[[Edge], Edge]:
    """Let the decorated function be the edge out of each of `states` at each of `events`."""

    def remember(function: Edge) -> Edge:
        for pair in ((state, event) for state in states for event in events):
            if pair in EDGES:
                raise ValueError(f"two edges for {pair}")
            EDGES[pair] = function
        return function

    return remember


def stay(state: State) -> Step:
    """Nothing changes."""
    return state, ()
