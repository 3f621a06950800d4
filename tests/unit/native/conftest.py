"""The compiled programs, and a folder that an unprivileged account can reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import heroes_ear
from heroes_ear import compile as compiling


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with both programs, reachable by every user."""
    if compiling.find_compiler() is None:
        pytest.skip("no C compiler here")
    assert compiling.compile_all() == []
    folder = Path(tempfile.mkdtemp(prefix="heroes-native-", dir="/tmp"))
    folder.chmod(0o755)
    for name in heroes_ear.PROGRAMS:
        shutil.copy2(heroes_ear.program(name), folder / name)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def earl_run(programs: Path) -> str:
    """The path of earl-run."""
    return str(programs / "earl-run")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder outside /tmp's private places that any user may write, as a site's base folder is."""
    folder = Path(tempfile.mkdtemp(prefix="heroes-site-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def user_namespaces_work() -> bool:
    """Whether an unprivileged account may make user namespaces on this machine."""
    return os.system("unshare --user --map-root-user true 2>/dev/null") == 0
