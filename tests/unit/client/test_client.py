"""The client is made from the contract."""

from __future__ import annotations

import inspect

import pytest

from heroes.api import contract
from heroes.api.errors import InvalidSpec, NotFound
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.client import Client, prepare
from tests.unit.client.fake_api import Asked, FakeApi


class Thing(Model):
    """A thing."""

    name: str
    size: int = 1
    flag: bool = False
    tags: tuple[str, ...] = ()


class Things(Model):
    """A page of things."""

    items: tuple[Thing, ...]
    next: str | None = None


def operation(method: str, **more: object) -> Operation:
    """An operation on a thing."""
    settings = {"request": Thing, "response": Thing, "right": SIGNED_IN, "summary": "Do it.", **more}
    return Operation(name="t.thing", method=method, path="/t/{name}", **settings)  # type: ignore[arg-type]


GET, POST, DELETE = operation("GET"), operation("POST", creates=True), operation("DELETE")
LIST = Operation(
    name="t.list", method="GET", path="/t", request=Page, response=Things, right=SIGNED_IN, summary="List them."
)
UP = operation("POST", upload=True)
DOWN = operation("GET", download=True, response=Empty)


@pytest.fixture
def client(api: FakeApi) -> Client:
    """A client of the fake API."""
    return Client(api.url, "token")


def test_fields_of_a_get_travel_in_path_and_query() -> None:
    """Path fields are quoted, the others become the query; what was not set does not travel."""
    sending = prepare(GET, Thing(name="a/b ?", flag=True, tags=("x", "y")))
    assert sending.path == "/t/a%2Fb%20%3F"
    assert sending.query == [("flag", "true"), ("tags", "x"), ("tags", "y")]
    assert sending.body is None
    assert sending.repeatable


def test_fields_of_a_post_travel_in_path_and_body() -> None:
    """A creation carries an idempotency key, fresh unless one is given, and may therefore be repeated."""
    first, second = prepare(POST, Thing(name="a", size=2)), prepare(POST, Thing(name="a", size=2))
    assert (first.path, first.body, first.query) == ("/t/a", {"size": 2}, [])
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert prepare(POST, Thing(name="a"), key="mine").headers == {"Idempotency-Key": "mine"}
    assert first.repeatable


def test_a_deletion_is_not_repeated() -> None:
    """Neither a deletion nor a change is safe to send twice."""
    assert not prepare(DELETE, Thing(name="a")).repeatable
    assert not prepare(operation("PATCH"), Thing(name="a")).repeatable


def test_the_answer_is_typed(api: FakeApi, client: Client) -> None:
    """The answer is the operation's response."""
    api.on("GET", "/t/a", Thing(name="a", size=3))
    assert client.call(GET, Thing(name="a")) == Thing(name="a", size=3)


def test_the_key_is_the_same_at_each_try(api: FakeApi, client: Client) -> None:
    """A creation that is sent again carries the key that it had."""
    answers = [None, Thing(name="a")]
    api.on("POST", "/t/a", lambda _asked: answers.pop(0))
    client.call(POST, Thing(name="a"))
    assert len({asked.headers["Idempotency-Key"] for asked in api.asked}) == 1
    assert len(api.asked) == 2


def test_every_page_is_read(api: FakeApi, client: Client) -> None:
    """A list is read page after page until there is none."""

    def page(asked: Asked) -> Things:
        after = asked.query.get("after", [""])[0]
        return Things(items=(Thing(name=f"after-{after}"),), next={"": "1", "1": "2", "2": None}[after])

    api.on("GET", "/t", page)
    assert [each.name for each in client.pages(LIST, Page(limit=1))] == ["after-", "after-1", "after-2"]
    assert all(asked.query["limit"] == ["1"] for asked in api.asked)


def test_an_upload_sends_bytes(api: FakeApi, client: Client) -> None:
    """The body of an upload is the bytes, its fields go by path and query."""
    api.on("POST", "/t/a", Thing(name="a"))
    client.call(UP, Thing(name="a", size=5), content=iter([b"one", b"two"]))
    assert (api.asked[0].body, api.asked[0].query) == (b"onetwo", {"size": ["5"]})


def test_a_download_gives_bytes(api: FakeApi, client: Client) -> None:
    """A download gives its bytes and their number."""
    api.on("GET", "/t/a", b"content")
    with client.download(DOWN, Thing(name="a")) as download:
        assert (b"".join(download.parts), download.size) == (b"content", 7)


def test_a_missing_download_is_an_error(api: FakeApi, client: Client) -> None:
    """The error of a download is raised before anything is read."""
    api.on("GET", "/t/a", NotFound("no a"))
    with pytest.raises(NotFound, match="no a"), client.download(DOWN, Thing(name="a")):
        pytest.fail("there is nothing to read")


def test_operations_are_methods(api: FakeApi, client: Client) -> None:
    """Every operation of the contract is a method of its group, with the fields as keyword arguments."""
    api.on("GET", "/health", {"status": "ok", "version": "1"})
    assert client.platform.health().status == "ok"
    assert "health" in dir(client.platform)
    assert "platform" in dir(client)
    signature = inspect.signature(client.user.list)
    assert list(signature.parameters) == ["after", "limit"]
    assert client.user.list.__doc__ == contract.operation("user.list").summary


def test_names_that_python_cannot_write(client: Client) -> None:
    """An operation with a dash in its name, or in a group of a group, is a method too."""
    assert "heroes.api.clusters" in repr(client.cluster.queue.set)
    assert client.budget.statement_csv.__doc__ == contract.operation("budget.statement-csv").summary
    assert {"queue", "list"} <= set(dir(client.cluster))


def test_a_bad_field_never_leaves(api: FakeApi, client: Client) -> None:
    """A field of the wrong type is refused here, by name."""
    with pytest.raises(InvalidSpec, match="limit"):
        client.user.list(limit="many")
    assert api.asked == []


def test_what_the_contract_lacks(client: Client) -> None:
    """A group or an operation that does not exist is an AttributeError, as of any object."""
    with pytest.raises(AttributeError, match="nothing"):
        client.nothing.list()
    with pytest.raises(AttributeError, match=r"user\.nothing"):
        client.user.nothing()
