"""The engine killed anywhere, and the cluster's controller with it: everything is executed once and paid exactly."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from heroes_jobs.desk import FAILPOINTS
from heroes_jobs.model import Phase
from tests.crash.campaign import Campaign, campaign, kill_at_random, seed
from tests.crash.counting import check_money, delivered, executions
from tests.lab import Lab, faults, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


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


def arrange(here: Campaign, call: str) -> None:
    """Bring about what makes an engine pass a point: a submission whose fate is unknown, a job to be cancelled, or
    (enough for most) jobs with an input on their way."""
    if call in ("status", "traces"):
        here.submit(1)
        here.start("jobs.call.submit.before")
        assert here.dies(60)
    elif call in ("give_up", "cancel", "stops"):
        keys = here.submit(1, seconds=(300,))
        here.start()
        wait_for("it runs", lambda: here.phases(keys) == {Phase.RUNNING})
        here.kill()
        here.cancel(keys)
    else:
        here.submit(1, with_input=True)


def test_engine_killed_at_every_failpoint(lab: Lab, tmp_path: Path) -> None:
    """An engine killed once at each named point leaves nothing that the next one does not bring to its right end."""
    alpha = lab.cluster("alpha")
    points = [point for point in FAILPOINTS if ".remove." not in point]
    with faults.watched(alpha) as calls, campaign(tmp_path, alpha, lab.root) as here:
        for point in points:
            arrange(here, point.split(".")[2])
            here.start(point)
            assert here.dies(90), f"no engine came to {point}: {here.stories()}"
        here.finish()
        ended = Counter(row.status for row in here.rows().values())
        cancelled = sum(point.split(".")[2] in ("give_up", "cancel", "stops") for point in points)
        assert ended == {Phase.DONE: len(here.keys) - cancelled, Phase.CANCELLED: cancelled}
        submitted = calls.submissions()
        assert {key: submitted[key] for key in here.keys} == dict.fromkeys(here.keys, 1)
        assert executions(here) == dict.fromkeys(here.keys, 1)
        check_money(here)


@pytest.mark.parametrize("side", ["before", "after"])
def test_engine_killed_while_it_removes_folders(lab: Lab, tmp_path: Path, side: str) -> None:
    """An engine killed around the removal of finished folders: the next one removes them, a tombstone stays."""
    alpha = lab.cluster("alpha")
    with campaign(tmp_path, alpha, lab.root, keep_days=0.0) as here:
        [key] = here.submit(1)
        here.finish()
        here.start(f"jobs.call.remove.{side}")
        assert here.dies(60)
        here.start()
        job = Path(here.plan.base, "jobs", key)
        wait_for("the folder is removed", lambda: not job.exists() and here.rows()[key].cleaned)
        here.stop()
        assert Path(here.plan.base, "run", key, "owner").exists()
        assert delivered(here) == {0: b"0\n"}


def test_controller_killed_after_a_burst(lab: Lab, tmp_path: Path) -> None:
    """slurmctld killed right after 30 answers of sbatch: what it forgot is submitted again, nothing runs twice, and
    every step is done, by its first attempt or by a new one."""
    alpha = lab.cluster("alpha")
    rules = {"silent_s": 45.0}
    with faults.watched(alpha) as calls, campaign(tmp_path, alpha, lab.root, chunk=30, rules=rules) as here:
        keys = here.submit(30, seconds=(2, 5))
        here.start()
        wait_for("all are submitted", lambda: sum(calls.submissions().values()) == 30, 120)
        wait_for("all are answered", lambda: here.phases(keys) <= {Phase.QUEUED, Phase.RUNNING, Phase.DONE}, 60)
        faults.kill_controller(alpha)
        wait_for("every attempt ends", lambda: not here.live(), 400, pause=0.5)
        here.stop()
        rows = here.rows().values()
        assert sorted(row.position for row in rows if row.status == Phase.DONE) == list(range(30))
        assert {row.status for row in rows} <= {Phase.DONE, Phase.LOST}
        executed = executions(here)
        assert max(executed.values()) == 1
        assert all(executed[row.key] == 1 for row in rows if row.status == Phase.DONE)
        assert delivered(here) == {number: f"{number}\n".encode() for number in range(30)}
        check_money(here)


@pytest.mark.parametrize("guard", ["no-claim", "no-run-claim"])
def test_without_its_guards_the_same_test_is_red(lab: Lab, tmp_path: Path, guard: str) -> None:
    """The test of the test: without the claim (the name is still looked up) submissions are doubled; without the run
    claim, too, executions are. (sbatch is slow enough here to land after a fresh engine has looked.)"""
    chosen = seed()
    chance = random.Random(chosen)
    alpha = lab.cluster("alpha")
    with (
        faults.delayed_sbatch(alpha, chosen, longest_s=5.0) as calls,
        campaign(tmp_path, alpha, lab.root, guard=guard, chunk=60, rules={"reclaim_s": 0.0}) as here,
    ):
        keys = here.submit(60)

        def red() -> bool:
            counted = calls.submissions() if guard == "no-claim" else executions(here)
            return any(counted[key] > 1 for key in keys if key in counted)

        for _ in range(40):
            here.start()
            time.sleep(chance.uniform(1.0, 4.0))
            here.kill()
            if red():
                break
        if not red():
            here.start()
            wait_for("red", red, 120)
        if guard == "no-claim":
            assert set(executions(here).values()) <= {0, 1}
