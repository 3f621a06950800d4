"""Agreements: which organisation may use which queues, on what terms."""

from __future__ import annotations

from datetime import datetime

from heroes.api.model import Empty, Model
from heroes.api.registry import SIGNED_IN, Operation


class Agreement(Model):
    """An organisation may use a queue ("*": every queue) of a cluster, on the provider's terms as they were then."""

    organisation: str
    cluster: str
    queue: str
    terms: str
    since: datetime


class Agreements(Model):
    """Every agreement of the caller's organisation."""

    items: tuple[Agreement, ...]


AGREEMENTS = Operation(
    name="marketplace.agreements", method="GET", path="/organization/marketplace/agreements", request=Empty,
    response=Agreements, right=SIGNED_IN, summary="Where the organisation may run, and on what terms.",
    verb="cluster agreements",
)  # fmt: skip

OPERATIONS = (AGREEMENTS,)
