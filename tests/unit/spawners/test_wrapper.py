"""The wrapper by itself, in a real shell, with a scheduler that a test writes: claims, refusals, fences, torn input."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from heroes.api.errors import Conflict, InvalidSpec, LinkDown, SchedulerDown, StoreBusy
from heroes.api.ids import new_ulid
from heroes_spawners.runtime import bundle as bundles
from heroes_spawners.site import Accepted, Claim, Declined, Job, Refusal, Shape, Submission, Unknown
from heroes_spawners.slurm import SlurmSettings, SlurmSite, commands
from heroes_spawners.transport import Completed, LocalTransport, execute

Tools = Callable[..., SlurmSite]
ANSWER = 'echo "$*" >>{log}; echo "$(wc -l <{log})"'


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Makes a site whose scheduler's commands are the given shell lines; `{log}` is a file, for `calls`."""

    def make(**lines: str) -> SlurmSite:
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir(exist_ok=True)
        known = {"sbatch": ANSWER, "squeue": ":", "sinfo": "echo 'cpu|0/8/0/8'", "sacct": ":", "scancel": ":", **lines}
        for name, text in known.items():
            program = bin_folder / name
            program.write_text("#!/bin/sh\n" + text.replace("{log}", str(tmp_path / "calls")) + "\n")
            program.chmod(stat.S_IRWXU)
        environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path), "LOGNAME": "someone"}
        environment |= {"SBATCH_QOS": "hostile", "SQUEUE_FORMAT": "hostile", "IFS": "c"}
        facts = {"isolation": "none", "one_person": True}
        site = SlurmSite(LocalTransport(environment), SlurmSettings(f"{tmp_path}/base", "full", "", facts))
        site.prepare(1)
        return site

    return make


def calls(tmp_path: Path) -> list[str]:
    """The argument lines of the scheduler's commands that were logged."""
    log = tmp_path / "calls"
    return log.read_text().splitlines() if log.exists() else []


def wanted(key: str = "", number: int = 1, queue: str = "cpu") -> Submission:
    """A small job."""
    return Submission(Job(key or new_ulid(), queue, Shape(walltime_s=90), ("/bin/true",)), number)


def test_sbatch_is_asked_for_what_keeps_it_exact(tools: Tools, tmp_path: Path) -> None:
    """Name, singleton, no requeue, resources: all on the command line, and nothing of the environment."""
    site = tools(sbatch="env >{log}.env; " + ANSWER, squeue=":")
    one = wanted()
    assert site.submit([one], 1) == [Accepted("1")]
    (line,) = calls(tmp_path)
    for option in (
        f"--job-name={one.job.key}", "--no-requeue", "--dependency=singleton", "--export=ALL", "--parsable",
        "--partition=cpu", "--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--time=2", "--open-mode=append",
        f"--chdir={site.base}/jobs/{one.job.key}", f"{site.place.runtime}/job.sh {site.base} {one.job.key}",
    ):  # fmt: skip
        assert option in line
    names = {each.split("=")[0] for each in (tmp_path / "calls.env").read_text().splitlines()}
    assert names <= {"PATH", "HOME", "LOGNAME", "USER", "LC_ALL", "TZ", "PWD", "OLDPWD", "_", "SHLVL"}


def test_a_number_is_submitted_once(tools: Tools, tmp_path: Path) -> None:
    """The same number again answers what stands there, without sbatch; the next number calls it."""
    site, one = tools(), wanted()
    assert site.submit([one], 1) == [Accepted("1")]
    assert site.submit([one, one], 1) == [Accepted("1"), Accepted("1")]
    assert site.submit([replace(one, number=2)], 1) == [Accepted("2")]
    assert len(calls(tmp_path)) == 2
    assert site.status([one.job.key]) == {one.job.key: Claim(2, "2", None)}


