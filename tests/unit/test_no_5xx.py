"""Whatever is sent to whichever operation, the server refuses it or answers it: it never fails."""

from __future__ import annotations

import http.client
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from heroes.api.registry import RIGHTS
from heroes.openapi import document
from heroes_clusters.keys import Vault
from heroes_core.module import Services, installed_modules
from heroes_core.runtime import Runtime
from heroes_core.work import Caller, Database
from heroes_data.embedded import EmbeddedServer
from heroes_data.handlers import Data
from heroes_data.ports import ObjectStore
from heroes_identity import service as identity
from heroes_identity.handlers import Identity
from heroes_identity.model import NewPerson, Organisation, Passwords
from heroes_jobs.rpc import Engines
from tests.serving import Served, serve

DOCUMENT = document()
OPERATIONS = sorted(
    (told["operationId"], method.upper(), path, told)
    for path, methods in DOCUMENT["paths"].items()
    for method, told in methods.items()
)  # fmt: skip
#: For each operation; more by hand.
REQUESTS = int(os.environ.get("HEROES_REQUESTS", "60"))
CHEAP = Passwords(memory_kib=8, rounds=1, lanes=1)
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
#: Text that means something to one operation or another, and text that has broken programs before.
TEXTS = (
    "root", "ann", "heroes", "acme", "team", "wing", "engineer", "solution-admin", "openfoam-cavity", "alpha", "cpu",
    "alpha/cpu", "EUR", "2026-03-02T12:00:00Z", "2026-03", ULID, "name=value", "1", "-1.-1", "x" * 63, "long password",
    "", " ", "\x00", "a\x00b", "\ud800", "a\udfffb", "\u202e", "é" * 40, "😀", "x" * 5000, "../../etc/passwd", "a/../b",
    "' OR 1=1 --", "%s%n", "{{parameter}}", "$( )", "\r\nX: y", "null", "NaN", "9" * 40, "-9223372036854775809",
    "1e400", "2026-03-02 x", "2026-03-02 x 1", "2026-03-02T12:00:00+00:00 x 99999999999", "!!bool x", "!!timestamp x",
    "2026-13-45", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "[", "&a [*a]", "\u2028",
    "!!python/object:os.system {}",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 30, 500, 501, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**40, 0.5, 1e-320, 1e308, -0.0, float("nan"),
    float("inf"),
)  # fmt: skip
OTHERS = (None, True, False, [], {}, [[[[]]]], {"": None}, "text", 3.7)


class Everybody:
    """Every token belongs to one user who holds all rights."""

    def remembered(self, token: str) -> Caller | None:
        """The caller with all rights."""
        return Caller("heroes", "root", RIGHTS, platform=True)

    def identify(self, token: str) -> Caller:
        """Never asked."""
        raise AssertionError(token)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Served]:
    """The real server over a store without anything but an organisation and its administrator."""
    folder = tmp_path_factory.mktemp("all")
    (folder / "store.sqlite").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{folder}/store.sqlite", audit_key=b"k")
    with database.write() as work:
        directory = identity.embedded(CHEAP)(work)
        new = Organisation("heroes", "", "platform", "EUR", True, work.now)
        identity.add_organisation(work, directory, "setup", new, "root", "a long password")
        directory.add_person(NewPerson("heroes", "ann", password="a long password"))
    server = EmbeddedServer(folder, "http://store")
    objects = server.store()
    ours = Identity(directories=identity.embedded(CHEAP))
    services = Services(ours, Engines(b"s" * 32), Vault(b"v" * 32), Data(objects, server))
    services.offer(ObjectStore, objects)
    services.offer(EmbeddedServer, server)
    with serve(Runtime(database, Everybody(), services, installed_modules())) as running:
        yield running
    database.close()


class Maker:
    """Makes requests of a schema: mostly right, so that they come far, and wrong in every way."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """A value of the schema, or now and then something else."""
        if self.random.random() < 0.08 or depth > 6:
            return self.random.choice((*OTHERS, *TEXTS, *NUMBERS))
        if "$ref" in schema:
            return self.value(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self.value(self.random.choice(schema[several]), depth)
        if "enum" in schema or "const" in schema:
            return self.random.choice(schema.get("enum", [schema.get("const")]))
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(self.random.randrange(4))]
        if kind in ("integer", "number"):
            inside = [each for each in NUMBERS if each == each and abs(each) != float("inf")]
            low, high = schema.get("minimum", -(10**60)), schema.get("maximum", 10**60)
            fitting = [each for each in inside if low <= each <= high and (kind == "number" or each == int(each))]
            return self.random.choice(fitting or [low])
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind == "null":
            return None
        return self.random.choice(TEXTS) if kind == "string" else self.random.choice((*OTHERS, *TEXTS, *NUMBERS))

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        chosen = {
            name: self.value(each, depth + 1)
            for name, each in schema.get("properties", {}).items()
            if self.random.random() < (0.97 if name in required else 0.6)
        }
        more = schema.get("additionalProperties")
        if isinstance(more, dict) or self.random.random() < 0.03:
            names = self.random.sample(("cells", "mode", "a", "A_b", "\ud800"), self.random.randrange(3))
            chosen |= {name: self.value(more if isinstance(more, dict) else {}, depth + 1) for name in names}
        return chosen

    def request(self, path: str, told: dict[str, Any]) -> tuple[str, bytes | None, dict[str, str]]:
        """Path with query, body, headers."""
        query: list[tuple[str, str]] = []
        headers = {"Authorization": "Bearer any"}
        for each in told["parameters"]:
            if each["in"] == "path":
                path = path.replace("{" + each["name"] + "}", self._quoted(each["schema"]) or "x")
            elif each["in"] == "header":
                headers[each["name"]] = self.random.choice(
                    ("same", "other", "x" * 300, "%00", str(self.random.random()))
                )
            elif each["required"] or self.random.random() < 0.5:
                query.append((each["name"], self._text(each["schema"])))
        if query:
            path += "?" + urlencode(query, encoding="utf-8", errors="surrogatepass")
        return path, self._body(told), headers

    def _body(self, told: dict[str, Any]) -> bytes | None:
        content = told.get("requestBody", {}).get("content", {})
        if "application/octet-stream" in content:
            return self.random.randbytes(self.random.choice((0, 1, 5000)))
        if "application/json" not in content:
            return None
        if self.random.random() < 0.03:
            return self.random.choice((b"", b"{", b"[]", b"\xff\xfe", b"[" * 5000, b"null", b'{"a": 1e999}'))
        return json.dumps(self.value(content["application/json"]["schema"])).encode()

    def _text(self, schema: dict[str, Any]) -> str:
        value = self.value(schema)
        return value if isinstance(value, str) else json.dumps(value)

    def _quoted(self, schema: dict[str, Any]) -> str:
        return quote(self._text(schema), safe="", encoding="utf-8", errors="surrogatepass")


@pytest.mark.parametrize(("name", "method", "path", "told"), OPERATIONS, ids=[each[0] for each in OPERATIONS])
def test_no_request_makes_the_server_fail(
    served: Served, name: str, method: str, path: str, told: dict[str, Any]
) -> None:
    """Each of many requests, right and wrong, is answered with a status below 500; a refusal says what it is."""
    make = Maker(name)
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    for _ in range(REQUESTS if told["parameters"] or "requestBody" in told else 3):
        target, body, headers = make.request(path, told)
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 500, (method, target, body, text)
        if answer.status >= 400:
            error = json.loads(text)["error"]
            assert error["message"], (target, body, text)
    connection.close()
