"""The enrolled clusters as the engine sees them, and several engines over them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from heroes.api.errors import NotFound
from heroes.api.units import PriceModel
from heroes_clusters import service as clusters
from heroes_clusters.model import MACHINE, Cluster, Queue
from heroes_core.work import Database
from heroes_jobs import store
from heroes_jobs.clusters import Enrolled
from heroes_jobs.desk import LeaseLost
from heroes_jobs.model import Phase, Rules
from heroes_jobs.ports import QueueFacts
from heroes_spawners.testing import FakeClock, FakeSite, Outcome
from tests.unit.jobs.world import World, spec, world


@pytest.fixture
def enrolled(database: Database) -> Enrolled:
    """The cluster alpha of acme with two queues, its waits its own."""
    waits = {"unsure_s": 12.0, "polls": 2.0, "colour": 1.0}
    with database.write() as work:
        offered = [
            Queue("cpu", partition="batch", price=PriceModel(), max_jobs=3, max_cores=8, options=("--qos=a",)),
            Queue("plain", price=PriceModel()),
        ]
        clusters.configure(work, Cluster("alpha", "acme", MACHINE, "centre", waits=waits), offered)
    return Enrolled(database, Rules(gap_s=7))


def test_facts_of_a_cluster(enrolled: Enrolled) -> None:
    """Owner, queues with their limits, and the waits: its own where it has some, the platform's elsewhere."""
    facts = enrolled.facts("alpha")
    assert facts.owner == "acme"
    assert facts.queues["cpu"] == QueueFacts("batch", 3, 8, ("--qos=a",))
    assert facts.queues["plain"] == QueueFacts("plain")
    assert (facts.rules.unsure_s, facts.rules.gap_s, facts.rules.polls) == (12.0, 7, 2)
    with pytest.raises(NotFound):
        enrolled.facts("nowhere")


def test_no_cluster_can_give_up_what_keeps_submissions_single(enrolled: Enrolled) -> None:
    """Waits that its owner set too short are made longer, counts are whole, and accounting is not theirs to deny."""
    with enrolled.database.write() as work:
        one = clusters.get(work, "alpha")
        waits = {"unsure_s": 0.0, "polls": 0.5, "accounted": 0.0, "max_lost": 3.7, "gap_s": -1.0, "limit_s": 2.5}
        clusters.store.change_cluster(work, replace(one, waits=waits))
    rules = enrolled.facts("alpha").rules
    assert (rules.unsure_s, rules.polls, rules.accounted, rules.max_lost) == (8.0, 2, True, 3)
    assert (rules.gap_s, rules.limit_s) == (0.0, 2.5)


def test_a_disabled_cluster_is_served_as_long_as_it_holds_attempts(enrolled: Enrolled) -> None:
    """Nothing new goes there, but what runs is followed to its end."""
    assert enrolled.names() == ["alpha"]
    here = world(enrolled.database, FakeClock())
    with enrolled.database.write() as work:
        one = clusters.get(work, "alpha")
        clusters.store.change_cluster(work, type(one)(**{**one.__dict__, "disabled": True}))
    assert enrolled.names() == []
    here.submit(spec())
    assert enrolled.names() == ["alpha"]
    here.run()
    assert enrolled.names() == []


def test_a_cluster_that_was_deleted_under_its_jobs_harms_no_other(enrolled: Enrolled) -> None:
    """It is not served: an engine that asks for what is known of it would end for all clusters."""
    world(enrolled.database, FakeClock()).submit(spec())
    assert enrolled.names() == ["alpha"]
    with enrolled.database.write() as work:
        assert store.occupied(work, "alpha")
        assert not store.occupied(work, "beta")
        one = clusters.get(work, "alpha")
        clusters.store.change_cluster(work, one, removed_at=work.now)
    assert enrolled.names() == []


def test_reachability_is_kept_with_the_cluster(enrolled: Enrolled) -> None:
    """What the engine finds is what decisions see."""
    since = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
    enrolled.reached("alpha", since, "no route")
    with enrolled.database.read() as work:
        assert clusters.get(work, "alpha").unreachable_since == since
    enrolled.reached("alpha", None, "")
    with enrolled.database.read() as work:
        assert clusters.get(work, "alpha").unreachable_since is None


def test_a_second_engine_takes_over_when_the_lease_has_run_out(postgres_url: str) -> None:
    """An engine that is silent for too long is replaced; what it submitted is found, and nothing runs twice."""
    clock = FakeClock()
    database = Database(postgres_url, audit_key=b"k" * 32, clock=clock)
    site = FakeSite(clock, lambda _job: Outcome(30.0), start_delay_s=0.5)
    first = world(database, clock, site)
    keys = first.submit(*(spec(index=index) for index in range(8)))
    first.run(lambda: all(first.row(key).status == Phase.RUNNING for key in keys))
    silent = first.engine
    first.restart()
    assert first.engine.turn() == 5.0  # the lease is another's: look again later
    _run_out(first)
    first.run()
    assert {first.row(key).status for key in keys} == {Phase.DONE}
    assert len(site.executions) == len(site.submissions) == 8
    clock.sleep(100)
    with pytest.raises(LeaseLost):
        silent.turn()
    database.close()


def _run_out(here: World) -> None:
    with here.database.write() as work:
        work.execute(store.lease.update().values(until=datetime(2020, 1, 1, tzinfo=UTC)))
