"""What a platform in a folder is made of: its store brought up to date, its first administrator, this machine as a
cluster, and the processes to run."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from heroes.api.units import PowerModel, PriceModel, Watts
from heroes_applications import service as applications
from heroes_clusters import service as clusters
from heroes_clusters.model import EVERYBODY, MACHINE, Cluster, Queue
from heroes_core import migrate
from heroes_core.work import Database
from heroes_data.embedded import EmbeddedServer
from heroes_data.model import S3Account
from heroes_data.ports import ObjectStore
from heroes_data.rclone import rclone_program
from heroes_data.s3 import S3Store
from heroes_hub.home import Home
from heroes_hub.settings import MachineQueue, MachineSettings, Settings
from heroes_hub.supervisor import Part
from heroes_identity import service as identity
from heroes_identity import store as identities
from heroes_identity.model import Organisation, Passwords
from heroes_marketplace import service as marketplace
from heroes_spawners.machine import client as scheduler
from heroes_spawners.machine import model as machines
from heroes_spawners.machine.site import MachineSite

#: The organisation that runs the platform, its first administrator, and who is named where nobody asked.
PLATFORM, ADMINISTRATOR, ACTOR = "heroes", "admin", "settings"
#: Facts that the machine's site keeps to itself.
_OWN = frozenset({"user", "environments", "queues"})
#: Waits of the engine on a scheduler that is a process of this machine, in seconds.
WAITS = {"unsure_s": 8.0, "gap_s": 2.0, "tentative_s": 1.0, "relist_s": 5.0, "silent_s": 60.0, "reclaim_s": 2.0}


def prepare_platform(home: Home, settings: Settings) -> Callable[[], None] | None:
    """Bring the store to this version and make it what the settings say; what is to be looked after now and then (the
    scheduler of this machine), if anything. SchedulerDown when that does not start."""
    machine = machine_of(home, settings.machine) if settings.machine.enabled else None
    site = None
    if machine is not None:
        scheduler.configure(machine)
        scheduler.Client(home.machine).ensure()
        site = MachineSite(machine, home.cache)
    database = home.database(settings, pool_size=2)
    try:
        migrate.upgrade(database)
        make_first_administrator(database, home)
        configure(database, settings, site)
    finally:
        database.close()
    return None if site is None else look_after(home)


def look_after(home: Home) -> Callable[[], None]:
    """Starts the scheduler of this machine again where it has gone."""
    client = scheduler.Client(home.machine)

    def look() -> None:
        if not client.runs():
            client.launch()

    return look


def configure(database: Database, settings: Settings, site: MachineSite | None) -> None:
    """Make the store what the settings say of this machine, of agreements and of exchange rates, and publish the
    workflows that this version ships."""
    agreed = [marketplace.Agreed(**each.model_dump()) for each in settings.marketplace.agreements]
    rates = {(pair[:3], pair[4:]): Decimal(rate) for pair, rate in settings.marketplace.rates.items()}
    with database.write() as work:
        if site is not None:
            clusters.configure(work, cluster_of(settings.machine, site), queues_of(settings.machine, site.machine))
        applications.install_shipped(work)
        marketplace.configure(work, agreed, ACTOR)
        marketplace.configure_rates(work, rates, PLATFORM, ACTOR)


def make_first_administrator(database: Database, home: Home) -> None:
    """At the first start, make the organisation that runs the platform and its administrator. The password is
    HEROES_ADMIN_PASSWORD, else one made here and written to a file for the owner of the folder only."""
    password = os.environ.get("HEROES_ADMIN_PASSWORD") or secrets.token_urlsafe(15)
    with database.write() as work:
        if identities.get_organisation(work, PLATFORM) is not None:
            return
        directory = identity.embedded(Passwords())(work)
        new = Organisation(PLATFORM, "HEROES", "platform", "EUR", True, work.now)
        identity.add_organisation(work, directory, ACTOR, new, ADMINISTRATOR, password)
        descriptor = os.open(home.first_administrator, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"organisation: {PLATFORM}\nuser: {ADMINISTRATOR}\npassword: {password}\n")


# ------------------------------------------------------------------------------------------------- the machine itself


def machine_of(home: Home, settings: MachineSettings) -> machines.Machine:
    """This machine's scheduler as the settings want it."""
    cpus = settings.cpus or max(2, len(os.sched_getaffinity(0)))
    memory = settings.memory_mib or _memory_mib() * 9 // 10
    queues = tuple(
        machines.Queue(
            name=queue.name,
            cpus=max(1, int(cpus * queue.share)),
            memory_mib=max(1, int(memory * queue.share)),
            max_walltime_s=queue.max_walltime_s,
            power={"idle_watts": settings.idle_watts, "busy_watts": settings.busy_watts, "node_cpus": float(cpus)},
        )
        for queue in settings.queues
    )
    return machines.Machine(home.machine, cpus, queues, people=os.geteuid() == 0)


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def cluster_of(settings: MachineSettings, site: MachineSite) -> Cluster:
    """This machine as an enrolled cluster. It serves every organisation where jobs run as users of their own."""
    return Cluster(
        name=settings.name,
        organisation=PLATFORM,
        kind=MACHINE,
        provider=PLATFORM,
        capabilities={
            name: fact for name, fact in site.facts.items() if name not in ("user", "environments", "queues")
        },
        base=site.base,
        waits=WAITS,
    )


