"""Pytest fixtures of the lab."""

from __future__ import annotations

import os

import pytest

from tests import lab as lab_package
from tests.lab.lifecycle import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab's clusters, brought up when they are not. Without root the test is skipped; under CI=true it fails."""
    if os.geteuid() != 0:
        pytest.skip("the lab's SLURM clusters need root: run the tests as root, or `make lab` first and then as root")
    return lab_package.up()
