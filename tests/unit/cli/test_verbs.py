"""Verbs of the contract: words become fields, answers become tables or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from pydantic import Field, SecretStr

from heroes.api import workflows as workflows_api
from heroes.api.model import Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation
from heroes.api.units import Money
from heroes.cli import fields
from heroes.cli.completion import completer_for
from heroes.cli.verbs import command_for
from tests.unit.cli.conftest import Heroes
from tests.unit.client import samples
from tests.unit.client.fake_api import Asked, FakeApi


class Inner(Model):
    """A nested value."""

    a: int


class Everything(Model):
    """One field of each sort."""

    bucket: str
    name: str
    count: int | None = Field(default=None, description="how many")
    size: float = 1.5
    flag: bool = False
    way: Literal["fast", "cheap"] | Literal[""] = ""
    kind: Literal["x", "y"] = "x"
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    amount: Money | None = None
    inner: Inner | None = None
    secret: SecretStr | None = None


EVERYTHING = Operation(
    name="t.everything", method="POST", path="/t/{bucket}", request=Everything, response=Everything, right=SIGNED_IN,
    summary="Take everything.", verb="t everything",
)  # fmt: skip
UP = Operation(
    name="t.up", method="POST", path="/up/{bucket}", request=Everything, response=Empty, right=SIGNED_IN, summary="Up.",
    verb="t up", upload=True,
)  # fmt: skip
DOWN = Operation(
    name="t.down", method="GET", path="/down", request=Page, response=Empty, right=SIGNED_IN, summary="Down.",
    verb="t down", download=True,
)  # fmt: skip


def call(operation: Operation, *words: str) -> None:
    """Call the command of an operation."""
    command_for(operation).main(args=list(words), standalone_mode=False)


@pytest.mark.usefixtures("heroes")
def test_every_sort_of_field(api: FakeApi) -> None:
    """Numbers, flags, choices, lists, pairs, money and nested values arrive as the contract has them."""
    api.on("POST", "/t/b", Everything(bucket="b", name="n"))
    words = ["b", "n", "--count", "3", "--size", "2.5", "--flag", "--kind", "y", "--tags", "one", "--tags", "two"]
    words += ["--way", "fast"]
    words += ["-p", "cells=80", "-p", "text=a=b", "-p", "list=[1,2]", "--amount", "12.5 chf", "--inner", '{"a": 1}']
    call(EVERYTHING, *words)
    assert api.asked[-1].json == {
        "name": "n",
        "count": 3,
        "size": 2.5,
        "flag": True,
        "kind": "y",
        "way": "fast",
        "tags": ["one", "two"],
        "parameters": {"cells": 80, "text": "a=b", "list": [1, 2]},
        "amount": {"micros": 12_500_000, "currency": "CHF"},
        "inner": {"a": 1},
    }


@pytest.mark.usefixtures("heroes")
def test_what_is_left_out_does_not_travel(api: FakeApi) -> None:
    """Fields that were not typed are the server's to fill."""
    api.on("POST", "/t/b", Everything(bucket="b", name="n"))
    call(EVERYTHING, "b", "n")
    assert api.asked[-1].json == {"name": "n"}


@pytest.mark.usefixtures("heroes")
def test_a_nested_value_from_a_file(api: FakeApi, tmp_path: Path) -> None:
    """@FILE reads JSON from a file."""
    (tmp_path / "inner.json").write_text('{"a": 5}')
    api.on("POST", "/t/b", Everything(bucket="b", name="n"))
    call(EVERYTHING, "b", "n", "--inner", f"@{tmp_path}/inner.json")
    assert api.asked[-1].json["inner"] == {"a": 5}


@pytest.mark.parametrize(
    "words",
    [
        ("--amount", "much"),
        ("--inner", "{"),
        ("--inner", "@/no/such/file"),
        ("-p", "=5"),
        ("--count", "x"),
        ("--kind", "z"),
    ],
)
def test_words_that_mean_nothing(words: tuple[str, ...]) -> None:
    """Words that cannot be read are wrong usage."""
    with pytest.raises(click.UsageError):
        call(EVERYTHING, "b", "n", *words)


def test_what_is_named_is_an_argument() -> None:
    """Fields in the path, and required names, are arguments."""
    assert fields.positional(EVERYTHING) == ("bucket", "name")


def test_hidden_words() -> None:
    """A secret is not shown while it is typed."""
    options = {each.name: each for each in command_for(EVERYTHING).params}
    secret = options["secret"]
    assert isinstance(secret, click.Option)
    assert secret.hide_input


@pytest.mark.usefixtures("heroes")
def test_a_file_goes_up(api: FakeApi, tmp_path: Path) -> None:
    """An upload sends a file."""
    (tmp_path / "f").write_bytes(b"bytes")
    api.on("POST", "/up/b", {})
    call(UP, "b", "n", str(tmp_path / "f"))
    assert (api.asked[-1].body, api.asked[-1].query) == (b"bytes", {"name": ["n"]})


