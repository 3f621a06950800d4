"""Use cases of clusters. Each takes the open unit of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from heroes.api.errors import Conflict, InvalidSpec, NotFound
from heroes_clusters import accounts, ports, store
from heroes_clusters.model import (
    EVERYBODY,
    PROBING,
    READY,
    REFUSED,
    SLURM,
    Cluster,
    Maintenance,
    Place,
    Queue,
    closed,
    connectable,
    from_partition,
    visible,
    with_terms,
)
from heroes_core.work import Caller, Work
from heroes_identity import service as identity
from heroes_spawners.slurm.options import site_options

__all__ = ["Cluster", "Place", "Queue", "place", "usable_queues"]


# what other modules ask


def usable_queues(work: Work, organisation: str) -> list[Place]:
    """The queues that an organisation may use, by cluster and name; `closed` tells why nothing starts on one now."""
    agreed = _agreed(work, organisation)
    clusters = store.all_clusters(work)
    queues = store.queues_of(work, [one.name for one in clusters])
    return [
        Place(one, queue, closed(one, queue, work.now))
        for one in clusters
        for queue in queues[one.name]
        if visible(one, queue, organisation) and _may(agreed, one.name, queue.name)
    ]


def place(work: Work, organisation: str, cluster: str, queue: str) -> Place:
    """One queue as an organisation sees it; `NotFound` where it may not use it."""
    for found in usable_queues(work, organisation):
        if (found.cluster.name, found.queue.name) == (cluster, queue):
            return found
    hint = "List what you may use: heroes cluster list."
    raise NotFound(f"There is no queue {cluster}/{queue} that {organisation} may use.", hint=hint)


def get(work: Work, name: str) -> Cluster:
    """A cluster, whoever may use it; `NotFound`."""
    found = store.get_cluster(work, name)
    if found is None:
        raise NotFound(f"There is no cluster {name}.", hint="List them: heroes cluster list.")
    return found


def exists(work: Work, name: str) -> bool:
    """Whether there is such a cluster, not deleted."""
    return store.get_cluster(work, name) is not None


def queues(work: Work, name: str) -> dict[str, Queue]:
    """The queues of a cluster by name."""
    return {queue.name: queue for queue in store.queues_of(work, [name])[name]}


def served(work: Work) -> list[Cluster]:
    """The clusters that the engine asks."""
    return [one for one in store.all_clusters(work) if connectable(one)]


def reached(work: Work, name: str, unreachable_since: datetime | None, trouble: str = "") -> None:
    """Note whether a cluster answers; the first time of silence stays until it answers again. News when it changes."""
    if store.set_health(work, name, unreachable_since):
        one = get(work, name)
        state = "reachable" if unreachable_since is None else "unreachable"
        work.emit(f"cluster.{state}", one.organisation, name, trouble=trouble[:300])


def _agreed(work: Work, organisation: str) -> frozenset[tuple[str, str]] | None:
    agreements = ports.agreements(work, organisation)
    if agreements is None:
        return None
    return frozenset((one.cluster, one.queue) for one in agreements)


def _may(agreed: frozenset[tuple[str, str]] | None, cluster: str, queue: str) -> bool:
    return agreed is None or bool({(cluster, queue), (cluster, EVERYBODY)} & agreed)


# what administrators do


@dataclass(frozen=True)
class Enrolment:
    """A cluster to enrol; empty `host_key` and `base` are found by the probe."""

    name: str
    host: str
    port: int
    user: str
    service_account: str
    host_key: str = ""
    base: str = ""
    provider: str = ""
    queues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waits: Mapping[str, float] = field(default_factory=dict)


def listed(work: Work, caller: Caller) -> list[tuple[Cluster, list[Place]]]:
    """The clusters that the caller manages, with all queues, and those that the organisation may use, with these."""
    usable: dict[str, list[Place]] = {}
    for found in usable_queues(work, caller.organisation):
        usable.setdefault(found.cluster.name, []).append(found)
    shown = []
    for one in store.all_clusters(work):
        if manages(caller, one):
            every = store.queues_of(work, [one.name])[one.name]
            shown.append((one, [Place(one, queue, closed(one, queue, work.now)) for queue in every]))
        elif one.name in usable:
            shown.append((one, usable[one.name]))
    return shown


def shown(work: Work, caller: Caller, name: str) -> tuple[Cluster, list[Place]]:
    """One of `listed`; `NotFound`."""
    for one, places in listed(work, caller):
        if one.name == name:
            return one, places
    raise NotFound(f"There is no cluster {name} that you may use.", hint="List them: heroes cluster list.")


def manages(caller: Caller, one: Cluster) -> bool:
    """Whether the caller may change a cluster: its own organisation's, or any for the platform's administrators."""
    own = caller.organisation in (one.organisation, one.provider)
    return accounts.PLATFORM in caller.rights or ("clusters:manage" in caller.rights and own)


def managed(work: Work, caller: Caller, name: str) -> Cluster:
    """A cluster that the caller may change; to others it does not exist."""
    one = store.get_cluster(work, name)
    if one is None or not manages(caller, one):
        raise NotFound(f"There is no cluster {name} that you manage.", hint="List them: heroes cluster list.")
    return one


def enrol(work: Work, caller: Caller, wanted: Enrolment) -> Cluster:
    """Keep a new cluster, to be probed by the engine. It serves the organisation that its service account serves."""
    account = accounts.owned(work, caller, wanted.service_account)
    if store.name_taken(work, wanted.name):
        raise Conflict(f"The name {wanted.name} was given to a cluster before.", hint="Choose another name.")
    provider = wanted.provider or caller.organisation
    identity.organisation(work, provider)
    new = Cluster(
        name=wanted.name, organisation=account.organisation, kind=SLURM, provider=provider, status=PROBING,
        host=wanted.host, port=wanted.port, user=wanted.user, base=wanted.base, host_key=wanted.host_key,
        service_account=wanted.service_account, waits=dict(wanted.waits),
    )  # fmt: skip
    store.add_cluster(work, new, work.now)
    for name, terms in wanted.queues.items():
        _put_queue(work, new, with_terms(Queue(name, partition=name), _checked(new, terms)), caller.actor)
    work.audit(new.organisation, caller.actor, "cluster.enrol", new.name, host=wanted.host, account=account.name)
    work.emit("cluster.enrolled", new.organisation, new.name)
    return new


def remove(work: Work, caller: Caller, name: str) -> None:
    """Delete a cluster; it must be drained or disabled first, and its jobs have ended: nobody could follow them."""
    one = managed(work, caller, name)
    if not (one.disabled or one.drained or one.status != READY):
        hint = f"Drain it first (heroes cluster change {name} --drained), and delete it when its jobs are done."
        raise Conflict(f"The cluster {name} takes jobs.", hint=hint)
    if ports.occupied(work, name):
        hint = "Wait until they have ended, or cancel their runs."
        raise Conflict(f"The cluster {name} has jobs that have not ended.", hint=hint)
    store.change_cluster(work, replace(one, disabled=True), removed_at=work.now, probe_at=None)
    work.audit(one.organisation, caller.actor, "cluster.remove", name)
    work.emit("cluster.removed", one.organisation, name)


def change(
    work: Work, caller: Caller, name: str, *, disabled: bool | None = None, drained: bool | None = None,
    maintenance: Maintenance | None = None, end_maintenance: bool = False,
) -> Cluster:  # fmt: skip
    """Disable, enable, drain, or set the maintenance window."""
    one = managed(work, caller, name)
    if maintenance is not None and maintenance.ends <= work.now:
        raise InvalidSpec(
            f"the maintenance window ended at {maintenance.ends:%Y-%m-%d %H:%M} UTC", hint="Give a later one."
        )
    changed = replace(
        one,
        disabled=one.disabled if disabled is None else disabled,
        drained=one.drained if drained is None else drained,
        maintenance=None if end_maintenance else maintenance or one.maintenance,
    )
    if changed != one:
        store.change_cluster(work, changed)
        told = {
            "disabled": changed.disabled,
            "drained": changed.drained,
            "maintenance": changed.maintenance is not None,
        }
        work.audit(one.organisation, caller.actor, "cluster.change", name, **told)
        work.emit("cluster.changed", one.organisation, name)
    return changed


def probe_again(work: Work, caller: Caller, name: str) -> Cluster:
    """Have the engine probe a cluster again; one that was ready stays usable meanwhile."""
    one = managed(work, caller, name)
    if one.kind != SLURM:
        raise Conflict(f"{name} is the machine itself and is probed at each start.", hint="Restart the platform.")
    asked = replace(one, status=READY if one.status == READY else PROBING, reason="")
    store.change_cluster(work, asked, probe_at=work.now)
    work.audit(one.organisation, caller.actor, "cluster.probe", name)
    work.emit("cluster.enrolled", one.organisation, name)
    return asked


def set_queue(work: Work, caller: Caller, name: str, queue: str, terms: Mapping[str, Any]) -> Cluster:
    """Set terms of a queue, which is made when there is none."""
    one = managed(work, caller, name)
    before = queues(work, name).get(queue) or _discovered(one, queue, terms)
    _put_queue(work, one, with_terms(before, _checked(one, terms)), caller.actor)
    set_terms = sorted(term for term, value in terms.items() if value is not None)
    work.audit(one.organisation, caller.actor, "cluster.queue.set", f"{name}/{queue}", terms=set_terms)
    work.emit("cluster.changed", one.organisation, name)
    return one


def _discovered(one: Cluster, queue: str, terms: Mapping[str, Any]) -> Queue:
    """A new queue, as the probe saw its partition."""
    partition = terms.get("partition") or queue
    found = dict(one.capabilities.get("partitions") or {})
    if one.status == READY and found and partition not in found:
        hint = f"It has {', '.join(sorted(found))}; probe it again if that has changed."
        raise InvalidSpec(f"{one.name} has no partition {partition}", hint=hint)
    return replace(from_partition(queue, found.get(partition) or {}, one.capabilities), partition=partition)


def _checked(one: Cluster, terms: Mapping[str, Any]) -> Mapping[str, Any]:
    """Terms that this cluster can keep."""
    site_options(terms.get("options") or ())
    others = set(terms.get("visible_to") or ()) - {one.organisation}
    if one.kind == SLURM and others:
        hint = (
            f"Make a service account for {', '.join(sorted(others))} and enrol the cluster with it under another name."
        )
        raise InvalidSpec(
            f"one account at a centre serves one organisation, and this one serves {one.organisation}", hint=hint
        )
    return terms


def _put_queue(work: Work, one: Cluster, queue: Queue, actor: str) -> None:
    """Keep a queue; a queue that is offered again goes on counting its prices."""
    known = queues(work, one.name).get(queue.name)
    if queue.priced and (known is None or not known.priced):
        version = store.highest_price_version(work, one.name, queue.name) + 1
        queue = replace(queue, price=queue.price.model_copy(update={"version": version}))
    store.put_queue(work, one.name, queue, actor)


def remove_queue(work: Work, caller: Caller, name: str, queue: str) -> Cluster:
    """Offer a queue no longer; what runs there goes on."""
    one = managed(work, caller, name)
    if not store.drop_queue(work, name, queue):
        raise NotFound(f"{name} has no queue {queue}.", hint=f"Show them: heroes cluster show {name}.")
    work.audit(one.organisation, caller.actor, "cluster.queue.remove", f"{name}/{queue}")
    work.emit("cluster.changed", one.organisation, name)
    return one


# what configuration and the engine do


def configure(work: Work, wanted: Cluster, offered: Sequence[Queue]) -> None:
    """Make a cluster that the settings describe what they say, at each start: the machine itself, or a centre that the
    demo brings up. What administrators switched (disabled, drained, maintenance) stays."""
    before = store.get_cluster(work, wanted.name)
    if before is None and store.name_taken(work, wanted.name):
        raise Conflict(f"The name {wanted.name} was given to a cluster before.", hint="Choose another in the settings.")
    if before is None:
        store.add_cluster(work, wanted, work.now if wanted.status == PROBING else None)
    else:
        kept = replace(wanted, disabled=before.disabled, drained=before.drained, maintenance=before.maintenance)
        store.change_cluster(work, replace(kept, revision=before.revision + 1))
    for queue in offered:
        known = queues(work, wanted.name).get(queue.name)
        new = replace(queue, price=known.price, priced=True) if known and known.priced else replace(queue, priced=False)
        _put_queue(work, wanted, with_terms(new, {"price": queue.price}), "settings")
    for gone in set(queues(work, wanted.name)) - {queue.name for queue in offered}:
        store.drop_queue(work, wanted.name, gone)


def probed(work: Work, before: Cluster, found: Mapping[str, Any], **reach: Any) -> Cluster:
    """Keep what a probe found; partitions without a queue get one, without a price. `reach`: host key and base that
    the probe found, kind of accounting."""
    ready = replace(before, status=READY, reason="", capabilities=dict(found), revision=before.revision + 1, **reach)
    if not store.postpone_probe(work, before.name, before.revision, None, ""):
        raise Conflict(f"{before.name} was changed while it was probed.", hint="It is probed again.")
    store.change_cluster(work, ready, probe_at=None, unreachable_since=None)
    known = queues(work, before.name)
    for name, partition in dict(found.get("partitions") or {}).items():
        seen = from_partition(name, partition, found)
        mine = [queue for queue in known.values() if queue.partition == name]
        for queue in mine or [seen]:
            store.put_queue(work, before.name, _completed(queue, seen), "probe")
    work.audit(before.organisation, "engine", "cluster.ready", before.name)
    work.emit("cluster.ready", before.organisation, before.name)
    return ready


def _completed(queue: Queue, seen: Queue) -> Queue:
    """A queue whose figures of default value are taken from its partition; what an administrator set stays."""
    plain = Queue(queue.name, partition=queue.partition)
    figures = ("max_walltime_s", "nodes", "cpus_per_node", "memory_mib_per_node", "gpus_per_node", "exclusive",
               "over_time_limit_s", "kill_wait_s", "boot_s")  # fmt: skip
    unset = {name: getattr(seen, name) for name in figures if getattr(queue, name) == getattr(plain, name)}
    return replace(queue, **unset)


def refused(work: Work, before: Cluster, reason: str) -> None:
    """Keep why a cluster cannot be used."""
    if store.postpone_probe(work, before.name, before.revision, None, reason):
        store.change_cluster(work, replace(before, status=REFUSED, reason=reason), probe_at=None)
        work.audit(before.organisation, "engine", "cluster.refused", before.name, reason=reason)
        work.emit("cluster.refused", before.organisation, before.name, reason=reason)
