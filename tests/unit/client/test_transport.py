"""How requests travel: same errors as on the server, repeated only where that is safe, over TCP and Unix sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heroes.api.errors import HeroesError, InvalidSpec, LinkDown, NotFound, OverBudget, Refused, StoreBusy, Unavailable
from heroes.transport import TRIES, Sending, Transport
from tests.unit.client.fake_api import Asked, FakeApi, serving


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that were made."""
    return []


@pytest.fixture
def transport(api: FakeApi, pauses: list[float]) -> Transport:
    """A transport that does not wait between tries."""
    return Transport(api.url, "secret", pause=pauses.append)


def failing(times: int, error: HeroesError | None) -> Callable[[Asked], HeroesError | bytes | None]:
    """Fails so often, then answers."""
    left = [times]

    def answer(_asked: Asked) -> HeroesError | bytes | None:
        left[0] -= 1
        return error if left[0] >= 0 else b"good"

    return answer


def test_the_token_goes_along(api: FakeApi, transport: Transport) -> None:
    """Each request carries the token."""
    api.on("GET", "/x", b"answer")
    assert transport.send(Sending("GET", "/x")) == b"answer"
    assert api.asked[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no run 5", hint="look"),
        OverBudget("too dear", detail={"by": 5}),
        LinkDown("alpha is gone", retry_after=60.0),
        InvalidSpec("bad"),
    ],
)
def test_the_servers_error_is_raised(api: FakeApi, transport: Transport, error: HeroesError) -> None:
    """The client raises the class that the server raised, with message, hint and detail."""
    api.on("POST", "/x", error)
    with pytest.raises(type(error)) as caught:
        transport.send(Sending("POST", "/x"))
    assert (caught.value.message, caught.value.hint, caught.value.detail) == (error.message, error.hint, error.detail)


def test_an_answer_that_is_no_error_of_ours(api: FakeApi, transport: Transport) -> None:
    """A refusal by something in between is still one of our errors."""
    api.on("GET", "/elsewhere", b"")
    with pytest.raises(Refused, match="/x"):
        transport.send(Sending("GET", "/x"))


@pytest.mark.parametrize("error", [None, StoreBusy("busy", retry_after=0.5)])
def test_a_safe_request_is_repeated(
    api: FakeApi, transport: Transport, pauses: list[float], error: HeroesError | None
) -> None:
    """What does no harm twice is sent again after a lost connection and after "busy"."""
    api.on("GET", "/x", failing(2, error))
    assert transport.send(Sending("GET", "/x", repeatable=True)) == b"good"
    assert len(api.asked) == 3
    assert len(pauses) == 2
    assert all(0 < pause < 4 for pause in pauses)


@pytest.mark.parametrize("error", [None, StoreBusy("busy", retry_after=0.5)])
def test_an_unsafe_request_is_sent_once(api: FakeApi, transport: Transport, error: HeroesError | None) -> None:
    """What might do harm twice is sent once, and its failure told."""
    api.on("POST", "/x", failing(1, error))
    with pytest.raises(Unavailable):
        transport.send(Sending("POST", "/x"))
    assert len(api.asked) == 1


def test_tries_end(api: FakeApi, transport: Transport) -> None:
    """A server that stays busy is given up."""
    api.on("GET", "/x", StoreBusy("busy", retry_after=0.1))
    with pytest.raises(StoreBusy):
        transport.send(Sending("GET", "/x", repeatable=True))
    assert len(api.asked) == TRIES


def test_a_long_wait_is_the_callers(api: FakeApi, transport: Transport, pauses: list[float]) -> None:
    """A server that asks for a minute gets no second try now."""
    api.on("GET", "/x", LinkDown("gone", retry_after=60.0))
    with pytest.raises(LinkDown):
        transport.send(Sending("GET", "/x", repeatable=True))
    assert (len(api.asked), pauses) == (1, [])


def test_an_upload_is_sent_once(api: FakeApi, transport: Transport) -> None:
    """A stream cannot be sent again: it is not."""
    api.on("POST", "/x", failing(1, StoreBusy("busy", retry_after=0.1)))
    with pytest.raises(StoreBusy):
        transport.send(Sending("POST", "/x", content=iter([b"a", b"b"]), repeatable=True))
    assert [asked.body for asked in api.asked] == [b"ab"]


def test_nobody_there(pauses: list[float]) -> None:
    """A platform that is not there is told with its address; even an unsafe request may be tried again then."""
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        Transport("http://127.0.0.1:9", pause=pauses.append).send(Sending("POST", "/x"))
    assert len(pauses) == TRIES - 1


def test_over_a_unix_socket(tmp_path: Path) -> None:
    """An address of the form http+unix reaches a server on a Unix socket, below a prefix too."""
    with serving(tmp_path / "api.sock") as api:
        api.on("GET", "/services/heroes/x", b"answer")
        transport = Transport(f"{api.url}/services/heroes/")
        assert transport.send(Sending("GET", "/x")) == b"answer"
        assert Transport(f"{api.url}:80/services/heroes").send(Sending("GET", "/x")) == b"answer"
        transport.close()


@pytest.mark.parametrize("url", ["ftp://host", "host:80", "", "http://"])
def test_what_is_no_address(url: str) -> None:
    """An address of another kind is refused with the forms that there are."""
    with pytest.raises(InvalidSpec, match="not the address of an API"):
        Transport(url)


def test_a_download_streams(api: FakeApi, transport: Transport) -> None:
    """The body of a stream is read by the caller."""
    api.on("GET", "/x", b"z" * 3_000_000)
    with transport.stream(Sending("GET", "/x")) as response:
        assert sum(len(part) for part in response.iter_bytes(1 << 20)) == 3_000_000
