"""Use cases: make, move, cancel, look; and who may."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotFound, OverBudget
from heroes.api.units import Money
from heroes_budget import books
from heroes_budget import service as budget
from heroes_budget.model import Payer
from heroes_core.work import Caller, Database
from heroes_identity import store as identities
from heroes_jobs import service
from heroes_jobs.model import Phase, Reservation
from heroes_spawners.testing import FakeClock
from tests.unit.jobs.world import PRICE, World, held, spec, world

ANN = Caller("acme", "ann", frozenset({"submit"}))
BOB = Caller("acme", "bob", frozenset({"submit"}))
LEAD = Caller("acme", "lea", frozenset({"workflows:manage"}))
FOREIGN = Caller("zeta", "ann", frozenset({"submit", "workflows:manage"}))
OPERATOR = Caller("heroes", "ops", frozenset({"platform:operate"}), platform=True)


@pytest.fixture
def here(database: Database) -> World:
    """A world on each kind of database."""
    return world(database, FakeClock())


def pending(here: World) -> int:
    """Micro-units that acme has reserved."""
    with here.database.read() as work:
        lines = budget.preview(work, Payer("acme", None, "ann"), Money(micros=0))
        return lines[-1].pending.micros


def large() -> Reservation:
    """More than any credit."""
    return Reservation("centre", Money(micros=10**13), PRICE)


def test_creating_reserves_the_worst_case(here: World) -> None:
    """An attempt is made with its money, held, and not followed yet."""
    with here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
    row = here.row(key)
    assert (row.status, row.live, pending(here)) == (Phase.HELD, 0, 1_000_000)


def test_too_little_money_makes_nothing(here: World) -> None:
    """With OverBudget neither money nor attempts are left, also of those that would have fitted."""
    with pytest.raises(OverBudget), here.database.write() as work:
        service.create_all(work, [(spec(), held(spec())), (spec(index=1), large())])
    assert pending(here) == 0


def test_an_empty_command_is_refused(here: World) -> None:
    """A step without an argv can never run."""
    with pytest.raises(InvalidSpec, match="empty command"), here.database.write() as work:
        service.create(work, spec(argv=()), held(spec()))


def test_moving_replaces_the_reservation(here: World) -> None:
    """At its new place the attempt holds the new worst case, the old one is free."""
    dearer = Reservation("cloud", Money(micros=3_000_000), PRICE)
    with here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
        service.place(work, key, "cumulus", "gpu", {"modules": ("cuda",)}, dearer)
    row = here.row(key)
    assert (row.cluster, row.queue, pending(here)) == ("cumulus", "gpu", 3_000_000)
    assert row.reservation_key == f"{key}.2"
    assert "moved to cumulus/gpu" in here.story(key)


def test_a_move_that_does_not_fit_changes_nothing(here: World) -> None:
    """The caller may go on in the same transaction: the attempt stays where it was, with its money."""
    with here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
        with pytest.raises(OverBudget):
            service.place(work, key, "cumulus", "gpu", {}, large())
        service.start(work, [key])
    assert (here.row(key).cluster, pending(here)) == ("alpha", 1_000_000)


def test_a_moved_attempt_is_settled_at_its_new_place(here: World) -> None:
    """Twice moved and then run, it is paid once, from the last reservation."""
    with here.database.write() as work:
        key = service.create(work, spec(cluster="beta"), held(spec()))
        service.place(work, key, "gamma", "cpu", {}, held(spec()))
        service.place(work, key, "alpha", "cpu", {}, held(spec()))
        service.start(work, [key])
    here.run()
    assert (here.row(key).status, here.row(key).reservation_key, pending(here)) == (Phase.DONE, f"{key}.3", 0)
    with here.database.read() as work:
        assert books.verify(work).sound


def test_only_what_is_held_can_move(here: World) -> None:
    """A started attempt stays where it is; an unknown one is not found."""
    [key] = here.submit(spec())
    with pytest.raises(Conflict, match="was started"), here.database.write() as work:
        service.place(work, key, "cumulus", "gpu", {}, held(spec()))
    with pytest.raises(NotFound), here.database.write() as work:
        service.place(work, "01NOBODY", "cumulus", "gpu", {}, held(spec()))


def test_cancelling_what_is_held_returns_the_money_at_once(here: World) -> None:
    """Held attempts end in the caller's transaction; the others are left to the engine."""
    [started] = here.submit(spec())
    with here.database.write() as work:
        waiting = service.create(work, spec(index=1), held(spec()))
        assert service.cancel(work, [started, waiting, "01NOBODY"], "ann@acme") == [started, waiting]
    assert (here.row(waiting).status, here.row(started).status) == (Phase.CANCELLED, Phase.HELD)
    assert pending(here) == 1_000_000
    here.run()
    assert (here.row(started).status, pending(here)) == (Phase.CANCELLED, 0)


