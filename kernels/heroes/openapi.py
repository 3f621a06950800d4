"""The contract as an OpenAPI 3.1 document, and as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import copy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from heroes import reference
from heroes.api import contract
from heroes.api.errors import HeroesError, InvalidSpec, NotAllowed, NotSignedIn
from heroes.api.registry import ANYBODY, SIGNED_IN, Operation

Schema = dict[str, Any]
_REF = "#/components/schemas/{model}"
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def document() -> Schema:
    """The OpenAPI document; a fresh copy, plain JSON values only."""
    return copy.deepcopy(_document())


@cache
def _document() -> Schema:
    operations = contract.operations()
    references, components = _schemas(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        described = _describe(operation, references, components)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HEROES",
            "version": _version(),
            "summary": "Place, pay, run exactly once, measure, return.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_ERROR: Schema = {
    "type": "object",
    "description": "What is wrong, with the value, and what to do.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "detail", "hint"],
            "properties": {
                "type": {"type": "string", "description": "class of the error; clients raise the same"},
                "message": {"type": "string"},
                "detail": {"type": "object"},
                "hint": {"type": "string"},
            },
        }
    },
}


def _version() -> str:
    try:
        return version("heroes-hpc")
    except PackageNotFoundError:
        return "0"


def _schemas(operations: tuple[Operation, ...]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    asked = {(operation.request, "validation") for operation in operations}
    answered = {(operation.response, "serialization") for operation in operations}
    models = sorted(asked | answered, key=lambda pair: (pair[0].__module__, pair[0].__qualname__, pair[1]))
    references, schema = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    return dict(references), schema.get("$defs", {})


def _describe(operation: Operation, references: dict[Any, Schema], components: dict[str, Schema]) -> Schema:
    reference = references[operation.request, "validation"]
    asked = components[reference["$ref"].rpartition("/")[2]] if "$ref" in reference else reference
    described: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.name.partition(".")[0]],
        "parameters": _parameters(operation, asked),
        "responses": _responses(operation, references[operation.response, "serialization"]),
        "x-heroes-right": list(operation.rights),
    }
    if ANYBODY not in operation.rights:
        described["security"] = [{"token": []}]
    if operation.upload:
        described["requestBody"] = {"required": True, "content": _BYTES}
    elif operation.in_body:
        described["requestBody"] = _body(operation, reference, asked)
    return described


def _parameters(operation: Operation, asked: Schema) -> list[Schema]:
    places = [(name, "path") for name in operation.path_fields]
    if not operation.in_body:
        places += [(name, "query") for name in operation.other_fields()]
    required = asked.get("required", [])
    parameters = [_parameter(name, place, asked, place == "path" or name in required) for name, place in places]
    if operation.creates:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "The same key again answers the same and makes nothing new.",
                "schema": {"type": "string", "maxLength": 100},
            }
        )
    return parameters


def _parameter(name: str, place: str, asked: Schema, required: bool) -> Schema:
    schema = asked["properties"][name]
    told: Schema = {"name": name, "in": place, "required": required, "schema": schema}
    if "description" in schema:
        told["description"] = schema["description"]
    return told


def _body(operation: Operation, reference: Schema, asked: Schema) -> Schema:
    schema = reference
    if operation.path_fields:
        schema = {
            **asked,
            "properties": {name: asked["properties"][name] for name in operation.other_fields()},
            "required": [name for name in asked.get("required", []) if name not in operation.path_fields],
        }
    return {"required": bool(schema.get("required", True)), "content": {"application/json": {"schema": schema}}}


def _responses(operation: Operation, answer: Schema) -> Schema:
    good = _BYTES if operation.download else {"application/json": {"schema": answer}}
    responses: Schema = {"200": {"description": "Done.", "content": good}}
    for status, kinds in sorted(_errors(operation).items()):
        responses[str(status)] = {
            "description": "; ".join(f"{kind.__name__}: {_first_line(kind)}" for kind in kinds),
            "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
        }
    return responses


def _errors(operation: Operation) -> dict[int, list[type[HeroesError]]]:
    kinds: list[type[HeroesError]] = list(operation.errors)
    if operation.request.model_fields:
        kinds.append(InvalidSpec)
    if ANYBODY not in operation.rights:
        kinds.append(NotSignedIn)
        if SIGNED_IN not in operation.rights:
            kinds.append(NotAllowed)
    by_status: dict[int, list[type[HeroesError]]] = {}
    for kind in sorted(set(kinds), key=lambda kind: kind.__name__):
        by_status.setdefault(kind.status, []).append(kind)
    return by_status


def _first_line(kind: type[HeroesError]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def page() -> str:
    """The contract as one HTML page that needs nothing from elsewhere."""
    return reference.page(_document())
