"""The real embedded S3 server: whose key opens what, signed addresses, killed uploads, and clients of other makes."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import httpx
import pytest
import s3fs
from botocore.config import Config

from heroes.api.errors import NotFound, StoreBusy
from heroes_data.disk import remove_unfinished
from heroes_data.embedded import EmbeddedServer, UserKey
from heroes_data.model import S3Account
from heroes_data.s3 import S3Store
from tests.objects import serve_objects

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps everything."""
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[EmbeddedServer]:
    """The server, with two organisations' objects."""
    with serve_objects(folder) as running:
        store = S3Store(running.account)
        for organisation, bucket in (("acme", "ada"), ("acme", "bob"), ("acme", "shared"), ("umbrella", "eve")):
            store.make_bucket(organisation, bucket)
            store.put(organisation, bucket, "secret.txt", [f"of {bucket}".encode()])
        store.close()
        yield running


def client(account: S3Account, secret: str = "") -> boto3.client:  # type: ignore[valid-type]
    """Amazon's own client."""
    return boto3.client(
        "s3", endpoint_url=account.endpoint, aws_access_key_id=account.access_key, region_name=account.region,
        aws_secret_access_key=secret or account.secret_key,
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"total_max_attempts": 1}),
    )  # fmt: skip


def issue(server: EmbeddedServer, organisation: str = "acme", life: timedelta = HOUR, **buckets: bool) -> UserKey:
    """A user's key."""
    return server.issue(organisation, buckets, datetime.now(UTC), life)


def attempts(s3: object, bucket: str) -> Iterator[str]:
    """Every way to touch an object of a bucket; yields the name of each that was not refused."""
    calls = {
        "get": lambda: s3.get_object(Bucket=bucket, Key="secret.txt"),  # type: ignore[attr-defined]
        "head": lambda: s3.head_object(Bucket=bucket, Key="secret.txt"),  # type: ignore[attr-defined]
        "put": lambda: s3.put_object(Bucket=bucket, Key="secret.txt", Body=b"mine"),  # type: ignore[attr-defined]
        "new": lambda: s3.put_object(Bucket=bucket, Key="new.txt", Body=b"mine"),  # type: ignore[attr-defined]
        "delete": lambda: s3.delete_object(Bucket=bucket, Key="secret.txt"),  # type: ignore[attr-defined]
        "list": lambda: s3.list_objects_v2(Bucket=bucket),  # type: ignore[attr-defined]
        "parts": lambda: s3.create_multipart_upload(Bucket=bucket, Key="p"),  # type: ignore[attr-defined]
    }
    for name, call in calls.items():
        with contextlib.suppress(botocore.exceptions.ClientError):
            call()
            yield name


def test_a_key_opens_its_own_buckets_and_no_others(server: EmbeddedServer) -> None:
    """With A's key B's buckets cannot be listed, read, written or deleted, in one's own organisation or another's."""
    ours = client(issue(server, ada=True).account)
    assert [each["Name"] for each in ours.list_buckets()["Buckets"]] == ["ada"]
    assert ours.get_object(Bucket="ada", Key="secret.txt")["Body"].read() == b"of ada"
    store = S3Store(server.account)
    for bucket, organisation in (("bob", "acme"), ("shared", "acme"), ("eve", "umbrella")):
        assert list(attempts(ours, bucket)) == []
        assert b"".join(store.get(organisation, bucket, "secret.txt")) == f"of {bucket}".encode()
        with pytest.raises(botocore.exceptions.ClientError):
            ours.copy_object(Bucket="ada", Key="stolen", CopySource={"Bucket": bucket, "Key": "secret.txt"})
    store.close()


def test_one_keys_secret_opens_no_other_key(server: EmbeddedServer) -> None:
    """A's access key with B's secret is refused, and B's with A's, also once both are known to the server."""
    ada, eve = issue(server, ada=True), issue(server, "umbrella", eve=True)
    client(ada.account).list_buckets()
    client(eve.account).list_buckets()
    pairs = [(ada.account, eve.account), (eve.account, ada.account), (server.account("acme"), ada.account)]
    for account, other in pairs:
        for bucket in ("ada", "eve", "bob"):
            assert list(attempts(client(account, other.secret_key), bucket)) == []
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            client(account, other.secret_key).list_buckets()


