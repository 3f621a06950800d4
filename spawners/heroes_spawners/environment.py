"""Pushed environments: Python packages for jobs, built here, unpacked at a site, never installed there.

`runtime/environments/<name>.txt` locks versions and hashes. Built once for each (name, Python, architecture): wheels
only, one tar named by its SHA-256. At the site the tar is unpacked over `python -m venv --without-pip`, into
`runtime/<sha256>`, so a site that has it already is asked only whether it has.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from heroes.api.errors import InvalidSpec, LinkDown, NotFound, Unavailable
from heroes_spawners.transport.base import Transport

#: The C library that the wheels need; checked by the probe, so that a site with an older one uses images.
GLIBC = (2, 28)
_PLATFORM = "{arch}-manylinux_2_28"
_CHUNK = 1 << 20

#: Run at the site; arguments: base directory, SHA-256, Python. The tar comes on its input. The last step is a rename,
#: so that two pushes at once, or one that is cut, leave a whole environment or none.
UNPACK = """
base=$1 sha=$2 python=$3
[ -d "$base/runtime/$sha" ] && { cat > /dev/null; exit 0; }
part=$base/runtime/.$sha.$$
trap 'rm -rf "$part" "$part.tar"' EXIT
set -e
umask 022
mkdir -p "$base/runtime"
cat > "$part.tar"
found=$(sha256sum < "$part.tar")
[ "${found%% *}" = "$sha" ] || { echo "the transfer was damaged: ${found%% *} arrived" >&2; exit 1; }
"$python" -m venv --without-pip "$part"
tar -xzf "$part.tar" -C "$part"/lib/python3.*/site-packages
mv -T "$part" "$base/runtime/$sha" 2> /dev/null || [ -d "$base/runtime/$sha" ]
"""


@dataclass(frozen=True)
class Archive:
    """A built environment: a gzipped tar of site-packages, and its SHA-256 in hex."""

    path: Path
    sha256: str


def names() -> list[str]:
    """The environments that can be pushed."""
    return sorted(each.name.removesuffix(".txt") for each in _locks().iterdir() if each.name.endswith(".txt"))


def build(name: str, cache: Path, python: str = "3.11", arch: str = "x86_64") -> Archive:
    """The environment `name` for Python `python` (e.g. "3.11") on `arch`, from `cache` when it was built before.

    NotFound for a name that does not exist, Unavailable when the package index cannot be reached."""
    lock = _lock(name)
    kept = cache / f"{name}-{python}-{arch}-{hashlib.sha256(lock).hexdigest()[:16]}.tar.gz"
    cache.mkdir(parents=True, exist_ok=True)
    with _held(kept.with_suffix(".lock")):
        if not kept.exists():
            _make(name, lock, kept, python, arch)
    return Archive(kept, _remembered_sha256(kept))


def ensure_environment(
    transport: Transport, base: str, facts: Mapping[str, Any], name: str, cache: Path, *, deadline_s: float = 900.0
) -> str:
    """Make sure that the site has the environment `name`; the SHA-256 that names its folder below `runtime/`.

    InvalidSpec where the site's Python or C library is too old (`facts`: python, python_version, glibc, arch)."""
    python = _suitable(facts)
    archive = build(name, cache, facts["python_version"], facts.get("arch") or "x86_64")
    there = transport.run(("test", "-d", f"{base}/runtime/{archive.sha256}"), deadline_s=30.0, limit=65536)
    if there.returncode != 0:
        _push(transport, base, archive, python, deadline_s)
    return archive.sha256


