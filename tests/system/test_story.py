"""The main job as a user lives it, in Python and on the command line, on a platform started by its own supervisor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import heroes
from heroes.api import workflows as api
from heroes.runs import ENDED, Run
from tests.system.rig import System, running_system, said, wait_until

#: Two steps: the first tells of itself until it is let go on, the second reads what the first left and an input.
STORY = """
name: story
title: Say and repeat
parameters:
  word: {type: string, default: hello}
inputs:
  source: {help: a text}
steps:
  - name: say
    argv: [/bin/sh, -c, 'echo "$1 one"; sleep 2; echo "$1 two"; echo "$1" > said.txt', say, "{{word}}"]
    outputs: [{glob: said.txt, required: true}]
    resources: {walltime_s: 300}
  - name: repeat
    needs: [say]
    argv: [/bin/sh, -c, 'cat "$1/said.txt" "$2" > repeated.txt', repeat, "{{needs.say}}", "{{input.source}}"]
    outputs: [{glob: repeated.txt, required: true}]
    resources: {walltime_s: 300}
"""


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A platform with the workflow, and emma's input."""
    with running_system() as made:
        made.publish(STORY)
        (made.folder / "source.txt").write_text("from a file\n")
        yield made


def test_the_snippet(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """connect, decide, submit, follow a log, wait, results, cost, energy, carbon, report, again, cancel."""
    monkeypatch.setenv("HEROES_API_URL", system.address)
    monkeypatch.setenv("HEROES_TOKEN", system.token("acme", "emma"))
    with heroes.connect() as hs:
        source = hs.data.upload(system.folder / "source.txt", "emma/in/source.txt")
        options = hs.workflows["story"].decide(word="hi", source=source, policy="greenest", deadline="2 h")
        assert {each.told.place for each in options} == {"local/small", "local/large"}
        assert "local/small" in str(options)
        assert "budget credit of acme" in str(options)
        run = options["local/small"].submit()
        assert system.pending() >= run.seen.reserved
        run.log("say", follow=True)
        assert capsys.readouterr().out == "hi one\nhi two\n"
        assert run.wait() is run
        assert run.state == "done", said(run)
        check_results(system, run)
        again = run.again(policy="cheapest")
        assert again.id != run.id
        again.cancel()
        assert system.ended(again).state == "cancelled"
        assert [each.id for each in hs.runs][:2] == [again.id, run.id]


def check_results(system: System, run: Run) -> None:
    """What it left, cost and took, and how good the prediction was."""
    assert run.results.read("repeated.txt") == b"hi\nfrom a file\n"
    folder = run.results.download(system.folder / "fetched")
    assert (folder / "repeat" / "repeated.txt").read_text() == "hi\nfrom a file\n"
    with system.emma.data.fs.open(f"emma/runs/{run.id}/say/said.txt") as file:
        assert file.read() == b"hi\n"
    assert run.cost.micros >= 100, "two seconds of a core at 0.20 EUR an hour"
    assert run.cost <= run.seen.reserved
    assert run.energy is not None
    assert run.energy.method
    assert run.carbon is not None
    report = run.report()
    assert report.told.returned == run.seen.reserved - run.cost
    assert {each.step for each in report.comparisons} == {"say", "repeat"}
    assert all(each.low <= each.predicted for each in report.comparisons)


def test_the_same_on_the_command_line(system: System) -> None:
    """Every verb of the story with `--output json`, each answer that of the contract."""
    assert {each["name"] for each in system.answer("workflow", "list")["items"]} >= {"story", "job-runtime-model"}
    assert system.answer("workflow", "show", "story")["template"]["title"] == "Say and repeat"
    where = system.command("data", "upload", str(system.folder / "source.txt"), "emma/cli/source.txt").stdout.strip()
    asked = ("story", "-p", "word=hi", "-i", f"source={where}", "--deadline", "2 h", "--policy", "cheapest")
    decided = system.answer("workflow", "decide", *asked)
    assert [each["rank"] for each in sorted(decided["alternatives"], key=lambda each: each["rank"])] == [1, 2]
    place = next(f"{each['cluster']}/{each['queue']}" for each in decided["alternatives"] if each["rank"] == 1)
    made = system.answer("workflow", "submit", "--decision", decided["id"], "--place", place, "-l", "from=cli")
    followed = system.command("run", "logs", made["id"], "say", "--follow")
    assert (followed.returncode, followed.stdout) == (0, "hi one\nhi two\n"), followed.stderr
    watched = system.command("run", "watch", made["id"], "--output", "json")
    assert watched.returncode == 0, watched.stderr
    assert "repeat" in watched.stderr
    told = api.Instance.model_validate_json(watched.stdout)
    assert (told.state, told.labels) == ("done", {"from": "cli"})
    assert system.answer("run", "show", told.id)["instance"]["cost"]["micros"] == told.cost.micros
    assert [each["id"] for each in system.answer("run", "list", "--label", "from=cli")["items"]] == [told.id]
    assert {each["state"] for each in system.answer("run", "jobs", told.id)["items"]} == {"done"}
    assert system.answer("run", "report", told.id)["comparisons"]
    keys = [each["key"] for each in system.answer("run", "results", told.id)["items"]]
    assert f"runs/{told.id}/repeat/repeated.txt" in keys
    target = system.folder / "one.txt"
    done = system.command("data", "download", f"emma/runs/{told.id}/repeat/repeated.txt", str(target))
    assert (done.returncode, target.read_text()) == (0, "hi\nfrom a file\n")


def test_cancel_again_money_and_clusters_on_the_command_line(system: System) -> None:
    """again, cancel; budget list, account and statement; cluster list and show; a failed run gives exit status 1."""
    made = system.answer("workflow", "submit", "script", "-p", "script=echo begun; sleep 300")
    again = system.answer("run", "again", made["id"])
    for each in (made, again):
        assert system.answer("run", "cancel", each["id"])["id"] == each["id"]
        assert system.ended(system.emma.runs[each["id"]]).state == "cancelled"
    failed = system.command("workflow", "submit", "script", "-p", "script=exit 3", "--follow", "--output", "json")
    assert failed.returncode == 1
    assert "exit code 3" in json.loads(failed.stdout)["reason"]
    (limit,) = system.answer("budget", "list")["items"]
    assert (limit["scope"], limit["subject"], limit["pending"]["micros"]) == ("user", "emma", 0)
    account = system.answer("budget", "account")
    assert account["posted"]["micros"] == limit["posted"]["micros"] == system.posted().micros
    statement = system.answer("budget", "statement", "--by", "cluster")
    assert statement["total"]["charged"]["micros"] == account["posted"]["micros"]
    assert [each["name"] for each in system.answer("cluster", "list")["items"]] == ["local"]
    assert {each["name"] for each in system.answer("cluster", "show", "local")["queues"]} == {"small", "large"}


def test_a_log_is_followed_while_the_step_runs(system: System) -> None:
    """The first line is there before the second is written: the job goes on only when it was seen."""
    gate = 'echo first; while [ ! -e "../in/gate" ] && [ ! -e gate ]; do sleep 0.1; done'
    run = system.script(f"{gate}; echo second")
    parts = run.log_parts("work", follow=True)
    assert next(parts) == "first\n"
    assert run.state not in ENDED
    (job,) = run.jobs
    run.cancel()
    assert "second" not in "".join(parts)
    assert system.ended(run).state == "cancelled"
    assert job.attempt


def test_logs_carry_the_ids(system: System) -> None:
    """In the structured logs run, job, step, user and organisation of a run stand as labels, and its request too."""
    run = system.script("true")
    system.ended(run)
    (job,) = run.jobs

    def engine_lines() -> list[dict[str, str]]:
        lines = [line.get("labels", {}) for line in system.log_lines("engine")]
        return [each for each in lines if each.get("workflow") == run.id and each.get("job") == job.attempt]

    labels = wait_until("the engine logs it", engine_lines)[-1]
    assert (labels["step"], labels["user"], labels["organisation"]) == ("work", "emma", "acme")
    asked = [line.get("labels", {}) for line in system.log_lines("api")]
    assert any(each.get("user") == "emma" and each.get("request") for each in asked)
    for line in system.log_lines("engine") + system.log_lines("api"):
        assert line["ecs.version"]
        assert system.token("acme", "emma") not in json.dumps(line)


def test_completion_and_contract_need_no_platform(system: System) -> None:
    """The script for completion is valid shell; the contract is printed as OpenAPI."""
    script = system.command("completion", "bash", token="").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert json.loads(system.command("openapi", token="").stdout)["openapi"].startswith("3.1")
    assert Path(sys.executable).with_name("heroes").exists()
