"""A scheduler of this machine in a temporary folder, as a daemon of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from heroes.api.errors import SchedulerDown
from heroes.api.ids import new_ulid
from heroes_ear.compile import compile_all
from heroes_spawners.machine.client import Client, configure
from heroes_spawners.machine.model import Machine, Queue
from heroes_spawners.machine.site import MachineSite
from heroes_spawners.site import Accepted, Accounted, Job, Shape, Submission

QUEUES = (Queue("small", 1, 256, max_walltime_s=600), Queue("large", 4, 2048, max_walltime_s=7200, max_jobs=50))
#: More than the machine may have, so that the tests are the same on every machine.
CPUS = 4
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
T = TypeVar("T")


class Rig:
    """A machine's site, its daemon, and what a test does with them."""

    def __init__(self, folder: Path) -> None:
        people = os.geteuid() == 0
        self.machine = Machine(folder, CPUS, QUEUES, people=people, kill_wait_s=0.5)
        configure(self.machine)
        self.client = Client(folder)
        self.client.ensure()
        self.site = MachineSite(self.machine)
        self.site.prepare(1)

    def job(self, *argv: str, queue: str = "small", **more: Any) -> Job:
        shape = Shape(
            cpus_per_task=more.pop("cpus", 1), memory_mib=more.pop("memory_mib", 0), walltime_s=more.pop("limit", 60)
        )
        tags = {"HEROES_ORGANIZATION_NAME": "acme", "HEROES_USER_ID": "ada"}
        return replace(Job(new_ulid(), queue, shape, argv, environment=tags), **more)

    def submit(self, job: Job, number: int = 1) -> str:
        (answer,) = self.site.submit([Submission(job, number)], 1)
        assert isinstance(answer, Accepted), answer
        return answer.job_id

    def entry(self, job: Job) -> Accounted:
        found = self.site.accounting([job.key], LONG_AGO)[job.key]
        return found[-1]

    def ended(self, job: Job) -> Accounted:
        return wait(lambda: entry if (entry := self.entry(job)).ended_at else None)

    def started(self, job: Job) -> Accounted:
        return wait(lambda: entry if (entry := self.entry(job)).started_at else None)

    def out(self, job: Job, stream: str = "stdout") -> str:
        return self.site.tail(job.key, stream, 0, 100000).data.decode()

    def kill_daemon(self) -> None:
        os.kill(self.client.ask("ping")["pid"], signal.SIGKILL)
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until the daemon has ended: its lock is free."""
        with (self.machine.folder / "scheduler" / "lock").open("w") as lock:
            wait(lambda: _locked(lock.fileno()))

    def close(self) -> None:
        with suppress(SchedulerDown):
            self.client.ask("drain", on=True, cancel=True)
        self.wait_gone()


def _locked(descriptor: int) -> bool | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return True


def wait(look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The first answer of `look` that is not None."""
    until = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A fresh machine with two queues; nothing of it is left behind."""
    assert compile_all() == []
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-machine-"))
    made = Rig(folder)
    yield made
    made.close()
    shutil.rmtree(folder)
