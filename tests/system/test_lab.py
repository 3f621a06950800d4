"""The lab itself: what its clusters are, that each fault works and is undone, and that nothing is left of it.

These tests break what they use, so they have a lab of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab, LabCluster, LabError, daemons, down, faults, lifecycle, processes, up, wait_for
from tests.lab.cluster import finish

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


@pytest.fixture(scope="module")
def own_folder() -> Iterator[Path]:
    """A state folder of its own, removed whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("the lab's SLURM clusters need root")
    root = Path(tempfile.mkdtemp(prefix="heroes-lab-", dir="/var/tmp"))
    root.chmod(0o755)
    yield root
    down(root)


@pytest.fixture(scope="module")
def own(own_folder: Path) -> Lab:
    """A lab that nobody else uses."""
    return up(own_folder)


@pytest.fixture
def alpha(own: Lab) -> LabCluster:
    """The HPC centre."""
    return own.cluster("alpha")


@pytest.fixture
def cumulus(own: Lab) -> LabCluster:
    """The cloud cluster."""
    return own.cluster("cumulus")


def submit(cluster: LabCluster, command: str, *options: str) -> str:
    """Submit a shell command as the account, with an empty environment; the job's id."""
    words = ["env", "-i", "sbatch", "--parsable", "--export=NONE", "--output=out-%j", *options, f"--wrap={command}"]
    return cluster.ssh(shlex.join(words)).stdout.strip()


def state(cluster: LabCluster, job: str) -> str:
    """The state of a job as the controller knows it."""
    text = cluster.run("scontrol", "-o", "show", "job", job).stdout
    return text.partition("JobState=")[2].split()[0]


def ended(cluster: LabCluster, job: str) -> str:
    """The state a job ends in."""
    wait_for(f"job {job} ends", lambda: state(cluster, job) in ENDED, 200)
    return state(cluster, job)


def output(cluster: LabCluster, job: str) -> str:
    """What a job printed."""
    return (cluster.home / f"out-{job}").read_text()


def pids(cluster: LabCluster) -> set[int]:
    """The processes of the cluster's daemons."""
    files = cluster.run_folder.glob("*.pid")
    return {int(file.read_text()) for file in files}


def test_second_up_changes_nothing(own: Lab, own_folder: Path) -> None:
    """Bringing up a lab that runs gives the same lab and leaves every daemon as it is."""
    before = [pids(cluster) for cluster in own.clusters]
    again = up(own_folder)
    assert again == own
    assert [pids(cluster) for cluster in again.clusters] == before


def test_alpha_is_the_centre_it_should_be(alpha: LabCluster) -> None:
    """Four nodes of eight CPUs with memory, three partitions, sharing forced in `dense` only, CPUs alone consumable."""
    nodes = alpha.run("sinfo", "-hN", "-p", "cpu", "-o", "%N %c %m").stdout.split("\n")[:-1]
    assert nodes == [f"alpha{number} 8 16000" for number in range(1, 5)]
    shares = dict(line.split() for line in alpha.run("sinfo", "-ho", "%R %h").stdout.splitlines())
    assert shares == {"cpu": "NO", "long": "NO", "dense": "FORCE:16"}
    settings = alpha.run("scontrol", "show", "config").stdout
    assert "SelectTypeParameters    = CR_CPU\n" in settings
    assert "ProctrackType           = proctrack/linuxproc\n" in settings


def test_job_runs_and_is_accounted(alpha: LabCluster) -> None:
    """A job of the account runs on a node under the account, and accounting tells its name, state and elapsed time
    (the name within seconds: until SLURM has told its database about the start, a short job is "allocation")."""
    job = submit(alpha, "id -un; sleep 1", "--job-name=first")
    assert ended(alpha, job) == "COMPLETED"
    assert output(alpha, job) == f"{alpha.account}\n"

    def accounted() -> list[str]:
        rows = alpha.ssh(f"sacct -XnP -j {job} -o JobName,State,AllocCPUS,ElapsedRaw").stdout.strip().split("|")
        return rows if rows[:2] == ["first", "COMPLETED"] else []

    _, _, cpus, elapsed = wait_for("accounting knows the job", accounted)
    assert cpus == "1"
    assert int(elapsed) >= 1


