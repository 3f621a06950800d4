"""`poll.commands_per_minute_ratio`: scheduler commands counted at the login node while 1,000 jobs live, against one;
`poll.state_lag_s`: how long after its end (by SLURM's accounting) a job's state is known here, 1,000 others about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import heroes
from heroes.api import jobs
from heroes.runs import Run
from tests import lab
from tests.bench import Figure
from tests.bench._lab_platform import platform_on
from tests.lab import LabCluster, faults, wait_for

LIVE = 1000
WINDOW_S = 300.0
#: Between the last change and the window: the engine's polls have become as rare as they get.
CALM_S = 60.0
#: Seconds that the jobs of the second figure take: as many as fit beside one on alpha's 32 CPUs, ending one by one.
LENGTHS = tuple(range(60, 215, 5))
SLEEP_S = 3000
TEMPLATE = """
name: bench-sleep
title: Jobs that sleep
parameters:
  lengths: {type: list, items: integer, max_items: 2000}
steps:
  - name: sleep
    fan_out: lengths
    argv: [sleep, "{{item}}"]
    outputs: [{max_mib: 1}]
    resources: {walltime_s: 3600}
"""


def run() -> Iterator[Figure]:
    """The ratio of the counts, and the 95th percentile of the lags."""
    alpha = lab.up().cluster("alpha")
    with platform_on(alpha, "cpu") as engineer:
        engineer.workflows.publish(TEMPLATE)
        first = _begin(engineer, [SLEEP_S])
        one = _count(alpha)
        others = _begin(engineer, [*LENGTHS, *[SLEEP_S] * (LIVE - 1)])
        lags = sorted(_lags(alpha, engineer, others))
        many = _count(alpha)
        first.cancel(), others.cancel()
    told = f"{one} commands in {WINDOW_S:g} s with one live job"
    yield Figure("poll.commands_per_minute_ratio", many / one, "ratio", 1.05, "lower", told, many)
    p95 = lags[min(int(len(lags) * 0.95), len(lags) - 1)]
    yield Figure("poll.state_lag_s", p95, "s", 15.0, "lower", "SLURM's accounting: end of the job", len(lags))


def _begin(engineer: heroes.Heroes, lengths: list[int]) -> Run:
    """Submit jobs and wait until SLURM has every one of them."""
    made = engineer.workflows["bench-sleep"].decide(lengths=lengths).best.submit()

    def all_there() -> bool:
        return not any(job.phase in ("held", "waiting", "staging-in", "submitting") for job in made.jobs)

    wait_for("every job is queued or running", all_there, 600, pause=2.0)
    return made


def _count(alpha: LabCluster) -> int:
    """Scheduler commands in one window of calm."""
    time.sleep(CALM_S)
    with faults.watched(alpha) as calls:
        time.sleep(WINDOW_S)
        return len(calls.seen())


def _lags(alpha: LabCluster, engineer: heroes.Heroes, made: Run) -> list[float]:
    """Seconds from the end of each short job to the end of its attempt here."""
    wait_for("the short jobs are done", lambda: made.refresh().jobs_done == len(LENGTHS), 600, pause=1.0)
    attempts = engineer.client.pages(jobs.LIST, jobs.ListAttempts(instance=made.id, limit=500))
    ended = {each.job_id: each.ended_at.timestamp() for each in attempts if each.ended_at is not None}
    ends = _ends(alpha, list(ended))
    return [at - ends[job] for job, at in ended.items()]


def _ends(alpha: LabCluster, ids: list[str]) -> dict[str, float]:
    words = ("env", "TZ=UTC", "sacct", "-XnP", "-j", ",".join(ids), "-o", "JobIDRaw,End")
    rows = [line.split("|") for line in alpha.run(*words).stdout.split()]
    return {job: datetime.fromisoformat(end).replace(tzinfo=UTC).timestamp() for job, end in rows}
