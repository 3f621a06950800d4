"""`hs = heroes.connect()`: what a notebook, a script and a terminal work with."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from heroes import credentials
from heroes.client import Client

if TYPE_CHECKING:
    from heroes.api.identity import Me
    from heroes.data import Data
    from heroes.runs import Runs
    from heroes.workflows import Workflows


def connect(url: str | None = None, token: str | None = None, *, timeout: float = 30.0) -> Heroes:
    """Connect as whoever is signed in: `token`, `HEROES_TOKEN`, or what `heroes login` kept.

    NotSignedIn when there is no token. Nothing is sent before it is needed."""
    found = credentials.need(credentials.find(url, token))
    return Heroes(Client(found.url, found.token, timeout=timeout))


class Heroes:
    """The platform as one user sees it. `client` has every operation of the contract."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @cached_property
    def workflows(self) -> Workflows:
        """The workflows on offer: `hs.workflows["name"]`."""
        from heroes.workflows import Workflows

        return Workflows(self)

    @cached_property
    def runs(self) -> Runs:
        """One's runs: `hs.runs["01H…"]`, or to go through, newest first."""
        from heroes.runs import Runs

        return Runs(self)

    @cached_property
    def data(self) -> Data:
        """One's buckets and objects."""
        from heroes.data import Data

        return Data(self)

    @cached_property
    def me(self) -> Me:
        """Who is signed in, with roles and rights."""
        from heroes.api import identity

        answer: Me = self.client.call(identity.ME, identity.ME.request())
        return answer

    @property
    def user(self) -> str:
        """The name of whoever is signed in: that of their own bucket, too."""
        return self.me.user

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HEROES at {self.client.transport.url}>"
