"""How things show themselves: as text in a terminal, as a table in a notebook, or as a widget where one is installed.

A package offers a view by the entry-point group `heroes.views`: its name is the kind of thing ("options", "run", …),
the object a function that takes the thing and gives a MIME bundle.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar

GROUP = "heroes.views"
Bundle = Mapping[str, Any]


@cache
def view(kind: str) -> Callable[[Any], Bundle] | None:
    """The installed view of a kind of thing."""
    found = sorted(entry_points(group=GROUP, name=kind), key=lambda entry: entry.value)
    if not found:
        return None
    loaded: Callable[[Any], Bundle] = found[0].load()
    return loaded


@dataclass(frozen=True)
class Sheet:
    """A table to be shown: cells are text; `marked` is the row that stands out; notes come below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    marked: int | None = None
    #: Columns of figures, aligned to the right.
    figures: frozenset[str] = frozenset()

    def text(self, width: int | None = None) -> str:
        """For a terminal, without colours."""
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=width or 120, color_system=None).print(self.rich())
        return stream.getvalue().rstrip()

    def rich(self) -> Any:
        """For rich."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(self.columns))
        for column in self.columns:
            table.add_column(Text(column), justify="right" if column in self.figures else "left", overflow="fold")
        for number, row in enumerate(self.rows):
            table.add_row(*(Text(each) for each in row), style="bold green" if number == self.marked else "")
        title = [Text(self.title, style="bold")] if self.title else []
        return Group(*title, table, *(Text(note) for note in self.notes))

    def html(self) -> str:
        """For a notebook. Every text is escaped: much of it comes from others."""
        head = "".join(f"<th style='text-align:left'>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(self._html_row(number, row) for number, row in enumerate(self.rows))
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        title = f"<p><b>{html.escape(self.title)}</b></p>" if self.title else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div class='heroes'>{title}{table}{notes}</div>"

    def _html_row(self, number: int, row: tuple[str, ...]) -> str:
        weight = ";font-weight:bold" if number == self.marked else ""
        sides = ("right" if column in self.figures else "left" for column in self.columns)
        pairs = zip(sides, row, strict=True)
        cells = "".join(f"<td style='text-align:{side}{weight}'>{html.escape(each)}</td>" for side, each in pairs)
        return f"<tr>{cells}</tr>"


class Viewable:
    """Something that shows itself. `kind` is the name under which a view may be installed."""

    kind: ClassVar[str] = ""

    def sheet(self) -> Sheet:
        """What is to be seen."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.sheet().text()

    def _repr_html_(self) -> str:
        return self.sheet().html()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        installed = view(self.kind)
        if installed is not None:
            return installed(self)
        sheet = self.sheet()
        return {"text/plain": sheet.text(), "text/html": sheet.html()}


class Rows(list[Any], Viewable):
    """A list that shows itself as a table of some of its items' fields."""

    def __init__(self, items: Any, title: str, **columns: Callable[[Any], str]) -> None:
        super().__init__(items)
        self._title, self._columns = title, columns

    def sheet(self) -> Sheet:
        """A row for each item."""
        rows = tuple(tuple(show(item) for show in self._columns.values()) for item in self)
        return Sheet(self._title, tuple(name.replace("_", " ") for name in self._columns), rows)

    __repr__ = Viewable.__repr__
