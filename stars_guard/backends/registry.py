"""Backends by name: ours and those of other packages, all found as entry points of ``stars_guard.backends``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from stars_guard.backends.base import LoadableBackend
from stars_guard.core.registry import Registry
from stars_guard.errors import InputError

__all__ = ["BACKENDS"]


def _problem(part: Any) -> str | None:
    if not (isinstance(part, type) and issubclass(part, LoadableBackend)):
        return "it is not a subclass of stars_guard.backends.LoadableBackend"
    options = getattr(part, "options_model", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return "it has no options_model, a pydantic model of its options"
    return None


BACKENDS: Registry[type[LoadableBackend[Any]]] = Registry("stars_guard.backends", "backend", _problem, InputError)
"""Every backend that is installed. A name is that of its entry point."""
