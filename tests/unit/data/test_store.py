"""The tables of data, on both databases."""

from __future__ import annotations

import pytest

from heroes_core.work import Database
from heroes_data import store
from heroes_data.store import Copy, Movement
from tests.conftest import StillClock


def test_copies_are_found_by_cluster_and_path(database: Database) -> None:
    """What was recorded is found again, exactly, for its cluster only; recording again replaces it."""
    first = Copy("data/acme/ada/ada/x", "e1", 5, 2**62 + 1, 2**62 + 3, 2**64 - 1)
    second = Copy("data/acme/ada/ada/y", "e2", 0, 1, 2, 3)
    with database.write() as work:
        store.record_copies(work, "alpha", "acme", [first, second])
        store.record_copies(work, "cumulus", "acme", [Copy(first.path, "other", 1, 1, 1, 1)])
    with database.read() as work:
        assert store.copies(work, "alpha", [first.path, second.path, "nowhere"]) == {
            first.path: first, second.path: second,
        }  # fmt: skip
    newer = Copy(first.path, "e9", 6, 7, 8, 2**63)
    with database.write() as work:
        store.record_copies(work, "alpha", "acme", [newer])
        assert store.copies(work, "alpha", [first.path]) == {first.path: newer}
        store.forget_copies(work, "alpha", [first.path])
        assert store.copies(work, "alpha", [first.path, second.path]) == {second.path: second}
        assert store.copies(work, "cumulus", [first.path])[first.path].etag == "other"


def test_many_copies_are_found_in_one_question(database: Database) -> None:
    """Thousands of paths are no trouble, nor is none."""
    copies = [Copy(f"data/acme/ada/ada/{number}", "e", 1, 1, 1, number) for number in range(1234)]
    with database.write() as work:
        store.record_copies(work, "alpha", "acme", copies)
        store.record_copies(work, "alpha", "acme", [])
        assert store.copies(work, "alpha", (each.path for each in copies)) == {each.path: each for each in copies}
        assert store.copies(work, "alpha", []) == {}


def test_a_link_is_measured_as_a_moving_average(database: Database) -> None:
    """The first large transfer counts fully, later ones in part, small ones not at all."""
    with database.write() as work:
        store.measure_link(work, "alpha", "stage-in", 2**20 - 1, 1)
        store.measure_link(work, "alpha", "stage-in", 2**20, 0)
        assert store.links(work, "alpha") == {}
        store.measure_link(work, "alpha", "stage-in", 100 * 2**20, 1)
        store.measure_link(work, "alpha", "stage-in", 200 * 2**20, 1)
        store.measure_link(work, "alpha", "stage-out", 10 * 2**20, 2)
        assert store.links(work, "alpha") == pytest.approx({"stage-in": 130 * 2**20, "stage-out": 5 * 2**20})
        assert store.links(work, "cumulus") == {}


def test_the_log_is_read_newest_first(database: Database, clock: StillClock) -> None:
    """Everyone's or one user's lines come in pages, newest first, and keep what was logged."""
    with database.write() as work:
        for number in range(5):
            user = "ada" if number % 2 == 0 else "bob"
            store.log(work, Movement("acme", user, "upload", "ada", f"k{number}", bytes=number, seconds=0.5))
        store.log(work, Movement("umbrella", "ada", "upload", "ada", "theirs"))
        rows = store.list_transfers(work, "acme", None, 0, 3)
        assert [row.key for row in rows] == ["k4", "k3", "k2"]
        assert [row.key for row in store.list_transfers(work, "acme", None, rows[-1].id, 3)] == ["k1", "k0"]
        mine = store.list_transfers(work, "acme", "ada", 0, 10)
    assert [(row.key, row.bytes, row.seconds, row.outcome, row.at) for row in mine] == [
        (f"k{number}", number, 0.5, "done", clock.now()) for number in (4, 2, 0)
    ]


def test_grants_add_up(database: Database) -> None:
    """Who is granted a bucket twice, as user and as member, has the wider right; another organisation's is none."""
    with database.write() as work:
        for organisation in ("acme", "umbrella"):
            assert store.add_bucket(work, organisation, "shared", "ada")
        assert not store.add_bucket(work, "acme", "shared", "bob")
        store.set_grant(work, "acme", "shared", "user", "bob", writable=False)
        store.set_grant(work, "acme", "shared", "group", "team", writable=True)
        bob, team = ("user", "bob"), ("group", "team")
        assert store.grants_to(work, "acme", [bob]) == {"shared": False}
        assert store.grants_to(work, "acme", [bob, team]) == {"shared": True}
        assert store.grants_to(work, "acme", [("group", "bob")]) == {}
        assert store.grants_to(work, "umbrella", [bob, team]) == {}
        store.set_grant(work, "acme", "shared", "user", "bob", writable=True)
        assert store.grants_to(work, "acme", [bob]) == {"shared": True}
        assert store.remove_grant(work, "acme", "shared", "user", "bob")
        assert not store.remove_grant(work, "acme", "shared", "user", "bob")
        store.remove_bucket(work, "acme", "shared")
        assert store.grants_of(work, "acme", "shared") == []
        assert store.get_bucket(work, "umbrella", "shared") is not None
