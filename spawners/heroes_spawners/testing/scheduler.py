"""The scheduler of the cluster in memory: a clock of its own, and the faults that were measured on real ones.

1. The scheduler's answer is not durable: `crash_controller` forgets jobs accepted within the last five seconds.
2. Job ids are then issued again.
3. A remote command outlives its connection: after `orphan_next_submit` the call fails and its jobs arrive later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from heroes.api.errors import Conflict, LinkDown, SchedulerDown
from heroes_spawners.site import (
    Declined,
    Job,
    Record,
    State,
    Submission,
    Unknown,
)
from heroes_spawners.testing.clock import FakeClock

TOMBSTONE = "tombstone"
#: Seconds after which the controller has saved an accepted job (measured: 3 s is too short, 5 s is enough).
DURABLE_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What a job does when it runs. `state` overrides the one that follows from exit code and walltime."""

    duration_s: float = 1.0
    exit_code: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    state: State | None = None
    record: bool = True
    energy: str = ""


@dataclass
class Batch:
    """One job in the scheduler."""

    key: str
    job_id: str
    job: Job
    submitted_at: datetime
    state: State = State.PENDING
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: Outcome = field(default_factory=Outcome)
    duplicate: bool = False

    @property
    def cpus(self) -> int:
        """CPUs that it holds while it runs."""
        return self.job.shape.tasks * self.job.shape.cpus_per_task

    @property
    def due(self) -> datetime:
        """When it ends, once it has started."""
        assert self.started_at is not None
        limit = min(self.outcome.duration_s, float(self.job.shape.walltime_s))
        return self.started_at + timedelta(seconds=0 if self.duplicate else limit)

    def final(self) -> State:
        """The state that it ends in by itself."""
        if self.outcome.state is not None:
            return self.outcome.state
        if self.outcome.duration_s > self.job.shape.walltime_s:
            return State.TIMEOUT
        return State.COMPLETED if self.outcome.exit_code == 0 else State.FAILED


