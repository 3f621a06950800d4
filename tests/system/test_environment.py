"""The pushed environment, for real: built from the package index, at a SLURM cluster and on the machine itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heroes_ear.compile import compile_all
from heroes_spawners.slurm import SlurmSettings, SlurmSite
from tests.contract.rigs import ssh_transport
from tests.lab import LabCluster
from tests.lab.fixtures import lab
from tests.system.test_escapes import EPOCH, Target
from tests.unit.machine.conftest import Rig

__all__ = ["lab"]
PROGRAM = """
import sys
import lightgbm, matplotlib, pandas
matplotlib.use("Agg")
import matplotlib.pyplot as plt
frame = pandas.DataFrame({"x": range(200), "y": [value * 2.0 for value in range(200)]})
model = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame[["x"]], frame["y"]), num_boost_round=5)
plt.plot(frame["x"], model.predict(frame[["x"]]))
plt.savefig("plot.png")
print("prefix", sys.prefix)
"""


def _machine() -> Iterator[Target]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="heroes-environment-"))
    rig = Rig(folder)
    yield Target(rig.site, folder, Path.home(), "large")
    rig.close()
    shutil.rmtree(folder)


def _alpha(cluster: LabCluster) -> Iterator[Target]:
    base = cluster.home / "environments"
    facts = {"isolation": "heroes-isolate", "programs": ["heroes-isolate"], "home": str(cluster.home)}
    python = {"python": "/usr/bin/python3", "python_version": "3.11", "glibc": "2.36", "arch": "x86_64"}
    site = SlurmSite(ssh_transport(cluster), SlurmSettings(str(base), facts={**facts, **python}))
    site.prepare(EPOCH)
    yield Target(site, base, cluster.home, "cpu")
    site.close()


@pytest.fixture(scope="module", params=["machine", "alpha"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Where the environment is pushed to."""
    assert compile_all() == []
    if request.param == "machine":
        yield from _machine()
    else:
        yield from _alpha(request.getfixturevalue("lab").cluster("alpha"))


@pytest.mark.timeout(600)
def test_a_job_uses_the_pushed_environment(target: Target) -> None:
    """The first job that names it has it pushed; pandas, LightGBM and matplotlib work inside the isolation."""
    key = target.submit(("python", "-c", PROGRAM), environments=("python",), memory_mib=1500)
    record = target.record(key)
    assert record.exit_code == 0, target.site.tail(key, "stderr", 0, 10000).data.decode()
    prefix = target.said(key).split()[1]
    assert prefix.startswith(f"{target.base}/runtime/")
    listing = target.site.list_files([f"jobs/{key}/out"])[f"jobs/{key}/out"]
    assert [file.path for file in listing.files] == ["plot.png"]


@pytest.mark.timeout(600)
def test_the_second_job_finds_it_there(target: Target) -> None:
    """Nothing is pushed again: the environment's folder is the same one; and no job can change it."""
    first = target.submit(("python", "-c", "import sys; print(sys.prefix)"), environments=("python",))
    target.record(first)
    place = Path(target.said(first).strip())
    before = place.stat().st_ino
    write = "import pathlib, sys; pathlib.Path(sys.prefix, 'evil.py').write_text('x')"
    second = target.submit(("python", "-c", write), environments=("python",))
    assert target.record(second).exit_code == 1
    assert place.stat().st_ino == before
    assert not (place / "evil.py").exists()


def test_a_job_without_it_has_the_systems_python(target: Target) -> None:
    """An environment is on PATH only for the jobs that name it."""
    key = target.submit(("sh", "-c", "command -v python3"))
    target.record(key)
    assert "runtime" not in target.said(key)
