"""Money, quantities, prices and power: exact, and each in its own unit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.model import Estimate, Model
from heroes.api.units import (
    CoreSeconds,
    Gibibytes,
    GpuSeconds,
    Grams,
    Joules,
    Money,
    NodeSeconds,
    PowerModel,
    PriceModel,
    Seconds,
    Usage,
    Watts,
)


class Bill(Model):
    """A value with both kinds of units."""

    cost: Money
    energy: Joules


def test_units_survive_json() -> None:
    """Money travels as micro-units and a currency, a quantity as a plain number."""
    bill = Bill(cost=Money.of("12.5"), energy=Joules(3))
    assert bill.model_dump_json() == '{"cost":{"micros":12500000,"currency":"EUR"},"energy":3.0}'
    assert Bill.model_validate_json(bill.model_dump_json()) == bill


def test_money_is_exact() -> None:
    """Six decimals are kept, a seventh is refused."""
    assert Money.of("0.000001").micros == 1
    with pytest.raises(ValueError, match="six decimals"):
        Money.of("0.0000001")


@pytest.mark.parametrize("amount", ["0", "0.006945", "1.010045", "12345.5", "-3", "0.000001"])
def test_money_is_told_exactly_where_it_is_to_be_typed_again(amount: str) -> None:
    """What `exact` says is read back as the same amount."""
    number, currency = Money.of(amount, "CHF").exact().split(" ")
    assert Money.of(number, currency) == Money.of(amount, "CHF")


def test_units_do_not_mix() -> None:
    """Joules and seconds, euros and dollars, neither add nor compare."""
    with pytest.raises(TypeError):
        Joules(1) + Seconds(1)  # type: ignore[operator]
    with pytest.raises(TypeError):
        _ = Joules(1) < Watts(1)  # type: ignore[operator]
    with pytest.raises(TypeError):
        Money.of(1) + Money.of(1, "USD")
    with pytest.raises(TypeError):
        _ = Money.of(1) < Money.of(1, "USD")
    assert Joules(1) != Seconds(1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Money.of("1234.5"), "1,234.50 EUR"),
        (Money.of("0.0123"), "0.0123 EUR"),
        (Money(micros=5), "0.000005 EUR"),
        (Joules(7.2e6), "2 kWh"),
        (Joules(1500), "1.5 kJ"),
        (Joules(12), "12 J"),
        (Grams(2500), "2.5 kgCO2e"),
        (Grams(4.3e-05), "0.043 mgCO2e"),
        (Estimate(point=41, q10=0.25, q50=40, q85=50, q95=3290, unit="J"), "41 J (0.25 to 3,290)"),
        (Seconds(90), "90 s"),
        (Seconds(600), "10 min"),
        (Seconds(36000), "10 h"),
    ],
)
def test_values_read_well(value: object, text: str) -> None:
    """A value is shown in the size that people read."""
    assert str(value) == text


USAGE = Usage(CoreSeconds(7200), NodeSeconds(900), GpuSeconds(1800), Gibibytes(2), Joules(3.6e6), 1)


def test_a_price_is_the_sum_of_its_lines() -> None:
    """Each line is its rate times what was used."""
    price = PriceModel(
        per_use=Decimal("0.10"), per_core_hour=Decimal("0.02"), per_node_hour=Decimal(1), per_gpu_hour=Decimal(2),
        per_gib_moved=Decimal("0.05"), per_kwh=Decimal("0.30"),
    )  # fmt: skip
    assert price.lines(USAGE, up=False) == {
        "use": 100_000,
        "core-hours": 40_000,
        "node-hours": 250_000,
        "gpu-hours": 1_000_000,
        "gib-moved": 100_000,
        "kwh": 300_000,
    }
    assert price.price(USAGE) == Money.of("1.79")
    assert price.price(USAGE, rate=Decimal(2), currency="USD") == Money.of("3.58", "USD")


@given(
    rate=st.decimals(min_value=0, max_value=1000, places=6),
    used=st.floats(0, 1e7),
    share=st.floats(0, 1),
)
def test_a_settlement_never_exceeds_its_reservation(rate: Decimal, used: float, share: float) -> None:
    """Reserving rounds up and settling half to even, so using a part of the worst case never costs more than it."""
    price = PriceModel(per_core_hour=rate, per_kwh=rate)
    worst = Usage(CoreSeconds(used), energy=Joules(used))
    actual = Usage(CoreSeconds(used * share), energy=Joules(used * share))
    assert price.price(actual) <= price.price(worst, up=True)


def test_power_grows_with_the_busy_share() -> None:
    """Half the cores busy is half of the busy node's power; a GPU adds its own."""
    power = PowerModel(idle=Watts(100), busy=Watts(300), per_gpu=Watts(250))
    assert power.node(1.0) == Watts(300)
    assert power.node(0.5) == Watts(150)
    assert power.node(0.5, gpus=2) == Watts(650)
