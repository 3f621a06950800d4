"""Calls of the wrapper as `Command` objects: what is run, what it reads, how its answer is read."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from heroes.api.errors import LinkDown
from heroes_spawners.site import (
    Accepted,
    Accounted,
    Answer,
    Chunk,
    Claim,
    Declined,
    Listing,
    Poll,
    Refusal,
    Submission,
    Unknown,
)
from heroes_spawners.slurm import options, parse
from heroes_spawners.slurm.words import refusal
from heroes_spawners.transport import Completed

T = TypeVar("T")
MIB = 2**20
#: Seconds by which records may become visible late at the login node (NFS caches folders for a minute).
LATE_S = 60
#: By how much a site's clock may be behind ours.
SKEW = timedelta(minutes=15)
#: How many files a listing names at most.
MOST_FILES = 200_000


@dataclass(frozen=True)
class Place:
    """Where the wrapper lies, and the base directory that it works in; absolute paths."""

    runtime: str
    base: str


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call: `read` makes the answer out of the wrapper's parts."""

    place: Place
    verb: str
    read: Callable[[parse.Parts], T]
    words: tuple[str, ...] = ()
    body: bytes = b""
    epoch: int = 0
    deadline_s: float = 90.0
    limit: int = 64 * MIB
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def argv(self) -> tuple[str, ...]:
        """The wrapper, the verb, and words that are all ours."""
        wrapper = f"{self.place.runtime}/wrapper.sh"
        return ("sh", wrapper, self.verb, self.nonce, self.place.base, str(self.epoch), *self.words)

    def stdin(self) -> bytes:
        """The batch."""
        return self.body

    def parse(self, completed: Completed) -> T:
        """The answer; an answer without its end is `LinkDown`, and so is one that makes no sense."""
        parts = parse.frame(completed, self.nonce)
        try:
            return self.read(parts)
        except (LookupError, ValueError, TypeError, OverflowError) as error:
            told = f"the cluster's answer to {self.verb} makes no sense ({type(error).__name__}: {error})"
            raise LinkDown(told, hint="Look at what answers there; it is asked again.") from error


def body(lines: Iterable[str]) -> bytes:
    """Lines, as a batch."""
    return "".join(f"{line}\n" for line in lines).encode()


def nothing(_parts: parse.Parts) -> None:
    """The answer of a call that only does."""


def submit(place: Place, batch: Sequence[tuple[Submission, Mapping[str, bytes]]], epoch: int) -> Call[list[Answer]]:
    """Claim and hand over each submission with the files of its folder."""
    nonce = secrets.token_hex(8)
    lines = [
        " ".join((submission.job.key, str(submission.number), *options.render(submission.job)))
        for submission, _ in batch
    ]
    return Call(
        place,
        "submit",
        lambda parts: answers(parts, [submission for submission, _ in batch]),
        body=_tar_batch(batch, lines, nonce),
        epoch=epoch,
        # Half a second each on a slow controller, and one that hangs for its whole 50.
        deadline_s=120 + 0.5 * len(batch),
        nonce=nonce,
    )


def _tar_batch(batch: Sequence[tuple[Submission, Mapping[str, bytes]]], lines: Sequence[str], nonce: str) -> bytes:
    """Folders, private claims, and the list last: a stream that was cut has no list."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for submission, files in batch:
            key = submission.job.key
            _add(archive, f"claims/{key}", None)
            _add(archive, f"tmp/{nonce}/{key}.{submission.number}", None)
            _add(archive, f"tmp/{nonce}/{key}.{submission.number}/owner", f"{nonce}\n".encode())
            _add(archive, f"jobs/{key}", None)
            for name, content in files.items():
                _add(archive, f"jobs/{key}/{options.check_path(name)}", content)
        _add(archive, f"tmp/{nonce}.list", body(lines))
    return target.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes | None) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o700 if content is None else 0o600
    member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    member.size = len(content or b"")
    member.mtime = int(datetime.now(UTC).timestamp())
    archive.addfile(member, io.BytesIO(content or b""))


def answers(parts: parse.Parts, batch: Sequence[Submission]) -> list[Answer]:
    """Lines `key number status id text`, one for each submission, in order."""
    found: dict[tuple[str, str], Answer] = {}
    for line in parse.lines(parts.get("answers", b"")):
        fields = line.split(" ", 4)
        if len(fields) == 5:
            found[fields[0], fields[1]] = answer(*fields[2:])
    wanted = [(submission.job.key, str(submission.number)) for submission in batch]
    return [found.get(each, Unknown("the wrapper did not tell")) for each in wanted]


def answer(status: str, job_id: str, text: str) -> Answer:
    """What one sbatch said: only a refusal that we know is one; a job id is one only after success."""
    if status == "0" and job_id.isdigit():
        return Accepted(job_id)
    if status == "down":
        return Declined(Refusal.LIMIT, "not tried: the scheduler does not answer")
    if status == "unclaimed":
        return Declined(Refusal.STORAGE, "the claim could not be written at the site")
    if status == "claimed":
        return Unknown("claimed before; the scheduler's answer is not known")
    if status == "1":
        return refusal(text)
    return Unknown(f"sbatch ended with status {status}: {text.strip('; ')[:300]}")


def status(place: Place, keys: Sequence[str]) -> Call[dict[str, Claim]]:
    """The claims of attempts."""
    return Call(place, "status", claims, body=body(options.check_keys(keys)))


def claims(parts: parse.Parts) -> dict[str, Claim]:
    """Lines `key number id run`, "-" for none."""
    found = {}
    for line in parse.lines(parts["claims"]):
        fields = line.split(" ")
        if len(fields) == 4:
            key, number, job_id, run = fields
            found[key] = Claim(parse.number(number), None if job_id == "-" else job_id, None if run == "-" else run)
    return found


def poll(place: Place, since: float) -> Call[tuple[Poll, float]]:
    """Everything of ours; the cursor is left to the caller, who gets the site's own present time."""
    return Call(place, "poll", _poll, words=(f"{max(0.0, since - LATE_S):.6f}",))


