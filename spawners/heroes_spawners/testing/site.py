"""A cluster in memory that keeps the promises of a `Site`, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import md5

from heroes.api.errors import LinkDown
from heroes.api.ids import ULID
from heroes_spawners.site import (
    Accepted,
    Accounted,
    Answer,
    Chunk,
    Claim,
    Declined,
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
from heroes_spawners.testing.scheduler import TOMBSTONE, Batch, FakeScheduler


class FakeSite(FakeScheduler):
    """A `heroes_spawners.site.Site` in memory. `submissions` lists every job that its scheduler accepted as (key,
    number, job id), `executions` every one that ran as (key, job id)."""

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
        foreign = {job.job_id: job.key for job in queue if not ULID.fullmatch(job.key)}
        return Poll(queue, records, str(len(self._news)), started, self._load(), foreign)

    def _queued(self, job: Batch) -> Queued:
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

    def _accounted(self, job: Batch) -> Accounted:
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

    def cancel_foreign(self, job_ids: Sequence[str], epoch: int) -> None:
        """Cancel by id what is not named like ours."""
        self.cancel([job.key for job in self._jobs if job.job_id in job_ids and not ULID.fullmatch(job.key)], epoch)

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
