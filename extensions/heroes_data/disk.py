"""The embedded object store, seen from its own machine: objects are files, which API and engine read and write
directly, and `rclone serve s3` serves to users. Implements `ports.ObjectStore`.

    <folder>/objects/<organisation>/<bucket>/<key>
    <folder>/unfinished/…        uploads on their way; renamed into place when they are whole

An etag is made of size, mtime and inode: content is only ever replaced by renaming a new file into place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import NoReturn

from heroes.api.errors import Conflict, NotFound, StoreBusy
from heroes.api.ids import NAME
from heroes_data.model import ObjectInfo, ObjectPage, is_unfinished
from heroes_data.s3 import Accounts
from heroes_data.signature import signed_address

_CHUNK = 2**18


class DiskStore:
    """Objects below `folder`. `accounts` tells the keys that sign addresses. Safe between threads and processes."""

    def __init__(self, folder: Path, accounts: Accounts) -> None:
        self._objects = folder / "objects"
        self._unfinished = folder / "unfinished"
        self._accounts = accounts
        for each in (self._objects, self._unfinished):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)

    def make_bucket(self, organisation: str, bucket: str) -> None:
        """Make its folder."""
        (self._objects / organisation / bucket).mkdir(parents=True, exist_ok=True, mode=0o700)

    def remove_bucket(self, organisation: str, bucket: str) -> None:
        """Delete its folder when no object is in it."""
        if self.listing(organisation, bucket, limit=1).objects:
            raise Conflict(f"The bucket {bucket} is not empty.", hint="Delete what is in it first.")
        shutil.rmtree(self._bucket(organisation, bucket))

    def listing(
        self, organisation: str, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, flat: bool = True
    ) -> ObjectPage:
        """Walk the folder, no further than needed."""
        root, folder = self._bucket(organisation, bucket), prefix[: prefix.rfind("/") + 1]
        if not _is_plain(folder.removesuffix("/") or "x"):
            return ObjectPage(())
        walk = _walk(str(root), folder, prefix, after, flat)
        found = list(islice(walk, limit + 1))
        shown = found[:limit]
        objects = tuple(each for each in shown if isinstance(each, ObjectInfo))
        folders = tuple(each for each in shown if isinstance(each, str))
        return ObjectPage(objects, folders, _key(shown[-1]) if len(found) > limit else None)

    def stat(self, organisation: str, bucket: str, key: str) -> ObjectInfo:
        """Look at the file."""
        path = self._path(organisation, bucket, key)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            _missing(bucket, key)
        return _info(key, found) if stat.S_ISREG(found.st_mode) else _missing(bucket, key)

    def digest(self, organisation: str, bucket: str, key: str) -> str:
        """Read the file."""
        with self._open(organisation, bucket, key) as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def put(self, organisation: str, bucket: str, key: str, parts: Iterable[bytes]) -> ObjectInfo:
        """Write a file aside, and rename it when it is whole and on the disk."""
        target = self._path(organisation, bucket, key)
        aside = self._unfinished / secrets.token_hex(16)
        try:
            with aside.open("wb") as stream:
                stream.writelines(parts)
                stream.flush()
                os.fsync(stream.fileno())
            now = time.time_ns()  # a file system's own clock may tick too slowly to tell two writes apart
            os.utime(aside, ns=(now, now))
            _rename(aside, target, f"{bucket}/{key}")
            return self.stat(organisation, bucket, key)
        except OSError as error:
            raise StoreBusy(
                f"The object store cannot write {bucket}/{key}: {os.strerror(error.errno or 0)}.",
                hint="Try again; should it go on, an operator has to make room.",
            ) from error
        finally:
            aside.unlink(missing_ok=True)

    def get(
        self, organisation: str, bucket: str, key: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """Read the file; it stays readable as it was when somebody replaces it."""
        return _read(self._open(organisation, bucket, key), offset, length)

    def delete(self, organisation: str, bucket: str, key: str) -> None:
        """Remove the file, and folders that it leaves empty."""
        root, path = self._bucket(organisation, bucket), self._path(organisation, bucket, key)
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        folder = path.parent
        with suppress(OSError):  # not empty, or gone already
            while folder != root:
                folder.rmdir()
                folder = folder.parent

    def sign(self, organisation: str, bucket: str, key: str, method: str, seconds: int, now: datetime) -> str:
        """An address of the embedded S3 server."""
        return signed_address(self._accounts(organisation), bucket, key, method, seconds, now)

    def remote(self, organisation: str) -> Mapping[str, str]:
        """The organisation's folder."""
        return {"type": "local", "root": str(self._objects / organisation)}

    def _bucket(self, organisation: str, bucket: str) -> Path:
        path = self._objects / organisation / bucket
        if not (NAME.fullmatch(organisation) and NAME.fullmatch(bucket) and path.is_dir()):
            raise NotFound(f"There is no bucket {bucket}.", hint="List yours: heroes data buckets.")
        return path

    def _path(self, organisation: str, bucket: str, key: str) -> Path:
        """Where an object is. Keys were checked before; this is the last door, and leads nowhere else."""
        root = self._bucket(organisation, bucket)
        if not _is_plain(key):
            _missing(bucket, key)
        return root / key

    def _open(self, organisation: str, bucket: str, key: str) -> BufferedReader:
        self.stat(organisation, bucket, key)
        try:
            return self._path(organisation, bucket, key).open("rb")
        except FileNotFoundError:
            _missing(bucket, key)


