"""Data: buckets and the objects in them, moved by streams of any size, by signed addresses, or as a file system.

An organisation's objects live in buckets. Each user has one of their own, named as the user; shared ones are granted to
users, groups or projects. An object is named by its bucket and key; a key that ends in `/` means all objects below it.
Sizes are bytes. An upload becomes visible as a whole or not at all, and an object is replaced the same way.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound, StoreBusy
from heroes.api.ids import NAME
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import Operation

Slug = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Asked = Annotated[str, StringConstraints(min_length=1, max_length=63)]
#: Checked again by its own rules, which name what is wrong with it.
Key = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Prefix = Annotated[str, StringConstraints(max_length=1024)]
Direction = Literal["upload", "download", "stage-in", "stage-out", "link"]
_HOME = ("data:home", "data:manage")


class Bucket(Model):
    """A bucket that one can see, and whether one may write to it."""

    name: str
    owner: str
    writable: bool
    created_at: datetime


class Buckets(Model):
    """One page of buckets, by name."""

    items: tuple[Bucket, ...]
    next: str | None = None


class AskBucket(Model):
    """A bucket by name."""

    bucket: Asked


class AddBucket(Model):
    """A new shared bucket, owned by whoever makes it."""

    bucket: Slug


class AskSize(Model):
    """A bucket, or what is below a prefix in it."""

    bucket: Asked
    prefix: Prefix = Field(default="", description="only keys that begin so")


class Size(Model):
    """How much there is: bytes and objects."""

    bucket: str
    prefix: str = Field(description="only keys that begin so")
    bytes: int
    objects: int


class AddFolder(Model):
    """A folder in a bucket: it stays there while it is empty."""

    bucket: Asked
    folder: Key


class Object(Model):
    """An object, or a folder (its key ends in `/`, it has no etag)."""

    key: str
    size: int
    etag: str
    modified: datetime | None


class Objects(Model):
    """One page of objects, by key."""

    items: tuple[Object, ...]
    next: str | None = None


class ListObjects(Page):
    """What is in a bucket below a prefix."""

    bucket: Asked
    prefix: Prefix = Field(default="", description="only keys that begin so")
    recursive: bool = Field(default=False, description="every object below, instead of folders")


class AskObject(Model):
    """An object by bucket and key."""

    bucket: Asked
    key: Key


class Removed(Model):
    """How many objects were deleted."""

    objects: int


class Download(Model):
    """An object, or a part of it."""

    bucket: Asked
    key: Key
    offset: int = Field(default=0, ge=0, description="first byte")
    length: int | None = Field(default=None, ge=1, description="bytes; null: to the end")


class AskLink(Model):
    """An address that anybody may use, for a while and for one purpose."""

    bucket: Asked
    key: Key
    method: Literal["GET", "PUT"] = "GET"
    seconds: int = Field(default=900, ge=1, le=900, description="how long it works, 15 min at most")


class Link(Model):
    """A signed address: whoever has it may do this one thing until it expires."""

    url: str
    method: str
    expires_at: datetime


class AskCredentials(Model):
    """A short-lived key to one's buckets, for programs that speak S3."""

    seconds: int = Field(default=3600, ge=60, le=3600, description="how long it works")


class Credentials(Model):
    """An S3 key whose root holds one's own bucket and those granted; read-only ones refuse writing."""

    endpoint: str
    region: str
    access_key: str
    secret_key: str
    buckets: tuple[str, ...]
    expires_at: datetime


class Grant(Model):
    """Who beside the owner may use a bucket."""

    bucket: str
    kind: Literal["user", "group", "project"]
    name: str
    writable: bool = Field(description="writing is allowed too")


class Grants(Model):
    """All grants of a bucket."""

    items: tuple[Grant, ...]
    next: str | None = None


class AddGrant(Model):
    """Let a user, a group or a project read a bucket, or write to it too."""

    bucket: Asked
    kind: Literal["user", "group", "project"] = "user"
    name: Asked
    writable: bool = Field(default=False, description="writing is allowed too")


class RemoveGrant(Model):
    """Take a grant back; keys made before work for an hour at most."""

    bucket: Asked
    kind: Literal["user", "group", "project"] = "user"
    name: Asked


class Transfer(Model):
    """One movement of data, as logged. `seconds` is elapsed time; `cluster` is empty unless data was staged."""

    id: str
    at: datetime
    user: str
    direction: Direction
    bucket: str
    key: str
    cluster: str
    objects: int
    bytes: int
    seconds: float
    outcome: str


class Transfers(Model):
    """One page of the log, newest first."""

    items: tuple[Transfer, ...]
    next: str | None = None


