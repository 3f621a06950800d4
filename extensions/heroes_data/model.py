"""Rules of data: what a key may be, which keys cannot stand beside each other, and what is meant by an exact copy."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from heroes.api.errors import InvalidSpec, NotFound
from heroes_spawners.site import SiteFile

#: The empty object that keeps a folder there: no store can be relied on to keep a key that ends in a slash.
FOLDER_MARK = ".heroes-folder"
#: How the embedded server's unfinished uploads begin, and how results on their way into its folder end.
_UNFINISHED = ".rclone_temp_"
PARTIAL = ".hpart"
_MD5 = re.compile(r"[0-9a-f]{32}")
_LONGEST_PART = 255
#: Keys that need no closer look: no part begins with a dot, and no folder looks like a partial file.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_-]{0,99}/)*[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the store knows it. `etag` changes with the content."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class ObjectPage:
    """Part of a listing in order of key: objects, folders (keys that end in `/`), and where the next part begins."""

    objects: tuple[ObjectInfo, ...]
    folders: tuple[str, ...] = ()
    next: str | None = None


@dataclass(frozen=True)
class ObjectRef:
    """An object that a job reads, as it was when asked for; a key that ends in `/` is a folder, `etag` and `size` then
    stand for all of it."""

    bucket: str
    key: str
    etag: str
    size: int


@dataclass(frozen=True)
class StagedPath:
    """Where an object lies at a site, relative to the base directory."""

    ref: ObjectRef
    path: str


@dataclass(frozen=True)
class SealedFolder:
    """A finished job's folder at a site: `path` is `data/<organisation>/<user>/<bucket>/<prefix>`, `files` what of it
    is to be kept, relative to it."""

    path: str
    bucket: str
    prefix: str
    files: tuple[SiteFile, ...]


@dataclass(frozen=True)
class Moved:
    """What a transfer did: bytes that crossed the line, and elapsed seconds. `skipped`: keys that files of a finished
    job would have had, and that no key may have."""

    bytes: int
    seconds: float
    staged: tuple[StagedPath, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class S3Account:
    """How to reach an S3 server: `container` empty means that buckets are the server's own, else they are the first
    parts of keys in that one bucket. `public` is the address that users reach, where it is another."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    container: str = ""
    public: str = ""


def check_key(key: str) -> str:
    """A key that is a relative path on any store and any site; InvalidSpec tells what is wrong with it."""
    if len(key) <= 1024 and _PLAIN.fullmatch(key) and not key.endswith(PARTIAL):
        return key
    parts = key.split("/")
    if not key or len(key.encode()) > 1024:
        _bad(key, "is empty or longer than 1024 bytes")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in key):
        _bad(key, "has control characters")
    if ".." in parts or "." in parts:
        _bad(key, "has the part . or ..")
    if "" in parts:
        _bad(key, "begins or ends with a slash or has two beside each other")
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        _bad(key, f"has a part longer than {_LONGEST_PART} bytes")
    if any(is_unfinished(part) or part == FOLDER_MARK for part in parts):
        _bad(key, "has a part that is reserved")
    return key


def is_unfinished(name: str) -> bool:
    """Whether a file of that name holds an upload that is not whole."""
    return name.startswith(_UNFINISHED) or name.endswith(PARTIAL)


def check_prefix(key: str) -> str:
    """A key, or a folder that ends in one slash."""
    check_key(key.removesuffix("/"))
    return key


def check_collisions(keys: Iterable[str]) -> None:
    """InvalidSpec when two keys differ in case or Unicode form only, or one is a file where another needs a folder."""
    seen: dict[str, str] = {}
    for key in keys:
        folded = key.lower() if key.isascii() else unicodedata.normalize("NFC", key).casefold()
        other = seen.setdefault(folded, key)
        if other != key:
            _bad(key, f"differs from {other} in case or form only: not every file system keeps both")
    folders: dict[str, str] = {}
    for folded, key in seen.items():
        folder = folded
        while (folder := folder.rpartition("/")[0]) and folder not in folders:
            folders[folder] = key
    for folder, key in folders.items():
        if folder in seen:
            _bad(key, f"needs a folder where {seen[folder]} is a file")


def _bad(key: str, problem: str) -> NoReturn:
    shown = repr(key if len(key) <= 100 else key[:97] + "…")
    raise InvalidSpec(
        f"The key {shown} {problem}.",
        hint="Use a relative path such as run1/input.csv.",
        detail={"fields": [{"field": "key", "problem": problem, "value": shown}]},
    )


def md5_of(etag: str) -> str | None:
    """The content's MD5 where the etag is one (one-part uploads and the embedded server), else None."""
    return etag if _MD5.fullmatch(etag) else None


def folder_etag(objects: Iterable[ObjectInfo]) -> str:
    """An etag for a folder: it changes when any object below changes, comes or goes."""
    digest = hashlib.sha256()
    for each in objects:
        digest.update(f"{each.key}\0{each.etag}\0{each.size}\n".encode())
    return digest.hexdigest()


def data_path(organisation: str, user: str, bucket: str, key: str) -> str:
    """Where an object lies at a site, relative to the base directory."""
    return f"data/{organisation}/{user}/{bucket}/{key}"


def changed(bucket: str, key: str) -> NotFound:
    """The version of an object that was asked for is not there any more."""
    return NotFound(
        f"{bucket}/{key} changed after the job was submitted: what it was is gone.",
        hint="Submit again, so that it runs with what is there.",
    )
