"""Readers of what SLURM and the wrapper print. Defensive: a line that is not ours or not whole is left out, and no
input makes them raise anything but errors of the tree."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from heroes.api.errors import Conflict, HeroesError, LinkDown, SchedulerDown, StoreBusy
from heroes.api.ids import ULID
from heroes_spawners.site import Accounted, Listing, Queued, Record, SiteFile
from heroes_spawners.slurm.options import JOB_ID
from heroes_spawners.slurm.words import accounting_state, queue_state
from heroes_spawners.transport import Completed

Parts = Mapping[str, bytes]
_RECORD = re.compile(r"(\d{1,18}) (-?\d{1,6}) (\d{1,12}(?:\.\d{1,9})?)")


def frame(completed: Completed, nonce: str) -> dict[str, bytes]:
    """The parts of the wrapper's answer, by name. `LinkDown` when its end is missing; its own errors are raised."""
    begin, end = f"begin {nonce}\n".encode(), f"\nend {nonce}\n".encode()
    _, found, body = completed.stdout.partition(begin)
    if not found or not body.endswith(end):
        told = completed.stderr.decode(errors="replace").strip()[-300:]
        detail = f"exit status {completed.returncode}{': ' + told if told else ''}"
        raise LinkDown(
            f"the cluster's answer is not whole ({detail})", hint="It may have happened: ask for the status."
        )
    parts: dict[str, bytes] = {}
    for piece in (b"\n" + body[: -len(end)]).split(f"\npart {nonce} ".encode())[1:]:
        name, _, content = piece.partition(b"\n")
        parts[name.decode(errors="replace")] = content
    if "error" in parts:
        kind, _, text = parts["error"].decode(errors="replace").partition("\n")
        raise trouble(kind, text.strip()[:500])
    return parts


def trouble(kind: str, text: str) -> HeroesError:
    """The error that the wrapper reports."""
    if kind == "stale":
        return Conflict(f"another engine has this cluster, with epoch {text}", hint="Give the cluster up.")
    if kind == "storage":
        hint = "Free space or quota at the centre, then try again."
        return StoreBusy(f"the site cannot write or read its files: {text}", hint=hint, detail={"site": True})
    if kind in ("truncated", "usage"):
        return LinkDown(f"the cluster did not get the whole request: {text}", hint="Try again.")
    return SchedulerDown(f"the scheduler does not answer: {text}", hint="Wait; nothing is marked failed meanwhile.")


def lines(data: bytes) -> Iterator[str]:
    """The lines of a text; bytes that are no UTF-8 are replaced."""
    return iter(data.decode(errors="replace").split("\n"))


def instant(text: str) -> datetime | None:
    """A time as SLURM prints it with TZ=UTC; None for N/A, Unknown, None or anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def number(text: str) -> int:
    """The leading digits of "4", "4-8" or "4K"; 0 where there are none."""
    if len(text) <= 20 and text.isascii() and text.isdigit():
        return int(text)
    digits = re.match(r"\d{1,15}", text)
    return int(digits[0]) if digits else 0


def queue(data: bytes) -> tuple[Queued, ...]:
    """squeue's lines `id|state|reason|submitted|start|cpus|nodes|name`, our jobs only."""
    found = []
    for line in lines(data):
        fields = line.split("|", 7)
        if len(fields) == 8 and JOB_ID.fullmatch(fields[0]) and ULID.fullmatch(fields[7]):
            found.append(_queued(fields))
    return tuple(found)


def foreign(data: bytes) -> dict[str, str]:
    """Jobs of the same lines that are not named like ours, by id; an array or a heterogeneous job by its first part."""
    found = {}
    for line in lines(data):
        fields = line.split("|", 7)
        job_id = re.split(r"[_+]", fields[0])[0]
        if len(fields) == 8 and JOB_ID.fullmatch(job_id) and not ULID.fullmatch(fields[7]):
            found[job_id] = fields[7]
    return found


def _queued(fields: list[str]) -> Queued:
    job_id, word, reason, submitted, start, cpus, nodes, key = fields
    state, begins = queue_state(word), instant(start)
    pending = state.value == "pending"
    started, expected = (None, begins) if pending else (begins, None)
    reason = "" if reason == "None" else reason
    return Queued(key, job_id, state, reason, instant(submitted), started, expected, number(cpus), number(nodes))


def load(data: bytes) -> dict[str, tuple[int, int]]:
    """sinfo's lines `partition|allocated/idle/other/total`, added up: free and total CPUs."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines(data):
        match = re.fullmatch(r"([^|]+)\|(\d+)/(\d+)/(\d+)/(\d+)", line.strip())
        if match:
            free, total = found.get(match[1], (0, 0))
            found[match[1]] = (free + int(match[3]), total + int(match[5]))
    return found


def changes(data: bytes) -> tuple[tuple[Record, ...], dict[str, str], float]:
    """The tar of changed records and run claims: records, who runs what, and the file system's present time."""
    records: list[Record] = []
    started: dict[str, str] = {}
    stamp = 0.0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.name == "tmp/stamp":
                    stamp = float(member.mtime)
                elif member.isfile() and member.size <= 65536:
                    content = archive.extractfile(member)
                    _take(member.name, content.read() if content else b"", records, started)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise LinkDown(f"the list of changes is not whole: {error}", hint="Try again.") from error
    if not stamp:
        raise LinkDown("the list of changes has no time", hint="Try again.")
    return tuple(records), started, stamp


