"""Compiles the C programs: `python -m heroes_ear.compile`. The build hook of the package does the same.

Standard library only: the build hook loads this file before anything is installed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src"
TARGET = Path(__file__).parent / "bin"
NAMES = ("earl-run", "heroes-isolate")
FLAGS = ("-std=gnu11", "-O2", "-s", "-Wall", "-Wextra")


def commands(compiler: str, source: Path, target: Path) -> list[list[str]]:
    """The compile commands to try, best first: a static program runs on any Linux of the architecture."""
    words = shlex.split(compiler)
    tail = ["-o", str(target), str(source), "-lm"]
    return [[*words, *FLAGS, "-static", *tail], [*words, *FLAGS, *tail]]


def find_compiler() -> str | None:
    """`$CC`, else the first of cc, gcc and clang on PATH; None when there is no C compiler."""
    named = os.environ.get("CC")
    return named or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compile_one(compiler: str, source: Path, target: Path) -> str:
    """Compile `source` to `target` (replaced at once); "" or the compiler's words."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    said = ""
    for command in commands(compiler, source, fresh):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            fresh.chmod(0o755)
            fresh.replace(target)
            return ""
        said = done.stderr
    return said


def _is_fresh(source: Path, target: Path) -> bool:
    read = [source, *source.parent.glob("*.h")]
    return target.is_file() and target.stat().st_mtime >= max(each.stat().st_mtime for each in read)


def compile_all(sources: Path = SOURCES, target: Path = TARGET) -> list[str]:
    """Compile what is missing or older than its source; what could not be made, one sentence each."""
    target.mkdir(exist_ok=True)
    stale = [name for name in NAMES if not _is_fresh(sources / f"{name}.c", target / name)]
    compiler = find_compiler()
    if compiler is None:
        return [f"{name} is not made: no C compiler was found (cc, gcc or clang, or name one in CC)" for name in stale]
    missing = []
    for name in stale:
        said = compile_one(compiler, sources / f"{name}.c", target / name)
        if said:
            missing.append(f"{name} is not made: {compiler} said: {said.strip()}")
    return missing


def main() -> int:
    """Exit status 1 when a program could not be made."""
    missing = compile_all()
    for sentence in missing:
        sys.stderr.write(f"{sentence}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
