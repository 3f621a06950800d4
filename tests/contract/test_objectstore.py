"""What every object store does: `heroes_data.ports.ObjectStore`. The embedded store's own files; the same over S3; and
one bucket of an S3 server that stands for many (a container)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heroes.api.errors import Conflict, HeroesError, NotFound
from heroes_data.embedded import EmbeddedServer
from heroes_data.ports import ObjectStore
from heroes_data.s3 import S3Store
from tests.objects import disk_store, serve_objects


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The real server, for all tests of this file."""
    with serve_objects(tmp_path_factory.mktemp("objects")) as server:
        yield server


@pytest.fixture
def organisation(request: pytest.FixtureRequest) -> str:
    """An organisation of this test's own."""
    return "o" + hashlib.sha256(request.node.name.encode()).hexdigest()[:10]


@pytest.fixture(params=["disk", "s3", "container"])
def objects(
    request: pytest.FixtureRequest, organisation: str, embedded: EmbeddedServer, tmp_path: Path
) -> Iterator[ObjectStore]:
    """An empty store with the bucket `ada`."""
    store: ObjectStore
    if request.param == "disk":
        store = disk_store(tmp_path)
    elif request.param == "s3":
        store = S3Store(embedded.account)
    else:
        S3Store(embedded.account).make_bucket(organisation, "shared-container")
        store = S3Store(lambda name: dataclasses.replace(embedded.account(name), container="shared-container"))
    store.make_bucket(organisation, "ada")
    yield store
    if isinstance(store, S3Store):
        store.close()


def read(objects: ObjectStore, organisation: str, key: str, bucket: str = "ada") -> bytes:
    """All of an object."""
    return b"".join(objects.get(organisation, bucket, key))


def put(objects: ObjectStore, organisation: str, key: str, content: bytes = b"x") -> None:
    """Store an object in the bucket `ada`."""
    objects.put(organisation, "ada", key, [content])


def test_what_was_put_is_got(objects: ObjectStore, organisation: str) -> None:
    """Content comes back byte by byte, with its size, an etag and the MD5."""
    content = os.urandom(100_000)
    stored = objects.put(organisation, "ada", "in/data.bin", [content[:10], content[10:70_000], content[70_000:]])
    assert (stored.key, stored.size) == ("in/data.bin", len(content))
    assert objects.digest(organisation, "ada", "in/data.bin") == hashlib.md5(content).hexdigest()
    assert read(objects, organisation, "in/data.bin") == content
    seen = objects.stat(organisation, "ada", "in/data.bin")
    assert (seen.key, seen.size, seen.etag) == (stored.key, stored.size, stored.etag)
    assert abs((seen.modified - stored.modified).total_seconds()) < 5


def test_an_empty_object_is_an_object(objects: ObjectStore, organisation: str) -> None:
    """No bytes at all are content too."""
    assert objects.put(organisation, "ada", "empty", []).size == 0
    assert read(objects, organisation, "empty") == b""
    assert objects.stat(organisation, "ada", "empty").size == 0


def test_a_large_object_is_stored_in_parts(objects: ObjectStore, organisation: str) -> None:
    """A stream of unknown length beyond one part arrives whole; a replacement of other length leaves nothing behind."""
    block = os.urandom(2**20)
    stored = objects.put(organisation, "ada", "large", (block for _ in range(35)))
    assert stored.size == 35 * 2**20
    digest = hashlib.sha256()
    for part in objects.get(organisation, "ada", "large"):
        digest.update(part)
    assert digest.digest() == hashlib.sha256(block * 35).digest()
    put(objects, organisation, "large", b"small")
    assert read(objects, organisation, "large") == b"small"


def test_another_content_has_another_etag(objects: ObjectStore, organisation: str) -> None:
    """Every replacement by other content of the same size is told by the etag, however quickly it follows."""
    etags = []
    for number in range(20):
        put(objects, organisation, "x", b"%02d" % number)
        etags.append(objects.stat(organisation, "ada", "x").etag)
    assert len(set(etags)) == 20


def test_a_part_of_an_object_is_read(objects: ObjectStore, organisation: str) -> None:
    """Offset and length select bytes; beyond the end there are none."""
    put(objects, organisation, "digits", b"0123456789")
    for (offset, length), expected in {(3, None): b"3456789", (0, 4): b"0123", (8, 10): b"89", (20, 5): b""}.items():
        assert b"".join(objects.get(organisation, "ada", "digits", offset=offset, length=length)) == expected


def test_a_broken_upload_changes_nothing(objects: ObjectStore, organisation: str) -> None:
    """When the source fails, small or large, the old content stays, and nothing else appears."""
    put(objects, organisation, "kept", b"old")

    def broken(blocks: int) -> Iterator[bytes]:
        for _ in range(blocks):
            yield bytes(2**20)
        raise RuntimeError("the source is gone")

    for blocks in (0, 1, 20, 40):
        for key in ("kept", "fresh"):
            with pytest.raises(RuntimeError, match="source"):
                objects.put(organisation, "ada", key, broken(blocks))
    assert [each.key for each in objects.listing(organisation, "ada").objects] == ["kept"]
    assert read(objects, organisation, "kept") == b"old"