def test_user_code_can_be_isolated_in_a_job(alpha: LabCluster) -> None:
    """User, mount and pid namespaces work for the unprivileged account on a compute node: it sees itself alone."""
    unshare = "unshare --user --map-current-user --mount --pid --fork --mount-proc ps -eo comm="
    job = submit(alpha, unshare)
    assert ended(alpha, job) == "COMPLETED"
    assert output(alpha, job).split() == ["ps"]


def test_nodes_can_be_reached_by_srun_from_the_login_node(alpha: LabCluster) -> None:
    """A two-node step started on the login node reaches both nodes."""
    answer = alpha.ssh("srun -p cpu -N2 -n2 printenv SLURMD_NODENAME").stdout.split()
    assert len(set(answer)) == 2


def test_login_environment_is_plain(alpha: LabCluster) -> None:
    """Nothing about SLURM or the lab stands in the environment of the account."""
    names = {line.partition("=")[0] for line in alpha.ssh("env").stdout.splitlines()}
    assert names <= {"SHELL", "PWD", "LOGNAME", "HOME", "USER", "SHLVL", "PATH", "MAIL", "LANG", "_"} | {
        "SSH_CONNECTION",
        "SSH_CLIENT",
    }


def test_tcp_forwarding_is_refused(alpha: LabCluster) -> None:
    """The login node forwards no TCP connection, not even to itself."""
    argv = alpha.ssh_argv()
    words = [*argv[:-1], "-W", f"{alpha.host}:{alpha.port}", argv[-1]]
    done = finish(words, check=False, stdin="", timeout=60)
    assert done.returncode != 0
    assert "forwarding failed" in done.stderr or "prohibited" in done.stderr


def test_wrong_host_key_is_noticed(alpha: LabCluster, cumulus: LabCluster) -> None:
    """Each cluster has a host key of its own, and the account accepts a further key when it is authorised."""
    assert alpha.host_key != cumulus.host_key
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA another@place"
    alpha.authorise(line)
    alpha.authorise(line)
    lines = (alpha.home / ".ssh" / "authorized_keys").read_text().splitlines()
    assert lines.count(line) == 1
    assert alpha.ssh("true").returncode == 0


def test_cloud_node_is_started_billed_and_stopped(cumulus: LabCluster) -> None:
    """A job on the cloud cluster starts a real node, the node is stopped when idle, and both times are written down;
    there is no accounting."""
    assert set(daemons.node_states(cumulus).values()) == {"idle~"}
    job = submit(cumulus, "hostname; sleep 1")
    assert ended(cumulus, job) == "COMPLETED"

    def billed() -> list[list[str]]:
        lines = [line.split() for line in cumulus.billing_log.read_text().splitlines()]
        return lines if [line[2] for line in lines] == ["up", "down"] else []

    (up_at, node, _), (down_at, same, _) = wait_for("the node is stopped", billed, 120)
    assert node == same
    assert float(up_at) < float(down_at)
    refused = cumulus.ssh("sacct", check=False)
    assert refused.returncode != 0
    assert "disabled" in refused.stderr


def test_calls_are_counted_and_held_up(alpha: LabCluster) -> None:
    """Each scheduler command of the account is written down, sbatch is held up, and afterwards nothing is."""
    with faults.watched(alpha, delay_s=0.2, seed=3) as calls:
        job = submit(alpha, "true", "--job-name=counted")
        alpha.ssh("squeue; squeue")
        alpha.run("squeue")
        assert len(calls.seen("squeue")) == 2
        assert calls.submissions() == {"counted": 1}
    assert ended(alpha, job) == "COMPLETED"
    alpha.ssh("squeue")
    assert len(calls.seen()) == 3


