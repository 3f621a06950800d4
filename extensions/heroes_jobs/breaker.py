"""The circuit breaker of a cluster: after three failures it is asked only now and then. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

FAILURES = 3
#: Seconds between probes of a cluster that does not answer: decorrelated jitter between these.
SHORTEST_S, LONGEST_S = 5.0, 300.0


@dataclass(frozen=True)
class Breaker:
    """Failures in a row, since when (seconds since 1970), and when to ask again."""

    failures: int = 0
    since: float | None = None
    pause_s: float = 0.0
    retry_at: float = 0.0
    trouble: str = ""

    @property
    def open(self) -> bool:
        """Whether the cluster counts as unreachable."""
        return self.failures >= FAILURES

    def failed(self, at: float, trouble: str, chance: float) -> Breaker:
        """One more failure. `chance` in [0, 1) draws the pause: between 5 s and three times the last one, 300 s at most
        (decorrelated jitter, as AWS's architecture blog describes it)."""
        longest = min(max(3 * self.pause_s, 2 * SHORTEST_S), LONGEST_S)
        pause = SHORTEST_S + chance * (longest - SHORTEST_S)
        first = at if self.since is None else self.since
        if self.failures + 1 < FAILURES:
            return replace(self, failures=self.failures + 1, since=first, retry_at=at + 1.0, trouble=trouble)
        return Breaker(self.failures + 1, first, pause, at + pause, trouble)

    def may_ask(self, at: float) -> bool:
        """Whether the cluster may be asked now."""
        return at >= self.retry_at
