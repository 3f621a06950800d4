"""What a template becomes: jobs whose arguments, inputs and resources are as written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heroes.api.errors import InvalidSpec
from heroes_applications.documents import read_template
from heroes_applications.model import MAX_JOBS, StepPlan, render
from heroes_jobs.model import InputRef, OutputSpec
from heroes_spawners.site import Image, Shape

DIGEST = "sha256:" + "a" * 64
TEMPLATE = read_template(f"""
name: all
title: All of it
parameters:
  cells: {{type: integer, default: 40}}
  ratio: {{type: number, default: 0.25}}
  label: {{type: string, default: hello}}
  quick: {{type: boolean, default: true}}
  cases: {{type: list, items: integer, default: [3, 5]}}
  meshes: {{type: list, items: file, default: [alice/a.msh, alice/b.msh]}}
  extra: {{type: file, default: alice/extra.txt}}
inputs:
  mesh: {{}}
  table: {{required: false, default: table.csv}}
  notes: {{required: false}}
files:
  run.sh: "echo"
  table.csv: "1,2"
steps:
  - name: mesh-all
    application: {{requires: [openfoam], modules: [gcc]}}
    argv: [mesh, "--label={{{{label}}}}", "{{{{cells}}}}/{{{{ratio}}}}", "{{{{quick}}}}", "{{{{cases}}}}"]
    variables: {{THREADS: "{{{{cells}}}}"}}
    inputs: [mesh, notes]
    resources: {{nodes: 2, tasks: cells // 10, cpus_per_task: 1 + quick, memory_mib: 100 * cells, walltime_s: 60}}
  - name: each
    needs: [mesh-all]
    fan_out: cases
    argv: [sh, "{{{{file.run.sh}}}}", "{{{{item}}}}", "{{{{index}}}}", "{{{{needs.mesh-all}}}}/x",
      "{{{{input.table}}}}"]
    outputs: [{{glob: "*.txt", required: true, max_mib: 2}}, {{glob: "logs/**"}}]
    resources: {{cpus_per_task: item, gpus: index}}
  - name: files
    fan_out: meshes
    application: {{environments: [python], image: {{path: /images/a.sqfs, digest: "{DIGEST}"}}}}
    argv: [check, "{{{{item}}}}", "{{{{extra}}}}", "{{{{input.mesh}}}}", "[{{{{input.notes}}}}]"]
    parallel: true
""")


def plans(parameters: dict[str, Any] | None = None, **inputs: str) -> list[StepPlan]:
    """The jobs of the template above."""
    return render(TEMPLATE, parameters or {}, {"mesh": "alice/m.msh", **inputs})


def test_one_job_for_each_item() -> None:
    """A step is one job, or one for each item of its list, after the steps that it needs."""
    assert [(plan.name, plan.index, plan.fanned) for plan in plans()] == [
        ("mesh-all", 0, False), ("files", 0, True), ("files", 1, True), ("each", 0, True), ("each", 1, True),
    ]  # fmt: skip


def test_arguments_are_as_written() -> None:
    """Every type of parameter is written plainly into its argument, and into variables."""
    plan = plans()[0]
    assert plan.argv == ("mesh", "--label=hello", "40/0.25", "true", "3,5")
    assert plan.variables == {"THREADS": "40"}


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100))
def test_whatever_stands_there_an_argument_stays_one(text: str) -> None:
    """Quotes, newlines, braces and `$( )` in a value reach the one argument unchanged."""
    argv = plans({"label": text})[0].argv
    assert argv == ("mesh", f"--label={text}", "40/0.25", "true", "3,5")


def test_a_placeholder_in_a_value_is_text() -> None:
    """A value is not read again."""
    assert plans({"label": "{{cells}}{{input.mesh}}"})[0].argv[1] == "--label={{cells}}{{input.mesh}}"


def test_inputs_that_are_named_or_listed_come_along() -> None:
    """A job gets the inputs that its arguments name and those it lists, and no others."""
    first, second, *_ = plans(notes="alice/notes/")
    assert first.inputs == (InputRef("mesh", "alice", "m.msh"), InputRef("notes", "alice", "notes/"))
    assert second.inputs == (
        InputRef("mesh", "alice", "m.msh"),
        InputRef("notes", "alice", "notes/"),
        InputRef("item", "alice", "a.msh"),
        InputRef("extra", "alice", "extra.txt"),
    )
    assert second.argv == ("check", "../in/item", "../in/extra", "../in/mesh", "[../in/notes]")


def test_an_input_that_is_not_given_is_nothing() -> None:
    """An optional input without default is an empty text in an argument."""
    assert plans()[1].argv[-1] == "[]"


def test_a_files_default_stands_in_for_an_input() -> None:
    """An input that is not given is the template's own file; a given one replaces it."""
    own, given_ = plans()[3], plans(table="alice/t.csv")[3]
    assert own.argv == ("sh", "../in/run.sh", "3", "0", "../in/mesh-all/x", "../in/table.csv")
    assert own.files == (("run.sh", b"echo"), ("table.csv", b"1,2"))
    assert given_.argv[-1] == "../in/table"
    assert given_.files == (("run.sh", b"echo"),)
    assert given_.inputs == (InputRef("table", "alice", "t.csv"),)


def test_resources_are_computed() -> None:
    """Expressions read parameters, and in a fan-out the item and its number."""
    assert plans()[0].shape == Shape(nodes=2, tasks=4, cpus_per_task=2, memory_mib=4000, walltime_s=60)
    assert [(plan.shape.cpus_per_task, plan.shape.gpus) for plan in plans()[3:]] == [(3, 0), (5, 1)]


def test_outputs_and_application_come_along() -> None:
    """What a step keeps, needs and runs in is on its plan."""
    first, files, _, each, last = plans()
    assert each.outputs == (OutputSpec("*.txt", True, 2 * 2**20), OutputSpec("logs/**", False, 1024 * 2**20))
    assert each.max_output_bytes == 1026 * 2**20
    assert (each.needs, first.requires, first.modules) == (("mesh-all",), ("openfoam",), ("gcc",))
    assert (files.environments, files.image) == (("python",), Image("/images/a.sqfs", DIGEST))
    assert (files.parallel, first.folder, last.folder) == (True, "mesh-all/", "each/1/")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"cells": 9}, "steps.mesh-all.resources.tasks: 'cells // 10' gives 0, which is below 1"),
        ({"cells": 10**12}, "is no sensible amount"),
        ({"cases": []}, "parameters.cases: the list is empty"),
        ({"cases": [-1]}, "steps.each.resources.cpus_per_task"),
        ({"cell": 1}, "Did you mean 'cells'?"),
    ],
)
def test_tells_what_cannot_run(parameters: dict[str, Any], told: str) -> None:
    """Parameters that give no runnable job are refused, with the resource that they give."""
    with pytest.raises(InvalidSpec) as refused:
        plans(parameters)
    assert told in str(refused.value)


def test_a_run_has_a_bounded_number_of_jobs() -> None:
    """Lists that together make more jobs than a run may have are refused."""
    fanned = read_template("""
name: many
title: Many
parameters: {a: {type: list, items: integer, max_items: 2000}}
steps:
  - {name: one, argv: [x], fan_out: a}
  - {name: two, argv: [x]}
""")
    assert len(render(fanned, {"a": list(range(MAX_JOBS - 1))}, {})) == MAX_JOBS
    with pytest.raises(InvalidSpec, match="more than 2000 jobs"):
        render(fanned, {"a": list(range(MAX_JOBS))}, {})
