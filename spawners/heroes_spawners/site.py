"""What the engine may ask of a cluster: one protocol, two implementations (SLURM over a transport, the machine itself).

Every method takes batches, so that a poll of a thousand jobs or a submission of five hundred costs one round trip.
Every method may raise `LinkDown` or `SchedulerDown`; a failed or truncated answer is an error, never an empty answer.
Everything read from a site is untrusted.

Below the base directory of the service account (paths in this module are relative to it):

    runtime/<sha256>/         what is pushed: wrapper, earl-run, heroes-isolate, environments
    claims/<key>/<number>/    who may call sbatch for a submission, and the job id it answered
    run/<key>/                who executes the attempt: a job id, or a tombstone
    jobs/<key>/               the attempt: script, environment, argv, in/ (read-only mounts), out/ (its working folder),
                              stdout, stderr, energy report
    records/<key>             exit code and manifest, written by the job's last act
    data/<organisation>/<user>/<bucket>/…   exact copies of objects; finished `out/` folders are renamed into it
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

#: How the keys of canaries begin, the small jobs of a probe: a time at which no attempt was made.
CANARY = "0" * 10


@dataclass(frozen=True)
class Shape:
    """What one job asks for. `memory_mib` and `gpus` are per node; `walltime_s` is the limit."""

    nodes: int = 1
    tasks: int = 1
    cpus_per_task: int = 1
    memory_mib: int = 0
    gpus: int = 0
    walltime_s: int = 3600


@dataclass(frozen=True)
class Mount:
    """An input: bound read-only at `in/<name>`, from `path` relative to the base directory (a file or a folder)."""

    name: str
    path: str


@dataclass(frozen=True)
class Image:
    """A container image at the site: an absolute path (squashfs or SIF) and the digest `sha256:…` it must have."""

    path: str
    digest: str


@dataclass(frozen=True)
class Job:
    """One attempt as a site sees it. `argv` runs in `out/`, isolated, with `environment` and nothing else."""

    key: str
    queue: str
    shape: Shape
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Mount, ...] = ()
    #: Small files (1 MiB together at most) that are written to `in/<name>` of the job's folder, read-only, beside the
    #: inputs. No name is that of an input.
    files: Mapping[str, bytes] = field(default_factory=dict)
    image: Image | None = None
    #: Names of pushed environments to put first on PATH, e.g. "python".
    environments: tuple[str, ...] = ()
    #: Names given to `module load` before the isolation; empty for none.
    modules: tuple[str, ...] = ()
    #: Launch each task by srun (MPI over PMI) rather than the argv once.
    parallel: bool = False
    #: Extra scheduler options from the queue's allow-list, e.g. ("--account=abc",).
    options: tuple[str, ...] = ()
    max_output_bytes: int = 10 * 2**30


@dataclass(frozen=True)
class Submission:
    """One try to hand a job to the scheduler; `number` counts the tries of the attempt from 1."""

    job: Job
    number: int = 1


class Refusal(enum.StrEnum):
    """Why a scheduler said no, for certain."""

    PERMANENT = "permanent"  #: will never be accepted as it is
    LIMIT = "limit"  #: the centre allows only so many jobs now; wait
    STORAGE = "storage"  #: no space or quota at the site


@dataclass(frozen=True)
class Accepted:
    """The scheduler took it, under this id."""

    job_id: str


@dataclass(frozen=True)
class Declined:
    """The scheduler said no, for certain, in these words."""

    kind: Refusal
    text: str


@dataclass(frozen=True)
class Unknown:
    """It may have been submitted. Ask `status`; never submit this number again."""

    text: str


Answer = Accepted | Declined | Unknown


class State(enum.StrEnum):
    """A scheduler's job states, mapped from every word of every supported version; never by a default."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    NODE_FAIL = "node-fail"  #: infrastructure: node, boot, preemption, requeue by the site
    UNKNOWN = "unknown"  #: a word we do not know: not a failure


TERMINAL = frozenset(
    {State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMEOUT, State.OUT_OF_MEMORY, State.NODE_FAIL}
)


@dataclass(frozen=True)
class Queued:
    """One job of ours as the scheduler's queue shows it. Times UTC. `cpus` and `nodes` are what is allocated."""

    key: str
    job_id: str
    state: State
    reason: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    expected_start: datetime | None = None
    cpus: int = 0
    nodes: int = 0


@dataclass(frozen=True)
class Record:
    """The exit record that a job's last act wrote. Untrusted: gives exit code and manifest, never state or money.

    `elapsed_s` is wall time of the job's own command; `energy` is earl-run's JSON report as text ("" when absent)."""

    key: str
    job_id: str
    exit_code: int
    elapsed_s: float = 0.0
    energy: str = ""


