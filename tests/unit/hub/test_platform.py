"""What a platform is made of: first administrator, this machine as a cluster, agreements, processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heroes.api.errors import NotFound
from heroes_clusters import service as clusters
from heroes_core.module import installed_modules
from heroes_core.work import Database
from heroes_hub import platform
from heroes_hub.home import Home
from heroes_hub.settings import Agreement, Engine, MachineSettings, Marketplace, Objects, Settings
from heroes_identity import service as identity
from heroes_identity.model import Passwords
from heroes_spawners.machine import client as scheduler
from heroes_spawners.machine.site import MachineSite

MACHINE = MachineSettings(cpus=8, memory_mib=8000)


def site_of(home: Home, settings: Settings) -> MachineSite:
    """This machine as a site whose scheduler is not started."""
    machine = platform.machine_of(home, settings.machine)
    scheduler.configure(machine)
    return MachineSite(machine, home.cache)


def test_the_first_administrator_is_made_once(sqlite: Database, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first start there is one, with the password from the file; the second start changes nothing."""
    monkeypatch.delenv("HEROES_ADMIN_PASSWORD", raising=False)
    home.prepare()
    platform.make_first_administrator(sqlite, home)
    told = home.first_administrator.read_text()
    password = told.rsplit("password: ", 1)[1].strip()
    assert home.first_administrator.stat().st_mode & 0o777 == 0o600
    with sqlite.read() as work:
        directory = identity.embedded(Passwords())(work)
        assert directory.password_matches(platform.PLATFORM, platform.ADMINISTRATOR, password)
        assert identity.user(work, "heroes", "admin").roles == {"solution-admin"}
    platform.make_first_administrator(sqlite, home)
    assert home.first_administrator.read_text() == told


def test_this_machine_has_queues_of_different_size() -> None:
    """Shares become CPUs and memory; the power is the machine's, so that measuring attributes shares of it."""
    machine = platform.machine_of(Home(Path("/x")), MACHINE)
    assert [(queue.name, queue.cpus, queue.memory_mib) for queue in machine.queues] == [
        ("small", 4, 4000),
        ("large", 8, 8000),
    ]
    assert machine.queues[0].power["node_cpus"] == 8
    assert machine.people is (os.geteuid() == 0)


def test_this_machine_is_a_cluster_for_everybody(sqlite: Database, home: Home) -> None:
    """After the start every organisation sees both queues with their prices; the settings' next prices get a new
    version, and what an administrator switched off stays off."""
    settings = Settings(machine=MACHINE)
    home.prepare(settings)
    platform.make_first_administrator(sqlite, home)
    site = site_of(home, settings)
    platform.configure(sqlite, settings, site)
    with sqlite.read() as work:
        places = clusters.usable_queues(work, "heroes")
    assert [(place.queue.name, place.queue.cpus_per_node, place.closed) for place in places] == [
        ("large", 8, ""),
        ("small", 4, ""),
    ]
    assert places[0].queue.price != places[1].queue.price
    assert places[0].cluster.capabilities["isolation"] in ("heroes-isolate", "unshare", "none")
    dearer = MACHINE.model_copy(update={"queues": (MACHINE.queues[0].model_copy(update={"per_use": "3"}),)})
    platform.configure(sqlite, Settings(machine=dearer), site_of(home, Settings(machine=dearer)))
    with sqlite.read() as work:
        (place,) = clusters.usable_queues(work, "heroes")
    assert (place.queue.name, place.queue.price.per_use, place.queue.price.version) == ("small", 3, 2)


def test_agreements_are_those_of_the_settings(sqlite: Database, home: Home) -> None:
    """With agreements, only who has one may use a queue."""
    agreed = Agreement(organisation="acme", cluster="local", queue="small")
    settings = Settings(machine=MACHINE, marketplace=Marketplace(agreements=(agreed,)))
    installed_modules()
    home.prepare(settings)
    platform.make_first_administrator(sqlite, home)
    platform.configure(sqlite, settings, site_of(home, settings))
    with sqlite.read() as work:
        assert [place.queue.name for place in clusters.usable_queues(work, "acme")] == ["small"]
        with pytest.raises(NotFound):
            clusters.place(work, "other", "local", "small")


def test_the_processes_follow_the_settings(home: Home) -> None:
    """Object store, API and engine; without an engine here, or with another S3 server, the fewer."""
    home.prepare()
    assert [part.name for part in platform.parts_of(home, Settings())] == ["objects", "api", "engine"]
    fewer = Settings(objects=Objects(kind="s3", url="https://s3.example"), engine=Engine(enabled=False))
    assert [part.name for part in platform.parts_of(home, fewer)] == ["api"]


def test_another_object_store_keeps_organisations_apart(home: Home) -> None:
    """Each organisation's data are in a bucket of its own of the other server."""
    wanted = Objects(kind="s3", url="https://s3.example", access_key="k", secret_key="s", bucket="x-{organisation}")
    store = platform.object_store(platform.embedded_server(home, Settings(objects=wanted)), Settings(objects=wanted))
    assert dict(store.remote("acme")) != dict(store.remote("other"))
    assert "x-acme" in str(dict(store.remote("acme")))
    store.close()
