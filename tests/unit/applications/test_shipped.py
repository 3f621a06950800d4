"""The shipped templates, their schema, and the script that needs nothing but Python."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from heroes_applications.catalogue import shipped_file, shipped_sources, template_schema
from heroes_applications.documents import read_template
from heroes_applications.model import render

ROOT = Path(__file__).parents[3]
SCHEMA_FILE = ROOT / "docs" / "workflow-template.schema.json"
HEADER = (
    "job_id,user,account,partition,qos,wallclock_req,nodes_req,processors_req,gpus_req,mem_req,submit_time,start_time,"
    "end_time,run_time,state,name,work_dir,submit_line"
)


def sources() -> dict[str, str]:
    """The shipped templates by name."""
    return {read_template(source).name: source for source in shipped_sources()}


def test_two_are_shipped_and_render_with_their_defaults() -> None:
    """Every parameter has a default, and no input is asked for."""
    steps = {name: [plan.name for plan in render(read_template(source), {}, {})] for name, source in sources().items()}
    assert steps == {
        "job-runtime-model": ["prepare", "train"],
        "openfoam-cavity": ["mesh", "solve", "sample", "plot"],
    }


def test_the_published_schema_is_the_models() -> None:
    """`docs/workflow-template.schema.json` says what the platform accepts."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == template_schema()


def test_shipped_templates_fit_the_schema() -> None:
    """The schema is a valid one, accepts what is shipped and refuses a misspelt field."""
    validator = jsonschema.Draft202012Validator(template_schema())
    validator.check_schema(template_schema())
    for source in sources().values():
        validator.validate(yaml.safe_load(source))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"name": "x", "titel": "y", "steps": [{"name": "a", "argv": ["b"]}]})


def test_openfoam_is_asked_for_where_it_is_used() -> None:
    """The steps that run OpenFOAM need the capability; the plot needs Python alone. Ranks are tasks."""
    plans = render(read_template(sources()["openfoam-cavity"]), {"ranks": 4, "cells": 80}, {})
    assert [plan.requires for plan in plans] == [("openfoam",)] * 3 + [()]
    assert plans[3].environments == ("python",)
    assert plans[1].shape.tasks == 4
    assert plans[1].argv == ("sh", "../in/solve.sh", "../in/mesh/case", "4")


def test_the_sample_comes_with_its_licence() -> None:
    """The data are those of 1,000 jobs, with the licence text beside them and the attribution in the description."""
    rows = gzip.decompress(shipped_file("job-runtime-model", "nrel-eagle-sample1000.csv.gz")).decode().splitlines()
    assert (len(rows), rows[0]) == (1001, HEADER)
    assert "BSD 3-Clause" in shipped_file("job-runtime-model", "nrel-eagle-LICENSE.txt").decode()
    template = read_template(sources()["job-runtime-model"])
    assert "BSD-3-Clause" in template.description
    assert template.inputs["jobs"].default == "nrel-eagle-sample1000.csv.gz"


def prepare(folder: Path, jobs: Path) -> list[dict[str, str]]:
    """Run the first step's script, isolated from this Python's packages; its table."""
    script = folder / "prepare.py"
    script.write_bytes(shipped_file("job-runtime-model", "prepare.py"))
    subprocess.run(
        [sys.executable, "-I", "-S", str(script), str(jobs)],
        cwd=folder,
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"]},
    )
    with (folder / "features.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_sample_becomes_a_table(tmp_path: Path) -> None:
    """Every job of the sample is one row of numbers."""
    jobs = tmp_path / "jobs"
    jobs.write_bytes(shipped_file("job-runtime-model", "nrel-eagle-sample1000.csv.gz"))
    rows = prepare(tmp_path, jobs)
    assert len(rows) == 1000
    assert all(float(row["anchor_s"]) > 0 and float(row["actual_s"]) > 0 for row in rows)


def job(number: int, submitted: str, ended: str, seconds: float, **columns: Any) -> str:
    """A line of a trace."""
    values = {
        "job_id": number, "user": "u", "partition": "p", "qos": "normal", "wallclock_req": 3600, "nodes_req": 1,
        "processors_req": 4, "gpus_req": 0, "mem_req": 0, "submit_time": submitted, "end_time": ended,
        "run_time": seconds, **columns,
    }  # fmt: skip
    return ",".join(str(values.get(name, "")) for name in HEADER.split(","))


def test_only_what_was_known_at_submission_is_used(tmp_path: Path) -> None:
    """The anchor is the last run of the class that had ended, else the user's last two, else the request; a job without
    run time is left out."""
    lines = [
        HEADER,
        job(1, "2019-01-01 00:00:00", "2019-01-01 00:01:40", 100),
        job(2, "2019-01-01 00:01:00", "2019-01-01 00:05:00", 200),
        job(3, "2019-01-01 00:02:00", "2019-01-01 00:20:00", 300),
        job(4, "2019-01-01 01:00:00", "2019-01-01 01:10:00", 400, nodes_req=2),
        job(5, "2019-01-01 02:00:00", "2019-01-01 02:10:00", 0),
        job(6, "2019-01-01 03:00:00", "", 50),
    ]
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("\n".join(lines) + "\n")
    rows = {row["job"]: row for row in prepare(tmp_path, jobs)}
    assert {number: float(row["anchor_s"]) for number, row in rows.items()} == {
        "1": 3600,
        "2": 3600,
        "3": 100,
        "4": 250,
    }
    assert (rows["2"]["running_of_user"], rows["3"]["running_of_user"], rows["4"]["class_jobs"]) == ("1", "1", "0")


def test_the_example_of_the_documentation_is_a_template() -> None:
    """What the page on writing workflows shows can be published and rendered."""
    page = (ROOT / "docs" / "users" / "workflow-templates.md").read_text(encoding="utf-8")
    source = page.split("```yaml\n")[1].split("```")[0]
    plans = render(read_template(source), {"texts": ["alice/a.txt", "alice/b.txt"]}, {})
    assert [(plan.name, plan.argv[1:3]) for plan in plans] == [
        ("count", ("../in/count.py", "../in/item")),
        ("count", ("../in/count.py", "../in/item")),
        ("add", ("../in/add.sh", "../in/count")),
    ]
