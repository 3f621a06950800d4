"""Templates and their versions. A version is written once and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from heroes_core.store import Instant, metadata, name_column
from heroes_core.work import Work

template = sa.Table(
    "template",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("name", primary_key=True),
    name_column("owner"),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("latest", sa.Integer, nullable=False),
    sa.Column("withdrawn_at", Instant),
    sa.Index(None, "visibility", "name"),
)

template_version = sa.Table(
    "template_version",
    metadata,
    name_column("organisation", primary_key=True),
    name_column("name", primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("title", sa.String(100), nullable=False),
    sa.Column("summary", sa.String(300), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("published_by", sa.String(200), nullable=False),
    sa.Column("published_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Entry:
    """A template without its text."""

    organisation: str
    name: str
    owner: str
    visibility: str
    latest: int
    withdrawn_at: datetime | None


def _visible(organisation: str, user: str) -> sa.ColumnElement[bool]:
    ours = sa.and_(
        template.c.organisation == organisation,
        sa.or_(template.c.visibility != "private", template.c.owner == user),
    )
    return sa.and_(template.c.withdrawn_at.is_(None), sa.or_(ours, template.c.visibility == "shared"))


_OF_VERSION = sa.and_(
    template_version.c.organisation == template.c.organisation, template_version.c.name == template.c.name
)
_SHOWN = (
    template.c.organisation,
    template.c.name,
    template.c.owner,
    template.c.visibility,
    template.c.latest,
    template_version.c.version,
    template_version.c.digest,
    template_version.c.title,
    template_version.c.summary,
    template_version.c.published_at,
)


def entry(work: Work, organisation: str, name: str) -> Entry | None:
    """The organisation's own template of that name, withdrawn ones too, locked for change."""
    where = sa.and_(template.c.organisation == organisation, template.c.name == name)
    row = work.execute(sa.select(template).where(where).with_for_update()).one_or_none()
    return Entry(**row._mapping) if row else None


def find(work: Work, organisation: str, user: str, name: str, version: int) -> Sequence[sa.Row[Any]]:
    """The versions of that name that the user may see, with their text: one for each organisation that has it."""
    wanted = template_version.c.version == (version or template.c.latest)
    query = sa.select(*_SHOWN, template_version.c.source).join(template_version, sa.and_(_OF_VERSION, wanted))
    return work.execute(query.where(template.c.name == name, _visible(organisation, user))).all()


def stored(work: Work, organisation: str, name: str, version: int) -> str | None:
    """The text of a version, whoever may see it."""
    key = sa.and_(
        template_version.c.organisation == organisation,
        template_version.c.name == name,
        template_version.c.version == version,
    )
    return work.execute(sa.select(template_version.c.source).where(key)).scalar_one_or_none()


def page(work: Work, organisation: str, user: str, after: tuple[str, str], limit: int) -> Sequence[sa.Row[Any]]:
    """The visible templates after (name, organisation), latest versions, by name."""
    latest = template_version.c.version == template.c.latest
    beyond = sa.tuple_(template.c.name, template.c.organisation) > after
    return work.execute(
        sa.select(*_SHOWN)
        .join(template_version, sa.and_(_OF_VERSION, latest))
        .where(_visible(organisation, user), beyond)
        .order_by(template.c.name, template.c.organisation)
        .limit(limit)
    ).all()


def visible_names(work: Work, organisation: str, user: str) -> list[str]:
    """What the user may choose from, for a hint; at most 1000."""
    query = sa.select(template.c.name).where(_visible(organisation, user)).limit(1000)
    return list(work.execute(query).scalars())


def shared_elsewhere(work: Work, organisation: str, name: str) -> bool:
    """Whether another organisation shares a template of that name with everybody."""
    query = sa.select(template.c.name).where(
        template.c.name == name, template.c.visibility == "shared", template.c.organisation != organisation
    )
    return work.execute(query).first() is not None


def add(work: Work, organisation: str, name: str, owner: str, visibility: str) -> bool:
    """A new template without versions; False where somebody was first."""
    row = {"organisation": organisation, "name": name, "owner": owner, "visibility": visibility, "latest": 0}
    try:
        with work.connection.begin_nested():
            work.execute(sa.insert(template).values(row))
    except sa.exc.IntegrityError:
        return False
    return True


def add_version(work: Work, organisation: str, name: str, version: int, **columns: Any) -> None:
    """Version `version` of a template, now its latest."""
    row = {"organisation": organisation, "name": name, "version": version, "published_at": work.now, **columns}
    work.execute(sa.insert(template_version).values(row))
    change(work, organisation, name, latest=version)


def change(work: Work, organisation: str, name: str, **columns: Any) -> None:
    """Set columns of a template."""
    where = sa.and_(template.c.organisation == organisation, template.c.name == name)
    work.execute(sa.update(template).where(where).values(columns))
