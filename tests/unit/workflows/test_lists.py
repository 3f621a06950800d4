"""Lists of runs: whose, in which order, by which filter; and the rows behind them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from heroes.api import workflows as api
from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes_core.module import Call, Services, perform
from heroes_core.work import Caller, Database
from heroes_identity import service as identity
from heroes_identity import store as identities
from heroes_identity.model import NewPerson, Organisation, Passwords
from heroes_workflows import service, store
from heroes_workflows.handlers import MODULE
from tests.unit.workflows.conftest import ALICE, BOB, MANAGER, STRANGER, add_run, parsed


def listed(database: Database, caller: Caller, *, user: str = "alice", **fields: Any) -> list[str]:
    """Ids of one page."""
    with database.read() as work:
        request = api.ListInstances(**fields)
        return [item.id for item in parsed(service.listing(work, caller, request, user=user)).items]


def test_newest_first_page_by_page(database: Database) -> None:
    """Pages follow each other without gap or repetition, and the last one says so."""
    made = [add_run(database) for _ in range(7)]
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        with database.read() as work:
            request = api.ListInstances(after=after, limit=3)
            page = parsed(service.listing(work, ALICE, request, user="alice"))
        seen += [item.id for item in page.items]
        after = page.next
    assert seen == sorted(made, reverse=True)


def test_others_runs_are_not_listed(database: Database) -> None:
    """A list holds the runs of one user of one organisation, or all of the organisation."""
    mine, bobs, _ = add_run(database), add_run(database, user="bob"), add_run(database, organisation="umbrella")
    assert listed(database, ALICE) == [mine]
    assert listed(database, MANAGER, user="") == sorted([mine, bobs], reverse=True)
    assert listed(database, BOB, user="bob") == [bobs]


@pytest.mark.parametrize(
    "fields",
    [{"state": "running"}, {"template": "other"}, {"project": "wing"}, {"label": "case=a b"}],
)
def test_filters(database: Database, fields: dict[str, str]) -> None:
    """State, template, project and label each choose."""
    add_run(database, labels={"case": "a"})
    other = add_run(database, state="running", template="other", project="wing", labels={"case": "a b", "x": "y"})
    assert listed(database, ALICE, **fields) == [other]
    assert len(listed(database, ALICE)) == 2


def test_filters_go_together(sqlite: Database) -> None:
    """Several filters must all hold."""
    add_run(sqlite, state="running", labels={"case": "a"})
    both = add_run(sqlite, state="running", project="wing", labels={"case": "b"})
    assert listed(sqlite, ALICE, state="running", label="case=b", project="wing") == [both]
    assert listed(sqlite, ALICE, state="running", label="case=a", project="wing") == []


def test_a_label_filter_must_be_one(sqlite: Database) -> None:
    """A filter without `=` is refused with the form."""
    with pytest.raises(InvalidSpec, match="name=value"):
        listed(sqlite, ALICE, label="case")


def test_a_list_shows_every_figure(database: Database) -> None:
    """What stands in the row is in the list, with its unit; what is not known yet is null."""
    identity = add_run(database, labels={"case": "a"})
    with database.write() as work:
        store.advance(work, identity, store.Advance(False, "done", 1_500_000, 100.0, 25.0, "model", 0.5))
    with database.read() as work:
        (item,) = parsed(service.listing(work, ALICE, api.ListInstances(), user="alice")).items
        shown = service.show(work, ALICE, identity).instance
    assert item == shown
    assert (item.cost.micros, item.reserved.micros, item.labels, item.events) == (
        1_500_000,
        2_000_000,
        {"case": "a"},
        2,
    )
    assert item.energy is not None
    assert (item.energy.joules.value, item.energy.uncertainty) == (100.0, 0.25)
    assert item.carbon is not None
    assert (item.carbon.value, item.ended_at) == (0.5, None)


@pytest.mark.parametrize("caller", [BOB, STRANGER])
def test_others_runs_are_not_found(sqlite: Database, caller: Caller) -> None:
    """Another user, and another organisation even with `workflows:manage`, are told that there is no such run."""
    identity = add_run(sqlite)
    one = api.GetInstance(workflow_instance_id=identity)
    with sqlite.write() as work:
        for look in (
            lambda: service.show(work, caller, identity),
            lambda: service.report(work, caller, identity),
            lambda: service.cancel(work, caller, identity),
            lambda: service.list_jobs(work, caller, api.ListJobs(**one.model_dump())),
            lambda: service.results(work, caller, api.ListResults(**one.model_dump())),
            lambda: service.events(work, caller, api.AskEvents(**one.model_dump()), final=True),
        ):
            with pytest.raises(NotFound, match=f"There is no run {identity}"):
                look()


def test_members_of_a_project_see_each_others_runs(database: Database) -> None:
    """Whoever is in a run's project lists it, looks at it and its jobs, and cannot stop it; others, members of another
    organisation's project of that name and former members see nothing of it."""
    with database.write() as work:
        directory = identity.embedded(Passwords(memory_kib=8, rounds=1, lanes=1))(work)
        for name in ("acme", "umbrella"):
            new = Organisation(name, "", "client", "EUR", True, work.now)
            identity.add_organisation(work, directory, "setup", new, "admin", "a long password")
            for person in ("bob", "zoe", "carl"):
                directory.add_person(NewPerson(name, person, password="a long password"))
        identity.add_project(work, MANAGER, "wing", "", ["bob"])
        identity.add_project(work, STRANGER, "wing", "", ["zoe"])
    run, other = add_run(database, project="wing"), add_run(database, project="tail")
    outside = Caller("umbrella", "zoe", frozenset({"submit"}))
    with database.write() as work:
        assert service.show(work, BOB, run).instance.user == "alice"
        assert len(service.list_jobs(work, BOB, api.ListJobs(workflow_instance_id=run)).items) == 1
        assert service.shares(work, BOB, "wing")
        with pytest.raises(NotAllowed, match="alice's"):
            service.cancel(work, BOB, run)
        for caller, hidden in ((BOB, other), (outside, run), (Caller("acme", "carl", BOB.rights), run)):
            with pytest.raises(NotFound):
                service.show(work, caller, hidden)
        identity.change_project(work, MANAGER, "wing", {}, (), ("bob",))
        with pytest.raises(NotFound):
            service.show(work, BOB, run)


