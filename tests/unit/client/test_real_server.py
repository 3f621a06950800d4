"""The client and the real API server understand each other: paths, queries, bodies, bytes, errors, keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heroes.api.errors import Conflict, InvalidSpec, NotFound, NotSignedIn
from heroes.api.model import Empty, Model
from heroes.api.registry import SIGNED_IN, Operation
from heroes.client import Client
from heroes.transport import Sending
from heroes_core.migrate import load_tables
from heroes_core.module import Call, Module, Services
from heroes_core.runtime import Runtime
from heroes_core.work import Caller, Database
from tests.serving import serve


class Thing(Model):
    """What is sent and what came."""

    name: str
    size: int = 1
    flag: bool = False
    tags: tuple[str, ...] = ()
    made: int = 0


def _operation(name: str, method: str, **more: object) -> Operation:
    settings = {"request": Thing, "response": Thing, "right": SIGNED_IN, "summary": "It."}
    path = f"/{name}/{{name}}"
    return Operation(name=f"t.{name}", method=method, path=path, **{**settings, **more})  # type: ignore[arg-type]


GET, CHANGE = _operation("get", "GET"), _operation("change", "PATCH")
MAKE = _operation("make", "POST", creates=True)
UP, DOWN = _operation("up", "POST", upload=True), _operation("down", "GET", download=True, response=Empty)
MODULE = Module("t", (GET, CHANGE, MAKE, UP, DOWN))
made: list[str] = []


@MODULE.bind(GET)
@MODULE.bind(CHANGE)
def echo(_call: Call, request: Thing) -> Thing:
    """What came."""
    if request.name == "missing":
        raise NotFound("no such thing", hint="look elsewhere", detail={"name": "missing"})
    return request


@MODULE.bind(MAKE)
def make(_call: Call, request: Thing) -> Thing:
    """What came, and how many were made."""
    made.append(request.name)
    return request.model_copy(update={"made": len(made)})


@MODULE.bind(UP)
def up(call: Call, request: Thing) -> Thing:
    """How many bytes came."""
    assert call.upload is not None
    return request.model_copy(update={"size": sum(len(part) for part in call.upload)})


@MODULE.bind(DOWN)
def down(_call: Call, request: Thing) -> Iterator[bytes]:
    """So many bytes."""
    return (b"x" * 1000 for _ in range(request.size))


class Directory:
    """One token is good."""

    def remembered(self, token: str) -> Caller | None:
        """Nobody is remembered."""
        return None

    def identify(self, token: str) -> Caller:
        """Ada."""
        if token != "good":
            raise NotSignedIn("The token is unknown.", hint="Sign in again.")
        return Caller("acme", "ada", frozenset({"submit"}), "t")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server."""
    folder = tmp_path_factory.mktemp("api")
    database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"a key for tests, of 32 bytes or so")
    load_tables().create_all(database.engine)
    with serve(Runtime(database, Directory(), Services(), [MODULE])) as served:
        yield served.url
    database.close()


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """A client that is signed in."""
    connected = Client(url, "good")
    yield connected
    connected.close()


@pytest.mark.parametrize("name", ["plain", "a/b", "with space", "ünï%2F?&=#", "$(id)'\"\n;", "a+b"])
@pytest.mark.parametrize("operation", [GET, CHANGE])
def test_any_text_arrives(client: Client, operation: Operation, name: str) -> None:
    """Whatever stands in a path, a query or a body arrives as it was."""
    sent = Thing(name=name, size=5, flag=True, tags=(name, "x"))
    assert client.call(operation, sent) == sent


def test_a_key_makes_one_thing(client: Client) -> None:
    """The same creation with the same key has one effect and one answer; with another request it is a Conflict."""
    first = client.call(MAKE, Thing(name="a"), key="k1")
    assert client.call(MAKE, Thing(name="a"), key="k1") == first
    assert client.call(MAKE, Thing(name="a")).made == first.made + 1
    with pytest.raises(Conflict):
        client.call(MAKE, Thing(name="b"), key="k1")


def test_bytes_go_up_and_down(client: Client) -> None:
    """Uploads and downloads of several megabytes arrive whole."""
    parts = (b"y" * 100_000 for _ in range(50))
    assert client.call(UP, Thing(name="a"), content=parts).size == 5_000_000
    with client.download(DOWN, Thing(name="a", size=3000)) as download:
        assert sum(len(part) for part in download.parts) == 3_000_000


def test_errors_are_the_servers(client: Client, url: str) -> None:
    """The class, message, hint and detail of an error come through."""
    with pytest.raises(NotFound) as caught:
        client.call(GET, Thing(name="missing"))
    assert (caught.value.message, caught.value.hint) == ("no such thing", "look elsewhere")
    assert caught.value.detail == {"name": "missing"}
    with pytest.raises(NotSignedIn):
        Client(url, "bad").call(GET, Thing(name="a"))
    with pytest.raises(InvalidSpec, match="size"):
        client.transport.send(Sending("PATCH", "/change/a", body={"size": "many"}))
