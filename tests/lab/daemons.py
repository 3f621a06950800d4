"""Starting a cluster's daemons in their order, each only when it does not run, and asking whether they are well."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from tests.lab import processes
from tests.lab.cluster import LabCluster, gone, read_pid
from tests.lab.config import MUNGE_SOCKET
from tests.lab.wait import LabError, wait_for

#: The name that accounting knows all the lab's users by.
ACCOUNT = "heroes"


def start_all(cluster: LabCluster) -> None:
    """Bring every daemon up and wait until the cluster takes jobs."""
    start_munge(cluster)
    if cluster.accounting:
        start_database(cluster)
        start_accounting(cluster)
    start_controller(cluster)
    if cluster.accounting:
        for node in cluster.nodes:
            start_node(cluster, node)
    start_sshd(cluster)
    wait_for(f"{cluster.name} takes jobs", lambda: not trouble(cluster), 120)


def start_munge(cluster: LabCluster) -> None:
    """Make the cluster's namespace: its own /etc/slurm and /run/munge, kept alive by its munged."""
    Path("/run/munge").mkdir(mode=0o755, exist_ok=True)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    bind = 'mount --bind "$1/etc" /etc/slurm && mount --bind "$1/munge" /run/munge && shift && exec "$@"'
    munged = [
        "munged",
        f"--key-file={cluster.root}/keys/munge",
        f"--socket={MUNGE_SOCKET}",
        f"--pid-file={cluster.run_folder}/munged.pid",
        f"--log-file={cluster.log}/munged.log",
        f"--seed-file={cluster.root}/keys/munge.seed",
        "--num-threads=4",
    ]
    space = ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh", str(cluster.root)]
    processes.launch(cluster, [*space, *munged], "munged")
    wait_for("munged runs", lambda: cluster.keeper_pid)
    cluster.run("sh", "-c", "munge -n | unmunge")


def start_database(cluster: LabCluster) -> None:
    """MariaDB for slurmdbd on a port of its own; durability is not what the lab is for."""
    data = cluster.root / "database"
    if not (data / "mysql").is_dir():
        cluster.run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
    options = [
        "--no-defaults",
        "--user=root",
        f"--datadir={data}",
        f"--socket={cluster.run_folder}/db.sock",
        f"--pid-file={cluster.run_folder}/mariadbd.pid",
        f"--bind-address={cluster.host}",
        f"--port={cluster.first_port + 1}",
        f"--init-file={cluster.conf}/database.sql",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=64M",
        "--innodb-lock-wait-timeout=900",
        "--skip-name-resolve",
    ]
    processes.start(cluster, ["mariadbd", *options], "mariadbd", background=True)
    wait_for("MariaDB answers", lambda: listening(cluster, cluster.first_port + 1))


def start_accounting(cluster: LabCluster) -> None:
    """slurmdbd, and in it the cluster and the account's association."""
    processes.start(cluster, ["slurmdbd"], "slurmdbd")
    wait_for("slurmdbd answers", lambda: listening(cluster, cluster.first_port + 2))
    if cluster.run("sacctmgr", "-nP", "show", "user", cluster.account).stdout.strip():
        return
    sacctmgr(cluster, "add", "cluster", cluster.name)
    sacctmgr(cluster, "add", "account", ACCOUNT, f"cluster={cluster.name}")
    sacctmgr(cluster, "add", "user", cluster.account, f"account={ACCOUNT}")


def sacctmgr(cluster: LabCluster, *words: str) -> None:
    """Change accounting, without questions."""
    cluster.run("sacctmgr", "-i", *words)


def start_controller(cluster: LabCluster) -> None:
    """slurmctld; it takes up its saved state where there is one."""
    processes.start(cluster, ["slurmctld"], "slurmctld")
    wait_for(f"slurmctld of {cluster.name} answers", lambda: controller_up(cluster), 120)


def stop_controller(cluster: LabCluster, how: signal.Signals = signal.SIGKILL) -> None:
    """End slurmctld and wait until it is gone."""
    end(cluster.run_folder / "slurmctld.pid", how)


def start_node(cluster: LabCluster, node: str) -> None:
    """The slurmd of one node."""
    processes.start(cluster, ["slurmd", "-N", node], f"slurmd.{node}")


def stop_node(cluster: LabCluster, node: str, how: signal.Signals = signal.SIGKILL) -> None:
    """End the slurmd of one node; job steps live on, as they do when a daemon crashes."""
    end(cluster.run_folder / f"slurmd.{node}.pid", how)


def start_sshd(cluster: LabCluster) -> None:
    """The login node's SSH server."""
    config = str(cluster.conf / "sshd_config")
    processes.start(cluster, ["/usr/sbin/sshd", "-f", config, "-E", str(cluster.log / "sshd.log")], "sshd")
    wait_for("sshd answers", lambda: listening(cluster, cluster.port))


def end(pid_file: Path, how: signal.Signals) -> None:
    """Signal the process of a pid file and wait for its end."""
    pid = read_pid(pid_file)
    if pid:
        processes.kill([pid], how)
        wait_for(f"process {pid} of {pid_file.name} ends", lambda: gone(pid))
    pid_file.unlink(missing_ok=True)


def listening(cluster: LabCluster, port: int) -> bool:
    """Whether something accepts connections on a port of the cluster."""
    try:
        with socket.create_connection((cluster.host, port), timeout=5):
            return True
    except OSError:
        return False


def controller_up(cluster: LabCluster) -> bool:
    """Whether slurmctld answers."""
    return cluster.run("scontrol", "ping", check=False).returncode == 0


def trouble(cluster: LabCluster) -> str:
    """Why the cluster does not take jobs, "" when it does. A node drained by somebody is no trouble."""
    if dead := missing(cluster):
        return f"not running: {', '.join(dead)}"
    try:
        states = node_states(cluster)
    except LabError as error:
        return str(error)
    unwell = [node for node, state in states.items() if "down" in state or "unknown" in state or "*" in state]
    return f"nodes not well: {', '.join(unwell)}" if unwell else ""


def missing(cluster: LabCluster) -> list[str]:
    """Which of the cluster's daemons do not run."""
    names = ["munged", "slurmctld", "sshd"]
    if cluster.accounting:
        names += ["mariadbd", "slurmdbd", *(f"slurmd.{node}" for node in cluster.nodes)]
    return [name for name in names if not read_pid(cluster.run_folder / f"{name}.pid")]


def node_states(cluster: LabCluster) -> dict[str, str]:
    """State of each node as sinfo says, flags included ("idle", "idle~", "drained", "down*")."""
    text = cluster.run("sinfo", "-hN", "-o", "%N %T").stdout
    return {line.split()[0]: line.split()[1].lower() for line in text.splitlines() if line.strip()}
