"""Templates as authors write them: what is accepted, and how a mistake is told."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes_applications.documents import MAX_TEXT, digest, file_bytes, order, read_template

GOOD = """
name: two-steps
title: Two steps
parameters:
  cells: {type: integer, default: 40}
  cases: {type: list, items: string, default: [a, b]}
inputs:
  mesh: {required: false}
  table: {required: false, default: table.csv}
files:
  run.sh: "echo $1"
  table.csv: {base64: "MSwyCg=="}
steps:
  - name: second
    needs: [first]
    argv: [sh, "{{file.run.sh}}", "{{needs.first}}/x", "{{item}}:{{index}}"]
    fan_out: cases
    resources: {tasks: "max(1, cells // 20)", walltime_s: 60 * (1 + index)}
  - name: first
    argv: [cat, "{{input.mesh}}", "{{ input.table }}"]
    outputs: [{glob: "*.txt", required: true, max_mib: 5}]
"""


def test_reads_a_template() -> None:
    """A good document becomes a template, its steps in the order in which they can run."""
    template = read_template(GOOD)
    assert [step.name for step in order(template)] == ["first", "second"]
    assert file_bytes(template.files["table.csv"], "files.table.csv") == b"1,2\n"


def test_the_digest_is_of_the_text() -> None:
    """Another text is another digest."""
    assert digest(GOOD) != digest(GOOD + " ")
    assert digest(GOOD).startswith("sha256:")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: two-steps", "name: two steps", "name: String should match pattern"),
        ("title: Two steps\n", "", "title: Field required"),
        ("title: Two steps", "titel: x\ntitle: y", "titel: There is no such field"),
        ("type: integer, default: 40", "type: int, default: 40", "parameters.cells: 'type' is 'int', not"),
        ("type: integer, default: 40", "type: integer, default: x", "parameters.cells.integer.default"),
        ("default: 40}", "default: 40, minimum: 50}", "parameters.cells.default: 40 is out of range"),
        ("default: 40}", "minimum: 5, maximum: 4}", "is above the maximum 4"),
        ("default: [a, b]", "default: [a, 3]", "parameters.cases.default[1]: 3"),
        ("  cells:", "  item:", "'item' is a word of expressions"),
        ("  mesh: {", "  cells: {", "'cells' is an input too"),
        ("  mesh: {", "  first: {", "'first' names two things"),
        ("default: table.csv", "default: other.csv", "'other.csv' is none of the template's files"),
        ("needs: [first]", "needs: [zero]", "'zero' is no step; the steps are first, second"),
        ("needs: [first]", "needs: [first, second]", "wait for each other"),
        ("fan_out: cases", "fan_out: cells", "'cells' is no parameter of type list"),
        ("    fan_out: cases\n", "", "'{{item}}' stands for nothing"),
        ("{{input.mesh}}", "{{input.mash}}", "'{{input.mash}}' stands for nothing; there are input.mesh"),
        ("{{file.run.sh}}", "{{file.run.py}}", "'{{file.run.py}}' stands for nothing"),
        ("{{needs.first}}", "{{needs.second}}", "stands for nothing"),
        ("{{item}}", "{{cell}}", "steps.second.argv[3]: '{{cell}}' stands for nothing"),
        ("max(1, cells // 20)", "max(1, cell // 20)", "steps.second.resources.tasks: 'max(1, cell // 20)' names cell"),
        ("max(1, cells // 20)", "cells **", "cannot be read"),
        ("*.txt", "../*.txt", "leaves the step's working folder"),
        ("*.txt", "/etc/*", "leaves the step's working folder"),
        ('"MSwyCg=="', "MSw", "files.table.csv: Incorrect padding"),
        ("run.sh:", "../run.sh:", "files.../run.sh"),
        (
            "    fan_out: cases",
            "    inputs: [nothing]\n    fan_out: cases",
            "'nothing' is none of the template's inputs",
        ),
        ("    fan_out: cases", "    files: [nothing]\n    fan_out: cases", "'nothing' is none of the template's files"),
        ("  - name: first", "  - name: second", "'second' names two things"),
        ("name: first", "name: first\n    other: 1", "steps.1.other"),
    ],
)
def test_tells_the_mistake(old: str, new: str, told: str) -> None:
    """Each mistake is refused with its place in the document."""
    assert old in GOOD
    with pytest.raises(InvalidSpec) as refused:
        read_template(GOOD.replace(old, new, 1))
    assert told in str(refused.value) or told in str(refused.value.detail)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a: [", "no YAML"),
        ("- a", "the document is a list"),
        ("", "the document is a NoneType"),
        ("a: &x 1\nb: *x", "anchors and aliases are not allowed"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("a: " + "[" * 30 + "]" * 30, "deeper than 20 levels"),
        ("a: !!python/object/apply:os.system ['true']", "no YAML"),
        ("x" * (MAX_TEXT + 1), "more than 2000000"),
        ("a: \x00", "no YAML"),
        ("{{parameter}}", "a key is no plain text"),
        ("a: 2026-13-45", "no YAML"),
        ("a: !!bool x", "tags such as tag:yaml.org,2002:bool are not allowed"),
        ("a: !!timestamp x", "are not allowed"),
    ],
)
def test_refuses_what_is_no_plain_document(source: str, told: str) -> None:
    """Broken YAML, and YAML that is more than plain values, is refused."""
    with pytest.raises(InvalidSpec, match=told):
        read_template(source)


def test_files_together_are_bounded() -> None:
    """A template carries 1 MiB of files at most."""
    with pytest.raises(InvalidSpec, match="keep large files in a bucket"):
        read_template(GOOD.replace('"echo $1"', '"' + "x" * 2**20 + '"'))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader fail otherwise than by InvalidSpec."""
    with contextlib.suppress(InvalidSpec):
        read_template(text)
