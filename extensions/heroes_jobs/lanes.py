"""Slow calls (submissions, transfers) in threads of their own, so that none of them holds a poll.

A lane carries one call at a time: while it is under way, what becomes ready for it gathers, and travels together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

Ended = Callable[[Any], None]


class Executor(Protocol):
    """Where calls are made: a thread pool, or at once in the caller's thread."""

    def submit(self, function: Callable[[], Any], /) -> Future[Any]:
        """Begin the call."""


class AtOnce:
    """Makes each call before it returns: for tests in one thread."""

    def submit(self, function: Callable[[], Any], /) -> Future[Any]:
        """Make the call."""
        future: Future[Any] = Future()
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001 - whatever it is, `result()` raises it in the caller
            future.set_exception(error)
        return future


@dataclass
class Lanes:
    """Calls under way, by lane. `wake` is called, from the call's own thread, when one has ended."""

    executor: Executor
    wake: Callable[[], None] = lambda: None
    _under_way: dict[Hashable, tuple[Future[Any], Ended]] = field(default_factory=dict)

    def free(self, lane: Hashable) -> bool:
        """Whether no call of that lane is under way."""
        return lane not in self._under_way

    def begin(self, lane: Hashable, call: Callable[[], Any], ended: Ended) -> None:
        """Make `call` there; `collect` hands what it returned to `ended`."""
        future = self.executor.submit(call)
        self._under_way[lane] = (future, ended)
        future.add_done_callback(lambda _future: self.wake())

    def collect(self) -> int:
        """Hand on what has ended; how many calls that were. A call must tell of its errors by what it returns."""
        done = [lane for lane, (future, _) in self._under_way.items() if future.done()]
        for lane in done:
            future, ended = self._under_way.pop(lane)
            ended(future.result())
        return len(done)

    def forget(self) -> None:
        """Drop what is under way: its effects are asked for anew."""
        self._under_way.clear()

    def __len__(self) -> int:
        return len(self._under_way)


def threads(name: str, count: int = 6) -> ThreadPoolExecutor:
    """Threads for the lanes of one cluster."""
    return ThreadPoolExecutor(count, thread_name_prefix=f"{name}-{threading.get_native_id()}")
