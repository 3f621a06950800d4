"""The whole contract is of one piece."""

from __future__ import annotations

import subprocess
import sys

import pytest

from heroes.api import contract
from heroes.api.errors import NotFound


def test_names_paths_and_verbs_are_unique() -> None:
    """No two operations share a name, a method and path, or a verb."""
    operations = contract.operations()
    assert len({each.name for each in operations}) == len(operations)
    assert len({(each.method, each.path) for each in operations}) == len(operations)
    verbs = [each.verb for each in operations if each.verb]
    assert len(set(verbs)) == len(verbs)


def test_no_verb_is_the_beginning_of_another() -> None:
    """A word is a group or a command, never both."""
    verbs = [each.verb.split() for each in contract.operations() if each.verb]
    commands = {tuple(words) for words in verbs}
    assert not {tuple(words[:end]) for words in verbs for end in range(1, len(words))} & commands


def test_lists_are_paged_alike() -> None:
    """A request with a cursor has a limit, and its answer has items and the next cursor."""
    for each in contract.operations():
        if "after" in each.request.model_fields:
            assert "limit" in each.request.model_fields, each.name
            assert {"items", "next"} <= set(each.response.model_fields), each.name


def test_an_operation_by_name() -> None:
    """An operation is found by name; another name is NotFound."""
    assert contract.operation("platform.health").path == "/health"
    with pytest.raises(NotFound, match=r"run\.fast"):
        contract.operation("run.fast")


def loaded_by(code: str) -> set[str]:
    """The modules that some code loads."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_heroes_is_light() -> None:
    """`import heroes` brings neither the platform's libraries nor those of data analysis, nor even the client."""
    code = "import sys, heroes; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pandas", "sqlalchemy", "numpy", "pydantic", "httpx", "tornado", "s3fs", "rich", "typer"}


def test_connecting_is_light() -> None:
    """The client needs none of the heavy libraries either."""
    code = "import sys, heroes.connection, heroes.workflows, heroes.runs; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"pandas", "sqlalchemy", "numpy", "tornado", "s3fs", "jupyter_server", "typer"}
