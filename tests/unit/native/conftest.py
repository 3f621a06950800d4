"""The compiled programs, and a folder that an unprivileged account can reach."""

from __future__ import annotations

import os
import shutil
import sys
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


#: A Python program that forbids one system call (numbers on x86_64 and aarch64) and executes its further words.
FORBID = """
import ctypes, os, platform, struct, sys
number = int(sys.argv[1] if platform.machine() == "x86_64" else sys.argv[2])
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program)) == 0, ctypes.get_errno()
os.execv(sys.argv[3], sys.argv[3:])
"""


def forbidding(x86_64: int, aarch64: int) -> list[str]:
    """Words that forbid a system call (EPERM) to the program that follows, as some kernels and containers do."""
    return [sys.executable, "-S", "-c", FORBID, str(x86_64), str(aarch64)]


def user_namespaces_work() -> bool:
    """Whether an unprivileged account may make user namespaces on this machine."""
    return os.system("unshare --user --map-root-user true 2>/dev/null") == 0
