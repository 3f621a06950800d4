"""Enrolling, queues and prices, who may use what, health, and what administrators switch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heroes.api import clusters as api
from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.units import PowerModel, PriceModel, Watts
from heroes_clusters import ports, service, store
from heroes_clusters.model import Agreement, Cluster, Maintenance, Queue, stopped
from tests.conftest import StillClock
from tests.unit.clusters.conftest import FACTS, HOST_KEY, PRICE, Platform


def enrolment(**changed: Any) -> dict[str, Any]:
    """The fields of a request to enrol."""
    wanted = {"name": "alpha", "host": "login.example", "user": "svc", "service_account": "acc", "host_key": HOST_KEY}
    return {**wanted, **changed}


def test_enrolling_waits_for_the_probe(platform: Platform) -> None:
    """The API keeps what is to be probed; nothing runs there before the engine has done it."""
    platform.ask(api.ADD_ACCOUNT, name="acc")
    shown = platform.ask(api.ENROL, **enrolment(queues={"cpu": {"price": PRICE}}))
    assert (shown.status, shown.organisation, shown.provider, shown.kind) == ("probing", "acme", "acme", "slurm")
    assert platform.places() == {"alpha/cpu": "alpha is being probed"}
    with platform.database.read() as work:
        assert store.due_probes(work) == ["alpha"]


def test_a_probe_makes_a_cluster_ready(platform: Platform) -> None:
    """Its partitions become queues; those without a price stay closed until somebody sets one."""
    platform.ready()
    assert platform.places() == {"alpha/cpu": "", "alpha/gpu": "no price is set for alpha/gpu yet"}
    with platform.database.read() as work:
        place = service.place(work, "acme", "alpha", "cpu")
    assert (place.queue.nodes, place.queue.cpus_per_node, place.queue.kill_wait_s) == (4, 8, 3)
    assert (place.queue.max_walltime_s, place.queue.price.per_core_hour) == (14400, PRICE.per_core_hour)
    assert place.cluster.capabilities["applications"] == ["openfoam"]


def test_terms_of_the_administrator_win_over_the_probe(platform: Platform) -> None:
    """What was set at enrolment stays; the rest is taken from the partition."""
    one = platform.enrol(queues={"fast": {"partition": "cpu", "price": PRICE, "max_walltime_s": 600, "speed": 1.5}})
    with platform.database.write() as work:
        service.probed(work, one, FACTS)
        queue = service.queues(work, "alpha")["fast"]
    assert (queue.max_walltime_s, queue.speed, queue.nodes, queue.cpus_per_node) == (600, 1.5, 4, 8)
    assert set(platform.places()) == {"alpha/fast", "alpha/gpu"}


def test_a_refused_cluster_says_why(platform: Platform) -> None:
    """The reason is shown, and nothing is placed there."""
    one = platform.enrol()
    with platform.database.write() as work:
        service.refused(work, one, "jobs cannot be isolated")
    shown = platform.ask(api.SHOW, cluster_id="alpha")
    assert (shown.status, shown.reason) == ("refused", "jobs cannot be isolated")


def test_a_probe_of_what_was_changed_meanwhile_is_dropped(platform: Platform) -> None:
    """Facts of an older state are not kept for a newer one."""
    one = platform.ready()
    with platform.database.write() as work, pytest.raises(Conflict):
        service.probed(work, replace(one, revision=one.revision - 1), FACTS)


def test_names_are_never_given_again(platform: Platform) -> None:
    """Not while a cluster has it, and not after it was deleted; case does not make another name."""
    platform.ready()
    platform.ask(api.CHANGE, cluster_id="alpha", drained=True)
    platform.ask(api.REMOVE, cluster_id="alpha")
    for name in ("alpha", "Alpha"):
        with pytest.raises(Conflict):
            platform.enrol(name, account="alpha-account")
    assert platform.places() == {}


def test_a_cluster_that_takes_jobs_is_not_deleted(platform: Platform) -> None:
    """It is drained first."""
    platform.ready()
    with pytest.raises(Conflict) as refused:
        platform.ask(api.REMOVE, cluster_id="alpha")
    assert "Drain" in refused.value.hint


def test_a_cluster_with_jobs_is_not_deleted(platform: Platform) -> None:
    """A drained one goes when its jobs have ended: nobody could follow or settle them."""
    platform.ready()
    platform.ask(api.CHANGE, cluster_id="alpha", drained=True)
    ports.provide_occupied(lambda _work, name: name == "alpha")
    try:
        with pytest.raises(Conflict, match="jobs that have not ended") as refused:
            platform.ask(api.REMOVE, cluster_id="alpha")
    finally:
        ports.provide_occupied(ports.no_jobs)
    assert "cancel their runs" in refused.value.hint
    platform.ask(api.REMOVE, cluster_id="alpha")


def test_enrolling_again_with_the_same_key_makes_one(platform: Platform) -> None:
    """An idempotency key makes a repeated request harmless."""
    platform.ask(api.ADD_ACCOUNT, name="acc")
    first = platform.ask(api.ENROL, key="k1", **enrolment())
    assert platform.ask(api.ENROL, key="k1", **enrolment()) == first
    assert len(platform.ask(api.LIST).items) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "a b"}, {"name": "-x"}, {"host": "-oProxyCommand=x"}, {"host": "a;b"}, {"user": "a b"}, {"user": "-x"},
        {"port": 0}, {"base": "relative"}, {"base": "/a b"}, {"base": "/a%x"}, {"host_key": "nonsense"},
        {"queues": {"cpu": {"pue": 0.5}}}, {"queues": {"cpu": {"price": {"per_core_hour": "-1"}}}},
        {"queues": {"cpu": {"options": ["--output=/x"]}}}, {"queues": {"a/b": {}}},
    ],
)  # fmt: skip
def test_what_cannot_be_a_cluster_is_refused(platform: Platform, changed: dict[str, Any]) -> None:
    """Names, hosts, folders and options are plain; figures are in range."""
    platform.ask(api.ADD_ACCOUNT, name="acc")
    with pytest.raises(InvalidSpec):
        platform.ask(api.ENROL, **enrolment(**changed))


def test_prices_are_versioned(everywhere: Platform) -> None:
    """A new price is the next version; the same one again is not; the older ones stay."""
    everywhere.ready()
    dearer = PriceModel(per_core_hour="0.02")
    for price, version in ((PRICE, 1), (dearer, 2), (dearer, 2), (PRICE, 3)):
        shown = everywhere.ask(api.SET_QUEUE, cluster_id="alpha", queue="cpu", price=price.model_dump(mode="json"))
        (queue,) = (queue for queue in shown.queues if queue.name == "cpu")
        assert (queue.price.version, queue.price.per_core_hour) == (version, price.per_core_hour)
    with everywhere.database.read() as work:
        assert store.highest_price_version(work, "alpha", "cpu") == 3


def test_a_queue_that_is_offered_again_goes_on_counting(everywhere: Platform) -> None:
    """A price version is never used twice."""
    everywhere.ready()
    everywhere.ask(api.REMOVE_QUEUE, cluster_id="alpha", queue="cpu")
    assert "alpha/cpu" not in everywhere.places()
    shown = everywhere.ask(api.SET_QUEUE, cluster_id="alpha", queue="cpu", price={"per_core_hour": "0.05"})
    (queue,) = (queue for queue in shown.queues if queue.name == "cpu")
    assert (queue.price.version, queue.nodes) == (2, 4)


def test_every_term_of_a_queue_can_be_set(everywhere: Platform) -> None:
    """Power, PUE, grid, speed and limits come back as they were set; others stay."""
    everywhere.ready()
    terms = {
        "power": {"idle": 90, "busy": 350, "source": "meter"}, "pue": 1.2, "grid_zone": "ES", "carbon_g_per_kwh": 150,
        "speed": 2.0, "max_jobs": 10, "max_cores": 64, "options": ["--account=abc"], "max_walltime_s": 600,
    }  # fmt: skip
    everywhere.ask(api.SET_QUEUE, cluster_id="alpha", queue="cpu", **terms)
    everywhere.ask(api.SET_QUEUE, cluster_id="alpha", queue="cpu", pue=1.3)
    with everywhere.database.read() as work:
        queue = service.place(work, "acme", "alpha", "cpu").queue
    assert queue.power == PowerModel(idle=Watts(90), busy=Watts(350), source="meter")
    assert (queue.pue, queue.grid_zone, queue.speed, queue.max_jobs, queue.max_cores) == (1.3, "ES", 2.0, 10, 64)
    assert (queue.options, queue.nodes, queue.price.version) == (("--account=abc",), 4, 1)


def test_a_queue_names_a_partition_that_is_there(platform: Platform) -> None:
    """A queue on a partition that the probe did not see is refused, naming those that there are."""
    platform.ready()
    with pytest.raises(InvalidSpec) as refused:
        platform.ask(api.SET_QUEUE, cluster_id="alpha", queue="new", partition="nope")
    assert "cpu, gpu" in refused.value.hint


def test_clusters_belong_to_their_organisation(platform: Platform) -> None:
    """Another organisation sees neither cluster nor queue, and may change nothing."""
    platform.ready()
    other = platform.caller("umbrella")
    assert platform.places("umbrella") == {}
    assert platform.ask(api.LIST, other).items == ()
    for operation, fields in (
        (api.SHOW, {}), (api.REMOVE, {}), (api.CHANGE, {"disabled": True}), (api.PROBE, {}),
        (api.SET_QUEUE, {"queue": "cpu"}), (api.REMOVE_QUEUE, {"queue": "cpu"}),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            platform.ask(operation, other, cluster_id="alpha", **fields)
    with platform.database.read() as work, pytest.raises(NotFound):
        service.place(work, "umbrella", "alpha", "cpu")


def test_one_account_serves_one_organisation(platform: Platform) -> None:
    """A queue of a centre cannot be shown to another organisation than its account's."""
    platform.ready()
    with pytest.raises(InvalidSpec) as refused:
        platform.ask(api.SET_QUEUE, cluster_id="alpha", queue="cpu", visible_to=["acme", "umbrella"])
    assert "one account" in refused.value.message