def _take(path: str, content: bytes, records: list[Record], started: dict[str, str]) -> None:
    folder, _, name = path.partition("/")
    text = content.decode(errors="replace")
    if folder == "records" and ULID.fullmatch(name):
        record = _record(name, text)
        if record is not None:
            records.append(record)
    elif folder == "run" and name.endswith("/owner") and ULID.fullmatch(name.removesuffix("/owner")):
        owner = text.split(" ", 1)[0]
        if JOB_ID.fullmatch(owner):
            started[name.removesuffix("/owner")] = owner


def _record(key: str, text: str) -> Record | None:
    """`<job id> <exit code> <elapsed>` and, below it, the energy report; None for anything else."""
    first, _, energy = text.partition("\n")
    match = _RECORD.fullmatch(first)
    return Record(key, match[1], int(match[2]), float(match[3]), energy.strip()) if match else None


def accounting(data: bytes) -> dict[str, list[Accounted]]:
    """sacct's lines, jobs of ours by key, oldest first, with the largest memory of their steps.

    Fields: JobIDRaw, State, ExitCode, Submit, Start, End, ElapsedRaw, AllocCPUS, AllocNodes, AllocTRES, MaxRSS,
    JobName. A step's line ("12.batch") follows its job's."""
    found: dict[str, list[Accounted]] = {}
    last: Accounted | None = None
    for line in lines(data):
        fields = line.split("|", 11)
        if len(fields) != 12:
            continue
        if JOB_ID.fullmatch(fields[0]):
            last = _accounted(fields) if ULID.fullmatch(fields[11]) else None
            if last is not None:
                found.setdefault(last.key, []).append(last)
        elif last is not None and fields[0].startswith(f"{last.job_id}."):
            last = found[last.key][-1] = _with_memory(last, fields[10])
    for jobs in found.values():
        jobs.sort(key=lambda job: (job.submitted_at or _NEVER, job.started_at or _NEVER, int(job.job_id)))
    return found


_NEVER = datetime.max.replace(tzinfo=UTC)
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "": 1 / 1024**2}


def _accounted(fields: list[str]) -> Accounted:
    job_id, state, code, submitted, start, end, elapsed, cpus, nodes, tres, _, key = fields
    gpus = re.search(r"(?:^|,)gres/gpu=(\d{1,6})", tres)
    return Accounted(
        key=key,
        job_id=job_id,
        state=accounting_state(state),
        exit_code=exit_code(code),
        submitted_at=instant(submitted),
        started_at=instant(start),
        ended_at=instant(end),
        elapsed_s=float(number(elapsed)),
        cpus=number(cpus),
        nodes=number(nodes),
        gpus=int(gpus[1]) if gpus else 0,
    )


def _with_memory(job: Accounted, text: str) -> Accounted:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMGT]?)", text)
    used = float(match[1]) * _UNITS[match[2]] if match else 0.0
    return Accounted(**{**vars(job), "max_rss_mib": max(job.max_rss_mib, used)})


def exit_code(text: str) -> int:
    """ "3:0" is 3, "0:9" is 137 as a shell would say."""
    code, _, signal = text.partition(":")
    return number(code) or (128 + number(signal) if number(signal) else 0)


def listings(paths: bytes, files: bytes) -> dict[str, Listing]:
    """find's entries `type, size, mtime, ctime, inode, start NEWLINE path NUL`, by the path asked for."""
    found: dict[str, tuple[list[SiteFile], list[str]]] = {}
    for path in lines(paths):
        if path:
            found[path.removeprefix("./")] = ([], [])
    for entry in files.split(b"\0")[:-1]:
        head, _, raw = entry.partition(b"\n")
        fields = head.decode(errors="replace").split("\t")
        if len(fields) == 6 and fields[5].removeprefix("./") in found:
            regular, skipped = found[fields[5].removeprefix("./")]
            _list_one(fields, raw, regular, skipped)
    return {
        path: Listing(tuple(sorted(regular, key=lambda file: file.path)), tuple(sorted(skipped)))
        for path, (regular, skipped) in found.items()
    }


def _list_one(fields: list[str], raw: bytes, regular: list[SiteFile], skipped: list[str]) -> None:
    """A regular file with a name that we can carry, or the name of what is skipped."""
    kind, size, mtime, ctime, inode, _ = fields
    shown = raw.decode(errors="backslashreplace")
    plain = kind == "f" and raw.decode(errors="replace").isprintable() and "\\x" not in shown
    if not plain:
        skipped.append(ascii(shown)[1:-1])
        return
    regular.append(SiteFile(shown, number(size), nanoseconds(mtime), nanoseconds(ctime), number(inode)))


def nanoseconds(text: str) -> int:
    """ "1700000000.1234567890" (seconds as find prints them) as integer nanoseconds."""
    seconds, _, fraction = text.partition(".")
    if len(fraction) >= 9 and len(text) <= 40 and text.isascii() and (seconds + fraction).isdigit():
        return int(seconds + fraction[:9])
    return number(seconds) * 10**9 + number(fraction[:9].ljust(9, "0"))


def checksums(data: bytes) -> dict[str, str]:
    """md5sum -z: `digest  name NUL`."""
    found = {}
    for entry in data.split(b"\0"):
        digest, _, name = entry.partition(b"  ")
        if re.fullmatch(rb"[0-9a-f]{32}", digest):
            found[name.decode(errors="surrogateescape")] = digest.decode()
    return found


def duration(text: str) -> int | None:
    """Seconds of "[days-]hours:minutes:seconds", "minutes:seconds"; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d{1,6})-)?(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2})", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return int(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds())
