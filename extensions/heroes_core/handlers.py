"""Core's own operations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version

import sqlalchemy as sa
from pydantic import Field

from heroes.api import core as api
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import parse
from heroes_core.metrics import exposition
from heroes_core.module import Call, Module
from heroes_core.store import audit_record

MODULE = Module("core", api.OPERATIONS)


@MODULE.bind(api.HEALTH)
def health(_call: Call, _request: Empty) -> api.Health:
    """Answering is being well."""
    return api.Health(status="ok", version=version("heroes-hpc"))


@MODULE.bind(api.OPENAPI)
def openapi(_call: Call, _request: Empty) -> Iterator[bytes]:
    """The OpenAPI document."""
    yield _contract()


@MODULE.bind(api.REFERENCE)
def reference(_call: Call, _request: Empty) -> Iterator[bytes]:
    """A page that needs no internet."""
    yield _page()


@cache
def _contract() -> bytes:
    from heroes.openapi import document

    return json.dumps(document(), indent=1).encode()


@cache
def _page() -> bytes:
    from heroes.openapi import page

    return page().encode()


@MODULE.bind(api.METRICS)
def metrics(_call: Call, _request: Empty) -> Iterator[bytes]:
    """This process's metrics."""
    yield exposition()


@MODULE.bind(api.AUDIT)
def audit(call: Call, request: Page) -> api.AuditRecords:
    """The records before the cursor, newest first."""
    query = sa.select(audit_record).where(audit_record.c.organisation == call.caller.organisation)
    if request.after:
        query = query.where(audit_record.c.sequence < parse(_Cursor, {"after": request.after}).after)
    with call.read() as work:
        rows = work.execute(query.order_by(audit_record.c.sequence.desc()).limit(request.limit)).all()
    items = tuple(
        api.AuditRecord(
            sequence=row.sequence, at=row.at, actor=row.actor, action=row.action, subject=row.subject,
            detail=json.loads(row.detail),
        )
        for row in rows
    )  # fmt: skip
    return api.AuditRecords(items=items, next=str(rows[-1].sequence) if len(rows) == request.limit else None)


class _Cursor(Model):
    after: int = Field(ge=0)