@pytest.mark.parametrize("key", ["nobody", "", "../keys/platform.acme", "platform.nowhere", "a b", "user.0"])
def test_an_unknown_key_opens_nothing(server: EmbeddedServer, key: str) -> None:
    """What is no key of ours is refused, also a path in its place."""
    account = S3Account(server.account("acme").endpoint, key or "x", "secret")
    with pytest.raises(botocore.exceptions.ClientError, match=r"AccessDenied|Forbidden|Unauthorized|InvalidAccess"):
        client(account).list_buckets()
    assert httpx.get(f"{account.endpoint}/ada/secret.txt").status_code == 403


def test_a_key_ends(server: EmbeddedServer) -> None:
    """A key past its end opens nothing, and its file goes when the next key is issued."""
    old = issue(server, life=timedelta(seconds=-1), ada=True)
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        client(old.account).list_buckets()
    files = {path.stem for path in server._keys.iterdir()}
    assert old.account.access_key in files
    issue(server, ada=True)
    assert old.account.access_key not in {path.stem for path in server._keys.iterdir()}


def test_a_bucket_granted_for_reading_refuses_writing(server: EmbeddedServer) -> None:
    """With a read-only grant one lists and reads; nothing written or deleted arrives."""
    key = issue(server, ada=True, shared=False)
    s3 = client(key.account)
    assert s3.get_object(Bucket="shared", Key="secret.txt")["Body"].read() == b"of shared"
    assert set(attempts(s3, "shared")) <= {"get", "head", "list", "parts"}
    store = S3Store(server.account)
    assert [each.key for each in store.listing("acme", "shared").objects] == ["secret.txt"]
    assert b"".join(store.get("acme", "shared", "secret.txt")) == b"of shared"
    store.close()


def test_key_files_are_their_owners_only(server: EmbeddedServer, folder: Path) -> None:
    """Nobody else on the machine reads keys or objects."""
    issue(server, ada=True)
    assert (folder / "keys").stat().st_mode & 0o777 == 0o700
    assert (folder / "objects").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (folder / "keys").iterdir()} == {0o600}


def test_every_process_has_the_same_platform_key(server: EmbeddedServer, folder: Path) -> None:
    """API and engine, started beside each other, reach the server with one key, that of their organisation."""
    other = EmbeddedServer(folder, server.account("acme").endpoint)
    assert other.account("acme") == server.account("acme")
    assert other.account("umbrella").secret_key != server.account("acme").secret_key
    with pytest.raises(ValueError, match="no name"):
        other.account("../acme")


def test_s3fs_reads_and_writes(server: EmbeddedServer) -> None:
    """A file system over a user's key: list, write, read, large files in parts, delete."""
    key = issue(server, ada=True, shared=False)
    files = s3fs.S3FileSystem(
        key=key.account.access_key, secret=key.account.secret_key, endpoint_url=key.account.endpoint,
        client_kwargs={"region_name": key.account.region}, use_listings_cache=False, skip_instance_cache=True,
    )  # fmt: skip
    assert sorted(files.ls("")) == ["ada", "shared"]
    with files.open("ada/notes/a.txt", "w") as stream:
        stream.write("hello")
    assert files.cat("ada/notes/a.txt") == b"hello"
    with files.open("ada/big.bin", "wb", block_size=5 * 2**20) as stream:
        for _ in range(12):
            stream.write(bytes(2**20))
    assert files.size("ada/big.bin") == 12 * 2**20
    assert sorted(files.find("ada")) == ["ada/big.bin", "ada/notes/a.txt", "ada/secret.txt"]
    files.rm(["ada/big.bin", "ada/notes/a.txt"])
    assert files.find("ada") == ["ada/secret.txt"]


def test_a_signed_address_allows_one_thing(server: EmbeddedServer) -> None:
    """A signed address reads or writes its one object by its one method, without any key."""
    store, now = S3Store(server.account), datetime.now(UTC)
    read = store.sign("acme", "ada", "secret.txt", "GET", 60, now)
    assert httpx.get(read).content == b"of ada"
    assert httpx.put(read, content=b"x").status_code == 403
    assert httpx.delete(read).status_code == 403
    assert httpx.get(read.replace("secret.txt", "other.txt")).status_code == 403
    assert httpx.get(read.replace("/ada/", "/bob/")).status_code == 403
    write = store.sign("acme", "ada", "odd name+ü.txt", "PUT", 60, now)
    assert httpx.put(write, content=b"signed").status_code == 200
    assert b"".join(store.get("acme", "ada", "odd name+ü.txt")) == b"signed"
    store.delete("acme", "ada", "odd name+ü.txt")
    store.close()


