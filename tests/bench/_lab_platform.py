"""A whole platform with `alpha` of the lab enrolled, for the benches that measure on real SLURM."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import heroes
from heroes.api import budget, clusters, identity
from heroes.api.units import Money, PowerModel, PriceModel, Watts
from heroes_hub import operate
from heroes_hub.demo import signed_in
from heroes_hub.home import Home
from heroes_hub.platform import ADMINISTRATOR, PLATFORM
from heroes_hub.settings import Api, MachineSettings, Objects, Settings
from tests.lab import LabCluster, LabError, wait_for

ORGANISATION, CLIENT, ENGINEER = "acme", "carla", "emma"
PASSWORD = secrets.token_urlsafe(12)
READY_S = 300.0


@contextmanager
def platform_on(alpha: LabCluster, *queues: str) -> Iterator[heroes.Heroes]:
    """A fresh platform, up, with queues of alpha for an engineer, as whom it is answered; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="heroes-bench-", dir="/var/tmp"))
    home = Home(folder)
    ports = _free_ports(2)
    machine = MachineSettings(enabled=False)
    settings = home.prepare(Settings(api=Api(port=ports[0]), objects=Objects(port=ports[1]), machine=machine))
    try:
        operate.up(home, settings)
        address = operate.address(settings)
        _people(address, home)
        with signed_in(address, ORGANISATION, CLIENT, PASSWORD) as admin:
            _enrol(admin, alpha, queues)
        with signed_in(address, ORGANISATION, ENGINEER, PASSWORD) as engineer:
            yield engineer
    finally:
        operate.down(home, cancel_jobs=True)
        alpha.run("scancel", f"--user={alpha.account}")
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _people(address: str, home: Home) -> None:
    first = home.first_administrator.read_text().rsplit("password: ", 1)[1].strip()
    with signed_in(address, PLATFORM, ADMINISTRATOR, first) as mayor:
        new = identity.AddOrganisation(name=ORGANISATION, title="ACME", administrator=CLIENT, password=PASSWORD)
        mayor.client.call(identity.ADD_ORGANISATION, new)
        credit = budget.AddCredit(organization_id=ORGANISATION, amount=Money.of("100000"), reason="for the bench")
        mayor.client.call(budget.CREDIT, credit)
    with signed_in(address, ORGANISATION, CLIENT, PASSWORD) as admin:
        engineer = identity.AddUser(name=ENGINEER, title="Emma", password=PASSWORD, roles=("engineer",))
        admin.client.call(identity.ADD_USER, engineer)


def _enrol(admin: heroes.Heroes, alpha: LabCluster, queues: tuple[str, ...]) -> None:
    account = admin.client.call(clusters.ADD_ACCOUNT, clusters.AddServiceAccount(name="acme-at-alpha"))
    alpha.authorise(account.public_key)
    price = PriceModel(per_core_hour="0.3")
    power = PowerModel(idle=Watts(80), busy=Watts(240), source="data sheet")
    terms = clusters.QueueTerms(price=price, power=power, carbon_g_per_kwh=300.0, pue=1.2)
    asked = clusters.EnrolCluster(
        name="alpha",
        host=alpha.host,
        port=alpha.port,
        user=alpha.account,
        service_account=account.name,
        host_key=alpha.host_key,
        base=f"{alpha.home}/bench-{secrets.token_hex(4)}",
        queues=dict.fromkeys(queues, terms),
    )
    admin.client.call(clusters.ENROL, asked)

    def ready() -> bool:
        told = admin.client.call(clusters.SHOW, clusters.AskCluster(cluster_id="alpha"))
        if told.status == "refused":
            raise LabError(f"alpha is refused: {told.reason}")
        return bool(told.status == "ready")

    wait_for("alpha is ready", ready, READY_S, pause=0.5)
