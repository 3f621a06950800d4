"""Named points at which a crash test kills the process. Nothing happens unless `HEROES_FAILPOINT` names one."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

_WANTED = os.environ.get("HEROES_FAILPOINT", "")
#: Every name that this process has passed, for the test that enumerates them; kept only while one is wanted.
passed: set[str] = set()


def failpoint(name: str) -> None:
    """Kill this process, as a power cut would, where `HEROES_FAILPOINT` is `name`."""
    if not _WANTED:
        return
    passed.add(name)
    if name == _WANTED:
        _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit(137)
