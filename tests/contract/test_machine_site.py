"""The machine itself keeps every promise of a `Site`: the suite of tests/contract/test_site.py on it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.contract import test_site
from tests.unit.machine.conftest import Rig

globals().update({name: value for name, value in vars(test_site).items() if name.startswith("test_")})


class MachineRig(Rig):
    """A machine with its daemon, as the suite wants it."""

    queue = "large"

    def now(self) -> datetime:
        """The site's time."""
        return datetime.now(UTC)

    def stray(self, _name: str) -> str:
        """Nobody but the platform reaches this scheduler."""
        return ""

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Ask until it is so."""
        until = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < until, "it did not happen within a minute"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def rig() -> Iterator[MachineRig]:
    """A fresh machine."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-machine-"))
    made = MachineRig(folder)
    made.site.prepare(test_site.EPOCH)
    yield made
    made.close()
    shutil.rmtree(folder)
