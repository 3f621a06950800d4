"""The error tree travels: the client raises what the server raised."""

from __future__ import annotations

import pytest

from heroes.api import errors
from heroes.api.errors import HeroesError, LinkDown, OverBudget, from_body, to_body


def every_error() -> list[type[HeroesError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeroesError)]


@pytest.mark.parametrize("kind", every_error())
def test_an_error_comes_back_as_it_went(kind: type[HeroesError]) -> None:
    """Type, message, hint and detail survive the way over the wire."""
    sent = kind("It is too dear by 3.", hint="Ask for more.", detail={"by": 3})
    got = from_body(to_body(sent), kind.status)
    assert type(got) is kind
    assert (got.message, got.hint, got.detail["by"]) == ("It is too dear by 3.", "Ask for more.", 3)


def test_an_unknown_type_becomes_what_its_status_says() -> None:
    """A newer server's refusal is still a refusal, and anything else an error."""
    assert type(from_body({"error": {"type": "Newer", "message": "no"}}, 418)) is errors.Refused
    assert type(from_body({}, 500)) is HeroesError


def test_unavailable_tells_when_to_try_again() -> None:
    """The waiting time survives too."""
    got = from_body(to_body(LinkDown("alpha does not answer.", retry_after=30)), 503)
    assert isinstance(got, LinkDown)
    assert got.retry_after == 30


def test_an_error_reads_as_message_and_way_out() -> None:
    """What a person sees is the message and what to do."""
    assert str(OverBudget("Too dear.", hint="Ask for more.")) == "Too dear. Ask for more."
