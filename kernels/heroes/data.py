"""One's data: `hs.data`. Objects are named `bucket/key`; one's own bucket bears one's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from heroes.api import data as api
from heroes.api.errors import InvalidSpec, NotFound
from heroes.api.model import Page
from heroes.progress import read_file, write_file
from heroes.views import Rows

if TYPE_CHECKING:
    from heroes.connection import Heroes

#: A key that ends sooner than this is replaced.
_SPARE = timedelta(minutes=5)


class Data:
    """Buckets and objects of the signed-in user."""

    def __init__(self, platform: Heroes) -> None:
        self._platform, self._client = platform, platform.client
        self._fs: tuple[Any, datetime] | None = None

    def buckets(self) -> Rows:
        """The buckets that one can see."""
        found = self._client.pages(api.BUCKETS, Page(limit=500))
        return Rows(
            found, "buckets", name=lambda b: b.name, owner=lambda b: b.owner, writable=lambda b: str(b.writable)
        )

    def list(self, path: str = "", *, recursive: bool = False) -> Rows:
        """The objects below `bucket/prefix` (one's own bucket when empty)."""
        bucket, prefix = self.split(path)
        request = api.ListObjects(bucket=bucket, prefix=prefix, recursive=recursive, limit=500)
        found = self._client.pages(api.LIST, request)
        columns = {"key": _key, "bytes": _size, "modified": _modified}
        return Rows(found, f"{bucket}/{prefix}", **columns)

    def upload(self, source: str | Path, to: str = "") -> str:
        """Upload a file, or a folder with all its files, streamed; where it is then: `bucket/key`.

        `to`: `bucket/key`, or `bucket/folder/` to keep the name; one's own bucket when empty."""
        path = Path(source)
        if not path.exists():
            raise NotFound(f"There is no file {path} here.", hint=f"You are in {Path.cwd()}.")
        bucket, key = self.split(to or path.name)
        if key.endswith("/") or not key:
            key += path.name
        if path.is_file():
            self._upload(path, bucket, key)
            return f"{bucket}/{key}"
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            self._upload(file, bucket, f"{key}/{file.relative_to(path).as_posix()}")
        return f"{bucket}/{key}/"

    def download(self, path: str, to: str | Path = ".") -> Path:
        """Download an object, or all below a key that ends in `/`, streamed; where it is then."""
        bucket, key = self.split(path)
        target = Path(to)
        if not key or key.endswith("/"):
            return self._download_folder(bucket, key, target)
        if target.is_dir():
            target /= PurePosixPath(key).name
        return self._download(bucket, key, target)

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        with self.open(path) as parts:
            return b"".join(parts)

    @contextmanager
    def open(self, path: str) -> Iterator[Iterable[bytes]]:
        """The bytes of an object in parts, as they come."""
        bucket, key = self.split(path)
        with self._client.download(api.DOWNLOAD, api.Download(bucket=bucket, key=key)) as download:
            yield download.parts

    def remove(self, path: str) -> int:
        """Delete an object, or everything below a key that ends in `/`; how many objects that were."""
        bucket, key = self.split(path)
        removed: api.Removed = self._client.call(api.REMOVE, api.AskObject(bucket=bucket, key=key))
        return removed.objects

    @property
    def fs(self) -> Any:
        """An s3fs file system over the buckets that one can see; its key is renewed when it is about to end."""
        if self._fs is None or self._fs[1] - datetime.now(UTC) < _SPARE:
            from s3fs.core import S3FileSystem

            key: api.Credentials = self._client.call(api.CREDENTIALS, api.AskCredentials())
            settings = {"endpoint_url": key.endpoint, "region_name": key.region}
            opened = S3FileSystem(
                key=key.access_key,
                secret=key.secret_key,
                client_kwargs=settings,
                config_kwargs={"s3": {"addressing_style": "path"}},
                skip_instance_cache=True,
            )
            self._fs = (opened, key.expires_at)
        return self._fs[0]

    def split(self, path: str) -> tuple[str, str]:
        """Bucket and key of `bucket/key`; a path without a bucket that one can see is in one's own."""
        first, slash, rest = path.lstrip("/").partition("/")
        if slash and first in self._names():
            return first, rest
        if path and not slash and first in self._names():
            return first, ""
        return self._platform.user, path.lstrip("/")

    def _names(self) -> set[str]:
        return {bucket.name for bucket in self._client.pages(api.BUCKETS, Page(limit=500))}

    def _upload(self, path: Path, bucket: str, key: str) -> None:
        with read_file(path) as content:
            self._client.call(api.UPLOAD, api.AskObject(bucket=bucket, key=key), content=content)

    def _download(self, bucket: str, key: str, target: Path) -> Path:
        with self._client.download(api.DOWNLOAD, api.Download(bucket=bucket, key=key)) as download:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, download.parts, download.size)
        return target

    def _download_folder(self, bucket: str, prefix: str, target: Path) -> Path:
        request = api.ListObjects(bucket=bucket, prefix=prefix, recursive=True, limit=500)
        for found in self._client.pages(api.LIST, request):
            name = PurePosixPath(found.key.removeprefix(prefix))
            if found.key.endswith("/"):
                continue
            if name.is_absolute() or ".." in name.parts:
                raise InvalidSpec(f"The key {found.key!r} leads out of {target}.", hint="Download it by its own name.")
            self._download(bucket, found.key, target / name)
        return target


_BUCKET_COLUMNS: dict[str, Any] = {
    "name": lambda bucket: bucket.name,
    "owner": lambda bucket: bucket.owner,
    "writable": lambda bucket: "yes" if bucket.writable else "no",
}


def _key(found: api.Object) -> str:
    return found.key


def _size(found: api.Object) -> str:
    return "" if found.key.endswith("/") else f"{found.size:,}"


def _modified(found: api.Object) -> str:
    return found.modified.astimezone().strftime("%Y-%m-%d %H:%M") if found.modified else ""