def test_refused_submission_is_not_counted(alpha: LabCluster) -> None:
    """A call of sbatch that SLURM refuses is a call, not a submission."""
    with faults.delayed_sbatch(alpha, seed=1, longest_s=0.1) as calls:
        done = alpha.ssh("sbatch --job-name=nowhere --partition=none --wrap=true", check=False)
        assert "invalid partition" in done.stderr
        assert [call.job_name for call in calls.seen("sbatch")] == ["nowhere"]
        assert calls.submissions() == {"nowhere": 0}


def test_wrappers_go_when_the_test_fails(alpha: LabCluster) -> None:
    """A fault is undone also when the test inside it fails, and one at a time is enough."""
    with pytest.raises(ZeroDivisionError), faults.watched(alpha):
        raise ZeroDivisionError
    assert alpha.run("grep", "-c", "sbatch", "/proc/self/mounts", check=False).stdout == "0\n"
    with faults.watched(alpha), pytest.raises(LabError, match="watched already"), faults.watched(alpha):
        pass


KILLED = """
import os, sys
from pathlib import Path
from tests.lab import faults, lifecycle
with faults.watched(lifecycle.stored(Path(sys.argv[1])).cluster("alpha")):
    os.kill(os.getpid(), 9)
"""


def test_wrappers_of_a_killed_test_are_taken_away(own_folder: Path, alpha: LabCluster) -> None:
    """Wrappers that a killed process left do not keep the next one from watching."""
    here = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(own_folder)], cwd=here, check=False)
    assert done.returncode == -9
    assert alpha.run("grep", "-c", "sbatch", "/proc/self/mounts").stdout == "1\n"
    with faults.watched(alpha) as calls:
        alpha.ssh("squeue")
        assert len(calls.seen()) == 1
    assert alpha.run("grep", "-c", "sbatch", "/proc/self/mounts", check=False).stdout == "0\n"


def test_link_can_be_cut_and_restored(alpha: LabCluster) -> None:
    """Through the relay the cluster is reached like before, not at all while the link is cut, and again afterwards."""
    with faults.relay(alpha) as link:
        assert link.cluster.port != alpha.port
        assert link.cluster.ssh("echo here").stdout == "here\n"
        link.cut()
        assert link.cluster.ssh("true", check=False).returncode == 255
        link.restore()
        assert link.cluster.ssh("echo again").stdout == "again\n"
        assert link.connections == 2


def test_link_can_be_slow_and_silent(alpha: LabCluster) -> None:
    """Latency and bandwidth bound what comes through; a silent link answers nothing and breaks nothing."""
    with faults.relay(alpha) as link:
        link.weather.latency_s = 0.1
        began = time.monotonic()
        link.cluster.ssh("true")
        assert time.monotonic() - began > 0.4  # at least two round trips
        link.weather.latency_s, link.weather.bytes_per_s = 0.0, 1e6
        began = time.monotonic()
        assert len(link.cluster.ssh("head -c 1000000 /dev/zero").stdout) == 1_000_000
        assert time.monotonic() - began > 0.9
        link.silence()
        with pytest.raises(subprocess.TimeoutExpired):
            link.cluster.ssh("true", timeout=2)


def test_controller_can_be_down(alpha: LabCluster) -> None:
    """While the controller is killed nothing is submitted; afterwards the cluster takes jobs again."""
    with faults.controller_down(alpha):
        assert "slurmctld" in daemons.trouble(alpha)
        assert not daemons.controller_up(alpha)
    assert ended(alpha, submit(alpha, "true")) == "COMPLETED"


