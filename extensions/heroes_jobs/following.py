"""An attempt as the engine follows it: read once, kept in memory, written back when it changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import InvalidTransition
from heroes_jobs.events import Event
from heroes_jobs.machine import step
from heroes_jobs.model import (
    FINAL,
    JobSpec,
    Phase,
    Reservation,
    Rules,
    Target,
    reservation_from_json,
    spec_from_json,
)
from heroes_jobs.settlement import report
from heroes_jobs.states import (
    Ended,
    Exit,
    Instruction,
    Outcome,
    Settle,
    StagingOut,
    State,
    Tell,
    state_from_json,
    state_to_json,
)
from heroes_spawners.site import Mount


def instant(at: float | None) -> datetime | None:
    """A time of the machine as a datetime."""
    return None if at is None else datetime.fromtimestamp(at, UTC)


@dataclass
class Followed:
    """One attempt that has not ended. `mounts` are None until its inputs are known to stand at the cluster."""

    key: str
    spec: JobSpec
    held: Reservation
    reservation_key: str
    ordinal: int
    retry_of: str
    created_at: datetime
    target: str
    state: State
    halted: bool = False
    job_id: str = ""
    submitted_at: datetime | None = None
    moved_bytes: int = 0
    mounts: tuple[Mount, ...] | None = None
    files: tuple[str, ...] = ()
    #: What is to be written with the next commit.
    stories: list[tuple[float, str]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    told_phase: Phase | None = None
    #: The worst case on what was allocated, to be reserved with the next commit; then what became of that: the key
    #: that it is reserved under, or why it is not.
    outgrown: Reservation | None = None
    covered_as: str = ""
    uncovered: str = ""

    @classmethod
    def of(cls, row: sa.Row[Any]) -> Followed:
        """From its row."""
        return cls(
            row.key, spec_from_json(row.spec), reservation_from_json(row.reservation), row.reservation_key,
            row.ordinal, row.retry_of, row.created_at, row.target, state_from_json(row.state), bool(row.halted),
            row.job_id,
            row.submitted_at, row.moved_bytes, told_phase=Phase(row.status),
        )  # fmt: skip

    @property
    def lane(self) -> tuple[str, str]:
        """Whose data it reads and writes."""
        return self.spec.organisation, self.spec.user

    @property
    def wanted(self) -> bool:
        """Whether it is to run."""
        return self.target == Target.RUNNING

    def take(self, event: Event, rules: Rules) -> bool:
        """Let the machine take `event`; whether anything changed. One that it cannot take stops the attempt."""
        try:
            state, instructions = step(self.state, event, rules)
        except (InvalidTransition, LookupError, TypeError, ValueError) as error:
            self.halt(event.at, str(error))
            return True
        if state is self.state and not instructions:
            return False
        changed = state != self.state
        self.state = state
        self.job_id = getattr(state, "job_id", "") or self.job_id
        for instruction in instructions:
            if isinstance(instruction, Tell):
                self.stories.append((event.at, instruction.text))
            else:
                self.instructions.append(instruction)
        if isinstance(state, Ended):
            self.stories.append((state.at, state.reason or "done"))
        return changed or bool(instructions)

    def halt(self, at: float, text: str) -> None:
        """Follow it no more until an operator resolves it."""
        self.halted = True
        self.stories.append((at, f"stopped for an operator: {text}"))

    def saved(self) -> dict[str, Any]:
        """What is written of it, as `store.save` takes it; the settlement adds its own."""
        state = self.state
        outcome, left = self.ended_how()
        ended = isinstance(state, Ended)
        return {
            "_key": self.key,
            "_status": state.phase,
            "_live": 0 if ended else 1,
            "_halted": int(self.halted),
            "_state": state_to_json(state),
            "_reason": state.reason if isinstance(state, Ended) else getattr(state, "why", ""),
            "_job_id": self.job_id,
            "_submitted_at": self.submitted_at,
            "_started_at": instant(outcome.started_at) if outcome else self._started(),
            "_ended_at": instant(state.at) if isinstance(state, Ended) else None,
            "_exit_code": left.code if left else None,
            "_elapsed_s": outcome.elapsed_s if outcome else 0.0,
            "_moved_bytes": self.moved_bytes,
            "_cost": None,
            "_final_at": None,
        }

    def ended_how(self) -> tuple[Outcome | None, Exit | None]:
        """The scheduler's word and the record's, where they are known."""
        for instruction in self.instructions:
            if isinstance(instruction, Settle):
                return instruction.outcome, instruction.exit
        if isinstance(self.state, StagingOut):
            return self.state.outcome, self.state.exit
        return None, getattr(self.state, "exit", None)

    def _started(self) -> datetime | None:
        seen = getattr(self.state, "seen", None)
        return instant(seen.started_at) if seen else None

    def energy_report(self) -> dict[str, Any] | None:
        """The energy report that its record carried."""
        return report(self.ended_how()[1])

    @property
    def phase(self) -> Phase:
        """What users see of it."""
        return self.state.phase

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state.phase in FINAL
