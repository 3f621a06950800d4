"""Values of runs, and what a run's rows mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from heroes.api.errors import InvalidSpec
from heroes_applications.model import StepPlan

#: A run's results lie below this prefix of its user's own bucket.
RUNS = "runs"


def folder(identity: str) -> str:
    """Where a run's results lie in its user's bucket."""
    return f"{RUNS}/{identity}/"


def prefix(identity: str, plan: StepPlan) -> str:
    """Where one job's results lie."""
    return folder(identity) + plan.folder


def join_places(names: Iterable[str]) -> str:
    """Several places in a few words."""
    different = list(dict.fromkeys(names))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def label(text: str) -> tuple[str, str] | None:
    """A filter by label; None for none."""
    name, equals, value = text.partition("=")
    if not text:
        return None
    if not equals or not name:
        raise InvalidSpec(f"label: {text!r} is no label", hint="Write it as name=value.", detail={"field": "label"})
    return name, value
