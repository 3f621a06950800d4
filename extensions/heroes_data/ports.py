"""The object store: an S3 server, embedded or any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from heroes_data.model import ObjectInfo, ObjectPage


class ObjectStore(Protocol):
    """Buckets of organisations and the objects in them. No organisation's calls reach another's buckets.

    Keys are checked by the caller. `NotFound` where bucket or object is not there, `StoreBusy` when the store does not
    answer. Objects are replaced as a whole: a reader sees the old or the new content, never a mixture or a part.
    """

    def make_bucket(self, organisation: str, bucket: str) -> None:
        """Make a bucket; one that is there is no error."""

    def remove_bucket(self, organisation: str, bucket: str) -> None:
        """Delete an empty bucket; Conflict when it is not empty."""

    def listing(
        self, organisation: str, bucket: str, prefix: str = "", *, after: str = "", limit: int = 1000, flat: bool = True
    ) -> ObjectPage:
        """Objects below `prefix` in order of key after the cursor `after`; unless `flat`, what lies in folders below is
        told as the folder."""

    def stat(self, organisation: str, bucket: str, key: str) -> ObjectInfo:
        """One object."""

    def digest(self, organisation: str, bucket: str, key: str) -> str:
        """The MD5 of an object's content, in hex; it may have to be read for that."""

    def put(self, organisation: str, bucket: str, key: str, parts: Iterable[bytes]) -> ObjectInfo:
        """Store what comes; when `parts` raises, nothing has changed."""

    def get(
        self, organisation: str, bucket: str, key: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        """The content, or a part of it, in parts of moderate size. NotFound is raised before the first part."""

    def delete(self, organisation: str, bucket: str, key: str) -> None:
        """Delete an object; one that is not there is no error."""

    def sign(self, organisation: str, bucket: str, key: str, method: str, seconds: int, now: datetime) -> str:
        """An address that allows `method` (GET or PUT) on this one object for so many seconds."""

    def remote(self, organisation: str) -> Mapping[str, str]:
        """The rclone settings of a remote whose first path component is the bucket; "root" is where it begins."""
