"""The typed client, made from the contract: one method for each operation, raising what the server raised.

client = Client(url, token)
client.workflow.instances(limit=5)        # the operation workflow.instances; keyword arguments are request fields
client.call(LIST, ListInstances(limit=5))  # the same, typed
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from heroes.api import contract
from heroes.api.ids import new_ulid
from heroes.api.model import Model
from heroes.api.registry import Operation, parse
from heroes.transport import CHUNK, Sending, Transport


class Client:
    """Calls operations. Groups of the contract are attributes, operations their methods."""

    def __init__(self, url: str, token: str = "", *, timeout: float = 30.0) -> None:
        self.transport = Transport(url, token, timeout=timeout)

    def close(self) -> None:
        """Give the connections back."""
        self.transport.close()

    def call(
        self, operation: Operation, request: Model, *, key: str = "", content: Iterable[bytes] | None = None
    ) -> Any:
        """Send one request; the operation's response. `key` is the idempotency key of a creation (a fresh one when
        empty), `content` the body of an upload."""
        sending = prepare(operation, request, key=key, content=content)
        wait = getattr(request, "wait", None)
        timeout = float(wait) + 30 if isinstance(wait, int | float) and not isinstance(wait, bool) else None
        return operation.response.model_validate_json(self.transport.send(sending, timeout=timeout) or b"{}")

    @contextmanager
    def download(self, operation: Operation, request: Model) -> Iterator[Download]:
        """The bytes of a download, as they come."""
        with self.transport.stream(prepare(operation, request)) as response:
            length = response.headers.get("Content-Length", "")
            yield Download(response.iter_bytes(CHUNK), int(length) if length.isdigit() else None)

    def pages(self, operation: Operation, request: Model) -> Iterator[Any]:
        """Every item of a list, page after page."""
        while True:
            page = self.call(operation, request)
            yield from page.items
            if not page.next:
                return
            request = request.model_copy(update={"after": page.next})

    def __getattr__(self, name: str) -> Group:
        if name in groups():
            return Group(self, name)
        raise AttributeError(f"the contract has no group {name!r}; there are {', '.join(groups())}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *groups()]


@dataclass(frozen=True)
class Download:
    """The parts of a download, and its size in bytes where the server knows it."""

    parts: Iterator[bytes]
    size: int | None


@dataclass(frozen=True)
class Group:
    """The operations whose names begin alike."""

    client: Client
    name: str

    def __getattr__(self, name: str) -> Any:
        whole = f"{self.name}.{name}"
        operation = _methods().get(whole)
        if operation is not None:
            return Method(self.client, operation)
        if any(each.startswith(f"{whole}.") for each in _methods()):
            return Group(self.client, whole)
        raise AttributeError(f"the contract has no operation {whole}")

    def __dir__(self) -> list[str]:
        begin = f"{self.name}."
        return sorted({each.removeprefix(begin).partition(".")[0] for each in _methods() if each.startswith(begin)})


class Method:
    """An operation to call: keyword arguments are the fields of its request."""

    def __init__(self, client: Client, operation: Operation) -> None:
        self._client, self._operation = client, operation
        self.__doc__ = operation.summary
        self.__signature__ = signature(operation)

    def __call__(self, **fields: Any) -> Any:
        """The response; of a download, a context manager that gives its bytes. `content` is the body of an upload."""
        content = fields.pop("content", None)
        request = parse(self._operation.request, fields)
        if self._operation.download:
            return self._client.download(self._operation, request)
        return self._client.call(self._operation, request, content=content)

    def __repr__(self) -> str:
        return f"<{self._operation.name}{self.__signature__}: {self._operation.summary}>"


@cache
def _methods() -> dict[str, Operation]:
    """Operations by name, as Python can write it."""
    return {name.replace("-", "_"): operation for name, operation in contract.by_name().items()}


def groups() -> list[str]:
    """First words of the operations' names."""
    return sorted({name.partition(".")[0] for name in _methods()})


def signature(operation: Operation) -> inspect.Signature:
    """What `Method` takes and gives."""
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
            annotation=field.annotation,
        )
        for name, field in operation.request.model_fields.items()
    ]
    return inspect.Signature(parameters, return_annotation=operation.response)


def prepare(operation: Operation, request: Model, *, key: str = "", content: Iterable[bytes] | None = None) -> Sending:
    """How `request` travels: by path, query or body, as `heroes.api.registry` says."""
    values = request.model_dump(mode="json", exclude_unset=True, by_alias=True)
    path = operation.path
    for name in operation.path_fields:
        path = path.replace("{" + name + "}", quote(_text(getattr(request, name)), safe=""))
        values.pop(name, None)
    headers = {"Idempotency-Key": key or new_ulid()} if operation.creates else {}
    return Sending(
        operation.method,
        path,
        query=[] if operation.in_body else _query(values),
        body=values if operation.in_body else None,
        content=content,
        headers=headers,
        repeatable=operation.method == "GET" or operation.creates,
    )


def _query(values: dict[str, Any]) -> list[tuple[str, str | int | float | bool | None]]:
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
    return [(name, _text(each)) for name, value in lists.items() for each in value if each is not None]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
