"""A platform's folder in a temporary place."""

from __future__ import annotations

from pathlib import Path

import pytest

from heroes_hub.home import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty folder for a platform; built environments are looked for below it, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Home(tmp_path / "home")
