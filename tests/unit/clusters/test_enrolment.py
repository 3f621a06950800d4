"""The engine's part of an enrolment, and opening sites, with transports that a test makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from heroes.api import clusters as api
from heroes.api.errors import Corrupt, HeroesError, InvalidSpec, LinkDown, NotFound, SchedulerDown
from heroes_clusters import enrolment, service
from heroes_clusters.enrolment import RETRY, Enrolments
from heroes_clusters.keys import Vault
from heroes_clusters.model import Cluster
from heroes_clusters.sites import Sites
from heroes_spawners.slurm.probe import Findings
from heroes_spawners.testing import FakeClock, FakeSite
from heroes_spawners.transport import Completed, LocalTransport, Transport
from tests.conftest import StillClock
from tests.unit.clusters.conftest import FACTS, PRICE, Platform


class NoTransport(LocalTransport):
    """Remembers whether it was closed."""

    closed = 0

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, deadline_s: float, limit: int) -> Completed:
        """Nobody is there."""
        raise LinkDown("nobody is there")

    def close(self) -> None:
        """Count."""
        NoTransport.closed += 1


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Findings | HeroesError]:
    """What the next probes find."""
    waiting: list[Findings | HeroesError] = []

    def probe(_transport: Transport, base: str, partitions: Sequence[str]) -> Findings:
        found = waiting.pop(0)
        if isinstance(found, HeroesError):
            raise found
        return replace(found, base=base or "/home/svc/heroes")

    monkeypatch.setattr(enrolment, "probe", probe)
    return waiting


def enrolments(platform: Platform) -> Enrolments:
    """The engine's part, with transports that lead nowhere."""
    return Enrolments(platform.database, platform.vault, lambda _one, _key: NoTransport())


FOUND = Findings("", dict(FACTS))


def test_a_probe_that_ends_well_makes_it_ready(platform: Platform, answers: list[Findings | HeroesError]) -> None:
    """Facts, base and accounting are kept; there is nothing more to probe; the transport is closed."""
    platform.enrol(base="")
    answers.append(FOUND)
    before = NoTransport.closed
    engine = enrolments(platform)
    assert (engine.step(), engine.step()) == (1, 0)
    with platform.database.read() as work:
        one = service.get(work, "alpha")
    assert (one.status, one.base, one.accounting_kind) == ("ready", "/home/svc/heroes", "full")
    assert NoTransport.closed == before + 1


@pytest.mark.parametrize("trouble", [LinkDown("svc@login.example refuses our key"), SchedulerDown("no controller")])
def test_what_may_pass_is_tried_again(
    everywhere: Platform, clock: StillClock, answers: list[Findings | HeroesError], trouble: HeroesError
) -> None:
    """A centre that cannot be reached yet stays in probing, says why, and is asked again half a minute later."""
    everywhere.enrol()
    answers += [trouble, FOUND]
    engine = enrolments(everywhere)
    assert engine.step() == 1
    shown = everywhere.ask(api.SHOW, cluster_id="alpha")
    assert (shown.status, trouble.message in shown.reason) == ("probing", True)
    assert engine.step() == 0
    clock.advance(RETRY.total_seconds())
    assert engine.step() == 1
    assert everywhere.ask(api.SHOW, cluster_id="alpha").status == "ready"


def test_what_cannot_be_is_refused(everywhere: Platform, answers: list[Findings | HeroesError]) -> None:
    """A site that does not do what was asked is refused with the reason, until it is probed again."""
    everywhere.enrol()
    answers += [InvalidSpec("in cpu the site changes JobName"), FOUND]
    engine = enrolments(everywhere)
    engine.step()
    shown = everywhere.ask(api.SHOW, cluster_id="alpha")
    assert (shown.status, "changes JobName" in shown.reason) == ("refused", True)
    assert engine.step() == 0
    everywhere.ask(api.PROBE, cluster_id="alpha")
    assert engine.step() == 1
    assert everywhere.ask(api.SHOW, cluster_id="alpha").status == "ready"


