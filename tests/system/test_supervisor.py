"""The platform's processes, for real: up, killed part by part, down."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from heroes_spawners.machine.client import Client as Scheduler
from tests.system.platforms import Platform, listens, platform, wait

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    """A platform that is up."""
    with platform() as made:
        made.heroes("up")
        yield made


def well(running: Platform) -> dict[str, object] | None:
    """Its status once everything is well."""
    told = running.status()
    return told if told["well"] else None


def test_it_is_up(running: Platform) -> None:
    """All parts run, the API answers, and the status says so with exit status 0."""
    told = wait(lambda: well(running))
    assert [name for name, _, _ in told["parts"]] == ["objects", "api", "engine"]  # type: ignore[attr-defined]
    assert told["healthy"] is True
    assert running.heroes("status").returncode == 0


def test_a_second_start_changes_nothing(running: Platform) -> None:
    """`heroes up` on a running platform says that it was up, and no process is another."""
    before = wait(lambda: well(running))
    assert "was up already" in running.heroes("up").stdout
    assert running.status() == before


@pytest.mark.parametrize("name", ["objects", "api", "engine"])
def test_a_killed_part_is_back(running: Platform, name: str) -> None:
    """Killed with -9, each part is started again within ten seconds, and the platform is well again."""
    wait(lambda: well(running))
    before = running.part(name)
    assert before is not None
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait(lambda: ((pid := running.part(name)) and pid != before) or None)
    assert time.monotonic() - began < 10
    wait(lambda: well(running))


def test_a_killed_scheduler_is_back(running: Platform) -> None:
    """The scheduler of this machine is looked after, too."""
    scheduler = Scheduler(running.home.machine)
    before = scheduler.ask("ping")["pid"]
    os.kill(before, signal.SIGKILL)
    wait(lambda: True if scheduler.runs() and scheduler.ask("ping")["pid"] != before else None)


def test_the_logs_tell(running: Platform) -> None:
    """Each part has its log; of a part that does not exist the error names those that do."""
    assert "api started as process" in running.heroes("logs", "supervisor").stdout
    assert '"service":{"name":"heroes-api"}' in running.heroes("logs", "api").stdout
    wrong = running.heroes("logs", "apple", check=False)
    assert wrong.returncode == 1
    assert "api, engine, objects" in wrong.stderr


def test_a_taken_port_is_told(running: Platform) -> None:
    """A second platform on the same ports does not start, and the error says which setting to change."""
    with platform(machine=False) as other, socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", other.settings.api.port))
        taken.listen()
        done = other.heroes("up", check=False)
        assert done.returncode == 1
        assert f"127.0.0.1:{other.settings.api.port}" in done.stderr
        assert "api.port" in done.stderr


def test_no_orphan_keeps_a_port() -> None:
    """When the supervisor is killed with -9 its parts end, the ports are free, and the platform starts again."""
    with platform(machine=False) as made:
        made.heroes("up")
        supervisor = made.status()["supervisor"]
        settings = made.settings
        os.kill(supervisor, signal.SIGKILL)
        for port in (settings.api.port, settings.objects.port):
            wait(lambda port=port: True if not listens(port) else None)  # type: ignore[misc]
        assert made.heroes("status", check=False).returncode == 1
        made.heroes("up")
        assert wait(lambda: well(made))


def test_it_stops_cleanly_within_seconds() -> None:
    """`heroes down` ends every process, frees the ports and is quick; a second one is no error."""
    with platform() as made:
        made.heroes("up")
        settings = made.settings
        pids = [pid for _, pid, _ in wait(lambda: well(made))["parts"]]  # type: ignore[attr-defined]
        began = time.monotonic()
        made.heroes("down")
        assert time.monotonic() - began < 20
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
        assert not listens(settings.api.port)
        assert not listens(settings.objects.port)
        scheduler = Scheduler(made.home.machine)
        wait(lambda: True if not scheduler.runs() else None)
        made.heroes("down")


def test_a_folder_without_a_platform_is_told() -> None:
    """Status and stop of a folder that holds none say how to make one."""
    with platform() as made:
        made.home.settings_file.unlink()
        for verb in ("status", "down", "verify"):
            done = made.heroes(verb, check=False)
            assert done.returncode == 1
            assert "heroes up" in done.stderr