def test_a_signed_address_ends(server: EmbeddedServer) -> None:
    """Past its end it is refused."""
    store = S3Store(server.account)
    past = store.sign("acme", "ada", "secret.txt", "GET", 60, datetime.now(UTC) - timedelta(seconds=120))
    assert httpx.get(past).status_code == 403
    longer = past.replace("X-Amz-Expires=60", "X-Amz-Expires=900")
    assert httpx.get(longer).status_code == 403
    store.close()


def test_a_sender_who_is_killed_leaves_nothing(server: EmbeddedServer, folder: Path) -> None:
    """An upload whose sender vanishes in the middle is never visible; the old object stays, the bytes are removed."""
    store = S3Store(server.account)
    store.put("acme", "ada", "report", [b"old"])
    address = urlsplit(store.sign("acme", "ada", "report", "PUT", 60, datetime.now(UTC)))
    with socket.create_connection((address.hostname or "", address.port or 0)) as line:
        head = (
            f"PUT {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 1000000\r\n\r\n"
        )
        line.sendall(head.encode() + bytes(400_000))
        _until(lambda: any((folder / "objects").rglob(".rclone_temp_*")), "the upload begins")
        assert b"".join(store.get("acme", "ada", "report")) == b"old"
    _until(lambda: not any((folder / "objects").rglob(".rclone_temp_*")), "the unfinished upload is removed")
    assert b"".join(store.get("acme", "ada", "report")) == b"old"
    assert "report" in [each.key for each in store.listing("acme", "ada").objects]
    store.delete("acme", "ada", "report")
    store.close()


def test_what_a_killed_server_left_is_removed(server: EmbeddedServer, folder: Path) -> None:
    """Old unfinished uploads are deleted, young ones and objects stay."""
    old = folder / "objects" / "acme" / "ada" / ".rclone_temp_put_old"
    young = folder / "objects" / "acme" / "ada" / ".rclone_temp_put_young"
    for path in (old, young):
        path.write_bytes(b"part")
    import os

    os.utime(old, (1, 1))
    assert remove_unfinished(folder) == 1
    assert (old.exists(), young.exists()) == (False, True)
    young.unlink()


def test_many_uploads_at_once_stay_apart(server: EmbeddedServer) -> None:
    """Sixteen writers at the same time: each object has its own content."""
    store = S3Store(server.account)
    contents = {f"many/{number}": bytes([number]) * 300_000 for number in range(16)}
    threads = [
        threading.Thread(target=store.put, args=("acme", "ada", key, [content])) for key, content in contents.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, content in contents.items():
        assert hashlib.sha256(b"".join(store.get("acme", "ada", key))).digest() == hashlib.sha256(content).digest()
        store.delete("acme", "ada", key)
    store.close()


def test_a_server_that_is_away_is_busy(tmp_path: Path) -> None:
    """Without a server every call says that the store does not answer, and that one may try again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = S3Store(EmbeddedServer(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}").account)
        with pytest.raises(StoreBusy, match="does not answer") as caught:
            store.stat("acme", "ada", "x")
        assert caught.value.retry_after > 0
        with pytest.raises(StoreBusy):
            store.put("acme", "ada", "x", [b"x"])
    store.close()


def test_the_platforms_files_and_the_server_show_the_same(server: EmbeddedServer) -> None:
    """What API and engine write directly is served, what came over S3 is there for them, and replaced either way."""
    disk, s3 = server.store(), S3Store(server.account)
    s3.put("acme", "ada", "both/x", [b"over S3"])
    assert b"".join(disk.get("acme", "ada", "both/x")) == b"over S3"
    disk.put("acme", "ada", "both/x", [b"by the platform"])

    def served() -> bool:
        try:
            content = b"".join(s3.get("acme", "ada", "both/x"))
        except StoreBusy:  # the server looks at a folder ten times a second: it sends no mixture of old and new
            return False
        etag = s3.stat("acme", "ada", "both/x").etag
        assert content in (b"over S3", b"by the platform")
        return content == b"by the platform" and etag == hashlib.md5(content).hexdigest()

    _until(served, "the server shows the new content")
    disk.delete("acme", "ada", "both/x")
    _until(lambda: not s3.listing("acme", "ada", "both/").objects, "the server shows the deletion")
    s3.close()


def test_writing_to_no_bucket_is_not_found(server: EmbeddedServer) -> None:
    """A bucket that is not there is told as such."""
    store = S3Store(server.account)
    with pytest.raises(NotFound, match="nowhere"):
        store.put("acme", "nowhere", "x", [b"x"])
    with pytest.raises(NotFound, match="nowhere"):
        store.listing("acme", "nowhere")
    store.close()


def _until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)
