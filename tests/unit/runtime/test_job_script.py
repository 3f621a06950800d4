"""The job script, run for real in a temporary site: claims, records, limits."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from heroes.api.ids import new_ulid
from heroes_spawners.runtime.bundle import bundle
from heroes_spawners.site import Image
from tests.unit.runtime.conftest import Place


def test_a_job_runs_in_its_folder_and_leaves_a_record(bare: Place) -> None:
    """The record names the job id, the exit code and the elapsed time; the program ran in `out`."""
    job = bare.job("sh", "-c", "pwd; echo done > result; sleep 0.2; exit 7")
    ended = bare.run(job)
    assert ended.status == 7, ended.said
    job_id, status, elapsed = ended.record[0].split()
    assert (job_id, status) == ("17", "7")
    assert 0.2 <= float(elapsed) < 10
    assert ended.out.strip() == f"{bare.base}/jobs/{job.key}/out"
    assert (bare.base / "jobs" / job.key / "out" / "result").read_text() == "done\n"


def test_a_job_takes_the_run_claim_with_its_job_id(bare: Place) -> None:
    """The run claim holds the job's id, and nothing private stays beside it."""
    job = bare.job("true")
    bare.run(job, "41")
    assert bare.owner(job) == "41"
    assert os.listdir(bare.base / "run") == [job.key]


@pytest.mark.parametrize("job_id", ["18", "17"])
def test_whoever_finds_the_claim_taken_does_not_run(bare: Place, job_id: str) -> None:
    """A second execution, by another job id or by the same, exits as a duplicate and changes nothing."""
    job = bare.job("sh", "-c", "echo ran >> log")
    first = bare.run(job)
    second = bare.end(job, bare.start(job, job_id))
    assert (first.status, second.status) == (0, 122)
    assert "duplicate" in second.said
    assert second.record == first.record
    assert (bare.base / "jobs" / job.key / "out" / "log").read_text() == "ran\n"
    assert os.listdir(bare.base / "run") == [job.key]


def test_of_many_at_once_exactly_one_runs(bare: Place) -> None:
    """Twelve simultaneous starts of one attempt execute it once."""
    job = bare.job("sh", "-c", "echo ran >> log; sleep 0.1")
    bare.write(job)
    started = [bare.start(job, str(number)) for number in range(12)]
    statuses = sorted(bare.end(job, process).status for process in started)
    assert statuses == [0] + [122] * 11
    assert (bare.base / "jobs" / job.key / "out" / "log").read_text() == "ran\n"


def test_a_tombstone_keeps_a_late_start_from_running(bare: Place) -> None:
    """After the attempt was given up, its job exits as a duplicate without a record."""
    job = bare.job("sh", "-c", "echo ran > log")
    bare.write(job)
    (bare.base / "run" / job.key).mkdir()
    (bare.base / "run" / job.key / "owner").write_text("tombstone 1\n")
    ended = bare.end(job, bare.start(job))
    assert (ended.status, ended.record) == (122, [])
    assert "tombstone" in ended.said
    assert not (bare.base / "jobs" / job.key / "out" / "log").exists()


def test_without_a_claimed_submission_nothing_runs(bare: Place) -> None:
    """A job whose submission nobody claimed exits at once and takes no run claim."""
    job = bare.job("true")
    ended = bare.end(job, bare.start(job))
    assert (ended.status, ended.record) == (121, [])
    assert not (bare.base / "run" / job.key).exists()


def test_a_signal_to_every_process_still_leaves_a_record(bare: Place) -> None:
    """What a time limit does: the program dies of SIGTERM, the script records it."""
    job = bare.job("sh", "-c", "echo up; sleep 60")
    bare.write(job)
    script = f"{bare.facts['runtime']}/job.sh"
    argv = ["/bin/sh", script, str(bare.base), job.key]
    variables = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "5"}
    process = subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert (bare.base / "records" / job.key).read_text().split()[:2] == ["5", "143"]


