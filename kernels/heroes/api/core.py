"""Operations of the platform itself: health, the contract, metrics, audit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from heroes.api.errors import NotAllowed
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import ANYBODY, Operation


class Health(Model):
    """That the API answers, and its version."""

    status: str
    version: str


class AuditRecord(Model):
    """One change: who did what to whom."""

    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class AuditRecords(Model):
    """A page of an organisation's audit chain, newest first."""

    items: tuple[AuditRecord, ...]
    next: str | None = None


HEALTH = Operation(
    name="platform.health", method="GET", path="/health", request=Empty, response=Health, right=ANYBODY,
    summary="Whether the API answers, and its version.",
)  # fmt: skip
OPENAPI = Operation(
    name="platform.openapi", method="GET", path="/openapi.json", request=Empty, response=Empty, right=ANYBODY,
    summary="The contract as an OpenAPI document.", download=True,
)  # fmt: skip
REFERENCE = Operation(
    name="platform.reference", method="GET", path="/reference", request=Empty, response=Empty, right=ANYBODY,
    summary="The contract as a page to read.", download=True,
)  # fmt: skip
METRICS = Operation(
    name="platform.metrics", method="GET", path="/metrics", request=Empty, response=Empty, right="platform:operate",
    summary="Metrics of the API in Prometheus's text format.", download=True, errors=(NotAllowed,),
)  # fmt: skip
AUDIT = Operation(
    name="platform.audit", method="GET", path="/organization/admin/audit", request=Page, response=AuditRecords,
    right="users:manage", summary="The organisation's audit chain, newest first.", errors=(NotAllowed,),
    verb="audit list",
)  # fmt: skip

OPERATIONS = (HEALTH, OPENAPI, REFERENCE, METRICS, AUDIT)
