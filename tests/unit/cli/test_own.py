"""Commands that do more than one operation: deciding, submitting, watching, logs, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from heroes.api import applications, decision
from heroes.api import jobs as jobs_api
from heroes.api import workflows as api_types
from heroes.api.errors import NoPlacement
from heroes.cli import own
from tests.unit.cli.conftest import Heroes
from tests.unit.client import samples
from tests.unit.client.fake_api import FakeApi
from tests.unit.client.samples import INSTANCE_PATH, NOW, RUN

DECIDE = "/organization/decision/decide"


def asked_of(api: FakeApi, path: str) -> Any:
    """The body of the last request for a path."""
    return [asked for asked in api.asked if asked.path == path][-1].json


def test_deciding(heroes: Heroes, api: FakeApi) -> None:
    """Parameters, policy, deadline and limits are asked as typed; the places are shown."""
    words = ("-p", "cells=80", "-P", "greenest", "--deadline", "2 h", "--max-cost", "5", "--place", "alpha/cpu")
    done = heroes("workflow", "decide", "cavity", *words, "-i", "mesh=ada/m")
    assert done.status == 0
    assert "alpha/cpu" in done.out
    assert "budget user ada" in done.out
    asked = asked_of(api, DECIDE)
    assert (asked["parameters"], asked["inputs"], asked["places"]) == ({"cells": 80}, {"mesh": "ada/m"}, ["alpha/cpu"])
    assert (asked["policy"], asked["deadline_s"]) == ("greenest", 7200)


def test_deciding_for_programs(heroes: Heroes, api: FakeApi) -> None:
    """As JSON the decision itself is printed; a bare number is seconds."""
    done = heroes("workflow", "decide", "cavity", "--deadline", "90", "-o", "json")
    assert decision.Decision.model_validate_json(done.out) == samples.decided()
    assert asked_of(api, DECIDE)["deadline_s"] == 90


def test_no_placement(heroes: Heroes, api: FakeApi) -> None:
    """Where nothing can run, the reason and the change that would admit it are told."""
    api.on("POST", DECIDE, NoPlacement("No queue admits it: memory.", hint="Ask for 64 GiB at most."))
    done = heroes("workflow", "decide", "cavity")
    assert (done.status, done.err) == (1, "error: No queue admits it: memory.\nhint: Ask for 64 GiB at most.\n")


def test_submitting_to_the_best(heroes: Heroes, api: FakeApi) -> None:
    """Without more words the best place is taken."""
    done = heroes("workflow", "submit", "cavity", "-p", "cells=20", "-l", "case=a", "-o", "json")
    assert json.loads(done.out)["id"] == RUN
    asked = asked_of(api, "/organization/workflow/submit")
    assert (asked["decision"], asked["cluster"], asked["labels"]) == ("d1", "alpha", {"case": "a"})


def test_text_stays_as_it_was_typed(heroes: Heroes, api: FakeApi) -> None:
    """What is text, and only reads as a number, a truth or a list, arrives as typed; numbers arrive as numbers."""
    words = ("-p", "scheme=true", "-p", "cells=8", "-i", "mesh=1", "-l", "case=1.0", "-l", "good=true", "-l", "x=[1]")
    assert heroes("workflow", "submit", "cavity", *words).status == 0
    asked = asked_of(api, DECIDE)
    assert (asked["parameters"], asked["inputs"]) == ({"scheme": "true", "cells": 8}, {"mesh": "1"})
    assert asked_of(api, "/organization/workflow/submit")["labels"] == {"case": "1.0", "good": "true", "x": "[1]"}


def test_submitting_to_a_place(heroes: Heroes, api: FakeApi) -> None:
    """A place may be named."""
    assert heroes("workflow", "submit", "cavity", "--place", "cumulus/spot").status == 0
    assert asked_of(api, "/organization/workflow/submit")["cluster"] == "cumulus"
    assert "There are: alpha/cpu" in heroes("workflow", "submit", "cavity", "--place", "mars/x").err


def test_submitting_what_was_decided(heroes: Heroes, api: FakeApi) -> None:
    """A decision made before is submitted by its id."""
    assert heroes("workflow", "submit", "--decision", "d7", "--place", "alpha/long").status == 0
    asked = asked_of(api, "/organization/workflow/submit")
    assert (asked["decision"], asked["cluster"], asked["queue"]) == ("d7", "alpha", "long")
    assert not any(each.path == DECIDE for each in api.asked)


def test_another_version(heroes: Heroes, api: FakeApi) -> None:
    """A version may be named."""
    heroes("workflow", "decide", "cavity", "--version", "2")
    assert any(each.query == {"version": ["2"]} for each in api.asked)


@pytest.mark.parametrize("words", [(), ("cavity", "--decision", "d1")])
def test_submitting_needs_one_of_both(heroes: Heroes, words: tuple[str, ...]) -> None:
    """Neither a workflow nor a decision, or both, is wrong usage."""
    assert heroes("workflow", "submit", *words).status == 2


def test_a_place_without_a_queue(heroes: Heroes) -> None:
    """A place has a cluster and a queue."""
    done = heroes("workflow", "submit", "--decision", "d1", "--place", "alpha")
    assert done.status == 1
    assert "cluster/queue" in done.err


def ending(api: FakeApi, state: str) -> None:
    """Let the run end in a state."""
    event = api_types.Event(number=1, at=NOW, kind="job", step="solve", index=3, phase="done", text="exit 0")
    api.on("GET", INSTANCE_PATH, samples.detail(state))
    events = api_types.Events(items=(event,), next=1, state=state, ended=True)
    api.on("GET", f"{INSTANCE_PATH}/events", events)


@pytest.mark.parametrize(("state", "status"), [("done", 0), ("failed", 1), ("cancelled", 1)])
def test_watching(heroes: Heroes, api: FakeApi, state: str, status: int) -> None:
    """Watching tells what happens, then how it stands; the status says whether it went well."""
    ending(api, state)
    done = heroes("run", "watch", RUN)
    assert done.status == status
    assert "solve[3] done exit 0" in done.err
    assert state in done.out


def test_submitting_and_following(heroes: Heroes, api: FakeApi) -> None:
    """--follow waits for the end."""
    ending(api, "failed")
    assert heroes("workflow", "submit", "cavity", "--follow").status == 1


def log(api: FakeApi, *texts: str) -> None:
    """Answer with parts of a log."""
    parts = [jobs_api.LogPart(key="k", text=text, next_offset=5, ended=not text) for text in texts]
    api.on("GET", f"{INSTANCE_PATH}/log", lambda _asked: parts.pop(0))


def test_logs(heroes: Heroes, api: FakeApi) -> None:
    """The log of a step is printed as it is."""
    api.on("GET", INSTANCE_PATH, samples.detail())
    log(api, "a line\n", "")
    done = heroes("run", "logs", RUN, "solve", "--error", "--index", "2", "--follow")
    assert done.out == "a line\n"
    query = next(each.query for each in api.asked if each.path.endswith("/log"))
    assert (query["stream"], query["index"], query["step"]) == (["stderr"], ["2"], ["solve"])


def test_logs_of_the_only_step(heroes: Heroes, api: FakeApi) -> None:
    """The step need not be named where there is one only."""
    api.on("GET", INSTANCE_PATH, samples.detail(steps=("only",)))
    log(api, "")
    assert heroes("run", "logs", RUN).status == 0
    api.on("GET", INSTANCE_PATH, samples.detail())
    done = heroes("run", "logs", RUN)
    assert done.status == 2
    assert "mesh, solve" in done.err


def test_the_report(heroes: Heroes, api: FakeApi) -> None:
    """Predicted against actual, as a table or as JSON."""
    api.on("GET", INSTANCE_PATH, samples.detail("done"))
    api.on("GET", f"{INSTANCE_PATH}/report", samples.report())
    assert "returned 1.50 EUR" in heroes("run", "report", RUN).out
    assert json.loads(heroes("run", "report", RUN, "-o", "json").out)["comparisons"][0]["inside"]


def test_files_up_and_down(heroes: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """A file goes up and comes down, and where it is then is printed."""
    (tmp_path / "in.csv").write_text("1,2")
    api.on("POST", "/organization/data/upload", samples.thing("in.csv"))
    api.on("GET", "/organization/data/download", b"1,2")
    assert heroes("data", "upload", str(tmp_path / "in.csv"), "shared/").out == "shared/in.csv\n"
    target = tmp_path / "out.csv"
    assert heroes("data", "download", "shared/in.csv", str(target)).out == f"{target}\n"
    assert target.read_text() == "1,2"


def test_fetching_results(heroes: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """All results of a run come below a folder."""
    api.on("GET", INSTANCE_PATH, samples.detail("done"))
    api.on("GET", f"{INSTANCE_PATH}/results", samples.results())
    items = [samples.thing(each.key).model_dump(mode="json") for each in samples.results().items]
    api.on("GET", "/organization/data/bucket/ada/list", {"items": items})
    api.on("GET", "/organization/data/download", b"x")
    assert "3 files" in heroes("run", "fetch", RUN, str(tmp_path / "r")).err
    assert (tmp_path / "r" / "solve" / "plot.png").exists()


def test_publishing_a_workflow(heroes: Heroes, api: FakeApi, tmp_path: Path) -> None:
    """A workflow is published from a file."""
    (tmp_path / "w.yaml").write_text("name: cavity")
    api.on("POST", "/organization/admin/workflow/template", samples.template_text())
    assert "cavity" in heroes("workflow", "publish", str(tmp_path / "w.yaml")).out
    assert asked_of(api, "/organization/admin/workflow/template")["document"] == "name: cavity"


def test_showing_a_workflow(heroes: Heroes) -> None:
    """A workflow's parameters are shown with their limits."""
    assert "integer 10 to 400" in heroes("workflow", "show", "cavity").out
    assert json.loads(heroes("workflow", "show", "cavity", "-o", "json").out)["latest"] == 3


def test_the_schema(heroes: Heroes, api: FakeApi) -> None:
    """The schema of workflow files is printed as it is."""
    api.on("GET", "/organization/workflow/template_schema", {"json_schema": {"type": "object"}})
    assert json.loads(heroes("workflow", "schema").out) == {"type": "object"}


@pytest.mark.parametrize(("typed", "sent"), [("5", "5"), ("a,b", "a,b"), ("[1,2]", [1, 2])])
def test_a_list_needs_no_brackets(typed: str, sent: object) -> None:
    """Words of a list stay text, which the platform splits, so that one item is a list, too."""
    told = {"name": "t", "title": "T", "parameters": {"names": {"type": "list", "items": "string"}}}
    template = applications.Template.model_validate(told | {"steps": [{"name": "s", "argv": ["s"]}]})
    assert own._typed(template, "names", typed) == sent
