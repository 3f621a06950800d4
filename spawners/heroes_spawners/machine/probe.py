"""What this machine can do for a job: the means of isolation, tried; its Python; its container engine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from heroes_spawners.isolation import Bind, Facts, View, enclose, lock
from heroes_spawners.programs import APPLICATIONS, ENGINES
from heroes_spawners.runtime.bundle import PROGRAMS

_PATH = "/usr/local/bin:/usr/bin:/bin"
#: A uid of nobody in particular, for the trial of isolation as root.
_NOBODY = 65534


def probe(runtime: Path, *, people: bool) -> dict[str, Any]:
    """The facts of this machine, as runtime/README.md lists them. `runtime`: the folder of the pushed bundle.
    `people`: jobs become users of their own, so that even without namespaces an account is one person's."""
    facts: dict[str, Any] = {
        "runtime": str(runtime),
        "programs": [name for name in PROGRAMS if _works([str(runtime / name), "--version"])],
        "container": next((name for name in ENGINES if _there(name)), ""),
        "applications": [name for name, needed in APPLICATIONS.items() if all(map(_there, needed))],
        "home": str(Path.home()),
        "one_person": True,
        "arch": platform.machine(),
        "glibc": platform.libc_ver()[1],
        "launcher": "mpirun",
        **facts_of_python(),
    }
    facts["user"] = f"{_NOBODY}:{_NOBODY}" if people else ""
    facts["isolation"] = next((each for each in ("heroes-isolate", "unshare") if _isolates(each, facts)), "none")
    return facts


def _there(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None


def _works(argv: list[str]) -> bool:
    """Whether a command ends well."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _isolates(means: str, facts: dict[str, Any]) -> bool:
    """Whether this means hides the rest of the base directory from a command and still runs it."""
    runtime = Path(facts["runtime"])
    if means not in facts["programs"] and means == "heroes-isolate":
        return False
    base = runtime.parent.parent
    folder = base / "jobs" / f"probe-{os.getpid()}"
    (folder / "out").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    out = Bind(f"{folder}/out", f"{folder}/out", writable=True)
    view = View(str(base), str(folder), (out,), Facts.of({**facts, "isolation": means}))
    (folder / "lock").write_text(lock(view))
    worked = _works([*enclose(view), "/bin/sh", "-c", 'test ! -e "$1"', "sh", f"{runtime}/job.sh"])
    shutil.rmtree(folder, ignore_errors=True)
    return worked


def facts_of_python() -> dict[str, str]:
    """The Python of this machine that jobs use: the system's where new enough, since every user can execute it."""
    asks = "import sys, venv; print('%d.%d' % sys.version_info[:2], sys.base_prefix)"
    own = f"{sys.base_prefix}/bin/python{sysconfig.get_python_version()}"
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", own):
        version, _, prefix = _output([path, "-I", "-c", asks]).partition(" ")
        if version and tuple(int(part) for part in version.split(".")) >= (3, 11):
            return {"python": path, "python_version": version, "python_prefix": prefix}
    return {}


def _output(argv: list[str]) -> str:
    """What a command prints; "" when it does not end well."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