def remove_unfinished(folder: Path, older_than_s: float = 86400.0) -> int:
    """Delete what killed uploads and transfers left; how many files."""
    before, count = time.time() - older_than_s, 0
    aside = [(path, True) for path in (folder / "unfinished").glob("*")]
    inside = ((path, is_unfinished(path.name)) for path in (folder / "objects").rglob("*"))
    for path, unfinished in (*aside, *inside):
        with suppress(FileNotFoundError):
            if unfinished and path.is_file() and path.lstat().st_mtime < before:
                path.unlink()
                count += 1
    return count


def _walk(root: str, folder: str, prefix: str, after: str, flat: bool) -> Iterator[ObjectInfo | str]:
    """Objects, and folders unless `flat`, that begin with `prefix` and come after the cursor, in order of key. `folder`
    is where the walk is: empty or ending in a slash."""
    named = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(f"{root}/{folder}") as entries:
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                named.append((f"{folder}{each.name}/", each))
            elif each.is_file(follow_symlinks=False) and not is_unfinished(each.name):
                named.append((folder + each.name, each))
    named.sort(key=itemgetter(0))
    for key, entry in named:
        if not (key.startswith(prefix) or prefix.startswith(key)):
            continue
        if not key.endswith("/"):
            if key > after and key.startswith(prefix):
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat(follow_symlinks=False))
        elif flat or not key.startswith(prefix) or key == prefix:
            if key > after or after.startswith(key):
                yield from _walk(root, key, prefix, after, flat)
        elif key > after and next(_walk(root, key, "", "", True), None) is not None:
            yield key


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    etag = f"{found.st_size:x}-{found.st_mtime_ns:x}-{found.st_ino:x}"
    return ObjectInfo(key, found.st_size, etag, datetime.fromtimestamp(found.st_mtime, UTC))


def _is_plain(key: str) -> bool:
    return not {"", ".", ".."} & set(key.split("/")) and "\0" not in key


def _key(each: ObjectInfo | str) -> str:
    return each if isinstance(each, str) else each.key


def _read(stream: BufferedReader, offset: int, length: int | None) -> Iterator[bytes]:
    with stream:
        stream.seek(offset)
        left = length
        while part := stream.read(_CHUNK if left is None else min(_CHUNK, left)):
            yield part
            if left is not None:
                left -= len(part)


def _rename(aside: Path, target: Path, named: str) -> None:
    """Put a whole file into place; its folder may be removed, being empty, in the very moment."""
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside.rename(target)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
                raise Conflict(
                    f"{named} cannot be: there is an object where it needs a folder, or a folder in its place.",
                    hint="Choose another key, or delete what is there.",
                ) from error
            raise
        else:
            return


def _missing(bucket: str, key: str) -> NoReturn:
    raise NotFound(f"There is no object {key} in the bucket {bucket}.", hint="List what there is: heroes data list.")
