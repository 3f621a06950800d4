"""A platform with clusters, and a way to ask their operations as somebody with given rights."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api.registry import Operation, parse
from heroes.api.units import PriceModel
from heroes_clusters import accounts, service
from heroes_clusters.handlers import MODULE
from heroes_clusters.keys import Vault
from heroes_clusters.model import Cluster
from heroes_core.module import Call, Services, admit, perform
from heroes_core.work import Caller, Database
from heroes_identity import service as identity
from heroes_identity.model import Organisation, Passwords

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
PRICE = PriceModel(per_core_hour="0.01")
FACTS = {
    "accounting": "full",
    "arch": "x86_64",
    "kill_wait_s": 3,
    "over_time_limit_s": 0,
    "applications": ["openfoam"],
    "partitions": {
        "cpu": {
            "nodes": 4,
            "cpus_per_node": 8,
            "memory_mib_per_node": 16000,
            "max_walltime_s": 14400,
            "exclusive": False,
        },
        "gpu": {
            "nodes": 1,
            "cpus_per_node": 16,
            "gpus_per_node": 4,
            "max_walltime_s": 3600,
            "exclusive": True,
            "boot_s": 60,
        },
    },
}


class Platform:
    """`acme` and `umbrella` are clients, `depot` a provider, `heroes` runs the platform."""

    def __init__(self, database: Database) -> None:
        self.database, self.vault = database, Vault(b"a secret of the settings")
        directories = identity.embedded(Passwords(memory_kib=8, rounds=1, lanes=1))
        kinds = {"acme": "client", "umbrella": "client", "depot": "provider", "heroes": "platform"}
        with database.write() as work:
            for name, kind in kinds.items():
                new = Organisation(name, name.title(), kind, "EUR", True, work.now)
                identity.add_organisation(work, directories(work), "setup", new, "admin", "correct horse battery")

    def caller(self, organisation: str = "acme", *rights: str) -> Caller:
        """Somebody of an organisation; an administrator of its clusters when no right is named."""
        platform = organisation == "heroes"
        given = rights or (("platform:clusters",) if platform else ("clusters:manage",))
        return Caller(organisation, "ann", frozenset(given), platform=platform)

    def ask(self, operation: Operation, caller: Caller | None = None, *, key: str = "", **fields: Any) -> Any:
        """The answer to one request."""
        who = caller or self.caller()
        request = parse(operation.request, fields)
        call = Call(admit(operation, who), self.database, Services(self.vault))
        return perform(MODULE.bound[operation.name], call, request, key)

    def enrol(self, name: str = "alpha", organisation: str = "acme", account: str = "", **changed: Any) -> Cluster:
        """Enrol a cluster with an account of its own."""
        caller = self.caller(organisation)
        wanted = {"host": "login.example", "port": 22, "user": "svc", "host_key": HOST_KEY, "base": "/home/svc/heroes"}
        with self.database.write() as work:
            if not account:
                accounts.add(work, caller, self.vault, f"{name}-account")
            one = service.Enrolment(name=name, service_account=account or f"{name}-account", **{**wanted, **changed})
            return service.enrol(work, caller, one)

    def ready(self, name: str = "alpha", organisation: str = "acme", **changed: Any) -> Cluster:
        """Enrol a cluster and let its probe find `FACTS`; its queue `cpu` has a price."""
        one = self.enrol(name, organisation, **changed)
        with self.database.write() as work:
            made = service.probed(work, one, FACTS)
            service.set_queue(work, self.caller(organisation), name, "cpu", {"price": PRICE})
        return made

    def places(self, organisation: str = "acme") -> dict[str, str]:
        """What an organisation may use: {cluster/queue: why it is closed}."""
        with self.database.read() as work:
            found = service.usable_queues(work, organisation)
        return {f"{place.cluster.name}/{place.queue.name}": place.closed for place in found}


@pytest.fixture
def platform(sqlite: Database) -> Platform:
    """The platform on SQLite."""
    return Platform(sqlite)


@pytest.fixture
def everywhere(database: Database) -> Platform:
    """The platform on each kind of database, for tests that reach every statement."""
    return Platform(database)
