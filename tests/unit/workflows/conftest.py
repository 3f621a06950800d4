"""Rows of runs, for tests of lists."""

from __future__ import annotations

from typing import Any

from heroes.api import workflows as api
from heroes.api.ids import new_ulid
from heroes_core.work import Caller, Database
from heroes_workflows import store

ALICE = Caller("acme", "alice", frozenset({"submit", "data:home"}))
BOB = Caller("acme", "bob", frozenset({"submit", "data:home"}))
MANAGER = Caller("acme", "mia", frozenset({"submit", "workflows:manage"}))
STRANGER = Caller("umbrella", "zoe", frozenset({"submit", "workflows:manage"}))


def run_row(database: Database, **changes: Any) -> dict[str, Any]:
    """A run that has nothing but its row."""
    row = {
        "id": new_ulid(), "organisation": "acme", "user": "alice", "project": "", "template_organisation": "heroes",
        "template": "sums", "version": 1, "state": "done", "labels": {}, "parameters": {}, "inputs": {}, "objects": {},
        "policy": "cheapest", "decision": "", "again_of": "", "place": "alpha/cpu", "created_at": database.clock.now(),
        "currency": "EUR", "reserved": 2_000_000, "jobs": 1, "events": 1,
    }  # fmt: skip
    return row | changes


def add_run(database: Database, **changes: Any) -> str:
    """Store such a run, with one step of one job; its id."""
    row = run_row(database, **changes)
    step = {"instance": row["id"], "name": "add", "position": 0, "needs": [], "jobs": 1, "started": 1}
    job = {
        "instance": row["id"], "position": 0, "index": 0, "step": "add", "attempt": new_ulid(), "state": "waiting",
        "phase": "waiting", "cluster": "alpha", "queue": "cpu", "reserved": 2_000_000, "grams_per_joule": 1e-4,
        "predicted": {}, "prefix": f"runs/{row['id']}/add/",
    }  # fmt: skip
    with database.write() as work:
        store.tell(work, store.add(work, row, [step], [job]), "submitted")
    return str(row["id"])


def parsed(listed: Any) -> api.Instances:
    """A page as the client reads it."""
    return api.Instances.model_validate_json(listed.model_dump_json())
