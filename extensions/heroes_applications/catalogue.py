"""What the distribution brings: the shipped templates, and the JSON Schema that authors write against.

A shipped template is a folder: `template.yaml`, and `files/` whose content becomes the template's `files`.
"""

from __future__ import annotations

import base64
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from heroes.api.applications import Template

SCHEMA_ID = "urn:heroes:schema:workflow-template"


def template_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a template."""
    schema = Template.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema}


def shipped_sources() -> list[str]:
    """The YAML of every shipped template, its files inside."""
    folder = files("heroes_applications") / "shipped"
    found = sorted((each for each in folder.iterdir() if each.is_dir()), key=lambda each: each.name)
    return [_source(each) for each in found if (each / "template.yaml").is_file()]


def shipped_file(template: str, name: str) -> bytes:
    """A file of a shipped template, e.g. the sample data of `job-runtime-model`."""
    return (files("heroes_applications") / "shipped" / template / "files" / name).read_bytes()


def _source(folder: Traversable) -> str:
    text = (folder / "template.yaml").read_text(encoding="utf-8")
    inside = {each.name: _content(each) for each in sorted((folder / "files").iterdir(), key=lambda each: each.name)}
    return text + "\n" + yaml.dump({"files": inside}, Dumper=_Readable, allow_unicode=True, sort_keys=True)


def _content(path: Traversable) -> str | dict[str, str]:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


class _Readable(yaml.SafeDumper):
    """Text of several lines stays text of several lines."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _text)
