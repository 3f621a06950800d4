"""The Debian or Ubuntu packages that the lab needs: says what is missing, then installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cluster import plain_environment
from tests.lab.wait import LabError

#: A program of each package; where it exists the package counts as installed.
PROGRAMS = {
    "slurm-client": "sbatch",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "munge": "munged",
    "mariadb-server": "mariadbd",
    "openssh-server": "sshd",
    "openssh-client": "ssh",
    "openssh-sftp-server": "/usr/lib/openssh/sftp-server",
}
POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Packages whose program is not found."""
    path = plain_environment()["PATH"]
    return [package for package, program in PROGRAMS.items() if not shutil.which(program, path=path)]


def install() -> None:
    """Install what is missing and say so first; nothing and instant when all is there."""
    packages = missing()
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise LabError(f"the lab needs {', '.join(packages)}; install them (here is no apt-get to do it)")
    print(f"lab: installing {', '.join(packages)} with apt-get", flush=True)
    with services_kept_down():
        apt("update", "-q")
        apt("install", "-q", "-y", "--no-install-recommends", *packages)


def apt(*arguments: str) -> None:
    """Run apt-get without questions; its output is shown only when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", *arguments, "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def services_kept_down() -> Iterator[None]:
    """Keep package scripts from starting the distribution's own daemons: the lab starts its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
