"""From YAML text to a `Template` whose parts agree with each other, or an InvalidSpec that names the field."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import yaml

from heroes.api.applications import Base64File, Step, Template
from heroes.api.errors import InvalidSpec
from heroes.api.registry import parse
from heroes_applications import expressions
from heroes_applications.placeholders import Place, places
from heroes_applications.values import check_default

MAX_TEXT = 2_000_000
MAX_DEPTH = 20
MAX_FILES = 2**20

#: Names that a step's expressions and placeholders have beside the parameters.
ITEM = frozenset({"item", "index"})

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML's plain values; a key given twice is an error, not the last one silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no plain text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def digest(source: str) -> str:
    """What identifies the text of a version: `sha256:…`."""
    return "sha256:" + hashlib.sha256(source.encode()).hexdigest()


@lru_cache(maxsize=256)
def read_template(source: str) -> Template:
    """The template that `source` describes, checked as a whole."""
    template: Template = parse(Template, _load(source))
    check(template)
    return template


def file_bytes(content: str | Base64File, field: str) -> bytes:
    """What a template's file holds."""
    if isinstance(content, str):
        return content.encode()
    try:
        return base64.b64decode(content.base64, validate=False)
    except binascii.Error as error:
        raise InvalidSpec(f"{field}: {error}", hint="Encode the file with `base64`.") from None


def _load(source: str) -> dict[str, Any]:
    if len(source) > MAX_TEXT:
        raise InvalidSpec(
            f"the document has {len(source)} characters, more than {MAX_TEXT}",
            hint="Keep large files in a bucket and name them as inputs.",
        )
    try:
        _refuse_what_is_not_plain(source)
        document = yaml.load(source, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 13th month, half a character
        raise InvalidSpec(f"the document is no YAML: {error}", hint="Correct the line that is named.") from None
    if not isinstance(document, dict):
        raise InvalidSpec(f"the document is a {type(document).__name__}", hint="Begin it with `name: …`.")
    return document


def _refuse_what_is_not_plain(source: str) -> None:
    # A few aliases of aliases describe a document of any size; tags make values of other kinds than JSON has.
    depth = 0
    for event in yaml.parse(source, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"anchors and aliases are not allowed, {event.start_mark}")
        tag = getattr(event, "tag", None)
        if tag:
            raise yaml.YAMLError(f"tags such as {tag} are not allowed, {event.start_mark}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"deeper than {MAX_DEPTH} levels, {event.start_mark}")


def check(template: Template) -> None:
    """Names that clash, steps that wait for each other, placeholders and expressions of nothing: InvalidSpec."""
    _check_names(template)
    for name, declared in template.parameters.items():
        check_default(f"parameters.{name}", declared)
    for name, given in template.inputs.items():
        if given.default is not None and given.default not in template.files:
            raise _wrong(f"inputs.{name}.default", given.default, "is none of the template's files")
    total = sum(len(file_bytes(content, f"files.{name}")) for name, content in template.files.items())
    if total > MAX_FILES:
        raise _wrong("files", f"{total} bytes", f"are more than {MAX_FILES}; keep large files in a bucket")
    for step in template.steps:
        _check_step(template, step)
    order(template)


def _check_names(template: Template) -> None:
    """Whatever lies in `in/` of a job has its own name there."""
    steps = [step.name for step in template.steps]
    files = [name for name, declared in template.parameters.items() if declared.type == "file"]
    seen: set[str] = set()
    for name in [*steps, *template.inputs, *files, *template.files]:
        if name.lower() in seen:
            raise _wrong("template", name, "names two things; steps, inputs, files and file parameters share `in/`")
        seen.add(name.lower())
    for name in template.parameters:
        if name in ITEM | expressions.FUNCTIONS:
            raise _wrong("parameters", name, "is a word of expressions; choose another")
        if name in template.inputs:
            raise _wrong("parameters", name, "is an input too; choose another")


def _check_step(template: Template, step: Step) -> None:
    field = f"steps.{step.name}"
    known = {other.name for other in template.steps}
    for need in step.needs:
        if need not in known:
            raise _wrong(f"{field}.needs", need, f"is no step; the steps are {', '.join(sorted(known))}")
    if step.fan_out is not None:
        over = template.parameters.get(step.fan_out)
        if over is None or over.type != "list":
            raise _wrong(f"{field}.fan_out", step.fan_out, "is no parameter of type list")
    for where, name in _listed(step):
        if name not in (template.inputs if where == "inputs" else template.files):
            raise _wrong(f"{field}.{where}", name, f"is none of the template's {where}")
    for where, place in step_places(step):
        _check_place(template, step, f"{field}.{where}", place)
    for name, expression in resource_expressions(step):
        _check_expression(template, step, f"{field}.resources.{name}", expression)
    for output in step.outputs:
        if output.glob.startswith("/") or ".." in output.glob.split("/"):
            raise _wrong(f"{field}.outputs", output.glob, "leaves the step's working folder; make it relative")


def _listed(step: Step) -> Iterator[tuple[str, str]]:
    yield from (("inputs", name) for name in step.inputs)
    yield from (("files", name) for name in step.files)


def step_places(step: Step) -> Iterator[tuple[str, Place]]:
    """Every placeholder of a step, and where it stands."""
    for number, argument in enumerate(step.argv):
        yield from ((f"argv[{number}]", place) for place in places(argument))
    for name, value in step.variables.items():
        yield from ((f"variables.{name}", place) for place in places(value))


def resource_expressions(step: Step) -> Iterator[tuple[str, str]]:
    """The resources of a step that are expressions, not numbers."""
    for name in type(step.resources).model_fields:
        value = getattr(step.resources, name)
        if isinstance(value, str):
            yield name, value


def _check_place(template: Template, step: Step, field: str, place: Place) -> None:
    known: dict[str, Any] = {
        "input": template.inputs,
        "file": template.files,
        "needs": step.needs,
        "": set(template.parameters) | (ITEM if step.fan_out else set()),
    }
    if place.kind not in known or place.name not in known[place.kind]:
        choices = [f"{kind}.{name}" if kind else name for kind, names in known.items() for name in sorted(names)]
        raise _wrong(field, place.text, f"stands for nothing; there are {', '.join(choices) or 'no placeholders'}")


def _check_expression(template: Template, step: Step, field: str, expression: str) -> None:
    known = set(template.parameters) | (ITEM if step.fan_out else set())
    unknown = expressions.names(expression, field) - known
    if unknown:
        raise _wrong(field, expression, f"names {', '.join(sorted(unknown))}, which is no parameter")


def order(template: Template) -> tuple[Step, ...]:
    """The steps, each after those that it needs; InvalidSpec where they wait for each other in a ring."""
    left = {step.name: step for step in template.steps}
    done: list[Step] = []
    while left:
        ready = [step for step in left.values() if not set(step.needs) & left.keys()]
        if not ready:
            raise _wrong("steps", ", ".join(left), "wait for each other; remove a `needs` of one of them")
        done += ready
        for step in ready:
            del left[step.name]
    return tuple(done)


def _wrong(field: str, value: object, why: str) -> InvalidSpec:
    return InvalidSpec(
        f"{field}: {value!r} {why}".strip(),
        hint="Correct the template; `heroes workflow schema` shows its form.",
        detail={"field": field, "value": str(value)},
    )
