"""Small files that jobs bring along (scripts of a template): kept once by their digest, however many jobs name them.

`JobSpec.files` names them; the engine loads them into `site.Job.files` when it submits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import sqlalchemy as sa

from heroes_core.store import metadata, name_column
from heroes_core.work import Work

job_file = sa.Table(
    "job_file",
    metadata,
    name_column("digest", primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)


def keep(work: Work, files: Iterable[tuple[str, bytes]]) -> tuple[tuple[str, str], ...]:
    """Store what is not stored yet; the (name, digest) pairs for `JobSpec.files`."""
    named = [(name, hashlib.sha256(content).hexdigest(), content) for name, content in files]
    wanted = {digest: content for _, digest, content in named}
    known = set(work.execute(sa.select(job_file.c.digest).where(job_file.c.digest.in_(wanted))).scalars())
    for digest in sorted(wanted.keys() - known):
        try:
            with work.connection.begin_nested():
                work.execute(sa.insert(job_file).values(digest=digest, content=wanted[digest]))
        except sa.exc.IntegrityError:  # another transaction stored the same content meanwhile
            continue
    return tuple((name, digest) for name, digest, _ in named)


def contents(work: Work, digests: Iterable[str]) -> dict[str, bytes]:
    """The content of each digest."""
    query = sa.select(job_file.c.digest, job_file.c.content).where(job_file.c.digest.in_(set(digests)))
    return {row.digest: row.content for row in work.execute(query)}
