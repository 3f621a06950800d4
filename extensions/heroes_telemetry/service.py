"""Use cases of telemetry. Facts are written from above, under a key that means nothing here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from heroes.api import telemetry as api
from heroes.api.errors import NotFound
from heroes_core.work import Caller, Work
from heroes_telemetry import store
from heroes_telemetry.model import Bounds, EnergyFigure, read

#: Who sees the figures of other users' jobs.
_SEES_ALL = frozenset({"billing", "workflows:manage", "users:manage"})


def store_report(
    work: Work,
    key: str,
    report: Mapping[str, Any],
    *,
    organisation: str = "",
    user: str = "",
    bounds: Bounds | None = None,
) -> EnergyFigure | None:
    """Judge a job's energy report and keep what it comes to; never raises for what the report holds.

    A report beyond `bounds` is cut to them and noted. The figure, None where the report has none to give."""
    reading = read(report, bounds)
    store.put_energy(work, key, organisation, user, reading.energy, reading.note)
    store.put_metrics(work, key, organisation, reading.metrics)
    return reading.energy


def store_figure(work: Work, key: str, figure: EnergyFigure, *, organisation: str = "", user: str = "") -> None:
    """Keep an energy figure found otherwise than by a report: the scheduler's meter, a model of the queue."""
    store.put_energy(work, key, organisation, user, figure, "")


def store_metrics(work: Work, key: str, metrics: Mapping[str, tuple[float, str]], *, organisation: str = "") -> None:
    """Keep metrics {name: (value, unit)} of a job."""
    store.put_metrics(work, key, organisation, metrics)


def energy(work: Work, key: str) -> EnergyFigure | None:
    """The energy of a job, None where it is not known."""
    return store.figures(work, [key]).get(key)


def energies(work: Work, keys: Iterable[str]) -> dict[str, EnergyFigure]:
    """The energy of many jobs in one question; those not known are absent."""
    return store.figures(work, keys)


def figures(work: Work, caller: Caller, request: api.AskFigures) -> api.Figures:
    """What a job used: for its user, and for those of the organisation who look after runs, bills or users."""
    found = store.find(work, caller.organisation, request.key)
    if found is None or not (found[0] == caller.user or caller.rights & _SEES_ALL):
        raise NotFound(
            f"No figures of a job {request.key} are known.",
            hint="They are there once a job of yours has ended; `heroes run show` lists its jobs.",
        )
    _user, note, at = found
    figure = energy(work, request.key)
    told = api.Energy(joules=figure.joules, method=figure.method, uncertainty=figure.uncertainty) if figure else None
    metrics = store.metrics(work, request.key)
    items = tuple(api.Figure(name=name, value=value, unit=unit) for name, (value, unit) in metrics.items())
    return api.Figures(key=request.key, energy=told, note=note, at=at, items=items)
