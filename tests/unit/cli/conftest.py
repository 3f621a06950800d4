"""The command line against a fake API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heroes.cli.app import run
from tests.unit.client.conftest import prepare
from tests.unit.client.fake_api import FakeApi, serving


@dataclass(frozen=True)
class Said:
    """How a command line ended, and what it printed."""

    status: int
    out: str
    err: str


Heroes = Callable[..., Said]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fake API on a free port."""
    with serving() as found:
        prepare(found)
        yield found


@pytest.fixture
def heroes(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Heroes:
    """Run `heroes` with some words, signed in to the fake API."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HEROES_API_URL", api.url)
    monkeypatch.setenv("HEROES_TOKEN", "token")
    monkeypatch.delenv("HEROES_OUTPUT", raising=False)
    monkeypatch.setattr("heroes.transport.TRIES", 1)

    def call(*words: str) -> Said:
        status = run(words)
        printed = capsys.readouterr()
        return Said(status, printed.out, printed.err)

    return call
