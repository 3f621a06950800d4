"""People of two organisations, for tests of templates."""

from __future__ import annotations

from heroes_core.work import Caller

ENGINEER = Caller("acme", "alice", frozenset({"submit", "data:home"}))
COLLEAGUE = Caller("acme", "bob", frozenset({"submit"}))
MANAGER = Caller("acme", "mia", frozenset({"submit", "workflows:manage"}))
PUBLISHER = Caller("acme", "pub", frozenset({"submit", "workflows:manage", "applications:publish"}))
BILLING = Caller("acme", "bill", frozenset({"billing"}))
STRANGER = Caller("umbrella", "zoe", frozenset({"submit", "workflows:manage"}))


def document(name: str, title: str = "Sums") -> str:
    """A small template."""
    return f"name: {name}\ntitle: {title}\nsteps:\n  - {{name: add, argv: [add, '1']}}\n"
