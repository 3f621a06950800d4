"""Waiting for conditions with a deadline: the lab's only way to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class LabError(RuntimeError):
    """The lab could not do what was asked; the text says what and where to look."""


def wait_for(what: str, question: Callable[[], Value], seconds: float = 60.0, pause: float = 0.05) -> Value:
    """Ask until the answer is true and return it; `LabError` naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise LabError(f"{what}: still not so after {seconds:g} s")
        time.sleep(pause)
