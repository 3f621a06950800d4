"""What people want: attempts started, cancelled, resolved since the last turn. Needs no cluster."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from heroes_jobs import store
from heroes_jobs.desk import Desk
from heroes_jobs.events import CancelAsked, Resolved, Started, SubmitUnsure
from heroes_jobs.following import Followed
from heroes_jobs.model import Target
from heroes_jobs.states import Held, Submitting


def hear(desk: Desk) -> int:
    """Take note of every nudge; how many there were."""
    with desk.database.read() as work:
        rows = store.nudged(work, desk.cluster)
    if not rows:
        return 0
    noted = [{"_key": row.key, "_nudged": row.nudged} for row in rows]
    for row in rows:
        _hear_one(desk, row)
    desk.commit("hear", lambda work: store.heard(work, noted))
    return len(rows)


def _hear_one(desk: Desk, row: sa.Row[Any]) -> None:
    if row.ended_at is not None:
        return
    each = desk.following.get(row.key)
    if each is None or each.halted:
        each = desk.following[row.key] = Followed.of(row)
    each.target = row.target
    at = desk.now()
    if row.resolution:
        desk.changed[each.key] = each
        desk.take(each, Resolved(at, row.resolution["how"], row.resolution["actor"]))
    if each.halted:
        return
    if isinstance(each.state, Held):
        desk.take(each, Started(at, bool(each.spec.inputs)))
    if row.target == Target.CANCELLED:
        desk.take(each, CancelAsked(at, row.actor))


def recover(desk: Desk) -> None:
    """After a start: whatever was being submitted when the last engine died may have arrived."""
    for each in desk.active():
        if isinstance(each.state, Submitting):
            desk.take(each, SubmitUnsure(desk.now(), "the engine was restarted"))
    desk.commit("hear")
