"""Figures are kept under a key and shown to whom they concern."""

from __future__ import annotations

import pytest

from heroes.api.errors import NotFound
from heroes.api.ids import new_ulid
from heroes.api.telemetry import AskFigures
from heroes.api.units import Joules, Watts
from heroes_core.module import Call, Services
from heroes_core.work import Caller, Database
from heroes_telemetry import handlers, service
from heroes_telemetry.model import Bounds, EnergyFigure
from tests.unit.telemetry.test_model import GOOD

ADA = Caller(organisation="acme", user="ada", rights=frozenset({"submit"}))


def test_a_report_becomes_a_figure(database: Database) -> None:
    """A stored report is found again by its key, with its metrics."""
    key = new_ulid()
    with database.write() as work:
        service.store_report(work, key, GOOD, organisation="acme", user="ada")
    with database.read() as work:
        assert service.energy(work, key) == EnergyFigure(Joules(1000), "model:cpu-time", 0.25)
        found = service.figures(work, ADA, AskFigures(key=key))
    assert found.energy is not None
    assert str(found.energy) == "1 kJ ±25 % (model:cpu-time)"
    assert [(each.name, each.value, each.unit) for each in found.items] == [
        ("cpu_time", 8.0, "s"),
        ("elapsed", 5.0, "s"),
        ("max_rss", 4.0, "MiB"),
    ]


def test_a_report_may_come_again(database: Database) -> None:
    """The same key again replaces what stood there, as a correction does."""
    key = new_ulid()
    with database.write() as work:
        service.store_report(work, key, GOOD)
        service.store_report(work, key, {**GOOD, "energy_j": 5.0})
        service.store_figure(work, key, EnergyFigure(Joules(7), "scheduler", 0.05))
        assert service.energy(work, key) == EnergyFigure(Joules(7), "scheduler", 0.05)


def test_a_forged_report_is_told(database: Database) -> None:
    """A forged report is no figure, and the note says so."""
    key = new_ulid()
    with database.write() as work:
        told = service.store_report(work, key, {"format": "mine"}, organisation="acme", user="ada")
        assert told is None
        found = service.figures(work, ADA, AskFigures(key=key))
    assert found.energy is None
    assert "not an energy report" in found.note


def test_a_report_beyond_its_bounds_is_cut(database: Database) -> None:
    """Bounds given by the caller hold for what is stored."""
    key = new_ulid()
    with database.write() as work:
        service.store_report(work, key, {**GOOD, "energy_j": 1e12}, bounds=Bounds(Watts(100), 1, 9.0))
        figure = service.energy(work, key)
    assert figure is not None
    assert figure.joules == Joules(1000)


def test_many_at_once(database: Database) -> None:
    """Figures of many jobs come in one question, those unknown left out."""
    keys = [new_ulid() for _ in range(3)]
    with database.write() as work:
        for key in keys[:2]:
            service.store_report(work, key, GOOD)
        assert set(service.energies(work, keys)) == set(keys[:2])


def test_metrics_by_themselves(database: Database) -> None:
    """Metrics may be kept without a report, and shown once there is a figure."""
    key = new_ulid()
    with database.write() as work:
        service.store_metrics(work, key, {"io": (3.0, "MiB/s")}, organisation="acme")
        service.store_figure(work, key, EnergyFigure(Joules(7), "meter", 0.05), organisation="acme", user="ada")
        found = service.figures(work, ADA, AskFigures(key=key))
    assert found.items[0].name == "io"


@pytest.mark.parametrize(
    ("caller", "sees"),
    [
        (ADA, True),
        (Caller("acme", "bob", frozenset({"submit"})), False),
        (Caller("acme", "bill", frozenset({"billing"})), True),
        (Caller("other", "ada", frozenset({"submit", "billing"})), False),
    ],
)
def test_who_sees_figures(database: Database, caller: Caller, sees: bool) -> None:
    """A job's user and the organisation's administrators see its figures; nobody of another organisation does."""
    key = new_ulid()
    with database.write() as work:
        service.store_report(work, key, GOOD, organisation="acme", user="ada")
    call = Call(caller, database, Services())
    if sees:
        assert handlers.figures(call, AskFigures(key=key)).key == key
    else:
        with pytest.raises(NotFound):
            handlers.figures(call, AskFigures(key=key))
