"""Data to and from a real login node over SSH and SFTP: verified, repaired, resumed, and what a bad network or a full
disk do to it."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from heroes.api.errors import LinkDown, StoreBusy
from heroes_core.work import Database
from heroes_data.model import ObjectRef, SealedFolder
from heroes_data.rclone import Rclone
from heroes_data.s3 import S3Store
from heroes_data.staging import Mover
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from heroes_spawners.transport import SshTransport
from tests.contract.rigs import ssh_endpoint, ssh_transport
from tests.lab import LabCluster, faults
from tests.lab.lifecycle import Lab
from tests.lab.relay import Link
from tests.lab.wait import wait_for
from tests.objects import serve_objects

MIB = 2**20


class Stage:
    """The embedded object store, a mover, and a fresh base folder at `alpha`."""

    def __init__(self, objects: S3Store, mover: Mover, cluster: LabCluster, base: str) -> None:
        self.objects, self.mover, self.cluster, self.base = objects, mover, cluster, base
        self.organisation = f"o{secrets.token_hex(4)}"
        objects.make_bucket(self.organisation, "ada")
        self.site = self.through(cluster)
        self.site.prepare(1)

    def through(self, cluster: LabCluster) -> SlurmSite:
        """The site by another way to its login node."""
        return SlurmSite(ssh_transport(cluster), SlurmSettings(base=self.base))

    def put(self, key: str, content: bytes) -> ObjectRef:
        """Store an object."""
        made = self.objects.put(self.organisation, "ada", key, [content])
        return ObjectRef("ada", key, made.etag, made.size)

    def stage(self, *refs: ObjectRef, site: SlurmSite | None = None) -> int:
        """Stage in; the bytes moved."""
        chosen = site or self.site
        return self.mover.stage_in(chosen, "alpha", self.organisation, "ada", refs, epoch=1).bytes

    def at(self, key: str) -> Path:
        """The copy, seen from outside the cluster."""
        return self.cluster.path(f"{self.base}/data/{self.organisation}/ada/ada/{key}")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """The embedded server's objects."""
    with serve_objects(tmp_path_factory.mktemp("objects")) as server:
        store = S3Store(server.account)
        yield store
        store.close()


@pytest.fixture(scope="module")
def rclone() -> Iterator[Rclone]:
    """One rclone."""
    running = Rclone()
    yield running
    running.close()


@pytest.fixture
def alpha(lab: Lab) -> LabCluster:
    """The HPC centre."""
    return lab.cluster("alpha")


@pytest.fixture
def stage(alpha: LabCluster, sqlite: Database, objects: S3Store, rclone: Rclone) -> Iterator[Stage]:
    """A fresh stage."""
    base = f"{alpha.home}/staging-{secrets.token_hex(4)}"
    made = Stage(objects, Mover(sqlite, objects, rclone), alpha, base)
    yield made
    made.site.close()
    shutil.rmtree(alpha.path(base), ignore_errors=True)


def test_many_small_and_one_large_arrive_and_are_known_again(stage: Stage) -> None:
    """A thousand small files and a large one arrive byte by byte; the second time nothing moves."""
    contents = {f"set/{number % 10}/{number}": secrets.token_bytes(number % 4096) for number in range(1000)}
    contents["large.bin"] = os.urandom(20 * MIB)
    for key, content in contents.items():
        stage.put(key, content)
    refs = [ObjectRef("ada", "set/", "", 0), stage.put("large.bin", contents["large.bin"])]
    assert stage.stage(*refs) == sum(map(len, contents.values()))
    for key, content in contents.items():
        assert hashlib.sha256(stage.at(key).read_bytes()).digest() == hashlib.sha256(content).digest()
        assert stage.at(key).stat().st_uid == stage.cluster.uid
    assert stage.stage(*refs) == 0


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_a_changed_byte_with_its_old_time_is_repaired(stage: Stage, size: int) -> None:
    """The change is found by the ctime though size and mtime are as they were."""
    ref = stage.put("victim", b"v" * size)
    stage.stage(ref)
    path = stage.at("victim")
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stage.stage(ref) == size
    assert path.read_bytes() == b"v" * size


