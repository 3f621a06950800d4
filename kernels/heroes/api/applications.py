"""Workflow templates: what an author writes (YAML of the shape of `Template`), and the operations over them.

A template is published under its name and numbered from 1; a published version never changes. In `argv` and
`variables`, `{{cells}}` stands for a parameter, `{{input.mesh}}` for the path of an input, `{{file.plot.py}}` for the
path of one of the template's own files, `{{needs.mesh}}` for the folder with the results of an earlier step, and in a
fanned-out step `{{item}}` and `{{index}}` for its share. Whatever stands there, an argument stays one argument.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotFound
from heroes.api.ids import NAME
from heroes.api.model import LARGEST, Empty, Model, Page
from heroes.api.registry import SIGNED_IN, Operation

#: Names of parameters and inputs: they are variables of expressions too.
Variable = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Slug = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
#: One file name below `in/`: no folders, no leading dot or dash.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
#: A whole number, or an expression over the numeric parameters such as `max(1, cells // 20)`.
Expression = Annotated[int, Field(ge=0)] | Annotated[str, StringConstraints(min_length=1, max_length=500)]
Argument = Annotated[str, StringConstraints(max_length=4096)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Capability = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Visibility = Literal["private", "organisation", "shared"]


class _Parameter(Model):
    help: str = Field(default="", max_length=1000, description="what it means, shown beside the form's field")
    unit: str = Field(default="", max_length=30, description="unit of the value, e.g. `s` or `GiB`; empty for none")


class IntegerParameter(_Parameter):
    """A whole number."""

    type: Literal["integer"]
    default: int | None = None
    minimum: int | None = None
    maximum: int | None = None


class NumberParameter(_Parameter):
    """A finite decimal number."""

    type: Literal["number"]
    default: float | None = Field(default=None, allow_inf_nan=False)
    minimum: float | None = Field(default=None, allow_inf_nan=False)
    maximum: float | None = Field(default=None, allow_inf_nan=False)


class StringParameter(_Parameter):
    """Text; any character but NUL. It reaches the program as one argument, unread by any shell."""

    type: Literal["string"]
    default: str | None = None
    max_length: int = Field(default=1000, ge=1, le=10_000)


class BooleanParameter(_Parameter):
    """Yes or no; written `true` or `false` in an argument."""

    type: Literal["boolean"]
    default: bool | None = None


class ChoiceParameter(_Parameter):
    """One of `choices`."""

    type: Literal["choice"]
    choices: tuple[str, ...] = Field(min_length=1, max_length=100)
    default: str | None = None


class ListParameter(_Parameter):
    """Several values of one type, at most `max_items`. As an argument: joined by commas. What a step fans out over."""

    type: Literal["list"]
    items: Literal["integer", "number", "string", "file"]
    max_items: int = Field(default=1000, ge=1, le=2000)
    default: tuple[int | float | str, ...] | None = None


class FileParameter(_Parameter):
    """An object of a bucket, `bucket/key`; in an argument it is the path of the job's copy."""

    type: Literal["file"]
    default: str | None = None


Parameter = Annotated[
    IntegerParameter
    | NumberParameter
    | StringParameter
    | BooleanParameter
    | ChoiceParameter
    | ListParameter
    | FileParameter,
    Field(discriminator="type"),
]


class Input(Model):
    """Data that the steps read: an object, or all objects below a key that ends in `/`."""

    help: str = Field(default="", max_length=1000)
    required: bool = True
    default: FileName | None = Field(
        default=None, description="one of the template's `files`, taken when none is given"
    )


class Base64File(Model):
    """A file that is not text."""

    base64: str


class Output(Model):
    """Files that a step leaves, by a pattern relative to its working folder (`*`, `?`, `**`).

    Every regular file of the working folder is kept; an output says which must be there and how large they may be. All
    that a step leaves may not exceed the sum over its outputs; that much is reserved where moving data costs."""

    glob: str = Field(default="**", min_length=1, max_length=200)
    required: bool = Field(default=False, description="the step fails where nothing matches")
    max_mib: int = Field(default=1024, ge=1, le=1024 * 1024, description="MiB, of each file that matches")


class ImageFile(Model):
    """A container image at the site, by absolute path and digest."""

    path: str = Field(pattern=r"^/[A-Za-z0-9_./+-]+$", max_length=500)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Application(Model):
    """Where the program comes from: found at the cluster, in a pushed environment, or in an image."""

    requires: tuple[Capability, ...] = Field(default=(), max_length=20, description="what the cluster must have")
    modules: tuple[Capability, ...] = Field(default=(), max_length=20, description="names given to `module load`")
    environments: tuple[Literal["python"], ...] = Field(default=(), description="pushed environments put on PATH")
    image: ImageFile | None = None


