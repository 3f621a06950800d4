"""One suite for every `Site`: the cluster in memory and real SLURM over SSH keep the same promises."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from heroes.api.errors import Conflict
from heroes.api.ids import new_ulid
from heroes_spawners.site import (
    TERMINAL,
    Accepted,
    Accounted,
    Declined,
    Job,
    Refusal,
    Shape,
    State,
    Submission,
)
from tests.contract.rigs import FAILING, HELLO, SLEEPING, TRIVIAL, FakeRig, SiteRig, SlurmRig

LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
EPOCH = 5


@pytest.fixture(scope="module", params=["fake", "slurm"])
def rig(request: pytest.FixtureRequest) -> Iterator[SiteRig]:
    """Each kind of site, prepared."""
    made: SiteRig = FakeRig() if request.param == "fake" else SlurmRig(request.getfixturevalue("lab").cluster("alpha"))
    made.site.prepare(EPOCH)
    yield made
    made.close()


def submission(rig: SiteRig, argv: tuple[str, ...], key: str = "", number: int = 1) -> Submission:
    """A small job."""
    return Submission(Job(key or new_ulid(), rig.queue, Shape(walltime_s=120), argv), number)


def submit(rig: SiteRig, argv: tuple[str, ...]) -> tuple[str, str]:
    """Submit one job: its key and job id."""
    wanted = submission(rig, argv)
    (answer,) = rig.site.submit([wanted], EPOCH)
    assert isinstance(answer, Accepted), answer
    return wanted.job.key, answer.job_id


def accounted(rig: SiteRig, key: str) -> list[Accounted]:
    """What accounting says of a key, once all of it has ended."""
    found: list[Accounted] = []

    def ended() -> bool:
        found[:] = rig.site.accounting([key], LONG_AGO).get(key, [])
        return bool(found) and all(job.state in TERMINAL for job in found)

    rig.wait_for(ended)
    return found


def has_record(rig: SiteRig, key: str) -> bool:
    """Whether the job left its exit record."""
    return any(record.key == key for record in rig.site.poll("").records)


def finished(rig: SiteRig, argv: tuple[str, ...]) -> str:
    """Run a job to its end: its key."""
    key, _ = submit(rig, argv)
    rig.wait_for(lambda: has_record(rig, key))
    return key


def test_a_job_runs_and_leaves_its_record(rig: SiteRig) -> None:
    """Submitted, started, recorded and accounted under one job id."""
    key, job_id = submit(rig, HELLO)
    rig.wait_for(lambda: has_record(rig, key))
    poll = rig.site.poll("")
    (record,) = (record for record in poll.records if record.key == key)
    assert (record.job_id, record.exit_code, poll.started[key]) == (job_id, 0, job_id)
    (job,) = accounted(rig, key)
    assert (job.job_id, job.state, job.exit_code, job.cpus, job.nodes) == (job_id, State.COMPLETED, 0, 1, 1)
    assert job.submitted_at is not None
    assert job.started_at is not None
    assert job.ended_at is not None
    assert job.submitted_at <= job.started_at <= job.ended_at
    assert abs((job.ended_at - job.started_at).total_seconds() - job.elapsed_s) < 1


def test_a_failing_job_tells_its_exit_code(rig: SiteRig) -> None:
    """The record and accounting agree on the exit code."""
    key = finished(rig, FAILING)
    (record,) = (record for record in rig.site.poll("").records if record.key == key)
    (job,) = accounted(rig, key)
    assert (record.exit_code, job.state, job.exit_code) == (3, State.FAILED, 3)
    assert rig.site.tail(key, "stderr", 0, 100).data == b"trouble\n"


def test_a_submission_is_made_once(rig: SiteRig) -> None:
    """The same number again answers the same job id and starts nothing."""
    wanted = submission(rig, TRIVIAL)
    first = rig.site.submit([wanted], EPOCH)
    assert rig.site.submit([wanted, wanted], EPOCH) == [*first, *first]
    assert len(accounted(rig, wanted.job.key)) == 1


def test_two_submissions_of_an_attempt_execute_once(rig: SiteRig) -> None:
    """The run claim admits one of them; the other ends without a record."""
    key = new_ulid()
    answers = rig.site.submit([submission(rig, HELLO, key, number) for number in (1, 2)], EPOCH)
    assert all(isinstance(answer, Accepted) for answer in answers)
    jobs = []

    def both() -> bool:
        jobs[:] = rig.site.accounting([key], LONG_AGO).get(key, [])
        return len(jobs) == 2 and all(job.state in TERMINAL for job in jobs)

    rig.wait_for(both)
    claim = rig.site.status([key])[key]
    assert claim.number == 2
    assert [record.job_id for record in rig.site.poll("").records if record.key == key] == [claim.run_by]


def test_a_refusal_is_certain_and_troubles_nobody_else(rig: SiteRig) -> None:
    """A queue that does not exist is declined for good; its neighbours in the batch run."""
    bad = Submission(Job(new_ulid(), "no-such-queue", Shape(walltime_s=60), TRIVIAL))
    good = [submission(rig, TRIVIAL), submission(rig, TRIVIAL)]
    first, refused, last = rig.site.submit([good[0], bad, good[1]], EPOCH)
    assert isinstance(first, Accepted)
    assert isinstance(last, Accepted)
    assert isinstance(refused, Declined)
    assert (refused.kind, "partition" in refused.text) == (Refusal.PERMANENT, True)


def test_a_refusal_stays_what_it_was(rig: SiteRig) -> None:
    """A declined number is never tried again; the next number is."""
    bad = Submission(Job(new_ulid(), "no-such-queue", Shape(walltime_s=60), TRIVIAL))
    rig.site.submit([bad], EPOCH)
    assert not isinstance(rig.site.submit([bad], EPOCH)[0], Accepted)
    again = submission(rig, TRIVIAL, bad.job.key, 2)
    assert isinstance(rig.site.submit([again], EPOCH)[0], Accepted)


def test_a_tombstone_stops_what_has_not_started(rig: SiteRig) -> None:
    """An attempt that was given up never runs, whoever submits it later."""
    key = new_ulid()
    assert rig.site.give_up([key], EPOCH) == {key: True}
    assert rig.site.give_up([key], EPOCH) == {key: True}
    rig.site.submit([submission(rig, HELLO, key)], EPOCH)
    (job,) = accounted(rig, key)
    assert job.state is State.FAILED
    assert not has_record(rig, key)
    assert rig.site.status([key])[key].run_by == "tombstone"


def test_giving_up_what_has_started_is_refused(rig: SiteRig) -> None:
    """A run claim that a job holds is not taken away."""
    key, job_id = submit(rig, SLEEPING)
    rig.wait_for(lambda: key in rig.site.poll("").started)
    assert rig.site.give_up([key], EPOCH) == {key: False}
    assert rig.site.status([key])[key].run_by == job_id
    rig.site.cancel([key], EPOCH)


def test_cancelling_ends_a_job_and_may_be_repeated(rig: SiteRig) -> None:
    """A cancelled job is CANCELLED in accounting; cancelling it again, or what never was, is no error."""
    key, job_id = submit(rig, SLEEPING)
    rig.wait_for(lambda: key in rig.site.poll("").started)
    assert [job.state for job in rig.site.poll("").queue if job.key == key] == [State.RUNNING]
    rig.site.cancel([key], EPOCH)
    (job,) = accounted(rig, key)
    assert (job.job_id, job.state) == (job_id, State.CANCELLED)
    rig.site.cancel([key, new_ulid()], EPOCH)


def test_status_knows_claims_only(rig: SiteRig) -> None:
    """A key that was never claimed is absent; another tells number and job id."""
    key, job_id = submit(rig, TRIVIAL)
    stranger = new_ulid()
    found = rig.site.status([stranger, key])
    assert set(found) == {key}
    assert (found[key].number, found[key].job_id) == (1, job_id)


def test_polling_tells_news_once(rig: SiteRig) -> None:
    """After a cursor only what is new comes; from the beginning everything does."""
    key = finished(rig, TRIVIAL)
    cursor = rig.site.poll("").cursor
    other = finished(rig, TRIVIAL)
    news = rig.site.poll(cursor)
    assert [record.key for record in news.records if record.key in (key, other)] == [other]
    assert other in news.started
    assert key not in news.started
    assert {key, other} <= {record.key for record in rig.site.poll("").records}
    assert other in {record.key for record in rig.site.poll(cursor).records}


def test_polling_shows_queue_and_load(rig: SiteRig) -> None:
    """A running job is in the queue with what it holds, and the queue's CPUs are counted."""
    key, job_id = submit(rig, SLEEPING)
    rig.wait_for(lambda: key in rig.site.poll("").started)
    poll = rig.site.poll("")
    (shown,) = (job for job in poll.queue if job.key == key)
    assert (shown.job_id, shown.state, shown.cpus, shown.nodes) == (job_id, State.RUNNING, 1, 1)
    assert shown.started_at is not None
    free, total = poll.load[rig.queue]
    assert 0 <= free < total
    rig.site.cancel([key], EPOCH)


