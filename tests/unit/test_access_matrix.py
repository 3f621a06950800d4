"""Every route of the running server, with every kind of credential: nothing is answered that should not be."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from heroes.api.errors import NotSignedIn
from heroes.api.registry import ANYBODY, RIGHTS, SIGNED_IN
from heroes_core.module import Services, installed_modules
from heroes_core.runtime import Runtime
from heroes_core.server import routes
from heroes_core.work import Caller, Database
from tests.serving import Served, serve

MODULES = installed_modules()
BOUND = [bound for module in MODULES for bound in module.bound.values()]
BAD = {
    "none": {},
    "empty": {"Authorization": ""},
    "no scheme": {"Authorization": "none-of-these"},
    "basic": {"Authorization": "Basic YTpi"},
    "unknown": {"Authorization": "Bearer unknown"},
    "expired": {"Authorization": "Bearer expired"},
    "revoked": {"Authorization": "Bearer revoked"},
    "cookie": {"Cookie": "token=right:submit; jupyterhub-session-id=x"},
    "query": {"X-Token": "right:submit"},
    "upgrade": {"Upgrade": "websocket", "Connection": "Upgrade"},
    "cross-site": {"Sec-Fetch-Mode": "no-cors", "Origin": "https://evil.example"},
}


class Rights:
    """The token `right:X` holds exactly the right X, `nothing` none."""

    def remembered(self, token: str) -> Caller | None:
        """Nobody is remembered."""
        return None

    def identify(self, token: str) -> Caller:
        """Who holds just that right."""
        kind, _, right = token.partition(":")
        if kind == "nothing":
            return Caller("nowhere", "nobody", frozenset())
        if kind != "right":
            raise NotSignedIn(f"The token is {token}.", hint="Sign in again.")
        return Caller("nowhere", "nobody", frozenset({right}))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, sqlite_template: object) -> Iterator[Served]:
    """The real routes, over an empty database, with nothing behind them."""
    path = tmp_path_factory.mktemp("matrix") / "store.sqlite"
    path.write_bytes(sqlite_template.read_bytes())  # type: ignore[attr-defined]
    database = Database(f"sqlite:///{path}", audit_key=b"k")
    with serve(Runtime(database, Rights(), Services(), MODULES)) as running:
        yield running
    database.close()


def url_of(served: Served, path: str) -> str:
    return served.url + path.replace("{", "x").replace("}", "x")


def test_the_running_routes_are_the_declared_ones(served: Served) -> None:
    """The application's routing table holds one route for each declared path, and one for all the rest."""
    assert len(routes(served.runtime)) == len({bound.operation.path for bound in BOUND}) + 1


@pytest.mark.parametrize("credential", BAD)
def test_a_bad_credential_opens_nothing(served: Served, credential: str) -> None:
    """Without a good token every operation but those for anybody answers 401."""
    with httpx.Client(timeout=60) as client:
        for bound in BOUND:
            operation = bound.operation
            if ANYBODY in operation.rights:
                continue
            answer = client.request(operation.method, url_of(served, operation.path), headers=BAD[credential])
            assert answer.status_code == 401, (operation.name, credential)


@pytest.mark.parametrize("right", ["", *sorted(RIGHTS)])
def test_a_right_opens_only_its_own_operations(served: Served, right: str) -> None:
    """A caller with one right gets 403 from every operation that needs another."""
    token = f"right:{right}" if right else "nothing"
    with httpx.Client(timeout=60, headers={"Authorization": f"Bearer {token}"}) as client:
        for bound in BOUND:
            operation = bound.operation
            if {ANYBODY, SIGNED_IN, right} & set(operation.rights):
                continue
            answer = client.request(operation.method, url_of(served, operation.path), content=b"{}")
            assert answer.status_code == 403, (operation.name, right)
            assert answer.json()["error"]["type"] == "NotAllowed"


def test_every_operation_is_documented() -> None:
    """Each has a sentence, and the errors that it may answer with."""
    for bound in BOUND:
        assert bound.operation.summary.endswith("."), bound.operation.name
