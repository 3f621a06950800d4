"""Use cases of attempts. Each takes the open unit of work; money and attempt change in one transaction.

Services say what is wanted (`target`); the engine, woken by the commit, makes it so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotFound
from heroes.api.ids import new_ulid
from heroes.api.units import Money
from heroes_budget import service as budget
from heroes_budget.model import Payer, Want
from heroes_core.work import Caller, Work
from heroes_identity.service import projects_of
from heroes_jobs import endings, store
from heroes_jobs.model import (
    AttemptNews,
    JobSpec,
    Phase,
    Reservation,
    Target,
    reservation_from_json,
    spec_from_json,
)
from heroes_jobs.states import Ended, Held, state_to_json

StepHook = Callable[[Work, AttemptNews], None]
_HOOKS: list[StepHook] = []


def register(hook: StepHook) -> None:
    """Call `hook` in the transaction in which an attempt begins, progresses or ends. Registering twice is once."""
    if hook not in _HOOKS:
        _HOOKS.append(hook)


def unregister(hook: StepHook) -> None:
    """Call it no more."""
    _HOOKS.remove(hook)


def announce(work: Work, news: AttemptNews) -> None:
    """Tell every hook."""
    for hook in _HOOKS:
        hook(work, news)


# --------------------------------------------------------------------------------------------- make, start, move, stop


def create(work: Work, spec: JobSpec, reserve: Reservation) -> str:
    """A held attempt of a step, its worst case reserved; its key. OverBudget names the budget and by how much."""
    return create_all(work, [(spec, reserve)])[0]


def create_all(work: Work, wanted: Sequence[tuple[JobSpec, Reservation]]) -> list[str]:
    """Held attempts of one payer's steps, their worst cases reserved together or, with OverBudget, none of them."""
    rows, wants = [], []
    for spec, held in wanted:
        key = new_ulid()
        rows.append(_row(work, key, spec, held))
        wants.append(Want(key, held.provider, held.amount, dict(held.lines), held.price, spec.cluster))
    if wants:
        budget.reserve_all(work, _payer(wanted[0][0]), wants)
    store.add_attempts(work, rows)
    return [want.key for want in wants]


def _payer(spec: JobSpec) -> Payer:
    return Payer(organisation=spec.organisation, project=spec.project, user=spec.user)


def _reserve(work: Work, reservation_key: str, spec: JobSpec, held: Reservation) -> None:
    lines = dict(held.lines)
    budget.reserve(work, reservation_key, _payer(spec), held.provider, held.amount, lines, held.price, spec.cluster)


def _row(work: Work, key: str, spec: JobSpec, held: Reservation) -> dict[str, Any]:
    if not spec.argv:
        raise InvalidSpec(f"step {spec.step!r} has an empty command", hint="Give the step an argv.")
    return {
        "key": key, "organisation": spec.organisation, "user": spec.user, "project": spec.project,
        "instance": spec.instance, "step": spec.step, "position": spec.index, "cluster": spec.cluster,
        "queue": spec.queue, "target": Target.HELD, "status": Phase.HELD, "live": 0, "nudged": 0,
        "spec": spec.to_json(), "reservation": held.to_json(), "reservation_key": key,
        "state": state_to_json(Held()), "created_at": work.now, "currency": held.amount.currency,
    }  # fmt: skip


def retry(work: Work, spec: JobSpec, held: Reservation, retry_of: str, ordinal: int) -> str:
    """A new attempt of the same step, wanted at once, after the cluster failed under the one before."""
    key = new_ulid()
    _reserve(work, key, spec, held)
    row = _row(work, key, spec, held) | {"retry_of": retry_of, "ordinal": ordinal, "target": Target.RUNNING}
    store.add_attempts(work, [row | {"live": 1, "nudged": 1}])
    return key


def start(work: Work, keys: Sequence[str]) -> list[str]:
    """Held attempts are wanted now; which of `keys` were held."""
    moved = store.aim(work, keys, Target.RUNNING, "", only=Target.HELD)
    if moved:
        work.wake()
    return moved


