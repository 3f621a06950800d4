"""The simulated histories that unit tests have no time for: see `tests/unit/jobs/test_simulation.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.jobs.test_simulation import QUICK_PARTS, History, check_histories, memory, play
from tests.unit.jobs.world import World

__all__ = ["memory", "play"]


@pytest.mark.parametrize("part", range(len(QUICK_PARTS), 10))
def test_histories_end_with_each_attempt_run_once_and_settled(
    play: Callable[..., tuple[History, World]],
    part: int,
) -> None:
    """As in the unit tests, on the other seeds."""
    check_histories(play, part)
