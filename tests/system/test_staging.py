"""Data on its way to clusters and back: a cluster by local commands here, real SLURM ones over SSH in the lab."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from heroes.api.errors import InvalidSpec, LinkDown, NotFound, StoreBusy
from heroes_core.work import Database
from heroes_data import store
from heroes_data.disk import DiskStore
from heroes_data.embedded import EmbeddedServer
from heroes_data.model import ObjectRef, SealedFolder
from heroes_data.ports import ObjectStore
from heroes_data.rclone import Rclone
from heroes_data.s3 import S3Store
from heroes_data.staging import Mover
from heroes_spawners.site import Listing, TarSink
from heroes_spawners.slurm.site import SlurmSettings, SlurmSite
from heroes_spawners.transport.local import LocalTransport
from tests.conftest import StillClock
from tests.objects import disk_store, serve_objects

MIB = 2**20


class WatchedSite(SlurmSite):
    """A cluster whose commands are run here; it tells what was asked of it, and can break."""

    def __init__(self, base: Path) -> None:
        super().__init__(LocalTransport(), SlurmSettings(base=str(base)))
        self.root = base
        self.tars = 0
        self.asked: list[str] = []
        self.broken_after: int | None = None

    def stream_tar(self, path: str) -> TarSink:  # type: ignore[override]
        self.tars += 1
        sink = super().stream_tar(path)
        if self.broken_after is None:
            return sink
        return _BreakingSink(sink, self.broken_after)

    def checksums(self, path: str, names: Sequence[str]) -> dict[str, str]:
        self.asked += names
        return super().checksums(path, names)


class _BreakingSink:
    """A line that is cut after so many bytes."""

    def __init__(self, sink: TarSink, left: int) -> None:
        self._sink, self._left = sink, left

    def write(self, data: bytes) -> None:
        if len(data) > self._left:
            self._sink.write(data[: self._left])
            raise LinkDown("the line was cut")
        self._left -= len(data)
        self._sink.write(data)

    def finish(self) -> None:
        self._sink.finish()


@pytest.fixture(scope="module")
def rclone() -> Iterator[Rclone]:
    """One rclone for all tests."""
    running = Rclone()
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The embedded server."""
    with serve_objects(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> WatchedSite:
    """A prepared cluster."""
    (tmp_path / "site").mkdir()
    made = WatchedSite(tmp_path / "site")
    made.prepare(1)
    return made


@pytest.fixture
def objects(tmp_path: Path) -> DiskStore:
    """The embedded store's files, with ada's bucket."""
    made = disk_store(tmp_path / "store")
    made.make_bucket("acme", "ada")
    return made


@pytest.fixture
def mover(sqlite: Database, objects: DiskStore, rclone: Rclone) -> Mover:
    """What is tested."""
    return Mover(sqlite, objects, rclone)


def put(objects: ObjectStore, key: str, content: bytes, bucket: str = "ada") -> ObjectRef:
    """Store an object; how a job refers to it."""
    made = objects.put("acme", bucket, key, [content])
    return ObjectRef(bucket, key, made.etag, made.size)


def at(site: WatchedSite, key: str) -> Path:
    """Where an object of ada's lies."""
    return site.root / "data" / "acme" / "ada" / "ada" / key


def stage(mover: Mover, site: WatchedSite, *refs: ObjectRef) -> int:
    """Stage in for ada; the bytes that were moved."""
    return mover.stage_in(site, "alpha", "acme", "ada", refs, epoch=1).bytes


def test_small_and_large_objects_arrive_as_they_are(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """Whatever the size, the copy has the object's bytes, at the place that is told."""
    contents = {"in/small.csv": b"1,2,3\n", "in/empty": b"", "large.bin": os.urandom(3 * MIB), "a b ü.txt": b"x" * MIB}
    refs = [put(objects, key, content) for key, content in contents.items()]
    moved = mover.stage_in(site, "alpha", "acme", "ada", refs)
    assert moved.bytes == sum(map(len, contents.values()))
    assert moved.seconds > 0
    assert [(each.ref, each.path) for each in moved.staged] == [(ref, f"data/acme/ada/ada/{ref.key}") for ref in refs]
    for key, content in contents.items():
        assert at(site, key).read_bytes() == content


def test_what_is_there_is_not_sent_again(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """The second time nothing is moved, nothing is read, and no checksum is made."""
    refs = [put(objects, "a", b"a"), put(objects, "b", b"b" * 2 * MIB)]
    assert stage(mover, site, *refs) > 0
    site.asked.clear()
    site.tars = 0
    assert stage(mover, site, *refs) == 0
    assert (site.asked, site.tars) == ([], 0)


def test_only_what_differs_is_sent(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """Of many objects the changed and the new one go, and they alone."""
    refs = [put(objects, f"in/{number}", b"x" * number) for number in range(1, 20)]
    stage(mover, site, *refs)
    refs[3] = put(objects, "in/4", b"other")
    assert stage(mover, site, *refs, put(objects, "new", b"1234567")) == 5 + 7
    assert at(site, "in/4").read_bytes() == b"other"


@pytest.mark.parametrize("size", [100, 2 * MIB])
def test_a_changed_byte_with_its_old_time_is_repaired(
    mover: Mover, site: WatchedSite, objects: DiskStore, size: int
) -> None:
    """A byte changed at the cluster, the mtime put back, is found by the ctime and repaired, and nothing else is."""
    refs = [put(objects, "victim", b"v" * size), put(objects, "other", b"o" * size)]
    stage(mover, site, *refs)
    before = at(site, "victim").stat()
    with at(site, "victim").open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"!")
    os.utime(at(site, "victim"), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert at(site, "victim").stat().st_mtime_ns == before.st_mtime_ns
    assert stage(mover, site, *refs) == size
    assert at(site, "victim").read_bytes() == b"v" * size


@pytest.mark.parametrize("harm", ["deleted", "shortened", "replaced", "a link", "a folder"])
def test_a_damaged_copy_is_repaired(mover: Mover, site: WatchedSite, objects: DiskStore, harm: str) -> None:
    """Whatever stands in place of the copy, the object is there afterwards."""
    ref = put(objects, "in/victim", b"victim")
    stage(mover, site, ref)
    path = at(site, "in/victim")
    path.unlink()
    if harm == "shortened":
        path.write_bytes(b"vic")
    elif harm == "replaced":
        path.write_bytes(b"VICTIM")
    elif harm == "a link":
        path.symlink_to("/etc/hostname")
    elif harm == "a folder":
        path.mkdir()
    assert stage(mover, site, ref) == 6
    assert path.read_bytes() == b"victim"
    assert not path.is_symlink()


@pytest.mark.parametrize("size", [6, 2 * MIB])
@pytest.mark.parametrize("deep", ["evil", "evil/deeper", "deep/evil"])
def test_no_link_of_a_job_leads_out(
    mover: Mover, site: WatchedSite, objects: DiskStore, tmp_path: Path, deep: str, size: int
) -> None:
    """Where a finished job left a link to another folder, what is staged below it stays in the user's own data."""
    outside = tmp_path / "outside"
    (outside / "deeper").mkdir(parents=True)
    left = at(site, "runs/r1/solve/0")
    link = left / ("deep/evil" if deep.startswith("deep/") else "evil")
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    ref = put(objects, f"runs/r1/solve/0/{deep}/x", b"x" * size)
    assert stage(mover, site, ref) == size
    assert (left / deep / "x").read_bytes() == b"x" * size
    assert [path for path in outside.rglob("*") if path.is_file()] == []
    assert not link.is_symlink()


def test_a_touched_copy_is_judged_by_its_content(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A copy whose times changed and whose bytes did not is not sent again, and is known again afterwards."""
    ref = put(objects, "in/x", b"content")
    stage(mover, site, ref)
    os.utime(at(site, "in/x"), (1, 1))
    assert stage(mover, site, ref) == 0
    assert site.asked.count("ada/in/x") == 2
    assert stage(mover, site, ref) == 0
    assert site.asked.count("ada/in/x") == 2


def test_a_folder_is_staged_with_all_below(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A key that ends in a slash means every object below, also hundreds; marks of empty folders stay away."""
    for number in range(250):
        put(objects, f"set/{number % 7}/{number}", str(number).encode())
    objects.put("acme", "ada", "set/.heroes-folder", [])
    ref = ObjectRef("ada", "set/", "", 0)
    moved = mover.stage_in(site, "alpha", "acme", "ada", [ref])
    assert moved.staged[0].path == "data/acme/ada/ada/set"
    found = {str(path.relative_to(at(site, "set"))) for path in at(site, "set").rglob("*") if path.is_file()}
    assert found == {f"{number % 7}/{number}" for number in range(250)}
    assert stage(mover, site, ref) == 0


def test_what_left_a_folder_leaves_its_copy(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """An object deleted from the bucket is in no later copy of its folder; results not brought back yet stay."""
    for key in ("set/keep", "set/gone", "setting"):
        put(objects, key, key.encode())
    ref = ObjectRef("ada", "set/", "", 0)
    stage(mover, site, ref, put(objects, "setting", b"setting"))
    objects.delete("acme", "ada", "set/gone")
    at(site, "set/result").write_bytes(b"not in the bucket yet")
    assert stage(mover, site, ref) == 0
    assert sorted(path.name for path in at(site, "set").iterdir()) == ["keep", "result"]
    assert at(site, "setting").exists()


def test_what_arrived_before_a_cut_is_not_sent_again(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """After a cut line the next try sends what had not arrived, and no half file passes for a whole one."""
    refs = [put(objects, f"in/{number:02}", bytes([number]) * 100_000) for number in range(20)]
    site.broken_after = 900_000
    with pytest.raises(LinkDown, match="cut"):
        stage(mover, site, *refs)
    site.broken_after = None
    moved = stage(mover, site, *refs)
    assert 0 < moved < 20 * 100_000
    for number in range(20):
        assert at(site, f"in/{number:02}").read_bytes() == bytes([number]) * 100_000


def test_an_object_that_changed_meanwhile_is_told(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A job never runs with other data than it was submitted with: same size or not, small or large."""
    for size in (10, 2 * MIB):
        for change in (b"y" * size, b"y" * (size + 1)):
            ref = put(objects, "in/x", b"x" * size)
            put(objects, "in/x", change)
            with pytest.raises(NotFound, match="changed after"):
                stage(mover, site, ref)


def test_what_is_not_there_is_told(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A missing object or an empty folder is named."""
    ref = put(objects, "x", b"x")
    objects.delete("acme", "ada", "x")
    with pytest.raises(NotFound, match="x"):
        stage(mover, site, ref)
    with pytest.raises(NotFound, match="nothing below none/"):
        stage(mover, site, ObjectRef("ada", "none/", "", 0))


@pytest.mark.parametrize(
    "keys",
    [["../x"], ["a/../../x"], ["a\nb"], ["a\x1b[31m"], ["a\\b"], ["a\u202eb"], ["Data.csv", "data.csv"],
     ["caf\u00e9", "cafe\u0301"], ["a", "a/b"], ["A", "a/b"], ["/etc/passwd"], ["a//b"]],
)  # fmt: skip
def test_keys_that_are_no_paths_are_refused(
    mover: Mover, site: WatchedSite, objects: DiskStore, keys: list[str]
) -> None:
    """Traversal, control characters and collisions are refused before anything is sent."""
    refs = [ObjectRef("ada", key, hashlib.md5(b"").hexdigest(), 0) for key in keys]
    with pytest.raises(InvalidSpec) as caught:
        stage(mover, site, *refs)
    assert caught.value.hint
    assert not (site.root / "data" / "acme").exists()


def test_progress_is_told(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """Bytes so far only grow, and end at all of them."""
    told: list[tuple[int, int]] = []
    refs = [put(objects, f"in/{number}", bytes(1000)) for number in range(30)]
    mover.stage_in(site, "alpha", "acme", "ada", refs, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (30_000, 30_000)


def test_every_transfer_is_logged_and_measured(
    mover: Mover, site: WatchedSite, objects: DiskStore, sqlite: Database
) -> None:
    """The log tells who moved what where; a large transfer measures the link, a small one does not."""
    stage(mover, site, put(objects, "in/tiny", b"x"))
    with sqlite.read() as work:
        assert store.links(work, "alpha") == {}
    stage(mover, site, put(objects, "in/big", bytes(3 * MIB)))
    with sqlite.read() as work:
        rates = store.links(work, "alpha")
        rows = store.list_transfers(work, "acme", None, 0, 10)
    assert rates.keys() == {"stage-in"}
    assert rates["stage-in"] > 1000
    assert [(row.user, row.direction, row.bucket, row.key, row.cluster, row.objects, row.bytes) for row in rows] == [
        ("ada", "stage-in", "ada", "in/big", "alpha", 1, 3 * MIB),
        ("ada", "stage-in", "ada", "in/tiny", "alpha", 1, 1),
    ]


def seal(site: WatchedSite, run: str, files: Mapping[str, bytes]) -> SealedFolder:
    """What a finished job's sealed folder is."""
    prefix = f"runs/{run}/solve/0/"
    path = f"data/acme/ada/ada/{prefix}"
    for name, content in files.items():
        target = site.root / path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    listing = site.list_files([path.rstrip("/")])
    return SealedFolder(path, "ada", prefix, next(iter(listing.values()), Listing(())).files)


def test_results_of_many_jobs_come_back_in_one_go(
    mover: Mover, site: WatchedSite, objects: DiskStore, sqlite: Database
) -> None:
    """Every file of every job is in the bucket, byte by byte, and the log tells it."""
    jobs = {f"r{number}": {"out.txt": str(number).encode(), "deep/er.bin": bytes(number)} for number in range(30)}
    sealed = [seal(site, run, files) for run, files in jobs.items()]
    moved = mover.stage_out(site, "alpha", "acme", "ada", sealed)
    assert moved.bytes == sum(len(content) for files in jobs.values() for content in files.values())
    for run, files in jobs.items():
        for name, content in files.items():
            assert b"".join(objects.get("acme", "ada", f"runs/{run}/solve/0/{name}")) == content
    with sqlite.read() as work:
        row = store.list_transfers(work, "acme", "ada", 0, 10)[0]
    assert (row.direction, row.objects, row.key) == ("stage-out", 60, "runs/")


def test_a_later_step_at_the_same_cluster_needs_no_transfer(
    mover: Mover, site: WatchedSite, objects: DiskStore
) -> None:
    """Results that were brought back count as exact copies where they are."""
    mover.stage_out(site, "alpha", "acme", "ada", [seal(site, "r1", {"mesh": b"m" * 100, "big": bytes(2 * MIB)})])
    site.asked.clear()
    assert stage(mover, site, ObjectRef("ada", "runs/r1/solve/0/", "", 0)) == 0
    assert site.asked == []


def test_links_and_unkept_files_stay_behind(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A link is not followed, also one put in place of a listed file; what is not asked for stays."""
    folder = seal(site, "r1", {"kept": b"kept", "swapped": b"swapped", "unkept": b"unkept"})
    kept = tuple(file for file in folder.files if file.path != "unkept")
    swapped = site.root / folder.path / "swapped"
    swapped.unlink()
    swapped.symlink_to("/etc/hostname")
    with pytest.raises(NotFound, match="swapped was changed"):
        mover.stage_out(site, "alpha", "acme", "ada", [SealedFolder(folder.path, "ada", folder.prefix, kept)])
    assert [each.key for each in objects.listing("acme", "ada").objects] == ["runs/r1/solve/0/kept"]


def test_names_that_cannot_be_keys_are_told(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A file whose name cannot be a key stays at the cluster and is named; the others come."""
    folder = seal(site, "r1", {"good": b"1", ".rclone_temp_x": b"2"})
    moved = mover.stage_out(site, "alpha", "acme", "ada", [folder])
    assert moved.skipped == ("runs/r1/solve/0/.rclone_temp_x",)
    assert [each.key for each in objects.listing("acme", "ada").objects] == ["runs/r1/solve/0/good"]


def test_a_file_that_changes_after_sealing_is_found(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """What was stored is compared with what was sealed, and no further try is promised."""
    folder = seal(site, "r1", {"x": b"short"})
    (site.root / folder.path / "x").write_bytes(b"longer than before")
    with pytest.raises(NotFound, match="x was changed"):
        mover.stage_out(site, "alpha", "acme", "ada", [folder])


def test_a_folder_elsewhere_is_a_mistake(mover: Mover, site: WatchedSite) -> None:
    """A sealed folder mirrors its bucket and prefix, or the program is wrong."""
    with pytest.raises(ValueError, match="does not mirror"):
        mover.stage_out(site, "alpha", "acme", "ada", [SealedFolder("data/acme/bob/ada/runs/", "ada", "runs/", ())])


def test_nothing_to_bring_back_is_fine(mover: Mover, site: WatchedSite) -> None:
    """No folders, or empty ones, are no error."""
    assert mover.stage_out(site, "alpha", "acme", "ada", []).bytes == 0
    assert mover.stage_out(site, "alpha", "acme", "ada", [seal(site, "r1", {})]).bytes == 0


def test_the_embedded_server_feeds_and_is_fed(
    sqlite: Database, server: EmbeddedServer, rclone: Rclone, site: WatchedSite
) -> None:
    """The whole way over S3: small and large in, results out, and in again without a transfer."""
    objects = S3Store(server.account)
    mover = Mover(sqlite, objects, rclone)
    objects.make_bucket("acme", "ada")
    contents = {"in/a b+ü%20.txt": b"x", "in/big": os.urandom(3 * MIB), "in/none": b""}
    refs = [put(objects, key, content) for key, content in contents.items()]
    assert stage(mover, site, *refs) == sum(map(len, contents.values()))
    for key, content in contents.items():
        assert at(site, key).read_bytes() == content
    folder = seal(site, "r1", {"out/data+1.txt": b"1", "empty": b"", "large": os.urandom(2 * MIB)})
    mover.stage_out(site, "alpha", "acme", "ada", [folder])
    found = {each.key: each.size for each in objects.listing("acme", "ada", "runs/").objects}
    assert found == {folder.prefix + file.path: file.size for file in folder.files}
    site.asked.clear()
    assert stage(mover, site, ObjectRef("ada", "runs/r1/", "", 0), *refs) == 0
    assert site.asked == []
    objects.close()


def test_results_make_the_users_bucket(
    sqlite: Database, server: EmbeddedServer, rclone: Rclone, site: WatchedSite, clock: StillClock
) -> None:
    """The first results of a user who never uploaded anything find a bucket, owned by the user."""
    objects = S3Store(server.account)
    path = "data/acme/fresh/fresh/runs/r1/"
    (site.root / path).mkdir(parents=True)
    (site.root / path / "x").write_bytes(b"x")
    files = site.list_files([path.rstrip("/")])[path.rstrip("/")].files
    Mover(sqlite, objects, rclone).stage_out(
        site, "alpha", "acme", "fresh", [SealedFolder(path, "fresh", "runs/r1/", files)]
    )
    assert b"".join(objects.get("acme", "fresh", "runs/r1/x")) == b"x"
    with sqlite.read() as work:
        row = store.get_bucket(work, "acme", "fresh")
    assert row is not None
    assert (row.owner, row.created_at) == ("fresh", clock.now())
    objects.close()


def test_a_store_that_is_away_is_told(sqlite: Database, tmp_path: Path, rclone: Rclone, site: WatchedSite) -> None:
    """Without an object store both ways say that it does not answer."""
    objects = S3Store(EmbeddedServer(tmp_path / "away", "http://127.0.0.1:9").account)
    mover = Mover(sqlite, objects, rclone)
    for size in (1, 2 * MIB):
        with pytest.raises(StoreBusy):
            stage(mover, site, ObjectRef("ada", "x", hashlib.md5(b"").hexdigest(), size))
    objects.close()


def test_rclone_is_started_again_when_it_was_killed(mover: Mover, site: WatchedSite, objects: DiskStore) -> None:
    """A killed rclone costs nothing but its restart."""
    mover._rclone.close()
    stage(mover, site, put(objects, "one", bytes(2 * MIB)))
    process = mover._rclone._process
    assert process is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    names = {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in children}
    [mine] = [child for child, name in names.items() if name == "rclone"]
    os.kill(mine, signal.SIGKILL)
    process.wait(10)
    assert stage(mover, site, put(objects, "two", bytes(2 * MIB))) == 2 * MIB


def test_rclone_ends_with_its_process(tmp_path: Path) -> None:
    """When the process that started rclone is killed, rclone ends by itself."""
    program = (
        "import sys, time; from heroes_data.rclone import Rclone\n"
        "r = Rclone(); r._running(); print(r._process.pid, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    guard = int(process.stdout.readline())
    group = os.getpgid(guard)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while _group_lives(group):
        assert time.monotonic() < deadline, "rclone goes on"
        time.sleep(0.05)
    process.stdout.close()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
