"""The functions that conditions have besides CEL's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlsplit

import idna
from cel_expr_python import cel

from stars_guard.rules.globs import matches_any
from stars_guard.rules.run import OriginName, OriginOf, RunState

__all__ = ["DECLARATIONS", "FUNCTIONS", "MEMBERS", "during"]

MEMBERS = ("read", "count")
"""Names of the functions of ``run``."""

FUNCTIONS = ("origin", "domain", *MEMBERS)
"""Names of all."""


@dataclass(frozen=True, slots=True)
class _Now:
    """The call that is judged, as the functions see it."""

    run: RunState
    origin: OriginOf | None


_now: ContextVar[_Now] = ContextVar("stars_guard_rules_now")


@contextmanager
def during(run: RunState, origin: OriginOf | None) -> Iterator[None]:
    """While conditions of a call are evaluated."""
    token = _now.set(_Now(run, origin))
    try:
        yield
    finally:
        _now.reset(token)


def _origin(value: Any) -> str:
    trace = _now.get().origin
    found = trace(value) if trace is not None else None
    if found not in get_args(OriginName):
        raise ValueError("the origin is not known")
    return str(found)


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ODD = re.compile(r"[\s\\\x00-\x1f\x7f]")
_ADDRESS = re.compile(r"""(?:mailto:)?[^@,;:<>()\[\]"/?#]+@([^@,;:<>()\[\]"/?#]+)""")
_BARE = re.compile(r"[^@:/?#]+(?::[0-9]+)?(?:[/?#].*)?", re.DOTALL)


def _domain(text: str) -> str:
    """The host of a URL, or the domain of an e-mail address: in lower case, as DNS writes it, without port and user.

    Raises:
        ValueError: there is none, or programs would not agree on which it is.
    """
    if _ODD.search(text):
        raise ValueError("not a URL")
    if address := _ADDRESS.fullmatch(text):
        text = f"//{address[1]}"
    elif not _SCHEME.match(text):
        if not _BARE.fullmatch(text):  # a browser reads http:example.org, and a list of addresses has many domains
            raise ValueError("not a URL")
        text = f"//{text}"
    host = urlsplit(text).hostname
    if not host or "%" in host:
        raise ValueError("not a URL")
    host = host.rstrip(".")
    return host if ":" in host else str(idna.encode(host, uts46=True).decode()) if not host.isascii() else _plain(host)


def _plain(host: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]+", host):
        raise ValueError("not a URL")
    return host


def _read(run: Any, globs: Sequence[str] | str) -> bool:
    return any(call.result is not None and matches_any(call.tool, _globs(globs)) for call in _now.get().run.ran)


def _count(run: Any, globs: Sequence[str] | str) -> int:
    return sum(matches_any(call.tool, _globs(globs)) for call in _now.get().run.ran)


def _globs(globs: Sequence[str] | str) -> tuple[str, ...]:
    return (globs,) if isinstance(globs, str) else tuple(map(str, globs))


def _declared(name: str, parameters: Sequence[Sequence[Any]], returns: Any, function: Callable[..., Any]) -> Any:
    """One overload for each list of parameters, because values of the type dyn are dispatched by what they are."""
    is_member = name in MEMBERS
    overloads = [
        cel.Overload(f"{name}_{number}", returns, list(kinds), is_member, function)
        for number, kinds in enumerate(parameters)
    ]
    return cel.FunctionDecl(name, overloads)


def _declarations() -> list[Any]:
    kind = cel.Type
    any_, run = kind.DYN, kind.Map(kind.STRING, kind.DYN)
    scalars = [kind.STRING, kind.INT, kind.UINT, kind.DOUBLE, kind.BOOL, kind.NULL]
    return [
        _declared("origin", [[one] for one in (*scalars, kind.List(any_), kind.Map(any_, any_))], kind.STRING, _origin),
        _declared("domain", [[kind.STRING]], kind.STRING, _domain),
        _declared("read", [[run, kind.List(kind.STRING)], [run, kind.STRING]], kind.BOOL, _read),
        _declared("count", [[run, kind.List(kind.STRING)], [run, kind.STRING]], kind.INT, _count),
    ]


DECLARATIONS = _declarations()
