"""Jobs of several tasks: by srun over two nodes at a SLURM cluster, by mpirun within one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from heroes.api.ids import new_ulid
from heroes_ear.compile import compile_all
from heroes_spawners.site import Accepted, Job, Shape, Submission
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from tests.contract.rigs import ssh_transport
from tests.lab import Lab
from tests.lab.fixtures import lab
from tests.system.test_escapes import EPOCH, Target

__all__ = ["lab"]


@pytest.fixture(scope="module")
def alpha(lab: Lab) -> Iterator[Target]:
    """The HPC centre of the lab."""
    assert compile_all() == []
    cluster = lab.cluster("alpha")
    base = cluster.home / "parallel"
    facts = {
        "isolation": "heroes-isolate",
        "programs": ["earl-run", "heroes-isolate"],
        "home": str(cluster.home),
    }
    site = SlurmSite(ssh_transport(cluster), SlurmSettings(str(base), facts=facts))
    site.prepare(EPOCH)
    yield Target(site, base, cluster.home, "cpu")
    site.close()


def submit(alpha: Target, shape: Shape, *argv: str, parallel: bool) -> str:
    """Submit a job of several tasks; its key."""
    job = Job(new_ulid(), "cpu", shape, argv, environment={"MARK": "it's $(here)"}, parallel=parallel)
    (answer,) = alpha.site.submit([Submission(job)], EPOCH)
    assert isinstance(answer, Accepted), answer
    return job.key


def test_tasks_of_two_nodes_enter_the_isolation(alpha: Target) -> None:
    """Each task runs on its node, isolated, with the job's environment, and is measured by itself."""
    script = 'echo "$SLURM_NNODES $SLURM_PROCID $MARK $(ls -A ' + str(alpha.base) + ')"'
    key = submit(alpha, Shape(nodes=2, tasks=4, walltime_s=120), "sh", "-c", script, parallel=True)
    record = alpha.record(key)
    assert record.exit_code == 0, alpha.site.tail(key, "stderr", 0, 10000).data.decode()
    lines = sorted(alpha.said(key).splitlines())
    assert lines == [f"2 {rank} it's $(here) jobs" for rank in range(4)]
    assert record.energy.count('"format": "heroes-energy"') == 4


def test_a_task_that_fails_ends_the_job(alpha: Target) -> None:
    """The others are stopped at once, and the job has failed."""
    script = '[ "$SLURM_PROCID" = 1 ] && exit 6; sleep 60'
    key = submit(alpha, Shape(nodes=1, tasks=2, walltime_s=120), "sh", "-c", script, parallel=True)
    record = alpha.record(key)
    assert record.exit_code != 0
    assert record.elapsed_s < 50


def test_mpirun_works_within_a_node(alpha: Target) -> None:
    """`mpirun -np 2` as a job's own words, inside the isolation, with no option of ours."""
    if not shutil.which("mpirun", path="/usr/bin"):
        pytest.skip("Open MPI is not installed")
    key = submit(
        alpha,
        Shape(tasks=2, walltime_s=120),
        "mpirun",
        "-np",
        "2",
        "sh",
        "-c",
        "echo $OMPI_COMM_WORLD_RANK",
        parallel=False,
    )
    record = alpha.record(key)
    assert record.exit_code == 0, alpha.site.tail(key, "stderr", 0, 10000).data.decode()
    assert sorted(alpha.said(key).split()) == ["0", "1"]
