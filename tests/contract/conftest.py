"""The lab, for suites that run on fakes and on real clusters."""

from __future__ import annotations

import os

import pytest

from tests import lab as labs


@pytest.fixture(scope="session")
def lab() -> labs.Lab:
    """The lab, brought up when it is down; without root there is none."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    return labs.up()
