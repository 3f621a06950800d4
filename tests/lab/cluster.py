"""One cluster of the lab as a value: where things are, and how to run commands there."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.wait import LabError

#: Seconds that a command of the lab itself may take on a busy two-core machine.
COMMAND_S = 120.0


@dataclass(frozen=True)
class LabCluster:
    """A SLURM cluster with its own login node. All its daemons live in one mount namespace of their own, where
    /etc/slurm and /run/munge are this cluster's, so that commands work there with an empty environment."""

    name: str
    root: Path  #: the cluster's own folder below the lab's
    account: str  #: the unprivileged account that jobs run under
    first_port: int  #: controller; then database, accounting, SSH; the nodes from + 10
    accounting: bool  #: slurmdbd and MariaDB, or no accounting at all
    nodes: tuple[str, ...]
    cpus: int  #: CPUs of a node
    memory_mib: int  #: memory of a node
    port: int  #: where SSH is reached: sshd itself, or a relay before it
    host: str = "127.0.0.1"

    @property
    def conf(self) -> Path:
        """The folder with slurm.conf; /etc/slurm inside."""
        return self.root / "etc"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run_folder(self) -> Path:
        """Pid files."""
        return self.root / "run"

    @property
    def home(self) -> Path:
        """The account's home on the storage that login and compute nodes share."""
        return self.root / "home" / self.account

    @property
    def base(self) -> str:
        """The base directory that an enrolment names."""
        return str(self.home / "heroes")

    @property
    def key_path(self) -> Path:
        """A private key whose public half the account accepts."""
        return self.root / "keys" / "account"

    @property
    def host_key(self) -> str:
        """The public line of sshd's only host key: type and base64."""
        kind, data = (self.root / "keys" / "host.pub").read_text().split()[:2]
        return f"{kind} {data}"

    @property
    def billing_log(self) -> Path:
        """Lines `<seconds since 1970> <node> up|down` of the nodes started and stopped on demand."""
        return self.log / "billing.log"

    @property
    def completions_log(self) -> Path:
        """SLURM's own list of finished jobs (jobcomp/filetxt)."""
        return self.log / "jobcomp.txt"

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.account).pw_uid

    @property
    def keeper_pid(self) -> int:
        """The process (munged) that the cluster's namespace is entered by; 0 when it is not running."""
        return read_pid(self.run_folder / "munged.pid")

    def path(self, inside: str) -> Path:
        """A path of the cluster's own view of the file system, seen from outside."""
        return Path(f"/proc/{self.keeper_pid}/root") / inside.lstrip("/")

    def enter(self, argv: Sequence[str]) -> list[str]:
        """The argv that runs `argv` inside the cluster's namespace."""
        if not self.keeper_pid:
            raise LabError(f"cluster {self.name} is not up: start it with `make lab`")
        return ["nsenter", f"--mount=/proc/{self.keeper_pid}/ns/mnt", "--", *argv]

    def run(
        self, *argv: str, check: bool = True, stdin: str = "", timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the cluster as root; `LabError` with its words when it fails and `check` is set."""
        return finish(self.enter(argv), check, stdin, timeout)

    def ssh(
        self, command: str, check: bool = True, stdin: str = "", timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the login node as the account, over SSH."""
        return finish([*self.ssh_argv(), command], check, stdin, timeout)

    def ssh_argv(self) -> list[str]:
        """How the OpenSSH client reaches the login node; the host key is pinned."""
        options = {
            "UserKnownHostsFile": str(self.root / "keys" / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": self.name,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return [
            "ssh",
            "-F",
            "none",
            *words,
            "-i",
            str(self.key_path),
            "-p",
            str(self.port),
            f"{self.account}@{self.host}",
        ]

    def authorise(self, public_key: str) -> None:
        """Let the account be used with a further public key (a line as in authorized_keys), as an enrolment asks."""
        path = self.home / ".ssh" / "authorized_keys"
        lines = path.read_text().splitlines()
        if public_key.strip() not in lines:
            path.write_text("\n".join([*lines, public_key.strip()]) + "\n")


def finish(argv: Sequence[str], check: bool, stdin: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run to the end with bounded time and a plain environment."""
    done = subprocess.run(
        list(argv), input=stdin, capture_output=True, text=True, timeout=timeout, env=plain_environment()
    )
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}: {words}")
    return done


def plain_environment() -> dict[str, str]:
    """What the lab's commands see: no setting of the caller reaches SLURM."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}


def read_pid(path: Path) -> int:
    """The pid in a file if that process lives, else 0."""
    try:
        pid = int(path.read_text().strip())
    except (OSError, ValueError):
        return 0
    return 0 if gone(pid) else pid


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
