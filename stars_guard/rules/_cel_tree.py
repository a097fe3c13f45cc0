"""The syntax tree of a compiled condition.

The library gives it as a serialized ``cel.expr.CheckedExpr`` (the specification's checked.proto and syntax.proto), in
the wire format of protocol buffers. Only what is asked for here is read: which names, fields and functions it uses.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Call",
    "Const",
    "Expr",
    "Ident",
    "Listed",
    "Loop",
    "Path",
    "Select",
    "comparisons",
    "parse",
    "paths",
    "walk",
]

Path = tuple[str | int, ...]
"""A variable, and the fields and indexes that lead to a part of it: ``("args", "to", 0)``."""


@dataclass(frozen=True, slots=True)
class Const:
    """A literal: None, a truth value, a number, a text or bytes."""

    value: Any


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """A field of something: ``args.amount``; or, if ``test``, whether it is there: ``has(args.amount)``."""

    operand: Expr
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function, an operator (``_>_``, ``_[_]``) or, with a target, a member function."""

    function: str
    target: Expr | None
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """A list or a map, whose parts are what matters."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What a macro such as ``exists`` is expanded to. ``names`` stand for parts of ``over`` inside ``inner``."""

    names: tuple[str, ...]
    over: Expr
    inner: tuple[Expr, ...]


Expr = Const | Ident | Select | Call | Listed | Loop


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all in it."""
    yield expr
    for part in children(expr):
        yield from walk(part)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions right inside of one."""
    match expr:
        case Select():
            return (expr.operand,)
        case Call():
            return (*((expr.target,) if expr.target is not None else ()), *expr.args)
        case Listed():
            return expr.items
        case Loop():
            return (expr.over, *expr.inner)
        case _:
            return ()


def paths(expr: Expr, hidden: frozenset[str] = frozenset()) -> Iterator[Path]:
    """What an expression reads of its variables, each as far as it is written out: ``args.to[0]``.

    Args:
        hidden: names that macros have given to something else.
    """
    if (path := _path(expr)) is not None:
        if path[0] not in hidden:
            yield path
        return
    if isinstance(expr, Loop):
        yield from paths(expr.over, hidden)
        for inner in expr.inner:
            yield from paths(inner, hidden | {*expr.names})
        return
    for part in children(expr):
        yield from paths(part, hidden)


def comparisons(expr: Expr, hidden: frozenset[str] = frozenset()) -> Iterator[tuple[Path, Any]]:
    """What an expression reads and compares with a literal, or looks for in a list of them, and each literal."""
    if isinstance(expr, Loop):
        yield from comparisons(expr.over, hidden)
        for inner in expr.inner:
            yield from comparisons(inner, hidden | {*expr.names})
        return
    match expr:
        case Call("@in", None, (sought, Listed(items))):
            sides = [(sought, item) for item in items]
        case Call(function, None, (left, right)) if function in _COMPARISONS:
            sides = [(left, right), (right, left)]
        case _:
            sides = []
    for read, other in sides:
        if isinstance(other, Const) and (path := _path(read)) is not None and path[0] not in hidden:
            yield path, other.value
    for part in children(expr):
        yield from comparisons(part, hidden)


_COMPARISONS = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_")


def _path(expr: Expr) -> Path | None:
    match expr:
        case Ident(name):
            return (name,)
        case Select(operand, field):
            before = _path(operand)
            return (*before, field) if before is not None else None
        case Call("_[_]", None, (operand, Const(key))) if type(key) in (str, int):
            before = _path(operand)
            return (*before, key) if before is not None else None
    return None


def parse(serialized: bytes) -> Expr:
    """The tree of a ``CheckedExpr`` inside a ``google.protobuf.Any``."""
    checked = _one(_fields(serialized), 2, b"")
    return _expr(_one(_fields(checked), 4, b""))


_Fields = dict[int, list[Any]]


def _expr(data: bytes) -> Expr:
    fields = _fields(data)
    if 3 in fields:
        return Const(_constant(_fields(fields[3][0])))
    if 4 in fields:
        return Ident(_text(_fields(fields[4][0]), 1))
    if 5 in fields:
        inner = _fields(fields[5][0])
        return Select(_expr(_one(inner, 1, b"")), _text(inner, 2), bool(_one(inner, 3, 0)))
    if 6 in fields:
        inner = _fields(fields[6][0])
        target = _expr(inner[1][0]) if 1 in inner else None
        return Call(_text(inner, 2), target, tuple(map(_expr, inner.get(3, ()))))
    if 7 in fields:
        return Listed(tuple(map(_expr, _fields(fields[7][0]).get(1, ()))))
    if 8 in fields:
        entries = [_fields(entry) for entry in _fields(fields[8][0]).get(2, ())]
        return Listed(tuple(_expr(entry[number][0]) for entry in entries for number in (3, 4) if number in entry))
    if 9 in fields:
        inner = _fields(fields[9][0])
        names = tuple(_text(inner, number) for number in (1, 8, 3) if number in inner)
        return Loop(names, _expr(inner[2][0]), tuple(_expr(inner[n][0]) for n in (4, 5, 6, 7) if n in inner))
    return Const(None)


def _constant(fields: _Fields) -> Any:
    if 2 in fields:
        return bool(fields[2][0])
    if 3 in fields:
        return fields[3][0] - (1 << 64) if fields[3][0] >= 1 << 63 else fields[3][0]
    if 4 in fields:
        return fields[4][0]
    if 5 in fields:
        return struct.unpack("<d", fields[5][0])[0]
    if 6 in fields:
        return fields[6][0].decode()
    return fields[7][0] if 7 in fields else None


def _one(fields: _Fields, number: int, otherwise: Any) -> Any:
    return fields[number][-1] if number in fields else otherwise


def _text(fields: _Fields, number: int) -> str:
    return str(_one(fields, number, b"").decode())


def _fields(data: bytes) -> _Fields:
    """The fields of a message by number, in their order: whole numbers, and bytes for all else."""
    found: _Fields = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: Any
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 1:
                value, at = data[at : at + 8], at + 8
            case 5:
                value, at = data[at : at + 4], at + 4
            case _:
                length, at = _varint(data, at)
                value, at = data[at : at + length], at + length
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
