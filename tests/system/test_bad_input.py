"""What a user can get wrong, through the real client against a running platform: refused with the value, the reason and
the way out; nothing is reserved, nothing is begun."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import heroes
from heroes.api import budget, data, identity
from heroes.api.errors import (
    Conflict,
    HeroesError,
    InvalidSpec,
    NoPlacement,
    NotFound,
    NotSignedIn,
    OverBudget,
    Unavailable,
)
from heroes.api.model import Page
from heroes.api.units import Money
from heroes.client import Client
from heroes_hub import operate
from heroes_hub.demo import sign_in
from heroes_identity import store as identities
from tests.system.rig import PASSWORD, System, running_system, said, wait_until

READER = """
name: reader
title: Show an input
inputs:
  source: {help: what to show}
steps:
  - name: work
    argv: [cat, "{{input.source}}"]
    resources: {walltime_s: 120}
"""
NO_ID = "0000000000ZZZZZZZZZZZZZZZZ"


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A platform for all of these tests."""
    with running_system() as made:
        made.publish(READER)
        yield made


@pytest.fixture(scope="module")
def tight(system: System) -> str:
    """A project of emma's that may spend a tenth of a cent."""
    system.carla.client.call(identity.ADD_PROJECT, identity.AddProject(name="tight", members=("emma",)))
    limit = budget.SetBudget(scope="project", subject="tight", limit=Money.of("0.001"))
    system.carla.client.call(budget.SET, limit)
    return "tight"


def runs(system: System) -> int:
    """How many runs emma has."""
    return sum(1 for _ in system.emma.runs)


# ------------------------------------------------------------------------------------------------------ the request

Ask = Callable[[heroes.Heroes], Any]


def script(**asked: Any) -> Ask:
    """Decide for the script workflow."""
    return lambda hs: hs.workflows["script"].decide(**{"script": "true", **asked})


def reader(**asked: Any) -> Ask:
    """Decide for the workflow with an input."""
    return lambda hs: hs.workflows["reader"].decide(**asked)


def submit(**asked: Any) -> Ask:
    """Submit without a decision."""
    return lambda hs: hs.client.workflow.submit(**asked)


