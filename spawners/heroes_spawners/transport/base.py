"""What a transport promises, and the one place that quotes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from heroes.api.errors import InvalidSpec

Answer_co = TypeVar("Answer_co", covariant=True)


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit status, and all of its output."""

    returncode: int
    stdout: bytes = b""
    stderr: bytes = b""


class Stream(Protocol):
    """A running command that reads what is written."""

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises `LinkDown` when it does not get there in time."""

    def finish(self) -> Completed:
        """Close the command's input and wait for its end."""


class Transport(Protocol):
    """Runs commands at a site. Thread-safe. Any trouble on the way is `LinkDown`: it may have happened."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, deadline_s: float, limit: int) -> Completed:
        """Run `argv` and wait. `LinkDown` after `deadline_s`, or when it answers more than `limit` bytes."""

    def open(self, argv: Sequence[str], *, deadline_s: float) -> Stream:
        """Start `argv` for a long input; `deadline_s` bounds each write and the end."""

    def remote(self) -> Mapping[str, str]:
        """The rclone settings of the file system that commands see."""

    def close(self) -> None:
        """Give connections back."""


class Command(Protocol[Answer_co]):
    """One remote effect: what to run, and how to read what it answers."""

    @property
    def deadline_s(self) -> float:
        """Seconds until the answer is given up."""

    @property
    def limit(self) -> int:
        """Bytes that it may answer."""

    def argv(self) -> tuple[str, ...]:
        """The program and its arguments."""

    def stdin(self) -> bytes:
        """What it reads."""

    def parse(self, completed: Completed) -> Answer_co:
        """The answer. Raises when the command failed or its output is not whole."""


def execute(transport: Transport, command: Command[Answer_co]) -> Answer_co:
    """Run `command` and read its answer."""
    completed = transport.run(command.argv(), command.stdin(), deadline_s=command.deadline_s, limit=command.limit)
    return command.parse(completed)


def check_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """`argv`, or `InvalidSpec` when an argument cannot be one: NUL, a lone surrogate, or no program at all."""
    if not argv or not argv[0]:
        raise InvalidSpec("a command needs a program", hint="Give at least one argument.")
    for word in argv:
        try:
            encoded = word.encode()
        except UnicodeEncodeError:
            encoded = b"\0"
        if b"\0" in encoded:
            hint = "Remove NUL characters and lone surrogates."
            raise InvalidSpec(f"{word!a} cannot be an argument of a program", hint=hint)
    return tuple(argv)


def quote(argv: Sequence[str]) -> str:
    """The shell text that a POSIX shell splits into exactly `argv`."""
    return shlex.join(check_argv(argv))
