"""Answers of the API, as they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from heroes.api import applications, decision, identity
from heroes.api import data as data_api
from heroes.api import workflows as api
from heroes.api.model import Estimate, MoneyEstimate
from heroes.api.telemetry import Energy
from heroes.api.units import Grams, Joules, Money, Seconds

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
OTHER = "01HZZZZZZZZZZZZZZZZZZZZZZY"
EURO = Money.of("1")
INSTANCE_PATH = f"/organization/workflow/instance/{RUN}"


def me() -> identity.Me:
    """Ada."""
    return identity.Me(
        organisation="acme",
        user="ada",
        title="",
        email="",
        program=False,
        roles=("engineer",),
        groups=(),
        projects=(),
        rights=("submit",),
        token_id="t",
        expires_at=None,
    )


def instance(state: str = "running", run_id: str = RUN, **changes: Any) -> api.Instance:
    """A run of two jobs."""
    fields: dict[str, Any] = {
        "id": run_id,
        "template": "cavity",
        "version": 3,
        "state": state,
        "user": "ada",
        "project": "",
        "labels": {},
        "place": "alpha/cpu",
        "policy": "greenest",
        "created_at": NOW,
        "started_at": NOW,
        "ended_at": None,
        "jobs": 2,
        "jobs_done": 2 if state == "done" else 1,
        "jobs_failed": 0,
        "reserved": Money.of("2.5"),
        "cost": EURO,
        "energy": Energy(joules=Joules(36_000), method="model:cpu-time", uncertainty=0.25),
        "carbon": Grams(4.2),
        "reason": "",
        "events": 3,
    }
    return api.Instance(**{**fields, **changes})


def detail(state: str = "running", steps: tuple[str, ...] = ("mesh", "solve"), **changes: Any) -> api.InstanceDetail:
    """The run with its steps."""
    return api.InstanceDetail(
        instance=instance(state, **changes),
        template_organisation="acme",
        decision="d1",
        again_of="",
        parameters={"cells": 80},
        inputs={},
        steps=tuple(api.Step(name=name, needs=(), jobs=1, done=1, failed=0, state="done") for name in steps),
    )


def estimate(point: float, unit: str) -> Estimate:
    """An estimate around a point."""
    return Estimate(point=point, q10=point * 0.8, q50=point, q85=point * 1.3, q95=point * 1.5, unit=unit)


def alternative(place: str, rank: int, why: str = "", seconds: float = 600.0) -> decision.Alternative:
    """A place."""
    cluster, _, queue = place.partition("/")
    money = MoneyEstimate(point=EURO, q10=EURO, q50=EURO, q85=EURO, q95=Money.of("2"))
    return decision.Alternative(
        place=place,
        cluster=cluster,
        queue=queue,
        rank=rank,
        time=estimate(seconds, "s"),
        wait=estimate(30, "s"),
        run=estimate(seconds, "s"),
        transfer=estimate(1, "s"),
        cost=money,
        energy=estimate(50_000, "J"),
        carbon=estimate(12, "gCO2e"),
        memory=estimate(2048, "MiB"),
        reserved=Money.of("3"),
        score=1.0,
        pareto=rank == 1,
        why=why,
        evidence=decision.Evidence(level="class", jobs=5, model="scaled-1", power="assumed"),
        budget=(
            decision.BudgetEffect(name="user ada", limit=Money.of("100"), before=Money.of("12"), after=Money.of("15")),
        ),
    )


def decided() -> decision.Decision:
    """Two places, and one where it cannot run; not in the order of rank."""
    return decision.Decision(
        id="d1",
        template="cavity",
        version=3,
        policy="greenest",
        weights=decision.Weights(),
        created_at=NOW,
        expires_at=NOW + timedelta(minutes=15),
        alternatives=(
            alternative("cumulus/spot", 2, "takes 40 % more energy", 400),
            alternative("alpha/cpu", 1, "fewest joules"),
        ),
        rejected=(
            decision.Rejection(place="alpha/long", constraint="deadline", reason="It waits 5 h.", change="Allow 6 h."),
        ),
    )


TEMPLATE = applications.Template.model_validate(
    {
        "name": "cavity",
        "title": "Lid-driven cavity",
        "summary": "A first flow.",
        "parameters": {
            "cells": {"type": "integer", "default": 40, "minimum": 10, "maximum": 400, "help": "per side"},
            "scheme": {"type": "choice", "choices": ["upwind", "central"], "default": "upwind"},
        },
        "inputs": {"mesh": {"required": False, "help": "a mesh of one's own"}},
        "steps": [{"name": "solve", "argv": ["solve", "{{cells}}"]}],
    }
)


def template_info() -> applications.TemplateInfo:
    """The template in a list."""
    return applications.TemplateInfo(
        name="cavity",
        title="Lid-driven cavity",
        summary="A first flow.",
        version=3,
        visibility="organisation",
        organisation="acme",
        owner="ada",
        published_at=NOW,
    )


def template_text() -> applications.TemplateText:
    """The template itself."""
    return applications.TemplateText(
        info=template_info(), latest=3, digest="x", template=TEMPLATE, source="name: cavity"
    )


def templates() -> applications.Templates:
    """The only page of templates."""
    return applications.Templates(items=(template_info(),), next=None)


def report() -> api.Report:
    """A run that took less than predicted."""
    compared = api.Comparison(
        step="solve",
        index=0,
        place="alpha/cpu",
        figure="run",
        unit="s",
        predicted=600,
        low=480,
        high=900,
        actual=510.5,
        inside=True,
    )
    return api.Report(
        instance=instance("done"), returned=Money.of("1.5"), elapsed=Seconds(700), comparisons=(compared,)
    )


def results() -> api.Results:
    """Three files, two of the same name."""
    keys = ("solve/u.csv", "solve/plot.png", "mesh/u.csv")
    prefix = f"runs/{RUN}/"
    items = tuple(api.Result(step=key.split("/")[0], index=0, bucket="ada", key=prefix + key) for key in keys)
    return api.Results(bucket="ada", prefix=prefix, items=items)


def buckets() -> data_api.Buckets:
    """One's own and a shared one."""
    names = ("ada", "shared")
    return data_api.Buckets(
        items=tuple(data_api.Bucket(name=name, owner="ada", writable=True, created_at=NOW) for name in names)
    )


def thing(key: str, size: int = 5) -> data_api.Object:
    """An object."""
    return data_api.Object(key=key, size=size, etag="" if key.endswith("/") else "e", modified=NOW)
