"""How a run goes on when one of its jobs does: what is released, what is given up, and how the run stands. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heroes_jobs.model import Phase


class JobState(enum.StrEnum):
    """How a job of a run stands. `void`: it never runs, because a step that it needs did not end well."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    VOID = "void"


class RunState(enum.StrEnum):
    """How a run stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.VOID})
RUN_ENDED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})

_OF_PHASE: Mapping[Phase, JobState] = {
    Phase.HELD: JobState.WAITING,
    Phase.WAITING: JobState.WAITING,
    Phase.STAGING_IN: JobState.WAITING,
    Phase.SUBMITTING: JobState.WAITING,
    Phase.QUEUED: JobState.WAITING,
    Phase.RUNNING: JobState.RUNNING,
    Phase.STAGING_OUT: JobState.RUNNING,
    Phase.DONE: JobState.DONE,
    Phase.FAILED: JobState.FAILED,
    Phase.LOST: JobState.FAILED,
    Phase.CANCELLED: JobState.CANCELLED,
}


def job_state(phase: Phase) -> JobState:
    """What the phase of a job's newest attempt means for the job."""
    return _OF_PHASE[phase]


@dataclass(frozen=True)
class StepCount:
    """A step of a run: its jobs, and how many of them have ended and how. `started`: its jobs were released; `void`:
    they never will be."""

    name: str
    needs: tuple[str, ...]
    jobs: int
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    started: bool = False
    void: bool = False

    @property
    def complete(self) -> bool:
        """Whether every job of it is done."""
        return self.done == self.jobs

    @property
    def broken(self) -> bool:
        """Whether a job of it did not end well."""
        return self.failed > 0 or self.cancelled > 0

    @property
    def state(self) -> JobState:
        """How the step stands as a whole."""
        if self.void:
            return JobState.VOID
        if self.complete:
            return JobState.DONE
        if self.done + self.failed + self.cancelled == self.jobs:
            return JobState.FAILED if self.failed else JobState.CANCELLED
        return JobState.RUNNING if self.started else JobState.WAITING


def first(steps: Iterable[StepCount]) -> list[str]:
    """Steps that begin at once."""
    return [step.name for step in steps if not step.needs]


def released(steps: Iterable[StepCount]) -> list[str]:
    """Steps that can begin now: not begun, given up or cancelled, and everything that they need is complete."""
    known = {step.name: step for step in steps}
    return [
        step.name
        for step in known.values()
        if not (step.started or step.void or step.broken) and all(known[need].complete for need in step.needs)
    ]


def given_up(steps: Iterable[StepCount]) -> list[str]:
    """Steps that can never begin: something that they need, at any distance, did not end well."""
    known = {step.name: step for step in steps}
    lost = {name for name, step in known.items() if step.broken or step.void}
    grown = True
    while grown:
        more = {name for name, step in known.items() if name not in lost and set(step.needs) & lost}
        grown = bool(more)
        lost |= more
    return [name for name, step in known.items() if name in lost and not step.started and not step.void]


def end_of_run(failed: int, cancelled: int, *, stopped: bool) -> RunState:
    """How a run ended whose jobs have all ended. `stopped`: somebody cancelled it."""
    if stopped or (cancelled and not failed):
        return RunState.CANCELLED
    return RunState.FAILED if failed else RunState.DONE
