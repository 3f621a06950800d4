"""Publish, find, list and withdraw templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from heroes.api import applications as api
from heroes.api.applications import Template
from heroes.api.errors import Conflict, NotAllowed, NotFound
from heroes_applications import store
from heroes_applications.catalogue import shipped_sources
from heroes_applications.documents import digest, read_template
from heroes_applications.values import near
from heroes_core.work import Caller, Work

#: The organisation that runs the platform; the shipped templates are its own, shared with everybody.
PLATFORM = "heroes"


@dataclass(frozen=True)
class Published:
    """One version of a template, read. `organisation` is the one that published it."""

    organisation: str
    name: str
    version: int
    digest: str
    template: Template


def find(work: Work, caller: Caller, name: str, version: int = 0) -> Published:
    """The version of a template that the caller may submit (0: the latest); one's own organisation's comes first."""
    row = _row(work, caller, name, version)
    return Published(row.organisation, row.name, row.version, row.digest, read_template(row.source))


def template(work: Work, caller: Caller, name: str, version: int | None = None) -> Template:
    """The template itself; NotFound where the caller may not see it, or it has no such version."""
    return find(work, caller, name, version or 0).template


def stored(work: Work, organisation: str, name: str, version: int) -> Template:
    """A version that a run was made of, withdrawn or not."""
    source = store.stored(work, organisation, name, version)
    if source is None:
        raise NotFound(f"There is no version {version} of {name} in {organisation}.", hint="List with `workflow list`.")
    return read_template(source)


def show(work: Work, caller: Caller, request: api.GetTemplate) -> api.TemplateText:
    """A version with its text."""
    return _text(_row(work, caller, request.workflow_template_id, request.version))


def listing(work: Work, caller: Caller, after: str, limit: int) -> api.Templates:
    """One page of what the caller may submit."""
    name, _, organisation = after.partition(" ")
    rows = store.page(work, caller.organisation, caller.user, (name, organisation), limit + 1)
    items = tuple(_info(row) for row in rows[:limit])
    last = items[-1] if len(rows) > limit else None
    return api.Templates(items=items, next=f"{last.name} {last.organisation}" if last else None)


def publish(work: Work, caller: Caller, request: api.PublishTemplate) -> api.TemplateText:
    """A new template, or the next version of one that the caller may change."""
    read = read_template(request.document)
    found = store.entry(work, caller.organisation, read.name)
    visibility = request.visibility or (found.visibility if found else "private")
    _allow(caller, read.name, visibility)
    if found is None:
        _make(work, caller, read.name, visibility)
    else:
        _allow_change(caller, found)
        store.change(work, caller.organisation, read.name, visibility=visibility)
    version = _add_version(work, caller.organisation, caller.actor, read, request.document)
    work.audit(caller.organisation, caller.actor, "workflow.publish", read.name, version=version, visibility=visibility)
    return _text(_row(work, caller, read.name, version))


def withdraw(work: Work, caller: Caller, name: str) -> None:
    """Nobody can submit it from now on, and its name is not given again."""
    found = store.entry(work, caller.organisation, name)
    hidden = found is not None and found.visibility == "private" and found.owner != caller.user
    if found is None or found.withdrawn_at or (hidden and "workflows:manage" not in caller.rights):
        raise _not_found(work, caller, name)
    _allow_change(caller, found)
    store.change(work, caller.organisation, name, withdrawn_at=work.now)
    work.audit(caller.organisation, caller.actor, "workflow.withdraw", name)


def install_shipped(work: Work) -> list[str]:
    """Publish what this release ships and the platform does not have yet; the names that got a new version."""
    news = []
    for source in shipped_sources():
        read = read_template(source)
        found = store.entry(work, PLATFORM, read.name)
        before = found.latest if found else 0
        if found is None:
            store.add(work, PLATFORM, read.name, PLATFORM, "shared")
        if _add_version(work, PLATFORM, PLATFORM, read, source) != before:
            work.audit(PLATFORM, PLATFORM, "workflow.publish", read.name, version=before + 1, visibility="shared")
            news.append(read.name)
    return news


def _add_version(work: Work, organisation: str, author: str, read: Template, source: str) -> int:
    """The version that this text is: a new one, unless it is the latest one's very text."""
    found = store.entry(work, organisation, read.name)
    latest = found.latest if found else 0
    if latest and store.stored(work, organisation, read.name, latest) == source:
        return latest
    store.add_version(
        work, organisation, read.name, latest + 1,
        digest=digest(source), title=read.title, summary=read.summary, source=source, published_by=author,
    )  # fmt: skip
    return latest + 1


def _allow(caller: Caller, name: str, visibility: str) -> None:
    """A private template needs `submit`, sharing in the organisation `workflows:manage`; sharing with every
    organisation also that one may publish applications, or runs the platform."""
    needed = {"private": "submit"}.get(visibility, "workflows:manage")
    if needed in caller.rights and visibility == "shared" and not caller.platform:
        needed = "applications:publish"
    if needed not in caller.rights:
        raise NotAllowed(
            f"A template of visibility {visibility!r} needs the right {needed}, which {caller.user} does not have.",
            hint=f"Publish {name} as private, or ask an administrator to share it.",
            detail={"needs": [needed]},
        )


def _allow_change(caller: Caller, found: store.Entry) -> None:
    if found.withdrawn_at is not None:
        raise Conflict(f"{found.name} was withdrawn; its name is not given again.", hint="Choose another name.")
    if found.visibility == "private" and found.owner != caller.user and "workflows:manage" not in caller.rights:
        raise Conflict(f"The name {found.name} is taken in {caller.organisation}.", hint="Choose another name.")
    if found.visibility != "private":
        _allow(caller, found.name, found.visibility)


def _make(work: Work, caller: Caller, name: str, visibility: str) -> None:
    taken = store.shared_elsewhere(work, caller.organisation, name)
    if taken or not store.add(work, caller.organisation, name, caller.user, visibility):
        raise Conflict(f"The name {name} is taken.", hint="Choose another name for the template.")


def _row(work: Work, caller: Caller, name: str, version: int) -> sa.Row[Any]:
    rows = store.find(work, caller.organisation, caller.user, name, version)
    if not rows:
        raise _not_found(work, caller, name, version)
    return min(rows, key=lambda row: row.organisation != caller.organisation)


def _not_found(work: Work, caller: Caller, name: str, version: int = 0) -> NotFound:
    known = store.visible_names(work, caller.organisation, caller.user)
    if version and name in known:
        return NotFound(f"{name} has no version {version}.", hint="See the versions with `heroes workflow show`.")
    return NotFound(f"There is no workflow {name!r}.", hint=near(name, known, "The workflows are"))


def _info(row: sa.Row[Any]) -> api.TemplateInfo:
    fields = ("name", "title", "summary", "version", "visibility", "organisation", "owner", "published_at")
    return api.TemplateInfo(**{field: getattr(row, field) for field in fields})


def _text(row: sa.Row[Any]) -> api.TemplateText:
    read = read_template(row.source)
    return api.TemplateText(info=_info(row), latest=row.latest, digest=row.digest, template=read, source=row.source)
