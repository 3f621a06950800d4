"""The reader of energy reports believes nothing: every field is bounded and typed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes_ear.report import MAX_BYTES, MAX_LINES, EnergyReport, read_report

GOOD = {
    "format": "heroes-energy",
    "version": 1,
    "program": "earl-run 1.0",
    "complete": True,
    "energy_j": 41.5,
    "idle_j": 20.0,
    "method": "model:cpu-time",
    "uncertainty": 0.25,
    "cpu_s": 2.0,
    "cpu_source": "rusage",
    "perf_cpu_s": 1.9,
    "elapsed_s": 2.5,
    "max_rss_kib": 2048,
    "events": ["task-clock"],
}


def text(**changes: Any) -> str:
    """A report with some fields changed."""
    return json.dumps({**GOOD, **changes}) + "\n"


def test_a_good_report_is_read() -> None:
    """Every field that is used comes out, in its unit."""
    assert read_report(text()) == EnergyReport(
        energy_j=41.5,
        method="model:cpu-time",
        uncertainty=0.25,
        cpu_s=2.0,
        cpu_source="rusage",
        elapsed_s=2.5,
        max_rss_mib=2.0,
        events=("task-clock",),
        complete=True,
        program="earl-run 1.0",
    )


def test_energy_may_be_unknown() -> None:
    """Unknown energy stays unknown and does not become nought."""
    assert read_report(text(energy_j=None)).energy_j is None


def test_several_lines_add_up() -> None:
    """Tasks of one job: sums, the longest time, and an uncertainty that does not shrink."""
    both = read_report(text() + "\n" + text(energy_j=8.5, cpu_s=1.0, elapsed_s=9.0, uncertainty=0.5, events=[]))
    assert both.energy_j == 50.0
    assert (both.cpu_s, both.elapsed_s, both.max_rss_mib) == (3.0, 9.0, 4.0)
    assert both.uncertainty == pytest.approx((0.25 * 41.5 + 0.5 * 8.5) / 50)
    assert both.events == ("task-clock",)


def test_one_task_without_energy_leaves_the_sum_unknown() -> None:
    """The energy of a job is not known when that of one of its tasks is not."""
    both = read_report(text() + text(energy_j=None, method="none", complete=False))
    assert both.energy_j is None
    assert both.method == "mixed"
    assert not both.complete


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "not an energy report"),
        ({"version": 2}, "version 2"),
        ({"energy_j": -1}, "energy_j"),
        ({"energy_j": 1e14}, "not between"),
        ({"energy_j": True}, "not a number"),
        ({"energy_j": "5"}, "not a number"),
        ({"cpu_s": None}, "cpu_s"),
        ({"uncertainty": 11}, "uncertainty"),
        ({"elapsed_s": 10**400}, "elapsed_s"),
        ({"method": ""}, "method"),
        ({"method": "x" * 81}, "method"),
        ({"method": "a\nb"}, "method"),
        ({"events": "task-clock"}, "events"),
        ({"events": ["e"] * 33}, "events"),
        ({"events": [1]}, "events"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], said: str) -> None:
    """A field that is missing, ill-typed or out of range is refused by name."""
    with pytest.raises(ValueError, match=said):
        read_report(text(**changes))


@pytest.mark.parametrize(
    "forged",
    ["", "\n\n", "null", "[]", "{", text(energy_j=1).replace("1,", "NaN,", 1), "[" * 100_000, "x" * (MAX_BYTES + 1)],
)
def test_what_is_no_report_is_refused(forged: str) -> None:
    """Text of any kind is refused by a ValueError and nothing else."""
    with pytest.raises(ValueError):
        read_report(forged)


def test_too_many_lines_are_refused() -> None:
    """The number of lines is bounded."""
    with pytest.raises(ValueError, match="lines"):
        read_report("{}\n" * (MAX_LINES + 1))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_field(field: str, value: Any) -> None:
    """Whatever stands in a field, the answer is a bounded report or a ValueError."""
    try:
        found = read_report(text(**{field: value}))
    except ValueError:
        return
    assert found.energy_j is None or 0 <= found.energy_j <= 1e13
    assert 0 <= found.uncertainty <= 10
