"""Binds the operations of `heroes.api.clusters`."""

from __future__ import annotations

from typing import Any

from heroes.api import clusters as api
from heroes.api.model import Empty, Page
from heroes_clusters import accounts, service, store
from heroes_clusters.keys import Vault
from heroes_clusters.model import Cluster, Maintenance, Place
from heroes_core.module import Call, Module
from heroes_core.work import Caller, Work
from heroes_spawners.transport import fingerprint

MODULE = Module("clusters", api.OPERATIONS)


@MODULE.bind(api.LIST)
def listed(call: Call, request: Page) -> api.Clusters:
    """List clusters."""
    with call.read() as work:
        found = [pair for pair in service.listed(work, call.caller) if pair[0].name > request.after]
    page = found[: request.limit]
    items = tuple(_cluster(call.caller, one, places) for one, places in page)
    return api.Clusters(items=items, next=page[-1][0].name if len(found) > len(page) else None)


@MODULE.bind(api.SHOW)
def show(call: Call, request: api.AskCluster) -> api.Cluster:
    """Show a cluster."""
    with call.read() as work:
        return _shown(work, call.caller, request.cluster_id)


@MODULE.bind(api.ENROL)
def enrol(call: Call, request: api.EnrolCluster) -> api.Cluster:
    """Enrol a cluster."""
    wanted = service.Enrolment(
        name=request.name, host=request.host, port=request.port, user=request.user,
        service_account=request.service_account, host_key=request.host_key, base=request.base,
        provider=request.provider or "", waits=request.waits,
        queues={name: _terms(terms) for name, terms in request.queues.items()},
    )  # fmt: skip
    with call.write() as work:
        service.enrol(work, call.caller, wanted)
        return _shown(work, call.caller, request.name)


@MODULE.bind(api.REMOVE)
def remove(call: Call, request: api.AskCluster) -> Empty:
    """Delete a cluster."""
    with call.write() as work:
        service.remove(work, call.caller, request.cluster_id)
    return Empty()


@MODULE.bind(api.CHANGE)
def change(call: Call, request: api.ChangeCluster) -> api.Cluster:
    """Disable, enable, drain, maintain."""
    window = request.maintenance
    with call.write() as work:
        service.change(
            work, call.caller, request.cluster_id, disabled=request.disabled, drained=request.drained,
            maintenance=Maintenance(window.begins, window.ends, window.reason) if window else None,
            end_maintenance=request.end_maintenance,
        )  # fmt: skip
        return _shown(work, call.caller, request.cluster_id)


@MODULE.bind(api.PROBE)
def probe(call: Call, request: api.AskCluster) -> api.Cluster:
    """Have a cluster probed again."""
    with call.write() as work:
        service.probe_again(work, call.caller, request.cluster_id)
        return _shown(work, call.caller, request.cluster_id)


@MODULE.bind(api.SET_QUEUE)
def set_queue(call: Call, request: api.SetQueue) -> api.Cluster:
    """Set terms of a queue."""
    with call.write() as work:
        service.set_queue(work, call.caller, request.cluster_id, request.queue, _terms(request))
        return _shown(work, call.caller, request.cluster_id)


@MODULE.bind(api.REMOVE_QUEUE)
def remove_queue(call: Call, request: api.AskQueue) -> api.Cluster:
    """Offer a queue no longer."""
    with call.write() as work:
        service.remove_queue(work, call.caller, request.cluster_id, request.queue)
        return _shown(work, call.caller, request.cluster_id)


@MODULE.bind(api.ACCOUNTS)
def list_accounts(call: Call, request: Page) -> api.ServiceAccounts:
    """List service accounts."""
    with call.read() as work:
        rows = accounts.listed(work, call.caller, request.after, request.limit + 1)
        items = tuple(_account(work, row) for row in rows[: request.limit])
    return api.ServiceAccounts(items=items, next=items[-1].name if len(rows) > request.limit else None)


@MODULE.bind(api.ADD_ACCOUNT)
def add_account(call: Call, request: api.AddServiceAccount) -> api.ServiceAccount:
    """Make a key pair."""
    with call.write() as work:
        made = accounts.add(work, call.caller, call.service(Vault), request.name, request.organisation or "")
        return _account(work, made)


@MODULE.bind(api.REMOVE_ACCOUNT)
def remove_account(call: Call, request: api.AskServiceAccount) -> Empty:
    """Delete a service account."""
    with call.write() as work:
        accounts.remove(work, call.caller, request.service_account)
    return Empty()


def _terms(terms: api.QueueTerms) -> dict[str, Any]:
    """What was given, values as they are."""
    return {name: getattr(terms, name) for name in api.QueueTerms.model_fields}


def _shown(work: Work, caller: Caller, name: str) -> api.Cluster:
    return _cluster(caller, *service.shown(work, caller, name))


def _cluster(caller: Caller, one: Cluster, places: list[Place]) -> api.Cluster:
    """How to reach a cluster is shown to those who manage it only."""
    window = one.maintenance
    reach: dict[str, Any] = {}
    if service.manages(caller, one):
        reach = {name: getattr(one, name) for name in ("host", "port", "user", "base", "host_key", "service_account")}
    return api.Cluster(
        name=one.name, kind=one.kind, organisation=one.organisation, provider=one.provider, status=one.status,
        reason=one.reason, disabled=one.disabled, drained=one.drained, unreachable_since=one.unreachable_since,
        maintenance=api.Maintenance(begins=window.begins, ends=window.ends, reason=window.reason) if window else None,
        queues=tuple(_queue(place) for place in places), capabilities=dict(one.capabilities), **reach,
    )  # fmt: skip


def _queue(place: Place) -> api.Queue:
    shown = set(api.Queue.model_fields) - {"closed"}
    return api.Queue(closed=place.closed, **{name: getattr(place.queue, name) for name in shown})


def _account(work: Work, row: Any) -> api.ServiceAccount:
    return api.ServiceAccount(
        name=row.name, organisation=row.organisation, public_key=row.public_key, created_at=row.created_at,
        fingerprint=fingerprint(row.public_key), clusters=store.clusters_using(work, row.name),
    )  # fmt: skip
