"""The machine itself as a site: real jobs through the daemon."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from heroes.api.errors import Conflict, SchedulerDown
from heroes_spawners.site import Accepted, Declined, Mount, Refusal, State, Submission
from tests.unit.machine.conftest import LONG_AGO, Rig, wait


def test_a_job_runs_and_is_accounted(rig: Rig) -> None:
    """State, exit code, CPUs and elapsed seconds with their fraction come from the scheduler's book."""
    job = rig.job("sh", "-c", "echo hello; sleep 0.3; exit 4")
    job_id = rig.submit(job)
    entry = rig.ended(job)
    assert (entry.state, entry.exit_code, entry.job_id) == (State.FAILED, 4, job_id)
    assert 0.3 <= entry.elapsed_s < 30
    assert entry.elapsed_s != int(entry.elapsed_s)
    assert (entry.cpus, entry.nodes) == (1, 1)
    assert rig.out(job) == "hello\n"


def test_a_poll_tells_records_and_starts_once(rig: Rig) -> None:
    """The record and the run claim of a job are news once, and the next cursor has none."""
    job = rig.job("true")
    job_id = rig.submit(job)
    rig.ended(job)
    news = rig.site.poll("")
    assert [(record.key, record.job_id, record.exit_code) for record in news.records] == [(job.key, job_id, 0)]
    assert news.started == {job.key: job_id}
    assert news.queue == ()
    assert news.load == {"small": (1, 1), "large": (4, 4)}
    again = rig.site.poll(news.cursor)
    assert (again.records, again.started) == ((), {})


def test_a_submission_is_taken_once(rig: Rig) -> None:
    """Handing the same submission over again answers the same job id, and nothing runs twice."""
    job = rig.job("sh", "-c", "echo ran >> log")
    job_id = rig.submit(job)
    assert rig.submit(job) == job_id
    rig.ended(job)
    assert rig.submit(job) == job_id
    assert len(rig.site.accounting([job.key], LONG_AGO)[job.key]) == 1
    claim = rig.site.status([job.key])[job.key]
    assert (claim.number, claim.job_id, claim.run_by) == (1, job_id, job_id)


def test_a_second_submission_of_an_attempt_that_ran_is_a_duplicate(rig: Rig) -> None:
    """The run claim keeps the attempt from running again under another number."""
    job = rig.job("sh", "-c", "echo ran >> log; cat log")
    rig.submit(job)
    rig.ended(job)
    second = rig.submit(job, 2)
    entry = rig.ended(job)
    assert (entry.job_id, entry.exit_code) == (second, 122)
    assert rig.out(job).count("ran") == 1


def test_a_queue_runs_what_fits(rig: Rig) -> None:
    """The queue of one CPU runs one job at a time, and says why the other waits; the wide queue is free meanwhile."""
    first, second = rig.job("sleep", "60"), rig.job("true")
    wide = rig.job("true", queue="large", cpus=2)
    rig.submit(first)
    rig.started(first)
    rig.submit(second)
    rig.submit(wide)
    assert rig.ended(wide).state is State.COMPLETED
    waiting = {queued.key: queued for queued in rig.site.poll("").queue}
    assert (waiting[second.key].state, waiting[second.key].reason) == (State.PENDING, "Resources")
    assert waiting[first.key].state is State.RUNNING
    rig.site.cancel([first.key], 1)
    assert rig.ended(second).state is State.COMPLETED


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"queue": "huge"}, "invalid partition 'huge': this machine has small, large"),
        ({"cpus": 2}, "2 CPUs asked, queue small gives 1"),
        ({"memory_mib": 4096}, "4096 MiB of memory asked"),
        ({"limit": 100000}, "100000 seconds of walltime asked"),
    ],
)
def test_what_a_queue_can_never_run_is_declined(rig: Rig, changes: dict[str, object], said: str) -> None:
    """The refusal is permanent and says what was asked and what the queue gives; its claim keeps the words."""
    job = rig.job("true", **changes)
    (answer,) = rig.site.submit([Submission(job)], 1)
    assert isinstance(answer, Declined)
    assert answer.kind is Refusal.PERMANENT
    assert said in answer.text


