"""Where the platform is and who asks: `HEROES_API_URL` and `HEROES_TOKEN`, else what `heroes login` kept.

The file is `$XDG_CONFIG_HOME/heroes/credentials.json` (`~/.config/…`), readable by its owner only.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from heroes.api.errors import NotSignedIn, Refused

#: Where `heroes up` and `make demo` listen when nothing else is said.
DEFAULT_URL = "http://127.0.0.1:8600"


@dataclass(frozen=True)
class Credentials:
    """The address of the API, and a token ("" when nobody is signed in). The token is not shown."""

    url: str
    token: str = ""
    organisation: str = ""
    user: str = ""

    def __repr__(self) -> str:
        return f"Credentials(url={self.url!r}, user={self.user!r}, organisation={self.organisation!r})"


def file() -> Path:
    """Where credentials are kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "heroes" / "credentials.json"


def save(credentials: Credentials) -> None:
    """Keep credentials in a file that only its owner can read."""
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(asdict(credentials), stream)
    fresh.replace(path)


def forget() -> bool:
    """Forget the token that was kept, but not where the platform is; whether there was one."""
    kept = stored()
    if kept is None or not kept.token:
        return False
    save(Credentials(kept.url))
    return True


def stored() -> Credentials | None:
    """What was kept; Refused when others could have read or written it, or when it is damaged."""
    path = file()
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise Refused(f"{path} can be read by others (mode {mode & 0o777:o}).", hint=f"chmod 600 {path}")
    try:
        return Credentials(**json.loads(text))
    except (ValueError, TypeError):
        raise Refused(f"{path} is damaged.", hint="Sign in again with `heroes login`.") from None


def address(url: str | None = None) -> str:
    """Where the API is: the argument, the environment, the last sign-in, the default."""
    kept = stored()
    return url or os.environ.get("HEROES_API_URL") or (kept.url if kept else DEFAULT_URL)


def find(url: str | None = None, token: str | None = None) -> Credentials:
    """Arguments win over the environment, that over the file; a kept token goes to the address it was made for only."""
    kept, where = stored(), address(url)
    given = token or os.environ.get("HEROES_TOKEN") or ""
    if not given and kept is not None and kept.token and kept.url.rstrip("/") == where.rstrip("/"):
        return Credentials(where, kept.token, kept.organisation, kept.user)
    return Credentials(where, given or os.environ.get("JUPYTERHUB_API_TOKEN", ""))


def need(credentials: Credentials) -> Credentials:
    """The same; NotSignedIn where there is no token."""
    if not credentials.token:
        raise NotSignedIn(
            f"You are not signed in to {credentials.url}.", hint="Run `heroes login`, or set HEROES_TOKEN."
        )
    return credentials
