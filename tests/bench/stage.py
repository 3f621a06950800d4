"""`stage.large_ratio`, `stage.small_ratio`, `stage.unchanged_speedup`: staging to `alpha` against raw rclone.

One file of 1 GB, and 10,000 of 4 KiB, from the embedded object store over SSH. The peer is `rclone copy` with the same
two remotes: it too checks each file's MD5 at the cluster after sending it, and with `--checksum` when nothing changed.
Each side writes to a folder of its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from heroes_core.migrate import load_tables
from heroes_core.work import Database
from heroes_data.disk import DiskStore
from heroes_data.embedded import EmbeddedServer
from heroes_data.model import ObjectRef
from heroes_data.rclone import Rclone
from heroes_data.service import object_info
from heroes_data.staging import Mover
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from tests import lab
from tests.bench import Figure
from tests.contract.rigs import ssh_transport
from tests.lab import LabCluster
from tests.objects import RCLONE

LARGE, FILES, SMALL = 10**9, 10_000, 4096


def run(large: int = LARGE, files: int = FILES) -> Iterator[Figure]:
    """The three figures, and that a damaged copy among many is repaired."""
    with _bench(large, files) as bench:
        ours, theirs = bench.ours("large.bin"), bench.theirs("large.bin")
        yield Figure("stage.large_ratio", theirs / ours, "ratio", 0.9, "higher", _told(theirs, large), 1)
        ours, theirs = bench.ours("many/"), bench.theirs("many/")
        yield Figure("stage.small_ratio", theirs / ours, "ratio", 0.9, "higher", _told(theirs, files * SMALL), files)
        ours, theirs = bench.ours("many/"), bench.theirs("many/", "--checksum")
        told = f"rclone copy --checksum of the unchanged files: {theirs:.1f} s; ours {ours:.2f} s"
        yield Figure("stage.unchanged_speedup", theirs / ours, "ratio", 50, "higher", told, files)
        told = "one byte changed, mtime restored"
        yield Figure("stage.repaired", bench.repaired(), "files", (1, 1), "between", told, files)


@dataclass
class _Bench:
    """Both ways, to two folders of the cluster."""

    cluster: LabCluster
    site: SlurmSite
    mover: Mover
    objects: DiskStore
    configuration: Path
    base: str

    def ours(self, key: str) -> float:
        """Seconds of staging in, from what a job refers to."""
        ref = object_info(self.objects, "acme", "ada", key) if not key.endswith("/") else ObjectRef("ada", key, "", 0)
        began = time.perf_counter()
        self.mover.stage_in(self.site, "alpha", "acme", "ada", [ref], epoch=1)
        return time.perf_counter() - began

    def theirs(self, key: str, *options: str) -> float:
        """Seconds of `rclone copy`."""
        source, target = f"store:ada/{key}", f"site:raw/{key if key.endswith('/') else ''}"
        argv = [RCLONE, "--config", str(self.configuration), "copy", source, target, *options]
        began = time.perf_counter()
        subprocess.run(argv, check=True, env={"PATH": os.environ["PATH"], "HOME": str(self.configuration.parent)})
        return time.perf_counter() - began

    def repaired(self) -> int:
        """Change a byte of one copy and put its mtime back; how many files the next staging sends."""
        path = self.cluster.path(f"{self.base}/data/acme/ada/ada/many/0/00000")
        before, content = path.stat(), path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        moved = self.mover.stage_in(self.site, "alpha", "acme", "ada", [ObjectRef("ada", "many/", "", 0)], epoch=1)
        assert path.read_bytes() == content, "the damaged copy was not repaired"
        return moved.bytes // SMALL


@contextmanager
def _bench(large: int, files: int) -> Iterator[_Bench]:
    alpha = lab.up().cluster("alpha")
    base = f"{alpha.home}/bench-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="heroes-bench-") as temporary:
        folder = Path(temporary)
        objects, rclone = EmbeddedServer(folder / "store", "http://nowhere").store(), Rclone()
        _fill(Path(objects.remote("acme")["root"]) / "ada", large, files)
        site = SlurmSite(ssh_transport(alpha), SlurmSettings(base=base))
        site.prepare(1)
        database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"a key for the bench")
        load_tables().create_all(database.engine)
        try:
            configuration = _configure(folder, objects.remote("acme"), site.remote())
            yield _Bench(alpha, site, Mover(database, objects, rclone), objects, configuration, base)
        finally:
            rclone.close()
            site.close()
            database.close()
            shutil.rmtree(alpha.path(base), ignore_errors=True)


def _fill(bucket: Path, large: int, files: int) -> None:
    """Random objects, written where the embedded server keeps them."""
    for number in range(files):
        path = bucket / "many" / str(number // 1000) / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL))
    with (bucket / "large.bin").open("wb") as stream:
        for start in range(0, large, 2**20):
            stream.write(os.urandom(min(2**20, large - start)))


def _configure(folder: Path, store: Mapping[str, str], site: Mapping[str, str]) -> Path:
    """rclone's own configuration of the same two remotes."""
    lines = []
    for name, settings in (("store", store), ("site", site)):
        lines += [f"[{name}-whole]", *(f"{key} = {value}" for key, value in settings.items() if key != "root")]
        lines += [f"[{name}]", "type = alias", f"remote = {name}-whole:{settings['root']}"]
    path = folder / "rclone.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def _told(seconds: float, size: int) -> str:
    return f"rclone copy, same remotes: {seconds:.1f} s, {size / seconds / 1e6:.1f} MB/s"
