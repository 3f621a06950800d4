"""The API over real HTTP: operations, rights, idempotency keys, uploads, downloads, waiting, errors."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from heroes.api.errors import Conflict, NotSignedIn, Refused, SchedulerDown, StoreBusy, from_body
from heroes.api.model import Empty, Model
from heroes.api.registry import ANYBODY, SIGNED_IN, Operation
from heroes_core import logs
from heroes_core.http import Download
from heroes_core.module import Call, Module, Services
from heroes_core.runtime import Runtime
from heroes_core.store import canonical, idempotency
from heroes_core.work import Caller, Database
from tests.serving import Served, serve


class Thing(Model):
    """A thing."""

    name: str
    size: int = 1
    tags: tuple[str, ...] = ()


class Told(Model):
    """What came."""

    text: str


THING = Operation(
    name="t.thing", method="GET", path="/t/{name}", request=Thing, response=Thing, right=SIGNED_IN, summary=""
)
MAKE = Operation(
    name="t.make",
    method="POST",
    path="/t/{name}",
    request=Thing,
    response=Told,
    right="submit",
    summary="",
    creates=True,
)
OPEN = Operation(name="t.open", method="GET", path="/open", request=Empty, response=Told, right=ANYBODY, summary="")
UP = Operation(
    name="t.up", method="POST", path="/up/{name}", request=Thing, response=Told, right="submit", summary="", upload=True
)
DOWN = Operation(
    name="t.down", method="GET", path="/down/{name}", request=Thing, response=Empty, right=SIGNED_IN, summary="",
    download=True,
)  # fmt: skip


class Wait(Model):
    """How long to wait."""

    wait: float = 0


class About(Model):
    """What a request may be about."""

    workflow_instance_id: str
    project: str = ""
    step: str = ""
    key: str = ""


WAIT = Operation(name="t.wait", method="GET", path="/wait", request=Wait, response=Told, right=SIGNED_IN, summary="")
ABOUT = Operation(
    name="t.about", method="GET", path="/about/{workflow_instance_id}", request=About, response=Empty, right=SIGNED_IN,
    summary="",
)  # fmt: skip
FAIL = Operation(
    name="t.fail", method="DELETE", path="/t/{name}", request=Thing, response=Empty, right=SIGNED_IN, summary=""
)

PEOPLE = {
    "ada": Caller("acme", "ada", frozenset({"submit"}), "t1"),
    "cyd": Caller("acme", "cyd", frozenset({"submit"}), "t3"),
    "bob": Caller("acme", "bob", frozenset({"billing"}), "t2"),
}


class Directory:
    """Tokens are names."""

    def remembered(self, token: str) -> Caller | None:
        """Nobody is remembered."""
        return None

    def identify(self, token: str) -> Caller:
        """The person of that name."""
        if token not in PEOPLE:
            raise NotSignedIn("The token has expired.", hint="Sign in again.")
        return PEOPLE[token]


@pytest.fixture
def made() -> list[str]:
    """What was made."""
    return []


@pytest.fixture
def served(sqlite: Database, made: list[str]) -> Iterator[Served]:
    """A server with one module."""
    module = Module("t", (THING, MAKE, OPEN, UP, DOWN, WAIT, ABOUT, FAIL))
    module.bind(THING)(lambda call, request: request)
    module.bind(ABOUT)(lambda call, request: Empty())
    module.bind(OPEN)(lambda call, request: Told(text=f"hello {call.caller.user}"))

    @module.bind(MAKE)
    def make(call: Call, request: Thing) -> Told:
        with call.write() as work:
            work.audit("acme", call.caller.actor, "make", request.name)
            made.append(request.name)
            if request.name == "twice":
                raise Conflict("It is there already.", hint="Take another name.")
        return Told(text=f"{request.name} {len(made)}")

    @module.bind(UP)
    def up(call: Call, request: Thing) -> Told:
        assert call.upload is not None
        try:
            size = sum(len(part) for part in call.upload)
        except SchedulerDown:
            raise
        made.append(request.name)
        if request.name == "busy":
            raise StoreBusy("The database is busy.", hint="Try again.")
        return Told(text=str(size))

    @module.bind(DOWN)
    def down(call: Call, request: Thing) -> Download:
        return Download((b"x" * 1000 for _ in range(request.size)), name="ä b.txt", size=1000 * request.size)

    @module.bind(WAIT, waits=True)
    def wait(call: Call, request: Wait) -> Told | None:
        return Told(text="there") if made else Told(text="nothing") if call.final else None

    @module.bind(FAIL)
    def fail(call: Call, request: Thing) -> Empty:
        if request.name == "quicker" and not made:
            made.append("quicker")
            raise sa.exc.IntegrityError("INSERT", {}, ValueError("not unique"))
        if request.name == "quicker":
            raise Conflict("The name is taken.", hint="Take another name.")
        if request.name == "down":
            raise SchedulerDown("The scheduler of alpha does not answer.", retry_after=7)
        raise ZeroDivisionError("secret")

    with serve(Runtime(sqlite, Directory(), Services(), [module])) as running:
        yield running


def ask(served: Served, method: str, path: str, who: str = "ada", **options: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {who}"} if who else {}
    headers |= options.pop("headers", {})  # type: ignore[arg-type]
    return httpx.request(method, served.url + path, headers=headers, timeout=60, **options)  # type: ignore[arg-type]


def test_fields_travel_in_path_query_and_body(served: Served, made: list[str]) -> None:
    """A GET's fields come from path and query, numbers and lists too; a POST's from path and JSON."""
    answer = ask(served, "GET", "/t/a%2Fb%20c?size=3&tags=x&tags=y").json()
    assert answer == {"name": "a/b c", "size": 3, "tags": ["x", "y"]}
    assert ask(served, "POST", "/t/one", json={"size": 2}).json() == {"text": "one 1"}


@pytest.mark.parametrize(
    ("method", "path", "who", "status", "kind"),
    [
        ("GET", "/t/x", "", 401, "NotSignedIn"),
        ("GET", "/t/x", "eve", 401, "NotSignedIn"),
        ("POST", "/t/x", "bob", 403, "NotAllowed"),
        ("GET", "/t/x?size=big", "ada", 422, "InvalidSpec"),
        ("GET", "/t/x?colour=red", "ada", 422, "InvalidSpec"),
        ("PATCH", "/t/x", "ada", 405, "Refused"),
        ("GET", "/nowhere", "ada", 404, "NotFound"),
        ("GET", "/api/kernels", "ada", 404, "NotFound"),
        ("GET", "/api/contents", "ada", 404, "NotFound"),
        ("GET", "/api/terminals", "ada", 404, "NotFound"),
        ("GET", "/nbconvert/html/x", "ada", 404, "NotFound"),
        ("GET", "/metrics", "ada", 404, "NotFound"),
        ("GET", "/static/favicon.ico", "ada", 404, "NotFound"),
        ("DELETE", "/t/down", "ada", 503, "SchedulerDown"),
        ("DELETE", "/t/else", "ada", 500, "HeroesError"),
    ],
)
def test_errors_have_one_shape(served: Served, method: str, path: str, who: str, status: int, kind: str) -> None:
    """Each refusal has its status, its type, a message and a way out; an accident tells nothing of the inside."""
    answer = ask(served, method, path, who)
    told = answer.json()["error"]
    assert (answer.status_code, told["type"]) == (status, kind)
    assert told["message"]
    assert "secret" not in answer.text


def test_a_bad_body_is_named(served: Served) -> None:
    """A body that is not JSON, not an object, or of the wrong type says so."""
    for body, word in (("{", "JSON"), ("[]", "object"), ('{"size": "many"}', "size")):
        answer = ask(served, "POST", "/t/x", content=body)
        assert answer.status_code == 422
        assert word in answer.json()["error"]["message"]


def test_no_answer_adds_to_the_tree_of_errors(served: Served) -> None:
    """After a method that is not allowed, `Refused` is still the one class of that name."""
    ask(served, "PATCH", "/t/x")
    assert type(from_body({"error": {"type": "Refused", "message": "no"}}, 405)) is Refused


def test_an_operation_for_anybody_ignores_a_bad_token(served: Served) -> None:
    """Signing in works while an expired token is sent along."""
    assert ask(served, "GET", "/open", "expired").json() == {"text": "hello "}
    assert ask(served, "GET", "/open", "ada").json() == {"text": "hello ada"}


def test_the_same_idempotency_key_makes_one_thing(served: Served, made: list[str]) -> None:
    """The second request with a key gets the first's answer, another request is refused; a failure keeps none."""
    key = {"Idempotency-Key": "k1"}
    first = ask(served, "POST", "/t/one", json={}, headers=key)
    assert ask(served, "POST", "/t/one", json={}, headers=key).json() == first.json()
    assert made == ["one"]
    assert ask(served, "POST", "/t/two", json={}, headers=key).status_code == 409
    for _ in range(2):
        assert ask(served, "POST", "/t/twice", json={}, headers={"Idempotency-Key": "k2"}).status_code == 409
    assert made == ["one", "twice", "twice"]


