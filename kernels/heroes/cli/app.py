"""The command `heroes`: groups of verbs, further commands of other packages, and its way of failing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any

import click

from heroes.api.errors import HeroesError, InvalidSpec
from heroes.cli.output import show_error
from heroes.cli.verbs import command_for, verbs

#: Packages add commands here: the object named is a sequence of click commands (or Typer applications).
GROUP = "heroes.commands"


class Verbs(click.Group):
    """Commands of the contract and the user's own; those of other packages are loaded only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, those of other packages too."""
        return sorted({*super().list_commands(ctx), *further()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return super().get_command(ctx, cmd_name) or further().get(cmd_name)


@cache
def further() -> dict[str, click.Command]:
    """Commands of the entry-point group."""
    found: dict[str, click.Command] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            loaded = entry.load()
        except ModuleNotFoundError:
            continue  # its extra is not installed: a notebook has no operator's commands
        for each in loaded:
            command = _as_command(each)
            if command.name:
                found[command.name] = command
    return found


def _as_command(given: Any) -> click.Command:
    if isinstance(given, click.Command):
        return given
    import typer

    made: Any = typer.main.get_command(given)
    made.name = given.info.name if isinstance(given.info.name, str) else made.name
    return made  # type: ignore[no-any-return]


@cache
def program() -> click.Group:
    """The whole command line."""
    from heroes.cli.account import ACCOUNT
    from heroes.cli.own import OWN

    root = Verbs("heroes", help="Place, pay, run, measure: HEROES on the command line.", params=[_VERSION])
    for verb, operation in verbs().items():
        *group, _last = verb.split()
        _group(root, group).add_command(command_for(operation))
    for words, command in OWN.items():
        *group, _last = words.split()
        _group(root, group).add_command(command, _last)
    for command in ACCOUNT:
        root.add_command(command)
    return root


def _group(root: click.Group, words: Sequence[str]) -> click.Group:
    for word in words:
        inner = root.commands.get(word)
        if not isinstance(inner, click.Group):
            inner = click.Group(word, help=_GROUPS.get(word, f"Verbs of {word}."))
            root.add_command(inner)
        root = inner
    return root


_GROUPS = {
    "audit": "The organisation's audit chain.",
    "budget": "Budgets, what is left of them, and statements.",
    "cluster": "Clusters, their queues and their health.",
    "data": "Buckets and objects.",
    "decision": "Where something could run.",
    "group": "Groups of users.",
    "job": "What single jobs used.",
    "organisation": "Organisations of the platform.",
    "project": "Projects of the organisation.",
    "exchange-rate": "What one currency is worth in another.",
    "queue": "Queues of a cluster.",
    "role": "Roles and who has them.",
    "run": "Runs of workflows.",
    "service-account": "What the platform uses at a cluster: accounts and their keys.",
    "token": "Tokens of program users.",
    "user": "Users of the organisation.",
    "workflow": "Workflows: find, place, submit, publish.",
}


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"heroes {version('heroes-hpc')}")
        ctx.exit()


_VERSION = click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version)


def run(words: Sequence[str] | None = None) -> int:
    """Run a command line; its exit status: 0, 1 refused or failed, 2 usage, 130 interrupted."""
    sys.excepthook = _told_plainly
    try:
        answer = program().main(args=words, prog_name="heroes", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2 if isinstance(error, click.UsageError) else 1
    except InvalidSpec as error:
        show_error(error)
        return 1
    except HeroesError as error:
        show_error(error)
        return 1
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return answer if isinstance(answer, int) else 0


def _told_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody foresaw, in a line; the traceback for those who ask."""
    if os.environ.get("HEROES_DEBUG"):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(f"error: something unforeseen: {kind.__name__}: {error}\nhint: HEROES_DEBUG=1 shows where.\n")