def _poll(parts: parse.Parts) -> tuple[Poll, float]:
    records, started, now = parse.changes(parts["files"])
    queue, load, foreign = parse.queue(parts["queue"]), parse.load(parts["load"]), parse.foreign(parts["queue"])
    return Poll(queue, records, "", started, load, foreign), now


def accounting(place: Place, keys: Sequence[str], since: datetime) -> Call[dict[str, list[Accounted]]]:
    """sacct by name, in UTC. It starts a little before `since`: sacct refuses a start that lies after its own now, and
    the site's clock need not be ours."""
    start = (min(since, datetime.now(UTC)) - SKEW).strftime("%Y-%m-%dT%H:%M:%S")
    return Call(
        place,
        "accounting",
        lambda parts: parse.accounting(parts["accounting"]),
        words=(start,),
        body=body(options.check_keys(keys)),
    )


def give_up(place: Place, keys: Sequence[str], epoch: int) -> Call[dict[str, bool]]:
    """Run claims as tombstones."""
    return Call(place, "give-up", _taken, body=body(options.check_keys(keys)), epoch=epoch)


def _taken(parts: parse.Parts) -> dict[str, bool]:
    pairs = (line.split(" ") for line in parse.lines(parts["taken"]))
    return {pair[0]: pair[1] == "1" for pair in pairs if len(pair) == 2}


def cancel(place: Place, keys: Sequence[str], epoch: int) -> Call[None]:
    """scancel of every job of these names."""
    return Call(place, "cancel", nothing, body=body(options.check_keys(keys)), epoch=epoch)


def cancel_foreign(place: Place, job_ids: Sequence[str], epoch: int) -> Call[None]:
    """scancel of jobs that are not of ours, by id."""
    return Call(place, "cancel-foreign", nothing, body=body(options.check_job_ids(job_ids)), epoch=epoch)


def seal(place: Place, moves: Mapping[str, str], epoch: int) -> Call[dict[str, Listing]]:
    """Rename finished out/ folders; the answer is by target path. Targets are deep enough never to be a bucket."""
    lines = [
        f"{key} {options.check_path(path, 'data', depth=5)}"
        for key, path in zip(options.check_keys(tuple(moves)), moves.values(), strict=True)
    ]
    return Call(place, "seal", _listings, words=(str(MOST_FILES),), body=body(lines), epoch=epoch, deadline_s=300)


def list_files(place: Place, paths: Sequence[str]) -> Call[dict[str, Listing]]:
    """What stands below each folder."""
    lines = [options.check_path(path) for path in paths]
    return Call(place, "list", _listings, words=(str(MOST_FILES),), body=body(lines), deadline_s=300)


def _listings(parts: parse.Parts) -> dict[str, Listing]:
    return parse.listings(parts["paths"], parts.get("files", b""))


def tail(place: Place, key: str, stream: str, offset: int, limit: int) -> Call[Chunk]:
    """Part of a log."""
    words = (*options.check_keys((key,)), stream, str(offset + 1), str(limit))
    return Call(
        place, "tail", lambda parts: Chunk(parts["log"], offset + len(parts["log"])), words=words, limit=limit + MIB
    )


def remove(place: Place, keys: Sequence[str], epoch: int) -> Call[None]:
    """Delete what attempts left."""
    return Call(place, "remove", nothing, body=body(options.check_keys(keys)), epoch=epoch, deadline_s=600)


def remove_data(place: Place, paths: Sequence[str], epoch: int) -> Call[None]:
    """Delete paths below data/."""
    lines = [options.check_path(path, "data", depth=2) for path in paths]
    return Call(place, "remove-data", nothing, body=body(lines), epoch=epoch, deadline_s=600)


def checksums(place: Place, path: str, names: Sequence[str]) -> Call[dict[str, str]]:
    """MD5 of files; names travel as they are."""
    words = (options.check_path(path),)
    names_body = b"".join(options.check_path(name).encode() + b"\0" for name in names)
    return Call(
        place, "checksums", lambda parts: parse.checksums(parts["sums"]), words=words, body=names_body, deadline_s=600
    )


def unpack(place: Place, path: str) -> Call[None]:
    """tar -x below a path; its input is streamed."""
    return Call(place, "unpack", nothing, words=(options.check_path(path),), deadline_s=120)
