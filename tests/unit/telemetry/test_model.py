"""Reports are judged before they become figures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.units import Joules, Watts
from heroes_telemetry.model import Bounds, read

GOOD: dict[str, Any] = {
    "format": "heroes-energy",
    "version": 1,
    "program": "earl-run 1.0",
    "complete": True,
    "energy_j": 1000.0,
    "method": "model:cpu-time",
    "uncertainty": 0.25,
    "cpu_s": 8.0,
    "cpu_source": "rusage",
    "elapsed_s": 5.0,
    "max_rss_kib": 4096,
    "events": ["task-clock"],
}
BOUNDS = Bounds(watts=Watts(300), nodes=1, elapsed_s=5.0, cpus=2)


def test_a_sensible_report_is_taken() -> None:
    """Energy, method and uncertainty come through, and the metrics with their units."""
    reading = read(GOOD, BOUNDS)
    assert reading.energy is not None
    assert (reading.energy.joules, reading.energy.method, reading.energy.uncertainty) == (
        Joules(1000),
        "model:cpu-time",
        0.25,
    )
    assert reading.metrics == {"cpu_time": (8.0, "s"), "elapsed": (5.0, "s"), "max_rss": (4.0, "MiB")}
    assert reading.note == ""


def test_tasks_are_added() -> None:
    """A report of several tasks is their sum."""
    reading = read({**GOOD, "tasks": [GOOD, GOOD]})
    assert reading.energy is not None
    assert reading.energy.joules == Joules(2000)
    assert reading.metrics["cpu_time"] == (16.0, "s")


def test_more_than_a_node_can_take_is_cut() -> None:
    """A figure beyond maximum power times time is cut to that, told so, and given a wide uncertainty."""
    reading = read({**GOOD, "energy_j": 1e9}, BOUNDS)
    assert reading.energy is not None
    assert reading.energy.joules == BOUNDS.joules == Joules(1800)
    assert reading.energy.method == "model:cpu-time, capped"
    assert reading.energy.uncertainty == 0.5
    assert "1 nodes" in reading.note


def test_two_nodes_may_take_twice_as_much() -> None:
    """The bound grows with the nodes."""
    reading = read({**GOOD, "energy_j": 3000.0}, Bounds(Watts(300), 2, 5.0))
    assert reading.energy is not None
    assert reading.energy.joules == Joules(3000)


def test_more_cpu_time_than_cpus_is_noted() -> None:
    """CPU time that the allocated CPUs cannot have given is told."""
    assert "more than 2 CPUs" in read({**GOOD, "cpu_s": 100.0}, BOUNDS).note


def test_a_checkpoint_is_noted() -> None:
    """A figure of a job that was killed is told to be of a part of it."""
    assert "checkpoint" in read({**GOOD, "complete": False}, BOUNDS).note


def test_unknown_energy_stays_unknown() -> None:
    """Metrics are kept where the watts of a node are not known."""
    reading = read({**GOOD, "energy_j": None, "method": "none"}, BOUNDS)
    assert reading.energy is None
    assert reading.metrics["cpu_time"] == (8.0, "s")


@pytest.mark.parametrize("forged", [{}, {"tasks": 5}, {"tasks": []}, {**GOOD, "cpu_s": "x"}, {**GOOD, "energy_j": -1}])
def test_a_forged_report_gives_nothing(forged: dict[str, Any]) -> None:
    """What is no report gives no figure and says why."""
    reading = read(forged, BOUNDS)
    assert reading.energy is None
    assert reading.metrics == {}
    assert reading.note


@given(
    st.dictionaries(
        st.sampled_from(sorted([*GOOD, "tasks"])), st.one_of(st.none(), st.floats(), st.text(), st.lists(st.none()))
    )
)
def test_no_report_can_hurt(changes: dict[str, Any]) -> None:
    """Whatever a report holds, the figure is within the bounds or there is none."""
    reading = read({**GOOD, **changes}, BOUNDS)
    assert reading.energy is None or 0 <= reading.energy.joules.value <= 1.05 * BOUNDS.joules.value
