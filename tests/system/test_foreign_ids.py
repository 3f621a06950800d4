"""Another organisation's ids, on every operation of the contract that takes one: as if they were not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import heroes
from heroes.api import budget, clusters, contract, identity, jobs
from heroes.api.errors import HeroesError, InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import new_ulid
from heroes.api.model import Model, Page
from heroes.api.registry import Operation, parse
from heroes.api.units import Money
from tests.system.rig import System, running_system

#: Fields by which something of another organisation may be named.
NAMING = (
    "workflow_instance_id", "instance", "key", "decision", "decision_id", "template", "workflow_template_id", "project",
    "projectname", "groupname", "username", "user", "members", "subject", "budget_id", "token_id", "bucket",
    "cluster_id", "service_account", "organization_id", "organization_target", "name",
)  # fmt: skip
#: Operations whose fields of these names make something of one's own, or look nothing up.
OWN = {
    ("user.add", "name"), ("group.add", "name"), ("project.add", "name"), ("organisation.add", "name"),
    ("cluster.enrol", "name"), ("cluster.enrol", "user"), ("service_account.add", "name"),
    ("data.add_bucket", "bucket"), ("auth.login", "user"),
}  # fmt: skip
#: What other required fields are given.
FILL: dict[str, Any] = {
    "step": "work", "outcome": "lost", "limit": Money.of("1"), "amount": Money.of("1"), "reason": "x", "scope": "user",
    "kind": "user", "name": "emma", "rolename": "engineer", "role": "engineer", "user": "rob", "folder": "f",
    "queue": "cpu", "host": "127.0.0.1", "password": "a long enough password", "administrator": "x",
    "workflow_template_id": "none", "key": "private.txt", "bucket": "rob",
    "template": "script", "service_account": "none", "document": "x",
}  # fmt: skip


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A platform, on which emma of acme has one of everything."""
    with running_system() as made:
        yield made


@pytest.fixture(scope="module")
def ids(system: System) -> dict[str, Any]:
    """The name or id of each sort of thing of acme's."""
    ask, emma = system.carla.client.call, system.emma
    ask(identity.ADD_PROJECT, identity.AddProject(name="secret-project", members=("emma",)))
    ask(identity.ADD_GROUP, identity.AddGroup(name="secret-group", members=("emma",)))
    ask(identity.ADD_USER, identity.AddUser(name="robot", program=True, title="a program"))
    ask(identity.ADD_TOKEN, identity.AddToken(user="robot"))
    (token,) = ask(identity.TOKENS, Page()).items
    account = ask(clusters.ADD_ACCOUNT, clusters.AddServiceAccount(name="secret-account"))
    file = system.folder / "private.txt"
    file.write_text("private")
    emma.data.upload(file, "emma/private.txt")
    run = system.script("echo private; echo private > private.txt")
    system.ended(run)
    decision = emma.workflows["script"].decide(script="true")
    (limit, *_) = emma.client.call(budget.LIST, Page()).items
    (attempt,) = emma.client.pages(jobs.LIST, jobs.ListAttempts(instance=run.id))
    return {
        "workflow_instance_id": run.id, "instance": run.id, "key": attempt.key, "decision": decision.id,
        "decision_id": decision.id, "template": "script", "workflow_template_id": "script",
        "project": "secret-project", "projectname": "secret-project", "groupname": "secret-group", "username": "emma",
        "user": "emma", "members": ("emma",), "subject": "emma", "budget_id": limit.id, "token_id": token.token_id,
        "bucket": "emma", "cluster_id": "local", "service_account": account.name, "organization_id": "acme",
        "organization_target": "acme", "name": "emma",
    }  # fmt: skip


def questions() -> list[tuple[Operation, str]]:
    """Every operation with each field that names something."""
    return [
        (operation, field)
        for operation in contract.operations()
        for field in NAMING
        if field in operation.request.model_fields and (operation.name, field) not in OWN
        and not (field == "key" and operation.name.startswith("data."))
    ]  # fmt: skip


def request(operation: Operation, field: str, value: Any) -> Model:
    """A request that names `value`, and is right in all else."""
    fields = operation.request.model_fields
    given = {name: FILL[name] for name, each in fields.items() if each.is_required() and name in FILL}
    made: Model = parse(operation.request, {**given, field: value})
    return made


def answer(hs: heroes.Heroes, operation: Operation, asked: Model, word: Any) -> tuple[str, str]:
    """The class of the error and its text without the word that was asked for; a list that is empty is "nothing"."""
    try:
        if operation.download:
            with hs.client.download(operation, asked) as download:
                return "told", b"".join(download.parts).decode(errors="replace")
        told = hs.client.call(operation, asked, content=[b"x"] if operation.upload else None)
    except HeroesError as error:
        text = f"{error.message} {error.hint}"
        for each in word if isinstance(word, tuple) else (word,):
            text = text.replace(str(each), "…")
        return type(error).__name__, text
    return ("nothing", "") if getattr(told, "items", None) == () else ("told", told.model_dump_json()[:300])


@pytest.mark.parametrize(("operation", "field"), questions(), ids=lambda each: getattr(each, "name", each))
def test_what_belongs_to_others_is_not_there(
    system: System, ids: dict[str, Any], operation: Operation, field: str
) -> None:
    """The engineer and the administrator of another organisation get just what they get for a name that nobody has."""
    absent: Any = new_ulid() if len(str(ids[field])) == 26 else ("nobody",) if field == "members" else "nobody"
    for hs in (system.rob, system.rita):
        theirs = answer(hs, operation, request(operation, field, ids[field]), ids[field])
        none = answer(hs, operation, request(operation, field, absent), absent)
        assert theirs[0] in (NotFound.__name__, NotAllowed.__name__, InvalidSpec.__name__, "nothing"), theirs
        assert theirs == none


def test_nothing_of_it_was_changed(system: System, ids: dict[str, Any]) -> None:
    """After all of that everything of emma's is as it was."""
    run = system.emma.runs[ids["instance"]]
    assert (run.state, run.log("work")) == ("done", "private\n")
    assert system.emma.data.read("emma/private.txt") == b"private"
    assert "script" in system.emma.workflows
    assert [each.id for each in system.emma.client.call(budget.LIST, Page()).items] == [ids["budget_id"]]
    assert system.carla.client.call(identity.USER, identity.AskUser(username="emma")).active
