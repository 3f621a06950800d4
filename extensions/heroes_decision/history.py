"""What past jobs tell: rings of the last observations, so that a decision costs the same after ten jobs and a million.

A ring belongs to a level: the class of a job (user, template, step, shape), its template's step, its user, or a place.
Each observation of a run is the part of its time limit that it used, on a machine of reference speed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from heroes_decision.model import Spread, spread_of

Level = Literal["class", "template", "user", "request"]
LEVELS: tuple[Level, ...] = ("class", "template", "user")
#: How many observations a ring holds.
LONGEST = 64
#: An observation counts this much less than the next newer one.
_FADING = 0.97
#: Assumed before anything is known: many jobs end at once, most use a small part of their limit, some all of it.
_RATIO_PRIOR = (0.0005, 0.01, 0.08, 0.35, 1.0)
#: Seconds in a queue with free cores, and in one without.
_WAIT_FREE = (0.0, 1.0, 3.0, 10.0, 60.0)
_WAIT_BUSY = (30.0, 300.0, 1800.0, 7200.0, 28800.0)
#: The same on the platform's own machine, which has few users and short queues.
_WAIT_BUSY_HERE = (1.0, 10.0, 60.0, 300.0, 1200.0)
#: Ratio of power used to power modelled, and of memory used to memory asked for.
_POWER_PRIOR = (0.7, 0.9, 1.0, 1.1, 1.3)
_MEMORY_PRIOR = (0.05, 0.2, 0.4, 0.7, 1.0)
#: All prior values together count as much as this many observations.
_PRIOR_WEIGHT = 1.5


@dataclass(frozen=True)
class Seen:
    """One job that ended: part of its limit used at reference speed, actual over modelled power, part of its memory."""

    ratio: float
    power: float = 1.0
    memory: float = 0.0


@dataclass(frozen=True)
class Job:
    """What a job's rings are found by."""

    organisation: str
    user: str
    template: str
    step: str
    cores: int

    def keys(self) -> dict[Level, str]:
        """The name of the ring at each level."""
        return {
            "class": _digest(self.organisation, self.user, self.template, self.step, str(self.cores)),
            "template": _digest(self.organisation, self.template, self.step),
            "user": _digest(self.organisation, self.user),
        }


def place_key(cluster: str, queue: str, free: bool) -> str:
    """The name of the ring of waits at a place, with free cores or without."""
    return _digest("wait", cluster, queue, "free" if free else "busy")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Known:
    """What the rings say of one job: the narrowest level with observations."""

    level: Level
    jobs: int
    ratio: Spread
    power: Spread
    memory: Spread


def known(rings: Mapping[str, Sequence[Sequence[float]]], job: Job) -> Known:
    """The narrowest level that has observations, its distributions mixed with what is assumed before."""
    keys = job.keys()
    for level in LEVELS:
        held = [Seen(*each) for each in rings.get(keys[level], ())]
        if held:
            return _known(level, held)
    return _known("request", [])


def _known(level: Level, held: Sequence[Seen]) -> Known:
    return Known(
        level,
        len(held),
        _mixed([each.ratio for each in held], _RATIO_PRIOR),
        _mixed([each.power for each in held], _POWER_PRIOR),
        _mixed([each.memory for each in held if each.memory > 0], _MEMORY_PRIOR),
    )


def wait(
    rings: Mapping[str, Sequence[Sequence[float]]], cluster: str, queue: str, free: bool, *, own: bool = False
) -> Spread:
    """Seconds in a queue, from what was waited there in the same state; `own`: it is the platform's own machine."""
    held = [each[0] for each in rings.get(place_key(cluster, queue, free), ())]
    busy = _WAIT_BUSY_HERE if own else _WAIT_BUSY
    return _mixed(held, _WAIT_FREE if free else busy)


def _mixed(observed: Sequence[float], prior: Sequence[float]) -> Spread:
    newest_first = list(reversed(observed))
    weighted = [(value, _FADING**age) for age, value in enumerate(newest_first)]
    return spread_of([*weighted, *((value, _PRIOR_WEIGHT / len(prior)) for value in prior)])
