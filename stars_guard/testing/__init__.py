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

__all__ = ["AuditStoreTests", "BackendTests", "FunctionScorer", "Script", "ScriptedBackend"]

_SUITES = {
    "AuditStoreTests": "stars_guard.testing.audit_store",
    "BackendTests": "stars_guard.testing.backend",
}


def __getattr__(name: str) -> Any:
    if name in _SUITES:
        return getattr(import_module(_SUITES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
