"""Shows answers: as JSON for programs, as a table for people."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from heroes.api.errors import HeroesError
from heroes.api.units import Quantity
from heroes.views import Sheet

#: More columns than this are not readable in a terminal; JSON has them all.
MOST_COLUMNS = 9
#: Cells longer than this are shortened.
MOST_CHARACTERS = 100
#: What people look for first, where an item has more fields than fit; by the item's class.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Budget": ("id", "name", "limit", "posted", "pending", "ends"),
    "Cluster": ("name", "kind", "provider", "status", "disabled", "drained", "unreachable_since", "reason"),
    "Instance": ("id", "template", "state", "project", "place", "jobs", "jobs_done", "cost", "created_at"),
    "Job": ("step", "index", "state", "cluster", "queue", "elapsed", "cost", "energy", "reason"),
    "Queue": ("name", "price", "power", "max_walltime_s", "nodes", "cpus_per_node", "gpus_per_node", "closed"),
}


def show(answer: BaseModel, output: str) -> None:
    """Print an answer."""
    if output == "json":
        sys.stdout.write(answer.model_dump_json(indent=2) + "\n")
        return
    console = _console()
    items = getattr(answer, "items", None)
    if isinstance(items, tuple | list):
        console.print(table(list(items)) if items else Text("none", style="dim"))
        rest = details(answer, without=("items", "next"))
        if rest.row_count:
            console.print(rest)
        following = getattr(answer, "next", None)
        if isinstance(following, str):
            sys.stderr.write(f"There is more: add --all, or --after {shlex.quote(following)}\n")
        return
    console.print(details(answer))


def show_sheet(sheet: Sheet) -> None:
    """Print a table made for people."""
    _console().print(sheet.rich())


def _console() -> Console:
    """As wide as the terminal; wide enough for a table where the output goes elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def show_json(value: Any) -> None:
    """Print plain JSON values."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(items: Sequence[BaseModel]) -> Table:
    """A row for each item, a column for each field that some item fills and that fits a cell."""
    kind = type(items[0])
    wanted = COLUMNS.get(kind.__name__, tuple(kind.model_fields))
    names = [name for name in wanted if any(_is_short(getattr(each, name, None)) for each in items)]
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in names[:MOST_COLUMNS]:
        numeric = all(isinstance(getattr(each, name), int | float | Quantity) for each in items)
        shown.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for each in items:
        shown.add_row(*(cell(getattr(each, name)) for name in names[:MOST_COLUMNS]))
    return shown


def details(answer: BaseModel, without: Sequence[str] = ()) -> Table:
    """A line for each field; lists of values below each other."""
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name in type(answer).model_fields:
        value = getattr(answer, name)
        if value in (None, "", ()) or name in without:
            continue
        shown.add_row(name.replace("_", " "), _nested(value))
    return shown


def _nested(value: Any) -> Any:
    if isinstance(value, tuple | list) and value and all(isinstance(each, BaseModel) for each in value):
        return table(value)
    if isinstance(value, BaseModel) and not _has_own_text(value):
        return details(value)
    if isinstance(value, dict):
        return "\n".join(f"{key}: {cell(each)}" for key, each in value.items())
    return Text(str(value)) if isinstance(value, str) else Text(cell(value, 1000))


def _has_own_text(value: BaseModel) -> bool:
    return type(value).__str__ is not BaseModel.__str__


def _is_short(value: Any) -> bool:
    if value in (None, "", ()):
        return False
    if isinstance(value, BaseModel):
        return _has_own_text(value)
    return not (isinstance(value, tuple | list) and any(isinstance(each, BaseModel) for each in value))


def cell(value: Any, most: int = MOST_CHARACTERS) -> str:
    """A value as short text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        text = ", ".join(cell(each) for each in value)
    elif isinstance(value, dict):
        text = ", ".join(f"{key}={cell(each)}" for key, each in value.items())
    else:
        text = str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def show_error(error: HeroesError) -> None:
    """What is wrong and what to do, on standard error."""
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")
