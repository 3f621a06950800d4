"""Values of a decision: distributions as quantiles, what is asked of a place, and what it would take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from heroes.api.decision import Weights
from heroes.api.model import Estimate, MoneyEstimate
from heroes.api.units import (
    CoreSeconds,
    Gibibytes,
    GpuSeconds,
    Joules,
    Money,
    NodeSeconds,
    PowerModel,
    PriceModel,
    Usage,
)

#: The quantiles that every prediction carries.
LEVELS = (0.10, 0.50, 0.85, 0.95)
#: Changes with the way predictions are made, so that outcomes can be told apart by it.
MODEL = "class-history-1"


@dataclass(frozen=True)
class Spread:
    """A distribution by its four quantiles (10, 50, 85, 95 %). The point is the median."""

    q10: float
    q50: float
    q85: float
    q95: float

    @classmethod
    def exactly(cls, value: float) -> Spread:
        """No doubt at all."""
        return cls(value, value, value, value)

    def __add__(self, other: Spread) -> Spread:
        """The sum, as if both were late together: quantiles add. Cautious, and right for jobs of one class."""
        return Spread(self.q10 + other.q10, self.q50 + other.q50, self.q85 + other.q85, self.q95 + other.q95)

    def map(self, function: Callable[[float], float]) -> Spread:
        """The distribution of a growing function of the value."""
        return Spread(function(self.q10), function(self.q50), function(self.q85), function(self.q95))

    def times(self, other: Spread) -> Spread:
        """The product, quantile by quantile."""
        return Spread(self.q10 * other.q10, self.q50 * other.q50, self.q85 * other.q85, self.q95 * other.q95)

    def at(self, level: float) -> float:
        """The quantile of any level between 10 and 95 %, by interpolation."""
        known = list(zip(LEVELS, (self.q10, self.q50, self.q85, self.q95), strict=True))
        for (low, below), (high, above) in pairwise(known):
            if level <= high:
                return min(below + (above - below) * max(level - low, 0.0) / (high - low), above)
        return self.q95

    def estimate(self, unit: str) -> Estimate:
        """As the contract tells it."""
        return Estimate(point=self.q50, q10=self.q10, q50=self.q50, q85=self.q85, q95=self.q95, unit=unit)

    def money(self, currency: str) -> MoneyEstimate:
        """Of micro-units: as the contract tells it."""
        q10, q50, q85, q95 = (
            Money(micros=round(each), currency=currency) for each in (self.q10, self.q50, self.q85, self.q95)
        )
        return MoneyEstimate(point=q50, q10=q10, q50=q50, q85=q85, q95=q95)


ZERO = Spread.exactly(0.0)


def total(spreads: Iterable[Spread]) -> Spread:
    """The sum of any number."""
    return sum(spreads, ZERO)


def spread_of(values: Sequence[tuple[float, float]]) -> Spread:
    """Quantiles of weighted values `(value, weight)`: the smallest value that has at least the level's weight at or
    below it, interpolated between the weights' centres."""
    ordered = sorted(values)
    whole = sum(weight for _, weight in ordered)
    centres: list[tuple[float, float]] = []
    passed = 0.0
    for value, weight in ordered:
        centres.append(((passed + weight / 2) / whole, value))
        passed += weight
    q10, q50, q85, q95 = (_interpolate(centres, level) for level in LEVELS)
    return Spread(q10, q50, q85, q95)


def _interpolate(centres: Sequence[tuple[float, float]], level: float) -> float:
    if level <= centres[0][0]:
        return centres[0][1]
    for (low, below), (high, above) in pairwise(centres):
        if level <= high:
            between = below + (above - below) * (level - low) / (high - low)
            return min(max(between, below), above)  # rounding must not leave the interval
    return centres[-1][1]


@dataclass(frozen=True)
class Allocation:
    """What a site allocates for one job, which is what is paid for. `share` is that of the nodes' cores."""

    nodes: int
    cores: int
    gpus: int
    cores_per_node: int

    @property
    def share(self) -> float:
        """Of the allocated nodes' cores, the part that is the job's."""
        return min(1.0, self.cores / (self.nodes * self.cores_per_node))


