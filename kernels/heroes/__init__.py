"""HEROES in a notebook, a script and a terminal: `hs = heroes.connect()`. Importing this imports next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heroes.api.errors import HeroesError, Refused, Unavailable
    from heroes.connection import Heroes, connect

__all__ = ["Heroes", "HeroesError", "Refused", "Unavailable", "connect"]

_HOME = {"connect": "heroes.connection", "Heroes": "heroes.connection"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'heroes' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME.get(name, "heroes.api.errors")), name)
