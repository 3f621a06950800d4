"""One place against one workflow: may it run there, and what would it take. Pure.

The jobs of a step run side by side, as many as the queue has room for; steps follow one another along the longest path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heroes.api.units import Money, Seconds
from heroes_applications.model import StepPlan
from heroes_clusters.model import SLURM, Place
from heroes_decision.history import Job, Known
from heroes_decision.model import MODEL, ZERO, Allocation, Figures, Spread, Terms, total
from heroes_jobs.model import Reservation
from heroes_spawners.site import Shape

_GIB = 2**30
#: Assumed until a transfer to a cluster was measured: bytes a second, slow to quick, and the seconds to begin.
_UNMEASURED = (100e6, 50e6, 20e6, 10e6)
_BEGIN_S = Spread(0.3, 1.0, 3.0, 6.0)
#: What the platform itself takes for a job: submission, polls, fetching results.
_HANDLING_S = Spread(1.0, 2.5, 6.0, 12.0)


@dataclass(frozen=True)
class No:
    """A constraint that a place does not meet."""

    constraint: str
    reason: str
    change: str


@dataclass(frozen=True)
class Here:
    """What is known of a place when a decision is made. `speed_bps` is the measured rate of transfers, 0 for none;
    `free` and `total` are cores (-1: not known)."""

    place: Place
    terms: Terms
    free: int = -1
    total: int = -1
    speed_bps: float = 0.0

    @property
    def name(self) -> str:
        """As people write it: cluster/queue."""
        return f"{self.place.cluster.name}/{self.place.queue.name}"


@dataclass(frozen=True)
class JobFigures:
    """One job at a place: what it takes, the worst case to reserve, and what the prediction rests on."""

    plan: StepPlan
    run: Spread
    wait: Spread
    transfer: Spread
    cost: Spread
    energy: Spread
    memory: Spread
    reservation: Reservation
    known: Known


def allocation(here: Here, shape: Shape) -> Allocation:
    """What the site allocates: whole nodes where the queue is exclusive, more cores where memory asks for them."""
    queue = here.place.queue
    per_node = max(queue.cpus_per_node, 1)
    if queue.exclusive:
        return Allocation(shape.nodes, shape.nodes * per_node, shape.nodes * queue.gpus_per_node, per_node)
    asked = math.ceil(shape.tasks * shape.cpus_per_task / shape.nodes)
    if shape.memory_mib and queue.memory_mib_per_node:
        asked = max(asked, math.ceil(shape.memory_mib * per_node / queue.memory_mib_per_node))
    return Allocation(shape.nodes, min(asked, per_node) * shape.nodes, shape.nodes * shape.gpus, per_node)


# --------------------------------------------------------------------------------------------------- constraints


def refuse(here: Here, plans: Sequence[StepPlan]) -> No | None:
    """The first constraint that some job of the workflow does not meet here."""
    if here.place.closed:
        return No("closed", here.place.closed, "Wait until it is open again, or choose another place.")
    for plan in plans:
        for check in _CHECKS:
            found = check(here, plan)
            if found is not None:
                return found
    return None


def _nodes(here: Here, plan: StepPlan) -> No | None:
    queue, shape = here.place.queue, plan.shape
    if shape.nodes > queue.nodes:
        return _too_much("nodes", plan, "nodes", shape.nodes, queue.nodes)
    return None


def _cores(here: Here, plan: StepPlan) -> No | None:
    queue, shape = here.place.queue, plan.shape
    per_node = math.ceil(shape.tasks * shape.cpus_per_task / shape.nodes)
    if shape.cpus_per_task > queue.cpus_per_node or per_node > queue.cpus_per_node:
        return _too_much("cores", plan, "cores on a node", per_node, queue.cpus_per_node)
    wanted = allocation(here, shape).cores
    if queue.max_cores and wanted > queue.max_cores:
        return _too_much("cores", plan, "cores", wanted, queue.max_cores)
    return None


def _memory(here: Here, plan: StepPlan) -> No | None:
    queue, shape = here.place.queue, plan.shape
    if queue.memory_mib_per_node and shape.memory_mib > queue.memory_mib_per_node:
        return _too_much("memory", plan, "MiB of memory on a node", shape.memory_mib, queue.memory_mib_per_node)
    return None


def _gpus(here: Here, plan: StepPlan) -> No | None:
    queue, shape = here.place.queue, plan.shape
    if shape.gpus > queue.gpus_per_node:
        return _too_much("gpus", plan, "GPUs on a node", shape.gpus, queue.gpus_per_node)
    return None


def _walltime(here: Here, plan: StepPlan) -> No | None:
    queue, shape = here.place.queue, plan.shape
    if queue.max_walltime_s and shape.walltime_s > queue.max_walltime_s:
        return _too_much("walltime", plan, "seconds of walltime", shape.walltime_s, queue.max_walltime_s)
    return None


def _software(here: Here, plan: StepPlan) -> No | None:
    facts = here.place.cluster.capabilities
    missing = [name for name in plan.requires if name not in facts.get("applications", ())]
    if missing:
        reason = (
            f"step {plan.name} needs {', '.join(missing)}, which the probe did not find on {here.place.cluster.name}"
        )
        return No("application", reason, f"Have {', '.join(missing)} installed there, or give the step an image.")
    if plan.environments and not facts.get("python"):
        reason = f"step {plan.name} needs Python 3.11 or newer on the nodes of {here.place.cluster.name}"
        return No("environment", reason, "Choose another place, or give the step an image.")
    if plan.image is not None and not facts.get("container"):
        name = here.place.cluster.name
        reason = f"step {plan.name} runs in the image {plan.image.path}, and {name} has no container engine"
        return No("container", reason, "Choose a place with Charliecloud or Apptainer.")
    return None


_CHECKS: tuple[Callable[[Here, StepPlan], No | None], ...] = (_nodes, _cores, _memory, _gpus, _walltime, _software)


def _too_much(constraint: str, plan: StepPlan, what: str, asked: int, most: int) -> No:
    reason = f"step {plan.name} asks for {asked} {what}, and the queue has {most}"
    return No(constraint, reason, f"Ask for {most} {what} or fewer.")


# ------------------------------------------------------------------------------------------------------- figures


def job_figures(here: Here, plan: StepPlan, told: Known, waits: Mapping[bool, Spread], moved_bytes: int) -> JobFigures:
    """What one job takes here. `moved_bytes` are its inputs that are not at the cluster yet."""
    queue, shape = here.place.queue, plan.shape
    what = allocation(here, shape)
    limit = float(shape.walltime_s)
    run = told.ratio.map(lambda ratio: min(limit, ratio * limit / queue.speed))
    joules = _joules(here, what, run, told)
    gib = moved_bytes / _GIB
    price, rate = here.terms.price, here.terms.rate

    def cost(seconds: float, energy: float) -> float:
        return price.price(here.terms.usage(what, seconds, gib, energy), rate=rate).micros

    costs = Spread(
        cost(run.q10, joules.q10), cost(run.q50, joules.q50), cost(run.q85, joules.q85), cost(run.q95, joules.q95)
    )
    free = here.free < 0 or here.free >= what.cores
    wait = waits[free] + Spread.exactly(float(queue.boot_s))
    asked_mib = float(shape.memory_mib or 0)
    return JobFigures(
        plan, run, wait, _transfer(here, moved_bytes), costs, joules, told.memory.map(lambda part: part * asked_mib),
        worst_case(here, plan, moved_bytes), told,
    )  # fmt: skip


def _joules(here: Here, what: Allocation, run: Spread, told: Known) -> Spread:
    """Modelled energy times what was seen of it before, never more than the nodes can take in that time: a report above
    that is cut too, and no prediction of what is paid for it is above what is reserved."""
    modelled = run.map(lambda seconds: here.terms.joules(what, seconds)).times(told.power)
    most = run.map(lambda seconds: here.terms.worst_joules(what, seconds))
    return Spread(
        min(modelled.q10, most.q10), min(modelled.q50, most.q50), min(modelled.q85, most.q85),
        min(modelled.q95, most.q95),
    )  # fmt: skip


def _transfer(here: Here, moved_bytes: int) -> Spread:
    if not moved_bytes:
        return ZERO
    if here.speed_bps:
        rates = (here.speed_bps * 1.3, here.speed_bps, here.speed_bps * 0.6, here.speed_bps * 0.4)
    else:
        rates = _UNMEASURED
    q10, q50, q85, q95 = (moved_bytes / rate for rate in rates)
    return Spread(q10, q50, q85, q95) + _BEGIN_S


def worst_case(here: Here, plan: StepPlan, moved_bytes: int) -> Reservation:
    """What is reserved: the time limit and what the site adds to it, on the shape that it allocates, at the nodes'
    highest power, with the most that may be moved; a cloud's nodes are paid while they boot. Each line rounds up."""
    queue = here.place.queue
    what = allocation(here, plan.shape)
    limit = plan.shape.walltime_s
    if here.place.cluster.kind == SLURM:
        limit = math.ceil(limit / 60) * 60  # it knows whole minutes only
    seconds = float(limit + queue.over_time_limit_s + queue.kill_wait_s + queue.boot_s)
    gib = (moved_bytes + plan.max_output_bytes) / _GIB
    usage = here.terms.usage(what, seconds, gib, here.terms.worst_joules(what, seconds))
    lines = here.terms.price.lines(usage, up=True, rate=here.terms.rate)
    amount = Money(micros=sum(lines.values()), currency=here.terms.currency)
    return Reservation(
        here.place.cluster.provider, amount, here.terms.price, lines, here.terms.rate,
        queue.power, queue.cpus_per_node, what.cores, what.nodes,
    )  # fmt: skip


