"""Values of parameters and inputs: what is taken, and how a bad one is told."""

from __future__ import annotations

from typing import Any

import pytest

from heroes.api.errors import InvalidSpec
from heroes_applications.documents import read_template
from heroes_applications.values import check_inputs, check_parameters, object_name

SOURCE = """
name: sums
title: Sums
parameters:
  cells: {type: integer, default: 40, minimum: 10, maximum: 400, unit: cells, help: Cells on a side.}
  ratio: {type: number, default: 0.5, minimum: 0}
  label: {type: string, max_length: 20}
  quick: {type: boolean, default: false}
  solver: {type: choice, choices: [pcg, gamg], default: pcg}
  cases: {type: list, items: integer, max_items: 3, default: [1, 2]}
  names: {type: list, items: string, default: []}
  meshes: {type: list, items: file, default: []}
  mesh: {type: file, default: shared/mesh.msh}
inputs:
  table: {help: A table of numbers.}
  notes: {required: false}
steps:
  - {name: add, argv: [add, "{{cells}}"]}
"""
TEMPLATE = read_template(SOURCE)


def test_defaults_fill_what_is_not_given() -> None:
    """Every parameter has a value afterwards."""
    assert check_parameters(TEMPLATE, {"label": "x"}) == {
        "cells": 40, "ratio": 0.5, "label": "x", "quick": False, "solver": "pcg", "cases": (1, 2), "names": (),
        "meshes": (), "mesh": "shared/mesh.msh",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("cells", 80, 80),
        ("cells", "80", 80),
        ("cells", 80.0, 80),
        ("ratio", "1e-3", 0.001),
        ("ratio", 3, 3),
        ("quick", "true", True),
        ("quick", "No", False),
        ("solver", "gamg", "gamg"),
        ("cases", [1, "2"], (1, 2)),
        ("cases", "7,8,9", (7, 8, 9)),
        ("cases", 5, (5,)),
        ("names", ["a b", "c"], ("a b", "c")),
        ("meshes", ["alice/a.msh", "alice/b/"], ("alice/a.msh", "alice/b/")),
        ("mesh", "alice/x y.msh", "alice/x y.msh"),
        ("label", "'\"$(reboot)\n;", "'\"$(reboot)\n;"),
    ],
)
def test_takes(name: str, given: Any, taken: Any) -> None:
    """Good values are taken as their type, text that spells a number too."""
    assert check_parameters(TEMPLATE, {"label": "x", name: given})[name] == taken


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("cells", "eighty", "'eighty' is not a whole number"),
        ("cells", 80.5, "80.5 is not a whole number"),
        ("cells", True, "True is not a whole number"),
        ("cells", [80], "[80] is not a whole number"),
        ("cells", 9, "9 is out of range. Give a whole number from 10 to 400 cells."),
        ("cells", 401, "401 is out of range"),
        ("ratio", float("nan"), "nan is not a number"),
        ("ratio", "inf", "is not a number"),
        ("ratio", -1, "Give a number of at least 0"),
        ("quick", "maybe", "'maybe' is not true or false"),
        ("quick", 1, "1 is not true or false"),
        ("solver", "gamgg", "Did you mean 'gamg'?"),
        ("solver", ["pcg"], "is none of the choices"),
        ("cases", [1, 2, 3, 4], "'4 items' are too many. Give 3 at most."),
        ("cases", [1, "x"], "parameters.cases[1]: 'x' is not a list, or an item of it is no integer"),
        ("cases", True, "True is not a list"),
        ("names", 5, "5 is not a list"),
        ("label", 5, "5 is not text"),
        ("label", "x" * 21, "has 21 characters. Give 20 at most."),
        ("label", "a\0b", "Remove NUL"),
        ("label", "\ud800", "lone surrogates"),
        ("mesh", "mesh.msh", "is no object. Write it as bucket/key"),
        ("mesh", "alice/../bob/x", "is no object"),
        ("mesh", "alice/a\nb", "is no object"),
        ("meshes", ["alice//x"], "parameters.meshes[0]"),
        ("cell", 80, "Did you mean 'cells'?"),
        ("zzz", 80, "Its parameters are cases, cells"),
    ],
)
def test_tells_what_is_wrong(name: str, given: Any, told: str) -> None:
    """A bad value is refused with the field, the value and the way out."""
    with pytest.raises(InvalidSpec) as refused:
        check_parameters(TEMPLATE, {"label": "x", name: given})
    assert told in str(refused.value)
    assert refused.value.detail["field"].startswith(f"parameters.{name}")


def test_asks_for_what_has_no_default() -> None:
    """A parameter without default must be given."""
    with pytest.raises(InvalidSpec, match=r"parameters\.label: it has no default.*Give label, text"):
        check_parameters(TEMPLATE, {})


def test_inputs_are_objects() -> None:
    """An input is a bucket and a key, or a folder."""
    found = check_inputs(TEMPLATE, {"table": "alice/a/b.csv", "notes": "alice/notes/"})
    assert (found["table"].bucket, found["table"].key, str(found["notes"])) == ("alice", "a/b.csv", "alice/notes/")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "inputs.table: sums needs it and none was given. Upload it and name it as bucket/key."),
        ({"table": "alice"}, "inputs.table: 'alice' is no object"),
        ({"table": "alice/x", "tabel": "alice/y"}, "Did you mean 'table'?"),
    ],
)
def test_tells_what_is_wrong_with_an_input(given: dict[str, str], told: str) -> None:
    """A missing, malformed or unknown input is told like a parameter."""
    with pytest.raises(InvalidSpec) as refused:
        check_inputs(TEMPLATE, given)
    assert told in str(refused.value)


@pytest.mark.parametrize("text", ["", "/", "a/", "a//b", "a/./b", "a/..", "a/b//", "/a/b", "a/\u200bb\x07"])
def test_refuses_what_is_no_object(text: str) -> None:
    """A name of an object has a bucket, a key, no dots and no empty parts."""
    with pytest.raises(InvalidSpec):
        object_name(text, "inputs.x")
