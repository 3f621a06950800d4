"""`submit.makespan_ratio`: one run with a fan-out of 500 one-second jobs on real SLURM, each its own sbatch, until all
are settled and their outputs listed, against one SSH session that loops over sbatch until the last job has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

import heroes
from tests import lab
from tests.bench import Figure
from tests.bench._lab_platform import platform_on
from tests.lab import LabCluster

JOBS = 500
QUEUE = "dense"
#: The same work for both: a second's sleep and a line of output.
WORK = "sleep 1; echo done > result.txt"
TEMPLATE = f"""
name: bench-fan
title: Five hundred short jobs
parameters:
  numbers: {{type: list, items: integer, max_items: {JOBS}}}
steps:
  - name: work
    fan_out: numbers
    argv: [sh, -c, "{WORK}"]
    outputs: [{{glob: result.txt, required: true, max_mib: 1}}]
    resources: {{walltime_s: 300}}
"""
LOOP = f"""
mkdir -p bench-loop && cd bench-loop && rm -rf * && i=0
printf '#!/bin/sh\\nmkdir $SLURM_JOB_NAME && cd $SLURM_JOB_NAME && {{ {WORK}; }}\\n' > job.sh
while [ $i -lt {JOBS} ]; do
    sbatch --parsable --partition={QUEUE} --ntasks=1 --cpus-per-task=1 --time=5 --job-name=loop-$i \\
        --output=/dev/null job.sh > id || exit 1
    i=$((i + 1))
done
while [ -n "$(squeue --noheader --user=$LOGNAME)" ]; do sleep 0.2; done
ls */result.txt | wc -l
"""


def run() -> Iterator[Figure]:
    """The ratio, and both times."""
    alpha = lab.up().cluster("alpha")
    with platform_on(alpha, QUEUE) as engineer:
        looped = _loop(alpha)
        ours = _fan(engineer)
    peer = f"one SSH session looping sbatch: {looped:.1f} s"
    yield Figure("submit.makespan_ratio", ours / looped, "ratio", 1.2, "lower", peer, JOBS)
    yield Figure("submit.makespan_s", ours, "s", None, "lower", peer, JOBS)


def _loop(alpha: LabCluster) -> float:
    began = time.monotonic()
    told = alpha.ssh(LOOP, timeout=900).stdout.split()
    took = time.monotonic() - began
    assert told == [str(JOBS)], f"the loop's jobs left {told} results"
    return took


def _fan(engineer: heroes.Heroes) -> float:
    workflow = engineer.workflows.publish(TEMPLATE)
    option = workflow.decide(numbers=list(range(JOBS))).best
    began = time.monotonic()
    made = option.submit().wait(900)
    listed = [each for each in made.results if each.key.endswith("result.txt")]
    took = time.monotonic() - began
    assert made.state == "done", f"the run is {made.state}: {made.reason}"
    assert len(listed) == JOBS, f"{len(listed)} results are listed"
    return took
