"""A cluster in memory with a clock of its own, and the faults that were measured on real ones.

1. The scheduler's answer is not durable: `crash_controller` forgets jobs accepted within the last five seconds.
2. Job ids are then issued again.
3. A remote command outlives its connection: after `orphan_next_submit` the call fails and its jobs arrive later.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import md5

from heroes.api.errors import Conflict, LinkDown, SchedulerDown
from heroes_spawners.site import (
    Accepted,
    Accounted,
    Answer,
    Chunk,
    Claim,
    Declined,
    Job,
    Listing,
    Poll,
    Queued,
    Record,
    Refusal,
    SiteFile,
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
class _Batch:
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
        return self.job.shape.tasks * self.job.shape.cpus_per_task

    @property
    def due(self) -> datetime:
        assert self.started_at is not None
        limit = min(self.outcome.duration_s, float(self.job.shape.walltime_s))
        return self.started_at + timedelta(seconds=0 if self.duplicate else limit)

    def final(self) -> State:
        if self.outcome.state is not None:
            return self.outcome.state
        if self.outcome.duration_s > self.job.shape.walltime_s:
            return State.TIMEOUT
        return State.COMPLETED if self.outcome.exit_code == 0 else State.FAILED


class FakeSite:
    """A `heroes_spawners.site.Site` in memory. `run` says what a job does; `submissions` lists every job that the
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
        self._jobs: list[_Batch] = []
        self._lost: list[_Batch] = []
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

    def _begin(self, job: _Batch, now: datetime) -> None:
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

    def _end(self, job: _Batch, state: State, now: datetime) -> None:
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
        self._jobs.append(_Batch(submission.job.key, job_id, submission.job, when))
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

    # -- the protocol ---------------------------------------------------------------------------------------------

    def prepare(self, epoch: int) -> None:
        """Nothing to push."""
        self._reach(epoch=epoch)

    def submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
        """Claim and hand over each submission at most once."""
        self._reach(epoch=epoch)
        orphan_s, self._orphan_s = self._orphan_s, None
        answers = [self._submit_one(submission, orphan_s) for submission in batch]
        if orphan_s is not None:
            raise LinkDown("the connection was lost during a submission", hint="Ask for the status of each key.")
        self._catch_up()
        return answers

    def _submit_one(self, submission: Submission, orphan_s: float | None) -> Answer:
        key, number = submission.job.key, submission.number
        claims = self._claims.setdefault(key, {})
        if number in claims:
            known = claims[number]
            return Accepted(known) if known else Unknown("claimed before; the scheduler's answer is not known")
        claims[number] = None
        if orphan_s is not None:
            self._late.append((self.clock.now() + timedelta(seconds=orphan_s), submission))
            return Unknown("on its way")
        if self.declines:
            return self.declines.pop(0)
        if submission.job.queue not in self._queues:
            return Declined(Refusal.PERMANENT, f"invalid partition specified: {submission.job.queue}")
        if not self.scheduler_up:
            return Unknown("the scheduler did not answer in time")
        job_id = claims[number] = self._enqueue(submission, self.clock.now())
        return Accepted(job_id)

    def status(self, keys: Sequence[str]) -> dict[str, Claim]:
        """The claims of attempts."""
        self._reach()
        found = {}
        for key in keys:
            claims = self._claims.get(key, {})
            if claims or key in self._runs:
                number = max(claims, default=0)
                found[key] = Claim(number, claims.get(number), self._runs.get(key))
        return found

    def poll(self, cursor: str) -> Poll:
        """Queue, records and started runs since `cursor`."""
        self._reach(scheduler=True)
        news = self._news[int(cursor or 0) :]
        queue = tuple(self._queued(job) for job in self._jobs if job.state in (State.PENDING, State.RUNNING))
        started = dict(item for item in news if isinstance(item, tuple))
        records = tuple(item for item in news if isinstance(item, Record))
        return Poll(queue, records, str(len(self._news)), started, self._load())

    def _queued(self, job: _Batch) -> Queued:
        reason = "Priority" if job.state is State.PENDING else ""
        nodes = job.job.shape.nodes
        return Queued(job.key, job.job_id, job.state, reason, job.submitted_at, job.started_at, None, job.cpus, nodes)

    def _load(self) -> dict[str, tuple[int, int]]:
        used = dict.fromkeys(self._queues, 0)
        for job in self._jobs:
            if job.state is State.RUNNING:
                used[job.job.queue] += job.cpus
        return {queue: (total - used[queue], total) for queue, total in self._queues.items()}

    def accounting(self, keys: Sequence[str], since: datetime) -> dict[str, list[Accounted]]:
        """Accounting by key, all duplicates, oldest first."""
        self._reach(scheduler=True)
        if self.accounting_kind == "none":
            return {}
        found: dict[str, list[Accounted]] = {}
        for job in self._jobs:
            if job.key in keys and (job.ended_at is None or job.ended_at >= since):
                found.setdefault(job.key, []).append(self._accounted(job))
        return found

    def _accounted(self, job: _Batch) -> Accounted:
        begun, until = job.started_at, job.ended_at or self.clock.now()
        elapsed = (until - begun).total_seconds() if begun else 0.0
        exit_code = job.outcome.exit_code if job.state is State.FAILED else 0
        return Accounted(
            job.key,
            job.job_id,
            job.state,
            exit_code,
            job.submitted_at,
            begun,
            job.ended_at,
            elapsed,
            job.cpus if begun else 0,
            job.job.shape.nodes if begun else 0,
            job.job.shape.gpus * job.job.shape.nodes,
        )

    def give_up(self, keys: Sequence[str], epoch: int) -> dict[str, bool]:
        """Take the run claim as a tombstone."""
        self._reach(epoch=epoch)
        return {key: self._runs.setdefault(key, TOMBSTONE) == TOMBSTONE for key in keys}

    def cancel(self, keys: Sequence[str], epoch: int) -> None:
        """Cancel by job name."""
        self._reach(scheduler=True, epoch=epoch)
        for job in self._jobs:
            if job.key in keys and job.state in (State.PENDING, State.RUNNING):
                self._end(job, State.CANCELLED, self.clock.now())

    def seal(self, moves: Mapping[str, str], epoch: int) -> dict[str, Listing]:
        """Rename `jobs/<key>/out` and list it."""
        self._reach(epoch=epoch)
        found = {}
        for key, target in moves.items():
            out = f"jobs/{key}/out"
            if out in self.folders:
                self.folders[target] = self.folders.pop(out)
                self._links[target] = self._links.pop(out, ())
                logs = {f"{name}.txt": self._streams.get((key, name), b"") for name in ("stdout", "stderr")}
                self.folders[target] |= {name: data for name, data in logs.items() if data}
            if target in self.folders:
                found[key] = self._listing(target)
        return found

    def _listing(self, folder: str) -> Listing:
        files = tuple(self._file(folder, path, data) for path, data in sorted(self.folders[folder].items()))
        return Listing(files, self._links.get(folder, ()))

    def _file(self, folder: str, path: str, data: bytes) -> SiteFile:
        fresh = (len(self._stamps) + 1, int(self.clock.now().timestamp()) * 10**9)
        inode, stamp = self._stamps.setdefault((folder, path, data), fresh)
        return SiteFile(path, len(data), stamp, stamp, inode)

    def list_files(self, paths: Sequence[str]) -> dict[str, Listing]:
        """What stands below each folder, or at each file."""
        self._reach()
        found = {}
        for asked in paths:
            listing = self._below(asked.rstrip("/"))
            if listing is not None:
                found[asked] = listing
        return found

    def _below(self, asked: str) -> Listing | None:
        files: list[SiteFile] = []
        links: tuple[str, ...] = ()
        known = False
        for folder, content in self.folders.items():
            for path, data in sorted(content.items()):
                full = f"{folder}/{path}"
                if full == asked:
                    return Listing((replace(self._file(folder, path, data), path=""),))
                if full.startswith(f"{asked}/"):
                    known = True
                    files.append(replace(self._file(folder, path, data), path=full[len(asked) + 1 :]))
            if folder == asked or folder.startswith(f"{asked}/"):
                known = True
                links += self._links.get(folder, ())
        return Listing(tuple(sorted(files, key=lambda file: file.path)), links) if known else None

    def tail(self, key: str, stream: str, offset: int, limit: int) -> Chunk:
        """Part of a log."""
        self._reach()
        data = self._streams.get((key, stream), b"")[offset : offset + limit]
        return Chunk(data, offset + len(data))

    def remove(self, keys: Sequence[str], epoch: int) -> None:
        """Delete what ended long ago; a tombstone stays."""
        self._reach(epoch=epoch)
        for key in keys:
            self._claims.pop(key, None)
            self._runs.setdefault(key, TOMBSTONE)
            self.folders.pop(f"jobs/{key}/out", None)
            self._streams.pop((key, "stdout"), None)
            self._streams.pop((key, "stderr"), None)

    def remove_data(self, paths: Sequence[str], epoch: int) -> None:
        """Delete paths below `data/`."""
        self._reach(epoch=epoch)
        for gone in paths:
            self.folders = {
                path: files for path, files in self.folders.items() if not f"{path}/".startswith(f"{gone}/")
            }
            for folder, files in self.folders.items():
                files.pop(gone.removeprefix(f"{folder}/"), None)

    def remote(self) -> Mapping[str, str]:
        """Where rclone would find it: nowhere, it is memory."""
        return {"type": "memory", "root": self.base}

    def stream_tar(self, path: str) -> FakeTarSink:
        """Open an unpacking stream below `path`."""
        self._reach()
        return FakeTarSink(self.folders.setdefault(path, {}))

    def checksums(self, path: str, names: Sequence[str]) -> dict[str, str]:
        """MD5 in hex of files below `path`."""
        self._reach()
        content = {f"{folder}/{name}": data for folder, files in self.folders.items() for name, data in files.items()}
        found = {name: content.get(f"{path}/{name}") for name in names}
        return {name: md5(data, usedforsecurity=False).hexdigest() for name, data in found.items() if data is not None}

    def close(self) -> None:
        """Nothing to give back."""


class FakeTarSink:
    """Unpacks into a folder in memory when finished."""

    def __init__(self, folder: dict[str, bytes]) -> None:
        self._folder, self._buffer = folder, io.BytesIO()

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._buffer.write(data)

    def finish(self) -> None:
        """Unpack."""
        self._buffer.seek(0)
        with tarfile.open(fileobj=self._buffer) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    self._folder[member.name] = content.read()
