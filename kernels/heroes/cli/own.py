"""Commands that say more than one operation would: they take the place of the contract's verb where it has one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heroes.api import applications
from heroes.api import workflows as api
from heroes.api.errors import InvalidSpec
from heroes.cli.fields import PairType, argument, json_or_text
from heroes.cli.output import show, show_json, show_sheet
from heroes.cli.verbs import OUTPUT, platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from heroes.connection import Heroes
    from heroes.runs import Run
    from heroes.workflows import Options


def _placing() -> list[click.Parameter]:
    """What `workflow decide` and `workflow submit` have in common."""
    return [
        click.Option(
            ["--parameter", "-p"], type=PairType(text=True), multiple=True, help="a parameter, for instance cells=80"
        ),
        click.Option(
            ["--input", "-i", "inputs"], type=PairType(text=True), multiple=True, help="an input, name=bucket/key"
        ),
        click.Option(["--policy", "-P"], default="", help="how places are ranked (`workflow policies`)"),
        click.Option(["--deadline"], help='time until it must be done, for instance "2 h"'),
        click.Option(["--max-cost"], help='most that it may cost, for instance "5 EUR"'),
        click.Option(["--project"], default="", help="the project that pays"),
        click.Option(["--version", "number"], type=int, default=0, help="version of the workflow (default: latest)"),
    ]


def _options(found: Heroes, workflow: str, asked: dict[str, Any], places: tuple[str, ...] = ()) -> Options:
    chosen = found.workflows[workflow]
    if asked["number"]:
        chosen = chosen.at(asked["number"])
    return chosen.decide(
        policy=asked["policy"],
        deadline=_number_or_text(asked["deadline"]),
        max_cost=asked["max_cost"],
        project=asked["project"],
        places=places,
        parameters={name: _typed(chosen.template, name, text) for name, text in asked["parameter"]},
        inputs=dict(asked["inputs"]),
    )


def _typed(template: applications.Template, name: str, text: str) -> Any:
    """What was typed for a parameter: text stays as it is where text is wanted, also when it reads as a number. A list
    without brackets is split by the platform."""
    declared = template.parameters.get(name)
    if declared is None:
        return json_or_text(text)
    worded = declared.type in ("string", "choice", "file") or (declared.type == "list" and not text.startswith("["))
    return text if worded else json_or_text(text)


def _number_or_text(text: str | None) -> str | float | None:
    return float(text) if text is not None and text.replace(".", "", 1).isdigit() else text


def decide(workflow: str, output: str, place: tuple[str, ...], **asked: Any) -> None:
    """Show where a workflow could run, and what each place would take."""
    with platform() as found:
        options = _options(found, workflow, asked, place)
    show(options.told, output) if output == "json" else show_sheet(options.sheet())


def submit(workflow: str | None, output: str, decision: str, place: str, follow: bool, **asked: Any) -> int:
    """Submit a workflow to the best place, to the one named, or as decided before (--decision ID --place PLACE)."""
    if bool(workflow) == bool(decision):
        raise click.UsageError("name a workflow, or a decision with --decision")
    labels = dict(asked.pop("label"))
    with platform() as found:
        run = _by_decision(found, decision, place, labels, asked["project"]) if decision else None
        if run is None:
            assert workflow is not None
            options = _options(found, workflow, asked)
            run = (options[place] if place else options.best).submit(labels=labels)
        if not follow:
            show(run.seen, output)
            return 0
        return _watch(run, output)


def _by_decision(found: Heroes, decision: str, place: str, labels: dict[str, str], project: str) -> Run:
    from heroes.runs import Run

    cluster, slash, queue = place.partition("/")
    if place and not slash:
        raise InvalidSpec(f"{place!r} is no place.", hint="A place is cluster/queue, as `workflow decide` shows it.")
    request = api.Submit(decision=decision, cluster=cluster, queue=queue, labels=labels, project=project)
    made: api.Instance = found.client.call(api.SUBMIT, request)
    return Run(found, made.id, made)


def watch(workflow_instance_id: str, output: str) -> int:
    """Follow a run until it has ended; exit status 1 when it did not go well."""
    with platform() as found:
        return _watch(found.runs[workflow_instance_id], output)


def _watch(run: Run, output: str) -> int:
    if sys.stderr.isatty():
        run.wait()
    else:
        for event in run.events(follow=True):
            step = f"{event.step}[{event.index}] " if event.step else ""
            sys.stderr.write(f"{event.at:%H:%M:%S} {step}{event.phase or event.kind} {event.text}".rstrip() + "\n")
    instance = run.refresh()
    show(instance, output)
    return 0 if instance.state == "done" else 1


def logs(workflow_instance_id: str, step: str | None, index: int, error: bool, follow: bool) -> None:
    """Print the log of a step, with --follow while it grows."""
    with platform() as found:
        run = found.runs[workflow_instance_id]
        parts = run.log_parts(
            step or _only_step(run), index=index, stream="stderr" if error else "stdout", follow=follow
        )
        for text in parts:
            sys.stdout.write(text)
            sys.stdout.flush()


def _only_step(run: Run) -> str:
    steps = run.steps
    if len(steps) != 1:
        raise click.UsageError(f"which step? {run.id} has {', '.join(steps)}")
    return steps[0]


def report(workflow_instance_id: str, output: str) -> None:
    """Show what a run cost, its energy and carbon, and predicted against actual."""
    with platform() as found:
        told = found.runs[workflow_instance_id].report()
    show(told.told, output) if output == "json" else show_sheet(told.sheet())


def fetch(workflow_instance_id: str, to: Path) -> None:
    """Download the results of a run below a folder."""
    with platform() as found:
        results = found.runs[workflow_instance_id].results
        results.download(to)
    sys.stderr.write(f"{len(results)} files are below {to}\n")


def publish(file: Path, visibility: str | None, output: str) -> None:
    """Publish a workflow from its YAML file, or its next version."""
    with platform() as found:
        told = found.workflows.publish(file.read_text(), visibility=visibility).told
    show(told.info, output)


def schema() -> None:
    """Print the JSON Schema of a workflow's YAML file."""
    with platform() as found:
        answer: applications.TemplateSchema = found.client.call(applications.SCHEMA, applications.SCHEMA.request())
    show_json(answer.json_schema)


