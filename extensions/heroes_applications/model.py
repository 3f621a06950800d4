"""What a template becomes once parameters and inputs are known: the jobs of its steps. Pure.

for plan in render(template, {"cells": 80}, {"mesh": "alice/mesh.msh"}):
    plan.argv, plan.shape, plan.inputs, plan.needs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heroes.api.applications import ImageFile, Output, Resources, Step, Template
from heroes.api.errors import InvalidSpec
from heroes_applications import expressions
from heroes_applications.documents import file_bytes, order, step_places
from heroes_applications.placeholders import Place, fill
from heroes_applications.values import ObjectName, Value, check_inputs, check_parameters, object_name
from heroes_jobs.model import InputRef, OutputSpec
from heroes_spawners.site import Image, Shape

#: Jobs of one instance, all steps together.
MAX_JOBS = 2000

MIB = 2**20


@dataclass(frozen=True)
class StepPlan:
    """One job of a step: `index` counts the items of a fan-out from 0, and is 0 in a step without one.

    `inputs` name objects (a key ending in "/" is a folder), not yet pinned to a version of them;
    `needs` names steps whose results lie at `in/<step>/`; `files` are the template's own, at `in/<file name>`;
    `requires` are capabilities that the cluster must have."""

    name: str
    index: int
    fanned: bool
    argv: tuple[str, ...]
    variables: Mapping[str, str]
    shape: Shape
    inputs: tuple[InputRef, ...]
    files: tuple[tuple[str, bytes], ...]
    outputs: tuple[OutputSpec, ...]
    needs: tuple[str, ...]
    requires: tuple[str, ...]
    modules: tuple[str, ...]
    environments: tuple[str, ...]
    image: Image | None
    parallel: bool

    @property
    def folder(self) -> str:
        """Where its results lie below `runs/<instance>/`."""
        return f"{self.name}/{self.index}/" if self.fanned else f"{self.name}/"

    @property
    def max_output_bytes(self) -> int:
        """What the job may leave at most."""
        return sum(output.max_bytes for output in self.outputs)


def render(template: Template, parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> list[StepPlan]:
    """The jobs of `template`, each after those that it needs. InvalidSpec names the field, the value, the way out."""
    values = check_parameters(template, parameters)
    objects = check_inputs(template, inputs)
    plans: list[StepPlan] = []
    for step in order(template):
        for index, item in enumerate(_items(step, values)):
            plans.append(_plan(_Job(template, step, values, objects, index, item)))
            if len(plans) > MAX_JOBS:
                raise _too_many(step)
    return plans


@dataclass(frozen=True)
class _Job:
    """What is known of one job while it is rendered. `item` is None in a step without fan-out."""

    template: Template
    step: Step
    parameters: Mapping[str, Value]
    objects: Mapping[str, ObjectName]
    index: int
    item: Value | None

    @property
    def values(self) -> dict[str, Value]:
        if self.item is None:
            return dict(self.parameters)
        return {**self.parameters, "item": self.item, "index": self.index}

    def is_file(self, name: str) -> bool:
        """Whether the parameter (or the item) names an object, which the job finds as a file."""
        if name == "item" and self.step.fan_out:
            over = self.template.parameters[self.step.fan_out]
            return over.type == "list" and over.items == "file"
        return name in self.template.parameters and self.template.parameters[name].type == "file"

    def text(self, place: Place) -> str:
        """What a placeholder becomes."""
        if place.kind == "input" and place.name not in self.objects:
            default = self.template.inputs[place.name].default
            return _inside(default) if default else ""
        if place.kind or self.is_file(place.name):
            return _inside(place.name)
        return _written(self.values[place.name])


def _items(step: Step, values: Mapping[str, Value]) -> tuple[Any, ...]:
    if step.fan_out is None:
        return (None,)
    items = values[step.fan_out]
    if not isinstance(items, tuple) or not items:
        raise InvalidSpec(
            f"parameters.{step.fan_out}: the list is empty, and step {step.name} runs once for each of its items",
            hint="Give at least one item.",
            detail={"field": f"parameters.{step.fan_out}", "value": []},
        )
    return items


def _plan(job: _Job) -> StepPlan:
    step, application = job.step, job.step.application
    inputs, files = _gather(job)
    return StepPlan(
        name=step.name,
        index=job.index,
        fanned=step.fan_out is not None,
        argv=tuple(fill(argument, job.text) for argument in step.argv),
        variables={name: fill(value, job.text) for name, value in step.variables.items()},
        shape=_shape(step, job.values),
        inputs=inputs,
        files=files,
        outputs=tuple(_output(output) for output in step.outputs),
        needs=step.needs,
        requires=application.requires,
        modules=application.modules,
        environments=application.environments,
        image=_image(application.image),
        parallel=step.parallel,
    )


def _gather(job: _Job) -> tuple[tuple[InputRef, ...], tuple[tuple[str, bytes], ...]]:
    """The inputs and files that a job reads: those its placeholders name, and those it lists."""
    step, template = job.step, job.template
    named = [place for _, place in step_places(step)]
    wanted = dict.fromkeys([*step.inputs, *(place.name for place in named if place.kind == "input")])
    files = dict.fromkeys([*step.files, *(place.name for place in named if place.kind == "file")])
    inputs = [InputRef(name, job.objects[name].bucket, job.objects[name].key) for name in wanted if name in job.objects]
    for name in wanted:
        default = template.inputs[name].default
        if name not in job.objects and default:
            files[default] = None
    for name in dict.fromkeys(place.name for place in named if not place.kind and job.is_file(place.name)):
        given = object_name(str(job.values[name]), f"parameters.{name}")
        inputs.append(InputRef(name, given.bucket, given.key))
    return tuple(inputs), tuple((name, file_bytes(template.files[name], f"files.{name}")) for name in files)


def _shape(step: Step, values: Mapping[str, Value]) -> Shape:
    asked = {name: _resource(step, name, values) for name in Resources.model_fields}
    for name in ("nodes", "tasks", "cpus_per_task", "walltime_s"):
        if asked[name] < 1:
            raise _bad_resource(step, name, asked[name], "is below 1")
    return Shape(**asked)


def _resource(step: Step, name: str, values: Mapping[str, Value]) -> int:
    number = expressions.whole(getattr(step.resources, name), values, f"steps.{step.name}.resources.{name}")
    if not 0 <= number <= 10**9:
        raise _bad_resource(step, name, number, "is no sensible amount")
    return number


def _bad_resource(step: Step, name: str, number: int, why: str) -> InvalidSpec:
    field = f"steps.{step.name}.resources.{name}"
    written = getattr(step.resources, name)
    return InvalidSpec(
        f"{field}: {written!r} gives {number}, which {why}",
        hint="Change the parameters that it is computed from, or the template.",
        detail={"field": field, "value": number},
    )


def _output(output: Output) -> OutputSpec:
    return OutputSpec(output.glob, output.required, output.max_mib * MIB)


def _image(image: ImageFile | None) -> Image | None:
    return Image(image.path, image.digest) if image else None


def _inside(name: str) -> str:
    """The path of something in `in/`, seen from the working folder `out/`."""
    return f"../in/{name}"


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(_written(item) for item in value)
    return value if isinstance(value, str) else repr(value)


def _too_many(step: Step) -> InvalidSpec:
    field = f"parameters.{step.fan_out}"
    return InvalidSpec(
        f"{field}: with its items the run would have more than {MAX_JOBS} jobs",
        hint="Submit it in several runs.",
        detail={"field": field, "value": MAX_JOBS},
    )
