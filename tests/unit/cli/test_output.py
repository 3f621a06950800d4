"""Answers as tables for people: what people look for first, and everything that is beside the list."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from heroes.api.budget import Statement, StatementLine
from heroes.api.clusters import Queue
from heroes.api.errors import HeroesError, NotFound
from heroes.api.units import Money, PowerModel, PriceModel, Watts
from heroes.cli.output import show, table

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def queue(closed: str = "") -> Queue:
    """A queue with a price."""
    return Queue(
        name="cpu", partition="cpu", price=PriceModel(per_core_hour=Decimal("0.012")), power=PowerModel(), pue=1.2,
        grid_zone="ES", carbon_g_per_kwh=160, max_walltime_s=3600, nodes=4, cpus_per_node=8, memory_mib_per_node=1,
        gpus_per_node=0, exclusive=False, max_jobs=0, max_cores=0, speed=1, visible_to=(), closed=closed,
    )  # fmt: skip


def heads(shown: Queue) -> list[str]:
    """The columns of a table with that item."""
    return [str(column.header) for column in table([shown]).columns]


def test_a_queue_shows_its_price_and_why_it_is_closed() -> None:
    """Price and power come first, and the reason where there is one."""
    assert heads(queue())[:3] == ["name", "price", "power"]
    assert "closed" not in heads(queue())
    assert heads(queue("in maintenance"))[-1] == "closed"


def test_what_is_beside_a_list_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The sum of a statement stands below its lines."""
    line = StatementLine(
        name="emma", jobs=2, charged=Money.of("1.50"), pending=Money.zero(), overrun=Money.zero()
    )  # fmt: skip
    show(
        Statement(organization="acme", by="user", since=WHEN, until=WHEN, items=(line,), total=line),
        "table",
    )  # fmt: skip
    told = capsys.readouterr().out
    assert told.count("1.50 EUR") == 2
    assert "acme" in told


def test_prices_read_as_people_write_them() -> None:
    """Each rate that is not zero, with its unit; nothing at all is free."""
    price = PriceModel(per_use=Decimal("0.01"), per_core_hour=Decimal("0.50"), currency="CHF")
    assert str(price) == "0.01 CHF/use + 0.50 CHF/core-hour"
    assert str(PriceModel()) == "free"


def test_power_reads_with_its_source() -> None:
    """Idle to busy, GPUs where there are some, and where the figures come from."""
    assert str(PowerModel(idle=Watts(80), busy=Watts(240), source="meter")) == "80 to 240 W (meter)"
    assert str(PowerModel(idle=Watts(80), busy=Watts(240), per_gpu=Watts(300))) == "80 to 240 W, 300 W a GPU (assumed)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFound("there is none", hint="Make one."), "there is none. Make one."),
        (NotFound("There is none.", hint="Make one."), "There is none. Make one."),
        (NotFound("there is none"), "there is none"),
    ],
)
def test_message_and_hint_are_two_sentences(error: HeroesError, told: str) -> None:
    """A full stop stands between them, and only there."""
    assert str(error) == told