def test_a_full_queue_asks_to_wait(rig: Rig) -> None:
    """Above its maximum of jobs a queue declines for now, and takes what fits."""
    blocker = rig.job("sleep", "60", queue="large", cpus=4)
    rig.submit(blocker)
    batch = [Submission(rig.job("true", queue="large")) for _ in range(50)]
    answers = rig.site.submit(batch, 1)
    assert [isinstance(answer, Accepted) for answer in answers] == [True] * 49 + [False]
    assert isinstance(answers[-1], Declined)
    assert answers[-1].kind is Refusal.LIMIT


def test_walltime_is_enforced(rig: Rig) -> None:
    """A job over its limit ends as TIMEOUT, even when it ignores SIGTERM, with nothing of it left running."""
    job = rig.job("sh", "-c", "trap '' TERM; (trap '' TERM; sleep 61.25) & sleep 61.25", limit=1)
    rig.submit(job)
    entry = rig.ended(job)
    assert entry.state is State.TIMEOUT
    assert 1 <= entry.elapsed_s < 20
    assert not _running("61.25")


def _running(word: str) -> bool:
    found = (f"/proc/{name}/cmdline" for name in os.listdir("/proc") if name.isdigit())
    return any(word.encode() in _read(path) for path in found)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_too_much_memory_ends_a_job(rig: Rig) -> None:
    """A job that holds more memory than it asked for ends as OUT_OF_MEMORY."""
    hog = "import time; x = bytearray(300 * 2**20); x[::4096] = b'x' * len(x[::4096]); time.sleep(60)"
    job = rig.job("/usr/bin/env", "python3", "-c", hog, memory_mib=100)
    rig.submit(job)
    entry = rig.ended(job)
    assert entry.state is State.OUT_OF_MEMORY, rig.out(job, "stderr")
    assert entry.max_rss_mib > 100


def test_cancelling_is_idempotent(rig: Rig) -> None:
    """A running job, a waiting one and one that has ended are cancelled without an error, twice."""
    running, waiting, over = rig.job("sleep", "60"), rig.job("sleep", "60"), rig.job("true", queue="large")
    rig.submit(running)
    rig.started(running)
    for job in (waiting, over):
        rig.submit(job)
    rig.ended(over)
    for _ in range(2):
        rig.site.cancel([running.key, waiting.key, over.key], 1)
    states = [rig.ended(job).state for job in (running, waiting, over)]
    assert states == [State.CANCELLED, State.CANCELLED, State.COMPLETED]
    assert rig.entry(waiting).elapsed_s == 0


def test_giving_up_keeps_a_job_from_starting(rig: Rig) -> None:
    """A tombstone before the start: the job exits without running its program. After the start it is refused."""
    running, waiting = rig.job("sleep", "60"), rig.job("sh", "-c", "echo ran")
    rig.submit(running)
    rig.started(running)
    wait(lambda: rig.site.status([running.key])[running.key].run_by)
    rig.submit(waiting)
    assert rig.site.give_up([running.key, waiting.key], 1) == {running.key: False, waiting.key: True}
    rig.site.cancel([running.key], 1)
    assert rig.ended(waiting).exit_code == 122
    assert rig.out(waiting) == ""


def test_jobs_survive_a_death_of_the_daemon(rig: Rig) -> None:
    """Killed and started again, the scheduler finds its running job, waits for its end and knows its exit code."""
    job, after = rig.job("sh", "-c", "until [ -e go ]; do sleep 0.05; done; exit 3"), rig.job("true")
    rig.submit(job)
    rig.started(job)
    rig.submit(after)
    rig.kill_daemon()
    with pytest.raises(SchedulerDown, match="does not answer"):
        rig.site.poll("")
    rig.client.ensure()
    assert rig.entry(job).state is State.RUNNING
    (rig.machine.folder / "jobs" / job.key / "out" / "go").touch()
    entry = rig.ended(job)
    assert (entry.state, entry.exit_code) == (State.FAILED, 3)
    assert rig.ended(after).state is State.COMPLETED
    assert len(rig.site.accounting([job.key], LONG_AGO)[job.key]) == 1


