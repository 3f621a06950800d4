"""The operations of data as users ask them: whose bucket, what is visible, what is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heroes.api import data as api
from heroes.api.errors import Conflict, HeroesError, InvalidSpec, NotAllowed, NotFound, StoreBusy, Unavailable
from heroes.api.registry import Operation, parse
from heroes_core.audit import verify
from heroes_core.http import Download
from heroes_core.module import Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_data import service
from heroes_data.disk import DiskStore
from heroes_data.embedded import EmbeddedServer
from heroes_data.handlers import MODULE, Data
from heroes_data.model import ObjectInfo
from heroes_identity import service as identity
from heroes_identity.model import NewPerson, Organisation, Passwords, rights_of

CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)
PEOPLE = {"ada": "engineer", "bob": "engineer", "carl": "project-admin", "bill": "billing-admin"}


class Platform:
    """The operations of data over a folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        server = EmbeddedServer(folder, "http://store")
        self.objects = server.store()
        self.data = Data(self.objects, server)
        self.callers: dict[tuple[str, str], Caller] = {}
        with database.write() as work:
            directory = identity.embedded(CHEAP)(work)
            for organisation in ("acme", "umbrella"):
                new = Organisation(organisation, "", "client", "EUR", True, work.now)
                identity.add_organisation(work, directory, "setup", new, "admin", "a long password")
                for name, role in PEOPLE.items():
                    directory.add_person(NewPerson(organisation, name, password="a long password"))
                    directory.give_role(organisation, name, role)
                    rights = rights_of("client", [role])
                    self.callers[organisation, name] = Caller(organisation, name, rights)
                directory.add_group(organisation, "team", "")
                directory.join(organisation, "team", frozenset({"bob"}))
            identity.add_project(work, self.callers["acme", "carl"], "wing", "", ["bob"])

    def ask(
        self, who: str, operation: Operation, *, upload: Iterator[bytes] | None = None, organisation: str = "acme",
        **fields: Any,
    ) -> Any:  # fmt: skip
        """The answer to one request."""
        caller = admit(operation, self.callers[organisation, who])
        call = Call(caller, self.database, Services(self.data), upload=upload)
        return perform(MODULE.bound[operation.name], call, parse(operation.request, fields))

    def upload(self, who: str, key: str, content: bytes = b"x", bucket: str = "") -> api.Object:
        """Upload in two chunks."""
        half = len(content) // 2
        parts = iter([content[:half], content[half:]])
        answer: api.Object = self.ask(who, api.UPLOAD, upload=parts, bucket=bucket or who, key=key)
        return answer

    def download(self, who: str, key: str, bucket: str = "", **part: int) -> bytes:
        """Download all of it."""
        answer: Download = self.ask(who, api.DOWNLOAD, bucket=bucket or who, key=key, **part)
        content = b"".join(answer.parts)
        assert answer.size == len(content)
        return content

    def log(self, who: str = "carl") -> list[tuple[str, str, str, int, str]]:
        """The log, oldest first."""
        items = self.ask(who, api.TRANSFERS).items
        return [(each.user, each.direction, each.key, each.bytes, each.outcome) for each in reversed(items)]


@pytest.fixture
def platform(sqlite: Database, tmp_path: Path) -> Platform:
    """A platform on SQLite."""
    return Platform(sqlite, tmp_path / "store")


@pytest.fixture
def both(database: Database, tmp_path: Path) -> Platform:
    """A platform on each database."""
    return Platform(database, tmp_path / "store")


def test_the_paths_are_those_of_the_published_interface() -> None:
    """The operations of the published interface have exactly its methods and paths."""
    bucket = "/organization/data/bucket"
    assert {(each.method, each.path) for each in api.OPERATIONS} >= {
        ("GET", "/organization/data/list"),
        ("GET", "/organization/data/size"),
        ("POST", bucket),
        ("DELETE", bucket),
        ("POST", bucket + "/{bucket}/"),
        ("GET", bucket + "/{bucket}/list"),
        ("DELETE", bucket + "/{bucket}"),
        ("GET", "/organization/data/download"),
        ("POST", "/organization/data/upload"),
    }


