"""Things show themselves: as text, as HTML with everything escaped, or by an installed view."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from heroes import views
from heroes.views import Rows, Sheet, Viewable

SHEET = Sheet(
    "<title>", ("name", "n"), (("<b>x</b>", "1"), ("y & z", "20")), ("note <i>",), marked=0, figures=frozenset({"n"})
)


class Thing(Viewable):
    """A thing with a view."""

    kind = "thing"

    def sheet(self) -> Sheet:
        """The sheet."""
        return SHEET


def draw(thing: Thing) -> dict[str, str]:
    """An installed view."""
    return {"text/html": f"drawn {thing.kind}"}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    views.view.cache_clear()


def test_html_is_escaped() -> None:
    """No text of a table becomes markup: much of it comes from others."""
    shown = SHEET.html()
    for told in ("&lt;title&gt;", "&lt;b&gt;x&lt;/b&gt;", "y &amp; z", "note &lt;i&gt;"):
        assert told in shown
    assert "<b>x" not in shown
    assert "<td style='text-align:right'>20</td>" in shown


def test_text_is_no_markup() -> None:
    """Square brackets in a text stay what they are."""
    assert "[red]x[/red]" in Sheet("", ("a",), (("[red]x[/red]",),)).text()


def test_text_has_every_row() -> None:
    """Title, columns, rows and notes are in the text."""
    lines = SHEET.text().splitlines()
    assert lines[0].strip() == "<title>"
    assert lines[-1].strip() == "note <i>"
    assert len(lines) == 5


def test_without_a_view_there_are_text_and_html() -> None:
    """Where nothing is installed a thing shows its sheet."""
    assert Thing()._repr_mimebundle_() == {"text/plain": SHEET.text(), "text/html": SHEET.html()}
    assert repr(Thing()) == SHEET.text()


def test_an_installed_view_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers a view of a kind draws the things of that kind."""
    entry = EntryPoint("thing", f"{__name__}:draw", views.GROUP)
    monkeypatch.setattr(views, "entry_points", lambda **_which: EntryPoints([entry]))
    assert Thing()._repr_mimebundle_() == {"text/html": "drawn thing"}


def test_rows_are_a_list() -> None:
    """Rows are a list of things and a table of some of their fields."""
    rows = Rows([1, 22], "numbers", plain=str, twice_as_much=lambda n: str(2 * n))
    assert rows == [1, 22]
    assert "twice as much" in repr(rows)
    assert "44" in repr(rows)