def _suitable(facts: Mapping[str, Any]) -> str:
    """The site's Python, or InvalidSpec saying what it lacks."""
    version = _numbers(facts.get("python_version") or "")
    if not facts.get("python") or version < (3, 11):
        told = facts.get("python_version") or "none"
        raise InvalidSpec(
            f"the compute nodes have no Python 3.11 or newer (found: {told})",
            hint="Use a template with a container image there, or ask the centre for a newer Python.",
        )
    glibc = _numbers(facts.get("glibc") or "")
    if glibc and glibc < GLIBC:
        raise InvalidSpec(
            f"the compute nodes have the C library {facts['glibc']}, older than 2.28",
            hint="Use a template with a container image there.",
        )
    return str(facts["python"])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _push(transport: Transport, base: str, archive: Archive, python: str, deadline_s: float) -> None:
    argv = ("/bin/sh", "-c", UNPACK, "unpack", base, archive.sha256, python)
    stream = transport.open(argv, deadline_s=deadline_s)
    with archive.path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            stream.write(chunk)
    done = stream.finish()
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise LinkDown(f"the environment could not be unpacked at the site: {said}", hint="Look for space and quota.")


def _locks() -> Any:
    return resources.files("heroes_spawners.runtime").joinpath("environments")


def _lock(name: str) -> bytes:
    place = _locks().joinpath(f"{name}.txt")
    if not place.is_file():
        raise NotFound(f"there is no environment {name!r}", hint=f"Known are: {', '.join(names())}.")
    return bytes(place.read_bytes())


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """One builder at a time, over all processes."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _make(name: str, lock: bytes, kept: Path, python: str, arch: str) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".build-") as scratch:
        packages = Path(scratch) / "packages"
        _install(name, lock, packages, Path(scratch), python, arch)
        _compile(packages, python)
        part = Path(scratch) / "part.tar.gz"
        _pack(packages, part)
        part.replace(kept)


def _install(name: str, lock: bytes, packages: Path, scratch: Path, python: str, arch: str) -> None:
    requirements = scratch / "lock.txt"
    requirements.write_bytes(lock)
    argv = [_uv(), "pip", "install", "--quiet", "--no-config", "--python", sys.executable, "--target", str(packages)]
    argv += ["--python-version", python, "--python-platform", _PLATFORM.format(arch=arch), "--only-binary", ":all:"]
    argv += ["--require-hashes", "--link-mode", "copy", "-r", str(requirements)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        hint = "Check that this machine reaches the package index (UV_INDEX_URL names another), and try again."
        raise Unavailable(f"the environment {name!r} cannot be built: {done.stderr.strip()[-500:]}", hint=hint)


def _uv() -> str:
    beside = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which("uv", path=beside)
    if not found:
        hint = "Install the platform's dependencies: pip install 'heroes-hpc[platform]'."
        raise Unavailable("the program uv, which builds environments, is not installed", hint=hint)
    return found


def _compile(packages: Path, python: str) -> None:
    """Byte-compile, since the job cannot keep what it compiles; by content, since unpacking changes times. Another
    Python version here than there would be of no use: then jobs compile for themselves."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        argv = [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "-q",
            "-j0",
            "--invalidation-mode",
            "unchecked-hash",
            "-s",
            str(packages),
        ]
        subprocess.run([*argv, str(packages)], check=False, stdout=subprocess.DEVNULL)


def _pack(packages: Path, target: Path) -> None:
    """The same packages always make the same tar: sorted, no times, no owners; their test suites stay behind."""
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(packages.rglob("*")):
            inside = path.relative_to(packages)
            if path.is_file() and not path.is_symlink() and "tests" not in inside.parts and inside.parts[0] != "bin":
                member = tarfile.TarInfo(str(inside))
                member.size, member.mode = path.stat().st_size, 0o755 if os.access(path, os.X_OK) else 0o644
                tar.addfile(member, io.BytesIO(path.read_bytes()))


def _remembered_sha256(kept: Path) -> str:
    """Hashing 100 MB takes a second: remembered beside the tar, which never changes."""
    beside = kept.with_suffix(".sha256")
    if not beside.exists():
        with kept.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        part = beside.with_suffix(f".{os.getpid()}")
        part.write_text(digest)
        part.replace(beside)
    return beside.read_text()