def test_one_sees_ones_own_attempts(here: World) -> None:
    """The user and those who manage workflows of the organisation see them; nobody else knows they exist."""
    [key] = here.submit(spec())
    with here.database.read() as work:
        assert [row.key for row in service.attempts(work, ANN, "01RUN")] == [key]
        assert [row.key for row in service.attempts(work, LEAD, "01RUN")] == [key]
        assert service.find(work, OPERATOR, key).key == key
        assert service.find_step(work, ANN, "01RUN", "solve", 0).key == key
        for caller in (BOB, FOREIGN):
            with pytest.raises(NotFound):
                service.attempts(work, caller, "01RUN")
            with pytest.raises(NotFound):
                service.find(work, caller, key)
            with pytest.raises(NotFound):
                service.find_step(work, caller, "01RUN", "solve", 0)


def test_members_of_a_project_see_its_attempts(here: World) -> None:
    """Whoever is in the run's project sees its attempts and reads its logs; in another organisation nobody does."""
    [key] = here.submit(spec(project="wing"))
    with here.database.write() as work:
        row = {"kind": "project", "name": "wing", "key": "wing", "title": "", "active": True, "created_at": work.now}
        for organisation, user in (("acme", BOB.user), (FOREIGN.organisation, FOREIGN.user)):
            work.execute(sa.insert(identities.circle).values(organisation=organisation, **row))
            identities.join(work, organisation, "project", "wing", [user])
        assert [row.key for row in service.attempts(work, BOB, "01RUN")] == [key]
        assert service.find_step(work, BOB, "01RUN", "solve", 0).key == key
        with pytest.raises(NotFound):
            service.find(work, FOREIGN, key)


def test_attempts_are_listed_in_pages(here: World) -> None:
    """The cursor is the last key; after the last page there is nothing, and no error."""
    keys = sorted(here.submit(*(spec(index=index) for index in range(5))))
    with here.database.read() as work:
        first = [row.key for row in service.attempts(work, ANN, "01RUN", limit=3)]
        rest = [row.key for row in service.attempts(work, ANN, "01RUN", after=first[-1], limit=3)]
        assert first + rest == keys
        assert service.attempts(work, ANN, "01RUN", after=keys[-1]) == []


def test_there_is_nothing_to_resolve_of_what_ended_or_never_began(here: World) -> None:
    """Resolving needs an attempt that is under way."""
    with here.database.write() as work:
        key = service.create(work, spec(), held(spec()))
    with pytest.raises(Conflict, match="was not started"), here.database.write() as work:
        service.resolve(work, OPERATOR, key, "lost")
    with here.database.write() as work:
        service.cancel(work, [key], "ann@acme")
    with pytest.raises(Conflict, match="has ended"), here.database.write() as work:
        service.resolve(work, OPERATOR, key, "lost")
    with pytest.raises(NotFound), here.database.write() as work:
        service.resolve(work, OPERATOR, "01NOBODY", "lost")
