"""Watching and delaying the scheduler commands of a cluster's account: a wrapper stands in the place of each command
inside the cluster, whatever PATH the caller has, and is taken away again. Root's own calls pass by unseen."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cluster import LabCluster, read_pid
from tests.lab.wait import LabError

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun", "sacctmgr", "sstat", "sprio")
#: As many delays are drawn beforehand; a longer run uses them again.
DRAWN = 5000

WRAPPER = """\
#!/bin/sh
[ -w "{root}/keys" ] && exec "{root}/real/{command}" "$@"
read -r now _ < /proc/uptime
printf '%s call {command} %s\\n' "$now" "$*" >> "{root}/calls/log"
"""
PASS = 'exec "{root}/real/{command}" "$@"\n'
#: The delay is split: part before the real command, part between its end and its answer.
DELAY = """\
number=$(grep -c '^[0-9.]* call sbatch ' "{root}/calls/log")
read -r before after <<END
$(sed -n "$((number % {drawn} + 1))p" "{root}/calls/delays")
END
sleep "$before"
"{root}/real/{command}" "$@"
code=$?
read -r now _ < /proc/uptime
printf '%s done {command} %s %s\\n' "$now" "$code" "$*" >> "{root}/calls/log"
sleep "$after"
exit "$code"
"""


@dataclass(frozen=True)
class Call:
    """One call: seconds since boot, the command, its arguments; `code` is None for a call, else its exit status."""

    at: float
    command: str
    words: tuple[str, ...]
    code: int | None

    @property
    def job_name(self) -> str:
        """What `--job-name=` says, "" without."""
        names = [word.partition("=")[2] for word in self.words if word.startswith("--job-name=")]
        return names[-1] if names else ""


@dataclass(frozen=True)
class Calls:
    """The calls seen so far."""

    log: Path

    def seen(self, command: str = "") -> list[Call]:
        """Calls begun, of one command or of all, oldest first."""
        return [call for call in self._read() if call.code is None and command in ("", call.command)]

    def submissions(self) -> dict[str, int]:
        """Job name -> how often sbatch was called for it and not refused (a call that never came back counts)."""
        calls = self._read()
        totals = {call.job_name: 0 for call in calls if call.command == "sbatch"}
        for call in calls:
            if call.command == "sbatch":
                totals[call.job_name] += 1 if call.code is None else -(call.code != 0)
        return totals

    def _read(self) -> list[Call]:
        calls = []
        for line in self.log.read_text().splitlines():
            parts = line.split(" ")
            if not re.fullmatch(r"[0-9]+\.[0-9]+ (call|done) [a-z]+( .*)?", line):
                continue
            done = parts[1] == "done"
            calls.append(Call(float(parts[0]), parts[2], tuple(parts[3 + done :]), int(parts[3]) if done else None))
        return calls


@contextlib.contextmanager
def watched(cluster: LabCluster, delay_s: float = 0.0, seed: int = 0) -> Iterator[Calls]:
    """Write down every scheduler command of the account; hold each sbatch up for 0 to `delay_s` seconds, drawn from
    `seed`. One at a time on a cluster."""
    take(cluster)
    prepare(cluster, delay_s, seed)
    try:
        for command in COMMANDS:
            cluster.run("mount", "--bind", str(cluster.root / "wrap" / command), f"/usr/bin/{command}")
        yield Calls(cluster.root / "calls" / "log")
    finally:
        unwrap(cluster)
        (cluster.root / "calls" / "owner").unlink()


def take(cluster: LabCluster) -> None:
    """Be the only one who watches; wrappers of a process that was killed are taken away."""
    owner = cluster.root / "calls" / "owner"
    owner.parent.mkdir(exist_ok=True)
    if read_pid(owner):
        raise LabError(f"the commands of {cluster.name} are watched already, by process {read_pid(owner)}")
    if owner.exists():
        unwrap(cluster)
    owner.write_text(str(os.getpid()))


def unwrap(cluster: LabCluster) -> None:
    """Put the real commands back. Lazily: a call that is still running keeps its wrapper open."""
    mounts = Path(f"/proc/{cluster.keeper_pid}/mounts").read_text().splitlines()
    for target in [line.split()[1] for line in mounts]:
        if target in {f"/usr/bin/{command}" for command in COMMANDS}:
            cluster.run("umount", "--lazy", target)


def prepare(cluster: LabCluster, delay_s: float, seed: int) -> None:
    """Wrappers, copies of the real commands, the list of delays and an empty log."""
    for name in ("real", "wrap"):
        (cluster.root / name).mkdir(exist_ok=True)
    for command in COMMANDS:
        copy = cluster.root / "real" / command
        copy.unlink(missing_ok=True)  # one that still runs cannot be written
        shutil.copy2(f"/usr/bin/{command}", copy)
        write_wrapper(cluster, command, bool(delay_s))
    draw = random.Random(seed)
    totals = [draw.uniform(0, delay_s) for _ in range(DRAWN)]
    parts = [(total, draw.uniform(0, total)) for total in totals]
    delays = "".join(f"{part:.3f} {total - part:.3f}\n" for total, part in parts)
    (cluster.root / "calls" / "delays").write_text(delays)
    log = cluster.root / "calls" / "log"
    log.write_text("")
    log.chmod(0o666)


def write_wrapper(cluster: LabCluster, command: str, delayed: bool) -> None:
    """The wrapper of one command."""
    text = WRAPPER + (DELAY if delayed and command == "sbatch" else PASS)
    path = cluster.root / "wrap" / command
    path.unlink(missing_ok=True)
    path.write_text(text.format(root=cluster.root, command=command, drawn=DRAWN))
    path.chmod(0o755)
