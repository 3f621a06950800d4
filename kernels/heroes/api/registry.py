"""An operation is declared once, here; handlers, validation, OpenAPI, client, command line and access tests follow.

    LIST = Operation(
        name="workflow.instances", method="GET", path="/organization/workflow/instance",
        request=ListInstances, response=Instances, right=SIGNED_IN, summary="List one's runs.", verb="run list",
    )

Where the fields of `request` travel: a field named in the path comes from the path; the others come from the query of a
GET or DELETE and from the JSON body of a POST or PATCH. An `upload` takes its fields from path and query, and the body
is the raw bytes; a `download` answers raw bytes. The rule is the same for server, client and OpenAPI.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from heroes.api.errors import HeroesError, InvalidSpec
from heroes.api.ids import ULID
from heroes.api.model import Empty, Model

#: Rights that are not in the table of roles: whoever asks, and whoever is signed in.
ANYBODY = "anybody"
SIGNED_IN = "signed-in"

#: The rights that roles give (the table of roles), and those over the platform.
RIGHTS = frozenset(
    {
        "submit",
        "data:home",
        "data:manage",
        "workflows:manage",
        "users:manage",
        "applications:package",
        "applications:publish",
        "resources:publish",
        "clusters:manage",
        "billing",
        "platform:organizations",
        "platform:clusters",
        "platform:operate",
    }
)

Method = Literal["GET", "POST", "PATCH", "DELETE"]
_IN_PATH = re.compile(r"{([a-z_]+)}")
#: How deep values within values may go.
_DEEPEST = 40


@dataclass(frozen=True)
class Operation:
    """One operation of the API. `right` is one name or several, any of which admits."""

    name: str
    method: Method
    path: str
    request: type[Model]
    response: type[Model]
    right: str | tuple[str, ...]
    summary: str
    errors: tuple[type[HeroesError], ...] = ()
    #: Words of the command line, e.g. "run list"; none where empty.
    verb: str = ""
    #: Makes something: takes an idempotency key, and answers the same to the same key.
    creates: bool = False
    upload: bool = False
    download: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.rights) - RIGHTS - {ANYBODY, SIGNED_IN}
        if unknown or not self.rights:
            raise ValueError(f"{self.name} needs a right of the table, not {sorted(unknown)}")
        missing = set(self.path_fields) - set(self.request.model_fields)
        if missing:
            raise ValueError(f"{self.name}: {self.path} names {sorted(missing)}, which {self.request.__name__} lacks")

    @property
    def rights(self) -> tuple[str, ...]:
        """The rights any of which admits."""
        return (self.right,) if isinstance(self.right, str) else self.right

    @property
    def path_fields(self) -> tuple[str, ...]:
        """The request's fields that travel in the path."""
        return tuple(_IN_PATH.findall(self.path))

    @property
    def in_body(self) -> bool:
        """Whether the fields outside the path travel as a JSON body (else as the query)."""
        return self.method in ("POST", "PATCH") and not self.upload

    def other_fields(self) -> tuple[str, ...]:
        """The request's fields that are not in the path."""
        return tuple(field for field in self.request.model_fields if field not in self.path_fields)


def parse(model: type[Model], values: dict[str, Any]) -> Any:
    """`values` as a `model`; InvalidSpec names each bad field, its value and what it should be.

    Text stands for a number too, as it comes from a path or query."""
    try:
        made = model.model_validate(values)
    except ValidationError as error:
        raise _told(error) from None
    _check_plain(made, "")
    return made


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """InvalidSpec for what neither JSON nor a database holds: NUL and halves of characters in text, whole numbers
    beyond 64 bits, numbers that are none; and for values within values without end."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, str):
        if not _is_text(value):
            raise _odd(where, "holds a NUL or half a character", "Send whole characters, none of them NUL.")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _odd(where, f"{_short(value)} is beyond 64 bits", "Send a smaller number.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _odd(where, f"{value} is no number", "Send a finite number.")
    elif depth > _DEEPEST:
        raise _odd(where.partition(".")[0], f"has more than {_DEEPEST} levels", "Send a flatter value.")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_plain(key, where, depth + 1)
            _check_plain(each, _joined(where, key), depth + 1)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _check_plain(each, _joined(where, number), depth + 1)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            _check_plain(getattr(value, name), _joined(where, name), depth + 1)


def _is_text(value: str) -> bool:
    if "\0" in value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _joined(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _odd(where: str, problem: str, hint: str) -> InvalidSpec:
    return InvalidSpec(f"{where}: {problem}", hint=hint, detail={"fields": [{"field": where, "problem": problem}]})


def _told(error: ValidationError) -> InvalidSpec:
    wrong = [
        {"field": _field(each["loc"]), "problem": _problem(each), "value": _short(each["input"])}
        for each in error.errors(include_url=False)
    ]
    first = wrong[0]
    message = f"{first['field'] or 'the request'}: {first['problem']} (got {first['value']})"
    hint = f"Correct {', '.join(sorted({each['field'] or 'the request' for each in wrong}))} and send it again."
    return InvalidSpec(message, hint=hint, detail={"fields": wrong})


def _field(place: tuple[int | str, ...]) -> str:
    """Where the value stands; alternatives of a type, which pydantic names too, are left out."""
    return ".".join(str(part) for part in place if "[" not in str(part))


def _problem(each: ErrorDetails) -> str:
    """What the value should be, in words of one's own where few can read the model's."""
    match each["type"]:
        case "string_pattern_mismatch":
            return _PATTERNS.get(each["ctx"]["pattern"].strip("^$"), each["msg"])
        case "union_tag_invalid":
            key, tag, tags = (each["ctx"][name] for name in ("discriminator", "tag", "expected_tags"))
            return f"{key} is {tag!r}, not one of {tags}"
        case "timezone_aware" | "datetime_parsing" | "datetime_from_date_parsing":
            return "A time is written with its zone, for instance 2026-01-31T00:00:00Z"
        case "extra_forbidden":
            return "There is no such field"
    return each["msg"]


#: What texts of a pattern are.
_PATTERNS = {
    ULID.pattern: "An id has 26 characters, as the lists show them",
    "[^/]+/[^/]+": "A place is cluster/queue, as `heroes workflow decide` shows it",
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"


__all__ = ["ANYBODY", "RIGHTS", "SIGNED_IN", "Empty", "Operation", "parse"]
