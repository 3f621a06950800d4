"""The Debian or Ubuntu packages that the tests need: `python -m tests.packages` says what is missing and installs it.

Without root nothing is installed; the tests that need it are skipped then, and say so.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.lab import packages, postgres
from tests.lab.cluster import plain_environment

#: A program of each package beside the lab's own; where it exists the package counts as installed.
PROGRAMS = {
    "charliecloud": "ch-run",
    "squashfs-tools": "mksquashfs",
    "openfoam": "blockMesh",
    "openmpi-bin": "mpirun",
}


def main() -> None:
    """Install what is missing, and say so first."""
    if os.geteuid() != 0:
        print("tests: not root, so nothing is installed and the lab's tests are skipped", file=sys.stderr)
        return
    packages.install()
    postgres.programs()
    path = plain_environment()["PATH"]
    wanted = [package for package, program in PROGRAMS.items() if not shutil.which(program, path=path)]
    if wanted:
        print(f"tests: installing {', '.join(wanted)} with apt-get", flush=True)
        with packages.services_kept_down():
            if not any(Path("/var/lib/apt/lists").glob("*Packages*")):
                packages.apt("update", "-q")
            packages.apt("install", "-q", "-y", "--no-install-recommends", *wanted)


if __name__ == "__main__":
    main()
