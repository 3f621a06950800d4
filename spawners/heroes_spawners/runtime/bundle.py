"""What is pushed to a site: the wrapper, the job script and the small programs, named by their common checksum."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

SCRIPTS = ("wrapper.sh", "job.sh")
PROGRAMS = ("earl-run", "heroes-isolate")


@dataclass(frozen=True)
class Bundle:
    """Files by name, all to be executable, and the SHA-256 over names and contents that names their folder."""

    files: Mapping[str, bytes]
    digest: str

    @property
    def programs(self) -> frozenset[str]:
        """The compiled programs that are in it; whether they run at the site is for a probe to prove."""
        return frozenset(PROGRAMS) & frozenset(self.files)


def bundle(arch: str = "") -> Bundle:
    """What to push to nodes of architecture `arch` (this machine's when empty). Programs compiled for another
    architecture are left out; so are those that no compiler was here to make."""
    here = platform.machine()
    files = {name: found for name in SCRIPTS if (found := _read("heroes_spawners.runtime", name))}
    if arch in ("", here):
        files |= {name: found for name in PROGRAMS if (found := _read("heroes_ear", f"bin/{name}"))}
    return Bundle(files, digest(files))


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over the sorted names, lengths and contents of `files`."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{len(name)}:{name}:{len(files[name])}:".encode() + files[name])
    return whole.hexdigest()


def _read(package: str, name: str) -> bytes:
    """The content of a package's file, b"" where it is not there."""
    place = resources.files(package).joinpath(name)
    return place.read_bytes() if place.is_file() else b""
