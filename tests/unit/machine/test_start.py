"""Starting a job when the machine does not let it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from heroes_spawners.machine import scheduler
from heroes_spawners.machine.book import Book
from heroes_spawners.machine.model import Machine, Queue, Request
from heroes_spawners.site import State

KEY = "01HV0000000000000000000001"


@pytest.mark.parametrize("error", [subprocess.SubprocessError("Exception occurred in preexec_fn."), OSError("fork")])
def test_a_job_that_cannot_be_started_ends_as_a_failure_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The scheduler itself goes on: the job is told as a failure of the machine, which charges nobody."""
    (tmp_path / "jobs" / KEY).mkdir(parents=True)
    (tmp_path / "jobs" / KEY / "script").write_text("/bin/true")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(scheduler, "start", fail)
    book = Book(tmp_path / "book.sqlite")
    book.add(Request(KEY, 1, "cpu", 1, 0, 60), 1.0)
    scheduler.Scheduler(Machine(tmp_path, 1, (Queue("cpu", 1, 0),)), book, lambda: 2.0).turn()
    [job] = book.of([KEY])
    book.close()
    assert (job.state, job.pid) == (State.NODE_FAIL, None)