@dataclass(frozen=True)
class Terms:
    """Price, power and carbon at a place. `rate`: units of the payer's `currency` per unit of the price's."""

    price: PriceModel
    power: PowerModel
    pue: float
    carbon_g_per_kwh: float
    currency: str
    rate: Decimal = Decimal(1)

    def usage(self, what: Allocation, seconds: float, gib: float, joules: float) -> Usage:
        """What is billed for one job."""
        return Usage(
            cores=CoreSeconds(what.cores * seconds),
            nodes=NodeSeconds(what.nodes * seconds),
            gpus=GpuSeconds(what.gpus * seconds),
            moved=Gibibytes(gib),
            energy=Joules(joules),
        )

    def joules(self, what: Allocation, seconds: float) -> float:
        """Energy of the job's share of its nodes, by the queue's power model."""
        return self.power.node(what.share, 0).value * what.nodes * seconds + (
            self.power.per_gpu.value * what.gpus * seconds
        )

    def worst_joules(self, what: Allocation, seconds: float) -> float:
        """Energy at the nodes' maximum power."""
        return (self.power.busy.value * what.nodes + self.power.per_gpu.value * what.gpus) * seconds

    def grams(self, joules: float) -> float:
        """CO2-equivalent: kWh x PUE x the grid's intensity."""
        return joules / 3.6e6 * self.pue * self.carbon_g_per_kwh


@dataclass(frozen=True)
class Figures:
    """What a place would take: seconds, micro-units of money, joules, grams."""

    time: Spread
    wait: Spread
    run: Spread
    transfer: Spread
    cost: Spread
    energy: Spread
    carbon: Spread
    memory: Spread

    def points(self) -> tuple[float, float, float, float]:
        """The four that places are compared by."""
        return (self.time.q50, self.cost.q50, self.energy.q50, self.carbon.q50)


POLICIES: dict[str, tuple[str, Weights]] = {
    "fastest": ("Soonest done: waiting, moving data and running.", Weights(time=1, cost=0, energy=0, carbon=0)),
    "cheapest": ("Least money.", Weights(time=0, cost=1, energy=0, carbon=0)),
    "greenest": ("Fewest joules.", Weights(time=0, cost=0, energy=1, carbon=0)),
    "lowest-carbon": ("Fewest grams of CO2-equivalent.", Weights(time=0, cost=0, energy=0, carbon=1)),
    "weighted": ("A balance: each figure as a ratio to the best place, weighted.", Weights()),
}
DEFAULT_POLICY = "weighted"
_NAMES = ("time", "cost", "energy", "carbon")
#: Below this a figure counts as nothing, so that a free place does not make all others infinitely worse.
_NOTHING = (1e-3, 1.0, 1e-6, 1e-9)


def scores(figures: Sequence[Figures], weights: Weights) -> list[float]:
    """The weighted mean of each figure's ratio to the best place: 1 is best in all. Scale-free, and a bad place more
    or less changes nobody's rank."""
    points = [each.points() for each in figures]
    best = [max(min(column), floor) for column, floor in zip(zip(*points, strict=True), _NOTHING, strict=True)]
    heavy = (weights.time, weights.cost, weights.energy, weights.carbon)
    whole = sum(heavy) or 1.0
    return [
        sum(
            weight * max(value, floor) / top
            for weight, value, floor, top in zip(heavy, row, _NOTHING, best, strict=True)
        )
        / whole
        for row in points
    ]


def pareto(figures: Sequence[Figures]) -> list[bool]:
    """Whether no other place is at least as good in everything and better in something."""
    points = [each.points() for each in figures]

    def dominated(row: tuple[float, ...]) -> bool:
        return any(
            all(other <= own for other, own in zip(rival, row, strict=True)) and rival != row for rival in points
        )

    return [not dominated(row) for row in points]


def why_lost(mine: Figures, best: Figures, weights: Weights) -> str:
    """The figures that the policy counts in which a place is worse than the winner, the heaviest first."""
    heavy = (weights.time, weights.cost, weights.energy, weights.carbon)
    worse = []
    for name, weight, own, top, floor in zip(_NAMES, heavy, mine.points(), best.points(), _NOTHING, strict=True):
        if weight and own > max(top, floor) * 1.005:
            worse.append((weight * own / max(top, floor), f"{own / max(top, floor):.3g} times the {name}"))
    if not worse:
        return "as good as the best by this policy; the best is the better place otherwise"
    return " and ".join(text for _, text in sorted(worse, reverse=True)) + " of the best"


def why_won(policy: str, only: bool) -> str:
    """What makes the first the first."""
    if only:
        return "the only place that admits it"
    return {
        "fastest": "soonest done",
        "cheapest": "least money",
        "greenest": "fewest joules",
        "lowest-carbon": "fewest grams of CO2-equivalent",
        "weighted": "the best balance of the weights",
    }[policy]