class FakeScheduler:
    """Jobs in memory. `run` says what a job does; `submissions` lists every job that the
    scheduler accepted as (key, number, job id), `executions` every one that ran as (key, job id)."""

    def __init__(
        self,
        clock: FakeClock,
        run: Callable[[Job], Outcome] = lambda _job: Outcome(),
        *,
        accounting_kind: str = "full",
        queues: Mapping[str, int] | None = None,
        start_delay_s: float = 1.0,
        base: str = "/fake",
    ) -> None:
        self.clock, self.accounting_kind, self.base = clock, accounting_kind, base
        self.submissions: list[tuple[str, int, str]] = []
        self.executions: list[tuple[str, str]] = []
        #: Folder path -> {file path in it: content}; "jobs/<key>/out" and "data/…".
        self.folders: dict[str, dict[str, bytes]] = {}
        #: The answers that the next submissions get instead of being tried.
        self.declines: list[Declined | Unknown] = []
        self.link_up = self.scheduler_up = True
        self._start_delay = timedelta(seconds=start_delay_s)
        self._run, self._queues = run, dict(queues or {"cpu": 32})
        self._jobs: list[Batch] = []
        self._lost: list[Batch] = []
        self._late: list[tuple[datetime, Submission]] = []
        self._orphan_s: float | None = None
        self._claims: dict[str, dict[int, str | None]] = {}
        self._runs: dict[str, str] = {}
        self._news: list[Record | tuple[str, str]] = []
        self._streams: dict[tuple[str, str], bytes] = {}
        self._links: dict[str, tuple[str, ...]] = {}
        self._next_id, self._epoch, self._moment = 1, 0, clock.now()
        self._stamps: dict[tuple[str, str, bytes], tuple[int, int]] = {}

    # -- faults ---------------------------------------------------------------------------------------------------

    def cut_link(self) -> None:
        """Every call raises `LinkDown` until `restore_link`; jobs go on."""
        self.link_up = False

    def restore_link(self) -> None:
        """Calls work again."""
        self.link_up = True

    def crash_controller(self) -> None:
        """Forget what was accepted within the last five seconds and has not started; its ids are issued again."""
        self._catch_up()
        horizon = self.clock.now() - timedelta(seconds=DURABLE_S)
        lost = [job for job in self._jobs if job.state is State.PENDING and job.submitted_at > horizon]
        self._jobs = [job for job in self._jobs if job not in lost]
        self._lost += lost
        self._next_id = 1 + max((int(job.job_id) for job in self._jobs), default=0)

    def orphan_next_submit(self, delay_s: float) -> None:
        """The next `submit` raises `LinkDown` after its claims; its jobs reach the scheduler `delay_s` later."""
        self._orphan_s = delay_s

    # -- time -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Let everything happen, in order, that was due by now."""
        now = self.clock.now()
        while True:
            self._start_pending(self._moment)
            ends = [job.due for job in self._jobs if job.state is State.RUNNING]
            starts = [job.submitted_at + self._start_delay for job in self._jobs if job.state is State.PENDING]
            ahead = [when for when in starts if when > self._moment]
            due = min([*ends, *ahead, *(when for when, _ in self._late)], default=None)
            if due is None or due > now:
                break
            self._moment = max(due, self._moment)
            self._finish_due(due)
        self._moment = now
        self._start_pending(now)

    def _finish_due(self, due: datetime) -> None:
        for when, submission in [late for late in self._late if late[0] <= due]:
            self._late.remove((when, submission))
            self._claims[submission.job.key][submission.number] = self._enqueue(submission, when)
        for job in self._jobs:
            if job.state is State.RUNNING and job.due <= due:
                self._end(job, State.FAILED if job.duplicate else job.final(), due)

    def _start_pending(self, now: datetime) -> None:
        used = dict.fromkeys(self._queues, 0)
        running: set[str] = set()
        for job in self._jobs:
            if job.state is State.RUNNING:
                used[job.job.queue] += job.cpus
                running.add(job.key)
        for job in self._jobs:
            fits = used.get(job.job.queue, 0) + job.cpus <= self._queues.get(job.job.queue, 0)
            ready = job.state is State.PENDING and job.submitted_at + self._start_delay <= now
            if ready and fits and job.key not in running:
                self._begin(job, now)
                used[job.job.queue] += job.cpus
                running.add(job.key)

    def _begin(self, job: Batch, now: datetime) -> None:
        job.state, job.started_at = State.RUNNING, now
        job.duplicate = job.key in self._runs or job.key not in self._claims
        if job.duplicate:
            return
        self._runs[job.key] = job.job_id
        self._news.append((job.key, job.job_id))
        self.executions.append((job.key, job.job_id))
        job.outcome = self._run(job.job)
        self.folders[f"jobs/{job.key}/out"] = {}
        self._streams[job.key, "stdout"], self._streams[job.key, "stderr"] = job.outcome.stdout, job.outcome.stderr

    def _end(self, job: Batch, state: State, now: datetime) -> None:
        job.state, job.ended_at = state, now
        if job.duplicate or job.started_at is None:
            return
        self.folders[f"jobs/{job.key}/out"] = dict(job.outcome.files)
        self._links[f"jobs/{job.key}/out"] = job.outcome.links
        if job.outcome.record and state in (State.COMPLETED, State.FAILED):
            elapsed = (now - job.started_at).total_seconds()
            self._news.append(Record(job.key, job.job_id, job.outcome.exit_code, elapsed, job.outcome.energy))

    def _enqueue(self, submission: Submission, when: datetime) -> str:
        job_id, self._next_id = str(self._next_id), self._next_id + 1
        self._jobs.append(Batch(submission.job.key, job_id, submission.job, when))
        self.submissions.append((submission.job.key, submission.number, job_id))
        return job_id

    def _reach(self, *, scheduler: bool = False, epoch: int | None = None) -> None:
        if not self.link_up:
            raise LinkDown("the cluster does not answer", hint="Wait until the link is back.")
        if scheduler and not self.scheduler_up:
            raise SchedulerDown("the scheduler does not answer", hint="Wait until the centre has repaired it.")
        if epoch is not None:
            if epoch < self._epoch:
                raise Conflict(f"epoch {epoch} is older than {self._epoch}", hint="Another engine has this cluster.")
            self._epoch = epoch
        self._catch_up()
