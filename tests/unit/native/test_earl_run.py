"""earl-run measures a whole process tree, and changes nothing about the job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heroes_ear.report import EnergyReport, read_report
from tests.unit.native.conftest import forbidding

WATTS = ("--idle-watts=100", "--busy-watts=300")
BURN = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass\n"


def run(earl_run: str, folder: Path, *words: str, options: tuple[str, ...] = WATTS) -> EnergyReport:
    """Run a program under earl-run; its report."""
    report = folder / "energy.json"
    subprocess.run([earl_run, f"--report={report}", *options, "--", *words], check=True, timeout=60)
    return read_report(report.read_text())


def burn(seconds: float) -> list[str]:
    """A program that takes so much CPU time and little more."""
    return [sys.executable, "-S", "-c", BURN.format(seconds)]


def test_cpu_time_of_one_process(earl_run: str, tmp_path: Path) -> None:
    """The CPU time of a process is reported, start of the interpreter included."""
    found = run(earl_run, tmp_path, *burn(0.4))
    assert 0.4 <= found.cpu_s <= 1.2
    assert found.elapsed_s >= 0.4
    assert found.complete


@pytest.fixture
def burner(tmp_path: Path) -> str:
    """Words of a shell that run a program taking 0.1 s of CPU time."""
    (tmp_path / "burn.py").write_text(BURN.format(0.1))
    return f"{sys.executable} -S {tmp_path}/burn.py"


def gone(folder: Path) -> str:
    """Words of a shell that wait until the process whose number stands in `pid` has ended and was waited for."""
    return f"while [ -e /proc/$(cat {folder}/pid) ]; do sleep 0.02; done"


def test_cpu_time_of_short_children(earl_run: str, tmp_path: Path, burner: str) -> None:
    """Children that live for moments are all counted."""
    assert 0.5 <= run(earl_run, tmp_path, "sh", "-c", f"for i in 1 2 3 4 5; do {burner}; done").cpu_s <= 2.0


def test_cpu_time_of_a_detached_child(earl_run: str, tmp_path: Path, burner: str) -> None:
    """A child in a session of its own, whose parent has gone, is counted."""
    script = f"setsid sh -c '({burner}; {burner}) & echo $! >{tmp_path}/pid'; {gone(tmp_path)}"
    assert run(earl_run, tmp_path, "sh", "-c", script).cpu_s >= 0.2


def test_without_perf_events(earl_run: str, tmp_path: Path, burner: str) -> None:
    """Where the kernel refuses perf events, the CPU time of children and orphans is counted all the same."""
    report = tmp_path / "energy.json"
    script = f"(({burner}; true) & echo $! >{tmp_path}/pid); {burner}; {gone(tmp_path)}"
    words = [*forbidding(298, 241), earl_run, f"--report={report}", *WATTS, "--", "sh", "-c", script]
    subprocess.run(words, check=True, timeout=60)
    found = read_report(report.read_text())
    assert (found.events, found.cpu_source) == ((), "rusage")
    assert found.cpu_s >= 0.2


def test_both_sums_agree(earl_run: str, tmp_path: Path, burner: str) -> None:
    """The kernel's sum and that of the perf event are within a quarter of each other, and the larger is reported."""
    run(earl_run, tmp_path, "sh", "-c", f"for i in 1 2 3; do {burner}; done")
    told = json.loads((tmp_path / "energy.json").read_text())
    if told["perf_cpu_s"] is None:
        pytest.skip("no perf events here")
    assert told["perf_cpu_s"] == pytest.approx(told["cpu_s"], rel=0.25)
    assert told["cpu_s"] >= told["perf_cpu_s"]


def test_cpu_time_of_a_killed_program(earl_run: str, tmp_path: Path) -> None:
    """A program that kills itself after its work is counted all the same."""
    report = tmp_path / "energy.json"
    code = BURN.format(0.3) + "import os\nos.kill(os.getpid(), 9)"
    done = subprocess.run([earl_run, f"--report={report}", *WATTS, "--", sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert read_report(report.read_text()).cpu_s >= 0.3


def test_energy_follows_the_formula(earl_run: str, tmp_path: Path) -> None:
    """Energy is the idle share by allocated CPUs, what busy CPUs add by CPU time, and the GPUs."""
    options = (*WATTS, "--node-cpus=4", "--cpus=2", "--gpus=1", "--gpu-watts=10")
    found = run(earl_run, tmp_path, *burn(0.2), options=options)
    expected = 100 * found.elapsed_s * 2 / 4 + 200 * found.cpu_s / 4 + 10 * found.elapsed_s
    assert found.energy_j == pytest.approx(expected, rel=1e-3)
    assert found.method == "model:cpu-time"
    assert found.uncertainty == pytest.approx((0.17**2 + 0.2**2) ** 0.5, rel=1e-3)


def test_half_of_a_node_costs_half_of_it(earl_run: str, tmp_path: Path) -> None:
    """One of two CPUs, kept busy, is billed half a node and never a whole one."""
    found = run(
        earl_run, tmp_path, *burn(0.5), options=("--idle-watts=200", "--busy-watts=200", "--node-cpus=2", "--cpus=1")
    )
    assert found.energy_j == pytest.approx(100 * found.elapsed_s, rel=1e-3)


def test_without_watts_times_only(earl_run: str, tmp_path: Path) -> None:
    """Where nobody knows the watts there is no energy, rather than none used."""
    found = run(earl_run, tmp_path, "true", options=())
    assert found.energy_j is None
    assert found.method == "none"


def test_time_before_is_not_counted(earl_run: str, tmp_path: Path, burner: str) -> None:
    """CPU time of children that a shell had before it became earl-run is not the job's."""
    report = tmp_path / "energy.json"
    before = "; ".join([burner] * 5)
    subprocess.run(["sh", "-c", f"{before}; exec {earl_run} --report={report} -- true"], check=True, timeout=60)
    assert read_report(report.read_text()).cpu_s < 0.3


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_exit_status_is_the_programs(earl_run: str, status: int) -> None:
    """The exit status comes through."""
    assert subprocess.run([earl_run, "--", "sh", "-c", f"exit {status}"]).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT, signal.SIGUSR1])
