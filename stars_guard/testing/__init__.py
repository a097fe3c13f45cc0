"""Test doubles, for tests of policies and plugins, yours and ours; and the tests that every part has to pass.

The suites need pytest, so each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stars_guard.testing.function_scorer import FunctionScorer
from stars_guard.testing.scripted import Script, ScriptedBackend

if TYPE_CHECKING:
    from stars_guard.testing.scorer_tests import ScorerTests

__all__ = ["FunctionScorer", "ScorerTests", "Script", "ScriptedBackend"]

_SUITES = {"ScorerTests": "scorer_tests"}


def __getattr__(name: str) -> Any:
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUITES[name]}"), name)