def test_a_job_cannot_write_more_than_its_maximum(bare: Place) -> None:
    """A file that grows over the declared maximum of outputs ends the program, and the record tells so."""
    job = bare.job("sh", "-c", "exec head -c 100000 /dev/zero > big", max_output_bytes=51200)
    ended = bare.run(job)
    assert ended.status == 128 + signal.SIGXFSZ
    assert (bare.base / "jobs" / job.key / "out" / "big").stat().st_size == 51200


def test_a_record_that_cannot_be_written_whole_is_not_left(bare: Place) -> None:
    """With no space for the record there is none, rather than half of one: the attempt counts as lost."""
    job = bare.job("true")
    bare.write(job)
    launch = bare.base / "jobs" / job.key / "launch"
    launch.write_text("ulimit -f 0\ntrap '' XFSZ\n" + launch.read_text().partition("\n")[2])
    ended = bare.end(job, bare.start(job))
    assert ended.record == []


def test_stdin_is_empty(bare: Place) -> None:
    """A program that reads its standard input finds the end at once."""
    assert bare.run(bare.job("cat")).status == 0


def test_a_long_job_touches_its_heartbeat(bare: Place, tmp_path: Path) -> None:
    """A job whose limit is above fifteen minutes touches run/<key>/alive; no process of the beat stays."""
    fake = tmp_path / "sleep"
    fake.write_text('#!/bin/sh\n[ "$1" = 60 ] && exec /bin/sleep 0.05\nexec /bin/sleep "$@"\n')
    fake.chmod(0o755)
    job = bare.job("/bin/sleep", "1.0", shape=bare.job("x").shape.__class__(walltime_s=3600))
    ended = bare.run(job, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ended.status == 0
    assert (bare.base / "run" / job.key / "alive").exists()


def _image(bare: Place, content: bytes) -> Image:
    import hashlib

    path = bare.base / "image.sqfs"
    path.write_bytes(content)
    return Image(str(path), f"sha256:{hashlib.sha256(content).hexdigest()}")


def test_an_image_that_was_replaced_is_refused(bare: Place) -> None:
    """An image with another digest than asked ends the job with 123 and says which it found; so does one that is
    gone; the right one is hashed once and remembered."""
    image = _image(bare, b"one")
    bare.facts["container"] = "ch-run"
    checked = bare.base / "runtime" / "images" / image.digest.removeprefix("sha256:")
    bare.run(bare.job("true", image=image))
    assert str(image.path) in checked.read_text()
    Path(image.path).write_bytes(b"two")
    ended = bare.run(bare.job("true", image=image))
    assert ended.status == 123
    assert "was replaced" in ended.said
    Path(image.path).unlink()
    ended = bare.run(bare.job("true", image=image))
    assert ended.status == 123
    assert "is not on this node" in ended.said


def test_the_script_is_quick(bare: Place) -> None:
    """The job script around `true` takes well under a tenth of a second of CPU time."""
    jobs = [bare.job("true") for _ in range(5)]
    for job in jobs:
        bare.write(job)
    before = os.times()
    for job in jobs:
        bare.end(job, bare.start(job))
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent / len(jobs) < 0.1


def test_the_bundle_is_named_by_what_is_in_it() -> None:
    """The same files give the same digest, and another architecture gets no compiled programs."""
    assert bundle() == bundle()
    assert "job.sh" in bundle().files
    assert bundle("sparc64").programs == frozenset()
    assert bundle("sparc64").digest != bundle().digest or not bundle().programs


def test_the_claim_is_taken_within_the_life_of_one_name(bare: Place) -> None:
    """Two attempts do not disturb each other's claims."""
    one, two = bare.job("true"), bare.job("true", key=new_ulid())
    assert bare.run(one, "1").status == bare.run(two, "2").status == 0
    assert (bare.owner(one), bare.owner(two)) == ("1", "2")