def test_failed_node_takes_its_jobs_with_it(alpha: LabCluster) -> None:
    """A job on a node that dies ends as NODE_FAIL with its processes, and the node comes back."""
    job = submit(alpha, "touch started; sleep 600", "--nodelist=alpha2", "--no-requeue")
    wait_for("the job runs", (alpha.home / "started").exists)
    with faults.failed_node(alpha, "alpha2"):
        assert ended(alpha, job) == "NODE_FAIL"
        assert not faults.steps(alpha, [job])
    assert ended(alpha, submit(alpha, "true", "--nodelist=alpha2")) == "COMPLETED"


def test_drained_nodes_take_no_jobs(alpha: LabCluster) -> None:
    """A job waits while every node is drained and runs afterwards."""
    with faults.drained(alpha, *alpha.nodes):
        job = submit(alpha, "true")
        wait_for("the reason is known", lambda: "DRAIN" in alpha.run("squeue", "-hj", job, "-o", "%r").stdout.upper())
        assert state(alpha, job) == "PENDING"
    assert ended(alpha, job) == "COMPLETED"


def test_centre_can_limit_submissions(alpha: LabCluster) -> None:
    """With a limit of one job the second is refused with SLURM's own words; without it, accepted."""
    with faults.submit_limit(alpha, 1):
        job = submit(alpha, "true", "--hold")
        with pytest.raises(LabError, match="AssocMaxSubmitJobLimit"):
            submit(alpha, "true", "--hold")
    alpha.run("scancel", job, submit(alpha, "true", "--hold"))


def test_disk_can_be_full(alpha: LabCluster) -> None:
    """On a full disk nothing can be written, from the login node or from a job; freed, it can."""
    path = str(alpha.home / "small")
    with faults.small_disk(alpha, path, mib=8) as disk:
        disk.fill()
        full = alpha.ssh("head -c 100000 /dev/zero > small/data", check=False)
        assert "No space left" in full.stderr
        job = submit(alpha, "head -c 100000 /dev/zero > small/data")
        assert ended(alpha, job) == "FAILED"
        disk.free()
        alpha.ssh("head -c 100000 /dev/zero > small/data")
    assert alpha.ssh("ls small").stdout == ""


def test_down_leaves_nothing() -> None:
    """After down no process, account, mount or file of a lab is left, running jobs included; another lab lives on."""
    if os.geteuid() != 0:
        pytest.skip("the lab's SLURM clusters need root")
    root = Path(tempfile.mkdtemp(prefix="heroes-lab-", dir="/var/tmp"))
    root.chmod(0o755)
    try:
        lab = up(root)
        alpha = lab.cluster("alpha")
        submit(alpha, "touch started; setsid sleep 601")
        wait_for("the job runs", (alpha.home / "started").exists)
    finally:
        down(root)
    assert not root.exists()
    for cluster in lab.clusters:
        assert processes.account_uid(cluster.account) is None
        assert processes.find(cluster.root, cluster.account) == []
    assert str(root) not in Path("/proc/self/mounts").read_text()
    down(root)


def test_half_dead_cluster_is_started_again(own: Lab, own_folder: Path, alpha: LabCluster) -> None:
    """When the keeper of a cluster's namespace was killed, the next up ends the rest and starts it anew."""
    processes.kill([alpha.keeper_pid])
    wait_for("munged is gone", lambda: not alpha.keeper_pid)
    with pytest.raises(LabError, match="make lab"):
        alpha.run("true")
    assert up(own_folder) == own
    assert ended(alpha, submit(alpha, "true")) == "COMPLETED"


def test_unusable_names_are_refused(monkeypatch: pytest.MonkeyPatch, own: Lab) -> None:
    """A state folder whose sockets would have too long names, and an unknown cluster, are refused with a reason."""
    monkeypatch.setenv("HEROES_LAB", "/var/tmp/" + "x" * 80)
    with pytest.raises(LabError, match="at most 60 characters"):
        lifecycle.folder()
    with pytest.raises(LabError, match="alpha, cumulus"):
        own.cluster("beta")
