"""Asking the scheduler of this machine, and starting it where it does not run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from heroes.api.errors import SchedulerDown
from heroes_spawners.machine.model import Machine

_DEADLINE_S = 30.0


class Client:
    """Speaks with the daemon of the machine whose base directory is `folder`."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "scheduler"
        self._folder = folder

    def ask(self, do: str, **asked: Any) -> Any:
        """One question, one answer. SchedulerDown when the daemon does not answer."""
        line = json.dumps({"do": do, **asked}).encode() + b"\n"
        try:
            answer = json.loads(self._exchange(line))
        except (OSError, ValueError) as error:
            hint = "Start it: heroes up."
            raise SchedulerDown(f"the scheduler of this machine does not answer: {error}", hint=hint) from error
        if "error" in answer:
            raise SchedulerDown(f"the scheduler of this machine refused {do!r}: {answer['error']}")
        return answer["answer"]

    def _exchange(self, line: bytes) -> bytes:
        descriptor = os.open(self._state, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_DEADLINE_S)
                connection.connect(f"/proc/self/fd/{descriptor}/socket")
                connection.sendall(line)
                with connection.makefile("rb") as answer:
                    return answer.readline()
        finally:
            os.close(descriptor)

    def runs(self) -> bool:
        """Whether the daemon answers."""
        try:
            self.ask("ping")
        except SchedulerDown:
            return False
        return True

    def ensure(self, *, deadline_s: float = 20.0) -> None:
        """Start the daemon where it does not run, and take back an order to drain."""
        if not self.runs():
            self.launch()
            until = time.monotonic() + deadline_s
            while not self.runs():
                if time.monotonic() > until:
                    said = (self._state / "log").read_text(errors="replace")[-500:]
                    raise SchedulerDown(f"the scheduler of this machine did not start: {said}")
                time.sleep(0.05)
        self.ask("drain", on=False)

    def launch(self) -> None:
        """Start the daemon as a process of its own, which outlives this one."""
        with (self._state / "log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "heroes_spawners.machine.daemon", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )


def configure(machine: Machine) -> None:
    """Write the scheduler's settings; a daemon that runs takes them when it starts next."""
    state = machine.folder / "scheduler"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = state / "machine.json.part"
    part.write_text(json.dumps(machine.to_json(), indent=1))
    part.replace(state / "machine.json")


def configured(folder: Path) -> Machine:
    """The settings that were written. SchedulerDown where there are none."""
    try:
        return Machine.from_json(json.loads((folder / "scheduler" / "machine.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        hint = "Set it up: heroes up."
        raise SchedulerDown(f"this machine is not set up as a cluster in {folder}: {error}", hint=hint) from error