def test_a_job_that_died_while_nobody_looked_is_told(rig: Rig) -> None:
    """It ended while the daemon was down: its record gives the exit code and the moment."""
    job = rig.job("sh", "-c", "until [ -e go ]; do sleep 0.05; done; exit 5")
    rig.submit(job)
    rig.started(job)
    rig.kill_daemon()
    (rig.machine.folder / "jobs" / job.key / "out" / "go").touch()
    wait(lambda: (rig.machine.folder / "records" / job.key).exists() or None)
    rig.client.ensure()
    entry = rig.ended(job)
    assert (entry.state, entry.exit_code) == (State.FAILED, 5)


def test_draining_waits_for_what_runs(rig: Rig) -> None:
    """Told to drain, the daemon starts nothing more, goes after the last job, and starts the rest when it is back."""
    job, after = rig.job("sh", "-c", "until [ -e go ]; do sleep 0.05; done"), rig.job("true")
    rig.submit(job)
    rig.started(job)
    rig.submit(after)
    assert rig.client.ask("drain", on=True)["running"] == 1
    (rig.machine.folder / "jobs" / job.key / "out" / "go").touch()
    rig.wait_gone()
    rig.client.ensure()
    assert rig.ended(after).state is State.COMPLETED


def test_outputs_are_sealed_and_listed(rig: Rig) -> None:
    """The working folder moves to where no job mounts it; links are listed as skipped."""
    job = rig.job("sh", "-c", "mkdir deep; echo 1 > one; echo 22 > deep/two; ln -s one link")
    rig.submit(job)
    rig.ended(job)
    path = f"data/acme/ada/ada/runs/{job.key}"
    for _ in range(2):
        listing = rig.site.seal({job.key: path}, 1)[job.key]
        assert {file.path: file.size for file in listing.files} == {"one": 2, "deep/two": 3}
        assert listing.skipped == ("link",)
    assert (rig.machine.folder / path / "one").read_text() == "1\n"


def test_inputs_are_lent_to_the_person(rig: Rig) -> None:
    """An input that the platform staged is readable in the job."""
    place = rig.machine.folder / "data" / "acme" / "ada" / "ada"
    place.mkdir(parents=True)
    (place / "in.txt").write_text("input\n")
    (place / "in.txt").chmod(0o600)
    job = rig.job("cat", "../in/data", inputs=(Mount("data", "data/acme/ada/ada/in.txt"),))
    rig.submit(job)
    assert rig.ended(job).exit_code == 0, rig.out(job, "stderr")
    assert rig.out(job) == "input\n"


def test_an_old_lease_is_refused(rig: Rig) -> None:
    """After a higher epoch was seen, a lower one changes nothing."""
    rig.site.prepare(5)
    job = rig.job("true")
    for change in (lambda: rig.site.submit([Submission(job)], 4), lambda: rig.site.cancel([job.key], 4)):
        with pytest.raises(Conflict):
            change()
    assert rig.site.status([job.key]) == {}


def test_removing_leaves_a_tombstone(rig: Rig) -> None:
    """What a job left is gone, its entry too, and a late start would still be kept from running."""
    job = rig.job("true")
    rig.submit(job)
    rig.ended(job)
    rig.site.remove([job.key], 1)
    assert not (rig.machine.folder / "jobs" / job.key).exists()
    assert rig.site.status([job.key])[job.key].run_by
    assert rig.site.accounting([job.key], LONG_AGO) == {}


def test_the_probe_finds_a_way_to_isolate(rig: Rig) -> None:
    """Where this machine has namespaces, jobs are isolated; the facts name a Python that jobs can use."""
    facts = rig.site.facts
    assert facts["isolation"] == "heroes-isolate"
    assert facts["programs"] == ["earl-run", "heroes-isolate"]
    assert facts["python_version"] >= "3.11"
    assert facts["one_person"] is True


@pytest.mark.skipif(os.geteuid() != 0, reason="uids of people need root")
def test_each_person_has_a_user_of_its_own(rig: Rig) -> None:
    """Two people's jobs run under different uids, above 200000, neither the platform's; the same person keeps hers."""
    ada = rig.job("id", "-u", queue="large")
    bob = replace(ada, key=rig.job("x").key, environment={**ada.environment, "HEROES_USER_ID": "bob"})
    again = replace(ada, key=rig.job("x").key)
    for job in (ada, bob, again):
        rig.submit(job)
    uids = [int((rig.ended(job), rig.out(job))[1]) for job in (ada, bob, again)]
    assert uids[0] == uids[2] != uids[1]
    assert min(uids) >= 200000
