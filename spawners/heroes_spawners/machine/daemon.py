"""The scheduler as a process of its own: `python -m heroes_spawners.machine.daemon FOLDER`.

One thread. It answers one line of JSON to one line of JSON on a Unix socket that only its own user may open, and works
a turn whenever a child ends, something is asked, or a second has passed. The platform's restart does not touch it; when
it is told to drain it starts nothing more and goes when the last job has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heroes_spawners.machine.book import Book
from heroes_spawners.machine.model import Machine, Request, refusal
from heroes_spawners.machine.scheduler import Scheduler
from heroes_spawners.site import State

#: Longest request: a batch of ten thousand submissions.
LIMIT = 8 * 2**20
TURN_S = 1.0


class Daemon:
    """Answers requests and keeps the scheduler at work."""

    def __init__(self, machine: Machine, book: Book) -> None:
        self._machine, self._book = machine, book
        self._scheduler = Scheduler(machine, book, time.time)
        self._answers = {
            "submit": self._submit,
            "queue": self._queue,
            "accounting": self._accounting,
            "cancel": self._cancel,
            "load": lambda _: self._scheduler.load(),
            "person": lambda asked: {"uid": book.uid(asked["name"], machine.first_uid)},
            "forget": lambda asked: book.forget(asked["keys"]),
            "ping": lambda _: self._ping(),
            "drain": self._drain,
        }

    def serve(self, listener: socket.socket, wake: socket.socket) -> None:
        """Work until it is drained and nothing runs."""
        self._scheduler.recover()
        with selectors.DefaultSelector() as selector:
            for each in (listener, wake):
                each.setblocking(False)
                selector.register(each, selectors.EVENT_READ)
            while True:
                busy = self._scheduler.turn()
                if self._scheduler.draining and not busy:
                    return
                for key, _ in selector.select(TURN_S):
                    if key.fileobj is wake:
                        with suppress(BlockingIOError):
                            wake.recv(4096)
                    else:
                        self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5.0)
                connection.sendall(self.answer(_line(connection)) + b"\n")

    def answer(self, line: bytes) -> bytes:
        """The answer to one request; a request that makes no sense is told so."""
        try:
            asked = json.loads(line)
            answer = {"answer": self._answers[asked["do"]](asked)}
        except (KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode()

    def _submit(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        live = self._book.live()
        waiting = {queue.name: sum(job.queue == queue.name for job in live) for queue in self._machine.queues}
        for each in asked["jobs"]:
            request = Request(**each)
            known = self._book.find(request.key, request.number)
            refused = None if known else refusal(self._machine, request, waiting.get(request.queue, 0))
            if refused:
                answers.append({"kind": refused[0], "text": refused[1]})
            else:
                answers.append({"job_id": self._book.add(request, time.time())})
                waiting[request.queue] += 1
        return answers

    def _queue(self, _: dict[str, Any]) -> dict[str, Any]:
        reasons = self._scheduler.reasons()
        jobs = [{**asdict(job), "reason": reasons.get(job.job_id, "")} for job in self._book.live()]
        return {"jobs": jobs, "load": self._scheduler.load()}

    def _accounting(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        self._scheduler.turn()
        return [asdict(job) for job in self._book.of(asked["keys"])]

    def _cancel(self, asked: dict[str, Any]) -> None:
        self._scheduler.cancel(asked["keys"])

    def _ping(self) -> dict[str, int]:
        live = self._book.live()
        running = sum(job.state is State.RUNNING for job in live)
        return {"pid": os.getpid(), "running": running, "pending": len(live) - running}

    def _drain(self, asked: dict[str, Any]) -> dict[str, int]:
        self._scheduler.draining = bool(asked["on"])
        if asked.get("cancel"):
            self._scheduler.cancel([job.key for job in self._book.live()])
        return self._ping()


def _line(connection: socket.socket) -> bytes:
    parts = bytearray()
    while not parts.endswith(b"\n") and len(parts) < LIMIT:
        chunk = connection.recv(65536)
        if not chunk:
            break
        parts += chunk
    return bytes(parts)


def listen(folder: Path) -> socket.socket:
    """A socket that only this user may open. Its path may be longer than the 107 bytes that an address may have, so it
    is named by way of its folder's descriptor."""
    (folder / "socket").unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    listener.bind(f"/proc/self/fd/{descriptor}/socket")
    os.umask(before)
    os.close(descriptor)
    listener.listen(64)
    return listener


def main() -> int:
    """Serve the scheduler of the folder named by the first argument; 0 at once where another one does already."""
    state = Path(sys.argv[1]) / "scheduler"
    lock = (state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return 0
    machine = Machine.from_json(json.loads((state / "machine.json").read_text()))
    wake, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    book = Book(state / "book.sqlite")
    daemon = Daemon(machine, book)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        daemon.serve(listen(state), wake)
    finally:
        book.close()
        (state / "socket").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
