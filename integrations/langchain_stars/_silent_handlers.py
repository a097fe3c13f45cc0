"""Handlers that hear nothing. They stand where LangChain would put handlers that print or send what they hear."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, StdOutCallbackHandler
from langchain_core.tracers.stdout import ConsoleCallbackHandler

__all__ = ["SILENT", "Silent"]


def _hear_nothing(self: Any, *args: Any, **kwargs: Any) -> None:
    """Takes any event, and does nothing."""


class Silent(BaseCallbackHandler):
    """Hears nothing, whichever event a version of LangChain has."""

    run_inline = True

    def __init_subclass__(cls) -> None:
        for name in dir(BaseCallbackHandler) + dir(cls):
            if name.startswith("on_"):
                setattr(cls, name, _hear_nothing)


class _SilentConsole(Silent, ConsoleCallbackHandler):
    """In the place of what `set_debug` adds."""


class _SilentOutput(Silent, StdOutCallbackHandler):
    """In the place of what `set_verbose` adds."""


SILENT: tuple[Silent, ...] = (_SilentConsole(), _SilentOutput())
"""LangChain adds no handler of a class that is there already."""
