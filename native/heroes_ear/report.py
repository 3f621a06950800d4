"""Reads the energy report of a job. It comes from a site, so it is untrusted: bounded, typed, and checked for sense.

A report is one line of JSON as `earl-run` writes it (`native/src/README.md`); a job of several tasks leaves several
lines, which are added up.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

FORMAT = "heroes-energy"
VERSION = 1
MAX_BYTES = 1_000_000
MAX_LINES = 4096
#: No job is longer than a year, takes more than ten terajoules (300 kW for that year) or more than a million cores.
MAX_SECONDS = 366 * 86400.0
MAX_JOULES = 1e13
MAX_CPU_SECONDS = MAX_SECONDS * 1e6


@dataclass(frozen=True)
class EnergyReport:
    """Energy (J, None where nothing modelled it) and CPU time (s) of a job's processes; `uncertainty` is relative."""

    energy_j: float | None
    method: str
    uncertainty: float
    cpu_s: float
    cpu_source: str
    elapsed_s: float
    max_rss_mib: float
    events: tuple[str, ...]
    complete: bool
    program: str


def read_report(text: str) -> EnergyReport:
    """The report in `text`, lines added up; ValueError names what is wrong with it."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"the energy report has {len(text)} characters, more than {MAX_BYTES}")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("the energy report is empty")
    if len(lines) > MAX_LINES:
        raise ValueError(f"the energy report has {len(lines)} lines, more than {MAX_LINES}")
    return combine([read_line(line) for line in lines])


def read_line(line: str) -> EnergyReport:
    """One line of a report; ValueError names what is wrong with it."""
    try:
        told = json.loads(line, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("the energy report is nested too deeply") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ValueError(f"not an energy report (format {FORMAT!r} is missing)")
    if told.get("version") != VERSION:
        raise ValueError(f"energy report of version {told.get('version')!r:.40}; this program reads version {VERSION}")
    return EnergyReport(
        energy_j=None if told.get("energy_j") is None else _number(told, "energy_j", MAX_JOULES),
        method=_word(told, "method"),
        uncertainty=_number(told, "uncertainty", 10.0),
        cpu_s=_number(told, "cpu_s", MAX_CPU_SECONDS),
        cpu_source=_word(told, "cpu_source"),
        elapsed_s=_number(told, "elapsed_s", MAX_SECONDS),
        max_rss_mib=_number(told, "max_rss_kib", 2.0**40) / 1024,
        events=_words(told, "events"),
        complete=told.get("complete") is True,
        program=_word(told, "program"),
    )


def combine(reports: list[EnergyReport]) -> EnergyReport:
    """Tasks of one job as one: energy, CPU time and memory add up, elapsed time is the longest.

    The errors of tasks have one cause (the model), so relative uncertainties are averaged by energy and do not shrink.
    """
    first = reports[0]
    if len(reports) == 1:
        return first
    energies = [report.energy_j for report in reports if report.energy_j is not None]
    known = sum(energies)
    weighted = sum(report.uncertainty * (report.energy_j or 0.0) for report in reports)
    return EnergyReport(
        energy_j=known if len(energies) == len(reports) else None,
        method=_same({report.method for report in reports}),
        uncertainty=weighted / known if known else max(report.uncertainty for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
        cpu_source=_same({report.cpu_source for report in reports}),
        elapsed_s=max(report.elapsed_s for report in reports),
        max_rss_mib=sum(report.max_rss_mib for report in reports),
        events=tuple(sorted({event for report in reports for event in report.events})),
        complete=all(report.complete for report in reports),
        program=_same({report.program for report in reports}),
    )


def _same(words: set[str]) -> str:
    return words.pop() if len(words) == 1 else "mixed"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the energy report holds {name}, which is no number")


def _number(told: dict[str, Any], name: str, most: float) -> float:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} of the energy report is {value!r:.40}, not a number")
    if not (0 <= value <= most) or not math.isfinite(value):
        raise ValueError(f"{name} of the energy report is {value!r:.40}, not between 0 and {most:g}")
    return float(value)


def _word(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 80 or not value.isprintable():
        raise ValueError(f"{name} of the energy report is {value!r:.40}, not a short word")
    return value


def _words(told: dict[str, Any], name: str) -> tuple[str, ...]:
    values = told.get(name)
    if not isinstance(values, list) or len(values) > 32:
        raise ValueError(f"{name} of the energy report is {values!r:.40}, not a short list")
    return tuple(_word({name: value}, name) for value in values)
