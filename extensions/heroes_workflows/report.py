"""Predicted against actual, figure by figure. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from heroes.api.units import MICRO
from heroes.api.workflows import Comparison
from heroes_workflows.machine import JobState


def compare(row: sa.Row[Any], currency: str) -> Iterator[Comparison]:
    """A job's figures: seconds, money, joules, gCO2e. A job that did not end well says nothing about predictions.

    `row.predicted` holds quantiles (10, 50, 85, 95 %) of seconds, micro-units and joules."""
    if row.state != JobState.DONE:
        return
    for figure, unit, scale, actual in (
        ("run", "s", 1.0, row.elapsed_s),
        ("cost", currency, MICRO, row.cost),
        ("energy", "J", 1.0, row.joules),
    ):
        told = row.predicted.get(figure)
        if told is None or actual is None:
            continue
        yield _compared(row, figure, unit, [each / scale for each in told], actual / scale)
        if figure == "energy" and row.grams is not None:
            yield _compared(row, "carbon", "gCO2e", [each * row.grams_per_joule for each in told], row.grams)


def _compared(row: sa.Row[Any], figure: str, unit: str, quantiles: list[float], actual: float) -> Comparison:
    low, middle, _, high = quantiles
    return Comparison(
        step=row.step, index=row.index, place=f"{row.cluster}/{row.queue}", figure=figure, unit=unit,
        predicted=middle, low=low, high=high, actual=actual, inside=low <= actual <= high,
    )  # fmt: skip
