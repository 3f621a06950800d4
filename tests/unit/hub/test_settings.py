"""The settings file: written with explanations, read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from heroes.api.errors import InvalidSpec
from heroes_hub.home import Home, default
from heroes_hub.settings import (
    Agreement,
    Api,
    MachineQueue,
    MachineSettings,
    Marketplace,
    Settings,
    load,
    text,
    write_first,
)


def test_the_first_file_holds_the_defaults(tmp_path: Path) -> None:
    """What is written at the first start reads back as the defaults, and is its owner's only."""
    path = tmp_path / "heroes.toml"
    write_first(path)
    assert load(path) == Settings()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_setting_is_explained() -> None:
    """Each setting of each section stands in the file, below or beside a sentence about it."""
    written = text(Settings())
    flat = " ".join(line.lstrip("# ") for line in written.splitlines())
    for section, about in Settings.model_fields.items():
        assert f"[{section}]" in written
        assert about.description
        for name, field in type(getattr(Settings(), section)).model_fields.items():
            assert f"\n{name} = " in written or f"{section}.{name}]" in written or name == "agreements", name
            assert field.description, f"{section}.{name} is not explained"
            assert field.description in flat


def test_other_settings_survive_the_file(tmp_path: Path) -> None:
    """Values with quotes, tables and lists of tables read back as they were."""
    queue = MachineQueue(name="one", share=0.25, per_core_hour="0.1")
    settings = Settings(
        api=Api(port=1234, url='https://a.example/"x"'),
        machine=MachineSettings(queues=(queue,), enabled=False),
        marketplace=Marketplace(agreements=(Agreement(organisation="acme", cluster="a"),), rates={"USD/EUR": "0.9"}),
    )
    path = tmp_path / "heroes.toml"
    write_first(path, settings)
    assert load(path) == settings


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """What an operator changed stays."""
    path = tmp_path / "heroes.toml"
    path.write_text("[api]\nport = 9000\n")
    write_first(path)
    assert load(path).api.port == 9000
    assert load(path).objects == Settings().objects


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[api]\nport = 99999\n", r"api\.port = 99999"),
        ("[api]\nprot = 1\n", r"api\.prot"),
        ("[objects]\nkind = 'ftp'\n", r"objects\.kind = 'ftp'"),
        ("[api\n", "not valid TOML"),
        ("[machine]\nqueues = [{name = 'a', share = 2.0}]\n", r"machine\.queues\.0\.share"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, written: str, said: str) -> None:
    """The error names the file, the setting and its value, and the way out."""
    path = tmp_path / "heroes.toml"
    path.write_text(written)
    with pytest.raises(InvalidSpec, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_secrets_are_made_once(home: Home) -> None:
    """A secret is 32 bytes, the same at each question, readable by its owner only, another one for each name."""
    home.prepare()
    assert home.secret("audit") == home.secret("audit") != home.secret("engine")
    assert len(home.secret("audit")) == 32
    assert (home.folder / "secrets" / "audit").stat().st_mode & 0o777 == 0o600


def test_others_pass_through_and_see_nothing(home: Home) -> None:
    """The folder admits others to where their jobs run; what the platform keeps is closed."""
    home.prepare()
    assert home.folder.stat().st_mode & 0o777 == 0o711
    for closed in (home.log, home.run, home.objects, home.store_file.parent, home.folder / "secrets"):
        assert closed.stat().st_mode & 0o077 == 0


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HEROES_HOME wins; root's is where other users can pass, anybody else's in their own data."""
    monkeypatch.setenv("HEROES_HOME", str(tmp_path))
    assert default().folder == tmp_path
    monkeypatch.delenv("HEROES_HOME")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default().folder == Path("/var/lib/heroes")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default().folder == Path("/data/heroes")
