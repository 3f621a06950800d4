"""Structured logs in Elastic Common Schema: one JSON object a line, with who and what it is about as labels.

with labels(organisation="acme", workflow="01J…"):
    log.info("submitted")
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import ecs_logging

#: The labels that a line may carry; names as in ECS `labels.*`.
LABELS = ("request", "user", "organisation", "project", "workflow", "job", "step", "cluster", "operation")
_current: ContextVar[Mapping[str, str]] = ContextVar("labels", default=MappingProxyType({}))
#: No user-given text is longer in a line than this.
_LONGEST = 200


@contextmanager
def labels(**more: str | None) -> Iterator[None]:
    """Put labels on every line logged in this block; empty ones are left out."""
    told = {name: str(value)[:_LONGEST] for name, value in more.items() if value}
    token = _current.set({**_current.get(), **told})
    try:
        yield
    finally:
        _current.reset(token)


class _Labelled(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        held = _current.get()
        if held:
            record.labels = {**held, **getattr(record, "labels", {})}
        return True


def set_up(service: str, level: int = logging.INFO, stream: Any = None) -> None:
    """Log this process's lines to `stream` (standard error) as `service.name`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(ecs_logging.StdlibFormatter(extra={"service": {"name": service}}, exclude_fields=["process"]))
    handler.addFilter(_Labelled())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("paramiko", "tornado.access", "botocore", "urllib3", "asyncio", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