def workflow_figures(here: Here, jobs: Sequence[JobFigures]) -> Figures:
    """All jobs together: money and energy add up, time follows the longest path of steps."""
    steps: dict[str, list[JobFigures]] = {}
    for job in jobs:
        steps.setdefault(job.plan.name, []).append(job)
    run = _longest(steps, lambda held: _side_by_side(here, held))
    wait = _longest(steps, lambda held: held[0].wait)
    transfer = _longest(steps, lambda held: total(job.transfer for job in held))
    handling = _longest(steps, lambda _held: _HANDLING_S)
    energy = total(job.energy for job in jobs)
    return Figures(
        time=wait + run + transfer + handling,
        wait=wait,
        run=run,
        transfer=transfer,
        cost=total(job.cost for job in jobs),
        energy=energy,
        carbon=energy.map(here.terms.grams),
        memory=max((job.memory for job in jobs), key=lambda spread: spread.q50),
    )


def _side_by_side(here: Here, held: Sequence[JobFigures]) -> Spread:
    """Jobs of one step, in as many rounds as the queue's room makes necessary."""
    queue = here.place.queue
    room = queue.nodes * max(queue.cpus_per_node, 1)
    if queue.max_cores:
        room = min(room, queue.max_cores)
    at_once = max(1, room // max(allocation(here, held[0].plan.shape).cores, 1))
    if queue.max_jobs:
        at_once = min(at_once, queue.max_jobs)
    rounds = math.ceil(len(held) / at_once)
    slowest = max(held, key=lambda job: job.run.q50).run
    return slowest.map(lambda seconds: seconds * rounds)


def _longest(steps: Mapping[str, Sequence[JobFigures]], measure: Callable[[Sequence[JobFigures]], Spread]) -> Spread:
    done: dict[str, Spread] = {}
    for name, held in steps.items():  # a step stands after those that it needs
        before = [done[need] for need in held[0].plan.needs if need in done]
        done[name] = measure(held) + max(before, key=lambda spread: spread.q50, default=ZERO)
    return max(done.values(), key=lambda spread: spread.q50)


def reserved(jobs: Sequence[JobFigures], currency: str) -> Money:
    """The worst case of all jobs together."""
    return sum((job.reservation.amount for job in jobs), Money.zero(currency))


def late(figures: Figures, deadline_s: float) -> No | None:
    """Nine of ten times it must be done in time."""
    needed = figures.time.at(0.9)
    if needed <= deadline_s:
        return None
    reason = f"with 90 % certainty it takes {Seconds(needed)}, and the deadline is in {Seconds(deadline_s)}"
    return No("deadline", reason, f"Allow {math.ceil(needed)} s.")


def dear(worst: Money, most: Money) -> No | None:
    """The worst case must be within the most that it may cost."""
    if worst <= most:
        return None
    reason = f"at worst it costs {worst.exact()}, and at most {most.exact()} is allowed"
    return No("max_cost", reason, f"Allow {worst.exact()}.")


def predicted(job: JobFigures, here: Here) -> dict[str, object]:
    """What is kept beside an attempt, to compare with what happens. Plain JSON: quantiles of seconds, micro-units,
    joules; the history's keys are found again from the attempt itself."""
    return {
        "model": MODEL,
        "level": job.known.level,
        "jobs": job.known.jobs,
        "place": here.name,
        "speed": here.place.queue.speed,
        "limit_s": job.plan.shape.walltime_s,
        "memory_mib": job.plan.shape.memory_mib,
        "asked": job.plan.shape.tasks * job.plan.shape.cpus_per_task,
        "free": here.free < 0 or here.free >= allocation(here, job.plan.shape).cores,
        "watts": here.terms.joules(allocation(here, job.plan.shape), 1.0),
        "pue": here.terms.pue,
        "g_per_kwh": here.terms.carbon_g_per_kwh,
        "run": _list(job.run),
        "wait": _list(job.wait),
        "cost": _list(job.cost),
        "energy": _list(job.energy),
    }


def _list(spread: Spread) -> list[float]:
    return [round(each, 6) for each in (spread.q10, spread.q50, spread.q85, spread.q95)]


def ring_job(organisation: str, user: str, template: str, plan: StepPlan) -> Job:
    """The rings that a job is predicted from. Its class has the cores that it asks for, wherever it runs."""
    return Job(organisation, user, template, plan.name, plan.shape.tasks * plan.shape.cpus_per_task)
