"""Completes names of workflows, runs, clusters and buckets in the shell, by asking the platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from heroes.api import contract
from heroes.api.errors import HeroesError
from heroes.api.registry import parse

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

#: Field of a request -> the operation that lists such things, the field of an item that is its name, one that tells
#: of it.
LISTS = {
    "workflow_template_id": ("workflow.templates", "name", "title"),
    "workflow": ("workflow.templates", "name", "title"),
    "template": ("workflow.templates", "name", "title"),
    "workflow_instance_id": ("workflow.instances", "id", "template"),
    "instance": ("workflow.instances", "id", "template"),
    "cluster_id": ("cluster.list", "name", "kind"),
    "cluster": ("cluster.list", "name", "kind"),
    "bucket": ("data.buckets", "name", ""),
}


def completer_for(field: str) -> Completer | None:
    """What completes the words of a field; None where nothing can."""
    if field not in LISTS:
        return None
    operation, name, about = LISTS[field]
    return lambda _context, _parameter, begun: _names(operation, name, about, begun)


def _names(operation: str, name: str, about: str, begun: str) -> list[CompletionItem]:
    """Names that begin so; none when the platform cannot be asked: a shell must not be disturbed."""
    from heroes.connection import connect

    found = contract.by_name().get(operation)
    if found is None:
        return []
    try:
        with connect(timeout=2.0) as platform:
            page = platform.client.call(found, parse(found.request, _first_page(found.request.model_fields)))
    except HeroesError:
        return []
    return [
        CompletionItem(value, help=str(getattr(item, about, "") or "") or None)
        for item in page.items
        if (value := str(getattr(item, name, ""))).startswith(begun)
    ]


def _first_page(fields: dict[str, Any]) -> dict[str, Any]:
    return {"limit": 100} if "limit" in fields else {}


def shell_script(shell: str) -> str:
    """The script that a shell evaluates to complete `heroes`."""
    from click.shell_completion import get_completion_class

    from heroes.cli.app import program

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell!r}")
    return kind(program(), {}, "heroes", "_HEROES_COMPLETE").source()
