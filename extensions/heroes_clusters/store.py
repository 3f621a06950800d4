"""The tables of clusters, and every statement over them.

A removed cluster keeps its row, so that its name is never given again. Prices are added, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.units import PowerModel, PriceModel
from heroes_clusters.model import Cluster, Maintenance, Queue
from heroes_core.store import Instant, JSONText, metadata, name_column
from heroes_core.work import Work

cluster = sa.Table(
    "clusters_cluster",
    metadata,
    name_column("name", primary_key=True),
    name_column("key", unique=True),
    name_column("organisation", index=True),
    name_column("provider"),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("drained", sa.Boolean, nullable=False),
    sa.Column("maintenance_begins", Instant),
    sa.Column("maintenance_ends", Instant),
    sa.Column("maintenance_reason", sa.String(300), nullable=False),
    sa.Column("unreachable_since", Instant),
    sa.Column("link_mbps", sa.Float, nullable=False),
    sa.Column("host", sa.String(253), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("account", sa.String(64), nullable=False),
    sa.Column("base", sa.String(1000), nullable=False),
    sa.Column("host_key", sa.Text, nullable=False),
    name_column("service_account"),
    sa.Column("accounting_kind", sa.String(8), nullable=False),
    sa.Column("capabilities", JSONText, nullable=False),
    sa.Column("waits", JSONText, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("probe_at", Instant, index=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("removed_at", Instant),
)

queue = sa.Table(
    "clusters_queue",
    metadata,
    name_column("cluster", primary_key=True),
    name_column("name", primary_key=True),
    sa.Column("terms", JSONText, nullable=False),
    sa.Column("price_version", sa.Integer, nullable=False),
)

price = sa.Table(
    "clusters_price",
    metadata,
    name_column("cluster", primary_key=True),
    name_column("queue", primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", JSONText, nullable=False),
    sa.Column("set_at", Instant, nullable=False),
    sa.Column("set_by", sa.String(200), nullable=False),
)

service_account = sa.Table(
    "clusters_service_account",
    metadata,
    name_column("name", primary_key=True),
    name_column("organisation", index=True),
    sa.Column("public_key", sa.Text, nullable=False),
    #: Encrypted; empty once the account was removed.
    sa.Column("private_key", sa.Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("removed_at", Instant),
)

_SAME = ("name", "organisation", "provider", "kind", "status", "reason", "disabled", "drained", "unreachable_since",
         "link_mbps", "host", "port", "base", "host_key", "service_account", "accounting_kind", "capabilities", "waits",
         "revision")  # fmt: skip


def get_cluster(work: Work, name: str) -> Cluster | None:
    """The cluster of that name, unless it was removed."""
    asked = sa.select(cluster).where(cluster.c.name == name, cluster.c.removed_at.is_(None))
    row = work.execute(asked).one_or_none()
    return _cluster(row) if row else None


def name_taken(work: Work, name: str) -> bool:
    """Whether a cluster has or ever had that name, case apart."""
    asked = sa.select(cluster.c.name).where(cluster.c.key == name.casefold())
    return work.execute(asked).first() is not None


def all_clusters(work: Work) -> list[Cluster]:
    """Every cluster that was not removed, by name."""
    return [
        _cluster(row) for row in work.execute(sa.select(cluster).where(cluster.c.removed_at.is_(None)).order_by("name"))
    ]


def add_cluster(work: Work, new: Cluster, probe_at: datetime | None) -> None:
    """Keep a new cluster."""
    row = {**_row(new), "key": new.name.casefold(), "probe_at": probe_at, "created_at": work.now}
    work.execute(sa.insert(cluster).values(row))


def change_cluster(work: Work, changed: Cluster, **columns: Any) -> None:
    """Keep what a cluster is now; `columns` beside its own fields."""
    work.execute(sa.update(cluster).where(cluster.c.name == changed.name).values({**_row(changed), **columns}))


def set_health(work: Work, name: str, since: datetime | None) -> bool:
    """Note since when a cluster does not answer (None: it does); whether that is news. What was noted first stays."""
    differs = cluster.c.unreachable_since.is_not(None) if since is None else cluster.c.unreachable_since.is_(None)
    statement = sa.update(cluster).where(cluster.c.name == name, differs).values(unreachable_since=since)
    return work.execute(statement).rowcount == 1


def due_probes(work: Work) -> list[str]:
    """Clusters that wait for a probe whose time has come."""
    due = sa.select(cluster.c.name).where(
        cluster.c.probe_at <= work.now, cluster.c.removed_at.is_(None), cluster.c.disabled.is_(False)
    )
    return [row.name for row in work.execute(due.order_by(cluster.c.probe_at))]


def postpone_probe(work: Work, name: str, revision: int, at: datetime | None, reason: str) -> bool:
    """Set when to probe next, unless the cluster was changed meanwhile."""
    still = sa.and_(cluster.c.name == name, cluster.c.revision == revision)
    values: dict[str, Any] = {"probe_at": at, "reason": reason}
    return work.execute(sa.update(cluster).where(still).values(values)).rowcount == 1


def queues_of(work: Work, clusters: Iterable[str]) -> dict[str, list[Queue]]:
    """The queues of clusters, by name, each with its price of now."""
    names = sorted(set(clusters))
    joined = sa.select(queue, price.c.model).select_from(
        queue.outerjoin(
            price,
            sa.and_(
                price.c.cluster == queue.c.cluster,
                price.c.queue == queue.c.name,
                price.c.version == queue.c.price_version,
            ),
        )
    )
    found: dict[str, list[Queue]] = {name: [] for name in names}
    for row in work.execute(joined.where(queue.c.cluster.in_(names)).order_by(queue.c.name)):
        found[row.cluster].append(_queue(row))
    return found


def put_queue(work: Work, where: str, kept: Queue, actor: str) -> None:
    """Keep a queue; a price of a new version is added beside the older ones."""
    terms = {name: value for name, value in asdict(kept).items() if name not in ("name", "price", "power", "priced")}
    terms["power"] = kept.power.model_dump(mode="json")
    version = kept.price.version if kept.priced else 0
    row = {"terms": terms, "price_version": version}
    mine = sa.and_(queue.c.cluster == where, queue.c.name == kept.name)
    if work.execute(sa.update(queue).where(mine).values(row)).rowcount == 0:
        work.execute(sa.insert(queue).values(cluster=where, name=kept.name, **row))
    if kept.priced:
        _add_price(work, where, kept, actor)


def _add_price(work: Work, where: str, kept: Queue, actor: str) -> None:
    row = {"cluster": where, "queue": kept.name, "version": kept.price.version}
    there = sa.select(price.c.version).where(*(price.c[name] == value for name, value in row.items()))
    if work.execute(there).first() is None:
        model = kept.price.model_dump(mode="json")
        work.execute(sa.insert(price).values(**row, model=model, set_at=work.now, set_by=actor))


def highest_price_version(work: Work, where: str, name: str) -> int:
    """The number of the newest price that a queue of that name ever had; 0 for none."""
    asked = sa.select(sa.func.max(price.c.version)).where(price.c.cluster == where, price.c.queue == name)
    return work.execute(asked).scalar() or 0


def drop_queue(work: Work, where: str, name: str) -> bool:
    """Offer a queue no longer; whether there was one."""
    return work.execute(sa.delete(queue).where(queue.c.cluster == where, queue.c.name == name)).rowcount == 1


def get_account(work: Work, name: str) -> sa.Row[Any] | None:
    """A service account that was not removed."""
    mine = sa.and_(service_account.c.name == name, service_account.c.removed_at.is_(None))
    return work.execute(sa.select(service_account).where(mine)).one_or_none()


def account_name_taken(work: Work, name: str) -> bool:
    """Whether a service account has or had that name."""
    return work.execute(sa.select(service_account.c.name).where(service_account.c.name == name)).first() is not None


def accounts(work: Work, organisation: str | None, after: str, limit: int) -> list[sa.Row[Any]]:
    """Service accounts of an organisation (None: of all), by name."""
    asked = sa.select(service_account).where(service_account.c.removed_at.is_(None), service_account.c.name > after)
    if organisation is not None:
        asked = asked.where(service_account.c.organisation == organisation)
    return list(work.execute(asked.order_by(service_account.c.name).limit(limit)))


def add_account(work: Work, name: str, organisation: str, public_key: str, sealed: str) -> None:
    """Keep a new service account."""
    row = {"name": name, "organisation": organisation, "public_key": public_key, "private_key": sealed}
    work.execute(sa.insert(service_account).values(**row, created_at=work.now))


def remove_account(work: Work, name: str) -> None:
    """Remove a service account and destroy its private key."""
    gone = {"removed_at": work.now, "private_key": ""}
    work.execute(sa.update(service_account).where(service_account.c.name == name).values(gone))


def clusters_using(work: Work, account: str) -> tuple[str, ...]:
    """The clusters that a service account is used at."""
    asked = sa.select(cluster.c.name).where(cluster.c.service_account == account, cluster.c.removed_at.is_(None))
    return tuple(row.name for row in work.execute(asked.order_by(cluster.c.name)))


def _cluster(row: sa.Row[Any]) -> Cluster:
    values = {name: getattr(row, name) for name in _SAME}
    window = None
    if row.maintenance_begins is not None:
        window = Maintenance(row.maintenance_begins, row.maintenance_ends, row.maintenance_reason)
    return Cluster(**values, user=row.account, maintenance=window)


def _row(kept: Cluster) -> dict[str, Any]:
    window = kept.maintenance
    return {
        **{name: getattr(kept, name) for name in _SAME if name not in ("capabilities", "waits")},
        "capabilities": dict(kept.capabilities),
        "waits": dict(kept.waits),
        "account": kept.user,
        "maintenance_begins": window.begins if window else None,
        "maintenance_ends": window.ends if window else None,
        "maintenance_reason": window.reason if window else "",
    }


def _queue(row: sa.Row[Any]) -> Queue:
    terms: Mapping[str, Any] = row.terms
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in terms.items()}
    made = Queue(**{**plain, "name": row.name, "power": PowerModel.model_validate(terms["power"])})
    if row.model is None:
        return made
    return replace(made, price=PriceModel.model_validate(row.model), priced=True)
