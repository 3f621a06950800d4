"""The machine itself as a `Site`.

Files are the wrapper's work here as at a SLURM cluster; the scheduler's four questions (submit, queue, accounting,
cancel) go to the daemon. Where the platform is root, each person's jobs run as a user of their own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heroes.api.errors import InvalidSpec
from heroes_spawners.machine.client import Client, configured
from heroes_spawners.machine.model import Machine, Request
from heroes_spawners.machine.probe import probe
from heroes_spawners.runtime.job import give, render
from heroes_spawners.site import (
    Accepted,
    Accounted,
    Answer,
    Declined,
    Job,
    Poll,
    Queued,
    Refusal,
    State,
    Submission,
    Unknown,
)
from heroes_spawners.slurm import commands, options, parse
from heroes_spawners.slurm.site import SlurmSettings, SlurmSite
from heroes_spawners.transport.local import LocalTransport


def open_machine(folder: Path, cache: Path | None = None) -> MachineSite:
    """The site whose settings were written to `folder` by `client.configure`; built environments come from `cache`.
    SchedulerDown where there are none."""
    return MachineSite(configured(folder), cache)


class MachineSite(SlurmSite):
    """This machine, through the scheduler's daemon."""

    def __init__(self, machine: Machine, cache: Path | None = None) -> None:
        super().__init__(LocalTransport(), SlurmSettings(base=str(machine.folder), accounting_kind="full", cache=cache))
        self.machine, self._client = machine, Client(machine.folder)
        self._probed: dict[str, Any] = {}

    def prepare(self, epoch: int) -> None:
        """Make the folders and push what differs; other users may pass through, not look."""
        super().prepare(epoch)
        self._open_up()

    def _open_up(self) -> None:
        if self.machine.people:
            for name in ("", "runtime", f"runtime/{self._bundle.digest}", "jobs", "data"):
                (self.machine.folder / name).chmod(0o711 if name.count("/") == 0 else 0o755)

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the probe found here, tried once; the runtime is pushed for it."""
        if not self._probed:
            self._push()
            self._open_up()
            self._probed = probe(Path(self.place.runtime), people=self.machine.people)
            queues = {queue.name: queue.power for queue in self.machine.queues}
            self._facts = {**self._probed, "queues": queues, "environments": self._there}
        return self._facts

    # -- submissions -----------------------------------------------------------------------------------------------

    def submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
        """Claim each submission, then hand all of them over at once."""
        self._client.ask("ping")
        self._do(commands.Call(self.place, "fence", commands.nothing, epoch=epoch))
        facts = self.facts
        self._ensure_environments(batch)
        answers = {index: self._claim(submission, facts) for index, submission in enumerate(batch)}
        mine = [index for index, answer in answers.items() if answer is None]
        jobs = [asdict(_request(batch[index])) for index in mine]
        for index, told in zip(mine, self._client.ask("submit", jobs=jobs) if jobs else [], strict=True):
            answers[index] = self._note(batch[index], told)
        return [answer for answer in answers.values() if answer is not None]

    def _claim(self, submission: Submission, facts: Mapping[str, Any]) -> Answer | None:
        """Write the job's folder and claim the submission; None when it is ours, else the answer it has."""
        job = submission.job
        try:
            options.check_keys((job.key,))
            files = render(job, self.base, self._as_person(job, facts))
        except InvalidSpec as error:
            return Declined(Refusal.PERMANENT, str(error))
        try:
            return self._taken(submission, files)
        except OSError as error:
            if not (self.machine.folder / "claims" / job.key / str(submission.number)).is_dir():
                return Declined(Refusal.STORAGE, f"the job's folder cannot be written: {error}")
            return Unknown(f"claimed, then: {error}")

    def _taken(self, submission: Submission, files: Mapping[str, bytes]) -> Answer | None:
        folder, nonce = self.machine.folder, secrets.token_hex(8)
        claim = folder / "claims" / submission.job.key / str(submission.number)
        if claim.exists():
            return self._known(submission)
        self._write(submission.job, files)
        claim.parent.mkdir(parents=True, exist_ok=True)
        private = folder / "tmp" / nonce
        private.mkdir()
        (private / "owner").write_text(f"{nonce}\n")
        try:
            private.rename(claim)
        except OSError:
            if not claim.exists():
                raise
            return self._known(submission)
        return None

    def _known(self, submission: Submission) -> Answer:
        """What became of a submission that was claimed before: the scheduler's book tells."""
        for job in self._client.ask("accounting", keys=[submission.job.key]):
            if job["number"] == submission.number:
                return Accepted(str(job["job_id"]))
        return Unknown("claimed before; it did not reach the scheduler yet")

    def _write(self, job: Job, files: Mapping[str, bytes]) -> None:
        folder = self.machine.folder / "jobs" / job.key
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, content in {**files, "script": f"{self.place.runtime}/job.sh".encode()}.items():
            (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
            (folder / name).write_bytes(content)
        for name in ("stdout", "stderr"):
            (folder / name).touch(mode=0o600)
        if self.machine.people:
            uid = self._uid(job)
            give(folder, uid, uid)
            for mount in job.inputs:
                _lend(self.machine.folder, mount.path, uid)

    def _as_person(self, job: Job, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self.machine.people:
            return facts
        uid = self._uid(job)
        return {**facts, "user": f"{uid}:{uid}"}

    def _uid(self, job: Job) -> int:
        """The uid of the person whose job it is, by the tags that the platform puts into its environment."""
        names = (job.environment.get("HEROES_ORGANIZATION_NAME", ""), job.environment.get("HEROES_USER_ID", ""))
        return int(self._client.ask("person", name="/".join(names))["uid"])

    def _note(self, submission: Submission, told: Mapping[str, Any]) -> Answer:
        """Leave the scheduler's answer at the claim, where `status` reads it."""
        claim = self.machine.folder / "claims" / submission.job.key / str(submission.number)
        if "job_id" in told:
            (claim / "answer").write_text(f"0 {told['job_id']} . \n")
            return Accepted(str(told["job_id"]))
        (claim / "answer").write_text(f"1 - . {told['text']}\n")
        return Declined(Refusal(told["kind"]), told["text"])

    # -- what the scheduler says -----------------------------------------------------------------------------------

    def _polled(self, since: float) -> tuple[Poll, float]:
        asked = self._client.ask("queue")
        words = (f"{max(0.0, since - 2.0):.6f}",)
        call = commands.Call(self.place, "changed", lambda parts: parse.changes(parts["files"]), words=words)
        records, started, now = self._do(call)
        load = {name: (free, total) for name, (free, total) in asked["load"].items()}
        return Poll(tuple(_queued(job) for job in asked["jobs"]), records, "", started, load), now

    def accounting(self, keys: Sequence[str], since: datetime) -> dict[str, list[Accounted]]:
        """The book's entries, all duplicates, oldest first; seconds with their fractions."""
        found: dict[str, list[Accounted]] = {}
        for job in self._client.ask("accounting", keys=list(options.check_keys(tuple(keys)))):
            entry = _accounted(job)
            if entry.ended_at is None or entry.ended_at >= since:
                found.setdefault(entry.key, []).append(entry)
        return found

    def cancel(self, keys: Sequence[str], epoch: int) -> None:
        """Cancel by key."""
        self._do(commands.Call(self.place, "fence", commands.nothing, epoch=epoch))
        self._client.ask("cancel", keys=list(options.check_keys(tuple(keys))))

    def cancel_foreign(self, job_ids: Sequence[str], epoch: int) -> None:
        """Nobody else hands jobs to this scheduler."""

    def remove(self, keys: Sequence[str], epoch: int) -> None:
        """Delete what attempts left, and their entries in the book."""
        super().remove(keys, epoch)
        self._client.ask("forget", keys=list(keys))


def _request(submission: Submission) -> Request:
    job, shape = submission.job, submission.job.shape
    cpus = shape.tasks * shape.cpus_per_task
    return Request(
        key=job.key,
        number=submission.number,
        queue=job.queue,
        cpus=cpus,
        memory_mib=shape.memory_mib,
        walltime_s=shape.walltime_s,
        nodes=shape.nodes,
        gpus=shape.gpus,
    )


def _lend(folder: Path, path: str, uid: int) -> None:
    """Let one person read an input: the folder of that person becomes its own, what is in it readable."""
    parts = path.strip("/").split("/")
    if parts[0] == "data" and len(parts) > 3:
        person = folder.joinpath(*parts[:3])
        if person.stat().st_uid != uid:
            (folder / "data" / parts[1]).chmod(0o711)
            person.chmod(0o700)
            os.chown(person, uid, uid)
        for each in (folder.joinpath(*parts[:depth]) for depth in range(4, len(parts))):
            each.chmod(0o711)
    top = folder.joinpath(*parts)
    for each in (top, *(top.rglob("*") if top.is_dir() else ())):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() else 0o644)


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _queued(job: Mapping[str, Any]) -> Queued:
    cpus = job["cpus"] if job["state"] == State.RUNNING else 0
    return Queued(
        key=job["key"],
        job_id=str(job["job_id"]),
        state=State(job["state"]),
        reason=job["reason"],
        submitted_at=_instant(job["submitted_at"]),
        started_at=_instant(job["started_at"]),
        cpus=cpus,
        nodes=1 if cpus else 0,
    )


def _accounted(job: Mapping[str, Any]) -> Accounted:
    begun, ended = job["started_at"], job["ended_at"]
    elapsed = 0.0 if begun is None else (ended or datetime.now(UTC).timestamp()) - begun
    return Accounted(
        key=job["key"],
        job_id=str(job["job_id"]),
        state=State(job["state"]),
        exit_code=job["exit_code"],
        submitted_at=_instant(job["submitted_at"]),
        started_at=_instant(begun),
        ended_at=_instant(ended),
        elapsed_s=max(0.0, elapsed),
        cpus=job["cpus"] if begun is not None else 0,
        nodes=1 if begun is not None else 0,
        max_rss_mib=job["max_rss_mib"],
    )
