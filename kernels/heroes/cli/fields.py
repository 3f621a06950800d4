"""Fields of a request as arguments and options of a command, and the words typed for them as values."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from decimal import InvalidOperation
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from heroes.api.registry import Operation
from heroes.api.units import Money
from heroes.cli.completion import completer_for

#: Options that have a letter of their own.
_SHORT = {"parameters": "-p", "policy": "-P", "limit": "-n"}

#: Required fields with these names are arguments rather than options.
_NAMING = ("name", "workflow", "template", "bucket", "key", "folder", "role", "user")

#: What the help calls them.
METAVARS = {
    "workflow_instance_id": "RUN",
    "workflow_template_id": "WORKFLOW",
    "instance": "RUN",
    "cluster_id": "CLUSTER",
}


class MoneyType(click.ParamType[Money]):
    """An amount such as `12.50` or `"12.50 CHF"`."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The amount, exact."""
        if not isinstance(value, str):
            return value
        number, _, currency = value.strip().partition(" ")
        try:
            return Money.of(number, currency.strip().upper() or "EUR")
        except (ValueError, InvalidOperation):
            self.fail(f"{value!r} is no amount; write for instance 12.50 or '12.50 CHF'", param, ctx)


class JSONType(click.ParamType[Any]):
    """JSON text, or @FILE with such text in it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The JSON value."""
        if not isinstance(value, str):
            return value
        try:
            return json.loads(Path(value[1:]).read_text() if value.startswith("@") else value)
        except (OSError, ValueError) as error:
            self.fail(f"{value!r} is no JSON: {error}", param, ctx)


class PairType(click.ParamType[Any]):
    """NAME=VALUE; the value is JSON where it reads as such (80, true, [1,2]), else text. `text`: it is always text."""

    name = "name=value"

    def __init__(self, *, text: bool = False) -> None:
        self._text = text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The pair."""
        if not isinstance(value, str):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text if self._text else json_or_text(text)


def json_or_text(text: str) -> Any:
    """JSON where it reads as such, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def bare(annotation: Any) -> Any:
    """The type without None and without annotations."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [each for each in typing.get_args(annotation) if each is not type(None)]
        return bare(rest[0]) if len(rest) == 1 else annotation
    return annotation


def click_type(annotation: Any) -> click.ParamType[Any]:
    """The type of one word."""
    kind = bare(annotation)
    if words := _words(kind):
        return click.Choice(words)
    if kind is Money:
        return MoneyType()
    if kind is int:
        return click.INT
    if kind is float:
        return click.FLOAT
    if (isinstance(kind, type) and issubclass(kind, BaseModel)) or typing.get_origin(kind) in (typing.Union, dict):
        return JSONType()
    return click.STRING


def _words(kind: Any) -> list[str]:
    """The words of which one is taken; none where others may be, too. "" is said by leaving the option away."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if any(typing.get_origin(each) is not Literal for each in kinds):
        return []
    return [str(word) for each in kinds for word in typing.get_args(each) if word != ""]


def _is_many(kind: Any) -> bool:
    return typing.get_origin(kind) in (tuple, list, set, frozenset)


def parameter(operation: Operation, name: str, field: FieldInfo) -> click.Parameter:
    """The argument or option of a field."""
    words = positional(operation)
    if name in words:
        return argument(name, type=click_type(field.annotation), required=name != "key" or "bucket" not in words)
    return _option(name, field)


def argument(name: str, **more: Any) -> click.Argument:
    """An argument under the name that people use, completed where something can."""
    return click.Argument([name], metavar=METAVARS.get(name), shell_complete=completer_for(name), **more)


def positional(operation: Operation) -> tuple[str, ...]:
    """Fields that are written without a name: those in the path, and those that must name a thing."""
    fields = operation.request.model_fields.items()
    naming = [name for name, field in fields if name in _NAMING and field.is_required()]
    if "name" in naming:
        naming = [name for name in naming if name != "user"]  # a user of the thing named, not the thing
    return (*operation.path_fields, *(name for name in naming if name not in operation.path_fields))


def _option(name: str, field: FieldInfo) -> click.Option:
    kind = bare(field.annotation)
    flag = "--" + name.replace("_", "-")
    words = [flag, name] + ([_SHORT[name]] if name in _SHORT and kind is not Money else [])
    common: dict[str, Any] = {"help": _help(field), "required": field.is_required(), "default": None}
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], **common)
    if kind is SecretStr:
        common.update(required=False, prompt=field.is_required(), hide_input=True)
        return click.Option(words, **common)
    if typing.get_origin(kind) is dict or kind in (dict, Mapping):
        _, inner = typing.get_args(kind) or (str, Any)
        return click.Option(words, type=PairType(text=bare(inner) is str), multiple=True, **common)
    if _is_many(kind):
        inner = typing.get_args(kind)[0] if typing.get_args(kind) else str
        return click.Option(words, type=click_type(inner), multiple=True, **common)
    return click.Option(words, type=click_type(kind), shell_complete=completer_for(name), **common)


def _help(field: FieldInfo) -> str:
    told = field.description or ""
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if default in (None, "", (), {}, False) or isinstance(default, BaseModel):
        return told
    return f"{told} (default {default})".strip()


def values(operation: Operation, typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, as fields of the request; what was left out stays out. BUCKET/KEY may be one word."""
    words = positional(operation)
    if "bucket" in words and "key" in words and typed.get("key") is None:
        bucket, _, key = typed["bucket"].partition("/")
        if not key:
            raise click.UsageError(f"Missing argument 'KEY': which object of {bucket}?")
        typed = {**typed, "bucket": bucket, "key": key}
    given: dict[str, Any] = {}
    for name, field in operation.request.model_fields.items():
        value = typed.get(name)
        if value is None or value == ():
            continue
        kind = bare(field.annotation)
        given[name] = dict(value) if typing.get_origin(kind) is dict or kind in (dict, Mapping) else value
    return given
