"""A run: waiting for it, its log, its results, what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heroes import Heroes, runs
from heroes.api import jobs as jobs_api
from heroes.api import workflows as api_types
from heroes.api.errors import Conflict, LinkDown, NotFound, Unavailable
from heroes.api.units import Grams, Joules, Money
from tests.unit.client import samples
from tests.unit.client.fake_api import Asked, FakeApi
from tests.unit.client.samples import INSTANCE_PATH, NOW, RUN


@pytest.fixture
def run(hs: Heroes, api: FakeApi) -> runs.Run:
    """A run under way."""
    api.on("GET", INSTANCE_PATH, samples.detail())
    return hs.runs[RUN]


def turns(*answers: Any) -> Any:
    """One answer after the other, the last for ever."""
    left = list(answers)
    return lambda _asked: left.pop(0) if len(left) > 1 else left[0]


def events(*numbers: int, ended: bool = False) -> api_types.Events:
    """Events of these numbers."""
    items = tuple(
        api_types.Event(number=number, at=NOW, kind="job", step="solve", text=f"e{number}") for number in numbers
    )
    last = numbers[-1] if numbers else 0
    return api_types.Events(items=items, next=last, state="done" if ended else "running", ended=ended)


def log(text: str, offset: int, ended: bool = False) -> jobs_api.LogPart:
    """Part of a log."""
    return jobs_api.LogPart(key="k", text=text, next_offset=offset, ended=ended)


def test_a_run_that_is_not_there(hs: Heroes) -> None:
    """A run that one may not see is NotFound at once."""
    with pytest.raises(NotFound):
        hs.runs[RUN]


def test_figures(run: runs.Run) -> None:
    """Cost, energy with its method, and carbon carry their units."""
    assert run.cost == Money.of("1")
    assert run.energy is not None
    assert run.energy.joules == Joules(36_000)
    assert run.energy.method == "model:cpu-time"
    assert run.carbon == Grams(4.2)
    assert run.state == "running"


def test_a_run_under_way_is_read_afresh(run: runs.Run, api: FakeApi) -> None:
    """What is read of a run under way is what stands now; an ended one is not asked for again."""
    api.on("GET", INSTANCE_PATH, samples.detail("failed", reason="solve: exit code 3"))
    assert (run.state, run.reason) == ("failed", "solve: exit code 3")
    before = len(api.asked)
    assert run.state == "failed"
    assert len(api.asked) == before


def test_waiting(run: runs.Run, api: FakeApi) -> None:
    """Waiting asks for the next event and stops when the run has ended."""
    api.on("GET", INSTANCE_PATH, turns(samples.detail(), samples.detail(), samples.detail("done")))
    api.on("GET", f"{INSTANCE_PATH}/events", turns(events(1, 2), events(3, ended=True)))
    assert run.wait() is run
    assert run.state == "done"
    asked = [each.query for each in api.asked if each.path.endswith("/events")]
    assert [each.get("after", ["0"]) for each in asked] == [["0"], ["2"]]
    assert float(asked[0]["wait"][0]) == runs.WAIT


def test_waiting_for_one_that_has_ended(run: runs.Run, api: FakeApi) -> None:
    """An ended run is not waited for."""
    api.on("GET", INSTANCE_PATH, samples.detail("cancelled"))
    assert run.wait().state == "cancelled"


def test_waiting_not_too_long(run: runs.Run, api: FakeApi) -> None:
    """After the time given, the run is told to go on."""
    api.on("GET", f"{INSTANCE_PATH}/events", events())
    with pytest.raises(Unavailable, match=r"is still running after 0.05 s"):
        run.wait(timeout=0.05)


def test_events(run: runs.Run, api: FakeApi) -> None:
    """Events come in order until the run has ended."""
    api.on("GET", f"{INSTANCE_PATH}/events", turns(events(1, 2), events(3), events(4, ended=True)))
    assert [event.number for event in run.events(follow=True)] == [1, 2, 3, 4]


def test_events_so_far(run: runs.Run, api: FakeApi) -> None:
    """Without following, what happened until now is told."""
    api.on("GET", f"{INSTANCE_PATH}/events", turns(events(1, 2), events()))
    assert [event.number for event in run.events()] == [1, 2]


def test_more_events_than_a_page(run: runs.Run, api: FakeApi) -> None:
    """An ended run with more events than one answer holds is told to its end."""
    api.on("GET", f"{INSTANCE_PATH}/events", turns(events(*range(1, 201), ended=True), events(201, ended=True)))
    assert [event.number for event in run.events(follow=True)][-1] == 201


def test_the_log(run: runs.Run, api: FakeApi) -> None:
    """The log is read to its present end, part by part."""
    api.on("GET", f"{INSTANCE_PATH}/log", turns(log("one ", 4), log("two", 7), log("", 7)))
    assert run.log("solve", index=2, stream="stderr") == "one two"
    asked = [each.query for each in api.asked if each.path.endswith("/log")]
    assert [each["offset"] for each in asked] == [["0"], ["4"], ["7"]]
    assert (asked[0]["index"], asked[0]["stream"], asked[0]["step"]) == (["2"], ["stderr"], ["solve"])


def test_following_the_log(
    run: runs.Run, api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Following prints what comes, also when the step begins later or its cluster is away for a while."""
    monkeypatch.setattr(runs, "LOOK", 0.0)
    parts = (NotFound("not yet"), log("one\n", 4), log("", 4), LinkDown("away", retry_after=60), log("two\n", 8))
    api.on("GET", f"{INSTANCE_PATH}/log", turns(*parts, log("", 8, ended=True)))
    assert run.log("solve", follow=True) is None
    assert capsys.readouterr().out == "one\ntwo\n"


