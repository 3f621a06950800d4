"""The platform's folder: settings, secrets, store, objects, logs. Everything that it owns is below it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from heroes_core.work import Database
from heroes_hub.settings import Settings, load, write_first


@dataclass(frozen=True)
class Home:
    """The folder, and where things are in it."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        """The commented settings."""
        return self.folder / "heroes.toml"

    @property
    def log(self) -> Path:
        """One file for each process."""
        return self.folder / "log"

    @property
    def run(self) -> Path:
        """Locks, sockets and what the supervisor tells of itself."""
        return self.folder / "run"

    @property
    def store_file(self) -> Path:
        """SQLite's file, where no other store is named."""
        return self.folder / "store" / "heroes.sqlite"

    @property
    def objects(self) -> Path:
        """The embedded S3 server's files and keys."""
        return self.folder / "objects"

    @property
    def machine(self) -> Path:
        """The base directory of this machine as a cluster."""
        return self.folder / "machine"

    @property
    def cache(self) -> Path:
        """Built environments."""
        return cache()

    @property
    def first_administrator(self) -> Path:
        """Name and password of the first administrator, until somebody deletes the file."""
        return self.folder / "first-administrator.txt"

    def prepare(self, settings: Settings | None = None) -> Settings:
        """Make the folder and, the first time, its settings (`settings`, else the defaults); the settings. Others may
        pass through to where their jobs run, and see nothing on the way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        for each in (self.log, self.run, self.store_file.parent, self.objects, self.folder / "secrets"):
            each.mkdir(mode=0o700, exist_ok=True)
        self.machine.mkdir(mode=0o711, exist_ok=True)
        write_first(self.settings_file, settings)
        return load(self.settings_file)

    def secret(self, name: str) -> bytes:
        """A secret of 32 random bytes, made at the first question and kept for its owner only."""
        path = self.folder / "secrets" / name
        if not path.exists():
            part = path.with_name(f".{name}.{os.getpid()}")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(part, path)
            except FileExistsError:
                pass
            finally:
                part.unlink()
        return bytes.fromhex(path.read_text())

    def database(self, settings: Settings, pool_size: int = 10) -> Database:
        """The store that the settings name."""
        url = settings.store.url or f"sqlite:///{self.store_file}"
        return Database(url, audit_key=self.secret("audit"), pool_size=pool_size)


def cache() -> Path:
    """Where built environments are kept, for all platforms of this user; may be deleted."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "heroes" / "environments"


def default() -> Home:
    """HEROES_HOME; else /var/lib/heroes for root, whose own folder other users cannot pass, and
    ~/.local/share/heroes for anybody else."""
    named = os.environ.get("HEROES_HOME")
    if named:
        return Home(Path(named).absolute())
    if os.geteuid() == 0:
        return Home(Path("/var/lib/heroes"))
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Home(Path(data) / "heroes")
