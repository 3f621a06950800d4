"""The operator's commands where they refuse."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from heroes.api.errors import Conflict, Unavailable
from heroes_hub import backups, commands, operate
from heroes_hub.home import Home
from heroes_hub.settings import Api, Objects, Settings


def test_one_engine_on_sqlite(tmp_path: Path) -> None:
    """A second engine is refused where the store is SQLite, with the way out."""
    Home(tmp_path).prepare()
    result = CliRunner().invoke(commands.engine, ["--home", str(tmp_path)])
    assert isinstance(result.exception, Conflict)
    assert "store.url" in result.exception.hint


def test_a_strangers_api_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no supervisor runs the API does not answer, whoever else listens on its port."""
    home = Home(tmp_path)
    settings = home.prepare()
    monkeypatch.setattr(operate, "healthy", lambda settings: True)
    assert not operate.state(home, settings).healthy


def test_a_taken_port_names_the_file(tmp_path: Path) -> None:
    """Whoever meets a taken port reads which file to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(api=Api(port=port), objects=Objects(kind="s3", url="http://127.0.0.1:9"))
        with pytest.raises(Conflict, match=str(port)) as caught:
            operate.check_ports(settings, tmp_path / "heroes.toml")
    assert str(tmp_path / "heroes.toml") in caught.value.hint


@pytest.mark.parametrize("words", [[], ["--follow"]])
def test_logs_of_no_platform(tmp_path: Path, words: list[str]) -> None:
    """Where there is no platform there are no logs, and it is said."""
    result = CliRunner().invoke(commands.logs, ["--home", str(tmp_path), *words])
    assert isinstance(result.exception, Unavailable)
    assert str(tmp_path) in result.exception.message


def test_a_restored_platform_is_started_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told to start is what was restored, not the default folder."""
    monkeypatch.setattr(backups, "restore", lambda home, file: backups.Told())
    file = tmp_path / "backup.tar.gz"
    file.touch()
    result = CliRunner().invoke(commands.restore, [str(file), "--home", str(tmp_path / "other")])
    assert f"start it with `heroes up --home {tmp_path}/other`" in result.output