def test_sealing_moves_and_lists_the_output(rig: SiteRig) -> None:
    """Regular files with size and stamps, and what it wrote to stdout; links skipped; again gives the same."""
    key = finished(rig, HELLO)
    target = f"data/acme/ann/ann/runs/{key}"
    sealed = rig.site.seal({key: target}, EPOCH)
    assert [(file.path, file.size) for file in sealed[key].files] == [
        ("a.txt", 2), ("d/b.txt", 3), ("stdout.txt", 6),
    ]  # fmt: skip
    assert sealed[key].skipped == ("link",)
    assert all(file.mtime_ns > 10**18 and file.inode > 0 for file in sealed[key].files)
    assert rig.site.seal({key: target}, EPOCH) == sealed
    assert rig.site.list_files([f"jobs/{key}/out"]) == {}
    assert rig.site.list_files([target])[target] == sealed[key]


def test_sealing_many_at_once_keeps_them_apart(rig: SiteRig) -> None:
    """Each job's listing is its own; a job that left nothing has none."""
    keys = [finished(rig, HELLO), finished(rig, TRIVIAL)]
    absent = new_ulid()
    sealed = rig.site.seal({key: f"data/acme/ann/ann/runs/{key}" for key in (*keys, absent)}, EPOCH)
    assert [len(sealed[key].files) for key in keys] == [3, 0]
    assert absent not in sealed


