"""What the cluster tells: one poll for all jobs, then what the poll cannot tell (claims, accounting), then stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from heroes.api.ids import ULID
from heroes_core.work import Work
from heroes_jobs import endings, store
from heroes_jobs.desk import Desk
from heroes_jobs.events import (
    Absent,
    Accounted,
    CancelAsked,
    ClaimSeen,
    GaveUp,
    InQueue,
    NoTrace,
    RecordSeen,
    RunSeen,
    Tick,
    Unclaimed,
)
from heroes_jobs.following import Followed
from heroes_jobs.machine import Want, wants
from heroes_jobs.settlement import enlarged
from heroes_jobs.states import Ending, Exit, Outcome, Queued, Running, Seen, Stopping, Unsure
from heroes_spawners.site import CANARY, TERMINAL, Claim, Poll
from heroes_spawners.site import Accounted as Account
from heroes_spawners.site import Queued as Entry
from heroes_spawners.site import State as JobState

TOMBSTONE = "tombstone"
#: Keys in one question.
TOGETHER = 500
#: How often a cursor is stored though nothing changed.
NOTED_S = 60.0
#: How long a job of another name may be seen.
FOREIGN_S = 60.0
#: A probe has ended after this.
CANARY_S = 1800.0
_SHOWN = (Queued, Running, Stopping, Ending)


def poll(desk: Desk) -> bool:
    """Ask once for everything; whether an attempt moved on (a new reason to wait is no move: a thousand jobs that wait
    must not be polled more often than one)."""
    began = desk.now()
    relist = _relist(desk, began)
    answer = desk.ask("poll", lambda: desk.site.poll("" if relist else desk.cursor))
    _news(desk, answer, began)
    load = {queue: list(cpus) for queue, cpus in answer.load.items()}
    desk.cursor = answer.cursor
    moved = any(each.phase is not each.told_phase for each in desk.changed.values())
    # a poll without news is not written: an older cursor in the database only makes the next engine read more again
    changed = bool(desk.changed) or load != desk.load or began - desk.noted_at >= NOTED_S

    def extra(work: Work) -> None:
        store.remember(work, desk.cluster, cursor=answer.cursor, polled_at=work.now, load=load)

    desk.commit("poll", extra if changed else None)
    desk.load, desk.noted_at = load, began if changed else desk.noted_at
    _stop_uncovered(desk)
    _strangers(desk, answer.queue)
    _foreign(desk, answer.foreign)
    return moved


def _relist(desk: Desk, at: float) -> bool:
    """Ended without a record: an NFS client may show it late, so look at all records again now and then."""
    pause = desk.rules.relist_s / 4
    lacking = any(
        isinstance(one.state, Ending) and one.state.exit is None and at - one.state.since >= pause
        for one in desk.active()
    )
    if not lacking or at - desk.relisted_at < pause:
        return False
    desk.relisted_at = at
    return True


def _news(desk: Desk, answer: Poll, began: float) -> None:
    at = desk.now()
    entries: dict[str, list[Entry]] = {}
    for entry in answer.queue:
        entries.setdefault(entry.key, []).append(entry)
    for key, job_id in answer.started.items():
        if key in desk.following and job_id != TOMBSTONE:
            desk.take(desk.following[key], RunSeen(at, job_id))
    for record in answer.records:
        if record.key in desk.following:
            left = Exit(record.exit_code, record.elapsed_s, record.energy)
            desk.take(desk.following[record.key], RecordSeen(at, record.job_id, left))
    for each in desk.active():
        if each.key in entries:
            desk.take(each, _in_queue(each, entries[each.key], at))
            _measure(desk, each, at)
        elif isinstance(each.state, _SHOWN) and each.state.since < began:
            desk.take(each, Absent(at))
        if isinstance(each.state, Ending):
            desk.take(each, Tick(at))


def _measure(desk: Desk, each: Followed, at: float) -> None:
    """What a running job was given beyond what is reserved for it is reserved with the next commit."""
    if not isinstance(each.state, Running):
        return
    seen = each.state.seen
    each.outgrown = enlarged(each.held, seen.cpus, seen.nodes)
    if each.outgrown is not None:
        text = f"the cluster allocated {seen.cpus} CPUs on {seen.nodes} nodes, more than was reserved"
        each.stories.append((at, text))
        desk.changed[each.key] = each


def _stop_uncovered(desk: Desk) -> None:
    """A job whose allocation cannot be paid is stopped rather than left to run on somebody's account."""
    for each in desk.active():
        if each.uncovered and isinstance(each.state, Running):
            seen = each.state.seen
            desk.take(each, CancelAsked(desk.now(), "heroes", endings.outgrown(seen.cpus, seen.nodes, each.uncovered)))
        each.uncovered = ""