def test_a_claim_without_an_answer_is_unknown(tools: Tools, tmp_path: Path) -> None:
    """A wrapper that died between claim and answer leaves Unknown, and nobody calls sbatch for it again."""
    site, one = tools(), wanted()
    claim = Path(site.base) / "claims" / one.job.key / "1"
    claim.mkdir(parents=True)
    (claim / "owner").write_text("somebody-else\n")
    for torn in ("", "0 12", "0 12 ", "0"):
        (claim / "answer").write_text(torn)
        assert isinstance(site.submit([one], 1)[0], Unknown)
        assert site.status([one.job.key]) == {one.job.key: Claim(1, None, None)}
    assert calls(tmp_path) == []


def test_a_repeated_rename_is_still_ours(tools: Tools, tmp_path: Path) -> None:
    """A rename that reports an error although it happened (NFS repeats requests) is known by its nonce."""
    site, one = tools(), wanted()
    call = commands.submit(site.place, [(one, {"launch": b"set --"})], 1)
    claim = Path(site.base) / "claims" / one.job.key / "1"
    claim.mkdir(parents=True)
    (claim / "owner").write_text(f"{call.nonce}\n")
    assert execute(site.transport, call) == [Accepted("1")]
    assert len(calls(tmp_path)) == 1


def test_a_torn_batch_submits_nothing(tools: Tools, tmp_path: Path) -> None:
    """A stream cut at any place, between two members too, starts no job and makes no claim."""
    site = tools()
    one, other = wanted(), wanted()
    call = commands.submit(site.place, [(one, {"launch": b"x"}), (other, {"launch": b"x" * 2000})], 1)
    listed_at = call.body.index(f"tmp/{call.nonce}.list".encode())
    for size in range(0, listed_at + 520, 260):
        with pytest.raises((LinkDown, StoreBusy)):
            execute(site.transport, replace(call, body=call.body[:size]))
    assert calls(tmp_path) == []
    assert not list((Path(site.base) / "claims").glob("*/1"))


