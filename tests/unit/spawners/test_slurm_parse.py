"""Readers of SLURM's output: exact on samples, silent on noise, never anything but an error of the tree."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import Conflict, HeroesError, LinkDown, SchedulerDown, StoreBusy
from heroes.api.ids import new_ulid
from heroes_spawners.site import Record, State
from heroes_spawners.slurm import parse
from heroes_spawners.transport import Completed

KEY, OTHER = "01HV0000000000000000000001", "01HV0000000000000000000002"
NINE = datetime(2026, 5, 1, 9, 0, tzinfo=UTC)


def framed(*pieces: bytes, nonce: str = "n1", end: bytes = b"\nend n1\n") -> Completed:
    """An answer of the wrapper."""
    return Completed(0, b"motd\nbegin " + nonce.encode() + b"\n" + b"".join(pieces) + end)


def test_parts_are_told_apart_whatever_they_hold() -> None:
    """A part is what was printed, newlines and zero bytes included; noise before the beginning is dropped."""
    parts = parse.frame(framed(b"\npart n1 log\n", b"a\n\0\npart n2 x\n", b"\npart n1 empty\n"), "n1")
    assert parts == {"log": b"a\n\0\npart n2 x\n", "empty": b""}


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"begin n1\n",
        b"begin n1\n\npart n1 log\nabc",
        b"begin n1\n\nend n1",
        b"begin n2\n\nend n2\n",
        b"\nend n1\n",
    ],
)
def test_an_answer_that_is_not_whole_is_none(stdout: bytes) -> None:
    """Without its beginning and its end it is a lost link."""
    with pytest.raises(LinkDown):
        parse.frame(Completed(0, stdout, b"sh: not found"), "n1")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stale", Conflict),
        ("storage", StoreBusy),
        ("truncated", LinkDown),
        ("scheduler", SchedulerDown),
        ("new", SchedulerDown),
    ],
)
def test_the_wrapper_tells_its_trouble(kind: str, error: type[HeroesError]) -> None:
    """Each kind of trouble is its own error, with the site's words."""
    with pytest.raises(error) as raised:
        parse.frame(framed(b"\npart n1 error\n", kind.encode(), b"\nwhat happened\n"), "n1")
    assert "what happened" in raised.value.message


def test_the_queue_is_read() -> None:
    """Running and pending jobs with their times; a pending job's start is expected, not real."""
    found = parse.queue(
        f"12|RUNNING|None|2026-05-01T08:59:00|2026-05-01T09:00:00|4|1|{KEY}\n"
        f"13|PENDING|Resources|2026-05-01T08:59:00|2026-05-01T09:00:00|1-4|1-2|{OTHER}\n".encode()
    )
    assert [(job.key, job.job_id, job.state, job.reason) for job in found] == [
        (KEY, "12", State.RUNNING, ""),
        (OTHER, "13", State.PENDING, "Resources"),
    ]
    assert (found[0].started_at, found[0].expected_start, found[0].cpus) == (NINE, None, 4)
    assert (found[1].started_at, found[1].expected_start, found[1].cpus) == (None, NINE, 1)


def test_jobs_of_others_and_hostile_names_are_left_out() -> None:
    """A name with separators or newlines makes no job of ours."""
    noise = "14|RUNNING|None|N/A|N/A|1|1|a|b\n15|RUNNING|None|N/A|N/A|1|1|short\nbroken|\n||||||||\n\n"
    noise += "16_2|RUNNING|None|N/A|N/A|1|1|"
    assert parse.queue((noise + KEY).encode()) == ()


def test_load_adds_up_by_partition() -> None:
    """Idle and total CPUs of all lines of a partition."""
    assert parse.load(b"cpu|2/6/0/8\ncpu|8/0/0/8\nlong|0/4/4/8\nnoise\n") == {"cpu": (6, 16), "long": (4, 8)}


