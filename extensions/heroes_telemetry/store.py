"""Tables of telemetry: one energy figure and any number of metrics for each opaque key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.units import Joules
from heroes_core.store import Instant, metadata, name_column
from heroes_core.work import Work
from heroes_telemetry.model import EnergyFigure

energy = sa.Table(
    "telemetry_energy",
    metadata,
    name_column("key", primary_key=True),
    name_column("organisation"),
    name_column("user"),
    sa.Column("joules", sa.Double),
    sa.Column("method", sa.String(100), nullable=False),
    sa.Column("uncertainty", sa.Double, nullable=False),
    sa.Column("note", sa.String(1000), nullable=False),
    sa.Column("at", Instant, nullable=False),
)

metric = sa.Table(
    "telemetry_metric",
    metadata,
    name_column("key", primary_key=True),
    name_column("name", primary_key=True),
    name_column("organisation"),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("unit", sa.String(20), nullable=False),
)


def put_energy(work: Work, key: str, organisation: str, user: str, figure: EnergyFigure | None, note: str) -> None:
    """Keep a figure, or that there is none and why; what stood before is replaced."""
    values = {
        "organisation": organisation,
        "user": user,
        "joules": figure.joules.value if figure else None,
        "method": figure.method[:100] if figure else "none",
        "uncertainty": figure.uncertainty if figure else 0.0,
        "note": note[:1000],
        "at": work.now,
    }
    _put(work, energy, {"key": key}, values)


def put_metrics(work: Work, key: str, organisation: str, metrics: Mapping[str, tuple[float, str]]) -> None:
    """Keep metrics {name: (value, unit)}; one that stood before is replaced."""
    for name, (value, unit) in metrics.items():
        _put(work, metric, {"key": key, "name": name}, {"organisation": organisation, "value": value, "unit": unit})


def figures(work: Work, keys: Iterable[str]) -> dict[str, EnergyFigure]:
    """The energy figures of those keys that have one."""
    columns = (energy.c.key, energy.c.joules, energy.c.method, energy.c.uncertainty)
    query = sa.select(*columns).where(energy.c.key.in_(list(keys)), energy.c.joules.is_not(None))
    rows = work.execute(query)
    return {row.key: EnergyFigure(Joules(row.joules), row.method, row.uncertainty) for row in rows}


def find(work: Work, organisation: str, key: str) -> tuple[str, str, datetime] | None:
    """User, note and time of an organisation's key."""
    query = sa.select(energy.c.user, energy.c.note, energy.c.at)
    row = work.execute(query.where(energy.c.organisation == organisation, energy.c.key == key)).one_or_none()
    return None if row is None else (row.user, row.note, row.at)


def metrics(work: Work, key: str) -> dict[str, tuple[float, str]]:
    """The metrics of a key, by name."""
    query = sa.select(metric.c.name, metric.c.value, metric.c.unit).where(metric.c.key == key).order_by(metric.c.name)
    return {row.name: (row.value, row.unit) for row in work.execute(query)}


def _put(work: Work, table: sa.Table, key: Mapping[str, str], values: Mapping[str, Any]) -> None:
    same = sa.and_(*(table.c[name] == value for name, value in key.items()))
    if work.execute(sa.update(table).where(same).values(values)).rowcount == 0:
        work.execute(sa.insert(table).values({**key, **values}))