def place(work: Work, key: str, cluster: str, queue: str, changes: Mapping[str, Any], reserve: Reservation) -> None:
    """Move a held attempt to another queue. Its new worst case replaces the old one in the budget; where that does not
    fit (OverBudget) nothing has changed, also in the caller's transaction."""
    row = _held(work, key)
    spec = spec_from_json(row.spec).at(cluster, queue, **changes)
    fresh = _next_reservation(key, row.reservation_key)
    with work.connection.begin_nested():
        budget.void(work, row.reservation_key)
        _reserve(work, fresh, spec, reserve)
        changed = sa.update(store.attempt).where(store.attempt.c.key == key, store.attempt.c.target == Target.HELD)
        work.execute(
            changed.values(
                cluster=cluster, queue=queue, spec=spec.to_json(), reservation=reserve.to_json(),
                reservation_key=fresh, currency=reserve.amount.currency,
            )
        )  # fmt: skip
    told = {"key": key, "at": work.now, "status": Phase.HELD, "text": f"moved to {cluster}/{queue}"}
    store.tell(work, [told])


def _next_reservation(key: str, reservation_key: str) -> str:
    return f"{key}.{int(reservation_key.partition('.')[2] or 1) + 1}"


def cover(work: Work, key: str, reservation_key: str, spec: JobSpec, larger: Reservation) -> str:
    """Replace what is reserved for a running attempt by a larger worst case; the new reservation's key. With OverBudget
    nothing has changed, also in the caller's transaction."""
    fresh = _next_reservation(key, reservation_key)
    with work.connection.begin_nested():
        budget.void(work, reservation_key)
        _reserve(work, fresh, spec, larger)
        changed = sa.update(store.attempt).where(store.attempt.c.key == key)
        work.execute(changed.values(reservation=larger.to_json(), reservation_key=fresh))
    return fresh


def _held(work: Work, key: str) -> sa.Row[Any]:
    found = store.find(work, [key])
    if not found:
        raise NotFound(f"there is no attempt {key}", hint="Look at the run's attempts.")
    if found[0].target != Target.HELD:
        raise Conflict(f"attempt {key} was started ({found[0].status})", hint="Only one that is still held can move.")
    return found[0]


def hold(work: Work, organisation: str, keys: Sequence[str]) -> None:
    """Lock what the engine locks when these attempts end, in its order: the books, the attempts. For a transaction that
    changes their run before it comes to them."""
    budget.hold(work, organisation)
    store.lock(work, keys)


def cancel(work: Work, keys: Sequence[str], actor: str) -> list[str]:
    """Those of `keys` that have not ended are wanted no more; which they were. Held ones end here and now."""
    held = set(store.aim(work, keys, Target.CANCELLED, actor, only=Target.HELD))
    for row in store.find(work, sorted(held)):
        _end_held(work, row, actor)
    others = store.aim(work, [key for key in keys if key not in held], Target.CANCELLED, actor, only=Target.RUNNING)
    if others:
        work.wake()
    return [key for key in keys if key in held or key in others]


def _end_held(work: Work, row: sa.Row[Any], actor: str) -> None:
    budget.void(work, row.reservation_key)
    reason = endings.CANCELLED.format(actor=actor)
    state = Ended(work.now.timestamp(), Phase.CANCELLED, reason)
    changed = sa.update(store.attempt).where(store.attempt.c.key == row.key)
    work.execute(
        changed.values(
            status=Phase.CANCELLED, live=0, nudged=0, state=state_to_json(state), reason=reason, cost=0,
            ended_at=work.now, cleaned=1,
        )
    )  # fmt: skip
    store.tell(work, [{"key": row.key, "at": work.now, "status": Phase.CANCELLED, "text": reason}])
    announce(work, _news(row, Phase.CANCELLED, reason, work.now))


