"""A job as processes of this machine: start it, know it again after a restart, measure its memory, end all of it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_PAGE_MIB = resource.getpagesize() / 2**20


@dataclass(frozen=True)
class Process:
    """One line of the process table. `started` (ticks since boot) tells it from a later one with the same number."""

    pid: int
    parent: int
    session: int
    started: int
    zombie: bool
    rss_mib: float


@dataclass
class Table:
    """All processes of this machine at one moment."""

    processes: dict[int, Process] = field(default_factory=dict)

    @staticmethod
    def read() -> Table:
        """The process table now."""
        found = (_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
        return Table({each.pid: each for each in found if each})

    def alive(self, pid: int | None, started: int | None) -> bool:
        """Whether the process is there and is still the one that was started."""
        found = self.processes.get(pid or 0)
        return found is not None and found.started == started and not found.zombie

    def family(self, leader: int) -> set[int]:
        """`leader`, its descendants, and every process of its session."""
        children: dict[int, list[int]] = {}
        for each in self.processes.values():
            children.setdefault(each.parent, []).append(each.pid)
        found: set[int] = set()
        ahead = [leader, *(each.pid for each in self.processes.values() if each.session == leader)]
        while ahead:
            pid = ahead.pop()
            if pid in self.processes and pid not in found:
                found.add(pid)
                ahead += children.get(pid, [])
        return found

    def rss_mib(self, family: Iterable[int]) -> float:
        """Resident memory of these processes, without what they share with files."""
        return sum(self.processes[pid].rss_mib for pid in family if pid in self.processes)


def _process(pid: int) -> Process | None:
    """One process; None when it has gone. Fields as in proc(5): after the name in brackets, state is the first."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
        pages = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return None
    rest = text[text.rindex(b")") + 2 :].split()
    private = max(0, int(pages[1]) - int(pages[2]))
    zombie = rest[0] in (b"Z", b"X")
    return Process(pid, int(rest[1]), int(rest[3]), int(rest[19]), zombie, private * _PAGE_MIB)


def started_at(pid: int) -> int | None:
    """The start of a process in ticks since boot; None when there is none."""
    found = _process(pid)
    return found.started if found else None


def start(script: Path, base: Path, key: str, job_id: int, cpus: set[int]) -> subprocess.Popen[bytes]:
    """Start the job script of an attempt, in a session of its own, on `cpus`, with almost no environment."""
    folder = base / "jobs" / key
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HEROES_JOB_ID": str(job_id), "HOME": str(Path.home())}

    def prepare() -> None:
        if cpus:
            os.sched_setaffinity(0, cpus)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        return subprocess.Popen(
            ["/bin/sh", str(script), str(base), key],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,
        )


def find_script(base: Path, key: str) -> int | None:
    """The running job script of an attempt, looked for by its command line."""
    wanted = [str(base).encode(), key.encode()]
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")[2:4] == wanted:
                return int(name)
    return None


def end(family: Mapping[int, int], number: signal.Signals) -> None:
    """Signal each process (pid -> its start), unless the pid is another's by now."""
    for pid, started in family.items():
        if started_at(pid) == started:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
