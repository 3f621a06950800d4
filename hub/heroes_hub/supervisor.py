"""Keeps the platform's processes running: `python -m heroes_hub.supervisor FOLDER`.

Each part is a process in a session of its own that dies with the supervisor (PR_SET_PDEATHSIG), so that no orphan keeps
a port. A part that ends is started again, after a pause that grows from 0.2 to 5 seconds while it keeps ending. The
scheduler of this machine is looked after, but is no part: its jobs outlive the platform's restart.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_LOG_BYTES = 20 * 2**20


@dataclass(frozen=True)
class Part:
    """A process of the platform. `stop_s`: seconds that it gets to end by itself."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 6.0


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0
    pause_s: float = 0.0
    due: float = 0.0


class Supervisor:
    """Starts `parts` in order, keeps them running until `stop` is called, ends them in the opposite order."""

    def __init__(self, parts: Sequence[Part], log: Path, status: Path, look_after: Callable[[], None] | None) -> None:
        self._running = [_Running(part) for part in parts]
        self._log, self._status, self._look_after = log, status, look_after
        self._looked = 0.0
        self._stopping = False

    def stop(self, *_signal: object) -> None:
        """End at the next look."""
        self._stopping = True

    def run(self, look_s: float = 0.2) -> None:
        """Supervise until told to stop."""
        try:
            while not self._stopping:
                changed = [self._look(each) for each in self._running]
                if any(changed):
                    self._tell()
                if self._look_after is not None and time.monotonic() > self._looked + 5.0:
                    self._looked = time.monotonic()
                    self._look_after()
                time.sleep(look_s)
        finally:
            self._end_all()

    def _look(self, each: _Running) -> bool:
        """Start what is due; whether something changed."""
        now = time.monotonic()
        if each.process is not None and each.process.poll() is not None:
            self._note(each, f"ended with status {each.process.returncode}")
            _signal_group(each.process, signal.SIGKILL)
            calm = now - each.started > 30.0
            each.pause_s = 0.2 if calm or not each.pause_s else min(5.0, each.pause_s * 2)
            each.process, each.due = None, now + each.pause_s
            return True
        if each.process is None and now >= each.due:
            each.process, each.started, each.starts = self._start(each.part), now, each.starts + 1
            self._note(each, f"started as process {each.process.pid}")
            return True
        return False

    def _start(self, part: Part) -> subprocess.Popen[bytes]:
        with self._open_log(part.name) as log:
            return subprocess.Popen(
                list(part.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **part.environment},
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )

    def _open_log(self, name: str) -> IO[bytes]:
        path = self._log / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _note(self, each: _Running, said: str) -> None:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {each.part.name} {said}", flush=True)  # noqa: T201

    def _tell(self) -> None:
        told = {
            each.part.name: {"pid": each.process.pid if each.process else None, "starts": each.starts}
            for each in self._running
        }
        part = self._status.with_suffix(".part")
        part.write_text(json.dumps({"pid": os.getpid(), "parts": told}))
        part.replace(self._status)

    def _end_all(self) -> None:
        for each in reversed(self._running):
            if each.process is not None:
                _signal_group(each.process, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    each.process.wait(each.part.stop_s)
                _signal_group(each.process, signal.SIGKILL)
                each.process.wait()
                self._note(each, f"stopped with status {each.process.returncode}")
        self._status.unlink(missing_ok=True)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does first: ask the kernel for SIGTERM when `parent` dies, and go where that has happened."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def hold(run: Path) -> IO[str] | None:
    """The lock that says a supervisor runs, with its process number in it; None while another one holds it."""
    lock = (run / "supervisor.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def holder(run: Path) -> int | None:
    """The process number of the supervisor that runs; None when none does."""
    try:
        with (run / "supervisor.lock").open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(lock.read() or 0) or None
    except FileNotFoundError:
        pass
    return None


def told(status: Path) -> dict[str, Any]:
    """What the supervisor last wrote; {} when none runs."""
    try:
        return dict(json.loads(status.read_text()))
    except (OSError, ValueError):
        return {}


def main() -> int:
    """Prepare the platform in the folder named by the first argument, then supervise it."""
    from heroes_hub.home import Home
    from heroes_hub.platform import parts_of, prepare_platform

    home = Home(Path(sys.argv[1]).absolute())
    settings = home.prepare()
    lock = hold(home.run)
    if lock is None:
        print("another supervisor runs already", flush=True)  # noqa: T201
        return 1
    look_after = prepare_platform(home, settings)
    supervisor = Supervisor(parts_of(home, settings), home.log, home.run / "status.json", look_after)

    def stop(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    supervisor.run()
    lock.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