def test_a_project_is_listed_for_its_members(database: Database) -> None:
    """With a project one is in, the list holds everybody's runs of it; with another's, one's own only."""
    call = Call(BOB, database, Services())
    run = add_run(database, project="wing")
    add_run(database, project="tail")
    add_run(database, organisation="umbrella", project="wing")

    def ids(project: str) -> list[str]:
        answer = perform(MODULE.bound[api.LIST.name], call, api.ListInstances(project=project))
        return [item.id for item in parsed(answer).items]

    assert ids("wing") == []
    with database.write() as work:
        rows = {"organisation": "acme", "kind": "project", "name": "wing", "key": "wing", "title": "", "active": True}
        work.execute(sa.insert(identities.circle).values(**rows, created_at=work.now))
        identities.join(work, "acme", "project", "wing", ["bob"])
    assert ids("wing") == [run]
    assert ids("tail") == []


def test_a_manager_sees_the_organisations_runs(sqlite: Database) -> None:
    """With `workflows:manage` one may look at every run of the organisation."""
    identity = add_run(sqlite)
    with sqlite.read() as work:
        assert service.show(work, MANAGER, identity).instance.user == "alice"


def test_events_are_numbered_and_waited_for(database: Database) -> None:
    """Events come in order after a number; None while there is nothing and time is left; at the end, an empty page."""
    identity = add_run(database, state="running")

    def ask(after: int, *, final: bool = False) -> api.Events | None:
        with database.read() as work:
            request = api.AskEvents(workflow_instance_id=identity, after=after, limit=2)
            return service.events(work, ALICE, request, final=final)

    first = ask(0)
    assert first is not None
    assert ([event.number for event in first.items], first.next, first.ended) == ([1], 1, False)
    assert ask(1) is None
    waited = ask(1, final=True)
    assert waited is not None
    assert (waited.items, waited.next) == ((), 1)
    with database.write() as work:
        for number in (2, 3, 4):
            store.tell(work, store.take_number(work, identity, state="done"), "state", text=str(number))
    page, rest, end = ask(1), ask(3), ask(4)
    assert page is not None
    assert rest is not None
    assert end is not None
    assert ([event.text for event in page.items], page.next, page.ended) == (["2", "3"], 3, False)
    assert ([event.text for event in rest.items], rest.next, rest.ended) == (["4"], 4, True)
    assert (end.items, end.next, end.ended) == ((), 4, True)


def test_old_events_are_forgotten(database: Database) -> None:
    """Events from before a time are deleted, and the run still ends its stream."""
    identity = add_run(database, state="done")
    with database.write() as work:
        assert store.forget_events(work, work.now) == 0
        assert service.keep_house(work) == 0
        assert store.forget_events(work, work.now + timedelta(seconds=1)) == 1
    with database.read() as work:
        page = service.events(work, ALICE, api.AskEvents(workflow_instance_id=identity), final=False)
    assert page is not None
    assert (page.items, page.ended) == ((), True)


def test_results_are_listed_job_by_job(database: Database) -> None:
    """A result is an object in the user's bucket, below the run's prefix."""
    identity = add_run(database)
    with database.write() as work:
        row = store.job(work, identity, "add", 0)
        assert row is not None
        store.change_job(work, row, files=["a.txt", "b/c.txt"])
    with database.read() as work:
        page = service.results(work, ALICE, api.ListResults(workflow_instance_id=identity))
        none = service.results(work, ALICE, api.ListResults(workflow_instance_id=identity, step="other"))
    assert (page.bucket, page.prefix, page.next) == ("alice", f"runs/{identity}/", None)
    assert [item.key for item in page.items] == [f"runs/{identity}/add/a.txt", f"runs/{identity}/add/b/c.txt"]
    assert none.items == ()


def test_what_has_ended_cannot_be_cancelled(sqlite: Database) -> None:
    """A run that is done is told so; one that was cancelled stays as it is, without an error."""
    done, cancelled = add_run(sqlite), add_run(sqlite, state="cancelled", cancelled_by="alice@acme")
    with sqlite.write() as work:
        with pytest.raises(Conflict, match=r"has ended \(done\)"):
            service.cancel(work, ALICE, done)
        assert service.cancel(work, ALICE, cancelled).state == "cancelled"


def test_a_page_of_ones_own_runs_is_one_read_of_an_index(sqlite: Database) -> None:
    """The list of one's own runs is found by (organisation, user, id), in order, without sorting."""
    with sqlite.read() as work:
        asked = "EXPLAIN QUERY PLAN " + str(
            store._OWN.compile(sqlite.engine, compile_kwargs={"render_postcompile": True})
        )
        values = {"organisation": "acme", "after": "Z", "limit": 50, "user": "alice", "param_1": 50}
        plan = " ".join(str(row) for row in work.execute(sa.text(asked.replace("?", "'x'")), values))
    assert "ix_instance_organisation_user_id" in plan
    assert "TEMP B-TREE" not in plan
