"""Values that do not fit a request: what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api import decision, workflows
from heroes.api.errors import InvalidSpec
from heroes.api.model import Model
from heroes.api.registry import parse

#: What is asked, the field that is named, the words that are said of it.
WRONG: list[tuple[type[Model], dict[str, Any], str, str]] = [
    (workflows.GetInstance, {"workflow_instance_id": "x"}, "workflow_instance_id", "An id has 26 characters"),
    (decision.Decide, {"template": "t", "policy": "best"}, "policy", "'fastest'"),
    (decision.Decide, {"template": "t", "deadline_s": -1}, "deadline_s", "greater than 0"),
    (decision.Decide, {"template": "t", "places": ["alpha"]}, "places.0", "'alpha'"),
    (workflows.Submit, {"labels": {"a": 3}}, "labels.a", "(got 3)"),
    (workflows.Submit, {"color": "red"}, "color", "'red'"),
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
