"""The supervisor, with parts that only sleep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from heroes_hub import supervisor
from heroes_hub.supervisor import Part, Supervisor

T = TypeVar("T")


def wait(look: Callable[[], T | None], seconds: float = 30.0) -> T:
    """The first answer that is not None."""
    until = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
    return found


class Supervised:
    """A supervisor in a thread."""

    def __init__(self, folder: Path, parts: list[Part], look_after: Callable[[], None] | None = None) -> None:
        self.status = folder / "status.json"
        self.supervisor = Supervisor(parts, folder, self.status, look_after)
        self.thread = threading.Thread(target=self.supervisor.run, args=(0.02,))
        self.thread.start()

    def pid(self, name: str, starts: int = 1) -> int:
        """The process of a part once it was started so many times."""

        def look() -> int | None:
            part = supervisor.told(self.status).get("parts", {}).get(name)
            return part["pid"] if part and part["pid"] and part["starts"] >= starts else None

        return wait(look)

    def stop(self) -> None:
        self.supervisor.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Starts supervisors; stops what a test leaves."""
    made: list[Supervised] = []

    def start(*parts: Part, look_after: Callable[[], None] | None = None) -> Supervised:
        made.append(Supervised(tmp_path, list(parts), look_after))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def sleeper(name: str, script: str = "exec sleep 600", stop_s: float = 5.0) -> Part:
    """A part that sleeps."""
    return Part(name, ["/bin/sh", "-c", script], stop_s=stop_s)


def test_parts_start_and_stop(begin: Callable[..., Supervised]) -> None:
    """Every part runs; after the stop none does, and there is no status any more."""
    running = begin(sleeper("one"), sleeper("two"))
    pids = [running.pid("one"), running.pid("two")]
    assert all(alive(pid) for pid in pids)
    running.stop()
    assert not any(alive(pid) for pid in pids)
    assert supervisor.told(running.status) == {}


def test_a_killed_part_is_back(begin: Callable[..., Supervised]) -> None:
    """Killed with -9 it is started again at once, and the other parts are left alone."""
    running = begin(sleeper("one"), sleeper("two"))
    first, other = running.pid("one"), running.pid("two")
    began = time.monotonic()
    os.kill(first, signal.SIGKILL)
    assert running.pid("one", starts=2) != first
    assert time.monotonic() - began < 10
    assert running.pid("two") == other


def test_a_part_that_keeps_ending_is_started_ever_more_rarely(begin: Callable[..., Supervised]) -> None:
    """The pause grows, so that a part that cannot start does not burn the machine; it is never given up."""
    running = begin(sleeper("one", "exit 3"))
    began = time.monotonic()

    def starts() -> int:
        return int(supervisor.told(running.status).get("parts", {}).get("one", {}).get("starts", 0))

    wait(lambda: True if starts() >= 4 else None)
    assert time.monotonic() - began >= 0.2 + 0.4 + 0.8


def test_what_a_part_started_ends_with_it(begin: Callable[..., Supervised], tmp_path: Path) -> None:
    """A part's children are killed when it dies: none keeps a port."""
    script = f"sleep 600 & echo $! > {tmp_path}/child; exec sleep 600"
    running = begin(sleeper("one", script))
    pid = running.pid("one")
    child = int(wait(lambda: ((tmp_path / "child").exists() and (tmp_path / "child").read_text().strip()) or None))
    os.kill(pid, signal.SIGKILL)
    wait(lambda: True if not alive(child) else None)


def test_a_part_that_ignores_the_stop_is_killed(begin: Callable[..., Supervised], tmp_path: Path) -> None:
    """After its time to end a part is killed; the stop lasts no longer."""
    running = begin(sleeper("one", f"trap '' TERM; touch {tmp_path}/up; sleep 600 & wait; sleep 600", stop_s=0.2))
    pid = running.pid("one")
    wait(lambda: True if (tmp_path / "up").exists() else None)
    running.stop()
    assert not alive(pid)


def test_logs_are_kept_and_turned_over(begin: Callable[..., Supervised], tmp_path: Path) -> None:
    """What a part says is in its log; a log that has grown is put aside at the next start."""
    (tmp_path / "one.log").write_bytes(b"x" * (20 * 2**20 + 1))
    running = begin(sleeper("one", "echo hello; exec sleep 600"))
    running.pid("one")
    wait(lambda: True if b"hello" in (tmp_path / "one.log").read_bytes() else None)
    assert (tmp_path / "one.log.1").stat().st_size > 20 * 2**20


def test_the_machine_is_looked_after(begin: Callable[..., Supervised]) -> None:
    """What is to be looked after is, from the start."""
    looked = threading.Event()
    begin(sleeper("one"), look_after=looked.set)
    assert looked.wait(10)


def test_parts_die_with_their_supervisor(tmp_path: Path) -> None:
    """Killed with -9, a supervisor takes its parts with it."""
    program = (
        "import sys; from pathlib import Path; from heroes_hub.supervisor import Part, Supervisor; "
        f"folder = Path({str(tmp_path)!r}); "
        "Supervisor([Part('one', ['/bin/sleep', '600'])], folder, folder / 'status.json', None).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", program])

    def part() -> int | None:
        found = supervisor.told(tmp_path / "status.json").get("parts", {}).get("one", {}).get("pid")
        return int(found) if found else None

    pid = wait(part)
    process.kill()
    process.wait()
    wait(lambda: True if not alive(pid) else None)


def test_only_one_supervisor_holds_a_folder(tmp_path: Path) -> None:
    """The second gets no lock and is told who has it; a lock that was let go is free."""
    assert supervisor.holder(tmp_path) is None
    lock = supervisor.hold(tmp_path)
    assert lock is not None
    assert supervisor.hold(tmp_path) is None
    assert supervisor.holder(tmp_path) == os.getpid()
    lock.close()
    assert supervisor.holder(tmp_path) is None
