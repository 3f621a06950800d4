"""Workflows on offer: `hs.workflows["openfoam-cavity"].decide(cells=80, deadline="2 h")`, and the options that come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from heroes.api import applications, decision
from heroes.api import workflows as api
from heroes.api.errors import InvalidSpec, NotFound
from heroes.api.model import Estimate, Page
from heroes.api.registry import parse
from heroes.api.units import Grams, Joules, Money, Quantity, Seconds
from heroes.runs import Run
from heroes.views import Sheet, Viewable

if TYPE_CHECKING:
    from heroes.connection import Heroes

_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_SHOWN: dict[str, type[Quantity]] = {"s": Seconds, "J": Joules, "gCO2e": Grams, "g": Grams}


def seconds(duration: str | float | timedelta | None) -> float | None:
    """Seconds of `90`, `"2 h"`, `"1 h 30 min"` or a timedelta; InvalidSpec for anything else."""
    if duration is None or isinstance(duration, int | float):
        return duration
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    parts = _PART.findall(duration.strip().lower())
    whole = "".join(number + unit for number, unit in parts)
    if not parts or whole != re.sub(r"\s+", "", duration.lower()) or any(unit not in _UNITS for _, unit in parts):
        raise InvalidSpec(f"{duration!r} is no length of time.", hint='Write for instance "2 h", "1 h 30 min" or 90.')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def money(amount: str | Money | None) -> Money | None:
    """`"12.50 EUR"` or `"12.50"` as money; InvalidSpec for anything else."""
    if amount is None or isinstance(amount, Money):
        return amount
    number, _, currency = amount.strip().partition(" ")
    try:
        return Money.of(number, currency.strip().upper() or "EUR")
    except (ValueError, ArithmeticError):
        raise InvalidSpec(f"{amount!r} is no amount of money.", hint='Write for instance "12.50 EUR".') from None


class Workflows(Viewable, Mapping[str, "Workflow"]):
    """The workflows that one may submit, by name."""

    kind = "workflows"

    def __init__(self, platform: Heroes) -> None:
        self._platform = platform

    def _infos(self) -> Iterator[applications.TemplateInfo]:
        return self._platform.client.pages(applications.LIST, Page(limit=500))

    def __getitem__(self, name: str) -> Workflow:
        """The workflow of that name, its latest version; NotFound with the names that there are."""
        try:
            request = parse(applications.GetTemplate, {"workflow_template_id": name})
            return Workflow(self._platform, self._platform.client.call(applications.GET, request))
        except (NotFound, InvalidSpec):
            names = ", ".join(self) or "none"
            raise NotFound(f"There is no workflow {name!r}.", hint=f"On offer: {names}.") from None

    def __iter__(self) -> Iterator[str]:
        return (info.name for info in self._infos())

    def __len__(self) -> int:
        return sum(1 for _ in self._infos())

    def __contains__(self, name: object) -> bool:
        return any(name == info.name for info in self._infos())

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def publish(self, document: str, *, visibility: str | None = None) -> Workflow:
        """Publish a workflow from its YAML text, or the next version of one of one's own."""
        request = parse(applications.PublishTemplate, {"document": document, "visibility": visibility})
        return Workflow(self._platform, self._platform.client.call(applications.PUBLISH, request))

    def sheet(self) -> Sheet:
        """A row for each workflow."""
        rows = tuple((info.name, info.title, str(info.version), info.visibility) for info in self._infos())
        return Sheet("workflows", ("name", "title", "version", "visibility"), rows)

    __repr__ = Viewable.__repr__


