"""Who may do what with which bucket, what is logged, and what other modules ask about objects.

Functions that take `work` touch the database only, those that take `objects` the object store only: no transaction
spans IO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes_core.work import Caller, Work
from heroes_data import store
from heroes_data.errands import objects_below
from heroes_data.model import FOLDER_MARK, ObjectInfo, ObjectPage, ObjectRef, check_prefix, folder_etag
from heroes_data.ports import ObjectStore
from heroes_identity import service as identity


@dataclass(frozen=True)
class Reach:
    """A bucket as a caller sees it. `made`: it is there; a home bucket is made at its first use."""

    bucket: str
    owner: str
    writable: bool
    created_at: datetime
    made: bool = True


# what other modules ask


def object_info(objects: ObjectStore, organisation: str, bucket: str, key: str) -> ObjectRef:
    """An object, or all objects below a key that ends in `/`, as they are now: etag and size in bytes. NotFound."""
    check_prefix(key)
    try:
        if not key.endswith("/"):
            found = objects.stat(organisation, bucket, key)
            return ObjectRef(bucket, key, found.etag, found.size)
        below = objects_below(objects, organisation, bucket, key)
    except NotFound:  # an object of this name, or the bucket: one's own is made when it is first written to
        below = []
    if not below:
        hint = "Upload it, or look for it with `heroes data list`."
        raise NotFound(f"There is no object {bucket}/{key}.", hint=hint)
    return ObjectRef(bucket, key, folder_etag(below), sum(each.size for each in below))


def results(
    objects: ObjectStore, organisation: str, bucket: str, prefix: str, after: str = "", limit: int = 500
) -> ObjectPage:
    """The objects below a prefix in order of key, without marks that keep folders; none where there is no bucket."""
    try:
        page = objects.listing(organisation, bucket, prefix, after=after, limit=limit)
    except NotFound:
        return ObjectPage(())
    return ObjectPage(tuple(each for each in page.objects if not _is_mark(each)), (), page.next)


def check_readable(work: Work, caller: Caller, bucket: str) -> None:
    """NotFound unless the caller may read the bucket."""
    reach(work, caller, bucket)


def bandwidth(work: Work, cluster: str) -> dict[str, float]:
    """Measured bytes a second to ("stage-in") and from ("stage-out") a cluster; what was never measured is absent."""
    return store.links(work, cluster)


# who may do what


def reach(work: Work, caller: Caller, bucket: str, *, write: bool = False) -> Reach:
    """The bucket, if the caller may read it, or write to it; NotFound for what is not to be seen, else NotAllowed."""
    found = _reach(work, caller, bucket)
    if found is None:
        raise NotFound(f"There is no bucket {bucket} that you can see.", hint=_other_bucket(bucket))
    if write and not found.writable:
        raise NotAllowed(
            f"You may read the bucket {bucket}, not write to it.", hint=f"Ask {found.owner} to share it for writing."
        )
    return found


def _other_bucket(bucket: str) -> str:
    name, slash, below = bucket.partition("/")
    if not slash:
        return "List yours: heroes data buckets."
    return f"A bucket has no slash. What is below: heroes data list {name} --prefix {below}"


def _reach(work: Work, caller: Caller, bucket: str) -> Reach | None:
    row = store.get_bucket(work, caller.organisation, bucket)
    if row is None:
        mine = bucket == caller.user and "data:home" in caller.rights
        return Reach(bucket, bucket, True, work.now, made=False) if mine else None
    if "data:manage" in caller.rights or row.owner == caller.user:
        return Reach(bucket, row.owner, True, row.created_at)
    granted = _granted(work, caller).get(bucket)
    return None if granted is None else Reach(bucket, row.owner, granted, row.created_at)


def _granted(work: Work, caller: Caller) -> dict[str, bool]:
    organisation, user = caller.organisation, caller.user
    grantees = [("user", user)]
    grantees += [("group", name) for name in identity.groups_of(work, organisation, user)]
    grantees += [("project", name) for name in identity.projects_of(work, organisation, user)]
    return store.grants_to(work, organisation, grantees)


def buckets(work: Work, caller: Caller, after: str, limit: int) -> list[Reach]:
    """The buckets that the caller can see, in order of name; one's own among them though it be not made yet."""
    granted = {} if "data:manage" in caller.rights else _granted(work, caller)
    mine: list[sa.ColumnElement[bool]] = []
    if "data:manage" not in caller.rights:
        mine = [sa.or_(store.bucket.c.owner == caller.user, store.bucket.c.name.in_(list(granted)))]
    rows = store.list_buckets(work, caller.organisation, after, limit, *mine)
    found = [Reach(row.name, row.owner, granted.get(row.name, True), row.created_at) for row in rows]
    found = [_owned(each, caller) for each in found]
    home = _reach(work, caller, caller.user)
    if home is not None and not home.made and home.bucket > after:
        found = sorted([*found, home], key=lambda each: each.bucket)[:limit]
    return found


