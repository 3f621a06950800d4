"""The engine killed anywhere, and the cluster's controller with it: everything is executed once and paid exactly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from heroes_jobs.desk import FAILPOINTS
from heroes_jobs.model import Phase
from tests.crash.campaign import campaign, kill_at_random, seed
from tests.crash.counting import check_money, delivered, executions
from tests.lab import Lab, faults

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
#: Points on the way of every job; the others are passed only after a crash, by a cancellation or by housekeeping.
ALWAYS = tuple(point for point in FAILPOINTS if point.split(".")[2] not in ("stage_in", "staged", "remove"))


def test_engine_killed_at_random_points(lab: Lab, tmp_path: Path) -> None:
    """40 kills while 100 jobs run and sbatch is slow: 100 submissions, 100 executions, 100 results, an exact ledger."""
    chosen = seed()
    alpha = lab.cluster("alpha")
    with faults.delayed_sbatch(alpha, chosen) as calls, campaign(tmp_path, alpha, lab.root) as here:
        keys = here.submit(100, seconds=(1, 2, 4, 8))
        busy = kill_at_random(here, 40, 3.0, random.Random(chosen))
        here.finish()
        assert busy >= 20, f"only {busy} of 40 kills met an engine at work"
        assert {row.status for row in here.rows().values()} == {Phase.DONE}
        submitted = calls.submissions()
        assert {key: submitted[key] for key in keys} == dict.fromkeys(keys, 1)
        assert executions(here) == dict.fromkeys(keys, 1)
        assert delivered(here) == {number: f"{number}\n".encode() for number in range(100)}
        check_money(here)