def test_results_come_back_and_are_inputs_without_a_transfer(stage: Stage) -> None:
    """Sealed folders of several jobs reach the bucket in one call and count as staged."""
    sealed = []
    for run in range(5):
        prefix = f"runs/r{run}/solve/0/"
        folder = stage.at(prefix)
        folder.mkdir(parents=True)
        for name, content in {
            "out.txt": b"text %d" % run,
            "deep/data.bin": os.urandom(MIB + run),
            "empty": b"",
        }.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        stage.cluster.run("chown", "-R", stage.cluster.account, f"{stage.base}/data")
        path = f"data/{stage.organisation}/ada/ada/{prefix}"
        files = stage.site.list_files([path.rstrip("/")])[path.rstrip("/")].files
        sealed.append(SealedFolder(path, "ada", prefix, files))
    moved = stage.mover.stage_out(stage.site, "alpha", stage.organisation, "ada", sealed)
    assert moved.bytes == sum(file.size for folder in sealed for file in folder.files)
    for folder in sealed:
        for file in folder.files:
            stored = b"".join(stage.objects.get(stage.organisation, "ada", folder.prefix + file.path))
            assert stored == stage.at(folder.prefix + file.path).read_bytes()
    assert stage.stage(ObjectRef("ada", "runs/", "", 0)) == 0


@pytest.mark.parametrize("size", [100_000, 2 * MIB])
def test_a_cut_network_is_told_and_the_next_try_ends_it(stage: Stage, size: int) -> None:
    """After a cut in the middle, what had arrived whole is not sent again, small or large, and all is right."""
    refs = [stage.put(f"in/{number}", os.urandom(size)) for number in range(20)]
    with faults.relay(stage.cluster) as link:
        _cut_after(link, refs, stage)
        link.restore()
        site = stage.through(link.cluster)
        moved = stage.stage(*refs, site=site)
        site.close()
    assert moved < 20 * size
    for ref in refs:
        assert hashlib.md5(stage.at(ref.key).read_bytes()).hexdigest() == ref.etag


def _cut_after(link: Link, refs: list[ObjectRef], stage: Stage) -> None:
    """Stage through a slow link and cut it once a few files are there."""
    link.weather.bytes_per_s = 2 * refs[0].size
    site = stage.through(link.cluster)
    told: list[Exception] = []

    def run() -> None:
        try:
            stage.stage(*refs, site=site)
        except (LinkDown, StoreBusy) as error:
            told.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def some_there() -> bool:
        return sum(stage.at(ref.key).exists() and stage.at(ref.key).stat().st_size == ref.size for ref in refs) >= 3

    wait_for("three files that are there", some_there)
    link.cut()
    thread.join(120)
    link.weather.bytes_per_s = 0
    site.close()
    assert [type(each) for each in told] == [LinkDown]
    assert told[0].hint  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [500_000, 8 * MIB])
def test_a_full_disk_is_told_and_after_making_room_it_works(
    alpha: LabCluster, sqlite: Database, objects: S3Store, rclone: Rclone, size: int
) -> None:
    """A full disk at the centre is named as such; with room again the same call succeeds."""
    base = f"{alpha.home}/full-{secrets.token_hex(4)}"
    with faults.small_disk(alpha, base, mib=48) as disk:
        stage = Stage(objects, Mover(sqlite, objects, rclone), alpha, base)
        refs = [stage.put(f"in/{number}", os.urandom(size)) for number in range(3)]
        disk.fill()
        with pytest.raises(StoreBusy, match=r"(?i)space|disk|refuses") as caught:
            stage.stage(*refs)
        assert caught.value.hint
        disk.free()
        assert stage.stage(*refs) == 3 * size
        assert stage.at("in/2").stat().st_size == size
        stage.site.close()
    alpha.run("rmdir", base)


def test_a_wrong_host_key_moves_nothing(stage: Stage, alpha: LabCluster, lab: Lab) -> None:
    """A login node with another host key than the pinned one gets neither commands nor data."""
    other = lab.cluster("cumulus").host_key
    wrong = SlurmSite(SshTransport(ssh_endpoint(alpha, host_key=other)), SlurmSettings(base=stage.base))
    ref = stage.put("secret", b"s" * 2 * MIB)
    with pytest.raises(LinkDown, match="host key"):
        stage.stage(ref, site=wrong)
    settings = {**wrong.remote(), "root": f"{stage.base}/data"}
    with pytest.raises(LinkDown):
        stage.mover._rclone.copy(stage.objects.remote(stage.organisation), settings, ["ada/secret"])
    assert not stage.at("secret").exists()
    wrong.close()