def test_a_later_attempt_replaces_what_an_earlier_one_left(rig: SiteRig) -> None:
    """Sealing onto the folder of an earlier attempt of the same step leaves the later files only."""
    first, second = finished(rig, HELLO), finished(rig, TRIVIAL)
    target = f"data/acme/ann/ann/runs/{first}/solve"
    assert len(rig.site.seal({first: target}, EPOCH)[first].files) == 3
    assert rig.site.seal({second: target}, EPOCH)[second].files == ()
    assert rig.site.list_files([target])[target].files == ()


def test_a_file_can_be_listed_by_itself(rig: SiteRig) -> None:
    """At a file the listing has one entry with an empty path; what is absent is absent."""
    key = finished(rig, HELLO)
    target = f"data/acme/ann/ann/runs/{key}"
    rig.site.seal({key: target}, EPOCH)
    found = rig.site.list_files([f"{target}/d/b.txt", f"{target}/none", "data/nobody"])
    assert set(found) == {f"{target}/d/b.txt"}
    assert [(file.path, file.size) for file in found[f"{target}/d/b.txt"].files] == [("", 3)]


def test_logs_are_read_in_parts(rig: SiteRig) -> None:
    """A tail goes on where the one before ended; an attempt without a log has an empty one."""
    key = finished(rig, HELLO)
    first = rig.site.tail(key, "stdout", 0, 3)
    assert (first.data, first.next_offset) == (b"hel", 3)
    rest = rig.site.tail(key, "stdout", first.next_offset, 100)
    assert (rest.data, rest.next_offset) == (b"lo\n", 6)
    assert rig.site.tail(key, "stdout", 6, 100).data == b""
    assert rig.site.tail(new_ulid(), "stdout", 0, 100).data == b""


