"""Values that carry their unit: money, energy, carbon, time on resources; price and power models over them.

Money is an integer of micro-units of a currency. Physical quantities are floats of one fixed unit, each its own class,
so that joules are never added to seconds. In JSON a quantity is a plain number (its field's schema names the unit) and
money is `{"micros": 1500000, "currency": "EUR"}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from functools import total_ordering
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import core_schema

MICRO = 1_000_000


@total_ordering
class Quantity:
    """A number of one fixed `unit`. Adds and compares with its own class only; scales by plain numbers."""

    unit: ClassVar[str] = ""
    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __add__(self, other: Self) -> Self:
        return type(self)(self.value + self._same(other))

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.value - self._same(other))

    def __mul__(self, factor: float) -> Self:
        return type(self)(self.value * factor)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __lt__(self, other: Self) -> bool:
        return self.value < self._same(other)

    def __hash__(self) -> int:
        return hash((type(self), self.value))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:g})"

    def __str__(self) -> str:
        return f"{self.value:,.3g} {self.unit}"

    def _same(self, other: object) -> float:
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} and {type(other).__name__} do not mix")
        return other.value

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        number = core_schema.no_info_after_validator_function(
            cls, core_schema.float_schema(allow_inf_nan=False), serialization=None
        )
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), number],
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda quantity: quantity.value, return_schema=core_schema.float_schema()
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "number", "description": cls.unit}


class Joules(Quantity):
    """Energy."""

    unit = "J"

    def __str__(self) -> str:
        if self.value >= 3.6e6:
            return f"{self.value / 3.6e6:,.3g} kWh"
        return f"{self.value / 1e3:,.3g} kJ" if self.value >= 1e3 else f"{self.value:,.3g} J"


class Watts(Quantity):
    """Power."""

    unit = "W"


class Grams(Quantity):
    """Mass of CO2-equivalent."""

    unit = "gCO2e"

    def __str__(self) -> str:
        if 0 < self.value < 1e-4:
            return f"{self.value * 1e3:,.3g} mgCO2e"
        return f"{self.value / 1e3:,.3g} kgCO2e" if self.value >= 1e3 else f"{self.value:,.3g} gCO2e"


class Seconds(Quantity):
    """Elapsed time."""

    unit = "s"

    def __str__(self) -> str:
        if self.value < 120:
            return f"{self.value:.3g} s"
        return f"{self.value / 60:.3g} min" if self.value < 7200 else f"{self.value / 3600:.3g} h"


class CoreSeconds(Quantity):
    """Cores allocated, times elapsed seconds."""

    unit = "core-s"


class NodeSeconds(Quantity):
    """Nodes allocated, times elapsed seconds."""

    unit = "node-s"


class GpuSeconds(Quantity):
    """GPUs allocated, times elapsed seconds."""

    unit = "GPU-s"


class Gibibytes(Quantity):
    """2**30 bytes."""

    unit = "GiB"


@total_ordering
class Money(BaseModel):
    """An amount: an integer of micro-units of `currency`. Amounts of two currencies neither add nor compare."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    micros: int
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")

    @classmethod
    def of(cls, amount: str | int | Decimal, currency: str = "EUR") -> Money:
        """`Money.of("12.50")`: exact; more than six decimals is a ValueError."""
        micros = Decimal(amount) * MICRO
        if micros != int(micros):
            raise ValueError(f"{amount} {currency} has more than six decimals")
        return cls(micros=int(micros), currency=currency)

    @classmethod
    def zero(cls, currency: str = "EUR") -> Money:
        """No money at all."""
        return cls(micros=0, currency=currency)

    def _same(self, other: object) -> int:
        if not isinstance(other, Money) or other.currency != self.currency:
            raise TypeError(f"{self!r} and {other!r} do not mix")
        return other.micros

    def __add__(self, other: Money) -> Money:
        return Money(micros=self.micros + self._same(other), currency=self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(micros=self.micros - self._same(other), currency=self.currency)

    def __neg__(self) -> Money:
        return Money(micros=-self.micros, currency=self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.micros < self._same(other)

    def __bool__(self) -> bool:
        return self.micros != 0

    def __str__(self) -> str:
        amount = Decimal(self.micros) / MICRO
        shown = f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.4f}" if abs(self.micros) >= 100 else f"{amount:f}"
        return f"{shown} {self.currency}"

    def exact(self) -> str:
        """The amount to the last micro-unit, for whoever is to type it again."""
        amount = Decimal(self.micros) / MICRO
        return f"{amount:.2f} {self.currency}" if self.micros % 10_000 == 0 else f"{amount:f} {self.currency}"


def round_up(micros: Decimal) -> int:
    """Reservations round up, so that a settlement never exceeds its reservation by rounding."""
    return int(micros.to_integral_value(ROUND_CEILING))


def round_even(micros: Decimal) -> int:
    """Settlements round half to even, per line."""
    return int(micros.to_integral_value(ROUND_HALF_EVEN))


@dataclass(frozen=True)
class Usage:
    """What a job used, or at worst can use, on the shape that the site allocates."""

    cores: CoreSeconds = CoreSeconds(0)
    nodes: NodeSeconds = NodeSeconds(0)
    gpus: GpuSeconds = GpuSeconds(0)
    moved: Gibibytes = Gibibytes(0)
    energy: Joules = Joules(0)
    uses: int = 1


class PriceModel(BaseModel):
    """`A·x + B`: a fixed fee per use, and rates over what is used. Versioned, never edited.

    Rates are decimal strings in units of `currency` (no floats), e.g. `per_core_hour="0.012"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    per_use: Decimal = Field(default=Decimal(0), ge=0)
    per_core_hour: Decimal = Field(default=Decimal(0), ge=0)
    per_node_hour: Decimal = Field(default=Decimal(0), ge=0)
    per_gpu_hour: Decimal = Field(default=Decimal(0), ge=0)
    per_gib_moved: Decimal = Field(default=Decimal(0), ge=0)
    per_kwh: Decimal = Field(default=Decimal(0), ge=0)

    def __str__(self) -> str:
        rates = ("use", "core_hour", "node_hour", "gpu_hour", "gib_moved", "kwh")
        told = [(getattr(self, f"per_{each}"), each.replace("_", "-")) for each in rates]
        return " + ".join(f"{rate} {self.currency}/{each}" for rate, each in told if rate) or "free"

    def lines(self, usage: Usage, *, up: bool, rate: Decimal = Decimal(1)) -> dict[str, int]:
        """Micro-units of each line that is not zero, converted by `rate` (units of the payer's currency per unit of
        this model's); `up` rounds each line up (a reservation), else half to even (a settlement)."""
        exact = {
            "use": self.per_use * usage.uses,
            "core-hours": self.per_core_hour * Decimal(repr(usage.cores.value)) / 3600,
            "node-hours": self.per_node_hour * Decimal(repr(usage.nodes.value)) / 3600,
            "gpu-hours": self.per_gpu_hour * Decimal(repr(usage.gpus.value)) / 3600,
            "gib-moved": self.per_gib_moved * Decimal(repr(usage.moved.value)),
            "kwh": self.per_kwh * Decimal(repr(usage.energy.value)) / Decimal(3600000),
        }
        rounded = {line: (round_up if up else round_even)(amount * rate * MICRO) for line, amount in exact.items()}
        return {line: micros for line, micros in rounded.items() if micros}

    def price(self, usage: Usage, *, up: bool = False, rate: Decimal = Decimal(1), currency: str = "") -> Money:
        """The sum of `lines`, in the payer's `currency` (this model's own when empty)."""
        return Money(micros=sum(self.lines(usage, up=up, rate=rate).values()), currency=currency or self.currency)


class PowerModel(BaseModel):
    """Power of one node of a queue, in watts: idle, all cores busy, and each busy GPU beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idle: Watts = Watts(100)
    busy: Watts = Watts(300)
    per_gpu: Watts = Watts(0)
    #: Where the figures come from: a meter, a data sheet, a guess. Shown with every energy figure made from them.
    source: str = "assumed"

    def __str__(self) -> str:
        gpus = f", {self.per_gpu.value:g} W a GPU" if self.per_gpu.value else ""
        return f"{self.idle.value:g} to {self.busy.value:g} W{gpus} ({self.source})"

    def node(self, share: float, gpus: int = 0) -> Watts:
        """Power attributed to a job that keeps `share` (0..1) of a node's cores busy and `gpus` of its GPUs: its
        share of the idle power, its share of what busy cores add, and its GPUs. Linear in the busy share, as Fan,
        Weber & Barroso 2007 (ISCA, fig. 4) found for whole servers."""
        return Watts(self.idle.value * share + (self.busy.value - self.idle.value) * share + self.per_gpu.value * gpus)
