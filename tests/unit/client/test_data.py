"""`hs.data`: files up and down, streamed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from heroes import Heroes
from heroes.api import data as data_api
from heroes.api.errors import InvalidSpec, NotFound
from tests.unit.client import samples
from tests.unit.client.fake_api import Asked, FakeApi

UPLOAD = "/organization/data/upload"
DOWNLOAD = "/organization/data/download"


def where(asked: Asked) -> str:
    """Bucket and key of a request."""
    return f"{asked.query['bucket'][0]}/{asked.query['key'][0]}"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("shared/a/b", ("shared", "a/b")),
        ("shared", ("shared", "")),
        ("shared/", ("shared", "")),
        ("a/b", ("ada", "a/b")),
        ("b", ("ada", "b")),
        ("", ("ada", "")),
        ("/ada/x", ("ada", "x")),
    ],
)
def test_paths(hs: Heroes, path: str, expected: tuple[str, str]) -> None:
    """A path begins with a bucket that one can see, or is in one's own."""
    assert hs.data.split(path) == expected


@pytest.mark.parametrize(
    ("to", "expected"),
    [("", "ada/in.csv"), ("shared/", "shared/in.csv"), ("shared/x/y.csv", "shared/x/y.csv"), ("d/", "ada/d/in.csv")],
)
def test_uploading_a_file(hs: Heroes, api: FakeApi, tmp_path: Path, to: str, expected: str) -> None:
    """A file goes to the key named, or keeps its name."""
    (tmp_path / "in.csv").write_bytes(b"x" * 3_000_000)
    api.on("POST", UPLOAD, samples.thing("in.csv"))
    assert hs.data.upload(tmp_path / "in.csv", to) == expected
    assert where(api.asked[-1]) == expected
    assert len(api.asked[-1].body) == 3_000_000


def test_uploading_a_folder(hs: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """A folder goes up file by file, with its folders."""
    (tmp_path / "case" / "sub").mkdir(parents=True)
    (tmp_path / "case" / "a").write_text("a")
    (tmp_path / "case" / "sub" / "b").write_text("b")
    api.on("POST", UPLOAD, samples.thing("x"))
    assert hs.data.upload(tmp_path / "case") == "ada/case/"
    assert [where(asked) for asked in api.asked if asked.path == UPLOAD] == ["ada/case/a", "ada/case/sub/b"]


def test_uploading_what_is_not_there(hs: Heroes, tmp_path: Path) -> None:
    """A file that does not exist is told before anything is sent."""
    with pytest.raises(NotFound, match="no file"):
        hs.data.upload(tmp_path / "nothing")


def test_downloading_a_file(hs: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """An object comes to the file named, or into the folder under its name."""
    api.on("GET", DOWNLOAD, b"content")
    assert hs.data.download("shared/a/b.csv", tmp_path) == tmp_path / "b.csv"
    assert hs.data.download("shared/a/b.csv", tmp_path / "new" / "c.csv") == tmp_path / "new" / "c.csv"
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "new" / "c.csv").read_bytes() == b"content"
    assert where(api.asked[-1]) == "shared/a/b.csv"


def test_a_download_that_fails_leaves_nothing(hs: Heroes, tmp_path: Path) -> None:
    """A file appears only when it is whole; a missing object leaves what stood there."""
    (tmp_path / "old").write_text("old")
    with pytest.raises(NotFound):
        hs.data.download("shared/a", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize("key", ["x/../../../etc/passwd", "x//etc/passwd"])
def test_a_key_that_leads_elsewhere_is_refused(hs: Heroes, api: FakeApi, tmp_path: Path, key: str) -> None:
    """A key with `..` in it, or that looks like a path from the root, does not leave the folder."""
    api.on("GET", "/organization/data/bucket/shared/list", {"items": [samples.thing(key).model_dump(mode="json")]})
    api.on("GET", DOWNLOAD, b"content")
    with pytest.raises(InvalidSpec, match="leads out"):
        hs.data.download("shared/x/", tmp_path / "target")


def test_downloading_a_folder(hs: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """Everything below a key comes with its folders; folders themselves are no files."""
    keys = ("x/a", "x/sub/", "x/sub/b")
    items = [samples.thing(key).model_dump(mode="json") for key in keys]
    api.on("GET", "/organization/data/bucket/shared/list", {"items": items})
    api.on("GET", DOWNLOAD, b"content")
    assert hs.data.download("shared/x/", tmp_path / "t") == tmp_path / "t"
    assert sorted(p.relative_to(tmp_path / "t").as_posix() for p in (tmp_path / "t").rglob("*") if p.is_file()) == [
        "a",
        "sub/b",
    ]


def test_reading(hs: Heroes, api: FakeApi) -> None:
    """The bytes of an object, whole or in parts."""
    api.on("GET", DOWNLOAD, b"content")
    assert hs.data.read("x") == b"content"
    with hs.data.open("x") as parts:
        assert b"".join(parts) == b"content"


def test_listing(hs: Heroes, api: FakeApi) -> None:
    """Objects are listed with size and time; the list shows itself as a table."""
    items = [samples.thing("d/").model_dump(mode="json"), samples.thing("d/a", 12345).model_dump(mode="json")]
    api.on("GET", "/organization/data/bucket/shared/list", {"items": items})
    found = hs.data.list("shared/d", recursive=True)
    assert [each.key for each in found] == ["d/", "d/a"]
    assert api.asked[-1].query["prefix"] == ["d"]
    assert "12,345" in repr(found)
    assert "<table>" in found._repr_html_()
    assert [bucket.name for bucket in hs.data.buckets()] == ["ada", "shared"]


def test_removing(hs: Heroes, api: FakeApi) -> None:
    """The number of objects deleted is told."""
    api.on("DELETE", "/organization/data/bucket/shared", data_api.Removed(objects=3))
    assert hs.data.remove("shared/x/") == 3
    assert api.asked[-1].query == {"key": ["x/"]}


def key_until(expires_at: datetime) -> dict[str, Any]:
    """An S3 key that ends then."""
    told = {
        "endpoint": "http://127.0.0.1:1",
        "region": "other",
        "access_key": "a",
        "secret_key": "s",
        "buckets": ["ada"],
    }
    return {**told, "expires_at": expires_at.isoformat()}


@pytest.mark.parametrize(("minutes", "asked"), [(60, 1), (4, 2)])
def test_the_file_system(hs: Heroes, api: FakeApi, minutes: int, asked: int) -> None:
    """`fs` is an s3fs file system; its key is kept while it is good for some time, and renewed after that."""
    api.on("POST", "/organization/data/credentials", key_until(datetime.now(UTC) + timedelta(minutes=minutes)))
    first, second = hs.data.fs, hs.data.fs
    assert type(first).__name__ == "S3FileSystem"
    assert (first is second) == (asked == 1)
    assert first.client_kwargs["endpoint_url"] == "http://127.0.0.1:1"
    assert sum(each.path.endswith("/credentials") for each in api.asked) == asked
