"""The operations of `heroes.api.jobs`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from heroes.api import jobs as api
from heroes.api.errors import NotFound, Unavailable
from heroes.api.model import Empty
from heroes.api.units import Money, Seconds
from heroes_clusters.ports import provide_occupied
from heroes_core.module import Call, Module
from heroes_data.ports import ObjectStore
from heroes_jobs import service, store
from heroes_jobs.model import spec_from_json
from heroes_jobs.rpc import Engines
from heroes_spawners.site import Chunk

MODULE = Module("jobs", api.OPERATIONS)
provide_occupied(store.occupied)


@MODULE.bind(api.LIST)
def attempts(call: Call, request: api.ListAttempts) -> api.Attempts:
    """A page of a run's attempts."""
    with call.read() as work:
        rows = service.attempts(work, call.caller, request.instance, request.after, request.limit)
        troubles = service.troubles(work, {row.cluster for row in rows if row.ended_at is None})
    last = rows[-1].key if len(rows) == request.limit else None
    return api.Attempts(items=tuple(_attempt(row, troubles) for row in rows), next=last)


@MODULE.bind(api.STORY)
def story(call: Call, request: api.OneAttempt) -> api.Story:
    """An attempt, its story and its submissions."""
    with call.read() as work:
        row = service.find(work, call.caller, request.key)
        troubles = service.troubles(work, {row.cluster} if row.ended_at is None else ())
        told = store.told(work, request.key)
        handed = store.submissions(work, request.key)
    return api.Story(
        attempt=_attempt(row, troubles),
        story=tuple(api.Happening(at=each.at, status=each.status, text=each.text) for each in told),
        submissions=tuple(
            api.Handing(number=each.number, at=each.at, answer=each.answer, job_id=each.job_id, text=each.text)
            for each in handed
        ),
    )


@MODULE.bind(api.LOG)
def log(call: Call, request: api.ReadLog) -> api.LogPart:
    """Part of a step's log: asked of the engine that holds its cluster, or read in the bucket when it stands there."""
    with call.read() as work:
        row = service.find_step(work, call.caller, request.instance, request.step, request.index)
        address = store.address(work, row.cluster)
    ended = row.ended_at is not None
    if row.submitted_at is None:
        return api.LogPart(key=row.key, text="", next_offset=request.offset, ended=ended)
    part = _part(call, row, address, request)
    whole = part.data if ended or len(part.data) < 4 else _whole_characters(part.data)
    after = part.next_offset - len(part.data) + len(whole)
    return api.LogPart(key=row.key, text=whole.decode("utf-8", "replace"), next_offset=after, ended=ended)


def _part(call: Call, row: sa.Row[Any], address: str | None, request: api.ReadLog) -> Chunk:
    """As it stands at the cluster; once it was removed there, or nobody can ask, as it was delivered."""
    if not row.cleaned:
        engines = call.service(Engines)
        try:
            part = engines.tail(address, row.cluster, row.key, request.stream, request.offset, request.limit)
        except Unavailable:
            if row.ended_at is None:
                raise
        else:
            if part.data or row.ended_at is None:
                return part
    return _delivered(call.service(ObjectStore), row, request)


def _delivered(objects: ObjectStore, row: sa.Row[Any], request: api.ReadLog) -> Chunk:
    """Part of the stream among the results; empty where nothing was delivered, or its user deleted it."""
    where = spec_from_json(row.spec)
    bucket, key = where.output_bucket, f"{where.output_prefix.strip('/')}/{request.stream}.txt"
    data = b""
    with suppress(NotFound):
        if bucket and request.offset < objects.stat(row.organisation, bucket, key).size:
            length = request.limit
            data = b"".join(objects.get(row.organisation, bucket, key, offset=request.offset, length=length))
    return Chunk(data, request.offset + len(data))


def _whole_characters(data: bytes) -> bytes:
    """Without the beginning of a character at the end, which the next part brings whole."""
    for back in range(1, 4):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < length else data
        if byte < 0x80:
            break
    return data


@MODULE.bind(api.RESOLVE)
def resolve(call: Call, request: api.Resolve) -> Empty:
    """An operator's word, audited."""
    with call.write() as work:
        service.resolve(work, call.caller, request.key, request.outcome)
    return Empty()


def _attempt(row: sa.Row[Any], troubles: Mapping[str, str]) -> api.Attempt:
    held = service.reservation(row)
    reason = row.reason or ("" if row.ended_at else troubles.get(row.cluster, ""))
    return api.Attempt(
        key=row.key, instance=row.instance, step=row.step, index=row.position, ordinal=row.ordinal,
        retry_of=row.retry_of, cluster=row.cluster, queue=row.queue, status=row.status, reason=reason,
        job_id=row.job_id, created_at=row.created_at, submitted_at=row.submitted_at,
        started_at=row.started_at, ended_at=row.ended_at,
        exit_code=row.exit_code, elapsed=Seconds(row.elapsed_s), reserved=held.amount,
        cost=None if row.cost is None else Money(micros=row.cost, currency=row.currency), halted=bool(row.halted),
    )  # fmt: skip
