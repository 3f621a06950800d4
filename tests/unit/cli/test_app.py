"""The command line as a whole: its verbs, its way of failing, its light start."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import click
import pytest
import typer

from heroes.api import contract
from heroes.api.errors import NotAllowed, SchedulerDown
from heroes.cli import app, reference
from heroes.cli.own import OWN
from heroes.cli.verbs import verbs
from tests.unit.cli.conftest import Heroes
from tests.unit.client.fake_api import FakeApi

PAGE = Path(__file__).parents[3] / "docs" / "users" / "cli.md"


def command(words: str) -> click.Command | None:
    """The command of some words."""
    found: click.Command | None = app.program()
    for word in words.split():
        found = found.commands.get(word) if isinstance(found, click.Group) else None
    return found


def test_every_verb_is_a_command() -> None:
    """Each verb of the contract, and each own command, can be called and tells what it does."""
    for words in {*verbs(), *OWN}:
        found = command(words)
        assert found is not None, words
        assert not isinstance(found, click.Group), words
        assert found.help, words


def test_every_option_is_explained() -> None:
    """No option of any command, the operator's too, is without a word of help."""
    silent = []
    held: list[tuple[str, click.Command]] = [("", app.program())]
    while held:
        words, found = held.pop()
        if isinstance(found, click.Group):
            context = click.Context(found)
            inner = {name: found.get_command(context, name) for name in found.list_commands(context)}
            held += [(f"{words} {name}", each) for name, each in inner.items() if each is not None]
            continue
        options = [each for each in found.params if isinstance(each, click.Option)]
        silent += [f"{words} {each.opts[0]}" for each in options if not each.help]
    assert silent == []


def test_every_group_is_described() -> None:
    """Each group says what its verbs are about."""
    for name, each in app.program().commands.items():
        assert not isinstance(each, click.Group) or each.help != f"Verbs of {name}."


def test_the_verbs_of_the_main_path_are_there() -> None:
    """The verbs that the documentation promises."""
    promised = ["workflow list", "workflow decide", "workflow submit", "run list", "run show", "run watch", "run logs"]
    promised += ["run cancel", "run again", "run report", "run resolve", "data upload", "data download", "data list"]
    promised += ["budget list", "budget statement", "cluster list", "cluster enrol", "login", "logout", "openapi"]
    assert [words for words in promised if command(words) is None] == []


def test_the_page_is_in_step() -> None:
    """docs/users/cli.md is what `python -m heroes.cli.reference` writes."""
    assert PAGE.read_text() == reference.text(), "run: .venv/bin/python -m heroes.cli.reference"


def test_help(heroes: Heroes) -> None:
    """Help is printed, with status 0."""
    said = heroes("run", "--help")
    assert said.status == 0
    assert "watch" in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "lst"), "No such command 'lst'"),
        (("run", "show"), "Missing argument 'RUN'"),
        (("run", "list", "--limit", "many"), "many"),
        (("workflow", "decide", "cavity", "-p", "cells"), "not NAME=VALUE"),
        (("run", "resolve", "k", "--outcome", "magic"), "magic"),
        (("nonsense",), "No such command"),
    ],
)
def test_wrong_usage(heroes: Heroes, words: tuple[str, ...], said: str) -> None:
    """Wrong usage is status 2, told on standard error."""
    done = heroes(*words)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            NotAllowed("You may not.", hint="Ask an administrator."),
            "error: You may not.\nhint: Ask an administrator.\n",
        ),
        (SchedulerDown("No answer.", retry_after=60), "error: No answer.\n"),
    ],
)
def test_refusals(heroes: Heroes, api: FakeApi, error: Exception, said: str) -> None:
    """What the platform refuses is told in a line or two, with status 1."""
    api.on("GET", "/organization/workflow/instance", error)  # type: ignore[arg-type]
    done = heroes("run", "list")
    assert (done.status, done.out, done.err) == (1, "", said)


def test_no_platform(heroes: Heroes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that is not there is told with its address and a way out."""
    monkeypatch.setenv("HEROES_API_URL", "http://127.0.0.1:9")
    done = heroes("run", "list")
    assert done.status == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.err
    assert "HEROES_API_URL" in done.err


def test_not_signed_in(heroes: Heroes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token one is told to sign in."""
    monkeypatch.delenv("HEROES_TOKEN")
    done = heroes("run", "list")
    assert done.status == 1
    assert "heroes login" in done.err


def test_a_bad_value_is_told_by_field(heroes: Heroes, api: FakeApi) -> None:
    """A value that the contract refuses never leaves."""
    done = heroes("run", "show", "not-a-run")
    assert done.status == 1
    assert "not-a-run" in done.err
    assert api.asked == []


def test_an_interrupted_command(heroes: Heroes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and no traceback."""

    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("heroes.cli.verbs.show", interrupted)
    done = heroes("me")
    assert (done.status, done.err.strip()) == (130, "interrupted")


def test_the_unforeseen_is_told_in_a_line() -> None:
    """An error that nobody foresaw gives a line and status 1, the traceback with HEROES_DEBUG only."""
    code = "import heroes.cli.app as app; app.program = lambda: 1 / 0; app.run(['me'])"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert plain.returncode == 1
    assert "ZeroDivisionError" in plain.stderr
    assert "Traceback" not in plain.stderr
    environment = {**os.environ, "HEROES_DEBUG": "1"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "Traceback" in told.stderr


def test_the_version(heroes: Heroes) -> None:
    """--version is printed."""
    assert heroes("--version").out.startswith("heroes ")


@click.command("greet")
def greet() -> None:
    """Greet."""
    click.echo("hello")


typed = typer.Typer(name="typed")


@typed.command()
def one(number: int) -> None:
    """Print a number."""
    click.echo(str(number))


COMMANDS = (greet, typed)


def test_further_commands(heroes: Heroes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages add commands, of click or Typer; one whose libraries are missing does not disturb."""
    entries = [EntryPoint("x", f"{__name__}:COMMANDS", app.GROUP), EntryPoint("y", "no.such.module:X", app.GROUP)]
    monkeypatch.setattr(app, "entry_points", lambda **_which: EntryPoints(entries))
    app.further.cache_clear()
    try:
        assert heroes("greet").out == "hello\n"
        assert heroes("typed", "3").out == "3\n"
        assert "greet" in heroes("--help").out
    finally:
        app.further.cache_clear()


def test_users_verbs_load_no_platform() -> None:
    """`heroes run list` loads neither the operator's commands nor the platform's libraries."""
    code = "import sys; from heroes.cli.app import run; run(['run', 'list', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"sqlalchemy", "pandas", "jupyter_server", "paramiko", "heroes_hub", "s3fs"}


def test_openapi_is_printed(heroes: Heroes) -> None:
    """`heroes openapi` prints the contract, signed in or not."""
    done = heroes("openapi")
    assert done.status == 0
    assert contract.operation("auth.login").path in done.out
