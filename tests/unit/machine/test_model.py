"""The scheduler's pure rules, and its book."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes_spawners.machine.book import Book
from heroes_spawners.machine.model import (
    Batch,
    Machine,
    Queue,
    Request,
    final_state,
    memory_limit,
    plan,
    refusal,
    verdict,
)
from heroes_spawners.site import Refusal, State

MACHINE = Machine(Path("/m"), 4, (Queue("small", 1, 1000), Queue("large", 4, 4000, max_jobs=3)))


def batch(job_id: int, queue: str = "large", cpus: int = 1, **more: object) -> Batch:
    """A job of the book."""
    made = Batch(job_id, f"key{job_id}", 1, queue, cpus, 0, 60)
    return replace(made, **more)  # type: ignore[arg-type]


def test_settings_survive_their_file() -> None:
    """What is written is what is read."""
    assert Machine.from_json(MACHINE.to_json()) == MACHINE


def test_jobs_start_in_order_while_they_fit() -> None:
    """Three CPUs of four: the third job waits for resources, whoever follows for its turn."""
    pending = [batch(1, cpus=2), batch(2, cpus=1), batch(3, cpus=2), batch(4, cpus=1)]
    assert plan(MACHINE, [], pending) == {1: "", 2: "", 3: "Resources", 4: "Priority"}


def test_a_queue_at_its_limit_holds_back_only_itself() -> None:
    """The small queue is full; the large one starts its job."""
    assert plan(MACHINE, [batch(1, "small")], [batch(2, "small"), batch(3)]) == {2: "Resources", 3: ""}


def test_a_wide_job_is_not_overtaken() -> None:
    """A job that needs the whole machine makes later ones wait, in every queue."""
    pending = [batch(2, cpus=4), batch(3, "small")]
    assert plan(MACHINE, [batch(1)], pending) == {2: "Resources", 3: "Priority"}


def test_two_submissions_of_one_attempt_never_run_together() -> None:
    """The second waits for the first, as SLURM's singleton does."""
    pending = [batch(2, key="key1"), batch(3, key="key1")]
    assert plan(MACHINE, [batch(1)], pending) == {2: "Dependency", 3: "Dependency"}
    assert plan(MACHINE, [], pending) == {2: "", 3: "Dependency"}


def test_a_queue_that_is_gone_keeps_its_jobs_waiting() -> None:
    """A job of a queue that the settings no longer have is not started."""
    assert plan(MACHINE, [], [batch(1, "old")]) == {1: "PartitionDown"}


@given(st.lists(st.tuples(st.sampled_from(["small", "large"]), st.integers(1, 4)), max_size=12), st.integers(0, 12))
def test_no_limit_is_ever_passed(wanted: list[tuple[str, int]], cut: int) -> None:
    """Whatever is asked, the CPUs of queues and machine are never exceeded, and every job has a reason or starts."""
    jobs = [batch(number, queue, cpus) for number, (queue, cpus) in enumerate(wanted, 1)]
    running: list[Batch] = []
    for job in jobs[:cut]:
        if not plan(MACHINE, running, [job])[job.job_id]:
            running.append(job)
    pending = jobs[cut:]
    reasons = plan(MACHINE, running, pending)
    assert set(reasons) == {job.job_id for job in pending}
    all_running = running + [job for job in pending if not reasons[job.job_id]]
    assert sum(job.cpus for job in all_running) <= MACHINE.cpus
    for queue in MACHINE.queues:
        assert sum(job.cpus for job in all_running if job.queue == queue.name) <= queue.cpus


def test_refusals_say_what_was_asked() -> None:
    """Nodes, GPUs, CPUs, memory and walltime have a limit each; a full queue is only for now."""
    request = Request("k", 1, "large", 1, 0, 60)
    assert refusal(MACHINE, request, 0) is None
    for change, said in (({"nodes": 2}, "2 nodes"), ({"gpus": 1}, "1 GPUs"), ({"cpus": 5}, "5 CPUs")):
        refused = refusal(MACHINE, replace(request, **change), 0)
        assert refused is not None
        assert refused[0] is Refusal.PERMANENT
        assert said in refused[1]
    full = refusal(MACHINE, request, 3)
    assert full is not None
    assert full[0] is Refusal.LIMIT


@pytest.mark.parametrize(
    ("rss", "now", "state"),
    [(10, 159, None), (10, 161, State.TIMEOUT), (1010, 150, None), (1030, 150, State.OUT_OF_MEMORY)],
)
def test_a_job_over_its_limits_must_end(rss: float, now: float, state: State | None) -> None:
    """Memory a little over the limit is let go on; time is exact."""
    job = batch(1, started_at=100.0)
    assert memory_limit(MACHINE, job) == 1000
    assert verdict(MACHINE, job, rss, now) is state


def test_how_a_job_ended() -> None:
    """By what killed it; else by its exit code."""
    assert final_state(batch(1), 0) is State.COMPLETED
    assert final_state(batch(1), 1) is State.FAILED
    assert final_state(batch(1, doom=State.CANCELLED), 143) is State.CANCELLED


def test_the_book_takes_a_submission_once(tmp_path: Path) -> None:
    """The same key and number is the same job; ids are never given again, even after forgetting."""
    book = Book(tmp_path / "book")
    first = book.add(Request("a", 1, "small", 1, 0, 60), 10.0)
    assert book.add(Request("a", 1, "small", 1, 0, 60), 11.0) == first
    second = book.add(Request("a", 2, "small", 1, 0, 60), 12.0)
    book.change(second, state=State.COMPLETED)
    book.forget(["a"])
    assert [job.job_id for job in book.of(["a"])] == [first]
    assert book.add(Request("b", 1, "small", 1, 0, 60), 13.0) > second
    book.close()


def test_uids_are_given_once(tmp_path: Path) -> None:
    """A person keeps its uid over a restart, and nobody else gets it."""
    book = Book(tmp_path / "book")
    assert [book.uid(name, 200000) for name in ("a/x", "b/x", "a/x")] == [200000, 200001, 200000]
    book.close()
    book = Book(tmp_path / "book")
    assert book.uid("c/y", 200000) == 200002
    book.close()