def _owned(each: Reach, caller: Caller) -> Reach:
    writable = each.writable or each.owner == caller.user
    return Reach(each.bucket, each.owner, writable, each.created_at)


def openable(work: Work, caller: Caller) -> dict[str, bool]:
    """The buckets that a user's own key opens, and whether for writing: one's own and those granted; not all that
    someone who manages data could see."""
    rows = store.list_buckets(work, caller.organisation, "", 10_000, store.bucket.c.owner == caller.user)
    return {**_granted(work, caller), **{row.name: True for row in rows}}


# changes


def add_home(work: Work, caller: Caller) -> None:
    """Store the caller's own bucket, which has just been made."""
    store.add_bucket(work, caller.organisation, caller.user, caller.user)


def check_free(work: Work, caller: Caller, bucket: str) -> None:
    """Conflict when the name is another's bucket, or a user's: it is kept for the user's own."""
    row = store.get_bucket(work, caller.organisation, bucket)
    owner = row.owner if row else None
    users = bucket != caller.user and identity.was_user(work, caller.organisation, bucket)
    if owner not in (None, caller.user) or (owner is None and users):
        raise Conflict(f"The name {bucket} is taken.", hint="Choose another name for the bucket.")


def add_bucket(work: Work, caller: Caller, bucket: str) -> Reach:
    """Store a bucket that has just been made; one's own again is no error."""
    check_free(work, caller, bucket)
    if store.add_bucket(work, caller.organisation, bucket, caller.user):
        work.audit(caller.organisation, caller.actor, "data.add-bucket", bucket)
    return reach(work, caller, bucket)


def remove_bucket(work: Work, caller: Caller, bucket: str) -> None:
    """Forget a bucket that has just been deleted, with its grants."""
    store.remove_bucket(work, caller.organisation, bucket)
    work.audit(caller.organisation, caller.actor, "data.remove-bucket", bucket)


def owned(work: Work, caller: Caller, bucket: str) -> Reach:
    """The bucket, if it is the caller's or the caller manages all; NotAllowed."""
    found = reach(work, caller, bucket)
    if found.owner != caller.user and "data:manage" not in caller.rights:
        raise NotAllowed(f"The bucket {bucket} is {found.owner}'s.", hint=f"Ask {found.owner}.")
    return found


def grants(work: Work, caller: Caller, bucket: str) -> Sequence[sa.Row[Any]]:
    """Who may use a bucket of one's own."""
    owned(work, caller, bucket)
    return store.grants_of(work, caller.organisation, bucket)


def add_grant(work: Work, caller: Caller, bucket: str, kind: str, name: str, writable: bool) -> None:
    """Share a bucket of one's own with somebody who exists."""
    found = owned(work, caller, bucket)
    if not found.made:
        store.add_bucket(work, caller.organisation, bucket, caller.user)
    {"user": identity.user, "group": identity.group, "project": identity.project}[kind](work, caller.organisation, name)
    store.set_grant(work, caller.organisation, bucket, kind, name, writable)
    work.audit(caller.organisation, caller.actor, "data.grant", bucket, kind=kind, name=name, writable=writable)


def remove_grant(work: Work, caller: Caller, bucket: str, kind: str, name: str) -> None:
    """Take a grant back; NotFound when there was none."""
    owned(work, caller, bucket)
    if not store.remove_grant(work, caller.organisation, bucket, kind, name):
        raise NotFound(f"{bucket} is not shared with the {kind} {name}.", hint="List grants: heroes data grants.")
    work.audit(caller.organisation, caller.actor, "data.revoke", bucket, kind=kind, name=name)


def transfers(work: Work, caller: Caller, before: str, limit: int) -> Sequence[sa.Row[Any]]:
    """The log, newest first: one's own, or all for those who manage data."""
    if before and not (before.isdecimal() and len(before) <= 18):
        raise InvalidSpec(f"after: {before!r} is no cursor of this list.", hint="Use `next` of the page before.")
    user = None if "data:manage" in caller.rights else caller.user
    return store.list_transfers(work, caller.organisation, user, int(before or 0), limit)


def _is_mark(each: ObjectInfo) -> bool:
    return each.key.rpartition("/")[2] == FOLDER_MARK
