"""Values that do not fit a request: what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api import budget, decision, workflows
from heroes.api.errors import InvalidSpec
from heroes.api.model import Model
from heroes.api.registry import parse

#: What is asked, the field that is named, the words that are said of it.
WRONG: list[tuple[type[Model], dict[str, Any], str, str]] = [
    (workflows.GetInstance, {"workflow_instance_id": "x"}, "workflow_instance_id", "An id has 26 characters"),
    (decision.Decide, {"template": "t", "policy": "best"}, "policy", "'fastest'"),
    (decision.Decide, {"template": "t", "deadline_s": -1}, "deadline_s", "greater than 0"),
    (decision.Decide, {"template": "t", "places": ["alpha"]}, "places.0", "A place is cluster/queue"),
    (workflows.Submit, {"labels": {"a": 3}}, "labels.a", "(got 3)"),
    (budget.AskStatement, {"since": "2026-01-31"}, "since", "2026-01-31T00:00:00Z (got '2026-01-31')"),
    (budget.AskStatement, {"since": "yesterday"}, "since", "A time is written with its zone"),
    (workflows.Submit, {"color": "red"}, "color", "There is no such field (got 'red')"),
]


@pytest.mark.parametrize(("model", "values", "field", "words"), WRONG)
def test_a_bad_value_is_named(model: type[Model], values: dict[str, Any], field: str, words: str) -> None:
    """The message begins with the field, and says what it should be and what it was; the hint names the field once."""
    with pytest.raises(InvalidSpec) as told:
        parse(model, values)
    assert told.value.message.startswith(f"{field}: ")
    assert words in told.value.message
    assert told.value.hint == f"Correct {field} and send it again."
    assert {each["field"] for each in told.value.detail["fields"]} == {field}


#: What is sent as a parameter or label, and what is said of it.
ODD: list[tuple[Any, str]] = [
    ("a\x00b", "parameters.a: holds a NUL or half a character"),
    ("\ud800", "parameters.a: holds a NUL or half a character"),
    (2**63, "parameters.a: 9223372036854775808 is beyond 64 bits"),
    (float("nan"), "parameters.a: nan is no number"),
    ({"b": [1, float("inf")]}, "parameters.a.b.1: inf is no number"),
]


@pytest.mark.parametrize(("value", "words"), ODD)
def test_what_no_database_holds_is_refused(value: Any, words: str) -> None:
    """Values that JSON text or a database cannot keep are named, wherever they are."""
    with pytest.raises(InvalidSpec) as told:
        parse(workflows.Submit, {"parameters": {"a": value}})
    assert told.value.message == words


def test_values_within_values_end_somewhere() -> None:
    """Lists in lists beyond forty levels are refused; what people send is not."""
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(InvalidSpec, match="parameters: has more than 40 levels"):
        parse(workflows.Submit, {"parameters": {"a": deep}})
    fine = {"a": [[1, 2], ["ü", 2**63 - 1]]}
    assert parse(workflows.Submit, {"parameters": fine}).parameters == fine