@pytest.mark.usefixtures("heroes")
def test_a_file_comes_down(api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A download is printed, or written to a file."""
    api.on("GET", "/down", b"bytes")
    call(DOWN, "--to", str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == b"bytes"
    assert capsys.readouterr().out == ""
    call(DOWN)
    assert capsys.readouterr().out == "bytes"


def test_a_list_as_a_table(heroes: Heroes, api: FakeApi) -> None:
    """A list is a table with values that people read."""
    page = workflows_api.Instances(items=(samples.instance("done"),), next="more of it")
    api.on("GET", "/organization/workflow/instance", page)
    done = heroes("run", "list", "--limit", "1")
    assert samples.RUN in done.out
    assert "done" in done.out
    assert "--after 'more of it'" in done.err


def test_a_list_as_json(heroes: Heroes, api: FakeApi) -> None:
    """With --output json the answer itself is printed."""
    page = workflows_api.Instances(items=(samples.instance("done"),))
    api.on("GET", "/organization/workflow/instance", page)
    done = heroes("run", "list", "--output", "json")
    assert workflows_api.Instances.model_validate_json(done.out) == page


def test_json_by_the_environment(heroes: Heroes, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEROES_OUTPUT says how to show answers where the option does not."""
    monkeypatch.setenv("HEROES_OUTPUT", "json")
    assert json.loads(heroes("me").out)["user"] == "ada"
    assert heroes("me", "-o", "table").out.startswith("organisation")


def test_an_empty_list(heroes: Heroes, api: FakeApi) -> None:
    """Nothing is told as such."""
    api.on("GET", "/organization/workflow/instance", workflows_api.Instances(items=()))
    assert heroes("run", "list").out.strip() == "none"


def test_every_page(heroes: Heroes, api: FakeApi) -> None:
    """--all goes through every page."""

    def page(asked: Asked) -> workflows_api.Instances:
        first = "after" not in asked.query
        run_id = samples.RUN if first else samples.OTHER
        return workflows_api.Instances(items=(samples.instance("done", run_id),), next="x" if first else None)

    api.on("GET", "/organization/workflow/instance", page)
    told = json.loads(heroes("run", "list", "--all", "-o", "json").out)
    assert [each["id"] for each in told["items"]] == [samples.RUN, samples.OTHER]


def test_one_thing_with_its_parts(heroes: Heroes, api: FakeApi) -> None:
    """One thing is shown field by field, its lists as tables."""
    api.on("GET", samples.INSTANCE_PATH, samples.detail())
    out = heroes("run", "show", samples.RUN).out
    for told in ("alpha/cpu", "36 kJ", "1.00 EUR", "mesh"):
        assert told in out


def test_nothing_to_show(heroes: Heroes, api: FakeApi) -> None:
    """An operation without an answer says that it is done."""
    api.on("DELETE", "/organization/data/bucket", {})
    assert heroes("data", "remove-bucket", "b").err == "done\n"


def names(field: str, begun: str) -> list[str]:
    """What is completed."""
    completer = completer_for(field)
    assert completer is not None
    return [each.value for each in completer(click.Context(click.Command("x")), click.Argument(["x"]), begun)]


@pytest.mark.usefixtures("heroes")
def test_names_are_completed(api: FakeApi) -> None:
    """Names of workflows, runs and buckets are completed by asking the platform."""
    page = workflows_api.Instances(items=(samples.instance("done"),))
    api.on("GET", "/organization/workflow/instance", page)
    assert names("workflow", "ca") == ["cavity"]
    assert names("workflow", "x") == []
    assert names("workflow_instance_id", "01") == [samples.RUN]
    assert names("bucket", "") == ["ada", "shared"]


@pytest.mark.usefixtures("heroes")
def test_completing_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a platform nothing is completed, and nothing printed."""
    monkeypatch.setenv("HEROES_API_URL", "http://127.0.0.1:9")
    assert names("workflow", "") == []
    assert completer_for("count") is None


def test_nothing_to_say_is_json_too(api: FakeApi, heroes: Heroes) -> None:
    """A command whose answer is empty prints an empty object for programs, and a word for people."""
    api.on("DELETE", "/organization/admin/groups/team", Empty())
    done = heroes("group", "remove", "team", "--output", "json")
    assert (done.status, json.loads(done.out)) == (0, {})
    assert "done" in heroes("group", "remove", "team").err


def test_an_object_may_be_named_in_one_word(heroes: Heroes, api: FakeApi) -> None:
    """`bucket/key` is as good as both; a bucket alone is not."""
    api.on("DELETE", "/organization/data/bucket/ada", {"objects": 1})
    for words in (("ada/runs/a.csv",), ("ada", "runs/a.csv")):
        assert heroes("data", "remove", *words).status == 0
        assert api.asked[-1].query == {"key": ["runs/a.csv"]}
    done = heroes("data", "remove", "ada")
    assert (done.status, "which object of ada?" in done.err) == (2, True)


def test_an_argument_is_refused_by_its_name_in_the_help(heroes: Heroes) -> None:
    """The name that the contract gives a run is nobody's word."""
    done = heroes("run", "cancel", "NOPE")
    assert "RUN: An id has 26 characters, as the lists show them (got 'NOPE')" in done.err
    assert "Correct RUN" in done.err
