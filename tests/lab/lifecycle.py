"""Bringing a lab up, taking it down, and saying how it is. All state is in one folder; a lock on it keeps two
commands from working at once."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import config, daemons, packages, processes
from tests.lab.cluster import LabCluster, finish
from tests.lab.wait import LabError, wait_for

DEFAULT = Path("/var/tmp/heroes-lab")
FIRST_PORT = 20000
#: Ports of one lab, half of them for each cluster; the blocks end below the kernel's own range.
BLOCK = 40
SLOTS = 300
#: How long a cluster that is not well is given before it is started anew.
PATIENCE_S = 90.0
#: Longest path of a state folder, so that its Unix sockets stay below their limit of 107 bytes.
LONGEST = 60


@dataclass(frozen=True)
class Lab:
    """A lab: its folder and its clusters."""

    root: Path
    clusters: tuple[LabCluster, ...]

    def cluster(self, name: str) -> LabCluster:
        """A cluster by name; `LabError` when there is none."""
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        raise LabError(f"the lab has no cluster {name!r}; it has {', '.join(one.name for one in self.clusters)}")


def folder() -> Path:
    """The state folder: HEROES_LAB, or the default."""
    root = Path(os.environ.get("HEROES_LAB") or DEFAULT).absolute()
    if len(str(root)) > LONGEST or not str(root).isprintable() or " " in str(root):
        raise LabError(f"HEROES_LAB={root}: take a path without spaces and of at most {LONGEST} characters")
    return root


def design(root: Path, slot: int) -> Lab:
    """The two clusters of a lab; `slot` sets ports and account names apart from other labs'."""
    first = FIRST_PORT + slot * BLOCK
    tail = f"-{slot}" if slot else ""
    return Lab(
        root,
        (
            plan(root, "alpha", first, f"heroes-alpha{tail}", accounting=True),
            plan(root, "cumulus", first + BLOCK // 2, f"heroes-cumulus{tail}", accounting=False),
        ),
    )


def plan(root: Path, name: str, first: int, account: str, accounting: bool) -> LabCluster:
    """A cluster of four nodes."""
    nodes = tuple(f"{name}{number}" for number in range(1, 5))
    return LabCluster(name, root / name, account, first, accounting, nodes, 8, 16000, port=first + 3)


def up(root: Path | None = None) -> Lab:
    """Bring the lab in `root` (HEROES_LAB, or the default) up; what already runs is left as it is."""
    root = root or folder()
    packages.install()
    with locked(root):
        lab = stored(root) or settle(root)
        for cluster in lab.clusters:
            bring_up(lab, cluster)
    return lab


def bring_up(lab: Lab, cluster: LabCluster) -> None:
    """Start a cluster unless it is well; a half-dead one is ended first and started from its saved files."""
    if not daemons.missing(cluster) and recovers(cluster):
        return
    print(f"lab: starting {cluster.name}", flush=True)
    processes.sweep(cluster.root, cluster.account)
    make_account(cluster)
    make_folders(cluster)
    daemons.start_all(cluster)


def recovers(cluster: LabCluster) -> bool:
    """Whether a cluster whose daemons all run is well, or gets well: on a busy machine a node may answer late."""
    try:
        wait_for(f"{cluster.name} is well", lambda: not daemons.trouble(cluster), PATIENCE_S, pause=0.5)
    except LabError:
        return False
    return True


def down(root: Path | None = None) -> None:
    """End every process, remove the accounts and the folder. A lab that is not there is no error."""
    root = root or folder()
    if not root.exists():
        return
    with locked(root):
        for cluster in (stored(root) or Lab(root, ())).clusters:
            processes.sweep(cluster.root, cluster.account)
            if processes.account_uid(cluster.account) is not None:
                finish(["userdel", cluster.account], check=True, stdin="", timeout=60)
        shutil.rmtree(root)


def opened() -> Lab | None:
    """The lab that was brought up here, None when there is none."""
    return stored(folder())


def stored(root: Path) -> Lab | None:
    """The lab as its folder remembers it."""
    try:
        return design(root, json.loads((root / "lab.json").read_text())["slot"])
    except FileNotFoundError:
        return None


def settle(root: Path) -> Lab:
    """Choose ports and accounts for a new lab and remember them."""
    first = 0 if root == DEFAULT else 1 + zlib.crc32(str(root).encode()) % (SLOTS - 1)
    for slot in [first, *range(1, SLOTS)]:
        lab = design(root, slot)
        if all(is_free(cluster) for cluster in lab.clusters):
            (root / "lab.json").write_text(json.dumps({"slot": slot}))
            return lab
    raise LabError(f"no free block of {BLOCK} ports between {FIRST_PORT} and {FIRST_PORT + SLOTS * BLOCK}")


def is_free(cluster: LabCluster) -> bool:
    """Whether nobody has the cluster's account or listens on one of its ports."""
    ports = range(cluster.first_port, cluster.first_port + BLOCK // 2)
    return processes.account_uid(cluster.account) is None and all(bindable(cluster.host, port) for port in ports)


def bindable(host: str, port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the state folder; it is made when missing. Whoever waited on a folder that was then removed starts anew."""
    while True:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if root.exists() and os.stat(root).st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)
    try:
        yield
    finally:
        os.close(handle)


def make_account(cluster: LabCluster) -> None:
    """The unprivileged account; `*` for a password lets sshd accept keys for it without PAM."""
    if processes.account_uid(cluster.account) is not None:
        return
    words = ["useradd", "--no-create-home", "--user-group", "--shell", "/bin/bash", "--home-dir", str(cluster.home)]
    finish([*words, cluster.account], check=True, stdin="", timeout=60)
    finish(["usermod", "-p", "*", cluster.account], check=True, stdin="", timeout=60)


def make_folders(cluster: LabCluster) -> None:
    """Folders, keys and configuration; what is there already stays."""
    for name in ("etc", "log", "run", "state", "spool", "munge", "database"):
        (cluster.root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    for stale in (cluster.root / "run").glob("*"):
        stale.unlink()
    make_keys(cluster)
    make_home(cluster)
    password = secrets.token_hex(16)
    config.write_all(cluster, password)
    config.write(cluster.conf / "database.sql", database_sql(password), 0o600)


def database_sql(password: str) -> str:
    """What MariaDB does first at each start: the database and its only user."""
    return (
        "CREATE DATABASE IF NOT EXISTS slurm;\n"
        f"CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON slurm.* TO slurm@'127.0.0.1';\n"
    )


def make_keys(cluster: LabCluster) -> None:
    """Munge's key, sshd's host key, and a key pair for the account."""
    keys = cluster.root / "keys"
    if keys.exists():
        return
    keys.mkdir(mode=0o700)
    munge = keys / "munge"
    munge.touch(0o600)
    munge.write_bytes(secrets.token_bytes(1024))
    for name in ("host", "account"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@{cluster.name}", "-f", str(keys / name)]
        subprocess.run(words, check=True)
    (keys / "known_hosts").write_text(f"{cluster.name} {cluster.host_key}\n")


def make_home(cluster: LabCluster) -> None:
    """An empty home that only the account reads, and in it the key it is reached by."""
    ssh = cluster.home / ".ssh"
    if ssh.exists():
        return
    ssh.mkdir(parents=True)
    keys = ssh / "authorized_keys"
    keys.write_text((cluster.root / "keys" / "account.pub").read_text())
    for path, mode in ((cluster.home, 0o700), (ssh, 0o700), (keys, 0o600)):
        shutil.chown(path, cluster.account, cluster.account)
        path.chmod(mode)


def status() -> list[str]:
    """One line a cluster: how it is and how to reach it."""
    lab = opened()
    if lab is None:
        return [f"no lab in {folder()}: start it with `make lab`"]
    return [line for cluster in lab.clusters for line in describe(cluster)]


def describe(cluster: LabCluster) -> list[str]:
    """How a cluster is: its trouble, or its nodes, the way in and the base folder."""
    trouble = daemons.trouble(cluster)
    if trouble:
        return [f"{cluster.name}: {trouble}"]
    nodes = ", ".join(f"{node} {state}" for node, state in sorted(daemons.node_states(cluster).items()))
    return [f"{cluster.name}: up; {nodes}", f"  {' '.join(cluster.ssh_argv())}", f"  base {cluster.base}"]