@pytest.mark.parametrize(
    "key",
    ["a b+c.txt", "ü/ñ 漢字.txt", "it's \"quoted\"", "a%2Fb", "q?a&b=c#d", "x:y;z", "back\\slash", "~tilde.-_", "*[x]?",
     "$(rm -rf x)", "`id`", "e\u0301", "😀/x", "-rf", "a=b,c"],
)  # fmt: skip
def test_any_good_key_is_kept_as_it_is(objects: ObjectStore, organisation: str, key: str) -> None:
    """Keys full of characters with meanings elsewhere come back in listings and open their object."""
    put(objects, organisation, key, key.encode())
    assert [each.key for each in objects.listing(organisation, "ada").objects] == [key]
    assert read(objects, organisation, key) == key.encode()
    assert objects.stat(organisation, "ada", key).size == len(key.encode())
    objects.delete(organisation, "ada", key)
    assert objects.listing(organisation, "ada").objects == ()


def test_a_listing_goes_from_page_to_page(objects: ObjectStore, organisation: str) -> None:
    """Every object below a prefix comes once, in order, with size and etag."""
    for number in range(7):
        put(objects, organisation, f"run/{number}.txt", b"x" * number)
    put(objects, organisation, "other.txt")
    seen, after = [], ""
    while True:
        page = objects.listing(organisation, "ada", "run/", after=after, limit=3)
        assert len(page.objects) <= 3
        seen += page.objects
        if page.next is None:
            break
        after = page.next
    assert [(each.key, each.size) for each in seen] == [(f"run/{number}.txt", number) for number in range(7)]
    assert [each.etag for each in seen] == [objects.stat(organisation, "ada", each.key).etag for each in seen]
    assert all(each.etag for each in seen)


def test_folders_are_told_as_folders(objects: ObjectStore, organisation: str) -> None:
    """A listing that is not flat tells objects of this level, and what is below as folders."""
    for key in ("a.txt", "d/1", "d/2", "d/e/3", "f/4"):
        put(objects, organisation, key)
    top = objects.listing(organisation, "ada", flat=False)
    assert ([each.key for each in top.objects], top.folders) == (["a.txt"], ("d/", "f/"))
    below = objects.listing(organisation, "ada", "d/", flat=False)
    assert ([each.key for each in below.objects], below.folders) == (["d/1", "d/2"], ("d/e/",))


def test_a_deleted_object_is_gone(objects: ObjectStore, organisation: str) -> None:
    """After deletion there is nothing to read or list; deleting again is no error."""
    put(objects, organisation, "x")
    objects.delete(organisation, "ada", "x")
    objects.delete(organisation, "ada", "x")
    with pytest.raises(NotFound, match="x"):
        objects.stat(organisation, "ada", "x")
    with pytest.raises(NotFound, match="x"):
        objects.get(organisation, "ada", "x")
    with pytest.raises(NotFound, match="x"):
        objects.digest(organisation, "ada", "x")
    assert objects.listing(organisation, "ada").objects == ()


def test_a_bucket_is_made_once_and_removed_empty(objects: ObjectStore, organisation: str) -> None:
    """Making it again is no error; one with objects in it stays."""
    objects.make_bucket(organisation, "bob")
    objects.make_bucket(organisation, "bob")
    objects.put(organisation, "bob", "x", [b"x"])
    with pytest.raises(Conflict, match="not empty"):
        objects.remove_bucket(organisation, "bob")
    objects.delete(organisation, "bob", "x")
    objects.remove_bucket(organisation, "bob")
    assert [each.key for each in objects.listing(organisation, "ada").objects] == []


def test_a_listing_keeps_the_order_of_keys(objects: ObjectStore, organisation: str) -> None:
    """Keys come in the order of their characters, folders or not, from any cursor on."""
    keys = sorted(["a", "a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "aa/b", "ab", "b/a", "b/a/.x", "ü"])
    keys = [key for key in keys if not any(other.startswith(f"{key}/") for other in keys)]
    for key in reversed(keys):
        put(objects, organisation, key)
    assert [each.key for each in objects.listing(organisation, "ada").objects] == keys
    for position, key in enumerate(keys):
        rest = objects.listing(organisation, "ada", after=key).objects
        assert [each.key for each in rest] == keys[position + 1 :]
    for prefix in ("a", "a/", "a/b", "aa", "b/a/", "c"):
        found = objects.listing(organisation, "ada", prefix).objects
        assert [each.key for each in found] == [key for key in keys if key.startswith(prefix)]


def test_no_prefix_leads_out(objects: ObjectStore, organisation: str) -> None:
    """A prefix that climbs shows nothing of other buckets."""
    objects.make_bucket(organisation, "bob")
    objects.put(organisation, "bob", "secret", [b"x"])
    for prefix in ("../", "../bob/", "/", "//", "./", "a/../../bob/", "..", "../bob/s"):
        with contextlib.suppress(HeroesError):
            page = objects.listing(organisation, "ada", prefix)
            assert (page.objects, page.folders) == ((), ())


def test_organisations_do_not_share(objects: ObjectStore, organisation: str) -> None:
    """The same bucket of another organisation is another bucket."""
    other = organisation + "x"
    if isinstance(objects, S3Store):
        objects_of_other = objects
        if objects._accounts(other).container:
            S3Store(lambda name: dataclasses.replace(objects._accounts(name), container="")).make_bucket(
                other, "shared-container"
            )
    else:
        objects_of_other = objects
    objects_of_other.make_bucket(other, "ada")
    put(objects, organisation, "secret", b"ours")
    with pytest.raises(NotFound):
        objects_of_other.stat(other, "ada", "secret")
    assert objects_of_other.listing(other, "ada").objects == ()
