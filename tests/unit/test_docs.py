"""The documentation is in step with the code: links, names of files, commands, dependencies, nothing from elsewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"`((?:native|kernels|spawners|extensions|hub|tests|docs)/[\w./-]+)`")
TARGET = re.compile(r"`make ([a-z-]+)")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there."""
    for link in LINK.findall(page.read_text()):
        if "://" not in link and not link.startswith("mailto:"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_files_exist(page: Path) -> None:
    """Every file or folder of the project that a page names is there."""
    for name in NAMED.findall(page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_make_targets_exist(page: Path) -> None:
    """Every `make` command of a page is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in TARGET.findall(page.read_text()):
        assert target in targets


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody can reach is not there."""
    held: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, str):
            held.append(node)
        elif isinstance(node, list):
            for each in node:
                walk(each)
        elif isinstance(node, dict):
            for each in node.values():
                walk(each)

    walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(held) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])


def test_every_dependency_has_its_reason() -> None:
    """Each package of pyproject.toml has a line in docs/design/dependencies.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    told = (ROOT / "docs/design/dependencies.md").read_text()
    for each in wanted:
        name = re.match(r"[A-Za-z0-9-]+", each)
        assert name is not None
        short = name[0].lower().removeprefix("types-").removeprefix("pytest-")
        assert short in told.lower(), each
