"""Small arithmetic over a template's parameters: read by Python's own parser, evaluated here, node by node.

Numbers, parameters, `+ - * / // %`, comparisons, `a if c else b`, `and or not`, `min max ceil floor round len`.
There is no power, no attribute, no subscript and no other call; text, tree and every intermediate value are bounded.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from heroes.api.errors import InvalidSpec

MAX_TEXT = 500
MAX_NODES = 150
MAX_VALUE = 10**15

Value = int | float | bool | str | tuple[Any, ...]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALL: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
}
FUNCTIONS = frozenset(_CALL) | {"len"}
_LANGUAGE = "Use numbers, parameters, + - * / // %, comparisons, if/else, and min max ceil floor round len."


def read(text: str, field: str) -> ast.expr:
    """The tree of `text`; InvalidSpec names `field` where it is too long, too deep or no expression."""
    if len(text) > MAX_TEXT:
        raise InvalidSpec(f"{field}: the expression has {len(text)} characters", hint=f"Keep it below {MAX_TEXT}.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(text, field, f"cannot be read: {error}") from None
    if sum(1 for _ in ast.walk(tree)) > MAX_NODES:
        raise _refused(text, field, f"has more than {MAX_NODES} parts")
    return tree


def names(text: str, field: str) -> frozenset[str]:
    """The parameters that `text` reads."""
    found = {node.id for node in ast.walk(read(text, field)) if isinstance(node, ast.Name)}
    return frozenset(found) - FUNCTIONS


def evaluate(text: str, values: Mapping[str, Value], field: str) -> int | float:
    """The number that `text` gives for these parameters; InvalidSpec names `field` and the expression."""
    try:
        result = _Reading(text, values, field).of(read(text, field))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise _refused(text, field, f"cannot be computed: {error}") from None
    if isinstance(result, bool):
        return int(result)
    if not isinstance(result, int | float):
        raise _refused(text, field, f"gives {result!r}, which is no number")
    return result


def whole(text: int | str, values: Mapping[str, Value], field: str) -> int:
    """`text` as a whole number, rounded up: half a core is one core."""
    return text if isinstance(text, int) else math.ceil(evaluate(text, values, field))


class _Reading:
    """One expression being evaluated."""

    def __init__(self, text: str, values: Mapping[str, Value], field: str) -> None:
        self.text, self.values, self.field = text, values, field

    def of(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return self._bounded(value)
            case ast.Name(id=name):
                return self._named(name)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._bounded(_BINARY[type(op)](self._number(left), self._number(right)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._number(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self.of(operand)
            case ast.BoolOp(op=op, values=parts):
                truths = (bool(self.of(part)) for part in parts)
                return all(truths) if isinstance(op, ast.And) else any(truths)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.of(body if self.of(test) else orelse)
            case ast.Compare():
                return self._compared(node)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
                return self._called(name, arguments)
        raise _refused(self.text, self.field, f"holds {ast.unparse(node)!r}, which is not allowed")

    def _named(self, name: str) -> Value:
        if name not in self.values:
            known = ", ".join(sorted(self.values)) or "none"
            raise _refused(self.text, self.field, f"names {name!r}, which is no parameter (they are: {known})")
        return self.values[name]

    def _number(self, node: ast.expr) -> int | float:
        value = self.of(node)
        if not isinstance(value, int | float):
            raise _refused(self.text, self.field, f"computes with {value!r}, which is no number")
        return value

    def _compared(self, node: ast.Compare) -> bool:
        left = self.of(node.left)
        for op, part in zip(node.ops, node.comparators, strict=True):
            if type(op) not in _COMPARE:
                raise _refused(self.text, self.field, f"holds {ast.unparse(node)!r}, which is not allowed")
            right = self.of(part)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _called(self, name: str, arguments: list[ast.expr]) -> Value:
        if name == "len":
            values = [self.of(argument) for argument in arguments]
            if len(values) != 1 or not isinstance(values[0], tuple | str):
                raise _refused(self.text, self.field, "takes len() of something that is neither list nor text")
            return len(values[0])
        return self._bounded(_CALL[name](*[self._number(argument) for argument in arguments]))

    def _bounded(self, value: Any) -> Value:
        if isinstance(value, int | float) and not -MAX_VALUE <= value <= MAX_VALUE:
            raise _refused(self.text, self.field, f"grows to {value:.3g}, beyond {MAX_VALUE:.0e}")
        bounded: Value = value
        return bounded


def _refused(text: str, field: str, why: str) -> InvalidSpec:
    return InvalidSpec(
        f"{field}: the expression {text!r} {why}", hint=_LANGUAGE, detail={"field": field, "value": text}
    )
