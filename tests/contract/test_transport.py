"""Every transport keeps the same promises: argv identity, whole output or an error, a deadline on every call."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec, LinkDown
from heroes_spawners.transport import (
    LocalTransport,
    SshTransport,
    Transport,
    fetch_host_key,
    fingerprint,
)
from tests.contract.rigs import ssh_endpoint, ssh_transport
from tests.lab import Lab

WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=24), min_size=50, max_size=60
)


@pytest.fixture(scope="module", params=["local", "ssh"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """Each transport."""
    if request.param == "local":
        yield LocalTransport()
        return
    opened = ssh_transport(request.getfixturevalue("lab").cluster("alpha"))
    yield opened
    opened.close()


def run(transport: Transport, *argv: str, stdin: bytes = b"", deadline_s: float = 30, limit: int = 1 << 24) -> bytes:
    """Standard output of a command that must succeed."""
    done = transport.run(argv, stdin, deadline_s=deadline_s, limit=limit)
    assert done.returncode == 0, done.stderr
    return done.stdout


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(words=WORDS)
def test_any_text_arrives_as_the_same_argument(transport: Transport, words: list[str]) -> None:
    """5,000 strings, quotes, newlines and $( ) among them, reach a program as they are."""
    out = run(transport, "/usr/bin/printf", "%s\\0", *words)
    assert out.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("word", ["a'; touch /tmp/x; '", "$(id)", "`id`", "a\nb", "-n", "", "*", "~", "\\", "é☃", "!!"])
def test_a_hostile_word_stays_one_word(transport: Transport, word: str) -> None:
    """What a shell would act on is data."""
    assert run(transport, "/usr/bin/printf", "%s|%s", word, "end").decode() == f"{word}|end"


@pytest.mark.parametrize("argv", [("echo", "a\0b"), ("echo", "\ud800"), (), ("",)])
def test_what_cannot_be_an_argument_is_refused(transport: Transport, argv: tuple[str, ...]) -> None:
    """NUL, lone surrogates and an empty program are refused before anything is sent."""
    with pytest.raises(InvalidSpec):
        transport.run(argv, deadline_s=5, limit=100)


def test_status_and_both_outputs_come_back(transport: Transport) -> None:
    """Exit status, standard output and standard error are told apart."""
    done = transport.run(("sh", "-c", "echo out; echo err >&2; exit 7"), deadline_s=30, limit=1000)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_large_input_goes_through_and_back(transport: Transport) -> None:
    """Megabytes go in while megabytes come out."""
    data = bytes(range(256)) * 20_000
    assert run(transport, "cat", stdin=data) == data


def test_a_command_may_leave_its_input(transport: Transport) -> None:
    """A command that ends without reading is no error."""
    assert run(transport, "echo", "done", stdin=b"x" * 5_000_000) == b"done\n"


def test_a_call_ends_at_its_deadline(transport: Transport) -> None:
    """A command that hangs is given up, and the next call works."""
    begun = time.monotonic()
    with pytest.raises(LinkDown):
        transport.run(("sleep", "20"), deadline_s=0.5, limit=100)
    assert time.monotonic() - begun < 10
    assert run(transport, "echo", "again") == b"again\n"


def test_output_is_bounded(transport: Transport) -> None:
    """More output than asked for is no answer."""
    with pytest.raises(LinkDown):
        transport.run(("head", "-c", "3000000", "/dev/zero"), deadline_s=30, limit=1_000_000)


def test_a_stream_takes_what_is_written(transport: Transport) -> None:
    """A long input is written piece by piece."""
    stream = transport.open(("wc", "-c"), deadline_s=30)
    for _ in range(50):
        stream.write(b"x" * 100_000)
    done = stream.finish()
    assert (done.returncode, done.stdout.strip()) == (0, b"5000000")


def test_a_stream_tells_how_its_command_ended(transport: Transport) -> None:
    """A command that fails while it is written to tells its status and words."""
    stream = transport.open(("sh", "-c", "echo no space >&2; exit 3"), deadline_s=30)
    for _ in range(50):
        stream.write(b"x" * 100_000)
    done = stream.finish()
    assert (done.returncode, done.stderr) == (3, b"no space\n")


def test_many_calls_at_once_lose_none(transport: Transport) -> None:
    """More calls at once than a connection has channels: each gets its own answer."""
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda n: run(transport, "echo", str(n)), range(120)))
    assert answers == [f"{n}\n".encode() for n in range(120)]


def test_the_file_system_is_offered_to_rclone(transport: Transport) -> None:
    """The remote names its type; over SSH with pinned host keys."""
    remote = transport.remote()
    assert remote["type"] in ("local", "sftp")
    assert remote["type"] == "local" or {"host", "user", "key_pem", "known_hosts_file"} <= set(remote)


def test_another_host_key_gets_no_command(lab: Lab) -> None:
    """A host that shows another key than the pinned one is refused before anything is sent to it."""
    cluster = lab.cluster("alpha")
    other = paramiko.Ed25519Key.generate() if hasattr(paramiko.Ed25519Key, "generate") else paramiko.ECDSAKey.generate()
    link = SshTransport(ssh_endpoint(cluster, host_key=f"{other.get_name()} {other.get_base64()}"))
    with pytest.raises(LinkDown):
        link.run(("touch", "reached"), deadline_s=20, limit=100)
    link.close()
    assert cluster.ssh("ls reached", check=False).returncode != 0


def test_a_key_that_is_not_installed_is_told_of(lab: Lab) -> None:
    """A refused key says what to do."""
    from heroes_clusters.keys import new_key_pair

    link = SshTransport(ssh_endpoint(lab.cluster("alpha"), private_key=new_key_pair("test").private_key))
    with pytest.raises(LinkDown) as refused:
        link.run(("true",), deadline_s=20, limit=100)
    link.close()
    assert "public key" in refused.value.hint


def test_nobody_listening_is_a_lost_link() -> None:
    """A port without a listener is LinkDown at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LinkDown):
        fetch_host_key("127.0.0.1", port)


def test_the_host_key_can_be_fetched_and_compared(lab: Lab) -> None:
    """An administrator sees the key's fingerprint before pinning it."""
    cluster = lab.cluster("alpha")
    found = fetch_host_key(cluster.host, cluster.port)
    assert found == cluster.host_key
    assert fingerprint(found).startswith("SHA256:")


def test_a_connection_that_is_cut_is_replaced(lab: Lab) -> None:
    """A command whose connection dies is LinkDown; the next one gets a fresh connection."""
    link = ssh_transport(lab.cluster("alpha"))
    with pytest.raises(LinkDown):
        link.run(("sh", "-c", "kill -9 $PPID; sleep 20"), deadline_s=20, limit=100)
    assert run(link, "echo", "back") == b"back\n"
    link.close()


def test_a_host_name_cannot_be_an_option() -> None:
    """Host and user never begin with a dash and hold no shell characters."""
    for host in ("-oProxyCommand=x", "a b", "a;b", ""):
        with pytest.raises(InvalidSpec):
            ssh_endpoint_named(host)


def ssh_endpoint_named(host: str) -> object:
    """An endpoint with that host."""
    from heroes_spawners.transport import Endpoint

    return Endpoint(host, "someone", "ssh-ed25519 AAAA", "key")
