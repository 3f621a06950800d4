"""`heroes demo`: the story is told to its end, on the machine itself and on the lab's two SLURM clusters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from heroes_hub.demo import build_environment
from heroes_hub.story import Story
from tests.lab import Lab
from tests.lab.fixtures import lab
from tests.system.platforms import wait

__all__ = ["lab"]
ROOT = Path(__file__).parent.parent.parent


def demo(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `heroes demo …` from the source tree."""
    program = str(Path(sys.executable).with_name("heroes"))
    return subprocess.run(
        [program, "demo", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def left_behind() -> list[str]:
    """Folders of demos, and processes that work for one."""
    folders = [str(path) for path in Path("/var/tmp").glob("heroes-demo-*")]
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return folders + [line for line in lines if "/var/tmp/heroes-demo-" in line]


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    """The jobs' environment is built before the clock runs."""
    build_environment(Story(sys.stdout))


@pytest.mark.timeout(900)
def test_the_story_is_told_on_this_machine() -> None:
    """At least two real alternatives, a run that ends well, results, cost, energy with its method, predicted against
    actual, how to go on; the last line says ok, and nothing is left."""
    before = set(left_behind())
    done = demo("--once")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "demo: ok"
    for told in ("local/small", "local/large", "budget", "predicted-against-actual.png", "predicted", "model:cpu-time"):
        assert told in done.stdout, told
    assert set(left_behind()) <= before


@pytest.mark.timeout(900)
def test_it_stays_up_until_it_is_stopped(tmp_path: Path) -> None:
    """Without `--once` the platform answers after the story, and a signal ends it all, with exit status 0."""
    program = str(Path(sys.executable).with_name("heroes"))
    argv = [program, "demo", "--home", str(tmp_path / "home")]
    log = tmp_path / "said"
    with log.open("w") as out:
        process = subprocess.Popen(argv, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
    wait(lambda: True if "stays up until" in log.read_text() or process.poll() is not None else None, 600)
    address = log.read_text().partition("address      ")[2].split()[0]
    assert httpx.get(f"{address}/health", trust_env=False, timeout=30).status_code == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()[-3000:]
    assert log.read_text().splitlines()[-1] == "demo: ok"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health", trust_env=False, timeout=30)


@pytest.mark.timeout(900)
def test_the_story_is_told_on_two_slurm_clusters(lab: Lab) -> None:
    """The same on an HPC centre and a cloud, enrolled over SSH by the organisation's administrator."""
    assert {cluster.name for cluster in lab.clusters} == {"alpha", "cumulus"}
    done = demo("--once", "--lab")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "demo: ok"
    for told in ("alpha/cpu", "cumulus/cpu", "isolation by heroes-isolate", "predicted-against-actual.png"):
        assert told in done.stdout, told


@pytest.mark.timeout(300)
def test_a_step_that_fails_is_told(tmp_path: Path) -> None:
    """When the platform cannot start, the exit status is not 0, and the step, the reason and a way out are printed."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "heroes.toml").write_text("[api]\nport = 0\n")
    done = demo("--once", "--home", str(tmp_path / "home"))
    assert done.returncode == 1
    assert "FAILED at step" in done.stdout
    assert "api.port" in done.stdout
    assert done.stdout.splitlines()[-1] == "demo: failed"
