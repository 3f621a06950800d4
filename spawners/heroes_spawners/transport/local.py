"""Commands on this machine, with the same bounds as remote ones."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from heroes.api.errors import LinkDown
from heroes_spawners.transport.base import Completed, check_argv

_CHUNK = 65536


class LocalTransport:
    """Runs commands as children of this process, each in a process group of its own."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment) if environment is not None else None

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, deadline_s: float, limit: int) -> Completed:
        """Run `argv` and wait; what still runs at the deadline is killed."""
        with self._start(argv) as process:
            try:
                out, err = _converse(process, stdin, time.monotonic() + deadline_s, limit)
                return Completed(process.wait(deadline_s), out, err)
            except (TimeoutError, subprocess.TimeoutExpired):
                raise LinkDown(f"{argv[0]} did not end within {deadline_s:g} s", hint="Try again later.") from None
            finally:
                _kill(process)

    def open(self, argv: Sequence[str], *, deadline_s: float) -> LocalStream:
        """Start `argv` for a long input."""
        return LocalStream(self._start(argv), deadline_s)

    def remote(self) -> Mapping[str, str]:
        """This machine's own file system."""
        return {"type": "local"}

    def close(self) -> None:
        """Nothing is kept open."""

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        words = check_argv(argv)
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, start_new_session=True
            )
        except OSError as error:
            raise LinkDown(f"{words[0]} cannot be started: {error}", hint="Check that it is installed.") from error


class LocalStream:
    """The input of a running child."""

    def __init__(self, process: subprocess.Popen[bytes], deadline_s: float) -> None:
        self._process, self._deadline_s = process, deadline_s

    def write(self, data: bytes) -> None:
        """Send all of `data`; a child that has gone is told of by `finish`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(data)

    def finish(self) -> Completed:
        """Close the child's input and wait for its end."""
        try:
            out, err = self._process.communicate(timeout=self._deadline_s)
        except subprocess.TimeoutExpired:
            raise LinkDown(f"the stream did not end within {self._deadline_s:g} s", hint="Try again.") from None
        finally:
            _kill(self._process)
        return Completed(self._process.returncode, out, err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the child's process group, when the child itself has not ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _converse(process: subprocess.Popen[bytes], stdin: bytes, until: float, limit: int) -> tuple[bytes, bytes]:
    """Write `stdin` and read both outputs at once, until both end."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    source, pending = process.stdin, memoryview(stdin)
    output = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    reading = set(output)
    with selectors.DefaultSelector() as selector:
        for descriptor in output:
            selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(source.fileno(), False)
        selector.register(source, selectors.EVENT_WRITE)
        while reading:
            ready = selector.select(max(0.0, until - time.monotonic()))
            if time.monotonic() > until:
                raise TimeoutError
            for key, _ in ready:
                if key.fileobj is source:
                    pending = _feed(source, pending, selector)
                elif not _drain(key.fd, output[key.fd], limit):
                    selector.unregister(key.fd)
                    reading.discard(key.fd)
    out, err = output.values()
    return bytes(out), bytes(err)


def _feed(source: IO[bytes], pending: memoryview, selector: selectors.BaseSelector) -> memoryview:
    """Write what fits; close the input after the last byte, or when nobody reads it any more."""
    try:
        pending = pending[os.write(source.fileno(), pending[:_CHUNK]) :] if pending else pending
    except BrokenPipeError:
        pending = memoryview(b"")
    if not pending:
        selector.unregister(source)
        with suppress(BrokenPipeError):
            source.close()
    return pending


def _drain(descriptor: int, taken: bytearray, limit: int) -> bool:
    """Read once; False at the end."""
    data = os.read(descriptor, _CHUNK)
    taken += data
    if len(taken) > limit:
        raise LinkDown(f"the command answered more than {limit} bytes", hint="Ask for less.")
    return bool(data)
