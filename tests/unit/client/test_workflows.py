"""`hs.workflows["cavity"].decide(cells=80, deadline="2 h")`, the options, and submitting one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from heroes import Heroes
from heroes.api.errors import Conflict, InvalidSpec, NoPlacement, NotFound, OverBudget
from heroes.api.units import Money
from heroes.workflows import money, seconds
from tests.unit.client import samples
from tests.unit.client.fake_api import FakeApi

DECIDE = "/organization/decision/decide"
SUBMIT = "/organization/workflow/submit"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2 h", 7200),
        ("2h", 7200),
        ("1 h 30 min", 5400),
        ("90 s", 90),
        ("1.5 d", 129600),
        (90, 90),
        (timedelta(minutes=2), 120),
        (None, None),
    ],
)
def test_lengths_of_time(given: Any, expected: float | None) -> None:
    """Lengths of time are written as people write them."""
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["", "soon", "2 parsecs", "h 2", "2 h and more", "-1 h"])
def test_what_is_no_length_of_time(given: str) -> None:
    """Anything else is refused with examples."""
    with pytest.raises(InvalidSpec, match="no length of time"):
        seconds(given)


def test_amounts_of_money() -> None:
    """Amounts have a currency, euro unless another is named."""
    assert money("12.50 chf") == Money.of("12.50", "CHF")
    assert money("3") == Money.of("3")
    assert money(None) is None
    with pytest.raises(InvalidSpec, match="no amount"):
        money("much")


def test_workflows_are_a_mapping(hs: Heroes) -> None:
    """Workflows are found by name and can be gone through, counted and shown."""
    assert list(hs.workflows) == ["cavity"]
    assert len(hs.workflows) == 1
    assert "cavity" in hs.workflows
    assert hs.workflows["cavity"].version == 3
    assert "Lid-driven cavity" in repr(hs.workflows)
    assert hs.workflows._ipython_key_completions_() == ["cavity"]


@pytest.mark.parametrize("name", ["nothing", "../etc", ""])
def test_an_unknown_workflow(hs: Heroes, name: str) -> None:
    """An unknown name is told with those on offer."""
    with pytest.raises(NotFound, match="On offer: cavity"):
        hs.workflows[name]


def test_what_is_asked_of_decide(hs: Heroes, api: FakeApi) -> None:
    """Keyword arguments become parameters and inputs as the template declares them; the rest is the question."""
    hs.workflows["cavity"].decide(
        cells=80, mesh="ada/mesh.msh", policy="greenest", deadline="2 h", max_cost="5 EUR", weights={"time": 2.0}
    )
    asked = api.asked[-1].json
    assert (asked["template"], asked["version"]) == ("cavity", 3)
    assert asked["parameters"] == {"cells": 80}
    assert asked["inputs"] == {"mesh": "ada/mesh.msh"}
    assert (asked["policy"], asked["deadline_s"]) == ("greenest", 7200.0)
    assert asked["max_cost"] == {"micros": 5_000_000, "currency": "EUR"}
    assert asked["weights"]["time"] == 2.0


def test_an_unknown_parameter_never_leaves(hs: Heroes, api: FakeApi) -> None:
    """A parameter that the template lacks is refused here, with those that it has."""
    with pytest.raises(InvalidSpec, match=r"no parameter or input 'cell'.*cells, scheme, mesh"):
        hs.workflows["cavity"].decide(cell=80)
    assert not any(asked.path == DECIDE for asked in api.asked)


def test_a_parameter_named_like_an_argument(hs: Heroes, api: FakeApi) -> None:
    """Parameters may be given as a mapping, whatever they are called."""
    hs.workflows["cavity"].decide(parameters={"policy": 1}, inputs={"mesh": "a/b"})
    assert api.asked[-1].json["parameters"] == {"policy": 1}


@pytest.mark.parametrize(
    "error",
    [NoPlacement("nowhere", hint="ask for less", detail={"places": {"alpha/cpu": "memory"}}), InvalidSpec("cells: 5")],
)
def test_refusals_of_decide(hs: Heroes, api: FakeApi, error: Any) -> None:
    """What the server refuses is raised here as it was there."""
    api.on("POST", DECIDE, error)
    with pytest.raises(type(error)) as caught:
        hs.workflows["cavity"].decide(cells=5)
    assert caught.value.detail == error.detail


def test_options_are_ranked(hs: Heroes) -> None:
    """The best comes first; others are found by place or rank."""
    options = hs.workflows["cavity"].decide()
    assert [option.place for option in options] == ["alpha/cpu", "cumulus/spot"]
    assert options.best.place == "alpha/cpu"
    assert options["cumulus/spot"].rank == 2
    assert options[1].place == "cumulus/spot"
    assert len(options) == 2
    assert options.best.reserved == Money.of("3")


def test_a_place_that_is_no_option(hs: Heroes) -> None:
    """A rejected place is told with its reason, an unknown one with those that there are."""
    options = hs.workflows["cavity"].decide()
    with pytest.raises(NotFound, match=r"It waits 5 h. Allow 6 h."):
        options["alpha/long"]
    with pytest.raises(NotFound, match="There are: alpha/cpu, cumulus/spot"):
        options["mars/cpu"]


def test_options_as_text(hs: Heroes) -> None:
    """In a terminal: each place with time, cost, energy, carbon and why; budgets and rejections below."""
    text = repr(hs.workflows["cavity"].decide())
    for told in ("alpha/cpu", "10 min", "1.00 EUR", "50 kJ", "12 gCO2e", "takes 40 % more energy"):
        assert told in text.replace("\n", " ") or all(word in text for word in told.split())
    assert "budget user ada of 100.00 EUR: 12.00 EUR before, 15.00 EUR after" in text
    assert "not alpha/long: It waits 5 h. Allow 6 h." in text


def test_options_in_a_notebook(hs: Heroes) -> None:
    """In a notebook: the same as an HTML table, with every text escaped."""
    options = hs.workflows["cavity"].decide()
    assert "<td style='text-align:left;font-weight:bold'>alpha/cpu</td>" in options._repr_html_()
    assert set(options._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_the_best_is_submitted(hs: Heroes, api: FakeApi) -> None:
    """Submitting names the decision and the place, once, with an idempotency key."""
    run = hs.workflows["cavity"].decide(project="wing").best.submit(labels={"case": "a"})
    asked = api.asked[-1]
    assert asked.path == SUBMIT
    assert asked.json == {
        "decision": "d1",
        "cluster": "alpha",
        "queue": "cpu",
        "project": "wing",
        "labels": {"case": "a"},
    }
    assert asked.headers["Idempotency-Key"]
    assert run.id == samples.RUN


def test_another_is_submitted(hs: Heroes, api: FakeApi) -> None:
    """Any option can be submitted."""
    hs.workflows["cavity"].decide()["cumulus/spot"].submit()
    assert (api.asked[-1].json["cluster"], api.asked[-1].json["queue"]) == ("cumulus", "spot")


@pytest.mark.parametrize("error", [OverBudget("3 EUR too much", detail={"by": 3}), Conflict("the decision is old")])
def test_refusals_of_submit(hs: Heroes, api: FakeApi, error: Any) -> None:
    """A budget too small and an outdated decision are told as they are."""
    api.on("POST", SUBMIT, error)
    with pytest.raises(type(error), match=error.message):
        hs.workflows["cavity"].submit(cells=80)


def test_a_workflow_shows_what_it_asks_for(hs: Heroes) -> None:
    """Parameters with their limits, choices and meaning, and inputs."""
    text = repr(hs.workflows["cavity"])
    assert "integer 10 to 400" in text
    assert "upwind | central" in text
    assert "a mesh of one's own" in text


def test_another_version(hs: Heroes, api: FakeApi) -> None:
    """Another version is asked for by number."""
    hs.workflows["cavity"].at(2)
    assert api.asked[-1].query == {"version": ["2"]}


def test_publishing(hs: Heroes, api: FakeApi) -> None:
    """A workflow is published from its text."""
    api.on("POST", "/organization/admin/workflow/template", samples.template_text())
    assert hs.workflows.publish("name: cavity", visibility="private").name == "cavity"
    assert api.asked[-1].json == {"document": "name: cavity", "visibility": "private"}
