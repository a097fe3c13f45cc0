"""Test doubles and conformance suites, for tests of policies and plugins: yours and ours.

A suite, such as ``BackendTests``, is a class of tests to inherit from. It imports pytest, and so is imported only
when you ask for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stars_guard.testing.function_scorer import FunctionScorer
from stars_guard.testing.scripted import Script, ScriptedBackend

if TYPE_CHECKING:
    from stars_guard.testing.audit_store import AuditStoreTests
    from stars_guard.testing.backend import BackendTests
    from stars_guard.testing.scorer_tests import ScorerTests

__all__ = ["AuditStoreTests", "BackendTests", "FunctionScorer", "ScorerTests", "Script", "ScriptedBackend"]

_SUITES = {"AuditStoreTests": "audit_store", "BackendTests": "backend", "ScorerTests": "scorer_tests"}


def __getattr__(name: str) -> Any:
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_SUITES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
