"""Enrolling real SLURM clusters over real SSH: what a centre's administrator and ours go through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from heroes.api.ids import new_ulid
from heroes.api.units import PriceModel
from heroes_clusters import accounts, service
from heroes_clusters.enrolment import Enrolments
from heroes_clusters.keys import Vault, new_key_pair
from heroes_clusters.model import Cluster
from heroes_clusters.sites import Sites
from heroes_core.work import Caller, Database
from heroes_identity import service as identity
from heroes_identity.model import Organisation, Passwords
from heroes_spawners.site import Accepted, Job, Shape, State, Submission
from tests.conftest import StillClock
from tests.lab import Lab, LabCluster

ADMIN = Caller("acme", "ann", frozenset({"clusters:manage"}))
VAULT = Vault(b"a secret of the settings")
HINT_KEY = "Install the service account's public key"


@pytest.fixture
def database(sqlite: Database) -> Database:
    """A store with one organisation."""
    with sqlite.write() as work:
        directory = identity.embedded(Passwords(memory_kib=8, rounds=1, lanes=1))(work)
        acme = Organisation("acme", "Acme", "client", "EUR", True, work.now)
        identity.add_organisation(work, directory, "setup", acme, "admin", "correct horse battery")
    return sqlite


@pytest.fixture
def sites(database: Database, tmp_path: Path) -> Iterator[Sites]:
    """Opens what was enrolled."""
    opened = Sites(database, VAULT, cache=tmp_path)
    yield opened
    opened.close()


def account(database: Database, name: str) -> str:
    """Make a service account: its public key, for the centre to install."""
    with database.write() as work:
        return str(accounts.add(work, ADMIN, VAULT, name).public_key)


def enrol(database: Database, cluster: LabCluster, **changed: str) -> None:
    """Enrol a lab cluster as its description says."""
    folder = f"{cluster.home}/enrolled-{new_ulid()}"
    wanted = {"host_key": cluster.host_key, "base": folder, **changed}
    terms = {"cloud" if cluster.name == "cumulus" else "cpu": {"price": PriceModel(per_core_hour="0.01")}}
    one = service.Enrolment(cluster.name, cluster.host, cluster.port, cluster.account, "acc", queues=terms, **wanted)
    with database.write() as work:
        service.enrol(work, ADMIN, one)


def now(database: Database, name: str) -> Cluster:
    """A cluster as it is stored."""
    with database.read() as work:
        return service.get(work, name)


def until(happened: Callable[[], bool], patience_s: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_a_centre_is_enrolled_and_runs_a_job(database: Database, sites: Sites, lab: Lab, clock: StillClock) -> None:
    """Key made, refused, installed, probed; then a job goes through the site that was opened from the store."""
    alpha = lab.cluster("alpha")
    public_key = account(database, "acc")
    enrol(database, alpha)
    engine = Enrolments(database, VAULT)
    assert engine.step() == 1
    waiting = now(database, "alpha")
    assert (waiting.status, HINT_KEY in waiting.reason) == ("probing", True)

    alpha.authorise(public_key)
    clock.advance(60)
    assert engine.step() == 1
    ready = now(database, "alpha")
    assert (ready.status, ready.reason, ready.accounting_kind) == ("ready", "", "full")
    facts = ready.capabilities
    assert facts["isolation"] in ("heroes-isolate", "unshare")
    assert facts["partitions"]["cpu"]["cpus_per_node"] == 8
    assert facts["variables"] == []
    assert abs(facts["clock_skew_s"]) < 30

    with database.read() as work:
        place = service.place(work, "acme", "alpha", "cpu")
    assert (place.closed, place.queue.nodes, place.queue.kill_wait_s) == ("", 4, facts["kill_wait_s"])
    site = sites.open("alpha")
    site.prepare(1)
    key = new_ulid()
    argv = ("/bin/sh", "-c", "cat ../../../epoch; echo done")
    assert isinstance(site.submit([Submission(Job(key, "cpu", Shape(walltime_s=60), argv))], 1)[0], Accepted)
    until(lambda: any(record.key == key for record in site.poll("").records))
    assert site.tail(key, "stdout", 0, 100).data == b"done\n"  # the rest of the base directory is hidden from it
    since = clock.now() - timedelta(days=1000)
    until(lambda: [job.state for job in site.accounting([key], since).get(key, [])] == [State.COMPLETED])


def test_a_cloud_without_accounting_is_enrolled(database: Database, lab: Lab) -> None:
    """The canary waits for a node to boot; the cluster is known to have no accounting."""
    cumulus = lab.cluster("cumulus")
    cumulus.authorise(account(database, "acc"))
    enrol(database, cumulus)
    assert Enrolments(database, VAULT).step() == 1
    ready = now(database, "cumulus")
    assert (ready.status, ready.reason, ready.accounting_kind) == ("ready", "", "none")
    with database.read() as work:
        assert service.place(work, "acme", "cumulus", "cloud").queue.boot_s > 0


def test_a_host_key_is_pinned(database: Database, lab: Lab) -> None:
    """A host that shows another key gets no command; without a key the first one shown is pinned."""
    alpha = lab.cluster("alpha")
    alpha.authorise(account(database, "acc"))
    other = " ".join(new_key_pair("other").public_key.split()[:2])
    enrol(database, alpha, host_key=other)
    Enrolments(database, VAULT).step()
    assert "not the pinned one" in now(database, "alpha").reason or "cannot be reached" in now(database, "alpha").reason
    with database.write() as work:
        service.change(work, ADMIN, "alpha", drained=True)
        service.remove(work, ADMIN, "alpha")


def test_the_first_host_key_is_pinned_when_none_is_given(database: Database, lab: Lab) -> None:
    """An administrator who gave none sees its fingerprint in the facts."""
    alpha = lab.cluster("alpha")
    alpha.authorise(account(database, "acc"))
    enrol(database, alpha, host_key="")
    Enrolments(database, VAULT).step()
    ready = now(database, "alpha")
    assert ready.host_key == alpha.host_key
    assert ready.capabilities["host_key_fingerprint"].startswith("SHA256:")


def test_a_folder_that_is_not_shared_is_refused(database: Database, lab: Lab) -> None:
    """A base directory that cannot be used says why."""
    alpha = lab.cluster("alpha")
    alpha.authorise(account(database, "acc"))
    enrol(database, alpha, base="/proc/heroes")
    Enrolments(database, VAULT).step()
    refused = now(database, "alpha")
    assert (refused.status, "/proc/heroes" in refused.reason) == ("refused", True)


def test_nobody_listening_waits(database: Database, lab: Lab) -> None:
    """A centre that is away is probed again later."""
    account(database, "acc")
    alpha = lab.cluster("alpha")
    with database.write() as work:
        one = service.Enrolment("away", alpha.host, 1, alpha.account, "acc", host_key=alpha.host_key, base="/tmp/x")
        service.enrol(work, ADMIN, one)
    Enrolments(database, VAULT).step()
    assert (now(database, "away").status, "cannot be reached" in now(database, "away").reason) == ("probing", True)
