"""Canaries: small jobs through the real wrapper, one in each partition, which compare what was asked for with what the
site made of it, and look around on a compute node."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from heroes.api.errors import InvalidSpec, SchedulerDown
from heroes.api.ids import new_ulid
from heroes_spawners.isolation import Bind, Facts, View, enclose, lock
from heroes_spawners.programs import APPLICATIONS, ENGINES
from heroes_spawners.runtime.bundle import PROGRAMS
from heroes_spawners.runtime.shell import words
from heroes_spawners.site import CANARY, Accepted, Declined, Job, Shape, Submission
from heroes_spawners.slurm import parse
from heroes_spawners.slurm.site import SlurmSite

_SHAPE = Shape(walltime_s=120)
_SHOW_JOB = 'PATH=$PATH:/usr/local/bin:/opt/slurm/bin; export TZ=UTC; exec scontrol -o show job "$1"'


@dataclass(frozen=True)
class Node:
    """What a canary found in one partition, or why there was none (`refused`)."""

    refused: str = ""
    isolation: str = "none"
    programs: frozenset[str] = frozenset()
    applications: frozenset[str] = frozenset()
    container: str = ""
    offline: bool = False
    ear: bool = False
    gpus: int = 0
    clock_skew_s: float = 0.0
    variables: frozenset[str] = frozenset()
    #: arch, glibc, cpu_model, python, python_version, python_prefix.
    platform: Mapping[str, str] = field(default_factory=dict)

    def own(self) -> dict[str, Any]:
        """What is told of the partition by itself."""
        return {"cpu_model": self.platform.get("cpu_model", ""), "arch": self.platform.get("arch", "")}


def run(
    site: SlurmSite, partitions: Sequence[str], facts: Mapping[str, Any], epoch: int, patience_s: float
) -> dict[str, Node]:
    """A canary in each partition, by partition. InvalidSpec when the site does not do what was asked; SchedulerDown
    when they do not run within `patience_s`."""
    keys = {name: CANARY + new_ulid()[len(CANARY) :] for name in partitions}
    batch = [
        (Submission(Job(key, name, _SHAPE, ("/bin/true",))), files(site, key, facts)) for name, key in keys.items()
    ]
    answers = dict(zip(keys, site.hand_over(batch, epoch), strict=True))
    accepted = {name: answer.job_id for name, answer in answers.items() if isinstance(answer, Accepted)}
    try:
        jobs = {name: _show(site, job_id) for name, job_id in accepted.items()}
        for name, job in jobs.items():
            _compare(site, name, keys[name], job)
        _wait(site, {keys[name] for name in accepted}, patience_s)
        nodes = {name: _read(site, keys[name], accepted[name]) for name in accepted}
    finally:
        site.give_up(list(keys.values()), epoch)
        site.cancel(list(keys.values()), epoch)
    site.remove(list(keys.values()), epoch)
    for name, answer in answers.items():
        if isinstance(answer, Declined):
            nodes[name] = Node(refused=answer.text)
        elif name not in nodes:
            raise SchedulerDown(f"the canary in {name} got no answer", hint="It is tried again.")
    return nodes


def files(site: SlurmSite, key: str, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a canary: its program, and what it is to try."""
    folder = f"{site.base}/jobs/{key}"
    runtime = site.place.runtime
    views = {
        means: View(
            site.base, folder, (Bind(f"{folder}/out", f"{folder}/out", writable=True),), _trial(site, facts, means)
        )
        for means in ("heroes-isolate", "unshare")
    }
    look = [f"{' && '.join(map(_is_there, programs))} && say application {name}" for name, programs in _sought()]
    program = "\n".join(
        (
            f"runtime={words([runtime])}",
            f'by_program() {{ {words(enclose(views["heroes-isolate"]))} "$@"; }}',
            f'by_unshare() {{ {words(enclose(views["unshare"]))} "$@"; }}',
            "look_for_programs() {",
            *look,
            *(f"{_is_there(engine)} && say container {engine}" for engine in ENGINES),
            ":",
            "}",
            resources.files("heroes_spawners.runtime").joinpath("probe-node.sh").read_text(),
        )
    )
    return {
        "launch": b'set -- /bin/sh "$folder/probe"\n',
        "probe": program.encode(),
        "lock": lock(views["unshare"]).encode(),
    }