def _in_queue(each: Followed, entries: Sequence[Entry], at: float) -> InQueue:
    """Of several jobs of one name the one that we know, else the one that runs."""
    job_id = getattr(each.state, "job_id", "")
    entry = min(entries, key=lambda one: (one.job_id != job_id, one.state is not JobState.RUNNING))
    seen = Seen(entry.state, _seconds(entry.started_at), entry.cpus, entry.nodes)
    hopeless = endings.hopeless(entry.reason, each.spec.queue) if entry.state is JobState.PENDING else ""
    return InQueue(at, entry.job_id, seen, entry.reason, hopeless)


def _seconds(when: datetime | None) -> float | None:
    return when.timestamp() if when else None


# ------------------------------------------------------------------------------------------------ claims, accounting


def follow_up(desk: Desk) -> None:
    """After a poll: ask for what it could not tell."""
    _trace(desk)
    _account(desk)
    _stop(desk)


def _wanting(desk: Desk, want: Want) -> list[str]:
    at, rules = desk.now(), desk.rules
    return [each.key for each in desk.active() if wants(each.state, at, rules) is want][:TOGETHER]


def _trace(desk: Desk) -> None:
    keys = _wanting(desk, Want.TRACE)
    if not keys:
        return
    claims = desk.ask("status", lambda: desk.site.status(keys))
    accounts = _accounting(desk, keys)
    at = desk.now()
    for key in keys:
        _traced(desk, desk.following[key], claims.get(key), accounts.get(key, ()), at)
    desk.commit("traces")


def _traced(desk: Desk, each: Followed, claim: Claim | None, rows: Sequence[Account], at: float) -> None:
    state = each.state
    assert isinstance(state, Unsure)
    if claim and claim.run_by and claim.run_by != TOMBSTONE:
        desk.take(each, RunSeen(at, claim.run_by))
        return
    ended = [row for row in rows if row.state in TERMINAL]
    if ended:
        desk.take(each, Accounted(at, ended[-1].job_id, _explained(each, outcome(ended))))
    elif claim is None or claim.number < state.number:
        desk.take(each, Unclaimed(at))
    elif claim.job_id and claim.job_id != state.lost_id:
        desk.take(each, ClaimSeen(at, claim.job_id))
    else:
        desk.take(each, NoTrace(at))


def _account(desk: Desk) -> None:
    keys = _wanting(desk, Want.ACCOUNT)
    if not keys:
        return
    accounts = _accounting(desk, keys)
    at = desk.now()
    for key in keys:
        each = desk.following[key]
        rows = _own(accounts.get(key, ()), getattr(each.state, "job_id", ""))
        if rows and rows[-1].state in TERMINAL:
            desk.take(each, Accounted(at, rows[-1].job_id, _explained(each, outcome(rows))))
    desk.commit("accounts")


def _accounting(desk: Desk, keys: list[str]) -> Mapping[str, list[Account]]:
    if not desk.rules.accounted:
        return {}
    return desk.ask("accounting", lambda: desk.site.accounting(keys, desk.since_earliest(keys)))


