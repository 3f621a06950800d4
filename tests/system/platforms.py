"""A whole platform for a test: its own folder, free ports, the real command `heroes`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import heroes
from heroes.api import identity
from heroes.client import Client
from heroes_hub import supervisor
from heroes_hub.home import Home
from heroes_hub.settings import Api, MachineSettings, Objects, Settings

T = TypeVar("T")


def wait(look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The first answer that is not None."""
    until = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Platform:
    """A platform in a folder, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)

    def heroes(self, *words: str, check: bool = True, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
        """Run `heroes …` on it."""
        program = str(Path(sys.executable).with_name("heroes"))
        environment = {
            **os.environ,
            "HEROES_HOME": str(self.home.folder),
            "XDG_CONFIG_HOME": str(self.home.folder / "me"),
        }
        done = subprocess.run(
            [program, *words], env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0 or not check, f"heroes {words}: {done.stdout}{done.stderr}"
        return done

    def status(self) -> dict[str, Any]:
        """What `heroes status` tells."""
        return dict(json.loads(self.heroes("status", "--output", "json", check=False).stdout))

    def part(self, name: str) -> int | None:
        """The process of a part."""
        found = supervisor.told(self.home.run / "status.json").get("parts", {}).get(name, {})
        return int(found["pid"]) if found.get("pid") else None

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self.home.prepare()

    @property
    def address(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.settings.api.port}"

    def token(self, organisation: str, user: str, password: str) -> str:
        """Sign in."""
        client = Client(self.address)
        login = identity.Login(organisation=organisation, user=user, password=password)
        token: identity.Token = client.call(identity.LOGIN, login)
        client.close()
        return token.token

    @contextmanager
    def signed_in(self, organisation: str, user: str, password: str) -> Iterator[heroes.Heroes]:
        """The platform as that user sees it."""
        with heroes.Heroes(Client(self.address, self.token(organisation, user, password))) as connection:
            yield connection

    def mayor(self) -> tuple[str, str, str]:
        """The first administrator: organisation, name, password."""
        told = dict(line.split(": ", 1) for line in self.home.first_administrator.read_text().splitlines())
        return told["organisation"], told["user"], told["password"]


@contextmanager
def platform(*, machine: bool = True) -> Iterator[Platform]:
    """A platform that is not up yet; stopped and removed afterwards."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-platform-"))
    api, objects = free_ports(2)
    made = Platform(folder)
    machine_settings = MachineSettings(cpus=4, memory_mib=6000, enabled=machine)
    made.home.prepare(Settings(api=Api(port=api), objects=Objects(port=objects), machine=machine_settings))
    try:
        yield made
    finally:
        made.heroes("down", "--cancel-jobs", check=False)
        shutil.rmtree(folder, ignore_errors=True)


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