class Resources(Model):
    """What one job of a step asks for; `memory_mib` and `gpus` are per node."""

    nodes: Expression = 1
    tasks: Expression = 1
    cpus_per_task: Expression = 1
    memory_mib: Expression = Field(default=0, description="0: the queue's own share for these cores")
    gpus: Expression = 0
    walltime_s: Expression = Field(default=3600, description="limit in seconds")


class Step(Model):
    """One program run, or one for each item of a list."""

    name: Slug
    summary: str = Field(default="", max_length=300)
    needs: tuple[Slug, ...] = Field(default=(), description="steps that must be done before; their results are inputs")
    application: Application = Application()
    argv: tuple[Argument, ...] = Field(min_length=1, max_length=200)
    variables: dict[VariableName, Argument] = Field(default={}, max_length=100, description="the job's environment")
    inputs: tuple[Variable, ...] = Field(
        default=(), description="inputs that `argv` does not name but the program reads"
    )
    files: tuple[FileName, ...] = Field(default=(), description="files that `argv` does not name but the program reads")
    outputs: tuple[Output, ...] = Field(default=(Output(),), min_length=1, max_length=50)
    resources: Resources = Resources()
    fan_out: Variable | None = Field(default=None, description="a list parameter: one job for each of its items")
    parallel: bool = Field(default=False, description="each task is launched (MPI), instead of the program once")


class Template(Model):
    """A workflow: what it asks for, and the steps that it runs."""

    name: Slug
    title: str = Field(min_length=1, max_length=100)
    summary: str = Field(default="", max_length=300)
    description: str = Field(default="", max_length=20_000, description="markdown")
    parameters: dict[Variable, Parameter] = Field(default={}, max_length=100)
    inputs: dict[Variable, Input] = Field(default={}, max_length=50)
    files: dict[FileName, str | Base64File] = Field(default={}, max_length=50, description="at most 1 MiB together")
    steps: tuple[Step, ...] = Field(min_length=1, max_length=50)


class TemplateInfo(Model):
    """A template in a list: its latest version."""

    name: str
    title: str
    summary: str
    version: int
    visibility: Visibility
    organisation: str
    owner: str
    published_at: datetime


class Templates(Model):
    """One page of templates, by name."""

    items: tuple[TemplateInfo, ...]
    next: str | None = None


class TemplateText(Model):
    """One version of a template, as read and as written."""

    info: TemplateInfo
    latest: int
    digest: str
    template: Template
    source: str


class GetTemplate(Model):
    """A template by name; version 0 means the latest."""

    workflow_template_id: Slug
    version: int = Field(default=0, ge=0, le=LARGEST)


class PublishTemplate(Model):
    """A new template, or the next version of one of one's own. The same text again makes no new version."""

    document: str = Field(min_length=1, max_length=2_000_000, description="YAML; its schema is `workflow schema`")
    visibility: Visibility | None = Field(default=None, description="unset: as it is, private for a new one")


class WithdrawTemplate(Model):
    """Nobody can submit it any more; runs made of it keep it."""

    workflow_template_id: Slug


class TemplateSchema(Model):
    """The JSON Schema (2020-12) of a template."""

    json_schema: dict[str, Any]


LIST = Operation(
    name="workflow.templates",
    method="GET",
    path="/organization/workflow/template",
    request=Page,
    response=Templates,
    right=SIGNED_IN,
    summary="List the workflows that one may submit.",
    verb="workflow list",
)
GET = Operation(
    name="workflow.template",
    method="GET",
    path="/organization/workflow/template/{workflow_template_id}",
    request=GetTemplate,
    response=TemplateText,
    right=SIGNED_IN,
    errors=(NotFound,),
    summary="Show a workflow: its parameters, inputs, steps and text.",
    verb="workflow show",
)
SCHEMA = Operation(
    name="workflow.template_schema",
    method="GET",
    path="/organization/workflow/template_schema",
    request=Empty,
    response=TemplateSchema,
    right=SIGNED_IN,
    summary="Show the JSON Schema of a workflow template.",
    verb="workflow schema",
)
PUBLISH = Operation(
    name="workflow.publish",
    method="POST",
    path="/organization/admin/workflow/template",
    request=PublishTemplate,
    response=TemplateText,
    right=("submit", "workflows:manage"),
    errors=(InvalidSpec, NotAllowed, Conflict),
    summary="Publish a workflow, or its next version; sharing it needs `workflows:manage`.",
    verb="workflow publish",
    creates=True,
)
WITHDRAW = Operation(
    name="workflow.withdraw",
    method="DELETE",
    path="/organization/admin/workflow/template/{workflow_template_id}",
    request=WithdrawTemplate,
    response=Empty,
    right=("submit", "workflows:manage"),
    errors=(NotFound, NotAllowed),
    summary="Withdraw a workflow: it can be submitted no more.",
    verb="workflow withdraw",
)

OPERATIONS = (LIST, GET, SCHEMA, PUBLISH, WITHDRAW)
