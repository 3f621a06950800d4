"""How a run goes on: what begins, what is given up, how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes_jobs.model import FINAL, Phase
from heroes_workflows.machine import (
    ENDED,
    JobState,
    RunState,
    StepCount,
    end_of_run,
    first,
    given_up,
    job_state,
    released,
)


def step(name: str, *needs: str, jobs: int = 1, **counts: int) -> StepCount:
    """A step of a run."""
    return StepCount(name, needs, jobs, started=bool(counts), **counts)  # type: ignore[arg-type]


def test_every_phase_has_a_state() -> None:
    """What ends an attempt for good ends its job, and nothing else does."""
    assert {phase for phase in Phase if job_state(phase) in ENDED} == FINAL
    assert job_state(Phase.LOST) is JobState.FAILED


def test_steps_without_needs_are_first() -> None:
    """A run begins with every step that needs no other."""
    assert first([step("a"), step("b", "a"), step("c")]) == ["a", "c"]


def test_a_step_is_released_by_the_last_job_it_waits_for() -> None:
    """Every job of every step that it needs must be done."""
    a, b = step("a", jobs=2, done=1), step("b", done=1)
    last = step("last", "a", "b")
    assert released([a, b, last]) == []
    assert released([replace(a, done=2), b, last]) == ["last"]
    assert released([replace(a, done=2), b, replace(last, started=True)]) == []
    assert released([replace(a, done=2), b, replace(last, void=True)]) == []


def test_a_failure_gives_up_what_depends_on_it() -> None:
    """At any distance; steps beside it go on."""
    steps = [step("a", failed=1), step("b", "a"), step("c", "b"), step("d"), step("e", "d")]
    assert given_up(steps) == ["b", "c"]
    assert released(steps) == ["d"]


def test_a_cancelled_step_is_not_released() -> None:
    """A step whose jobs were cancelled while they waited stays so when what it needed is done."""
    assert released([step("a", done=1), StepCount("b", ("a",), 1, cancelled=1)]) == []


def test_one_failed_job_of_many_is_enough() -> None:
    """A step with a failed or cancelled job releases nobody, whatever its other jobs do."""
    assert given_up([step("a", jobs=3, done=2, cancelled=1), step("b", "a")]) == ["b"]
    assert given_up([step("a", jobs=3, done=2), step("b", "a")]) == []


@pytest.mark.parametrize(
    ("count", "state"),
    [
        (step("a"), JobState.WAITING),
        (step("a", jobs=2, done=1), JobState.RUNNING),
        (step("a", jobs=2, done=2), JobState.DONE),
        (step("a", jobs=2, done=1, failed=1), JobState.FAILED),
        (step("a", jobs=2, failed=1, cancelled=1), JobState.FAILED),
        (step("a", jobs=2, done=1, cancelled=1), JobState.CANCELLED),
        (step("a", jobs=3, failed=1), JobState.RUNNING),
        (StepCount("a", ("b",), 1, void=True), JobState.VOID),
    ],
)
def test_a_step_stands_as_its_jobs_do(count: StepCount, state: JobState) -> None:
    """A step's state follows from its counts."""
    assert count.state is state


@pytest.mark.parametrize(
    ("failed", "cancelled", "stopped", "state"),
    [
        (0, 0, False, RunState.DONE),
        (1, 0, False, RunState.FAILED),
        (1, 3, False, RunState.FAILED),
        (0, 1, False, RunState.CANCELLED),
        (1, 1, True, RunState.CANCELLED),
        (0, 0, True, RunState.CANCELLED),
    ],
)
def test_how_a_run_ends(failed: int, cancelled: int, stopped: bool, state: RunState) -> None:
    """Whoever cancelled it wins; then a failure; then a job that was cancelled elsewhere."""
    assert end_of_run(failed, cancelled, stopped=stopped) is state


@st.composite
def graphs(draw: st.DrawFn) -> list[StepCount]:
    """Steps each of which needs some before it."""
    steps: list[StepCount] = []
    for number in range(draw(st.integers(1, 8))):
        needs = draw(st.sets(st.sampled_from([each.name for each in steps]))) if steps else set()
        steps.append(StepCount(f"s{number}", tuple(sorted(needs)), draw(st.integers(1, 3))))
    return steps


@given(graphs(), st.randoms(use_true_random=False), st.floats(0, 1))
def test_every_run_ends(steps: list[StepCount], random: object, risk: float) -> None:
    """Whatever fails, each step either begins once or is given up, and none is left waiting."""
    known = {each.name: replace(each, started=each.name in first(steps)) for each in steps}
    begun: list[str] = first(steps)
    while live := [each for each in known.values() if each.started and each.done + each.failed < each.jobs]:
        one = live[0]
        failed = random.random() < risk  # type: ignore[attr-defined]
        known[one.name] = replace(one, failed=one.failed + 1) if failed else replace(one, done=one.done + 1)
        if failed:
            for name in given_up(known.values()):
                known[name] = replace(known[name], void=True)
        elif known[one.name].complete:
            for name in released(known.values()):
                begun.append(name)
                known[name] = replace(known[name], started=True)
    assert all(each.state in ENDED for each in known.values())
    assert len(begun) == len(set(begun)) == sum(each.started for each in known.values())
