"""The contract as one HTML page: self-contained, without a script, readable without internet."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
code { font: 14px/1.4 ui-monospace, monospace } section { border-top: 1px solid #d0d7de; padding: .6rem 0 }
h3 { margin: .3rem 0; font-size: 1rem } .method { display: inline-block; min-width: 4.2rem; font-weight: 700 }
table { border-collapse: collapse; width: 100% }
td { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top }
nav a { margin-right: 1rem } .right { color: #57606a }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } section { border-color: #30363d } a { color: #79b8ff }
}
"""


def page(told: Schema) -> str:
    """The OpenAPI document `told` as HTML."""
    by_tag: dict[str, list[str]] = {}
    for path, methods in told["paths"].items():
        for method, described in methods.items():
            by_tag.setdefault(described["tags"][0], []).append(_section(path, method, described, told))
    links = "".join(f'<a href="#{tag}">{tag}</a>' for tag in by_tag)
    parts = "".join(f'<h2 id="{tag}">{tag}</h2>{"".join(sections)}' for tag, sections in by_tag.items())
    title = f"HEROES API {html.escape(told['info']['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>Send <code>Authorization: Bearer TOKEN</code>; "
        f"<code>GET openapi.json</code> is this page for programs.</p><nav>{links}</nav>{parts}</body></html>"
    )


def _section(path: str, method: str, described: Schema, told: Schema) -> str:
    rows = "".join(_row(*each, told) for each in _fields(described, told))
    answer = described["responses"]["200"]["content"].get("application/json", {}).get("schema")
    others = list(described["responses"].values())[1:]
    kinds = [each.split(":")[0] for response in others for each in response["description"].split("; ")]
    errors = f" Errors: {', '.join(kinds)}." if kinds else ""
    return (
        f'<section id="{described["operationId"]}"><h3><span class="method">{method.upper()}</span>'
        f"<code>{html.escape(path)}</code></h3><p>{html.escape(described['summary'])} "
        f'<span class="right">Right: {", ".join(described["x-heroes-right"])}.</span></p>'
        f"{'<table>' + rows + '</table>' if rows else ''}"
        f"<p>Answers {html.escape(type_of(answer)) if answer else 'bytes'}.{errors}</p></section>"
    )


def _fields(described: Schema, told: Schema) -> Iterator[tuple[str, str, Schema, bool]]:
    for each in described["parameters"]:
        if each["in"] != "header":
            yield each["name"], each["in"], each["schema"], each["required"]
    content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = _resolve(content.get("schema", {}), told)
    for name, each in schema.get("properties", {}).items():
        yield name, "body", each, name in schema.get("required", [])


def _row(name: str, place: str, schema: Schema, required: bool, told: Schema) -> str:
    about = html.escape(schema.get("description") or _resolve(schema, told).get("description", ""))
    cells = (f"<code>{name}</code>{' *' if required else ''}", place, html.escape(type_of(schema)), about)
    return f"<tr>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"


def _resolve(schema: Schema, told: Schema) -> Schema:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Schema = told["components"]["schemas"].get(name, {}) if name else schema
    return found


def type_of(schema: Schema) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema or "const" in schema:
        return " | ".join(repr(each) for each in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " | ".join(type_of(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))
