"""What an execution is charged: what the scheduler accounts, at the price pinned when its money was reserved. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from heroes.api.units import CoreSeconds, Gibibytes, GpuSeconds, Joules, Money, NodeSeconds, Usage
from heroes_jobs.model import Reservation
from heroes_jobs.states import Exit, Outcome
from heroes_spawners.site import Shape
from heroes_spawners.site import State as JobState
from heroes_telemetry.model import Bounds, EnergyFigure

GIB = 2**30
#: Longest energy report that is read: it comes from the site and is not trusted.
REPORT_BYTES = 64 * 2**10


@dataclass(frozen=True)
class Charge:
    """The amount, its lines in micro-units, and the wall time (s) that it is for."""

    amount: Money
    lines: dict[str, int]
    elapsed_s: float


def elapsed(outcome: Outcome) -> float:
    """Seconds to charge. SLURM counts whole seconds: a job that began and ended in one of them is charged one; a job
    that never began is charged none. One that was cancelled while it waited has a start in some versions' accounting,
    and nothing allocated."""
    if outcome.elapsed_s > 0:
        return outcome.elapsed_s
    idle = outcome.state is JobState.CANCELLED and not (outcome.cpus or outcome.nodes or outcome.provisional)
    return 0.0 if outcome.started_at is None or idle else 1.0


def charge(held: Reservation, shape: Shape, outcome: Outcome, moved_bytes: int, energy: Joules | None) -> Charge:
    """The price of what was allocated (of what was asked for, where the scheduler does not say) and moved."""
    seconds = elapsed(outcome)
    cpus = outcome.cpus or shape.tasks * shape.cpus_per_task
    nodes = outcome.nodes or shape.nodes
    usage = Usage(
        cores=CoreSeconds(cpus * seconds),
        nodes=NodeSeconds(nodes * seconds),
        gpus=GpuSeconds((outcome.gpus or shape.gpus * nodes) * seconds),
        moved=Gibibytes(moved_bytes / GIB),
        energy=energy or Joules(0),
        uses=1 if seconds else 0,
    )
    lines = held.price.lines(usage, up=False, rate=held.rate)
    return Charge(Money(micros=sum(lines.values()), currency=held.amount.currency), lines, seconds)


#: Lines of a reservation that grow with what is allocated.
_BY_CORES, _BY_NODES = ("core-hours",), ("node-hours", "gpu-hours")


def enlarged(held: Reservation, cpus: int, nodes: int) -> Reservation | None:
    """The worst case on what a site really allocated; None where what is held covers it."""
    if not held.cores or not held.nodes or (cpus <= held.cores and nodes <= held.nodes):
        return None
    cores, whole = max(cpus, held.cores), max(nodes, held.nodes)
    by_cores, by_nodes = Fraction(cores, held.cores), Fraction(whole, held.nodes)
    factors = dict.fromkeys(_BY_CORES, by_cores) | dict.fromkeys(_BY_NODES, by_nodes)
    factors["kwh"] = max(by_cores, by_nodes)
    lines = {line: math.ceil(micros * factors.get(line, 1)) for line, micros in held.lines.items()}
    amount = Money(micros=sum(lines.values()), currency=held.amount.currency)
    if amount <= held.amount:
        return None
    return replace(held, amount=amount, lines=lines, cores=cores, nodes=whole)


def report(left: Exit | None) -> dict[str, Any] | None:
    """The energy report of an exit record: one JSON object, or one a line for each task; None where there is none that
    can be read."""
    if left is None or not left.report or len(left.report) > REPORT_BYTES:
        return None
    found = []
    for line in left.report.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict):
            found.append(told)
    if not found:
        return None
    return found[0] if len(found) == 1 else {"tasks": found}


def bounds(held: Reservation, shape: Shape, outcome: Outcome) -> Bounds | None:
    """The most energy that the job can have used; None where the queue's power is not known."""
    if held.power is None:
        return None
    watts = held.power.node(1.0, outcome.gpus or shape.gpus)
    return Bounds(watts, outcome.nodes or shape.nodes, elapsed(outcome), outcome.cpus)


def modelled(held: Reservation, shape: Shape, outcome: Outcome) -> EnergyFigure | None:
    """Energy where the job left no report: the queue's power model at the share of the node that was allocated. What
    the job really did is not seen, hence the uncertainty."""
    seconds = elapsed(outcome)
    if held.power is None or not held.cpus_per_node or not seconds:
        return None
    nodes = outcome.nodes or shape.nodes
    cpus = outcome.cpus or shape.tasks * shape.cpus_per_task
    share = min(cpus / (nodes * held.cpus_per_node), 1.0)
    watts = held.power.node(share, shape.gpus)
    return EnergyFigure(Joules(watts.value * nodes * seconds), f"model of the queue ({held.power.source})", 0.5)
