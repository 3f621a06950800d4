"""A module: operations of the contract bound to functions, and what it wants to hear of.

    MODULE = Module("budget", api.OPERATIONS)

    @MODULE.bind(api.PREVIEW)
    def preview(call: Call, request: api.Preview) -> api.PreviewAnswer:
        with call.read() as work:
            return service.preview(work, call.caller, request)

The right is bound to the operation, never to a handler's class, so that no handler can inherit another's.
"""

from __future__ import annotations

import hashlib
import hmac
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, TypeVar

import sqlalchemy as sa

from heroes.api.errors import Conflict, InvalidSpec, NotAllowed, NotSignedIn
from heroes.api.model import Model
from heroes.api.registry import ANYBODY, SIGNED_IN, Operation
from heroes_core.outbox import Subscriber
from heroes_core.store import canonical, idempotency
from heroes_core.work import Caller, Database, Work, again

T = TypeVar("T")
Function = Callable[["Call", Any], Any]
#: Characters of an idempotency key.
LONGEST_KEY = 100
NOBODY = Caller(organisation="", user="", rights=frozenset())


class Services:
    """Long-lived things that functions need beside the database, found by their type or by the protocol they offer."""

    def __init__(self, *things: object) -> None:
        self._things: dict[type[Any], object] = {}
        for thing in things:
            self.offer(type(thing), thing)

    def offer(self, kind: type[Any], thing: object) -> None:
        """Let `thing` be found as `kind`, which may be a protocol."""
        self._things[kind] = thing

    def get(self, kind: type[T]) -> T:
        """The thing of that type; a LookupError is a mistake of whoever started this process."""
        found = self._things.get(kind)
        if found is None:
            raise LookupError(f"nothing that is a {kind.__name__} was given to this process")
        return typing.cast("T", found)


@dataclass
class Call:
    """One request on its way through a function."""

    caller: Caller
    database: Database
    services: Services
    request_id: str = ""
    #: The bytes of an upload, as they come.
    upload: Iterator[bytes] | None = None
    #: In an operation that waits: no time is left, answer with what there is.
    final: bool = True
    #: What the operation's `prepare` found, outside any transaction.
    prepared: Any = None
    _open: Work | None = None

    @contextmanager
    def read(self) -> Iterator[Work]:
        """A unit of work that only reads."""
        if self._open is not None:
            yield self._open
            return
        with self.database.read() as work:
            yield work

    @contextmanager
    def write(self) -> Iterator[Work]:
        """A unit of work; in an operation that creates, the one that keeps the answer for its idempotency key."""
        if self._open is not None:
            yield self._open
            return
        with self.database.write() as work:
            yield work

    def service(self, kind: type[T]) -> T:
        """The long-lived thing of that type."""
        return self.services.get(kind)


@dataclass(frozen=True)
class Bound:
    """An operation and the function that answers it. `waits`: None means nothing yet, ask again after a commit.
    `prepare` reads what is not in the database (object store, engine) before the function's transaction begins."""

    operation: Operation
    function: Function
    waits: bool = False
    prepare: Function | None = None


@dataclass
class Module:
    """The operations of one module, and its subscriptions: {kind of news: function(work, news)}."""

    name: str
    operations: tuple[Operation, ...]
    subscriptions: Mapping[str, Subscriber] = field(default_factory=dict)
    bound: dict[str, Bound] = field(default_factory=dict)

    def bind(
        self, operation: Operation, *, waits: bool = False, prepare: Function | None = None
    ) -> Callable[[Function], Function]:
        """Let the decorated function answer `operation`; `call.prepared` holds what `prepare(call, request)` gave."""

        def remember(function: Function) -> Function:
            if operation not in self.operations or operation.name in self.bound:
                raise ValueError(f"{operation.name} is not {self.name}'s to bind, or bound already")
            self.bound[operation.name] = Bound(operation, function, waits, prepare)
            return function

        return remember

    def check(self) -> None:
        """Every declared operation is bound; else the process does not start."""
        missing = [each.name for each in self.operations if each.name not in self.bound]
        if missing:
            raise ValueError(f"{self.name} declares {missing} and binds no function to them")


