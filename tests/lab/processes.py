"""Starting, finding and ending the processes of a cluster. They are found by what they are (mark in the environment,
mount namespace, account), not by names, so that nothing else is ever touched and nothing of the lab is left."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.cluster import LabCluster, gone, plain_environment
from tests.lab.wait import LabError, wait_for

#: The variable that marks each daemon of the lab; its value is the cluster's folder.
MARK = "LAB_CLUSTER_FOLDER"


def start(cluster: LabCluster, argv: Sequence[str], log: str, background: bool = False) -> None:
    """Start a daemon inside the cluster's namespace. With `background` it stays in the foreground of its own session;
    without, it must put itself into the background and its exit status is checked."""
    launch(cluster, cluster.enter(argv), log, background)


def launch(cluster: LabCluster, argv: Sequence[str], log: str, background: bool = False) -> None:
    """Start marked with the cluster's folder, output to a log file."""
    environment = {**plain_environment(), MARK: str(cluster.root)}
    path = cluster.log / f"{log}.out"
    with path.open("ab") as output:
        child = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    if background:
        return
    if child.wait(120) != 0:
        raise LabError(f"{' '.join(argv)} did not start; see {path}:\n{path.read_text(errors='replace')[-2000:]}")


def all_pids() -> list[int]:
    """Every process of this machine that can be seen."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def namespace(pid: int | str) -> str:
    """The mount namespace of a process, "" when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def marked(pid: int, root: Path) -> bool:
    """Whether the process carries the mark of a cluster in `root`."""
    try:
        return f"{MARK}={root}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def owner(pid: int) -> int:
    """The uid of a process, -1 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def find(root: Path, account: str) -> list[int]:
    """Every living process of the cluster in `root`: its daemons, what shares their namespace, its account's."""
    pids = all_pids()
    daemons = {pid for pid in pids if marked(pid, root)}
    spaces = {namespace(pid) for pid in daemons} - {"", namespace("self")}
    uid = account_uid(account)
    mine = {pid for pid in pids if namespace(pid) in spaces or (uid is not None and owner(pid) == uid)}
    return sorted((daemons | mine) - {os.getpid()})


def account_uid(account: str) -> int | None:
    """The uid of an account, None when there is none."""
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        return None


def kill(pids: Iterable[int], how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone is no error."""
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            continue


def sweep(root: Path, account: str) -> None:
    """Kill every process of the cluster until none is found."""

    def none_left() -> bool:
        pids = [pid for pid in find(root, account) if not gone(pid)]
        kill(pids)
        return not pids

    wait_for(f"no process of {root} left", none_left)