SACCT = f"""12|COMPLETED|0:0|2026-05-01T08:59:00|2026-05-01T09:00:00|2026-05-01T09:00:05|5|4|1|cpu=4,gres/gpu=2||{KEY}
12.batch|COMPLETED|0:0|2026-05-01T09:00:00|2026-05-01T09:00:00|2026-05-01T09:00:05|5|4|1|cpu=4|2048K|batch
12.0|COMPLETED|0:0|2026-05-01T09:00:00|2026-05-01T09:00:00|2026-05-01T09:00:05|5|4|1|cpu=4|1.50G|solve|x
13|CANCELLED by 1000|0:15|2026-05-01T08:59:00|None|2026-05-01T09:00:05|0|0|0|||other|name
11|NODE_FAIL|0:0|2026-05-01T08:00:00|2026-05-01T08:01:00|Unknown|60|4|1|cpu=4||{KEY}
14|FAILED|3:0|2026-05-01T10:00:00|2026-05-01T10:00:00|2026-05-01T10:00:01|1|1|1|cpu=1||{OTHER}
"""


def test_accounting_is_read_by_key_oldest_first() -> None:
    """Every run of a key, with the largest memory of its steps and its GPUs."""
    found = parse.accounting(SACCT.encode())
    assert [job.job_id for job in found[KEY]] == ["11", "12"]
    first, last = found[KEY]
    assert (first.state, first.ended_at, first.elapsed_s) == (State.NODE_FAIL, None, 60.0)
    assert (last.state, last.cpus, last.nodes, last.gpus, last.max_rss_mib) == (State.COMPLETED, 4, 1, 2, 1536.0)
    assert (last.started_at, last.elapsed_s) == (NINE, 5.0)
    assert (found[OTHER][0].state, found[OTHER][0].exit_code) == (State.FAILED, 3)
    assert set(found) == {KEY, OTHER}


@pytest.mark.parametrize(("text", "code"), [("3:0", 3), ("0:9", 137), ("0:0", 0), ("", 0), ("x:y", 0), ("1:15", 1)])
def test_exit_codes(text: str, code: int) -> None:
    """An exit status, or 128 and the signal."""
    assert parse.exit_code(text) == code


def tarred(files: dict[str, bytes], mtime: float = 1000.5) -> bytes:
    """A tar as the wrapper makes it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            archive.addfile(member, io.BytesIO(data))
    return target.getvalue()


def test_changes_are_read() -> None:
    """Records with their energy report, run claims that are jobs, and the site's time."""
    records, started, now = parse.changes(
        tarred(
            {
                "tmp/stamp": b"",
                f"records/{KEY}": b'12 3 1.25\n{"joules": 5}\n',
                f"run/{KEY}/owner": b"12 nonce\n",
                f"run/{OTHER}/owner": b"tombstone nonce\n",
            }
        )
    )
    assert records == (Record(KEY, "12", 3, 1.25, '{"joules": 5}'),)
    assert started == {KEY: "12"}
    assert now == 1000.5


@pytest.mark.parametrize(
    "record",
    [b"", b"12\n", b"x 0 1.0\n", b"12 0 1.0 more\n", b"12 99999999999 1\n", b"\xff\xfe\n", b"12 0 nan\n", b"12 0 -1\n"],
)
def test_a_forged_record_is_none(record: bytes) -> None:
    """What does not read as a record is left out."""
    assert parse.changes(tarred({"tmp/stamp": b"", f"records/{KEY}": record}))[0] == ()


def test_records_of_strange_names_or_sizes_are_left_out() -> None:
    """Only ULIDs name records, and a record is small."""
    strange = {
        "tmp/stamp": b"",
        "records/../../etc/passwd": b"1 0 1\n",
        "records/x": b"1 0 1\n",
        f"records/{KEY}": b"1 0 1\n" * 20000,
    }
    assert parse.changes(tarred(strange))[0] == ()


