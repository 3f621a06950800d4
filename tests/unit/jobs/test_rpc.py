"""Questions to the engine: signed, answered, refused."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from heroes.api.errors import InvalidSpec, LinkDown, NotSignedIn, Unavailable
from heroes_jobs.rpc import Engines, Server, ask
from heroes_spawners.site import Chunk

SECRET = b"shared by engine and API"


def tail(cluster: str, key: str, stream: str, offset: int, limit: int) -> Chunk:
    """A log that tells what was asked."""
    if cluster == "away":
        raise LinkDown("away does not answer", hint="Wait.", retry_after=7)
    return Chunk(f"{cluster} {key} {stream} ".encode()[offset : offset + limit] + b"\xff", offset + limit)


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an engine answers, by either way."""
    where = f"unix:{tmp_path}/e.sock" if request.param == "unix" else f"tcp:127.0.0.1:{free_port()}"
    with Server(where, SECRET, {"tail": tail}):
        yield where


def test_a_log_is_read_through_the_engine(address: str) -> None:
    """Bytes of any kind come back, and where to go on."""
    part = Engines(SECRET).tail(address, "alpha", "K", "stdout", 2, 6)
    assert part == Chunk(b"pha K \xff", 8)


def test_errors_come_back_as_themselves(address: str) -> None:
    """What the engine raised is raised here, with its detail."""
    with pytest.raises(LinkDown, match="away does not answer") as caught:
        Engines(SECRET).tail(address, "away", "K", "stdout", 0, 1)
    assert caught.value.retry_after == 7


def test_a_wrong_secret_is_refused(address: str) -> None:
    """Without the shared secret nothing is answered."""
    with pytest.raises(NotSignedIn):
        Engines(b"guessed").tail(address, "alpha", "K", "stdout", 0, 1)


def test_an_unknown_question_is_refused(address: str) -> None:
    """An engine answers what it knows."""
    with pytest.raises(InvalidSpec, match="answers no 'rm'"):
        ask(address, SECRET, "rm")


@pytest.mark.parametrize("line", [b"\n", b"nonsense\n", b"[]\n", b'{"question": "{}", "mac": "0"}\n'])
def test_nonsense_is_refused_and_the_server_lives_on(address: str, line: bytes) -> None:
    """A line that is no question gets an error, and the next question its answer."""
    kind, _, where = address.partition(":")
    if kind == "tcp":
        connection = socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2])))
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(where)
    with connection, connection.makefile("rwb") as stream:
        stream.readline()
        stream.write(line)
        stream.flush()
        assert "error" in json.loads(stream.readline())
    assert Engines(SECRET).tail(address, "alpha", "K", "stdout", 0, 1).next_offset == 1


def test_no_engine_is_told_as_unavailable(tmp_path: Path) -> None:
    """Without an address, or with nobody there, the caller may try again later."""
    for where in (None, "", f"unix:{tmp_path}/nobody.sock"):
        with pytest.raises(Unavailable):
            Engines(SECRET).tail(where, "alpha", "K", "stdout", 0, 1)


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    """Nobody else on the machine may even connect, and a socket left behind is replaced."""
    for _ in range(2):
        with Server(f"unix:{tmp_path}/e.sock", SECRET, {}):
            assert (tmp_path / "e.sock").stat().st_mode & 0o777 == 0o600
