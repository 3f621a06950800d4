"""Binds the marketplace's operations."""

from __future__ import annotations

from heroes.api import marketplace as api
from heroes.api.model import Empty
from heroes_clusters.ports import provide_agreements
from heroes_core.module import Call, Module
from heroes_marketplace import service

MODULE = Module("marketplace", api.OPERATIONS)
provide_agreements(service.agreements)


@MODULE.bind(api.AGREEMENTS)
def list_agreements(call: Call, _request: Empty) -> api.Agreements:
    """The agreements of the caller's organisation."""
    with call.read() as work:
        return service.listing(work, call.caller.organisation)
