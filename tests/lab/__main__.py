"""`python -m tests.lab up|down|status`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.lab import lifecycle
from tests.lab.wait import LabError


def main(words: list[str]) -> int:
    """Do what the only word says; exit status 1 with a message when it cannot be done, 2 for a wrong call."""
    if len(words) != 1 or words[0] not in ("up", "down", "status"):
        print("usage: python -m tests.lab up|down|status", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        return as_root(words)
    try:
        act(words[0])
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def act(word: str) -> None:
    """Do it and print how the lab is."""
    if word == "down":
        lifecycle.down()
        print(f"lab: nothing left in {lifecycle.folder()}")
        return
    if word == "up":
        lifecycle.up()
    print("\n".join(lifecycle.status()))


def as_root(words: list[str]) -> int:
    """Run again under sudo: accounts, mounts and daemons need root."""
    sudo = shutil.which("sudo")
    if sudo is None:
        print("lab: needs root (no sudo here): run it as root", file=sys.stderr)
        return 1
    return subprocess.call([sudo, "--preserve-env=HEROES_LAB", sys.executable, "-m", "tests.lab", *words])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