def test_a_key_is_its_users_own(served: Served, made: list[str], sqlite: Database) -> None:
    """Another user's request with the same key makes another thing; a key beyond all measure is refused; and the store
    does not tell from a request's digest what was asked."""
    key = {"Idempotency-Key": "k4"}
    ask(served, "POST", "/t/secret", json={}, headers=key)
    ask(served, "POST", "/t/secret", "cyd", json={}, headers=key)
    assert made == ["secret", "secret"]
    assert ask(served, "POST", "/t/x", json={}, headers={"Idempotency-Key": "k" * 101}).status_code == 422
    with sqlite.read() as work:
        asked = set(work.execute(sa.select(idempotency.c.asked)).scalars())
    plain = canonical({"name": "secret", "size": 1, "tags": []})
    assert len(asked) == 1
    assert hashlib.sha256(plain.encode()).hexdigest() not in asked


def test_concurrent_requests_with_one_key_make_one_thing(served: Served, sqlite: Database) -> None:
    """Of ten at once, each gets the same answer, and one audit record stands."""
    answers: list[str] = []
    key = {"Idempotency-Key": "k3"}
    threads = [
        threading.Thread(target=lambda: answers.append(ask(served, "POST", "/t/many", json={}, headers=key).text))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 10
    assert len(set(answers)) == 1


def test_an_upload_streams_at_any_size(served: Served) -> None:
    """An upload above the limit of JSON bodies arrives whole, as it comes."""
    part = b"y" * 2**20
    answer = ask(served, "POST", "/up/big", content=(part for _ in range(40)))
    assert answer.json() == {"text": str(40 * 2**20)}


def test_whoever_comes_second_is_told_so(served: Served, made: list[str]) -> None:
    """A row that somebody else made in between is seen at the second look, and is a conflict, no failure."""
    answer = ask(served, "DELETE", "/t/quicker")
    assert (answer.status_code, answer.json()["error"]["message"]) == (409, "The name is taken.")


def test_an_upload_that_is_cut_off_makes_nothing(served: Served, made: list[str]) -> None:
    """When the sender goes away in the middle, the function fails instead of ending early."""

    def broken() -> Iterator[bytes]:
        yield b"y" * 1000
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        ask(served, "POST", "/up/part", content=broken())
    assert ask(served, "POST", "/up/whole", content=b"z").json() == {"text": "1"}
    assert made == ["whole"]


def test_a_busy_upload_is_not_tried_again_with_half_its_body(served: Served, made: list[str]) -> None:
    """When the database is busy after a part was read, the sender is told to send it again."""
    answer = ask(served, "POST", "/up/busy", content=b"z" * 1000)
    assert answer.status_code == 503
    assert made == ["busy"]


def test_a_refused_upload_is_told_why(served: Served) -> None:
    """Who sends megabytes without the right gets the refusal, not a cut connection."""
    answer = ask(served, "POST", "/up/big", "bob", content=(b"y" * 2**20 for _ in range(8)))
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "NotAllowed"


def test_a_download_streams_and_cannot_run_in_a_browser(served: Served) -> None:
    """A download has its size and name, and is sandboxed."""
    answer = ask(served, "GET", "/down/x?size=50")
    assert len(answer.content) == 50_000
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_waiting_ends_with_news_or_with_the_time(served: Served, sqlite: Database, made: list[str]) -> None:
    """A waiting request holds no thread, answers soon after a commit, and at the latest when its time is over."""
    assert ask(served, "GET", "/wait?wait=0.2").json() == {"text": "nothing"}
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(served, "GET", "/wait?wait=50").json()["text"]))
        for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    assert ask(served, "POST", "/t/news", json={}).status_code == 200
    for thread in threads:
        thread.join()
    assert answers == ["there"] * 30
    assert time.monotonic() - began < 40


def test_the_request_id_comes_back(served: Served) -> None:
    """A proper id is kept, another is replaced."""
    assert ask(served, "GET", "/open", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    assert len(ask(served, "GET", "/open", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]) == 26


def test_the_log_names_what_a_request_was_about(served: Served) -> None:
    """The line of a request carries who asked, the operation, and run, project, step and job, as ECS labels."""
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.set_up("heroes-api", stream=out)
        ask(served, "GET", "/about/run1?project=wing&step=solve&key=job1", headers={"X-Request-Id": "r1"})
        deadline = time.monotonic() + 20
        while "/about/run1" not in out.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    [line] = [told for each in out.getvalue().splitlines() if "/about/run1" in (told := json.loads(each))["message"]]
    assert line["labels"] == {
        "request": "r1", "operation": "t.about", "user": "ada", "organisation": "acme", "workflow": "run1",
        "project": "wing", "step": "solve", "job": "job1",
    }  # fmt: skip
    assert line["ecs.version"]