@pytest.mark.parametrize(
    "data", [b"", b"no tar at all", tarred({f"records/{KEY}": b"1 0 1\n"}), tarred({"tmp/stamp": b""})[:300]]
)
def test_changes_without_a_time_are_no_answer(data: bytes) -> None:
    """A torn list would lose what is after it."""
    with pytest.raises(LinkDown):
        parse.changes(data)


def test_listings_tell_files_and_what_is_none() -> None:
    """Nanoseconds are exact; links, sockets and names that cannot be carried are skipped by name."""
    entry = "f\t5\t1700000000.1234567890\t1700000001.5\t77\t./data/a\n{}\0"
    files = entry.format("x.txt").encode() + entry.format("d/é y").encode() + entry.format("bad\nname").encode()
    files += entry.format("\udcff").encode(errors="surrogateescape") + b"l\t5\t1.0\t1.0\t7\t./data/a\nlink\0torn"
    found = parse.listings(b"./data/a\n./data/b\n", files)
    assert [file.path for file in found["data/a"].files] == ["d/é y", "x.txt"]
    first = found["data/a"].files[1]
    assert (first.size, first.mtime_ns, first.ctime_ns, first.inode) == (
        5,
        1700000000123456789,
        1700000001500000000,
        77,
    )
    assert len(found["data/a"].skipped) == 3
    assert "link" in found["data/a"].skipped
    assert found["data/b"].files == ()


def test_checksums_keep_names_as_they_are() -> None:
    """Names with spaces; lines that are none are left out."""
    digest = "0" * 32
    assert parse.checksums(f"{digest}  a b\0nonsense\0".encode()) == {"a b": digest}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-00:00:00", 86400), ("04:00:00", 14400), ("30:00", 1800), ("UNLIMITED", None), ("", None), ("INFINITE", None)],
)
def test_durations(text: str, seconds: int | None) -> None:
    """Days, hours, minutes, seconds; no limit is none."""
    assert parse.duration(text) == seconds


NOISE = st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
SAMPLES = [
    f"12|RUNNING|None|2026-05-01T08:59:00|2026-05-01T09:00:00|4|1|{KEY}\n".encode(),
    SACCT.encode(),
    b"cpu|2/6/0/8\n",
    b"f\t5\t1700000000.1\t1.5\t77\t./data/a\nx\0",
    tarred({"tmp/stamp": b"", f"records/{KEY}": b"12 3 1.25\n", f"run/{KEY}/owner": b"12 n\n"}),
]


@given(sample=st.sampled_from(SAMPLES), noise=NOISE, at=st.integers(0, 3000), cut=st.integers(0, 60))
def test_mutated_output_raises_nothing_but_errors_of_the_tree(sample: bytes, noise: bytes, at: int, cut: int) -> None:
    """Whatever a site prints, a reader answers or says that it is no answer."""
    data = sample[:at] + noise + sample[at + cut :]
    parse.queue(data)
    parse.load(data)
    parse.accounting(data)
    parse.listings(b"./data/a\n", data)
    parse.checksums(data)
    for read in (lambda: parse.changes(data), lambda: parse.frame(Completed(0, data), "n1")):
        try:
            read()
        except HeroesError:
            pass


def test_keys_that_are_made_are_found_again() -> None:
    """A fresh key is a job of ours in the queue."""
    key = new_ulid()
    (job,) = parse.queue(f"1|R|None|N/A|N/A|1|1|{key}".encode())
    assert job.key == key


def test_digits_of_other_scripts_are_no_job_id() -> None:
    """Text that merely looks like a number to Python is left out, not converted."""
    line = f"\u00b2|COMPLETED|0:0|Unknown|Unknown|Unknown|1|1|1|||{KEY}"
    assert parse.accounting(line.encode()) == {}
    assert parse.queue(f"\u0663|RUNNING|None|N/A|N/A|1|1|{KEY}".encode()) == ()