def _own(rows: Sequence[Account], job_id: str) -> list[Account]:
    return [row for row in rows if job_id in ("", row.job_id)]


def _explained(each: Followed, found: Outcome) -> Outcome:
    image, shape = each.spec.image.path if each.spec.image else "", each.spec.shape
    why = endings.why(found.state, found.exit_code, shape.walltime_s, shape.memory_mib, image)
    return replace(found, why=why)


def outcome(rows: Sequence[Account]) -> Outcome:
    """One job's accounting, oldest first. After a crash of the controller it may have several rows for one id: the last
    tells the state, the longest what was used."""
    last, longest = rows[-1], max(rows, key=lambda row: row.elapsed_s)
    return Outcome(
        last.state, _seconds(longest.started_at), _seconds(last.ended_at), _seconds(rows[0].submitted_at),
        longest.elapsed_s, longest.cpus, longest.nodes, longest.gpus, max(row.max_rss_mib for row in rows),
        last.exit_code,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- stops, strangers


def _stop(desk: Desk) -> None:
    keys = _wanting(desk, Want.GIVE_UP)
    if not keys:
        return
    taken = desk.ask("give_up", lambda: desk.site.give_up(keys, desk.epoch))
    desk.ask("cancel", lambda: desk.site.cancel(keys, desk.epoch))
    at = desk.now()
    for key in keys:
        desk.take(desk.following[key], GaveUp(at, taken[key]))
    desk.commit("stops")


def _strangers(desk: Desk, queue: Sequence[Entry]) -> None:
    """Jobs under our account that nobody asked for: named like ours and in no book, or of an attempt that has ended.
    Cancelled when seen for the second time."""
    unknown = {entry.key for entry in queue if entry.key not in desk.following and ULID.fullmatch(entry.key)}
    unknown -= {entry.key for entry in queue if _canary(entry, desk.now())}
    again, desk.strangers = sorted(unknown & desk.strangers), unknown
    if not again:
        return
    with desk.database.read() as work:
        known = store.known_keys(work, again)
    doomed = [key for key in again if known.get(key, True)]
    if not doomed:
        return
    desk.ask("cancel", lambda: desk.site.cancel(doomed, desk.epoch))
    desk.strangers -= set(doomed)
    foreign = [key for key in doomed if key not in known]
    if foreign:
        with desk.database.write() as work:
            _audit(work, desk, foreign)


def _foreign(desk: Desk, names: Mapping[str, str]) -> None:
    """Jobs under our account that do not even look like ours, for whoever reached the scheduler from inside a job:
    cancelled once they have been seen for a while, since what an administrator tries by hand is over soon."""
    at = desk.now()
    desk.foreign = {job_id: desk.foreign.get(job_id, at) for job_id in names}
    doomed = sorted(job_id for job_id, since in desk.foreign.items() if at - since >= FOREIGN_S)
    if not doomed:
        return
    desk.ask("cancel", lambda: desk.site.cancel_foreign(doomed, desk.epoch))
    for job_id in doomed:
        del desk.foreign[job_id]
    with desk.database.write() as work:
        for job_id in doomed:
            detail = {"cluster": desk.cluster, "name": ascii(names[job_id])[:200]}
            work.audit(desk.facts.owner, "engine", "jobs.stranger-cancelled", job_id, **detail)


def _canary(entry: Entry, at: float) -> bool:
    """Whether it is a job of a probe, which may look at a cluster that is in use. None of them takes that long."""
    asked = _seconds(entry.submitted_at)
    return entry.key.startswith(CANARY) and (asked is None or at - asked < CANARY_S)


def _audit(work: Work, desk: Desk, foreign: list[str]) -> None:
    detail: dict[str, Any] = {"cluster": desk.cluster}
    for key in foreign:
        work.audit(desk.facts.owner, "engine", "jobs.stranger-cancelled", key, **detail)