@dataclass(frozen=True)
class Poll:
    """One answer for all our jobs at a site: the whole queue, and every exit record newer than the given cursor."""

    queue: tuple[Queued, ...]
    records: tuple[Record, ...]
    cursor: str
    #: Claimed runs since the cursor: key -> job id that executes it.
    started: Mapping[str, str]
    #: Free and total CPUs per queue, for predictions of wait.
    load: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    #: Jobs under our account whose name is no key: job id -> name.
    foreign: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Accounted:
    """What the scheduler's accounting says of one job: state and money come from here. Times UTC, `elapsed_s` exact
    to the second (SLURM) or better."""

    key: str
    job_id: str
    state: State
    exit_code: int = 0
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    elapsed_s: float = 0.0
    cpus: int = 0
    nodes: int = 0
    gpus: int = 0
    max_rss_mib: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What the site knows of an attempt: the last submission claimed and its job id, and who holds the run claim
    (`run_by`: a job id, "tombstone", or None)."""

    number: int
    job_id: str | None
    run_by: str | None


@dataclass(frozen=True)
class SiteFile:
    """A regular file below a folder of the site: `path` relative to that folder, bytes, and what identifies the exact
    copy (nanoseconds since 1970)."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


@dataclass(frozen=True)
class Listing:
    """What a finished job left: regular files, and the paths of what is not one (links, sockets, …)."""

    files: tuple[SiteFile, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Part of a log: bytes from `offset`, and where the next part begins."""

    data: bytes
    next_offset: int


class Site(Protocol):
    """One cluster. Calls are thread-safe. `epoch` is the caller's lease: a lower one than the site has seen is refused
    with `Conflict`."""

    #: Whether the scheduler keeps accounting ("full") or not ("none").
    accounting_kind: str

    def prepare(self, epoch: int) -> None:
        """Make the folders and push what differs of the runtime (by checksum). Cheap when nothing differs."""

    def submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
        """Claim and hand over each submission at most once. Writes the job's folder first; `in/` data is there."""

    def status(self, keys: Sequence[str]) -> dict[str, Claim]:
        """The claims of attempts; a key that was never claimed is absent."""

    def poll(self, cursor: str) -> Poll:
        """Queue, records and started runs since `cursor` ("" for all), in one round trip."""

    def accounting(self, keys: Sequence[str], since: datetime) -> dict[str, list[Accounted]]:
        """Accounting by key, all duplicates, oldest first; {} where `accounting_kind` is "none"."""

    def give_up(self, keys: Sequence[str], epoch: int) -> dict[str, bool]:
        """Take the run claim as a tombstone. True: taken, the attempt never runs. False: it had started."""

    def cancel(self, keys: Sequence[str], epoch: int) -> None:
        """Cancel by job name. Idempotent; a job that has ended is no error."""

    def cancel_foreign(self, job_ids: Sequence[str], epoch: int) -> None:
        """Cancel jobs that a poll told as foreign; an id that is a job of ours by now is left alone."""

    def seal(self, moves: Mapping[str, str], epoch: int) -> dict[str, Listing]:
        """Rename `jobs/<key>/out` to `data/…` (the value, relative to the base) and list it, with what the job wrote to
        its stdout and stderr as `stdout.txt` and `stderr.txt` (absent when empty). Idempotent."""

    def list_files(self, paths: Sequence[str]) -> dict[str, Listing]:
        """What stands below each folder (or at each file, with path "") now; a path that does not exist is absent."""

    def tail(self, key: str, stream: str, offset: int, limit: int) -> Chunk:
        """Part of `stdout` or `stderr` of an attempt, running or ended; b"" where nothing is yet."""

    def remove(self, keys: Sequence[str], epoch: int) -> None:
        """Delete the folders, claims and records of attempts ended long ago; a tombstone stays."""

    def remove_data(self, paths: Sequence[str], epoch: int) -> None:
        """Delete paths below `data/`."""

    def remote(self) -> Mapping[str, str]:
        """The rclone settings of a remote rooted at the base directory: {"type": "sftp", …} or {"type": "local", …},
        with "root" the absolute base directory."""

    def stream_tar(self, path: str) -> TarSink:
        """Open `tar -x` below `path` of the site: for many small files, one stream. See `TarSink`."""

    def checksums(self, path: str, names: Sequence[str]) -> dict[str, str]:
        """MD5 in hex of files below `path`, computed at the site; a missing file is absent."""

    def close(self) -> None:
        """Give connections back."""


class TarSink(Protocol):
    """Bytes of an uncompressed tar, unpacked at the site as they come."""

    def write(self, data: bytes) -> None:
        """Send a part."""

    def finish(self) -> None:
        """Wait until it is unpacked; raises with tar's own words when it failed."""
