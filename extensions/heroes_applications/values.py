"""Values given for parameters and inputs, checked against what the template declares. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from heroes.api.applications import (
    BooleanParameter,
    ChoiceParameter,
    FileParameter,
    IntegerParameter,
    ListParameter,
    NumberParameter,
    Parameter,
    StringParameter,
    Template,
)
from heroes.api.errors import InvalidSpec

Value = int | float | bool | str | tuple[Any, ...]

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
MAX_TEXT = 10_000


@dataclass(frozen=True)
class ObjectName:
    """An object, or a folder of objects where `key` ends in a slash."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


def object_name(text: str, field: str) -> ObjectName:
    """`bucket/key` taken apart; InvalidSpec for anything that is not two such parts."""
    bucket, slash, key = text.partition("/")
    parts = (key.removesuffix("/")).split("/")
    if not bucket or not slash or any(part in ("", ".", "..") for part in parts) or not text.isprintable():
        raise _wrong(field, text, "is no object", "Write it as bucket/key, a folder with a slash at its end.")
    return ObjectName(bucket, key)


def check_parameters(template: Template, given: Mapping[str, Any]) -> dict[str, Value]:
    """Every declared parameter with its value: the given one, else the default. Text that spells a number is taken
    as that number, since forms and command lines send text."""
    for name in given:
        if name not in template.parameters:
            raise _wrong(
                f"parameters.{name}",
                given[name],
                f"is given for a parameter that {template.name} does not have",
                near(name, template.parameters, "Its parameters are"),
            )
    return {name: _value(name, declared, given.get(name)) for name, declared in template.parameters.items()}


def check_inputs(template: Template, given: Mapping[str, str]) -> dict[str, ObjectName]:
    """Every given input as an object's name; InvalidSpec where one is unknown, or a required one is missing."""
    for name, text in given.items():
        if name not in template.inputs:
            raise _wrong(
                f"inputs.{name}",
                text,
                f"is given for an input that {template.name} does not have",
                near(name, template.inputs, "Its inputs are"),
            )
    for name, declared in template.inputs.items():
        if declared.required and declared.default is None and name not in given:
            raise InvalidSpec(
                f"inputs.{name}: {template.name} needs it and none was given",
                hint=f"Upload it and name it as bucket/key. {declared.help}".strip(),
                detail={"field": f"inputs.{name}", "value": None},
            )
    return {name: object_name(text, f"inputs.{name}") for name, text in given.items()}


def check_default(field: str, declared: Parameter) -> None:
    """A default keeps the parameter's own limits, and the limits leave a value."""
    low, high = getattr(declared, "minimum", None), getattr(declared, "maximum", None)
    if low is not None and high is not None and low > high:
        raise _wrong(field, f"minimum {low}", f"is above the maximum {high}", "Exchange them.")
    if declared.default is not None:
        _checked(f"{field}.default", declared, declared.default)


