"""What is known of a job's consumption: its energy with the method behind it, and other figures, by the job's key."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from heroes.api.errors import NotFound
from heroes.api.ids import ULID
from heroes.api.model import Model
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import Joules


class Energy(Model):
    """Energy of a job or a run, how it was found, and its relative uncertainty (0.25: 25 %)."""

    joules: Joules
    method: str
    uncertainty: float = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.joules} ±{100 * self.uncertainty:.0f} % ({self.method})"


class AskFigures(Model):
    """The key of a job."""

    key: str = Field(pattern=f"^{ULID.pattern}$")


class Figure(Model):
    """One measured figure."""

    name: str
    value: float
    unit: str


class Figures(Model):
    """What a job used. `note` says what was wrong with its energy report, when something was."""

    key: str
    energy: Energy | None
    note: str
    at: datetime
    items: tuple[Figure, ...]


FIGURES = Operation(
    name="telemetry.figures",
    method="GET",
    path="/organization/telemetry/{key}",
    request=AskFigures,
    response=Figures,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show what a job used: energy, how it was measured, CPU time, memory.",
    verb="job figures",
)

OPERATIONS = (FIGURES,)