def test_an_upload_comes_back(both: Platform) -> None:
    """The first upload makes one's own bucket; content comes back whole and in part; both ways are logged."""
    stored = both.upload("ada", "in/data.csv", b"1,2,3\n")
    assert (stored.key, stored.size) == ("in/data.csv", 6)
    assert both.download("ada", "in/data.csv") == b"1,2,3\n"
    assert both.download("ada", "in/data.csv", offset=2, length=3) == b"2,3"
    assert both.download("ada", "in/data.csv", offset=4, length=100) == b"3\n"
    assert both.download("ada", "in/data.csv", offset=100) == b""
    assert both.ask("ada", api.OBJECT, bucket="ada", key="in/data.csv").etag == stored.etag
    assert both.log("ada") == [
        ("ada", "upload", "in/data.csv", 6, "done"),
        ("ada", "download", "in/data.csv", 6, "done"),
        ("ada", "download", "in/data.csv", 3, "done"),
        ("ada", "download", "in/data.csv", 2, "done"),
        ("ada", "download", "in/data.csv", 0, "done"),
    ]


def test_a_download_that_is_cut_off_is_logged_so(platform: Platform) -> None:
    """The log tells how much went out before the reader left."""
    platform.upload("ada", "x", b"0123456789")
    answer = platform.ask("ada", api.DOWNLOAD, bucket="ada", key="x")
    parts = iter([b"0123", b"456789"])
    cut = api.DOWNLOAD  # the stream is replaced by one of two parts, of which the first is read
    from heroes_data.handlers import _counted

    call = Call(platform.callers["acme", "ada"], platform.database, Services(platform.data))
    stream = _counted(call, "ada", "x", parts, answer.size)
    assert next(stream) == b"0123"
    stream.close()  # type: ignore[attr-defined]
    assert cut.download
    assert platform.log("ada")[-1] == ("ada", "download", "x", 4, "cut off")


def test_a_broken_upload_changes_nothing_and_is_logged(platform: Platform) -> None:
    """When the sender breaks off, the old object stays, and the log tells the failure."""
    platform.upload("ada", "x", b"old")

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise Unavailable("The upload was cut off.")

    with pytest.raises(Unavailable, match="cut off"):
        platform.ask("ada", api.UPLOAD, upload=broken(), bucket="ada", key="x")
    assert platform.download("ada", "x") == b"old"
    assert ("ada", "upload", "x", 0, "failed: Unavailable") in platform.log("ada")