def installed_modules() -> list[Module]:
    """The modules of the entry-point group `heroes.modules`, core first, each whole."""
    from heroes_core.handlers import MODULE as CORE

    modules = [CORE, *(each.load() for each in entry_points(group="heroes.modules"))]
    for module in modules:
        module.check()
    return modules


def admit(operation: Operation, caller: Caller | None) -> Caller:
    """The caller, if the operation's right admits them. Everything that is not allowed is denied."""
    if ANYBODY in operation.rights:
        return caller or NOBODY
    if caller is None:
        raise NotSignedIn("No token came with the request.", hint="Sign in with `heroes login`, and send the token.")
    if SIGNED_IN in operation.rights or caller.rights & set(operation.rights):
        return caller
    needed = " or ".join(operation.rights)
    raise NotAllowed(
        f"{operation.name} needs the right {needed}, which {caller.user} does not have in {caller.organisation}.",
        hint="Ask an administrator of the organisation for a role that gives it.",
        detail={"operation": operation.name, "needs": list(operation.rights)},
    )


def perform(bound: Bound, call: Call, request: Model, key: str = "") -> Any:
    """Answer one request; with an idempotency `key`, the same answer to the same request, for ever the same effect."""
    keyed = bound.operation.creates and bool(key)
    if keyed and len(key) > LONGEST_KEY:
        raise InvalidSpec(f"The idempotency key has {len(key)} characters.", hint=f"Send at most {LONGEST_KEY}.")
    if bound.prepare is not None:
        answer = again(lambda: _answered_before(bound, call, request, key)) if keyed else None
        if answer is not None:
            return answer
        call.prepared = bound.prepare(call, request)
    if bound.operation.upload:  # what was read of the body is gone: only who sends it can begin anew
        return bound.function(call, request)

    def act() -> Any:
        return _perform_once(bound, call, request, key) if keyed else bound.function(call, request)

    try:
        return again(act)
    except sa.exc.IntegrityError:  # somebody was quicker: their answer to this key is ours, their name is taken
        return again(act)


def _answered_before(bound: Bound, call: Call, request: Model, key: str) -> Any:
    """The answer kept for this key: what a repeated request names may have been used up by the first one."""
    with call.database.read() as work:
        return _kept(work, bound, call, request, key)


def _perform_once(bound: Bound, call: Call, request: Model, key: str) -> Any:
    caller = call.caller
    with call.database.write() as work:
        kept = _kept(work, bound, call, request, key)
        if kept is not None:
            return kept
        call._open = work
        try:
            answer = bound.function(call, request)
        finally:
            call._open = None
        row = {"organisation": caller.organisation, "user": caller.user, "operation": bound.operation.name, "key": key}
        told = {"asked": _digest(call.database, request), "answer": answer.model_dump_json()}
        work.execute(sa.insert(idempotency).values(**row, **told, at=work.now))
        return answer


def _kept(work: Work, bound: Bound, call: Call, request: Model, key: str) -> Any:
    caller = call.caller
    same = sa.and_(
        idempotency.c.organisation == caller.organisation,
        idempotency.c.user == caller.user,
        idempotency.c.operation == bound.operation.name,
        idempotency.c.key == key,
    )
    row = work.execute(sa.select(idempotency.c.asked, idempotency.c.answer).where(same)).one_or_none()
    if row is None:
        return None
    if row.asked != _digest(call.database, request):
        raise Conflict(f"The idempotency key {key} came before with another request.", hint="Use a fresh key.")
    return bound.operation.response.model_validate_json(row.answer)


def _digest(database: Database, request: Model) -> str:
    """What tells one request from another. Keyed, because some hold a password, which a plain hash would give away to
    whoever reads the store and guesses."""
    text = canonical(request.model_dump(mode="json"))
    return hmac.new(database.audit_key, b"idempotency " + text.encode(), hashlib.sha256).hexdigest()


def forget_answers(work: Work, before: Any) -> None:
    """Delete the answers kept for idempotency keys older than `before`."""
    work.execute(sa.delete(idempotency).where(idempotency.c.at < before))
