"""A SLURM cluster as a `Site`: one wrapper call for each batch, whatever the number of jobs."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from heroes.api.errors import InvalidSpec, LinkDown, NotFound, StoreBusy
from heroes_spawners.environment import ensure_environment
from heroes_spawners.runtime.bundle import Bundle, bundle
from heroes_spawners.runtime.job import render
from heroes_spawners.site import (
    Accounted,
    Answer,
    Chunk,
    Claim,
    Declined,
    Listing,
    Poll,
    Refusal,
    Submission,
)
from heroes_spawners.slurm import commands, options, parse
from heroes_spawners.transport import Completed, Stream, Transport

T = TypeVar("T")
K = TypeVar("K")
#: Jobs in one call: at 20 to 50 ms for each sbatch, a few seconds.
SUBMIT_AT_ONCE = 100
KEYS_AT_ONCE = 500
#: Folders of the base directory.
FOLDERS = "runtime claims run jobs records data tmp"
_PREPARE = f"""umask 077
mkdir -p "$1" && cd "$1" && mkdir -p {FOLDERS} && chmod 700 . || exit 1
find tmp -mindepth 1 -maxdepth 1 ! -name stamp -mtime +1 -exec rm -rf {{}} + 2>/dev/null
printf 'begin %s\\n\\npart %s runtime\\n' "$2" "$2"
if [ -d "runtime/$3" ]; then printf there; else printf missing; fi
printf '\\nend %s\\n' "$2"
"""
_PUSH = """umask 077
cd "$1" && mkdir "tmp/$2" && tar -x -f - --no-same-owner -C "tmp/$2" || exit 1
mv -T "tmp/$2" "runtime/$3" 2>/dev/null || { rm -rf "tmp/$2"; [ -d "runtime/$3" ]; } || exit 1
printf 'begin %s\\n\\nend %s\\n' "$2" "$2"
"""


@dataclass(frozen=True)
class SlurmSettings:
    """What an enrolled cluster is known to be. `facts`: the probe's, as runtime/README.md lists them."""

    base: str
    accounting_kind: str = "full"
    arch: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Where built environments are kept on this side (default: ~/.cache/heroes/environments).
    cache: Path | None = None