def _news(row: sa.Row[Any], phase: Phase, reason: str, at: datetime) -> AttemptNews:
    return AttemptNews(
        key=row.key, organisation=row.organisation, instance=row.instance, step=row.step, index=row.position,
        phase=phase, reason=reason, cost=Money.zero(row.currency), ended_at=at, cluster=row.cluster, queue=row.queue,
        user=row.user, ordinal=row.ordinal, retry_of=row.retry_of,
    )  # fmt: skip


def resolve(work: Work, caller: Caller, key: str, how: str) -> None:
    """An operator's word on a lasting doubt: "lost" gives it up, "resubmit" lets it be handed over again. Audited."""
    row = next(iter(store.find(work, [key])), None)
    if row is None:
        raise NotFound(f"there is no attempt {key}", hint="`heroes run attempts` lists those of a run.")
    if row.ended_at is not None:
        raise Conflict(f"attempt {key} has ended ({row.status})", hint="There is nothing to resolve.")
    if row.target == Target.HELD:
        raise Conflict(f"attempt {key} was not started", hint="Cancel its run instead.")
    work.audit(row.organisation, caller.actor, "jobs.resolve", key, how=how, status=row.status)
    changed = sa.update(store.attempt).where(store.attempt.c.key == key)
    told = {"how": how, "actor": caller.actor}
    work.execute(changed.values(resolution=told, nudged=store.attempt.c.nudged + 1, live=1, halted=0))
    work.wake()


# -------------------------------------------------------------------------------------------------------------- look


def attempts(work: Work, caller: Caller, instance: str, after: str = "", limit: int = 50) -> list[sa.Row[Any]]:
    """Attempts of a run that the caller may see, oldest first."""
    rows = store.of_instance(work, caller.organisation, instance, after, limit)
    if rows and not _may_see(work, caller, rows[0]):
        rows = []
    if not rows and not after:
        raise NotFound(f"there is no run {instance}", hint="`heroes run list` shows your runs.")
    return rows


def find(work: Work, caller: Caller, key: str) -> sa.Row[Any]:
    """One attempt that the caller may see; an operator sees every one."""
    row = next(iter(store.find(work, [key])), None)
    if row is None or not (_operates(caller) or _may_see(work, caller, row)):
        raise NotFound(f"there is no attempt {key}", hint="`heroes run attempts` lists those of a run.")
    return row


def find_step(work: Work, caller: Caller, instance: str, step: str, index: int) -> sa.Row[Any]:
    """The newest attempt of a step that the caller may see."""
    row = store.of_step(work, caller.organisation, instance, step, index)
    if row is None or not _may_see(work, caller, row):
        raise NotFound(
            f"run {instance} has no step {step!r} with index {index}", hint="`heroes run show` names its steps."
        )
    return row


def _may_see(work: Work, caller: Caller, row: sa.Row[Any]) -> bool:
    """Its user, members of its project, and those who manage the organisation's workflows."""
    if row.organisation != caller.organisation:
        return False
    if row.user == caller.user or "workflows:manage" in caller.rights:
        return True
    return bool(row.project) and row.project in projects_of(work, caller.organisation, caller.user)


def _operates(caller: Caller) -> bool:
    return caller.platform and "platform:operate" in caller.rights


def reservation(row: sa.Row[Any]) -> Reservation:
    """What is reserved for an attempt."""
    return reservation_from_json(row.reservation)


def troubles(work: Work, clusters: Iterable[str]) -> dict[str, str]:
    """For each of `clusters` that does not answer the sentence that says since when."""
    found = {}
    for cluster in sorted(set(clusters)):
        row = store.watch(work, cluster)
        if row is not None and row.unreachable_since is not None:
            since = f"{row.unreachable_since:%Y-%m-%d %H:%M} UTC"
            found[cluster] = endings.unreachable(cluster, since, row.trouble)
    return found


def load(work: Work, cluster: str) -> dict[str, tuple[int, int]]:
    """Free and all CPUs of each partition, as last polled; {} where that is not known."""
    row = store.watch(work, cluster)
    return {queue: (free, total) for queue, (free, total) in row.load.items()} if row else {}