def test_a_refusal_is_kept_with_its_words(tools: Tools) -> None:
    """The same number keeps the same answer; the text is the scheduler's own."""
    site = tools(sbatch="echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    one = wanted()
    first = site.submit([one], 1)
    assert isinstance(first[0], Declined)
    assert (first[0].kind, "nope" in first[0].text) == (Refusal.PERMANENT, True)
    assert site.submit([one], 1) == first


@pytest.mark.parametrize(
    "line",
    ["echo 'Socket timed out on send/recv operation' >&2; exit 1", "kill -9 $$", "echo nothing", "exit 0", "exit 7"],
)
def test_what_is_not_understood_is_unknown(tools: Tools, line: str) -> None:
    """Time-outs, signals and answers without a job id may have submitted it."""
    site = tools(sbatch=line)
    assert isinstance(site.submit([wanted()], 1)[0], Unknown)


def test_a_dead_controller_is_not_asked_for_each_job(tools: Tools, tmp_path: Path) -> None:
    """After the first failed connection the rest of the batch is left unclaimed, to be tried again."""
    site = tools(sbatch='echo "$*" >>{log}; echo "Unable to contact slurm controller (connect failure)" >&2; exit 1')
    batch = [wanted() for _ in range(5)]
    answers = site.submit(batch, 1)
    assert [answer.kind for answer in answers if isinstance(answer, Declined)] == [Refusal.LIMIT] * 5
    assert len(calls(tmp_path)) == 1
    assert set(site.status([one.job.key for one in batch])) == {batch[0].job.key}


def test_a_federated_answer_is_read(tools: Tools) -> None:
    """sbatch may answer "id;cluster"."""
    assert tools(sbatch="echo '42;alpha'").submit([wanted()], 1) == [Accepted("42")]


def test_an_older_epoch_changes_nothing(tools: Tools, tmp_path: Path) -> None:
    """Whoever comes with a lower epoch than the site has seen is refused before anything is done."""
    site, one = tools(), wanted()
    site.prepare(7)
    for call in (
        lambda: site.submit([one], 6),
        lambda: site.give_up([one.job.key], 6),
        lambda: site.cancel([one.job.key], 6),
        lambda: site.remove([one.job.key], 6),
        lambda: site.remove_data(["data/a"], 6),
        lambda: site.seal({one.job.key: "data/a/b/c/d"}, 6),
    ):
        with pytest.raises(Conflict):
            call()
    assert calls(tmp_path) == []
    assert site.status([one.job.key]) == {}


def test_a_failed_scheduler_is_no_empty_queue(tools: Tools) -> None:
    """A command that fails is SchedulerDown, whatever it printed."""
    broken = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    with pytest.raises(SchedulerDown):
        tools(squeue=broken).poll("")
    with pytest.raises(SchedulerDown):
        tools(squeue=":", sinfo=broken).poll("")
    with pytest.raises(SchedulerDown):
        tools(sacct=broken).accounting([new_ulid()], datetime.now(UTC))


def test_cancelling_what_has_ended_is_no_error(tools: Tools) -> None:
    """scancel's complaint about a job that has just ended is harmless; another one is not."""
    ended = "echo 'scancel: error: Kill job error on job id 5: Job/step already completing or completed' >&2; exit 1"
    tools(squeue="echo 5", scancel=ended).cancel([new_ulid()], 1)
    tools(squeue=":", scancel="exit 1").cancel([new_ulid()], 1)
    with pytest.raises(SchedulerDown):
        tools(squeue="echo 5", scancel="echo 'Access denied' >&2; exit 1").cancel([new_ulid()], 1)


def test_a_runtime_that_was_purged_is_pushed_again(tools: Tools) -> None:
    """When the wrapper has gone from the site, the call pushes it and is made."""
    site, one = tools(), wanted()
    for path in Path(site.place.runtime).iterdir():
        path.unlink()
    Path(site.place.runtime).rmdir()
    assert site.submit([one], 1) == [Accepted("1")]
    assert set(bundles.bundle().files) == {path.name for path in Path(site.place.runtime).iterdir()}


def test_a_record_that_is_too_large_is_left_out(tools: Tools) -> None:
    """Records of more than 64 KiB, links and temporary names are no records."""
    site = tools()
    good, large, link = new_ulid(), new_ulid(), new_ulid()
    records = Path(site.base) / "records"
    (records / good).write_text("5 0 1.5\n")
    (records / large).write_text("5 0 1.5\n" + "x" * 70_000)
    (records / link).symlink_to("/etc/passwd")
    (records / f".{good}.tmp").write_text("5 0 1.5\n")
    assert [record.key for record in site.poll("").records] == [good]


def test_a_job_cannot_reach_out_of_its_folder_by_links(tools: Tools) -> None:
    """An output folder that is a link is not sealed; a link in it is skipped."""
    site = tools()
    honest, forged = new_ulid(), new_ulid()
    for key in (honest, forged):
        (Path(site.base) / "jobs" / key).mkdir(parents=True)
    (Path(site.base) / "jobs" / forged / "out").symlink_to("/etc")
    out = Path(site.base) / "jobs" / honest / "out"
    out.mkdir()
    (out / "passwd").symlink_to("/etc/passwd")
    (out / "fine.txt").write_text("x")
    sealed = site.seal({honest: "data/a/b/c/d", forged: "data/a/b/c/e"}, 1)
    assert set(sealed) == {honest}
    assert [file.path for file in sealed[honest].files] == ["fine.txt"]
    assert sealed[honest].skipped == ("passwd",)


@pytest.mark.parametrize(
    "target", ["data/a/b/c", "data", "/etc/x/y/z/w", "jobs/a/b/c/d", "data/a/../../b/c/d", "data/a/b/c/\n", ""]
)
def test_outputs_are_sealed_below_a_bucket_only(tools: Tools, target: str) -> None:
    """A target that is a bucket itself or not below data/ is refused here, before anything is sent."""
    with pytest.raises(InvalidSpec):
        tools().seal({new_ulid(): target}, 1)


def test_a_listing_with_too_many_files_says_so(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job with more files than the most that is listed does not hide another's."""
    monkeypatch.setattr(commands, "MOST_FILES", 10)
    site = tools()
    for name, count in (("many", 15), ("few", 3)):
        folder = Path(site.base) / "data" / "a" / "b" / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}").write_text("x")
    found = site.list_files(["data/a/b/many", "data/a/b/few"])
    assert len(found["data/a/b/few"].files) == 3
    assert len(found["data/a/b/many"].files) == 10
    assert "more than" in found["data/a/b/many"].skipped[-1]


def test_a_base_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """Where the base directory cannot be made, the site's own words come back."""
    (tmp_path / "file").write_text("")
    site = SlurmSite(LocalTransport(), SlurmSettings(f"{tmp_path}/file/base"))
    with pytest.raises(StoreBusy) as raised:
        site.prepare(1)
    assert "Not a directory" in raised.value.message


def test_a_tar_that_cannot_be_unpacked_says_so(tools: Tools) -> None:
    """The stream's end tells tar's own words."""
    sink = tools().stream_tar("data/a")
    sink.write(b"this is no tar" * 100)
    with pytest.raises(StoreBusy) as raised:
        sink.finish()
    assert "tar" in raised.value.message


def test_a_folder_that_a_job_locked_is_removed_all_the_same(tools: Tools, tmp_path: Path) -> None:
    """A job may take the rights on its own folders away; they are opened, then removed."""
    locked = 'case "$*" in *jobs/*) [ -e {log}.opened ] || { echo denied; exit 1; } ;; esac; exec /bin/rm "$@"'
    site = tools(rm=locked, chmod='[ "$1" != -R ] || : >{log}.opened; exec /bin/chmod "$@"')
    job = wanted()
    site.submit([job], 1)
    site.remove([job.job.key], 1)
    assert not (tmp_path / "base" / "jobs" / job.job.key).exists()
    assert site.status([job.job.key])[job.job.key].run_by == "tombstone"


@pytest.mark.parametrize("answer", [b"", b"\npart n claims\n"])
def test_an_answer_that_makes_no_sense_is_a_lost_link(answer: bytes) -> None:
    """A site that answers with the frame and without the parts ends no thread of ours."""
    call = replace(commands.poll(commands.Place("/r", "/b"), 0.0), nonce="n")
    with pytest.raises(LinkDown, match="answer to poll makes no sense"):
        call.parse(Completed(0, b"begin n\n" + answer + b"\nend n\n"))


def test_foreign_jobs_are_cancelled_by_id_unless_the_id_is_ours_by_now(tools: Tools, tmp_path: Path) -> None:
    """Ids are given again after a crash of the controller; arrays are told by their first part."""
    key = new_ulid()
    queue = f"printf '7 my job\\n8 {key}\\n9_[1-4] x\\n11+1 x\\n12 other\\n'"
    site = tools(squeue=queue, scancel='echo "$*" >>{log}')
    site.cancel_foreign(["7", "8", "9", "11"], 1)
    assert calls(tmp_path) == ["7 9 11"]
    with pytest.raises(InvalidSpec):
        site.cancel_foreign(["7; reboot"], 1)


def test_a_poll_tells_jobs_of_other_names(tools: Tools) -> None:
    """They are no attempts, and whose they are is for the engine to find out."""
    key = new_ulid()
    line = "RUNNING|None|2026-01-01T00:00:00|2026-01-01T00:00:00|1|1"
    site = tools(squeue=f"printf '%s\\n' '7|{line}|a|b' '8|{line}|{key}' '9_1|{line}|x'")
    poll = site.poll("")
    assert poll.foreign == {"7": "a|b", "9": "x"}
    assert [each.key for each in poll.queue] == [key]


def test_foreign_jobs_are_cancelled_by_the_engine_in_charge_only(tools: Tools, tmp_path: Path) -> None:
    """As every other change: an older engine is refused."""
    site = tools(squeue="echo '7 x'", scancel='echo "$*" >>{log}')
    site.prepare(9)
    with pytest.raises(Conflict):
        site.cancel_foreign(["7"], 8)
    assert calls(tmp_path) == []