#: What is wrong -> what is asked, the class of the error, what its message names, and its way out.
REFUSED: dict[str, tuple[Ask, type[HeroesError], str, str]] = {
    "unknown workflow": (lambda hs: hs.workflows["cavity"], NotFound, "'cavity'", "reader, script"),
    "unknown workflow, submitted": (submit(template="cavity"), NotFound, "'cavity'", "reader, script"),
    "missing parameter": (
        lambda hs: hs.workflows["script"].decide(), InvalidSpec, "parameters.script: it has no default", "what to run",
    ),
    "ill-typed integer": (script(cpus="many"), InvalidSpec, "parameters.cpus: 'many'", "from 1 to 64"),
    "ill-typed truth": (script(careful="perhaps"), InvalidSpec, "parameters.careful: 'perhaps'", "true or false"),
    "not a number": (script(factor="nan"), InvalidSpec, "parameters.factor: nan", "from 0.5 to 2"),
    "no such choice": (script(mode="wilder"), InvalidSpec, "parameters.mode: 'wilder'", "'wild'"),
    "too large": (script(cpus=65), InvalidSpec, "parameters.cpus: 65", "from 1 to 64"),
    "too small": (script(factor=0.4), InvalidSpec, "parameters.factor: 0.4", "from 0.5 to 2"),
    "too long": (script(script="x" * 10_001), InvalidSpec, "10001 characters", "10000 at most"),
    "no character": (script(script="x\0"), InvalidSpec, "parameters.script", "NUL"),
    "unknown parameter": (script(core=2), InvalidSpec, "'core'", "memory_mib"),
    "misspelt parameter": (script(parameters={"cpu": 2}), InvalidSpec, "parameters.cpu: 2", "'cpus'"),
    "unknown policy": (script(policy="best"), InvalidSpec, "'best'", "policy"),
    "no length of time": (script(deadline="soon"), InvalidSpec, "'soon'", "2 h"),
    "no amount": (script(max_cost="cheap"), InvalidSpec, "'cheap'", "12.50 EUR"),
    "unknown place": (script(places=("beta/cpu",)), NotFound, "beta/cpu", "cluster list"),
    "unknown project": (script(project="wing"), NotFound, "wing", "project list"),
    "unknown decision": (submit(decision=NO_ID), NotFound, NO_ID, "Decide again"),
    "neither": (submit(), InvalidSpec, "neither a workflow nor a decision", "Name one"),
    "input not given": (reader(), InvalidSpec, "inputs.source", "what to show"),
    "input that does not exist": (reader(source="emma/absent.csv"), NotFound, "emma/absent.csv", "Upload it"),
    "folder that does not exist": (reader(source="emma/absent/"), NotFound, "emma/absent/", "Upload it"),
    "bucket of another": (reader(source="carla/x.csv"), NotFound, "carla", "data buckets"),
    "path that leads out": (reader(source="emma/../carla/x"), InvalidSpec, "'emma/../carla/x'", "bucket/key"),
    "unknown run": (lambda hs: hs.runs[NO_ID], NotFound, NO_ID, "run list"),
    "no id at all": (lambda hs: hs.runs["mine"], NotFound, "'mine'", "run list"),
    "unknown object": (lambda hs: hs.data.read("emma/absent.txt"), NotFound, "absent.txt", "data list"),
    "no local file": (lambda hs: hs.data.upload("absent.txt"), NotFound, "absent.txt", "You are in"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_request_is_refused_with_a_way_out(system: System, what: str) -> None:
    """The class that a program can catch, the value, and what to do; no run, no reservation."""
    ask, kind, names, way_out = REFUSED[what]
    before = runs(system)
    with pytest.raises(kind) as told:
        ask(system.emma)
    assert type(told.value) is kind
    assert names in told.value.message
    assert way_out in told.value.hint or way_out in told.value.message
    assert told.value.hint
    assert (runs(system), system.pending().micros) == (before, 0)


def test_the_command_line_says_the_same(system: System) -> None:
    """Exit status 1 with error and hint on standard error and nothing on standard output; 2 for wrong usage."""
    for words, names, hint in (
        (("workflow", "show", "cavity"), "'cavity'", "On offer"),
        (("workflow", "submit", "script", "-p", "script=true", "-p", "cpus=99"), "parameters.cpus: 99", "from 1 to 64"),
        (("run", "show", "mine"), "'mine'", "hint"),
    ):
        done = system.command(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert "\nhint: " in done.stderr
        assert names in done.stderr
        assert hint in done.stderr
    assert system.command("workflow", "submit", "script", "-p", "script").returncode == 2


# --------------------------------------------------------------------------------------------------- place and money

#: What is asked -> the constraint, the value that is named, and the same request after the smallest change.
UNPLACEABLE: dict[str, tuple[dict[str, Any], str, str]] = {
    "cores": ({"cpus": 64}, "asks for 64 cores", r"Ask for (\d+) cores"),
    "memory": ({"memory_mib": 9000}, "asks for 9000 MiB", r"Ask for (\d+) MiB"),
    "walltime": ({"walltime_s": 9000}, "asks for 9000 seconds", r"Ask for (\d+) seconds"),
    "deadline": ({"deadline": 1}, "the deadline is in 1 s", r"Allow (\d+) s"),
    "max_cost": ({"max_cost": "0.00001 EUR"}, "at most 0.00001 EUR is allowed", r"Allow (.+)\."),
}


@pytest.mark.parametrize("constraint", UNPLACEABLE)
def test_the_smallest_change_that_is_named_admits_a_place(system: System, constraint: str) -> None:
    """Each queue is named with the constraint that removed it and the smallest change; made, it is admitted there."""
    asked, names, pattern = UNPLACEABLE[constraint]
    workflow = system.emma.workflows["script"]
    with pytest.raises(NoPlacement) as told:
        workflow.decide(script="true", **asked)
    rejected = {each["place"]: each for each in told.value.detail["rejected"]}
    assert sorted(rejected) == ["local/large", "local/small"]
    assert names in told.value.message
    (field,) = asked
    for place, each in rejected.items():
        assert each["constraint"] == constraint
        change = re.search(pattern, each["change"])
        assert change, each
        changed: dict[str, Any] = {field: change[1] if field == "max_cost" else int(change[1])}
        options = workflow.decide(script="true", **changed)
        assert place in {option.told.place for option in options}
    assert system.pending().micros == 0


def test_a_budget_that_is_too_small_says_by_how_much(system: System, tight: str) -> None:
    """Nothing is reserved; raised by just the amount that is named, the same request is admitted."""
    workflow = system.emma.workflows["script"]
    with pytest.raises(OverBudget) as told:
        workflow.submit(script="true", places=("local/small",), project=tight)
    assert "project tight" in told.value.message
    missing = re.search(r"([0-9.]+) EUR more than", told.value.message)
    assert missing
    assert missing[1] in told.value.hint
    (one,) = [each for each in system.carla.client.pages(budget.LIST, Page()) if each.subject == tight]
    assert one.pending.micros == 0
    raised = budget.ChangeBudget(budget_id=one.id, limit=one.limit + Money.of(missing[1]))
    system.carla.client.call(budget.CHANGE, raised)
    run = workflow.submit(script="true", places=("local/small",), project=tight)
    ended = system.ended(run)
    assert ended.state == "done", said(run)
    assert ended.cost <= ended.reserved
    assert system.pending().micros == 0


def test_no_agreement_is_no_placement(system: System) -> None:
    """An organisation that has agreed with no provider is told whom to ask."""
    with pytest.raises(NoPlacement, match="Ask your organisation's administrator"):
        system.rob.workflows["job-runtime-model"].decide()


# --------------------------------------------------------------------------------------------------------- quoting

HOSTILE = (
    "a'b\"c\n$(touch /tmp/heroes-pwned) `id` \\ ${HOME} %s %n é 中 \t; rm -rf . | # * ? ~ ! {{word}} "
    "\r\n-e --\x7f\x01end\n"
)


def test_a_hostile_parameter_arrives_as_one_argument(system: System) -> None:
    """Byte for byte, with quotes, newlines and $( ), whatever shells stand on the way; nothing of it is executed."""
    run = system.script('printf "%s" "$#" > count; printf "%s" "$1" > word', word=HOSTILE)
    ended = system.ended(run)
    assert ended.state == "done", said(run)
    assert run.results.read("word") == HOSTILE.encode()
    assert run.results.read("count") == b"1"
    assert not Path("/tmp/heroes-pwned").exists()
    assert sorted(Path(each.key).name for each in run.results) == ["count", "word"]


def test_a_hostile_parameter_passes_the_command_line(system: System) -> None:
    """The same from a terminal, in at the command line and out at its JSON."""
    word = HOSTILE.replace("\x01", "")
    made = system.answer(
        "workflow", "submit", "script", "-p", 'script=printf "%s" "$1"', "-p", f"word={word}", "-l", "quote='\"$(x)"
    )
    ended = system.ended(system.emma.runs[made["id"]])
    assert (ended.state, ended.labels) == ("done", {"quote": "'\"$(x)"})
    shown = system.answer("run", "show", made["id"])
    assert shown["parameters"]["word"] == word
    assert system.command("run", "logs", made["id"]).stdout.encode() == word.encode().replace(b"\r\n", b"\n")


# ---------------------------------------------------------------------------------------------------------- tokens


def expire(system: System, user: str) -> None:
    """Let every token of a user have ended a minute ago."""
    database = system.home.database(system.settings, pool_size=1)
    with database.write() as work:
        past = datetime.now(UTC) - timedelta(minutes=1)
        work.execute(sa.update(identities.token).where(identities.token.c.person == user).values(expires_at=past))
    database.close()


def add_user(system: System, name: str) -> str:
    """Another engineer of acme; a token of theirs that was never used."""
    user = identity.AddUser(name=name, title=name, password=PASSWORD, roles=("engineer",))
    system.carla.client.call(identity.ADD_USER, user)
    return sign_in(system.address, "acme", name, PASSWORD)


def log_out(system: System, token: str) -> None:
    """Revoke a token by its own owner."""
    client = Client(system.address, token)
    client.call(identity.LOGOUT, identity.Logout())
    client.close()


def deactivate(system: System, user: str) -> None:
    """Switch a user off."""
    system.carla.client.call(identity.CHANGE_USER, identity.ChangeUser(username=user, active=False))


#: How a token ends -> what ends it, given the platform, the user and the token.
ENDS: dict[str, Callable[[System, str, str], None]] = {
    "expired": lambda system, user, _token: expire(system, user),
    "revoked": lambda system, _user, token: log_out(system, token),
    "deactivated": lambda system, user, _token: deactivate(system, user),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_token_that_has_ended_opens_nothing(system: System, end: str) -> None:
    """The client raises NotSignedIn with the way back, for reading and for spending; what runs goes on."""
    user = f"ed-{end}"
    token = add_user(system, user)
    ENDS[end](system, user, token)
    with heroes.Heroes(Client(system.address, token)) as hs:
        for ask in (lambda hs: list(hs.runs), lambda hs: hs.data.upload(__file__), submit(template="script")):
            with pytest.raises(NotSignedIn) as told:
                ask(hs)
            assert told.value.hint
    done = system.command("run", "list", token=token)
    assert done.returncode == 1
    assert "hint: " in done.stderr


def test_no_token_at_all_says_how_to_sign_in(system: System) -> None:
    """Nothing is sent; the address and the command are named."""
    done = system.command("run", "list", token="")
    assert (done.returncode, done.stdout) == (1, "")
    assert system.address in done.stderr
    assert "heroes login" in done.stderr


# ------------------------------------------------------------------------------------------- an upload that breaks off


def stop_api(system: System, number: signal.Signals) -> None:
    """End the API and wait until it is gone; the supervisor starts another one."""
    pid = system.part("api")
    os.kill(pid, number)
    wait_until("the API is gone", lambda: not Path(f"/proc/{pid}/cmdline").exists() or not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_upload_that_the_api_did_not_survive_is_not_half_there(system: System, number: signal.Signals) -> None:
    """What was there before is whole, what is new is not there at all; the same upload works once the API is back."""
    system.emma.data.fs  # noqa: B018  # opened while the API is there
    old, new = f"kept-{number}.bin", f"new-{number}.bin"
    part = b"0123456789abcdef" * 2**14
    request = {key: data.AskObject(bucket="emma", key=key) for key in (old, new)}
    system.emma.client.call(data.UPLOAD, request[old], content=iter([b"before"]))
    for key in (old, new):
        wait_until("the API answers", lambda: operate.healthy(system.settings))

        def broken_off() -> Iterator[bytes]:
            yield from [part] * 8
            stop_api(system, number)
            yield from [part] * 8

        with pytest.raises(Unavailable) as told:
            system.emma.client.call(data.UPLOAD, request[key], content=broken_off())
        assert told.value.hint
    wait_until("the API answers", lambda: operate.healthy(system.settings))
    listed = {each.key: each.size for each in system.emma.data.list("emma/", recursive=True)}
    assert listed[old] == 6
    assert new not in listed
    assert not any("part" in Path(key).name for key in listed)
    assert system.emma.data.read(f"emma/{old}") == b"before"
    assert not system.emma.data.fs.exists(f"emma/{new}")
    system.emma.client.call(data.UPLOAD, request[new], content=iter([part] * 16))
    assert system.emma.data.read(f"emma/{new}") == part * 16


# ------------------------------------------------------------------------------------------------------- cancelling


def test_cancelled_twice_is_cancelled_once(system: System) -> None:
    """The second asking is answered like the first; what ran is charged once; an ended run cannot be cancelled."""
    before = system.posted()
    run = system.script("echo begun; echo half > half.txt; exec sleep 300")
    wait_until("it has begun", lambda: "begun" in "".join(run.log_parts("work")) if run.state == "running" else "")
    first, second = run.cancel().seen, run.cancel().seen
    assert {first.state, second.state} <= {"running", "cancelled"}
    ended = system.ended(run)
    assert (ended.state, ended.reason) == ("cancelled", "cancelled by emma@acme")
    assert run.cancel().seen.state == "cancelled"
    assert system.posted() - before == ended.cost <= ended.reserved
    assert {"half.txt", "stdout.txt"} <= {Path(each.key).name for each in run.results}
    assert system.pending().micros == 0
    again = run.again()
    again.cancel()
    assert system.ended(again).state == "cancelled"
    done = system.script("true")
    assert system.ended(done).state == "done"
    with pytest.raises(Conflict, match="has ended"):
        done.cancel()
