"""Starting and stopping the platform, and how it is: what the operator's commands do."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from heroes.api.errors import Conflict, SchedulerDown, Unavailable
from heroes_hub import supervisor
from heroes_hub.home import Home
from heroes_hub.settings import Settings, load
from heroes_spawners.machine.client import Client

#: A first start makes the store's tables and probes this machine.
START_S = 90.0
STOP_S = 25.0


@dataclass(frozen=True)
class State:
    """How the platform is: the supervisor's process, its parts as (name, process, starts), whether the API answers,
    and jobs running and pending on this machine's scheduler (None where it does not run)."""

    supervisor: int | None
    parts: tuple[tuple[str, int | None, int], ...]
    healthy: bool
    jobs: tuple[int, int] | None


def address(settings: Settings) -> str:
    """Where the API is reached from this machine."""
    host = settings.api.address if settings.api.address not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return f"http://{host}:{settings.api.port}"


def up(home: Home, settings: Settings, *, deadline_s: float = START_S) -> bool:
    """Start the platform in the background and wait until it answers; False when it was up already.

    Conflict when a port is taken, Unavailable with the log's last lines when it does not come up."""
    if supervisor.holder(home.run) is not None:
        wait_healthy(home, settings, deadline_s, lambda: None)
        return False
    check_ports(settings, home.settings_file)
    with (home.log / "supervisor.log").open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "heroes_hub.supervisor", str(home.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )

    def died() -> None:
        if process.poll() is not None:
            said = _tail(home.log / "supervisor.log", began)
            raise Unavailable(f"the platform did not start: {said}", hint=f"All of it: {home.log / 'supervisor.log'}")

    wait_healthy(home, settings, deadline_s, died)
    return True


def wait_healthy(home: Home, settings: Settings, deadline_s: float, look: Callable[[], None]) -> None:
    """Wait until the API answers; `look` may raise meanwhile."""
    until = time.monotonic() + deadline_s
    while not healthy(settings):
        look()
        if time.monotonic() > until:
            said = _tail(home.log / "api.log", 0)
            raise Unavailable(f"the API did not answer within {deadline_s:g} s: {said}", hint="heroes logs api")
        time.sleep(0.1)


def healthy(settings: Settings) -> bool:
    """Whether the API answers."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{address(settings)}/health", timeout=5.0, trust_env=False).status_code == 200
    return False


def check_ports(settings: Settings, file: Path | str = "heroes.toml") -> None:
    """Conflict when another program listens where the platform is to. `file`: where the settings are."""
    wanted = [("api", settings.api.address, settings.api.port)]
    if settings.objects.kind == "embedded":
        wanted.append(("objects", settings.objects.address, settings.objects.port))
    for section, host, port in wanted:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
                    raise
                hint = f"Stop it, or set another {section}.address or {section}.port in {file}."
                raise Conflict(f"{host}:{port} cannot be listened on: {error.strerror}", hint=hint) from None


def _tail(path: Path, start: int, most: int = 2000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - most))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def down(home: Home, *, cancel_jobs: bool = False, wait_s: float = STOP_S) -> int:
    """Stop the platform; how many jobs still run on this machine. Its scheduler goes with the last of them, unless they
    are cancelled; jobs that wait start when the platform is up again."""
    pid = supervisor.holder(home.run)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + wait_s
        while supervisor.holder(home.run) is not None:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)  # its parts end with it
                break
            time.sleep(0.05)
    return _drain(home, cancel_jobs)


def _drain(home: Home, cancel: bool) -> int:
    client = Client(home.machine)
    try:
        running = int(client.ask("drain", on=True, cancel=cancel)["running"])
    except SchedulerDown:
        return 0
    until = time.monotonic() + (15.0 if cancel or not running else 0.0)
    while time.monotonic() < until and client.runs():
        time.sleep(0.05)
        running = 0
    return running


def state(home: Home, settings: Settings) -> State:
    """How the platform is now."""
    parts = supervisor.told(home.run / "status.json").get("parts", {})
    jobs = None
    with suppress(SchedulerDown):
        ping = Client(home.machine).ask("ping")
        jobs = (int(ping["running"]), int(ping["pending"]))
    told = tuple((name, part["pid"], part["starts"]) for name, part in parts.items())
    holder = supervisor.holder(home.run)
    # without a supervisor it is another platform's API that answers there
    return State(holder, told, holder is not None and healthy(settings), jobs)


def existing(home: Home) -> Settings:
    """The settings of a folder that has some. Unavailable where it has none."""
    if not home.settings_file.exists():
        raise Unavailable(f"there is no platform in {home.folder}", hint="Make one: heroes up.")
    return load(home.settings_file)


def stopped(home: Home, what: str) -> None:
    """Conflict while the platform runs."""
    if supervisor.holder(home.run) is not None:
        raise Conflict(f"the platform in {home.folder} runs, and {what} needs it stopped", hint="Stop it: heroes down.")


__all__ = ["State", "address", "check_ports", "down", "existing", "healthy", "state", "stopped", "up"]