def test_users_see_what_they_may_use_and_not_how_it_is_reached(platform: Platform) -> None:
    """Host, account and folder are shown to administrators only."""
    platform.ready()
    user = platform.caller("acme", "submit")
    shown = platform.ask(api.SHOW, user, cluster_id="alpha")
    assert (shown.host, shown.user, shown.service_account) == ("", "", "")
    assert platform.ask(api.SHOW, cluster_id="alpha").host == "login.example"
    with pytest.raises(NotAllowed):
        platform.ask(api.CHANGE, user, cluster_id="alpha", disabled=True)


def test_a_provider_manages_what_it_is_paid_for(platform: Platform) -> None:
    """The provider of a cluster sets its prices; the organisation it serves uses it."""
    platform.ready(provider="depot")
    shown = platform.ask(
        api.SET_QUEUE, platform.caller("depot"), cluster_id="alpha", queue="gpu", price={"per_use": "1"}
    )
    assert shown.provider == "depot"
    assert platform.places()["alpha/gpu"] == ""
    assert platform.places("depot") == {}


def test_the_machine_itself_may_be_open_to_all(platform: Platform) -> None:
    """A configured machine runs each person's jobs as a user of its own: its queues are for everybody or for some."""
    machine = Cluster("here", "heroes", "machine", "heroes")
    queues = [Queue("small", price=PRICE, visible_to=("*",)), Queue("large", price=PRICE, visible_to=("umbrella",))]
    for _ in range(2):
        with platform.database.write() as work:
            service.configure(work, machine, queues)
    assert platform.places("acme") == {"here/small": ""}
    assert platform.places("umbrella") == {"here/large": "", "here/small": ""}
    with platform.database.read() as work:
        assert service.queues(work, "here")["small"].price.version == 1