class Workflow(Viewable):
    """One version of a workflow."""

    kind = "workflow"

    def __init__(self, platform: Heroes, told: applications.TemplateText) -> None:
        self._platform = platform
        self.told = told

    @property
    def name(self) -> str:
        """The name it is published under."""
        return self.told.info.name

    @property
    def version(self) -> int:
        """The number of this version."""
        return self.told.info.version

    @property
    def template(self) -> applications.Template:
        """Parameters, inputs and steps."""
        return self.told.template

    def at(self, version: int) -> Workflow:
        """Another version of it."""
        request = applications.GetTemplate(workflow_template_id=self.name, version=version)
        return Workflow(self._platform, self._platform.client.call(applications.GET, request))

    def decide(
        self,
        *,
        policy: str = "",
        deadline: str | float | timedelta | None = None,
        max_cost: str | Money | None = None,
        project: str = "",
        weights: Mapping[str, float] | None = None,
        places: tuple[str, ...] = (),
        parameters: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Options:
        """Where this could run and what each place would take: `decide(cells=80, policy="greenest", deadline="2 h")`.

        Parameters and inputs (`"bucket/key"`) of the workflow are keyword arguments; one that is called as an argument
        here goes into `parameters` or `inputs`. NoPlacement tells which constraint removed each place."""
        asked = {
            "template": self.name,
            "version": self.version,
            **self._split(values, parameters or {}, inputs or {}),
            "policy": policy,
            "deadline_s": seconds(deadline),
            "max_cost": money(max_cost),
            "project": project,
            "places": places,
        }
        if weights is not None:
            asked["weights"] = dict(weights)
        request = parse(decision.Decide, asked)
        return Options(self._platform, self._platform.client.call(decision.DECIDE, request), project)

    def submit(self, *, labels: Mapping[str, str] | None = None, **asked: Any) -> Run:
        """Decide and submit to the best place at once; arguments as of `decide`."""
        return self.decide(**asked).best.submit(labels=labels)

    def _split(
        self, values: Mapping[str, Any], parameters: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> dict[str, Any]:
        known = self.template
        unknown = sorted(set(values) - set(known.parameters) - set(known.inputs))
        if unknown:
            names = ", ".join([*known.parameters, *known.inputs]) or "none"
            raise InvalidSpec(f"{self.name} has no parameter or input {unknown[0]!r}.", hint=f"It has: {names}.")
        given = {name: value for name, value in values.items() if name in known.parameters}
        files = {name: str(value) for name, value in values.items() if name in known.inputs}
        return {"parameters": {**given, **parameters}, "inputs": {**files, **inputs}}

    def sheet(self) -> Sheet:
        """Its parameters and inputs."""
        rows = tuple(_parameter_row(name, each) for name, each in self.template.parameters.items())
        files = tuple(_input_row(name, each) for name, each in self.template.inputs.items())
        title = f"{self.name} (version {self.version}): {self.template.title}"
        notes = (self.template.summary,) if self.template.summary else ()
        return Sheet(title, ("name", "type", "unit", "default", "meaning"), (*rows, *files), notes)


def _parameter_row(name: str, told: Any) -> tuple[str, ...]:
    limits = [str(each) for each in (getattr(told, "minimum", None), getattr(told, "maximum", None))]
    kind = told.type if limits == ["None", "None"] else f"{told.type} {limits[0]} to {limits[1]}".replace("None", "…")
    if getattr(told, "choices", ()):
        kind = " | ".join(told.choices)
    return name, kind, told.unit, "" if told.default is None else str(told.default), told.help


def _input_row(name: str, told: applications.Input) -> tuple[str, ...]:
    return name, "input", "", told.default or ("" if told.required else "none"), told.help


class Option:
    """One place where it can run, with what it would take there."""

    def __init__(self, options: Options, told: decision.Alternative) -> None:
        self._options = options
        self.told = told

    def __getattr__(self, name: str) -> Any:
        return getattr(self.told, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *type(self.told).model_fields]

    def submit(self, *, labels: Mapping[str, str] | None = None) -> Run:
        """Reserve the worst case and run it here. Conflict when the decision is older than 15 minutes."""
        options = self._options
        asked = {
            "decision": options.id,
            "cluster": self.told.cluster,
            "queue": self.told.queue,
            "project": options.project,
            "labels": dict(labels or {}),
        }
        client = options.platform.client
        made: api.Instance = client.call(api.SUBMIT, parse(api.Submit, asked))
        return Run(options.platform, made.id, made)

    def __repr__(self) -> str:
        told = self.told
        return f"<{told.place}: {_shown(told.time)}, {told.cost.point}, {_shown(told.energy)}, {_shown(told.carbon)}>"


class Options(Viewable):
    """The places where something can run, best first: a sequence, and `options["alpha/cpu"]`."""

    kind = "options"

    def __init__(self, platform: Heroes, told: decision.Decision, project: str = "") -> None:
        self.platform, self.told, self.project = platform, told, project

    @property
    def id(self) -> str:
        """The decision's id, good for 15 minutes."""
        return self.told.id

    @cached_property
    def all(self) -> tuple[Option, ...]:
        """Every place, best first."""
        return tuple(Option(self, each) for each in sorted(self.told.alternatives, key=lambda one: one.rank))

    @property
    def best(self) -> Option:
        """The platform's choice."""
        return self.all[0]

    @property
    def rejected(self) -> tuple[decision.Rejection, ...]:
        """Where it cannot run, why, and the smallest change that would admit it."""
        return self.told.rejected

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Option]:
        return iter(self.all)

    def __getitem__(self, place: str | int) -> Option:
        """By place (`"alpha/cpu"`) or rank from 0; NotFound with the places that there are."""
        if isinstance(place, int):
            return self.all[place]
        found = next((option for option in self.all if option.told.place == place), None)
        if found is None:
            raise NotFound(f"{place} is not among the options.", hint=self._instead(place))
        return found

    def _instead(self, place: str) -> str:
        rejected = next((each for each in self.rejected if each.place == place), None)
        if rejected is not None:
            return f"It was rejected: {rejected.reason} {rejected.change}".strip()
        return f"There are: {', '.join(option.told.place for option in self.all)}."

    def _ipython_key_completions_(self) -> list[str]:
        return [option.told.place for option in self.all]

    def sheet(self) -> Sheet:
        """A row for each place; budgets and rejected places below."""
        rows = tuple(_option_row(option.told) for option in self.all)
        title = f"{self.told.template} (version {self.told.version}), by policy {self.told.policy}"
        columns = ("", "place", "time to result", "wait", "cost", "energy", "carbon", "why")
        budgets = tuple(_budget(each) for each in self.best.told.budget) if self.all else ()
        rejected = tuple(f"not {each.place}: {each.reason} {each.change}".rstrip() for each in self.rejected)
        return Sheet(title, columns, rows, (*budgets, *rejected), marked=0)


def _option_row(told: decision.Alternative) -> tuple[str, ...]:
    mark = "*" if told.pareto else ""
    figures = (_between(told.time), _shown(told.wait), _spread(told), _between(told.energy), _between(told.carbon))
    return f"{told.rank}{mark}", told.place, *figures, told.why


def _quantity(value: float, unit: str) -> str:
    kind = _SHOWN.get(unit)
    return str(kind(value)) if kind else f"{value:.3g} {unit}"


def _shown(estimate: Estimate) -> str:
    return _quantity(estimate.point, estimate.unit)


def _between(estimate: Estimate) -> str:
    low, high = _quantity(estimate.q10, estimate.unit), _quantity(estimate.q95, estimate.unit)
    return f"{_shown(estimate)} ({low} to {high})"


def _spread(told: decision.Alternative) -> str:
    return f"{told.cost.point} ({told.cost.q10} to {told.cost.q95})"


def _budget(effect: decision.BudgetEffect) -> str:
    of = f" of {effect.limit}" if effect.limit is not None else ""
    return f"budget {effect.name}{of}: {effect.before} before, {effect.after} after reserving the worst case"