BUCKETS = Operation(
    name="data.buckets",
    method="GET",
    path="/organization/data/list",
    request=Page,
    response=Buckets,
    right=_HOME,
    summary="List the buckets that one can see.",
    verb="data buckets",
)
SIZE = Operation(
    name="data.size",
    method="GET",
    path="/organization/data/size",
    request=AskSize,
    response=Size,
    right=_HOME,
    errors=(NotFound, StoreBusy),
    summary="Tell how much a bucket holds.",
    verb="data size",
)
ADD_BUCKET = Operation(
    name="data.add_bucket",
    method="POST",
    path="/organization/data/bucket",
    request=AddBucket,
    response=Bucket,
    right=_HOME,
    errors=(Conflict, StoreBusy),
    summary="Make a bucket to share.",
    verb="data add-bucket",
)
REMOVE_BUCKET = Operation(
    name="data.remove_bucket",
    method="DELETE",
    path="/organization/data/bucket",
    request=AskBucket,
    response=Empty,
    right=_HOME,
    errors=(NotFound, NotAllowed, Conflict, StoreBusy),
    summary="Delete an empty bucket.",
    verb="data remove-bucket",
)
ADD_FOLDER = Operation(
    name="data.add_folder",
    method="POST",
    path="/organization/data/bucket/{bucket}/",
    request=AddFolder,
    response=Object,
    right=_HOME,
    errors=(NotFound, NotAllowed, InvalidSpec, StoreBusy),
    summary="Make a folder in a bucket.",
    verb="data add-folder",
)
LIST = Operation(
    name="data.list",
    method="GET",
    path="/organization/data/bucket/{bucket}/list",
    request=ListObjects,
    response=Objects,
    right=_HOME,
    errors=(NotFound, StoreBusy),
    summary="List the objects of a bucket.",
    verb="data list",
)
REMOVE = Operation(
    name="data.remove",
    method="DELETE",
    path="/organization/data/bucket/{bucket}",
    request=AskObject,
    response=Removed,
    right=_HOME,
    errors=(NotFound, NotAllowed, InvalidSpec, StoreBusy),
    summary="Delete an object, or everything below a key that ends in `/`.",
    verb="data remove",
)
OBJECT = Operation(
    name="data.object",
    method="GET",
    path="/organization/data/object",
    request=AskObject,
    response=Object,
    right=_HOME,
    errors=(NotFound, InvalidSpec, StoreBusy),
    summary="Show an object's size, checksum and time.",
    verb="data show",
)
DOWNLOAD = Operation(
    name="data.download",
    method="GET",
    path="/organization/data/download",
    request=Download,
    response=Empty,
    right=_HOME,
    errors=(NotFound, InvalidSpec, StoreBusy),
    summary="Download an object.",
    download=True,
)
UPLOAD = Operation(
    name="data.upload",
    method="POST",
    path="/organization/data/upload",
    request=AskObject,
    response=Object,
    right=_HOME,
    errors=(NotFound, NotAllowed, InvalidSpec, StoreBusy),
    summary="Upload an object; it appears when it is complete.",
    upload=True,
)
LINK = Operation(
    name="data.link",
    method="POST",
    path="/organization/data/link",
    request=AskLink,
    response=Link,
    right=_HOME,
    errors=(NotFound, NotAllowed, InvalidSpec),
    summary="Make an address that gives or takes one object for 15 minutes at most.",
    verb="data link",
)
CREDENTIALS = Operation(
    name="data.credentials",
    method="POST",
    path="/organization/data/credentials",
    request=AskCredentials,
    response=Credentials,
    right=_HOME,
    errors=(Conflict,),
    summary="Get a short-lived S3 key to one's buckets.",
)
GRANTS = Operation(
    name="data.grants",
    method="GET",
    path="/organization/data/grant",
    request=AskBucket,
    response=Grants,
    right=_HOME,
    errors=(NotFound, NotAllowed),
    summary="List who may use a bucket.",
    verb="data grants",
)
ADD_GRANT = Operation(
    name="data.grant",
    method="POST",
    path="/organization/data/grant",
    request=AddGrant,
    response=Grant,
    right=_HOME,
    errors=(NotFound, NotAllowed),
    summary="Share a bucket with a user, a group or a project.",
    verb="data share",
    creates=True,
)
REMOVE_GRANT = Operation(
    name="data.revoke",
    method="DELETE",
    path="/organization/data/grant",
    request=RemoveGrant,
    response=Empty,
    right=_HOME,
    errors=(NotFound, NotAllowed),
    summary="Stop sharing a bucket with somebody.",
    verb="data unshare",
)
TRANSFERS = Operation(
    name="data.transfers",
    method="GET",
    path="/organization/data/transfers",
    request=Page,
    response=Transfers,
    right=_HOME,
    summary="List what was moved: one's own, or all of the organisation's for those who manage data.",
    verb="data transfers",
)

OPERATIONS = (
    BUCKETS, SIZE, ADD_BUCKET, REMOVE_BUCKET, ADD_FOLDER, LIST, REMOVE, OBJECT, DOWNLOAD, UPLOAD, LINK, CREDENTIALS,
    GRANTS, ADD_GRANT, REMOVE_GRANT, TRANSFERS,
)  # fmt: skip
