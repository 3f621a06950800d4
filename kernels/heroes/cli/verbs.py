"""One command for each operation of the contract that has a verb."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from heroes.api import contract
from heroes.api.errors import InvalidSpec, Refused
from heroes.api.model import Empty, Page
from heroes.api.registry import Operation, parse
from heroes.cli.fields import METAVARS, parameter, positional, values
from heroes.cli.output import show
from heroes.connection import Heroes, connect

OUTPUT = click.Option(
    ["--output", "-o"],
    type=click.Choice(["table", "json"]),
    default=lambda: os.environ.get("HEROES_OUTPUT", "table"),
    help="how to show the answer (HEROES_OUTPUT)",
)


def verbs() -> dict[str, Operation]:
    """Verb -> operation."""
    return {operation.verb: operation for operation in contract.operations() if operation.verb}


def command_for(operation: Operation) -> click.Command:
    """The command that asks for one operation."""
    fields = operation.request.model_fields
    parameters = [parameter(operation, name, field) for name, field in fields.items()]
    callback: Callable[..., None] = _ask(operation)
    if operation.upload:
        parameters.append(click.Argument(["file"], type=click.Path(exists=True, dir_okay=False, path_type=Path)))
        callback = _send_file(operation)
    elif operation.download:
        parameters.append(
            click.Option(["--to"], type=click.Path(path_type=Path), help="write it here (default: print)")
        )
        callback = _fetch_file(operation)
    elif issubclass(operation.request, Page):
        parameters.append(click.Option(["--all", "every"], is_flag=True, help="every page"))
    arguments = [each for each in parameters if isinstance(each, click.Argument)]
    options = [each for each in parameters if not isinstance(each, click.Argument)]
    return click.Command(
        operation.verb.split()[-1],
        params=[*arguments, *options, *([] if operation.download else [OUTPUT])],
        callback=callback,
        help=operation.summary,
        short_help=operation.summary,
    )


@contextmanager
def platform() -> Iterator[Heroes]:
    """The platform as the environment and the kept credentials say."""
    with connect() as found:
        yield found


def _request(operation: Operation, typed: Mapping[str, Any]) -> Any:
    """What was typed, as a request; a refusal calls an argument as the help does."""
    try:
        return parse(operation.request, values(operation, typed))
    except InvalidSpec as error:
        message, hint = error.message, error.hint
        for name in positional(operation):
            message = re.sub(rf"^{name}:", f"{METAVARS.get(name, name.upper())}:", message)
            hint = re.sub(rf"\b{name}\b", METAVARS.get(name, name.upper()), hint)
        raise InvalidSpec(message, hint=hint, detail=error.detail) from None


def _ask(operation: Operation) -> Callable[..., None]:
    def ask(output: str, every: bool = False, **typed: Any) -> None:
        request = _request(operation, typed)
        with platform() as found:
            answer = found.client.call(operation, request)
            if every and answer.next:
                rest = found.client.pages(operation, request.model_copy(update={"after": answer.next}))
                answer = answer.model_copy(update={"items": (*answer.items, *rest), "next": None})
        if output == "table" and isinstance(answer, Empty):
            sys.stderr.write("done\n")
        else:
            show(answer, output)

    return ask


def _send_file(operation: Operation) -> Callable[..., None]:
    def send(output: str, file: Path, **typed: Any) -> None:
        from heroes.progress import read_file

        request = _request(operation, typed)
        with platform() as found, read_file(file) as content:
            show(found.client.call(operation, request, content=content), output)

    return send


def _fetch_file(operation: Operation) -> Callable[..., None]:
    def fetch(to: Path | None, **typed: Any) -> None:
        from heroes.progress import write_file

        request = _request(operation, typed)
        with platform() as found, found.client.download(operation, request) as download:
            if to is None:
                for part in download.parts:
                    sys.stdout.buffer.write(part)
                return
            if to.is_dir():
                raise Refused(f"{to} is a folder.", hint="Name the file to write.")
            write_file(to, download.parts, download.size)

    return fetch
