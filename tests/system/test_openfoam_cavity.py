"""The steps of the shipped OpenFOAM workflow, run as jobs run them: in `out/`, with their files in `in/`."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from heroes_applications.catalogue import shipped_sources
from heroes_applications.documents import read_template
from heroes_applications.model import StepPlan, render

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}


def run(plan: StepPlan, folder: Path) -> Path:
    """Run one step in a folder of its own, where the results of steps it needs are inputs; its working folder."""
    job = folder / plan.name
    (job / "in").mkdir(parents=True)
    (job / "out").mkdir()
    for name, content in plan.files:
        (job / "in" / name).write_bytes(content)
    for need in plan.needs:
        shutil.copytree(folder / need / "out", job / "in" / need)
    done = subprocess.run(plan.argv, cwd=job / "out", env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return job / "out"


def lowest(path: Path) -> float:
    """The lowest velocity on the centre line."""
    with path.open(newline="") as lines:
        return min(float(row["U_0"]) for row in csv.DictReader(lines))


@pytest.mark.skipif(
    shutil.which("blockMesh", path=ENVIRONMENT["PATH"]) is None and os.geteuid() != 0,
    reason="needs Debian's package openfoam",
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_flow_is_meshed_solved_and_sampled(tmp_path: Path, ranks: int) -> None:
    """With one process or two, every declared output is there, and the flow below the lid turns back."""
    source = next(source for source in shipped_sources() if source.startswith("name: openfoam-cavity"))
    plans = render(read_template(source), {"cells": 16, "turnovers": 4, "ranks": ranks}, {})
    for plan in plans[:3]:
        out = run(plan, tmp_path)
        for output in plan.outputs:
            assert list(out.glob(output.glob)), f"{plan.name} left no {output.glob}"
    assert -0.3 < lowest(tmp_path / "sample" / "out" / "centreline.csv") < -0.1
    assert len((tmp_path / "sample" / "out" / "field.csv").read_text().splitlines()) == 16 * 16 + 1
