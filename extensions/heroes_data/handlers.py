"""Binds the operations of `heroes.api.data`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from heroes.api import data as api
from heroes.api.errors import Conflict, HeroesError, StoreBusy, Unavailable
from heroes.api.model import Empty, Page
from heroes_core.http import Download
from heroes_core.module import Call, Module
from heroes_data import service, store
from heroes_data.embedded import EmbeddedServer
from heroes_data.errands import objects_below
from heroes_data.model import FOLDER_MARK, ObjectInfo, check_key, check_prefix
from heroes_data.ports import ObjectStore
from heroes_data.store import Movement

MODULE = Module("data", api.OPERATIONS)


@dataclass
class Data:
    """What the operations need beside the database: the object store, and who issues keys to it, if anybody."""

    objects: ObjectStore
    keys: EmbeddedServer | None = None


@MODULE.bind(api.BUCKETS)
def buckets(call: Call, request: Page) -> api.Buckets:
    """List the buckets that one can see."""
    with call.read() as work:
        found = service.buckets(work, call.caller, request.after, request.limit)
    items = tuple(_bucket(each) for each in found)
    return api.Buckets(items=items, next=items[-1].name if len(items) == request.limit else None)


@MODULE.bind(api.SIZE)
def size(call: Call, request: api.AskSize) -> api.Size:
    """Add up what a bucket holds."""
    _open(call, request.bucket)
    below = objects_below(_objects(call), call.caller.organisation, request.bucket, request.prefix)
    total = sum(each.size for each in below)
    return api.Size(bucket=request.bucket, prefix=request.prefix, bytes=total, objects=len(below))


@MODULE.bind(api.ADD_BUCKET)
def add_bucket(call: Call, request: api.AddBucket) -> api.Bucket:
    """Make a bucket to share."""
    with call.read() as work:
        service.check_free(work, call.caller, request.bucket)
    _objects(call).make_bucket(call.caller.organisation, request.bucket)
    with call.write() as work:
        return _bucket(service.add_bucket(work, call.caller, request.bucket))


@MODULE.bind(api.REMOVE_BUCKET)
def remove_bucket(call: Call, request: api.AskBucket) -> Empty:
    """Delete an empty bucket."""
    with call.read() as work:
        found = service.owned(work, call.caller, request.bucket)
    if found.made:
        _objects(call).remove_bucket(call.caller.organisation, request.bucket)
        with call.write() as work:
            service.remove_bucket(work, call.caller, request.bucket)
    return Empty()


@MODULE.bind(api.ADD_FOLDER)
def add_folder(call: Call, request: api.AddFolder) -> api.Object:
    """Make a folder: an empty object in it keeps it."""
    folder = check_prefix(request.folder).rstrip("/")
    _open(call, request.bucket, write=True)
    _objects(call).put(call.caller.organisation, request.bucket, f"{folder}/{FOLDER_MARK}", [])
    return api.Object(key=f"{folder}/", size=0, etag="", modified=None)


@MODULE.bind(api.LIST)
def list_objects(call: Call, request: api.ListObjects) -> api.Objects:
    """List the objects of a bucket, folder by folder or all below."""
    _open(call, request.bucket)
    page = _objects(call).listing(
        call.caller.organisation, request.bucket, request.prefix, after=request.after, limit=request.limit,
        flat=request.recursive,
    )  # fmt: skip
    found = [_object(each) for each in page.objects if each.key.rpartition("/")[2] != FOLDER_MARK]
    found += [api.Object(key=folder, size=0, etag="", modified=None) for folder in page.folders]
    return api.Objects(items=tuple(sorted(found, key=lambda each: each.key)), next=page.next)


@MODULE.bind(api.REMOVE)
def remove(call: Call, request: api.AskObject) -> api.Removed:
    """Delete an object, or everything below a key that ends in a slash."""
    organisation, objects = call.caller.organisation, _objects(call)
    check_prefix(request.key)
    _open(call, request.bucket, write=True)
    if request.key.endswith("/"):
        keys = [each.key for each in objects_below(objects, organisation, request.bucket, request.key)]
        objects.delete(organisation, request.bucket, request.key + FOLDER_MARK)
    else:
        keys = [objects.stat(organisation, request.bucket, request.key).key]
    for key in keys:
        objects.delete(organisation, request.bucket, key)
    with call.write() as work:
        work.audit(organisation, call.caller.actor, "data.remove", _named(request.bucket, request.key), count=len(keys))
    return api.Removed(objects=len(keys))


@MODULE.bind(api.OBJECT)
def show(call: Call, request: api.AskObject) -> api.Object:
    """Show an object."""
    _open(call, request.bucket)
    return _object(_objects(call).stat(call.caller.organisation, request.bucket, check_key(request.key)))


@MODULE.bind(api.DOWNLOAD)
def download(call: Call, request: api.Download) -> Download:
    """Stream an object; it is logged when the stream ends, however it does."""
    _open(call, request.bucket)
    organisation, objects = call.caller.organisation, _objects(call)
    found = objects.stat(organisation, request.bucket, check_key(request.key))
    parts = objects.get(organisation, request.bucket, request.key, offset=request.offset, length=request.length)
    left = max(0, found.size - request.offset)
    expected = left if request.length is None else min(left, request.length)
    name = request.key.rpartition("/")[2]
    return Download(_counted(call, request.bucket, request.key, parts, expected), name=name, size=expected)


@MODULE.bind(api.UPLOAD)
def upload(call: Call, request: api.AskObject) -> api.Object:
    """Store what comes. Its bytes come once, so nobody may try this again with what is left of them."""
    check_key(request.key)
    parts, call.upload = call.upload, None
    if parts is None:
        raise Unavailable("The upload broke off.", hint="Send it again, from its beginning.")
    _open(call, request.bucket, write=True)
    began = time.perf_counter()
    try:
        stored = _objects(call).put(call.caller.organisation, request.bucket, request.key, parts)
    except HeroesError as error:
        _log(call, "upload", request.bucket, request.key, 0, began, f"failed: {type(error).__name__}")
        if isinstance(error, StoreBusy):
            raise Unavailable(error.message, hint="Send it again, from its beginning.") from error
        raise
    _log(call, "upload", request.bucket, request.key, stored.size, began)
    return _object(stored)


@MODULE.bind(api.LINK)
def link(call: Call, request: api.AskLink) -> api.Link:
    """Sign an address for one object and one method."""
    check_key(request.key)
    _open(call, request.bucket, write=request.method == "PUT")
    organisation, objects = call.caller.organisation, _objects(call)
    if request.method == "GET":
        objects.stat(organisation, request.bucket, request.key)
    now = call.database.clock.now()
    url = objects.sign(organisation, request.bucket, request.key, request.method, request.seconds, now)
    _log(call, "link", request.bucket, request.key, 0, time.perf_counter(), request.method)
    return api.Link(url=url, method=request.method, expires_at=now + timedelta(seconds=request.seconds))


@MODULE.bind(api.CREDENTIALS)
def credentials(call: Call, request: api.AskCredentials) -> api.Credentials:
    """Issue a short-lived key to one's own bucket and those granted."""
    keys = call.service(Data).keys
    if keys is None:
        raise Conflict(
            "The object store of this platform gives no keys to users.",
            hint="Use upload, download and signed addresses.",
        )
    if "data:home" in call.caller.rights:
        _open(call, call.caller.user)
    with call.read() as work:
        opened = service.openable(work, call.caller)
    life = timedelta(seconds=request.seconds)
    key = keys.issue(call.caller.organisation, opened, call.database.clock.now(), life)
    with call.write() as work:
        work.audit(
            call.caller.organisation, call.caller.actor, "data.credentials", call.caller.user,
            key=key.account.access_key, buckets=list(key.buckets), seconds=request.seconds,
        )  # fmt: skip
    return api.Credentials(
        endpoint=key.account.public or key.account.endpoint, region=key.account.region,
        access_key=key.account.access_key, secret_key=key.account.secret_key, buckets=key.buckets,
        expires_at=key.expires_at,
    )  # fmt: skip


