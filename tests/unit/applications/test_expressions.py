"""Expressions of resources: what they may compute, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes_applications.expressions import MAX_VALUE, evaluate, names, whole

VALUES = {"cells": 80, "ratio": 0.5, "quick": True, "solver": "pcg", "cases": ("a", "b", "c")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("cells // 20 - 1", 3),
        ("cells % 7", 3),
        ("cells / 32", 2.5),
        ("-cells + +1", -79),
        ("max(1, min(cells, 64))", 64),
        ("ceil(cells * ratio + 0.1) + floor(0.9) + round(1.4)", 42),
        ("4 if cells > 50 else 1", 4),
        ("4 if 10 < cells <= 20 else 1", 1),
        ("2 if quick and not cells == 0 else 3", 2),
        ("2 if solver == 'pcg' or cells != 80 else 3", 2),
        ("len(cases) * 2", 6),
        ("cells >= 80", 1),
    ],
)
def test_computes(text: str, expected: float) -> None:
    """An expression gives the number that Python would give."""
    assert evaluate(text, VALUES, "nodes") == expected


def test_rounds_up_to_a_whole_number() -> None:
    """Half a core is one core; a plain number stays as it is."""
    assert (whole("cells / 32", VALUES, "nodes"), whole(4, VALUES, "nodes")) == (3, 4)


def test_knows_the_parameters_that_it_reads() -> None:
    """Functions are not parameters."""
    assert names("max(cells, len(cases)) if quick else ratio", "nodes") == {"cells", "cases", "quick", "ratio"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cells +",
        "2 ** 64",
        "unknown + 1",
        "__import__('os').system('true')",
        "cells.real",
        "cases[0]",
        "[1, 2]",
        "lambda: 1",
        "(x := 3)",
        "print(1)",
        "max(cells, key=len)",
        "max(*cases)",
        "1 in cases",
        "'a' * 10",
        "solver",
        "cases",
        "len(cells)",
        "len()",
        "min()",
        "1 / 0",
        "1 % 0",
        "1e400",
        "1e400 - 1e400",
        f"{MAX_VALUE} * 2",
        "9" * 400,
        "1j",
        "None",
        "b'x'",
        "~1",
        "1 << 4",
        "solver < 3",
        "f'{cells}'",
        "1" + " + 1" * 200,
        "(" * 240 + "1" + ")" * 240,
        "-" * 499 + "1",
        "1\x00",
        "await 1",
    ],
)
def test_refuses(text: str) -> None:
    """Whatever is not small arithmetic is refused, with the field, the text and the language."""
    with pytest.raises(InvalidSpec) as refused:
        evaluate(text, VALUES, "resources.nodes")
    assert "resources.nodes" in refused.value.message


def test_refuses_long_text() -> None:
    """An expression has 500 characters at most."""
    with pytest.raises(InvalidSpec, match="501 characters"):
        evaluate("1" * 501, {}, "nodes")


@given(st.text(alphabet="0123456789+-*/%().,<>=! abcdeflmnorsuxi_'\"[]{}:\n\\", max_size=120))
def test_never_fails_otherwise(text: str) -> None:
    """Any text either gives a bounded number or is refused as InvalidSpec."""
    try:
        result = evaluate(text, VALUES, "nodes")
    except InvalidSpec:
        return
    assert -MAX_VALUE <= result <= MAX_VALUE