class SlurmSite:
    """One SLURM cluster, seen from its login node."""

    def __init__(self, transport: Transport, settings: SlurmSettings) -> None:
        self.transport = transport
        self.accounting_kind = settings.accounting_kind
        self.base = options.check_base(settings.base)
        self._bundle: Bundle = bundle(settings.arch)
        self.place = commands.Place(f"{self.base}/runtime/{self._bundle.digest}", self.base)
        #: Names and checksums of the pushed environments that are known to be there.
        self._there: dict[str, str] = {}
        self._cache = settings.cache or Path.home() / ".cache" / "heroes" / "environments"
        self._facts = {**settings.facts, "runtime": self.place.runtime, "environments": self._there}
        #: What the last polls told, by the cursor they gave: late records are asked for again and again.
        self._told: dict[str, frozenset[tuple[str, str, str]]] = {}

    def prepare(self, epoch: int) -> None:
        """Make the folders, push what differs of the runtime, and take the site with this epoch."""
        self._push()
        self._do(commands.Call(self.place, "fence", commands.nothing, epoch=epoch, deadline_s=180))

    def _push(self) -> None:
        nonce = secrets.token_hex(8)
        script = ("sh", "-c", _PREPARE, "heroes", self.base, nonce, self._bundle.digest)
        done = self.transport.run(script, deadline_s=60, limit=commands.MIB)
        self._check_storage(done)
        if parse.frame(done, nonce)["runtime"] != b"there":
            script = ("sh", "-c", _PUSH, "heroes", self.base, nonce, self._bundle.digest)
            done = self.transport.run(script, _tar(self._bundle.files), deadline_s=300, limit=commands.MIB)
            self._check_storage(done)
            parse.frame(done, nonce)

    def _check_storage(self, done: Completed) -> None:
        if done.returncode == 1:
            told = done.stderr.decode(errors="replace").strip()[-300:]
            raise parse.trouble("storage", f"{self.base}: {told}")

    def submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
        """Claim and hand over each submission at most once."""
        answers: list[Answer] = []
        for start in range(0, len(batch), SUBMIT_AT_ONCE):
            answers += self._submit(batch[start : start + SUBMIT_AT_ONCE], epoch)
        return answers

    def _submit(self, batch: Sequence[Submission], epoch: int) -> list[Answer]:
        """One call; a job that can never run here is declined without troubling the others."""
        self._ensure_environments(batch)
        answers: dict[int, Answer] = {}
        whole: dict[int, tuple[Submission, Mapping[str, bytes]]] = {}
        for index, submission in enumerate(batch):
            try:
                options.render(submission.job)
                whole[index] = (submission, render(submission.job, self.base, self._facts))
            except InvalidSpec as error:
                answers[index] = Declined(Refusal.PERMANENT, str(error))
        if whole:
            answers |= zip(whole, self.hand_over(list(whole.values()), epoch), strict=True)
        return [answers[index] for index in range(len(batch))]

    def _ensure_environments(self, batch: Sequence[Submission]) -> None:
        """Push each environment that a job names and the site was not seen to have. One that cannot be there (too old
        a Python) is left out, and rendering the job tells so."""
        for name in sorted({name for submission in batch for name in submission.job.environments} - set(self._there)):
            with suppress(InvalidSpec, NotFound):
                self._there[name] = ensure_environment(self.transport, self.base, self._facts, name, self._cache)

    def hand_over(self, batch: Sequence[tuple[Submission, Mapping[str, bytes]]], epoch: int) -> list[Answer]:
        """One call with each job's files as they are."""
        try:
            return self._do(commands.submit(self.place, batch, epoch))
        except StoreBusy as error:  # the wrapper says so before its first claim
            return [Declined(Refusal.STORAGE, error.message)] * len(batch)

    def status(self, keys: Sequence[str]) -> dict[str, Claim]:
        """The claims of attempts."""
        return _merged(keys, lambda some: self._do(commands.status(self.place, some)))

    def poll(self, cursor: str) -> Poll:
        """Queue, load, and what changed, in one round trip."""
        polled, now = self._polled(_seconds(cursor))
        known = self._told.get(cursor, frozenset())
        records = {("record", record.key, record.job_id): record for record in polled.records}
        started = {("started", key, job_id): (key, job_id) for key, job_id in polled.started.items()}
        fresh = f"{now:.6f}"
        self._told = {**dict(list(self._told.items())[-63:]), fresh: frozenset(records) | frozenset(started)}
        return replace(
            polled,
            cursor=fresh,
            records=tuple(record for name, record in records.items() if name not in known),
            started=dict(pair for name, pair in started.items() if name not in known),
        )

    def _polled(self, since: float) -> tuple[Poll, float]:
        """Everything since then, and the site's own present time."""
        return self._do(commands.poll(self.place, since))

    def accounting(self, keys: Sequence[str], since: datetime) -> dict[str, list[Accounted]]:
        """sacct, all duplicates, oldest first."""
        if self.accounting_kind == "none":
            return {}
        return _merged(keys, lambda some: self._do(commands.accounting(self.place, some, since)))

    def give_up(self, keys: Sequence[str], epoch: int) -> dict[str, bool]:
        """Take run claims as tombstones."""
        return _merged(keys, lambda some: self._do(commands.give_up(self.place, some, epoch)))

    def cancel(self, keys: Sequence[str], epoch: int) -> None:
        """Cancel by job name."""
        for some in _pieces(keys):
            self._do(commands.cancel(self.place, some, epoch))

    def cancel_foreign(self, job_ids: Sequence[str], epoch: int) -> None:
        """Cancel jobs of other names by their ids."""
        for some in _pieces(job_ids):
            self._do(commands.cancel_foreign(self.place, some, epoch))

    def seal(self, moves: Mapping[str, str], epoch: int) -> dict[str, Listing]:
        """Rename out/ folders and list them."""

        def ask(keys: Sequence[str]) -> dict[str, Listing]:
            some = {key: moves[key] for key in keys}
            found = self._do(commands.seal(self.place, some, epoch))
            targets = {key: path.rstrip("/") for key, path in some.items()}
            return {key: found[path] for key, path in targets.items() if path in found}

        return _merged(list(moves), lambda some: _whole(some, ask))

    def list_files(self, paths: Sequence[str]) -> dict[str, Listing]:
        """What stands below each folder, or at each file."""

        def ask(some: Sequence[str]) -> dict[str, Listing]:
            found = self._do(commands.list_files(self.place, some))
            return {path: found[path.rstrip("/")] for path in some if path.rstrip("/") in found}

        return _merged(paths, lambda some: _whole(some, ask))

    def tail(self, key: str, stream: str, offset: int, limit: int) -> Chunk:
        """Part of a log."""
        if stream not in ("stdout", "stderr"):
            raise InvalidSpec(f"{stream!r} is no log of a job", hint="Ask for stdout or stderr.")
        return self._do(commands.tail(self.place, key, stream, offset, limit))

    def remove(self, keys: Sequence[str], epoch: int) -> None:
        """Delete what attempts left; a tombstone stays."""
        for some in _pieces(keys):
            self._do(commands.remove(self.place, some, epoch))

    def remove_data(self, paths: Sequence[str], epoch: int) -> None:
        """Delete paths below data/."""
        for some in _pieces(paths):
            self._do(commands.remove_data(self.place, some, epoch))

    def remote(self) -> Mapping[str, str]:
        """rclone's settings of the transport, and where the base directory is."""
        return {**self.transport.remote(), "root": self.base}

    def stream_tar(self, path: str) -> Unpacking:
        """Open `tar -x` below a path."""
        call = commands.unpack(self.place, path)
        return Unpacking(self.transport.open(call.argv(), deadline_s=call.deadline_s), call)

    def checksums(self, path: str, names: Sequence[str]) -> dict[str, str]:
        """MD5 of files."""
        return self._do(commands.checksums(self.place, path, names))

    def close(self) -> None:
        """Give connections back."""
        self.transport.close()

    def _do(self, call: commands.Call[T]) -> T:
        """One call; when the pushed runtime has gone (nothing has run then), push it and call again."""
        done = self._run(call)
        if done.returncode in (2, 127) and f"begin {call.nonce}".encode() not in done.stdout:
            self._push()
            done = self._run(call)
        return call.parse(done)

    def _run(self, call: commands.Call[Any]) -> Completed:
        return self.transport.run(call.argv(), call.stdin(), deadline_s=call.deadline_s, limit=call.limit)


