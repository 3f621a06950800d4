"""One place against one workflow: constraints with their way out, shapes that are billed, figures that add up."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from heroes.api.units import Money, PowerModel, PriceModel, Watts
from heroes_applications.model import StepPlan
from heroes_clusters.model import Cluster, Place, Queue
from heroes_decision import history, places
from heroes_decision.history import Job
from heroes_decision.model import Spread, Terms
from heroes_decision.places import Here
from heroes_spawners.site import Image, Shape

QUEUE = Queue(
    name="cpu", price=PriceModel(per_core_hour=Decimal("0.36"), per_gib_moved=Decimal(1)),
    power=PowerModel(idle=Watts(100), busy=Watts(300), source="data sheet"), pue=1.5, carbon_g_per_kwh=200,
    max_walltime_s=7200, nodes=4, cpus_per_node=8, memory_mib_per_node=16000, kill_wait_s=30, priced=True,
)  # fmt: skip
CLUSTER = Cluster("alpha", "acme", "slurm", "centre", {"python": "/usr/bin/python3", "applications": ["openfoam"]})


def here(cluster: Cluster = CLUSTER, **queue: Any) -> Here:
    held = replace(QUEUE, **queue)
    return Here(Place(cluster, held), Terms(held.price, held.power, held.pue, held.carbon_g_per_kwh, "EUR"), 32, 32)


def plan(name: str = "solve", needs: tuple[str, ...] = (), index: int = 0, **changes: Any) -> StepPlan:
    shape = Shape(**{"tasks": 2, "walltime_s": 600, "memory_mib": 1000} | changes.pop("shape", {}))
    values: dict[str, Any] = {
        "name": name, "index": index, "fanned": False, "argv": ("true",), "variables": {}, "shape": shape, "inputs": (),
        "files": (), "outputs": (), "needs": needs, "requires": (), "modules": (), "environments": (), "image": None,
        "parallel": False,
    }  # fmt: skip
    return StepPlan(**values | changes)


def figures(
    at: Here, one: StepPlan, moved: int = 0, rings: dict[str, list[list[float]]] | None = None
) -> places.JobFigures:
    told = history.known(rings or {}, places.ring_job("acme", "ada", "cavity", one))
    waits = {free: history.wait({}, "alpha", "cpu", free) for free in (True, False)}
    return places.job_figures(at, one, told, waits, moved)


@pytest.mark.parametrize(
    ("asked", "place", "constraint", "way_out"),
    [
        ({"shape": {"nodes": 5, "tasks": 5}}, here(), "nodes", "4 nodes"),
        ({"shape": {"tasks": 9}}, here(), "cores", "8 cores on a node"),
        ({"shape": {"cpus_per_task": 16, "tasks": 1}}, here(), "cores", "8 cores"),
        ({"shape": {"tasks": 8}}, here(max_cores=4), "cores", "4 cores"),
        ({"shape": {"memory_mib": 20000}}, here(), "memory", "16000 MiB"),
        ({"shape": {"gpus": 1}}, here(), "gpus", "0 GPUs"),
        ({"shape": {"walltime_s": 9000}}, here(), "walltime", "7200 seconds"),
        ({"requires": ("gromacs",)}, here(), "application", "gromacs"),
        ({"environments": ("python",)}, here(replace(CLUSTER, capabilities={})), "environment", "another place"),
        ({"image": Image("/x.sqfs", "sha256:0")}, here(), "container", "Charliecloud"),
    ],
)
def test_a_constraint_tells_the_smallest_change(
    asked: dict[str, Any], place: Here, constraint: str, way_out: str
) -> None:
    """Each refusal names its constraint and what would admit the job."""
    no = places.refuse(place, [plan(), plan("late", **asked)])
    assert no is not None
    assert no.constraint == constraint
    assert way_out in no.change
    assert "late" in no.reason


def test_what_fits_is_not_refused() -> None:
    """A job within every limit, with software that is there."""
    assert places.refuse(here(), [plan(requires=("openfoam",), environments=("python",))]) is None


def test_a_closed_place_tells_why() -> None:
    """Drained, in maintenance or unreachable comes before anything else."""
    closed = replace(here(), place=Place(CLUSTER, QUEUE, "alpha is drained"))
    no = places.refuse(closed, [plan()])
    assert no is not None
    assert no.reason == "alpha is drained"


@pytest.mark.parametrize(
    ("place", "shape", "cores"),
    [
        (here(), Shape(tasks=2), 2),
        (here(), Shape(tasks=1, memory_mib=8000), 4),
        (here(exclusive=True), Shape(nodes=2, tasks=2), 16),
        (here(), Shape(nodes=2, tasks=6), 6),
    ],
)
def test_the_allocated_shape_is_what_counts(place: Here, shape: Shape, cores: int) -> None:
    """Memory raises cores, exclusive queues give whole nodes."""
    assert places.allocation(place, shape).cores == cores


def test_the_worst_case_covers_what_the_site_adds() -> None:
    """Limit, overrun, kill wait and boot, times the cores; every GiB that may be moved."""
    one = plan(shape={"tasks": 1, "walltime_s": 3600, "memory_mib": 0})
    at = here(over_time_limit_s=60, kill_wait_s=30, boot_s=90)
    reservation = places.worst_case(at, one, moved_bytes=2**30)
    assert reservation.amount == Money(micros=378_000 + 1_000_000)
    assert reservation.lines == {"core-hours": 378_000, "gib-moved": 1_000_000}
    assert reservation.provider == "centre"
    assert (reservation.cores, reservation.nodes) == (1, 1)
    assert (reservation.power, reservation.cpus_per_node) == (at.place.queue.power, at.place.queue.cpus_per_node)


def test_slurm_gives_whole_minutes() -> None:
    """61 s are reserved as two minutes on SLURM, and as they are on the machine itself."""
    one = plan(shape={"tasks": 1, "walltime_s": 61, "memory_mib": 0})
    own = here(replace(CLUSTER, kind="machine"), kill_wait_s=0)
    assert places.worst_case(here(kill_wait_s=0), one, 0).amount == Money(micros=12_000)
    assert places.worst_case(own, one, 0).amount == Money(micros=6_100)


def test_a_prediction_never_exceeds_its_reservation() -> None:
    """The 95 % quantile of cost is within the worst case, at any place."""
    for at in (here(), here(speed=0.2), here(exclusive=True), here(boot_s=100)):
        made = figures(at, plan(), moved=2**30)
        assert made.cost.q95 <= made.reservation.amount.micros
        assert made.run.q95 <= 600


def test_no_prediction_of_energy_exceeds_what_is_reserved_for_it() -> None:
    """Where energy is paid for and past jobs drew more than modelled, the prediction stays below the worst case and
    below what the nodes can take."""
    at = here(replace(CLUSTER, kind="machine"), price=PriceModel(per_kwh=Decimal("0.3")), kill_wait_s=0)
    one = plan(shape={"tasks": 8})
    rings = {name: [[1.0, 10.0, 0.5]] * 60 for name in places.ring_job("acme", "ada", "cavity", one).keys().values()}
    made = figures(at, one, rings=rings)
    assert made.energy.q95 == 300 * 600
    assert made.cost.q95 <= made.reservation.amount.micros


def test_a_faster_machine_takes_less_time_and_money() -> None:
    """Twice the speed is half the run time and half the cost per core-hour."""
    slow, fast = figures(here(), plan()), figures(here(speed=2.0), plan())
    assert fast.run.q50 == pytest.approx(slow.run.q50 / 2)
    assert fast.cost.q50 == pytest.approx(slow.cost.q50 / 2, abs=1)


def test_history_moves_the_prediction() -> None:
    """Jobs of the class that used a tenth of their limit bring the median there."""
    key = Job("acme", "ada", "cavity", "solve", 2).keys()["class"]
    made = figures(here(), plan(), rings={key: [[0.1, 1.0, 0.5]] * 30})
    assert made.run.q50 == pytest.approx(60, abs=3)
    assert made.known.level == "class"


def test_steps_add_along_the_longest_path_and_money_over_all() -> None:
    """Two steps side by side count once in time, each in money; the third follows."""
    jobs = [figures(here(), each) for each in (plan("a"), plan("b"), plan("c", needs=("a", "b")))]
    whole = places.workflow_figures(here(), jobs)
    assert whole.run.q50 == pytest.approx(2 * jobs[0].run.q50)
    assert whole.cost.q50 == pytest.approx(3 * jobs[0].cost.q50)
    assert whole.energy.q50 == pytest.approx(3 * jobs[0].energy.q50)


def test_a_fan_out_runs_in_rounds() -> None:
    """Forty jobs of two cores on 32 cores take three rounds, on a queue that admits one at a time forty."""
    jobs = [figures(here(), plan("many", index=n)) for n in range(40)]
    one = jobs[0].run.q50
    assert places.workflow_figures(here(), jobs).run.q50 == pytest.approx(3 * one)
    assert places.workflow_figures(here(max_jobs=1), jobs).run.q50 == pytest.approx(40 * one)


def test_a_deadline_needs_nine_of_ten() -> None:
    """The 90 % quantile decides, and the way out says how long it needs."""
    whole = places.workflow_figures(here(), [figures(here(), plan())])
    assert places.late(whole, whole.time.at(0.9) + 1) is None
    no = places.late(whole, whole.time.at(0.9) - 1)
    assert no is not None
    assert "Allow" in no.change


def test_too_dear_says_by_how_much() -> None:
    """At most five, at worst six: the way out is six."""
    assert places.dear(Money.of(5), Money.of(5)) is None
    no = places.dear(Money.of(6), Money.of(5))
    assert no is not None
    assert no.change == "Allow 6.00 EUR."


def test_measured_transfers_replace_the_assumed_ones() -> None:
    """100 MiB at a measured 100 MiB/s take about a second and the beginning."""
    measured = figures(replace(here(), speed_bps=2.0**20 * 100), plan(), moved=100 * 2**20)
    assert measured.transfer.q50 == pytest.approx(2.0)
    assert figures(here(), plan()).transfer == Spread.exactly(0)
