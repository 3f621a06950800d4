"""Queues and jobs of the machine itself, and the pure rules: what is refused, what starts next, what must end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heroes_spawners.site import TERMINAL, Refusal, State

#: A job whose resident memory passes its limit by less than this is let go on: pages are counted a moment late.
SLACK = 1.02


@dataclass(frozen=True)
class Queue:
    """A queue: how many CPUs and how much memory its jobs may take together, and how long one may last."""

    name: str
    cpus: int
    memory_mib: int
    max_walltime_s: int = 86400
    max_jobs: int = 1000
    #: What `earl-run` is told of the machine: idle_watts, busy_watts, node_cpus, uncertainty.
    power: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """The settings of the scheduler. `folder` is the base directory of the site and holds the scheduler's own state in
    `scheduler/`. `people`: run each person's jobs as a user of its own (needs root)."""

    folder: Path
    cpus: int
    queues: tuple[Queue, ...]
    people: bool = False
    kill_wait_s: float = 5.0
    first_uid: int = 200000

    def queue(self, name: str) -> Queue | None:
        """The queue of that name."""
        return next((queue for queue in self.queues if queue.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """As plain values; `from_json` is the inverse."""
        return {**vars(self), "folder": str(self.folder), "queues": [vars(queue) for queue in self.queues]}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Machine:
        """The settings that `to_json` gave."""
        queues = tuple(Queue(**each) for each in values["queues"])
        return Machine(**{**values, "folder": Path(values["folder"]), "queues": queues})


@dataclass(frozen=True)
class Request:
    """What a submission asks for."""

    key: str
    number: int
    queue: str
    cpus: int
    memory_mib: int
    walltime_s: int
    nodes: int = 1
    gpus: int = 0


@dataclass(frozen=True)
class Batch:
    """A job in the book. Times are seconds since 1970. `doom` is the state that it ends in once killed."""

    job_id: int
    key: str
    number: int
    queue: str
    cpus: int
    memory_mib: int
    walltime_s: int
    state: State = State.PENDING
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int = 0
    pid: int | None = None
    pid_started: int | None = None
    max_rss_mib: float = 0.0
    doom: State | None = None
    doomed_at: float | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in TERMINAL


def refusal(machine: Machine, request: Request, waiting: int) -> tuple[Refusal, str] | None:
    """Why `request` is not taken, or None. `waiting`: jobs that the queue has now."""
    queue = machine.queue(request.queue)
    if queue is None:
        known = ", ".join(each.name for each in machine.queues)
        return Refusal.PERMANENT, f"invalid partition {request.queue!r}: this machine has {known}"
    wanted = (
        (request.nodes, 1, "nodes"),
        (request.gpus, 0, "GPUs"),
        (request.cpus, min(queue.cpus, machine.cpus), "CPUs"),
        (request.memory_mib, queue.memory_mib, "MiB of memory"),
        (request.walltime_s, queue.max_walltime_s, "seconds of walltime"),
    )
    for asked, most, what in wanted:
        if asked > most:
            return Refusal.PERMANENT, f"{asked} {what} asked, queue {queue.name} gives {most}"
    if waiting >= queue.max_jobs:
        return Refusal.LIMIT, f"queue {queue.name} takes {queue.max_jobs} jobs at a time"
    return None


def memory_limit(machine: Machine, batch: Batch) -> float:
    """MiB that a job may hold: what it asked for, else its CPUs' share of the queue's."""
    queue = machine.queue(batch.queue)
    if batch.memory_mib or queue is None:
        return float(batch.memory_mib)
    return queue.memory_mib * batch.cpus / queue.cpus


def plan(machine: Machine, running: Sequence[Batch], pending: Sequence[Batch]) -> dict[int, str]:
    """For each pending job, in order of submission: "" when it starts now, else why it waits.

    A queue's own limit holds back its queue; a machine that is full holds back whoever came later, so that a wide job
    is never overtaken for ever."""
    free, used = machine.cpus - sum(job.cpus for job in running), dict.fromkeys((q.name for q in machine.queues), 0)
    for job in running:
        used[job.queue] = used.get(job.queue, 0) + job.cpus
    active, blocked, full, reasons = {job.key for job in running}, set(), False, {}
    for job in sorted(pending, key=lambda each: each.job_id):
        queue = machine.queue(job.queue)
        if queue is None:
            reasons[job.job_id] = "PartitionDown"
        elif job.key in active:
            reasons[job.job_id] = "Dependency"
        elif full or job.queue in blocked:
            reasons[job.job_id] = "Priority"
        elif used[job.queue] + job.cpus > queue.cpus or job.cpus > free:
            reasons[job.job_id] = "Resources"
            blocked.add(job.queue)
            full = full or job.cpus > free
        else:
            reasons[job.job_id] = ""
            free, used[job.queue] = free - job.cpus, used[job.queue] + job.cpus
            active.add(job.key)
    return reasons


def verdict(machine: Machine, job: Batch, rss_mib: float, now: float) -> State | None:
    """The state in which a running job must be ended now, or None."""
    limit = memory_limit(machine, job)
    if limit and rss_mib > limit * SLACK:
        return State.OUT_OF_MEMORY
    if job.started_at is not None and now - job.started_at > job.walltime_s:
        return State.TIMEOUT
    return None


def final_state(job: Batch, exit_code: int) -> State:
    """How a job ended: by what killed it, else by its exit code."""
    if job.doom is not None:
        return job.doom
    return State.COMPLETED if exit_code == 0 else State.FAILED
