"""`{{name}}` inside an argument: found, and replaced by text that stays inside that one argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_PLACE = re.compile(r"{{\s*([A-Za-z0-9_.-]+)\s*}}")


@dataclass(frozen=True)
class Place:
    """A placeholder: `kind` is "input", "file", "needs", or "" for a parameter."""

    kind: str
    name: str

    @property
    def text(self) -> str:
        """As an author writes it."""
        return "{{" + (f"{self.kind}.{self.name}" if self.kind else self.name) + "}}"


def place(inner: str) -> Place:
    """What the text between the braces means; the first dot ends the kind."""
    kind, dot, name = inner.partition(".")
    return Place(kind, name) if dot else Place("", inner)


def places(argument: str) -> Iterator[Place]:
    """The placeholders of an argument, in order."""
    return (place(match.group(1)) for match in _PLACE.finditer(argument))


def fill(argument: str, value: Callable[[Place], str]) -> str:
    """`argument` with every placeholder replaced, once: braces inside a value are text."""
    return _PLACE.sub(lambda match: value(place(match.group(1))), argument)