def tar_of(files: dict[str, bytes]) -> bytes:
    """An uncompressed tar."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def test_a_tar_is_unpacked_checked_and_removed(rig: SiteRig) -> None:
    """Small files travel as one stream, are verified by checksum, and can be deleted again."""
    folder = f"data/acme/ann/ann/{new_ulid()}"
    sink = rig.site.stream_tar(folder)
    whole = tar_of({"one.txt": b"1", "sub/two words é.txt": b"22"})
    for start in range(0, len(whole), 1000):
        sink.write(whole[start : start + 1000])
    sink.finish()
    assert rig.site.checksums(folder, ["one.txt", "sub/two words é.txt", "none"]) == {
        "one.txt": "c4ca4238a0b923820dcc509a6f75849b",
        "sub/two words é.txt": "b6d767d2f8ed5d21a44b0e5886680cb9",
    }
    assert [file.path for file in rig.site.list_files([folder])[folder].files] == ["one.txt", "sub/two words é.txt"]
    rig.site.remove_data([f"{folder}/one.txt", f"{folder}/none"], EPOCH)
    assert [file.path for file in rig.site.list_files([folder])[folder].files] == ["sub/two words é.txt"]
    rig.site.remove_data([folder], EPOCH)
    assert rig.site.list_files([folder]) == {}


def test_removing_leaves_the_run_claim(rig: SiteRig) -> None:
    """Folder, claims and record go; nobody can run the attempt again."""
    key = finished(rig, HELLO)
    accounted(rig, key)
    never = new_ulid()
    rig.site.remove([key, never], EPOCH)
    assert rig.site.status([key, never])[never].run_by == "tombstone"
    assert rig.site.status([key])[key].job_id is None
    assert rig.site.tail(key, "stdout", 0, 10).data == b""
    assert rig.site.give_up([never], EPOCH) == {never: True}


def test_accounting_may_be_asked_from_any_time(rig: SiteRig) -> None:
    """A start in the site's future, as clocks differ, is no error."""
    key = finished(rig, TRIVIAL)
    accounted(rig, key)
    assert set(rig.site.accounting([key, new_ulid()], rig.now() + timedelta(minutes=5))) <= {key}


def test_calls_may_come_from_many_threads(rig: SiteRig) -> None:
    """Ten polls at once all answer."""
    with ThreadPoolExecutor(10) as pool:
        assert len(list(pool.map(lambda _: rig.site.poll(""), range(10)))) == 10


def test_an_older_epoch_is_refused(rig: SiteRig) -> None:
    """Whoever holds an older lease changes nothing; a newer one takes over."""
    key = new_ulid()
    for call in (
        lambda: rig.site.submit([submission(rig, TRIVIAL, key)], EPOCH - 1),
        lambda: rig.site.give_up([key], EPOCH - 1),
        lambda: rig.site.cancel([key], EPOCH - 1),
        lambda: rig.site.seal({key: f"data/acme/ann/ann/runs/{key}"}, EPOCH - 1),
        lambda: rig.site.remove([key], EPOCH - 1),
        lambda: rig.site.prepare(EPOCH - 1),
    ):
        with pytest.raises(Conflict):
            call()
    assert rig.site.status([key]) == {}


def test_jobs_of_other_names_are_told_and_can_be_cancelled(rig: SiteRig) -> None:
    """What else runs under the account is no attempt: told apart, and ended by its id; attempts are left alone."""
    stray = rig.stray("not-ours")
    if not stray:
        assert rig.site.poll("").foreign == {}
        return
    key, job_id = submit(rig, SLEEPING)
    rig.wait_for(lambda: stray in rig.site.poll("").foreign)
    poll = rig.site.poll("")
    assert poll.foreign[stray] == "not-ours"
    assert "not-ours" not in {queued.key for queued in poll.queue if queued.job_id != stray}
    rig.site.cancel_foreign([stray, job_id], EPOCH)
    rig.wait_for(lambda: stray not in rig.site.poll("").foreign)
    assert key in {queued.key for queued in rig.site.poll("").queue}
    rig.site.give_up([key], EPOCH)
    rig.site.cancel([key], EPOCH)
