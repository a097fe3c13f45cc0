"""A guardrail that works while the model writes: STARS decoding under a policy, with an audit record."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stars_guard.errors import StarsGuardError

if TYPE_CHECKING:
    from stars_guard.backends import ScriptedBackend
    from stars_guard.grammar import Grammar
    from stars_guard.guard import CallOptions, Guard
    from stars_guard.policy import Policy, load_policy
    from stars_guard.scorers import FunctionScorer, Judge
    from stars_guard.segments import Message
    from stars_guard.tools import Tool, Toolset

__all__ = [
    "CallOptions",
    "FunctionScorer",
    "Grammar",
    "Guard",
    "Judge",
    "Message",
    "Policy",
    "ScriptedBackend",
    "StarsGuardError",
    "Tool",
    "Toolset",
    "__version__",
    "load_policy",
]

__version__ = "0.1.0"

_HOMES = {
    "CallOptions": "guard",
    "FunctionScorer": "scorers",
    "Grammar": "grammar",
    "Guard": "guard",
    "Judge": "scorers",
    "Message": "segments",
    "Policy": "policy",
    "ScriptedBackend": "backends",
    "Tool": "tools",
    "Toolset": "tools",
    "load_policy": "policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