@dataclass(frozen=True)
class Unpacking:
    """A tar on its way into a folder of the site."""

    stream: Stream
    call: commands.Call[None]

    def write(self, data: bytes) -> None:
        """Send the next bytes."""
        self.stream.write(data)

    def finish(self) -> None:
        """Wait until it is unpacked; `StoreBusy` with tar's own words when it failed."""
        self.call.parse(self.stream.finish())


def _tar(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def _seconds(cursor: str) -> float:
    try:
        return float(cursor or 0)
    except ValueError:
        raise LinkDown(f"{cursor!r} is not a cursor of this cluster", hint="Poll from the beginning.") from None


def _pieces(keys: Sequence[K]) -> list[Sequence[K]]:
    return [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)]


def _merged(keys: Sequence[str], ask: Callable[[Sequence[str]], Mapping[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for some in _pieces(keys):
        found |= ask(some)
    return found


def _whole(keys: Sequence[str], ask: Callable[[Sequence[str]], dict[str, Listing]]) -> dict[str, Listing]:
    """Listings that were not cut: a job with a million files must not hide those of another."""
    found = ask(keys)
    count = sum(len(listing.files) + len(listing.skipped) for listing in found.values())
    if count < commands.MOST_FILES:
        return found
    if len(keys) > 1:
        half = len(keys) // 2
        return _whole(keys[:half], ask) | _whole(keys[half:], ask)
    note = f"... there are more than {commands.MOST_FILES} files"
    return {key: Listing(listing.files, (*listing.skipped, note)) for key, listing in found.items()}
