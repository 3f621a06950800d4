"""The whole contract: the operations of every module. Client, command line and OpenAPI are made from it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from heroes.api.errors import NotFound
from heroes.api.registry import Operation

#: Modules whose contract file is `heroes.api.<module>`, in the order in which they are shown.
MODULES = (
    "core",
    "identity",
    "workflows",
    "applications",
    "decision",
    "data",
    "budget",
    "marketplace",
    "clusters",
    "jobs",
    "telemetry",
)


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation of every module that has a contract."""
    found: list[Operation] = []
    for module in MODULES:
        if find_spec(f"heroes.api.{module}") is not None:
            found.extend(import_module(f"heroes.api.{module}").OPERATIONS)
    return tuple(found)


@cache
def by_name() -> dict[str, Operation]:
    """Operations by name."""
    return {operation.name: operation for operation in operations()}


def operation(name: str) -> Operation:
    """The operation of that name; NotFound when the contract has none."""
    try:
        return by_name()[name]
    except KeyError:
        raise NotFound(
            f"The contract has no operation {name!r}.", hint="`heroes openapi` prints all of them."
        ) from None
