"""Energy figures from reports that nobody need trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heroes.api.units import Joules, Watts
from heroes_ear.report import EnergyReport, read_report

#: A meter reads a little more than a data sheet says: what is above the bound by less than this is no lie.
TOLERANCE = 1.05
#: Uncertainty of a figure that had to be cut to its bound.
CAPPED_UNCERTAINTY = 0.5


@dataclass(frozen=True)
class EnergyFigure:
    """Energy, how it was found, and its relative uncertainty."""

    joules: Joules
    method: str
    uncertainty: float


@dataclass(frozen=True)
class Bounds:
    """The most a job can have used: `watts` of one whole node with all GPUs busy, `nodes` of them, `elapsed_s` as the
    scheduler accounts, and `cpus` allocated in all (0: not known)."""

    watts: Watts
    nodes: int
    elapsed_s: float
    cpus: int = 0

    @property
    def joules(self) -> Joules:
        """Maximum power of a node, times nodes, times elapsed time. SLURM's whole seconds may be one short."""
        return Joules(self.watts.value * self.nodes * (self.elapsed_s + 1))

    @property
    def cpu_s(self) -> float:
        """The most CPU time that the allocated CPUs can give."""
        return self.cpus * (self.elapsed_s + 1)


@dataclass(frozen=True)
class Reading:
    """What a report comes to: a figure (None where there is none to be had), other figures with their units, and what
    was wrong."""

    energy: EnergyFigure | None
    metrics: Mapping[str, tuple[float, str]]
    note: str = ""


def read(report: Mapping[str, Any], bounds: Bounds | None = None) -> Reading:
    """Judge a report: a JSON object as `earl-run` writes it, or one with a list of such in `tasks`."""
    tasks = report.get("tasks", [report])
    if not isinstance(tasks, list):
        return Reading(None, {}, "tasks of the energy report is not a list")
    try:
        found = read_report("\n".join(json.dumps(task) for task in tasks))
    except (ValueError, RecursionError) as error:
        return Reading(None, {}, str(error))
    energy, notes = _bounded(found, bounds)
    if bounds is not None and bounds.cpus and found.cpu_s > TOLERANCE * bounds.cpu_s:
        notes.append(f"{found.cpu_s:.1f} s of CPU time is more than {bounds.cpus} CPUs have in {bounds.elapsed_s:g} s")
    if not found.complete:
        notes.append("the report is a checkpoint: the job did not end by itself")
    return Reading(energy, _metrics(found), "; ".join(notes))


def _bounded(found: EnergyReport, bounds: Bounds | None) -> tuple[EnergyFigure | None, list[str]]:
    if found.energy_j is None:
        return None, []
    joules = Joules(found.energy_j)
    if bounds is None or joules.value <= TOLERANCE * bounds.joules.value:
        return EnergyFigure(joules, found.method, found.uncertainty), []
    note = f"{joules} was reported, more than the {bounds.joules} that {bounds.nodes} nodes can take in the time"
    uncertainty = max(CAPPED_UNCERTAINTY, found.uncertainty)
    return EnergyFigure(bounds.joules, f"{found.method}, capped", uncertainty), [note]


def _metrics(found: EnergyReport) -> dict[str, tuple[float, str]]:
    return {
        "cpu_time": (found.cpu_s, "s"),
        "elapsed": (found.elapsed_s, "s"),
        "max_rss": (found.max_rss_mib, "MiB"),
    }
