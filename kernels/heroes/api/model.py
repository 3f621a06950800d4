"""The base of every request and response, and estimates: figures that come with an interval."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from heroes.api.units import Money

#: The largest whole number that a column of either database holds: versions, positions and sizes go no further.
LARGEST = 2**31 - 1


class Model(BaseModel):
    """A value of the contract: frozen, and closed to fields that it does not declare."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Empty(Model):
    """Nothing to say."""


class Estimate(Model):
    """A prediction: a point, and the 10, 50, 85 and 95 % quantiles of what may happen, all in `unit`."""

    point: float
    q10: float
    q50: float
    q85: float
    q95: float
    unit: str

    def __str__(self) -> str:
        point, low, high = (f"{v:,.0f}" if v >= 1000 else f"{v:.3g}" for v in (self.point, self.q10, self.q95))
        return f"{point} {self.unit} ({low} to {high})"


class MoneyEstimate(Model):
    """A predicted cost: a point, and the 10, 50, 85 and 95 % quantiles."""

    point: Money
    q10: Money
    q50: Money
    q85: Money
    q95: Money

    def __str__(self) -> str:
        return f"{self.point} ({self.q10} to {self.q95})"


class Page(Model):
    """A request for part of a list: what follows the cursor `after`, at most `limit` items."""

    after: str = Field(default="", max_length=200, description="cursor: `next` of the page before")
    limit: int = Field(default=50, ge=1, le=500, description="how many items at most")