def describe(workflow: str, number: int, output: str) -> None:
    """Show a workflow: what it asks for, by default in its latest version."""
    with platform() as found:
        chosen = found.workflows[workflow]
        chosen = chosen.at(number) if number else chosen
    show(chosen.told, output) if output == "json" else show_sheet(chosen.sheet())


def upload(source: Path, to: str) -> None:
    """Upload a file or a folder; TO is bucket/key, or bucket/folder/ to keep the name (default: your own bucket)."""
    with platform() as found:
        click.echo(found.data.upload(source, to))


def download(path: str, to: Path) -> None:
    """Download bucket/key, or everything below bucket/folder/, to a file or folder here."""
    with platform() as found:
        click.echo(found.data.download(path, to))


def _command(callback: Callable[..., Any], *parameters: click.Parameter) -> click.Command:
    return click.Command(callback.__name__, params=list(parameters), callback=callback, help=callback.__doc__)


_RUN = "workflow_instance_id"
_PATH = click.Path(path_type=Path)

#: Words -> command.
OWN: dict[str, click.Command] = {
    "workflow decide": _command(
        decide,
        argument("workflow"),
        *_placing(),
        click.Option(["--place"], multiple=True, help="only this place, as cluster/queue"),
        OUTPUT,
    ),
    "workflow submit": _command(
        submit,
        argument("workflow", required=False),
        *_placing(),
        click.Option(["--decision"], default="", help="id of a decision made before"),
        click.Option(["--place"], default="", help="where to run, as cluster/queue (default: the best)"),
        click.Option(["--label", "-l"], type=PairType(text=True), multiple=True, help="a label, name=value"),
        click.Option(["--follow", "-f"], is_flag=True, help="follow it until it has ended"),
        OUTPUT,
    ),
    "workflow publish": _command(
        publish,
        click.Argument(["file"], type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.Option(
            ["--visibility"], type=click.Choice(["private", "organisation", "shared"]), help="who may submit it"
        ),
        OUTPUT,
    ),
    "workflow schema": _command(schema),
    "workflow show": _command(
        describe,
        argument("workflow"),
        click.Option(["--version", "number"], type=int, default=0, help="which version (default: latest)"),
        OUTPUT,
    ),
    "run watch": _command(watch, argument(_RUN), OUTPUT),
    "run logs": _command(
        logs,
        argument(_RUN),
        click.Argument(["step"], required=False),
        click.Option(["--index"], type=int, default=0, help="which job of a step that has several"),
        click.Option(["--error", "-e"], is_flag=True, help="stderr instead of stdout"),
        click.Option(["--follow", "-f"], is_flag=True, help="go on while it grows"),
    ),
    "run report": _command(report, argument(_RUN), OUTPUT),
    "run fetch": _command(fetch, argument(_RUN), click.Argument(["to"], type=_PATH, default=".")),
    "data upload": _command(
        upload,
        click.Argument(["source"], type=click.Path(exists=True, path_type=Path)),
        click.Argument(["to"], default=""),
    ),
    "data download": _command(download, click.Argument(["path"]), click.Argument(["to"], type=_PATH, default=".")),
}
