"""A fake API, and HEROES connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import heroes
from tests.unit.client import samples
from tests.unit.client.fake_api import FakeApi, serving


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fake API on a free port."""
    with serving() as found:
        yield found


@pytest.fixture
def hs(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[heroes.Heroes]:
    """HEROES as Ada sees it; one workflow is on offer, and it has been decided where it can run."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    prepare(api)
    with heroes.connect(api.url, "token") as connected:
        yield connected


def prepare(api: FakeApi) -> None:
    """Answers that nearly everything needs."""
    api.on("GET", "/organization/auth/me", samples.me())
    api.on("GET", "/organization/workflow/template", samples.templates())
    api.on("GET", "/organization/workflow/template/cavity", samples.template_text())
    api.on("POST", "/organization/decision/decide", samples.decided())
    api.on("POST", "/organization/workflow/submit", samples.instance("waiting"))
    api.on("GET", "/organization/data/list", samples.buckets())