@pytest.mark.parametrize("error", [KeyError("clock"), ValueError("could not convert string to float: 'x'")])
def test_a_site_that_answers_nonsense_is_refused_and_harms_no_other(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What a site says may not even be what a probe can read; the next cluster is probed all the same."""
    platform.enrol()

    def probe(*_: Any) -> Findings:
        raise error

    monkeypatch.setattr(enrolment, "probe", probe)
    assert enrolments(platform).step() == 1
    shown = platform.ask(api.SHOW, cluster_id="alpha")
    assert (shown.status, "makes no sense" in shown.reason) == ("refused", True)


def test_a_key_that_cannot_be_decrypted_puts_its_probe_off(platform: Platform) -> None:
    """The settings have another secret than before: told with the cluster, tried again, and no other waits for it."""
    platform.enrol()
    engine = enrolments(platform)
    engine.vault = Vault(b"another secret")
    assert engine.step() == 1
    shown = platform.ask(api.SHOW, cluster_id="alpha")
    assert (shown.status, "cannot be decrypted" in shown.reason) == ("probing", True)
    assert engine.step() == 0


def test_a_ready_cluster_survives_a_probe_that_fails(platform: Platform, answers: list[Findings | HeroesError]) -> None:
    """It stays ready while it cannot be asked."""
    platform.ready()
    platform.ask(api.PROBE, cluster_id="alpha")
    answers.append(LinkDown("away"))
    enrolments(platform).step()
    assert platform.ask(api.SHOW, cluster_id="alpha").status == "ready"
    assert platform.places()["alpha/cpu"] == ""


def test_a_removed_or_disabled_cluster_is_not_probed(platform: Platform) -> None:
    """Nobody asks it anything."""
    platform.enrol()
    platform.ask(api.CHANGE, cluster_id="alpha", disabled=True)
    assert enrolments(platform).step() == 0
    platform.ask(api.REMOVE, cluster_id="alpha")
    assert enrolments(platform).step() == 0


def facts_of(one: Cluster) -> Mapping[str, Any]:
    """What is kept of the probe."""
    return one.capabilities


def test_a_site_is_opened_once(everywhere: Platform) -> None:
    """The same object each time, a new one after what is needed to reach it has changed."""
    one = everywhere.ready()
    sites = Sites(everywhere.database, everywhere.vault)
    first = sites.open("alpha")
    assert sites.open("alpha") is first
    assert first.accounting_kind == "full"
    assert first.remote()["host"] == "login.example"
    with everywhere.database.write() as work:
        service.probed(work, one, {**facts_of(one), "accounting": "none"}, accounting_kind="none")
    second = sites.open("alpha")
    assert second is not first
    assert second.accounting_kind == "none"
    sites.close()


def test_a_site_that_is_not_ready_is_no_site(platform: Platform) -> None:
    """Unknown clusters are NotFound, those that wait for their probe LinkDown; a wrong secret is told as such."""
    platform.enrol()
    sites = Sites(platform.database, platform.vault)
    with pytest.raises(LinkDown):
        sites.open("alpha")
    with pytest.raises(NotFound):
        sites.open("nowhere")
    with pytest.raises(Corrupt):
        Sites(platform.database, Vault(b"another")).open("alpha")


def test_the_machine_itself_is_opened_by_its_opener(platform: Platform) -> None:
    """Its site is made by whoever runs it; a platform without one says so."""
    with platform.database.write() as work:
        service.configure(work, Cluster("here", "heroes", "machine", "heroes"), [])
    made = FakeSite(FakeClock())
    assert Sites(platform.database, platform.vault, machine=lambda _one: made).open("here") is made
    with pytest.raises(LinkDown):
        Sites(platform.database, platform.vault).open("here")


def test_prices_of_settings_are_kept_over_restarts(platform: Platform) -> None:
    """A price that changes in the settings is the next version."""
    from heroes_clusters.model import Queue

    for price, version in ((PRICE, 1), (PRICE, 1), (PRICE.model_copy(update={"per_use": PRICE.per_core_hour}), 2)):
        with platform.database.write() as work:
            service.configure(work, Cluster("here", "heroes", "machine", "heroes"), [Queue("q", price=price)])
            assert service.queues(work, "here")["q"].price.version == version