def queues_of(settings: MachineSettings, machine: machines.Machine) -> list[Queue]:
    """The queues with their prices and power."""
    return [_queue(settings, asked, machine) for asked in settings.queues]


def _queue(settings: MachineSettings, asked: MachineQueue, machine: machines.Machine) -> Queue:
    made = machine.queue(asked.name)
    assert made is not None
    price = PriceModel(
        currency=settings.currency, per_use=Decimal(asked.per_use), per_core_hour=Decimal(asked.per_core_hour)
    )
    share = made.cpus / machine.cpus
    power = PowerModel(
        idle=Watts(settings.idle_watts * share),
        busy=Watts(settings.busy_watts * share),
        source="settings of the machine",
    )
    return Queue(
        name=asked.name,
        partition=asked.name,
        price=price,
        power=power,
        pue=settings.pue,
        carbon_g_per_kwh=settings.carbon_g_per_kwh,
        max_walltime_s=asked.max_walltime_s,
        cpus_per_node=made.cpus,
        memory_mib_per_node=made.memory_mib,
        kill_wait_s=int(machine.kill_wait_s),
        visible_to=(EVERYBODY,),
        priced=True,
    )


# ------------------------------------------------------------------------------------------------------ object store


def embedded_server(home: Home, settings: Settings) -> EmbeddedServer | None:
    """The embedded S3 server's keys; None where another server is used."""
    wanted = settings.objects
    if wanted.kind != "embedded":
        return None
    return EmbeddedServer(home.objects, f"http://{wanted.address}:{wanted.port}", wanted.url)


def object_store(server: EmbeddedServer | None, settings: Settings) -> ObjectStore:
    """The object store, embedded or not."""
    if server is not None:
        return server.store()
    wanted = settings.objects

    def account(organisation: str) -> S3Account:
        bucket = wanted.bucket.format(organisation=organisation)
        return S3Account(wanted.url, wanted.access_key, wanted.secret_key, wanted.region, bucket)

    return S3Store(account)


# ---------------------------------------------------------------------------------------------------------- processes


def parts_of(home: Home, settings: Settings) -> list[Part]:
    """The processes of the platform, in the order in which they start."""
    parts = []
    server = embedded_server(home, settings)
    if server is not None:
        address = f"{settings.objects.address}:{settings.objects.port}"
        parts.append(Part("objects", server.argv(rclone_program(), address)))
    parts.append(Part("api", _python("heroes_hub.api", home)))
    if settings.engine.enabled:
        parts.append(Part("engine", _python("heroes_hub.engine", home), stop_s=10.0))
    return parts


def _python(module: str, home: Home) -> list[str]:
    return [sys.executable, "-m", module, str(home.folder)]


def engine_address(home: Home) -> str:
    """Where this machine's engine answers questions."""
    return f"unix:{home.run / 'engine.sock'}"


def folder_argument() -> Home:
    """The folder that a process of the platform was started for."""
    return Home(Path(sys.argv[1]).absolute())