def test_configuration_keeps_what_administrators_switched(platform: Platform) -> None:
    """A restart does not open a drained cluster; queues that the settings no longer name are gone."""
    machine = Cluster("here", "heroes", "machine", "heroes")
    with platform.database.write() as work:
        service.configure(work, machine, [Queue("small", price=PRICE, visible_to=("*",)), Queue("old", price=PRICE)])
    platform.ask(api.CHANGE, platform.caller("heroes"), cluster_id="here", drained=True)
    with platform.database.write() as work:
        service.configure(work, machine, [Queue("small", price=PRICE, visible_to=("*",))])
    assert "drained" in platform.places()["here/small"]


def test_agreements_narrow_what_may_be_used(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a platform keeps agreements, a queue needs one; "*" means every queue of a cluster."""
    platform.ready()
    platform.ready("beta")
    agreed = [Agreement("acme", "alpha", "cpu"), Agreement("acme", "beta")]
    monkeypatch.setattr(
        ports, "_agreements", [lambda _work, organisation: [a for a in agreed if a.organisation == organisation]]
    )
    assert set(platform.places()) == {"alpha/cpu", "beta/cpu", "beta/gpu"}
    monkeypatch.setattr(ports, "_agreements", [lambda _work, _organisation: []])
    assert platform.places() == {}


def test_switches_close_and_open_a_cluster(platform: Platform) -> None:
    """Disabled and drained clusters say so; a disabled one is not asked by the engine."""
    platform.ready()

    def served() -> list[str]:
        with platform.database.read() as work:
            return [one.name for one in service.served(work)]

    platform.ask(api.CHANGE, cluster_id="alpha", disabled=True)
    assert ("disabled" in platform.places()["alpha/cpu"], served()) == (True, [])
    platform.ask(api.CHANGE, cluster_id="alpha", disabled=False, drained=True)
    assert ("drained" in platform.places()["alpha/cpu"], served()) == (True, ["alpha"])
    platform.ask(api.CHANGE, cluster_id="alpha", drained=False)
    assert platform.places()["alpha/cpu"] == ""


def test_maintenance_closes_for_its_time(everywhere: Platform, clock: StillClock) -> None:
    """Closed from begin to end with its reason; cancelled by an administrator; a window in the past is refused."""
    everywhere.ready()
    begins, ends = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)
    window = {"begins": begins.isoformat(), "ends": ends.isoformat(), "reason": "cooling"}
    shown = everywhere.ask(api.CHANGE, cluster_id="alpha", maintenance=window)
    assert shown.maintenance.reason == "cooling"
    assert everywhere.places()["alpha/cpu"] == ""
    clock.advance(3700)
    assert "cooling" in everywhere.places()["alpha/cpu"]
    clock.advance(3600)
    assert everywhere.places()["alpha/cpu"] == ""
    with pytest.raises(InvalidSpec):
        everywhere.ask(api.CHANGE, cluster_id="alpha", maintenance=window)
    assert everywhere.ask(api.CHANGE, cluster_id="alpha", end_maintenance=True).maintenance is None


def test_silence_is_noted_once(everywhere: Platform, clock: StillClock) -> None:
    """ "Not reachable since" is the first time of silence; it clears when the cluster answers."""
    everywhere.ready()
    since = clock.now()
    with everywhere.database.write() as work:
        service.reached(work, "alpha", since, "time-out")
    clock.advance(600)
    with everywhere.database.write() as work:
        service.reached(work, "alpha", clock.now(), "time-out")
    assert everywhere.ask(api.SHOW, cluster_id="alpha").unreachable_since == since
    assert "not reachable since" in everywhere.places()["alpha/cpu"]
    with everywhere.database.write() as work:
        service.reached(work, "alpha", None)
        service.reached(work, "alpha", None)
    assert everywhere.places()["alpha/cpu"] == ""


def test_a_probe_can_be_asked_for_again(platform: Platform) -> None:
    """A ready cluster stays usable meanwhile; the machine itself is not probed so."""
    platform.ready()
    assert platform.ask(api.PROBE, cluster_id="alpha").status == "ready"
    with platform.database.write() as work:
        assert store.due_probes(work) == ["alpha"]
        service.configure(work, Cluster("here", "acme", "machine", "acme"), [])
    with pytest.raises(Conflict):
        platform.ask(api.PROBE, cluster_id="here")


def test_lists_come_in_pages(everywhere: Platform) -> None:
    """By name, a cursor leading on."""
    for name in ("a1", "a2", "a3"):
        everywhere.ready(name)
    first = everywhere.ask(api.LIST, limit=2)
    assert ([one.name for one in first.items], first.next) == (["a1", "a2"], "a2")
    rest = everywhere.ask(api.LIST, limit=2, after=first.next)
    assert ([one.name for one in rest.items], rest.next) == (["a3"], None)


def test_the_platform_manages_every_cluster(platform: Platform) -> None:
    """Whoever has platform:clusters sees and changes any."""
    platform.ready()
    mayor = platform.caller("heroes")
    assert [one.name for one in platform.ask(api.LIST, mayor).items] == ["alpha"]
    assert platform.ask(api.CHANGE, mayor, cluster_id="alpha", disabled=True).disabled


def test_a_drained_cluster_takes_what_was_planned_there_and_a_stopped_one_nothing() -> None:
    """Disabled, or in maintenance, nothing is handed over; drained, what was planned there still is."""
    at = datetime(2026, 3, 2, 12, tzinfo=UTC)
    one = Cluster("alpha", "acme", "slurm", "acme")
    window = Maintenance(at, at + timedelta(hours=1), "new switches")
    assert stopped(replace(one, drained=True), at) == ""
    assert "disabled" in stopped(replace(one, disabled=True), at)
    assert "new switches" in stopped(replace(one, maintenance=window), at)
    assert stopped(replace(one, maintenance=window), at + timedelta(hours=2)) == ""