def test_following_a_log_that_never_comes(run: runs.Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following ends with the run when the step never began."""
    monkeypatch.setattr(runs, "LOOK", 0.0)
    api.on("GET", INSTANCE_PATH, samples.detail("cancelled"))
    api.on("GET", f"{INSTANCE_PATH}/log", NotFound("not yet"))
    assert run.log("solve", follow=True) is None


def test_the_log_of_no_step(run: runs.Run, api: FakeApi) -> None:
    """A step that the run lacks is an error, not something to wait for."""
    api.on("GET", f"{INSTANCE_PATH}/log", NotFound("no step slove"))
    with pytest.raises(NotFound, match="slove"):
        run.log("slove", follow=True)


def test_cancelling(run: runs.Run, api: FakeApi) -> None:
    """Cancelling gives the run as it then is; one that has ended refuses."""
    api.on("DELETE", INSTANCE_PATH, samples.instance("cancelled"))
    assert run.cancel().state == "cancelled"
    api.on("DELETE", INSTANCE_PATH, Conflict("it has ended"))
    with pytest.raises(Conflict):
        run.cancel()


def test_again(run: runs.Run, api: FakeApi) -> None:
    """The same once more is a run of its own."""
    api.on("POST", f"{INSTANCE_PATH}/again", samples.instance("waiting", samples.OTHER))
    assert run.again(policy="cheapest").id == samples.OTHER
    assert api.asked[-1].json == {"policy": "cheapest"}


def test_results(run: runs.Run, api: FakeApi) -> None:
    """Results are listed, and read by a name that is clear."""
    api.on("GET", f"{INSTANCE_PATH}/results", samples.results())
    api.on("GET", "/organization/data/download", b"picture")
    results = run.results
    assert len(results) == 3
    assert results.read("plot.png") == b"picture"
    assert api.asked[-1].query == {"bucket": ["ada"], "key": [f"runs/{RUN}/solve/plot.png"]}
    assert results.path("solve/u.csv") == f"ada/runs/{RUN}/solve/u.csv"
    assert "plot.png" in repr(results)


@pytest.mark.parametrize(("name", "said"), [("u.csv", "2 of them"), ("nothing", "none"), ("png", "none")])
def test_a_result_that_is_not_clear(run: runs.Run, api: FakeApi, name: str, said: str) -> None:
    """A name that several results have, or none, is refused."""
    api.on("GET", f"{INSTANCE_PATH}/results", samples.results())
    with pytest.raises(NotFound, match=said):
        run.results.path(name)


def test_downloading_results(run: runs.Run, api: FakeApi, tmp_path: Path) -> None:
    """All results come below a folder, with their folders."""
    api.on("GET", f"{INSTANCE_PATH}/results", samples.results())
    keys = [result.key for result in samples.results().items]

    def objects(asked: Asked) -> dict[str, Any]:
        assert asked.query["prefix"] == [f"runs/{RUN}/"]
        return {"items": [samples.thing(key).model_dump(mode="json") for key in keys], "next": None}

    api.on("GET", "/organization/data/bucket/ada/list", objects)
    api.on("GET", "/organization/data/download", b"bytes")
    run.results.download(tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["mesh/u.csv", "solve/plot.png", "solve/u.csv"]


def test_the_report(run: runs.Run, api: FakeApi) -> None:
    """Predicted against actual, and what was returned of the reservation."""
    api.on("GET", f"{INSTANCE_PATH}/report", samples.report())
    report = run.report()
    assert report.comparisons[0].inside
    text = repr(report)
    for told in ("10 min", "8.51 min", "returned 1.50 EUR", "±25 %"):
        assert told in text


def test_jobs(run: runs.Run, api: FakeApi) -> None:
    """The jobs of a run are listed with their place and cost."""
    fields: dict[str, Any] = dict.fromkeys(api_types.Job.model_fields)
    told = {"step": "solve", "index": 0, "state": "done", "phase": "done", "attempt": "k", "cluster": "alpha"}
    more = {"queue": "cpu", "reason": "", "reserved": Money.of("2"), "cost": Money.of("1"), "predicted": {}}
    job = api_types.Job(**{**fields, **told, **more})
    api.on("GET", f"{INSTANCE_PATH}/jobs", api_types.Jobs(items=(job,)))
    assert run.jobs[0].cluster == "alpha"
    assert "alpha/cpu" in repr(run.jobs)


def test_a_run_shows_itself(run: runs.Run) -> None:
    """The run with its steps and figures."""
    text = repr(run)
    for told in (RUN, "running", "mesh", "1/1", "cost 1.00 EUR", "carbon 4.2 gCO2e"):
        assert told in text


def test_the_list_of_runs(hs: Heroes, api: FakeApi) -> None:
    """Runs can be gone through page after page, and chosen by state."""

    def page(asked: Asked) -> api_types.Instances:
        first = "after" not in asked.query
        run_id = RUN if first else samples.OTHER
        return api_types.Instances(items=(samples.instance("done", run_id),), next="x" if first else None)

    api.on("GET", "/organization/workflow/instance", page)
    assert [run.id for run in hs.runs] == [RUN, samples.OTHER]
    assert [run.id for run in hs.runs.list(state="done")] == [RUN, samples.OTHER]
    assert api.asked[-1].query["state"] == ["done"]
    assert "There are more" in repr(hs.runs)


@pytest.mark.parametrize("wrong", ["x", "", "../..", RUN.lower()])
def test_what_is_no_id_is_no_run(hs: Heroes, wrong: str) -> None:
    """A word that cannot be an id is answered as any other run that is not there, with the way to those that are."""
    with pytest.raises(NotFound, match="heroes run list"):
        hs.runs[wrong]
