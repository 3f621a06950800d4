"""Faults on demand, each a context manager that restores the cluster however the test ends.

with faults.delayed_sbatch(alpha, seed=7) as calls: …      # and count: calls.submissions()
with faults.watched(alpha) as calls: …                     # calls.seen("squeue")
with faults.relay(alpha) as link: link.cut(); link.restore(); link.silence(); link.weather.latency_s = 0.2
with faults.controller_down(alpha): …                      # kill -9 now, started again at the end
with faults.failed_node(alpha, "alpha2"): …
with faults.drained(alpha, *alpha.nodes): …
with faults.submit_limit(alpha, 10): …
with faults.small_disk(alpha, path, mib=64) as disk: disk.fill(); disk.free()
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import daemons, processes
from tests.lab.cluster import LabCluster
from tests.lab.relay import Link, relay
from tests.lab.scheduler_calls import Calls, watched
from tests.lab.wait import LabError, wait_for

__all__ = [
    "Calls",
    "Disk",
    "Link",
    "controller_down",
    "delayed_sbatch",
    "drained",
    "failed_node",
    "kill_controller",
    "relay",
    "small_disk",
    "submit_limit",
    "watched",
]

#: The architecture's own test of submissions holds sbatch up for so long.
LONGEST_DELAY_S = 0.8
IN_SERVICE = ("idle", "mixed", "allocated", "completing", "idle~")


def delayed_sbatch(
    cluster: LabCluster, seed: int, longest_s: float = LONGEST_DELAY_S
) -> contextlib.AbstractContextManager[Calls]:
    """Hold each sbatch of the account up for 0 to `longest_s` seconds, and count the calls."""
    return watched(cluster, longest_s, seed)


def kill_controller(cluster: LabCluster) -> None:
    """Kill slurmctld with -9 and start it again at once: what it had not saved is lost."""
    with controller_down(cluster):
        pass


@contextlib.contextmanager
def controller_down(cluster: LabCluster) -> Iterator[None]:
    """slurmctld killed with -9; started again at the end, from the state it last saved."""
    daemons.stop_controller(cluster, signal.SIGKILL)
    try:
        yield
    finally:
        daemons.start_controller(cluster)
        if cluster.accounting:
            for node in cluster.nodes:
                forget_jobs(cluster, node)
        wait_for(f"{cluster.name} is well again", lambda: not daemons.trouble(cluster), 120)


def forget_jobs(cluster: LabCluster, node: str) -> None:
    """What an operator does after such a crash: a slurmd that remembers job ids which the controller, having forgotten
    them, gives out again refuses those jobs and has its node drained. Running jobs go on."""
    daemons.stop_node(cluster, node)
    for remembered in (cluster.root / "spool" / node).glob("cred_state*"):
        remembered.unlink()
    daemons.start_node(cluster, node)


@contextlib.contextmanager
def failed_node(cluster: LabCluster, node: str) -> Iterator[None]:
    """A node that dies with all its jobs: slurmd and what runs there killed, and the controller told."""
    jobs = cluster.run("squeue", "-h", "-w", node, "-o", "%A").stdout.split()
    daemons.stop_node(cluster, node)
    processes.kill(steps(cluster, jobs))
    try:
        set_state(cluster, [node], "down")
        yield
    finally:
        daemons.start_node(cluster, node)
        return_to_service(cluster, [node])


@contextlib.contextmanager
def drained(cluster: LabCluster, *nodes: str) -> Iterator[None]:
    """Nodes that take no new jobs; running ones go on."""
    set_state(cluster, nodes, "drain")
    try:
        yield
    finally:
        return_to_service(cluster, nodes)


def set_state(cluster: LabCluster, nodes: Sequence[str], state: str, check: bool = True) -> None:
    """Set the state of nodes as an administrator does."""
    words = ("scontrol", "update", f"nodename={','.join(nodes)}", f"state={state}", "reason=fault of the lab")
    cluster.run(*words, check=check)


def return_to_service(cluster: LabCluster, nodes: Sequence[str]) -> None:
    """Let nodes take jobs again and wait until they do. A node that came back by itself refuses to be resumed."""

    def in_service() -> bool:
        states = daemons.node_states(cluster)
        away = [node for node in nodes if states[node] not in IN_SERVICE]
        if away:
            set_state(cluster, away, "resume", check=False)
        return not away

    wait_for(f"{', '.join(nodes)} in service", in_service, 120, pause=0.5)


def steps(cluster: LabCluster, jobs: list[str]) -> list[int]:
    """The processes of jobs: their slurmstepds and all that descends from them."""
    parents = {pid: parent_of(pid) for pid in processes.find(cluster.root, cluster.account)}
    tree = {pid for pid in parents if step_of(pid) in jobs}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    return sorted(tree)


def step_of(pid: int) -> str:
    """The job whose slurmstepd a process is ("slurmstepd: [12.batch]"), "" for any other."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    name, _, rest = title.partition(": [")
    return rest.partition(".")[0] if name == "slurmstepd" else ""


def parent_of(pid: int) -> int:
    """The parent's pid, 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextlib.contextmanager
def submit_limit(cluster: LabCluster, jobs: int) -> Iterator[None]:
    """The centre's own limit: the account may have at most so many jobs, waiting or running."""
    set_submit_limit(cluster, jobs)
    try:
        yield
    finally:
        set_submit_limit(cluster, -1)


def set_submit_limit(cluster: LabCluster, jobs: int) -> None:
    """Set MaxSubmitJobs (-1 for none) and wait until the controller knows it."""
    if not cluster.accounting:
        raise LabError(f"{cluster.name} keeps no accounting, so it has no limits on submissions")
    where = ("user", f"name={cluster.account}", f"cluster={cluster.name}")
    daemons.sacctmgr(cluster, "modify", *where, "set", f"maxsubmitjobs={jobs}")
    wanted = f"MaxSubmitJobs={jobs}(" if jobs >= 0 else "MaxSubmitJobs= "

    def known() -> bool:
        text = cluster.run("scontrol", "-o", "show", "assoc_mgr", f"users={cluster.account}", "flags=assoc").stdout
        return any(wanted in line for line in text.splitlines() if f"UserName={cluster.account}(" in line)

    wait_for(f"the controller knows {wanted}", known)


@dataclass(frozen=True)
class Disk:
    """A small file system of a cluster."""

    cluster: LabCluster
    path: str

    def fill(self) -> None:
        """Take all the space that is left."""
        self.cluster.run("sh", "-c", 'cat /dev/zero > "$1/.full" 2>/dev/null || true', "sh", self.path)

    def free(self) -> None:
        """Give the space back."""
        self.cluster.run("rm", "-f", f"{self.path}/.full")


@contextlib.contextmanager
def small_disk(cluster: LabCluster, path: str, mib: int = 64) -> Iterator[Disk]:
    """A file system of its own at `path` (a new folder of the account's, to be the base folder of an enrolment), seen
    by login and compute nodes alike."""
    cluster.run("install", "-d", "-m", "700", "-o", cluster.account, "-g", cluster.account, path)
    options = f"size={mib}m,mode=700,uid={cluster.uid},gid={cluster.uid}"
    cluster.run("mount", "-t", "tmpfs", "-o", options, f"lab-{cluster.name}", path)
    try:
        yield Disk(cluster, path)
    finally:
        cluster.run("umount", "--lazy", path)
