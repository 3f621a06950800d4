"""openapi.json says what the contract says."""

from __future__ import annotations

import json
import re
from typing import Any

from heroes import openapi
from heroes.api import contract
from heroes.api.registry import ANYBODY


def references(value: Any) -> set[str]:
    """Every `$ref` in a JSON value."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(each) for each in value.values()))
    return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()


def test_every_operation_is_there() -> None:
    """Each operation stands under its path and method, under its name."""
    paths = openapi.document()["paths"]
    for operation in contract.operations():
        assert paths[operation.path][operation.method.lower()]["operationId"] == operation.name
    assert sum(len(methods) for methods in paths.values()) == len(contract.operations())


def test_it_is_json_of_version_3_1() -> None:
    """The document is plain JSON of OpenAPI 3.1 whose references all lead somewhere."""
    told = json.loads(json.dumps(openapi.document()))
    assert re.fullmatch(r"3\.1\.\d", told["openapi"])
    schemas = {f"#/components/schemas/{name}" for name in told["components"]["schemas"]}
    assert references(told) <= schemas


def test_path_parameters_are_required() -> None:
    """Each name in a path is a required parameter, and nothing else is in a path."""
    for path, methods in openapi.document()["paths"].items():
        for described in methods.values():
            named = [each["name"] for each in described["parameters"] if each["in"] == "path" and each["required"]]
            assert sorted(named) == sorted(re.findall(r"{(\w+)}", path))


def test_bodies_have_what_the_path_has_not() -> None:
    """The body of a POST or PATCH has exactly the fields that are not in the path."""
    told = openapi.document()
    for operation in contract.operations():
        if not operation.in_body:
            continue
        body = told["paths"][operation.path][operation.method.lower()]["requestBody"]["content"]["application/json"]
        schema = body["schema"]
        if "$ref" in schema:
            schema = told["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert set(schema.get("properties", {})) == set(operation.other_fields()), operation.name


def test_who_may_is_told() -> None:
    """Operations that anybody may use need no token, all others do; the right is named."""
    told = openapi.document()
    for operation in contract.operations():
        described = told["paths"][operation.path][operation.method.lower()]
        assert ("security" in described) == (ANYBODY not in operation.rights)
        assert described["x-heroes-right"] == list(operation.rights)


def test_creations_take_a_key() -> None:
    """Operations that make something take an idempotency key."""
    told = openapi.document()
    described = told["paths"]["/organization/workflow/submit"]["post"]
    assert any(each["name"] == "Idempotency-Key" for each in described["parameters"])


def test_a_copy_may_be_changed() -> None:
    """Whoever changes the document changes their own copy."""
    openapi.document()["paths"].clear()
    assert openapi.document()["paths"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """The page names every operation and loads nothing."""
    page = openapi.page()
    for operation in contract.operations():
        assert f'id="{operation.name}"' in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page)
    assert "<script" not in page