def test_an_upload_is_never_tried_again_with_what_is_left(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is busy in the middle fails the upload: its bytes were spent."""
    tries = []

    def busy(_self: object, _organisation: str, _bucket: str, _key: str, parts: Iterator[bytes]) -> ObjectInfo:
        tries.append(next(parts))
        raise StoreBusy("The object store does not answer well.")

    monkeypatch.setattr(DiskStore, "put", busy)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        platform.upload("ada", "x", b"content")
    assert not isinstance(caught.value, StoreBusy)
    assert tries == [b"con"]


def test_buckets_of_others_are_not_there(both: Platform) -> None:
    """One sees one's own bucket; another's, in one's own organisation or another, does not exist."""
    both.upload("ada", "secret", b"s")
    asks: list[Callable[[], Any]] = [
        lambda: both.download("bob", "secret", "ada"),
        lambda: both.upload("bob", "secret", b"mine", "ada"),
        lambda: both.ask("bob", api.LIST, bucket="ada"),
        lambda: both.ask("bob", api.SIZE, bucket="ada"),
        lambda: both.ask("bob", api.OBJECT, bucket="ada", key="secret"),
        lambda: both.ask("bob", api.REMOVE, bucket="ada", key="secret"),
        lambda: both.ask("bob", api.REMOVE_BUCKET, bucket="ada"),
        lambda: both.ask("bob", api.ADD_FOLDER, bucket="ada", folder="d"),
        lambda: both.ask("bob", api.LINK, bucket="ada", key="secret"),
        lambda: both.ask("bob", api.GRANTS, bucket="ada"),
        lambda: both.ask("bob", api.ADD_GRANT, bucket="ada", name="bob"),
        lambda: both.ask("carl", api.LIST, bucket="ada", organisation="umbrella"),
    ]
    for ask in asks:
        with pytest.raises(NotFound, match="no bucket ada"):
            ask()
    with pytest.raises(NotFound, match="heroes data list ada --prefix traces/"):
        both.ask("ada", api.LIST, bucket="ada/traces/")
    with pytest.raises(NotFound, match="secret"):
        both.ask("ada", api.OBJECT, bucket="ada", key="secret", organisation="umbrella")
    assert both.download("ada", "secret") == b"s"
    assert [each.name for each in both.ask("bob", api.BUCKETS).items] == ["bob"]


def test_who_manages_data_reaches_all_of_the_organisation(platform: Platform) -> None:
    """The right `data:manage` opens every bucket of one's own organisation, for reading and writing."""
    platform.upload("ada", "x", b"1")
    assert platform.download("carl", "x", "ada") == b"1"
    platform.upload("carl", "y", b"2", "ada")
    assert [each.name for each in platform.ask("carl", api.BUCKETS).items] == ["ada"]
    assert platform.ask("carl", api.SIZE, bucket="ada").bytes == 2
    assert platform.ask("carl", api.REMOVE, bucket="ada", key="x").objects == 1


def test_without_a_right_to_data_there_is_none(platform: Platform) -> None:
    """Every operation on data is refused to who has neither right."""
    for operation in api.OPERATIONS:
        with pytest.raises(NotAllowed, match="data:home"):
            admit(operation, platform.callers["acme", "bill"])


@pytest.mark.parametrize(("kind", "name"), [("user", "bob"), ("group", "team"), ("project", "wing")])
def test_a_bucket_is_shared_and_taken_back(both: Platform, kind: str, name: str) -> None:
    """A grant to a user, a group or a project opens the bucket for reading, then for writing, then no more."""
    both.ask("ada", api.ADD_BUCKET, bucket="results")
    both.upload("ada", "x", b"1", "results")
    both.ask("ada", api.ADD_GRANT, bucket="results", kind=kind, name=name)
    assert both.download("bob", "x", "results") == b"1"
    with pytest.raises(NotAllowed, match="may read"):
        both.upload("bob", "x", b"2", "results")
    with pytest.raises(NotAllowed, match="may read"):
        both.ask("bob", api.LINK, bucket="results", key="x", method="PUT")
    with pytest.raises(NotAllowed, match="ada's"):
        both.ask("bob", api.ADD_GRANT, bucket="results", name="bob", writable=True)
    seen = {each.name: each.writable for each in both.ask("bob", api.BUCKETS).items}
    assert seen == {"bob": True, "results": False}
    both.ask("ada", api.ADD_GRANT, bucket="results", kind=kind, name=name, writable=True)
    both.upload("bob", "y", b"2", "results")
    listed = both.ask("ada", api.GRANTS, bucket="results").items
    assert [(each.kind, each.name, each.writable) for each in listed] == [(kind, name, True)]
    both.ask("ada", api.REMOVE_GRANT, bucket="results", kind=kind, name=name)
    with pytest.raises(NotFound):
        both.download("bob", "x", "results")
    with pytest.raises(NotFound, match="not shared"):
        both.ask("ada", api.REMOVE_GRANT, bucket="results", kind=kind, name=name)
    with both.database.read() as work:
        assert verify(work.connection, both.database.audit_key, "acme") > 0


def test_only_who_exists_is_granted_anything(platform: Platform) -> None:
    """Unknown users, groups and projects, and those of other organisations, are refused."""
    platform.upload("ada", "x")
    for kind, name in (("user", "nobody"), ("group", "nobody"), ("project", "nobody")):
        with pytest.raises(NotFound, match="nobody"):
            platform.ask("ada", api.ADD_GRANT, bucket="ada", kind=kind, name=name)


def test_a_bucket_not_used_yet_can_be_shared(platform: Platform) -> None:
    """Sharing one's own bucket before the first upload works, and so does looking into it."""
    platform.ask("ada", api.ADD_GRANT, bucket="ada", name="bob", writable=True)
    platform.objects.make_bucket("acme", "ada")
    assert platform.ask("bob", api.LIST, bucket="ada").items == ()


def test_names_of_buckets_are_kept_for_their_users(platform: Platform) -> None:
    """Nobody makes a bucket with another user's name or another's bucket; one's own again is no error."""
    platform.ask("ada", api.ADD_BUCKET, bucket="shared")
    platform.ask("ada", api.ADD_BUCKET, bucket="shared")
    assert platform.ask("ada", api.ADD_BUCKET, bucket="ada").owner == "ada"
    for name in ("bob", "BOB", "admin"):
        with pytest.raises(Conflict, match="taken"):
            platform.ask("ada", api.ADD_BUCKET, bucket=name)
    with pytest.raises(Conflict, match="taken"):
        platform.ask("bob", api.ADD_BUCKET, bucket="shared")
    with pytest.raises(InvalidSpec, match="bucket"):
        platform.ask("ada", api.ADD_BUCKET, bucket="../x")


def test_a_bucket_is_removed_when_it_is_empty(platform: Platform) -> None:
    """A bucket with objects stays; an empty one goes with its grants; only its owner removes it."""
    platform.ask("ada", api.ADD_BUCKET, bucket="shared")
    platform.ask("ada", api.ADD_GRANT, bucket="shared", name="bob", writable=True)
    platform.upload("bob", "x", b"1", "shared")
    with pytest.raises(Conflict, match="not empty"):
        platform.ask("ada", api.REMOVE_BUCKET, bucket="shared")
    with pytest.raises(NotAllowed, match="ada's"):
        platform.ask("bob", api.REMOVE_BUCKET, bucket="shared")
    platform.ask("bob", api.REMOVE, bucket="shared", key="x")
    platform.ask("ada", api.REMOVE_BUCKET, bucket="shared")
    assert [each.name for each in platform.ask("bob", api.BUCKETS).items] == ["bob"]


def test_folders_are_made_listed_and_removed(platform: Platform) -> None:
    """An empty folder stays and shows as one; its mark never does; removing it removes all below."""
    made = platform.ask("ada", api.ADD_FOLDER, bucket="ada", folder="runs/new")
    assert (made.key, made.size) == ("runs/new/", 0)
    platform.upload("ada", "runs/x", b"12")
    platform.upload("ada", "top")
    listed = platform.ask("ada", api.LIST, bucket="ada")
    assert [each.key for each in listed.items] == ["runs/", "top"]
    below = platform.ask("ada", api.LIST, bucket="ada", prefix="runs/")
    assert [each.key for each in below.items] == ["runs/new/", "runs/x"]
    assert platform.ask("ada", api.LIST, bucket="ada", prefix="runs/new/").items == ()
    every = platform.ask("ada", api.LIST, bucket="ada", recursive=True)
    assert [each.key for each in every.items] == ["runs/x", "top"]
    size = platform.ask("ada", api.SIZE, bucket="ada", prefix="runs/")
    assert (size.bytes, size.objects) == (2, 1)
    platform.upload("ada", "runs/new/y")
    assert platform.ask("ada", api.REMOVE, bucket="ada", key="runs/new/").objects == 1
    assert [each.key for each in platform.ask("ada", api.LIST, bucket="ada", prefix="runs/").items] == ["runs/x"]


def test_a_listing_goes_from_page_to_page(platform: Platform) -> None:
    """`next` leads through all objects, once each."""
    for number in range(7):
        platform.upload("ada", f"k{number}")
    seen, after = [], ""
    while after is not None:
        page = platform.ask("ada", api.LIST, bucket="ada", after=after, limit=3)
        seen += [each.key for each in page.items]
        after = page.next
    assert seen == [f"k{number}" for number in range(7)]


@pytest.mark.parametrize("key", ["../bob/x", "a\nb", "/etc/passwd", "a//b", "a/", ".rclone_temp_x", "x/.heroes-folder"])
def test_keys_that_are_no_paths_are_refused(platform: Platform, key: str) -> None:
    """Whatever the operation, a bad key is named and nothing happens."""
    for ask in (
        lambda: platform.upload("ada", key),
        lambda: platform.download("ada", key),
        lambda: platform.ask("ada", api.LINK, bucket="ada", key=key, method="PUT"),
        lambda: platform.ask("ada", api.OBJECT, bucket="ada", key=key),
    ):
        with pytest.raises(InvalidSpec):
            ask()


def test_what_is_not_there_cannot_be_removed(platform: Platform) -> None:
    """Deleting an unknown object says so."""
    with pytest.raises(NotFound, match="nothing"):
        platform.ask("ada", api.REMOVE, bucket="ada", key="nothing")


def test_a_signed_address_is_short_lived_and_logged(platform: Platform) -> None:
    """At most 15 minutes, for one object that is there (to read) or may come (to write)."""
    platform.upload("ada", "x")
    made = platform.ask("ada", api.LINK, bucket="ada", key="x", seconds=60)
    assert made.url.startswith("http://store/ada/x?X-Amz-Algorithm=")
    assert "X-Amz-Expires=60&" in made.url
    assert (made.expires_at - platform.database.clock.now()).total_seconds() == 60
    assert platform.ask("ada", api.LINK, bucket="ada", key="new", method="PUT").method == "PUT"
    with pytest.raises(NotFound):
        platform.ask("ada", api.LINK, bucket="ada", key="new")
    with pytest.raises(InvalidSpec, match="seconds"):
        platform.ask("ada", api.LINK, bucket="ada", key="x", seconds=901)
    with pytest.raises(InvalidSpec, match="method"):
        platform.ask("ada", api.LINK, bucket="ada", key="x", method="DELETE")
    assert [each[1] for each in platform.log("ada")] == ["upload", "link", "link"]


def test_a_key_opens_ones_own_bucket_and_those_granted(platform: Platform) -> None:
    """Credentials name what they open; whoever manages data gets no key to everything."""
    platform.ask("ada", api.ADD_BUCKET, bucket="shared")
    platform.ask("ada", api.ADD_GRANT, bucket="shared", kind="group", name="team")
    made = platform.ask("bob", api.CREDENTIALS)
    assert made.buckets == ("bob", "shared")
    assert (made.endpoint, made.region) == ("http://store", "us-east-1")
    assert (made.expires_at - platform.database.clock.now()).total_seconds() == 3600
    assert platform.ask("carl", api.CREDENTIALS).buckets == ()
    again = platform.ask("bob", api.CREDENTIALS)
    assert (again.access_key, again.secret_key) != (made.access_key, made.secret_key)
    with pytest.raises(InvalidSpec, match="seconds"):
        platform.ask("bob", api.CREDENTIALS, seconds=3601)


def test_a_store_without_keys_says_so(platform: Platform) -> None:
    """Where the object store issues no keys, the answer names the other ways."""
    platform.data.keys = None
    with pytest.raises(Conflict, match="no keys") as caught:
        platform.ask("ada", api.CREDENTIALS)
    assert "upload" in caught.value.hint


def test_the_log_is_ones_own_or_everyones(platform: Platform) -> None:
    """Users see their own transfers, those who manage data all of their organisation's."""
    platform.upload("ada", "a")
    platform.upload("bob", "b")
    assert [each[2] for each in platform.log("ada")] == ["a"]
    assert [each[2] for each in platform.log("carl")] == ["a", "b"]
    assert platform.ask("carl", api.TRANSFERS, organisation="umbrella").items == ()


def test_other_modules_ask_what_an_object_is(platform: Platform) -> None:
    """An object, or a folder as a whole, as it is now; results in pages, none where there is no bucket."""
    platform.upload("ada", "in/a", b"12")
    platform.ask("ada", api.ADD_FOLDER, bucket="ada", folder="in/empty")
    one = service.object_info(platform.objects, "acme", "ada", "in/a")
    assert (one.bucket, one.key, one.size) == ("ada", "in/a", 2)
    folder = service.object_info(platform.objects, "acme", "ada", "in/")
    assert folder.size == 2
    platform.upload("ada", "in/b", b"3")
    assert service.object_info(platform.objects, "acme", "ada", "in/").etag != folder.etag
    for key, error in {"none": NotFound, "none/": NotFound, "../x": InvalidSpec}.items():
        with pytest.raises(error, match=key):
            service.object_info(platform.objects, "acme", "ada", key)
    with pytest.raises(NotFound, match=r"There is no object carl/first\.csv"):
        service.object_info(platform.objects, "acme", "carl", "first.csv")
    page = service.results(platform.objects, "acme", "ada", "in/", limit=2)
    assert [each.key for each in page.objects] == ["in/a", "in/b"]
    assert service.results(platform.objects, "acme", "nobody", "x/").objects == ()
    with platform.database.read() as work:
        service.check_readable(work, platform.callers["acme", "ada"], "ada")
        with pytest.raises(HeroesError):
            service.check_readable(work, platform.callers["acme", "bob"], "ada")