def test_death_by_signal_is_the_programs(earl_run: str, number: int) -> None:
    """A program killed by a signal looks so to whoever waits for earl-run."""
    assert subprocess.run([earl_run, "--", "sh", "-c", f"kill -{int(number)} $$"]).returncode == -number


def test_missing_program(earl_run: str) -> None:
    """A program that does not exist ends as a shell's would, with 127 and a message."""
    done = subprocess.run([earl_run, "--", "no-such-program-here"], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (127, "")
    assert "no-such-program-here" in done.stderr


def test_program_that_may_not_be_executed(earl_run: str, tmp_path: Path) -> None:
    """A file without the right to execute it ends with 126."""
    plain = tmp_path / "plain"
    plain.write_text("data")
    assert subprocess.run([earl_run, "--", str(plain)], capture_output=True).returncode == 126


PREPARE = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.setpgid(0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
SHOW = """
import os, signal, sys
names = sorted(os.environ.items())
ignored = [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) == signal.SIG_IGN]
blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))
print(names, ignored, blocked, os.listdir("/proc/self/fd"), os.getpgrp(), os.getsid(0), sys.stdin.read())
"""


def test_environment_files_and_signals_are_untouched(earl_run: str) -> None:
    """Environment, open files, ignored and blocked signals, group and standard input are what they are without it."""

    def show(*before: str) -> str:
        words = [sys.executable, "-c", PREPARE, *before, sys.executable, "-c", SHOW]
        done = subprocess.run(words, input="some text", capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def without_group(text: str) -> list[str]:
        return [word for word in text.split() if not word.isdigit()]

    assert without_group(show(earl_run, "--report=/nowhere/at/all", "--")) == without_group(show())


def test_unknown_options_are_skipped(earl_run: str) -> None:
    """A job does not fail for an option that only a newer earl-run knows, nor for a number that is none."""
    words = [earl_run, "--from-the-future=1", "--idle-watts=much", "--node-cpus=-3", "sh", "-c", "exit 5"]
    assert subprocess.run(words).returncode == 5


def test_report_that_cannot_be_written(earl_run: str) -> None:
    """A report with nowhere to go is left out, silently."""
    done = subprocess.run([earl_run, "--report=/nowhere/at/all", "--", "echo", "hello"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_no_half_report(earl_run: str, tmp_path: Path) -> None:
    """Nothing but the finished report stays in the folder."""
    run(earl_run, tmp_path, "true")
    assert os.listdir(tmp_path) == ["energy.json"]


COUNTING = """
import signal, sys
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
print("ready", flush=True)
while not told: signal.pause()
sys.exit(10 + len(told))
"""


def test_a_signal_is_passed_on(earl_run: str) -> None:
    """A signal sent to earl-run reaches the program."""
    with subprocess.Popen([earl_run, "--", sys.executable, "-c", COUNTING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 11


def test_checkpoints(earl_run: str, tmp_path: Path) -> None:
    """While the program runs, a report marked incomplete stands; afterwards the complete one."""
    report = tmp_path / "energy.json"
    script = f"while [ ! -e {report} ]; do sleep 0.01; done; cat {report}"
    words = [earl_run, f"--report={report}", "--checkpoint=0.05", *WATTS, "--", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert not read_report(done.stdout).complete
    assert read_report(report.read_text()).complete


def test_no_program_is_misuse(earl_run: str) -> None:
    """Without a program there is nothing to run: usage, status 2."""
    done = subprocess.run([earl_run, "--report=x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "PROGRAM" in done.stderr


@pytest.mark.parametrize(("option", "expected"), [("--help", "--busy-watts"), ("--version", "earl-run 1.0")])
def test_it_tells_of_itself(earl_run: str, option: str, expected: str) -> None:
    """Help and version are printed."""
    done = subprocess.run([earl_run, option], capture_output=True, text=True, check=True)
    assert expected in done.stdout


def test_the_help_names_every_documented_option(earl_run: str) -> None:
    """The page beside the source and the program's own help name the same options."""
    page = (Path(__file__).parents[3] / "native" / "src" / "README.md").read_text()
    section = page.split("## earl-run")[1].split("## heroes-isolate")[0]
    documented = {word.split("=")[0] for word in section.split() if word.startswith("--") and len(word) > 3}
    printed = subprocess.run([earl_run, "--help"], capture_output=True, text=True, check=True).stdout
    assert {word.strip(",`") for word in documented} <= {word.split("=")[0].strip(",`") for word in printed.split()}
