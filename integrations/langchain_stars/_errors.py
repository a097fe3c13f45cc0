"""Our errors as LangChain's, at its doors: middleware that summarises, retries or falls back asks for its own kinds.

An error stays what it is, and is one of LangChain's kinds too, as far as the installed langchain-core has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core import exceptions

from stars_guard.errors import (
    BackendError,
    BackendUnavailable,
    ContextTooLong,
    GuardVerdict,
    InputError,
    StarsGuardError,
)

__all__ = ["langchain_errors"]

_KINDS: tuple[tuple[type[StarsGuardError], str], ...] = (
    (ContextTooLong, "ContextOverflowError"),
    (InputError, "ModelInvalidRequestError"),
    (BackendUnavailable, "ModelConnectionError"),
    (BackendError, "ModelError"),
    (GuardVerdict, "ModelRefusalError"),
)
"""The first that an error is counts."""


@contextmanager
def langchain_errors() -> Iterator[None]:
    """Errors that leave it are LangChain's too.

    Raises:
        StarsGuardError: as it was raised, of a kind of LangChain's besides.
    """
    try:
        yield
    except StarsGuardError as exc:
        if (kind := _kind_of(type(exc))) is None:
            raise
        raise _remade(kind, exc.args, vars(exc)) from exc


def _kind_of(kind: type[StarsGuardError]) -> type[StarsGuardError] | None:
    """A subclass of a kind of error that is LangChain's too; None where LangChain has no word for it."""
    if kind not in _made:
        _made[kind] = _make(kind)
    return _made[kind]


_made: dict[type[StarsGuardError], type[StarsGuardError] | None] = {}


def _make(kind: type[StarsGuardError]) -> type[StarsGuardError] | None:
    for ours, name in _KINDS:
        theirs: Any = getattr(exceptions, name, None)
        if issubclass(kind, ours) and theirs is not None and not issubclass(kind, theirs):
            members = {
                "__module__": kind.__module__,
                "__qualname__": kind.__qualname__,
                "__doc__": kind.__doc__,
                "__reduce__": lambda self: (_unpickled, (kind, self.args, vars(self))),
                "is_retryable": kind.retryable,
                "raw_message": None,
            }
            return type(kind.__name__, (kind, theirs), members)
    return None


def _remade(kind: type[StarsGuardError], args: tuple[Any, ...], fields: dict[str, Any]) -> StarsGuardError:
    made = kind.__new__(kind, *args)
    made.__dict__.update(fields)
    made.args = args
    return made


def _unpickled(kind: type[StarsGuardError], args: tuple[Any, ...], fields: dict[str, Any]) -> StarsGuardError:
    return _remade(_kind_of(kind) or kind, args, fields)