def _is_there(program: str) -> str:
    return f"command -v {program} >/dev/null"


def _sought() -> list[tuple[str, tuple[str, ...]]]:
    return sorted(APPLICATIONS.items())


def _trial(site: SlurmSite, facts: Mapping[str, Any], means: str) -> Facts:
    return Facts.of({**facts, "runtime": site.place.runtime, "isolation": means, "programs": PROGRAMS})


def _show(site: SlurmSite, job_id: str) -> dict[str, str]:
    """The scheduler's own record of a job, soon after its submission; {} when it was forgotten already."""
    argv = ("sh", "-c", _SHOW_JOB, "heroes", job_id)
    done = site.transport.run(argv, deadline_s=30, limit=1 << 20)
    if done.returncode and b"Invalid job id" not in done.stderr + done.stdout:
        told = done.stderr.decode(errors="replace").strip()[-300:]
        raise SchedulerDown(f"the canary cannot be looked at: {told}", hint="It is tried again.")
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout.decode(errors="replace")))


def _compare(site: SlurmSite, name: str, key: str, job: Mapping[str, str]) -> None:
    """What was asked for is what the scheduler has; a job that has left its memory already cannot be compared."""
    if not job:
        return
    wanted = {
        "JobName": key,
        "Partition": name,
        "WorkDir": f"{site.base}/jobs/{key}",
        "Requeue": "0",
        "TimeLimit": "00:02:00",
    }
    for what, value in wanted.items():
        if what in job and job[what] != value:
            hint = "Ask the centre for an exception from its submission plugin."
            raise InvalidSpec(f"in {name} the site changes {what}: {value} was asked for, {job[what]} it is", hint=hint)


def _wait(site: SlurmSite, keys: set[str], patience_s: float) -> None:
    until, pause, cursor = time.monotonic() + patience_s, 0.3, ""
    missing = set(keys)
    while missing:
        poll = site.poll(cursor)
        cursor = poll.cursor
        missing -= {record.key for record in poll.records}
        if not missing:
            return
        waiting = {job.key: job.reason for job in poll.queue if job.key in missing}
        if time.monotonic() > until:
            _give_reason(waiting, missing, patience_s)
        time.sleep(pause)
        pause = min(3.0, pause * 1.3)


def _give_reason(waiting: Mapping[str, str], missing: set[str], patience_s: float) -> None:
    if missing & set(waiting):
        told = ", ".join(sorted({reason or "running" for reason in waiting.values()}))
        raise SchedulerDown(
            f"the canaries did not end within {patience_s:.0f} s ({told})", hint="They are tried again."
        )
    hint = "Choose a base directory on storage that login and compute nodes share."
    raise InvalidSpec("a canary ended without leaving its record in the base directory", hint=hint)


def _read(site: SlurmSite, key: str, job_id: str) -> Node:
    """What a canary printed. Untrusted like all output, but nobody else's code has run there yet."""
    text = site.tail(key, "stdout", 0, 1 << 20).data
    said: dict[str, list[str]] = {}
    for line in parse.lines(text):
        name, given, value = line.partition(" ")
        if given:
            said.setdefault(name, []).append(value.strip())
    if "end" not in said:
        log = site.tail(key, "stderr", 0, 2000).data.decode(errors="replace").strip()
        hint = "Look at the centre's job log."
        raise InvalidSpec(f"a canary did not come to its end: {log[-300:] or 'it said nothing'}", hint=hint)
    one = {name: values[0] for name, values in said.items()}
    started = parse.instant(_show(site, job_id).get("StartTime", "")) or datetime.now(UTC)
    platform = ("arch", "glibc", "cpu_model", "python", "python_version", "python_prefix")
    return Node(
        isolation=one["isolation"],
        programs=frozenset(said.get("program", ())),
        applications=frozenset(said.get("application", ())),
        container=one.get("container", ""),
        offline="offline" in one,
        ear="ear" in one,
        gpus=parse.number(one.get("gpus", "0")),
        clock_skew_s=parse.number(one["clock"]) - started.timestamp(),
        variables=frozenset(said.get("variable", ())),
        platform={name: one[name] for name in platform if name in one},
    )
