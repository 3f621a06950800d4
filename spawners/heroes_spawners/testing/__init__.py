"""Fakes that pass the same contract suites as the real thing: a clock that moves when told, and a cluster in memory."""

from heroes_spawners.testing.clock import FakeClock
from heroes_spawners.testing.scheduler import Outcome
from heroes_spawners.testing.site import FakeSite

__all__ = ["FakeClock", "FakeSite", "Outcome"]
