"""Writes the page of the command line: `python -m heroes.cli.reference [FILE]` (docs/users/cli.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from heroes.cli.app import program

_HEAD = """# Command line

`heroes login` keeps a token in a file that only you can read; `HEROES_API_URL` and `HEROES_TOKEN` go before it. Every
command takes `--help`; those that show something take `--output json` (or `HEROES_OUTPUT=json`) for programs. Exit
status: 0 done, 1 refused or failed (the message says why, and what to do), 2 wrong usage, 130 interrupted. Completion
of verbs, workflows, runs and clusters, in bash: `eval "$(heroes completion bash)"`.

This page is made by `python -m heroes.cli.reference`.
"""


def text() -> str:
    """The page, in Markdown."""
    root = program()
    return _HEAD + "".join(_sections(root, click.Context(root, info_name="heroes")))


def _sections(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield f"\n## {inner.command_path}\n\n{command.help}\n"
            yield from _sections(command, inner)
        else:
            yield _section(command, inner)


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join(command.collect_usage_pieces(context))
    depth = "###" if context.parent is not None and context.parent.parent is not None else "##"
    lines = [f"\n{depth} {context.command_path}\n\n{command.help}\n\n    {context.command_path} {usage}\n"]
    records = (each.get_help_record(context) for each in command.params if _is_told(each))
    rows = [record for record in records if record]
    if rows:
        lines.append("\n| option | meaning |\n| --- | --- |\n")
        lines += [f"| `{_cell(option)}` | {_cell(meaning)} |\n" for option, meaning in rows]
    return "".join(lines)


def _is_told(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.name != "output"


def _cell(told: str) -> str:
    return told.replace("|", "\\|").replace("\n", " ")


def main(words: list[str]) -> None:
    """Write the page to a file."""
    Path(words[0] if words else "docs/users/cli.md").write_text(text())


if __name__ == "__main__":
    main(sys.argv[1:])
