"""A site in a temporary folder: what the wrapper would have made, and the job script run as a scheduler would."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from heroes.api.ids import new_ulid
from heroes_ear.compile import compile_all
from heroes_spawners.runtime.bundle import bundle
from heroes_spawners.runtime.job import give, render
from heroes_spawners.site import Image, Job, Mount, Shape

#: Who a job becomes where the tests run as root.
NOBODY = 65534 if os.geteuid() == 0 else 0


@dataclass(frozen=True)
class Ended:
    """How a job script ended, and what it left."""

    status: int
    said: str
    out: str
    record: list[str]


@dataclass
class Place:
    """A base directory with a pushed bundle."""

    base: Path
    facts: dict[str, Any] = field(default_factory=dict)

    def job(self, *argv: str, **more: Any) -> Job:
        return replace(Job(new_ulid(), "cpu", Shape(walltime_s=60), argv), **more)

    def write(self, job: Job) -> None:
        """Write the job's folder and claim a submission of it."""
        (self.base / "claims" / job.key).mkdir(parents=True)
        folder = self.base / "jobs" / job.key
        folder.mkdir(parents=True)
        for name, content in render(job, str(self.base), self.facts).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        if NOBODY:
            give(folder, NOBODY, NOBODY)

    def start(self, job: Job, job_id: str = "17", **environment: str) -> subprocess.Popen[str]:
        script = Path(self.facts["runtime"]) / "job.sh"
        variables = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": job_id, **environment}
        argv = ["/bin/sh", str(script), str(self.base), job.key]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, env=variables, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace"
        )

    def end(self, job: Job, process: subprocess.Popen[str]) -> Ended:
        out, said = process.communicate(timeout=60)
        record = self.base / "records" / job.key
        return Ended(process.returncode, said, out, record.read_text().splitlines() if record.exists() else [])

    def run(self, job: Job, job_id: str = "17", **environment: str) -> Ended:
        self.write(job)
        return self.end(job, self.start(job, job_id, **environment))

    def owner(self, job: Job) -> str:
        return (self.base / "run" / job.key / "owner").read_text().split()[0]


def push(base: Path) -> str:
    """Write the bundle below `base`; its folder."""
    made = bundle()
    folder = base / "runtime" / made.digest
    folder.mkdir(parents=True)
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.fixture
def base() -> Iterator[Path]:
    """A base directory that every user may pass through, as jobs of another user must."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-runtime-"))
    folder.chmod(0o755)
    for name in ("run", "records", "jobs", "claims"):
        (folder / name).mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bare(base: Path) -> Place:
    """A site whose account is one person's and which isolates nothing; no program is pushed."""
    return Place(base, {"runtime": push(base), "isolation": "none", "one_person": True, "home": "/root"})


@pytest.fixture(params=["heroes-isolate", "unshare"])
def locked(request: pytest.FixtureRequest, base: Path) -> Place:
    """A site that isolates, by each of the two means. As root the job becomes another user."""
    assert compile_all() == []
    programs = ["earl-run", "heroes-isolate"] if request.param == "heroes-isolate" else ["earl-run"]
    facts = {"runtime": push(base), "isolation": request.param, "programs": programs, "home": str(Path.home())}
    return Place(base, {**facts, "user": f"{NOBODY}:{NOBODY}" if NOBODY else ""})


__all__ = ["Image", "Mount", "Place", "Shape"]
