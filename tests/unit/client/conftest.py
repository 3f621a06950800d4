"""A fake API for the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.client.fake_api import FakeApi, serving


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fake API on a free port."""
    with serving() as found:
        yield found