@MODULE.bind(api.GRANTS)
def grants(call: Call, request: api.AskBucket) -> api.Grants:
    """List who may use a bucket."""
    with call.read() as work:
        rows = service.grants(work, call.caller, request.bucket)
    found = [api.Grant(bucket=row.bucket, kind=row.kind, name=row.grantee, writable=row.writable) for row in rows]
    return api.Grants(items=tuple(found))


@MODULE.bind(api.ADD_GRANT)
def add_grant(call: Call, request: api.AddGrant) -> api.Grant:
    """Share a bucket."""
    with call.write() as work:
        service.add_grant(work, call.caller, request.bucket, request.kind, request.name, request.writable)
    return api.Grant(bucket=request.bucket, kind=request.kind, name=request.name, writable=request.writable)


@MODULE.bind(api.REMOVE_GRANT)
def remove_grant(call: Call, request: api.RemoveGrant) -> Empty:
    """Stop sharing a bucket."""
    with call.write() as work:
        service.remove_grant(work, call.caller, request.bucket, request.kind, request.name)
    return Empty()


@MODULE.bind(api.TRANSFERS)
def transfers(call: Call, request: Page) -> api.Transfers:
    """List what was moved."""
    with call.read() as work:
        rows = service.transfers(work, call.caller, request.after, request.limit)
    items = tuple(
        api.Transfer(
            id=str(row.id), at=row.at, user=row.user, direction=row.direction, bucket=row.bucket, key=row.key,
            cluster=row.cluster, objects=row.objects, bytes=row.bytes, seconds=row.seconds, outcome=row.outcome,
        )
        for row in rows
    )  # fmt: skip
    return api.Transfers(items=items, next=items[-1].id if len(items) == request.limit else None)


def _objects(call: Call) -> ObjectStore:
    return call.service(Data).objects


def _open(call: Call, bucket: str, *, write: bool = False) -> None:
    """NotFound or NotAllowed unless the caller may use the bucket; one's own is made at its first use."""
    with call.read() as work:
        found = service.reach(work, call.caller, bucket, write=write)
    if not found.made:
        _objects(call).make_bucket(call.caller.organisation, bucket)
        with call.write() as work:
            service.add_home(work, call.caller)


def _counted(call: Call, bucket: str, key: str, parts: Iterator[bytes], expected: int) -> Iterator[bytes]:
    began, sent = time.perf_counter(), 0
    try:
        for part in parts:
            sent += len(part)
            yield part
    finally:
        _log(call, "download", bucket, key, sent, began, "done" if sent == expected else "cut off")


def _log(call: Call, direction: str, bucket: str, key: str, moved: int, began: float, outcome: str = "done") -> None:
    caller, seconds = call.caller, time.perf_counter() - began
    movement = Movement(
        caller.organisation, caller.user, direction, bucket, key, bytes=moved, seconds=seconds, outcome=outcome
    )
    with call.database.write() as work:
        store.log(work, movement)


def _named(bucket: str, key: str) -> str:
    """As audit records name an object: bounded."""
    return f"{bucket}/{key}"[:200]


def _bucket(found: service.Reach) -> api.Bucket:
    return api.Bucket(name=found.bucket, owner=found.owner, writable=found.writable, created_at=found.created_at)


def _object(found: ObjectInfo) -> api.Object:
    return api.Object(key=found.key, size=found.size, etag=found.etag, modified=found.modified)