def near(name: str, known: Iterable[str], lead: str) -> str:
    """The hint for a name that is not known: the closest one, else all of them."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"{lead} {', '.join(choices)}." if choices else "It has none."


def _value(name: str, declared: Parameter, given: Any) -> Value:
    field = f"parameters.{name}"
    if given is not None:
        return _checked(field, declared, given)
    if declared.default is not None:
        return _checked(field, declared, declared.default)
    raise InvalidSpec(
        f"{field}: it has no default and no value was given",
        hint=f"Give {name}, {_expected(declared)}. {declared.help}".strip(),
        detail={"field": field, "value": None},
    )


def _checked(field: str, declared: Parameter, given: Any) -> Value:
    match declared:
        case IntegerParameter():
            return _limited(field, declared, _integer(field, declared, given))
        case NumberParameter():
            return _limited(field, declared, _number(field, declared, given))
        case BooleanParameter():
            return _boolean(field, declared, given)
        case ChoiceParameter():
            return _choice(field, declared, given)
        case ListParameter():
            return _list(field, declared, given)
        case FileParameter():
            return str(object_name(_text(field, declared, given, MAX_TEXT), field))
        case StringParameter():
            return _text(field, declared, given, declared.max_length)


def _integer(field: str, declared: Parameter, given: Any) -> int:
    if isinstance(given, str):
        given = _spelled(given)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise _ill_typed(field, declared, given)
    return given


def _number(field: str, declared: Parameter, given: Any) -> float:
    if isinstance(given, str):
        given = _spelled(given)
    if not isinstance(given, int | float) or isinstance(given, bool) or not math.isfinite(given):
        raise _ill_typed(field, declared, given)
    return given


def _spelled(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _limited(field: str, declared: IntegerParameter | NumberParameter, value: float) -> int | float:
    low, high = declared.minimum, declared.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _wrong(field, value, "is out of range", f"Give {_expected(declared)}.")
    return value


def _boolean(field: str, declared: Parameter, given: Any) -> bool:
    if isinstance(given, str):
        given = _TRUTHS.get(given.lower(), given)
    if not isinstance(given, bool):
        raise _ill_typed(field, declared, given)
    return given


def _choice(field: str, declared: ChoiceParameter, given: Any) -> str:
    if given not in declared.choices:
        raise _wrong(field, given, "is none of the choices", near(str(given), declared.choices, "They are"))
    return str(given)


def _list(field: str, declared: ListParameter, given: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        given = given.split(",") if given else []
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = [given]
    if not isinstance(given, list | tuple):
        raise _ill_typed(field, declared, given)
    if len(given) > declared.max_items:
        raise _wrong(field, f"{len(given)} items", "are too many", f"Give {declared.max_items} at most.")
    return tuple(_item(f"{field}[{number}]", declared, item) for number, item in enumerate(given))


def _item(field: str, declared: ListParameter, given: Any) -> Any:
    if declared.items == "integer":
        return _integer(field, declared, given)
    if declared.items == "number":
        return _number(field, declared, given)
    text = _text(field, declared, given, MAX_TEXT)
    return str(object_name(text, field)) if declared.items == "file" else text


def _text(field: str, declared: Parameter, given: Any, longest: int) -> str:
    if not isinstance(given, str):
        raise _ill_typed(field, declared, given)
    if len(given) > longest:
        raise _wrong(field, given[:40] + "…", f"has {len(given)} characters", f"Give {longest} at most.")
    if "\0" in given or any("\ud800" <= letter <= "\udfff" for letter in given):
        raise _wrong(field, given, "holds a character that no program can be given", "Remove NUL and lone surrogates.")
    return given


def _ill_typed(field: str, declared: Parameter, given: Any) -> InvalidSpec:
    return _wrong(field, given, f"is not {_kind(declared)}", f"Give {_expected(declared)}.")


def _kind(declared: Parameter) -> str:
    if isinstance(declared, ListParameter):
        return f"a list, or an item of it is no {declared.items}"
    return {"integer": "a whole number", "boolean": "true or false", "string": "text"}.get(
        declared.type, f"a {declared.type}"
    )


def _expected(declared: Parameter) -> str:
    match declared:
        case IntegerParameter() | NumberParameter():
            low, high = declared.minimum, declared.maximum
            kind = "a whole number" if declared.type == "integer" else "a number"
            limits = {
                (True, True): f" from {low} to {high}",
                (True, False): f" of at least {low}",
                (False, True): f" of at most {high}",
            }.get((low is not None, high is not None), "")
            return f"{kind}{limits}{' ' + declared.unit if declared.unit else ''}"
        case ChoiceParameter():
            return f"one of {', '.join(declared.choices)}"
        case ListParameter():
            return f"a list of {declared.items} values, separated by commas"
        case FileParameter():
            return "an object as bucket/key"
        case BooleanParameter():
            return "true or false"
        case StringParameter():
            return "text"


def _wrong(field: str, value: object, why: str, hint: str) -> InvalidSpec:
    return InvalidSpec(f"{field}: {value!r} {why}", hint=hint, detail={"field": field, "value": repr(value)[:200]})
